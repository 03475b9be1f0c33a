"""Going back on the screen: what it says meanwhile, and giving it up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from threading import Semaphore
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app_screen import Screen, running, screen
from autograd_tui.core.command import parse
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.scenario import Parts, Scenario
from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.trace_screen import TraceScreen


class Gate:
    """Lets so many forwards pass; all of them while it is open."""

    def __init__(self) -> None:
        self.is_open = True
        self._passes = Semaphore(0)

    def wait(self) -> None:
        if not self.is_open:
            self._passes.acquire()

    def let_pass(self, forwards: int) -> None:
        self._passes.release(forwards)

    def open(self) -> None:
        self.is_open = True
        self._passes.release(1)


class Slow(nn.Module):
    """Takes as long for a forward as the gate makes it."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))
        self.wait = gate.wait  # the gate itself is none of the model's, to be put back with it

    def forward(self, x: Tensor) -> Tensor:
        self.wait()
        return self.w * x


class Counting(Slow):
    """Counts where no checkpoint looks."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate)
        self.elsewhere: Any = ModuleType("elsewhere")
        self.elsewhere.calls = 0  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        self.elsewhere.calls += 1
        return self.w * x + self.elsewhere.calls


@asynccontextmanager
async def slow_screen(
    do: str, *, model: Callable[[Gate], nn.Module] = Slow, memory: str = "1GiB"
) -> AsyncIterator[tuple[Screen, Gate]]:
    gate, x = Gate(), torch.tensor([1.0, 2.0])
    scenario = Scenario(
        "slow", lambda options: Parts(model=model(gate), batch=lambda i: (x, 4 * x), loss=nn.functional.mse_loss)
    )
    app = AutogradApp(lambda name: open_session(scenario, memory=memory), parse(do), title="slow")
    async with running(app, (120, 40)) as shown:
        shown.session._replayer.checkpoints.drop_from(1)  # a machine under load may have taken more
        yield shown, gate


@pytest.mark.parametrize("key", ["escape", "q", "ctrl+c"])
async def test_going_back_says_how_far_it_is_and_can_be_given_up(key: str) -> None:
    async with slow_screen("fbsz*30 fb") as (shown, gate):
        gate.is_open = False
        await shown.pilot.press(*"g80", "enter")
        gate.let_pass(10)
        await shown.until(lambda: shown.note == "going back: 40 of 80 frames, escape gives it up")
        await shown.pilot.press(key)
        gate.open()
        await shown.settle()
        assert shown.note == "going back was given up: training stands at frame 122, as before."
        assert (shown.session.frame.index, shown.session.newest) == (122, 122)
        assert "frame 122 of 122" in shown.text("StatusPanel")
        await shown.press("s")
        assert shown.session.commands() == "fbsz*30 fbs"


async def test_a_look_at_a_frame_to_be_made_again_can_be_given_up() -> None:
    async with slow_screen("fbsz*30 fb") as (shown, gate):
        index = next(index for index in range(60, 120) if shown.session.stored(index) is None)
        gate.is_open = False
        shown.app.main.look_at(index)
        gate.let_pass(5)
        await shown.until(lambda: shown.note.startswith(f"going back: 20 of {index} frames"))
        await shown.pilot.press("escape")
        gate.open()
        await shown.settle()
        assert "given up" in shown.note
        assert "frame 122 of 122" in shown.text("StatusPanel")


async def test_a_recording_of_a_frame_looked_at_can_be_given_up() -> None:
    async with slow_screen("fbsz*30 fb") as (shown, gate):
        shown.app.main.look_at(82)
        await shown.settle()
        gate.is_open = False
        await shown.pilot.press("i")
        inside = shown.app.screen
        assert isinstance(inside, TraceScreen)
        gate.let_pass(10)
        await shown.until(
            lambda: inside.view.note is not None and inside.view.note.text.startswith("going back: 40 of")
        )
        await shown.pilot.press("escape")
        gate.open()
        await shown.settle()
        assert shown.app.screen is shown.app.main
        assert "given up" in shown.note
        assert shown.session.frame.index == 122


async def test_a_branch_that_takes_too_long_leaves_all_as_it_was() -> None:
    async with slow_screen("fbsz*30 @4 lr=0.1 fbsz*2") as (shown, gate):
        before = shown.session.frame
        gate.is_open = False
        await shown.pilot.press(":", *"branch=1", "enter")
        gate.let_pass(3)
        await shown.until(lambda: shown.note.startswith("going back: 12 of 120 frames"))
        await shown.pilot.press("escape")
        gate.open()
        await shown.settle()
        assert shown.session.frame.same(before)
        assert [branch.number for branch in shown.session.branches] == [1]
        assert shown.session.commands() == "fbsz lr=0.1 fbsz*2"


async def test_what_was_rewound_over_is_listed_and_returned_to() -> None:
    async with slow_screen("fbsz*3 @4 lr=0.1") as (shown, _):
        await shown.press(":", *"bra")
        assert "branch=" in shown.text("CompletionList")
        await shown.press(*"nch=")
        assert "12 frames, left at frame 4, last loss" in shown.text("CompletionList")
        await shown.press("tab", "enter")
        assert shown.session.commands() == "fbsz*3"
        assert "frame 12 of 12" in shown.text("StatusPanel")


async def test_a_command_from_an_earlier_frame_says_what_it_leaves_and_how_to_return() -> None:
    async with slow_screen("fbsz*2") as (shown, _):
        await shown.press("left", "left", "l", *"0.5", "enter")
        assert shown.note == "frames 7 to 8 are kept as a branch: :branch=1 returns there."
        await shown.press("s")
        assert shown.note == ""


async def test_the_screen_says_at_the_start_what_going_back_will_cost() -> None:
    async with slow_screen("", memory="1kB") as (shown, _):
        assert shown.note == (
            "no checkpoint of 16.4 kB fits into --memory 1kB: going back runs everything again from frame 0."
        )
        await shown.press("f")
        assert shown.note == ""


async def test_the_screen_says_at_which_frame_a_rerun_differs() -> None:
    async with slow_screen("fb", model=Counting) as (shown, _):
        await shown.press("u")
        assert shown.note.startswith("run again, frame 1 is not what it was: loss ")


async def test_a_run_says_that_it_waits_for_an_iteration_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autograd_tui.tui.screen_state.SILENCE", 0.2)
    async with slow_screen("fbsz") as (shown, gate):
        gate.is_open = False
        await shown.pilot.press("r")
        await shown.until(lambda: shown.note.startswith("this iteration has run for"))
        gate.open()
        await shown.until(lambda: shown.note.startswith("running at"))
        await shown.press("space")
        assert shown.session.frame.error is None


async def test_a_command_that_is_repeated_after_looking_back_leads_to_the_frame_that_is_there() -> None:
    async with screen(do="fbsz*2") as shown:
        last = shown.session.frame
        for keys in (["b"], ["space", "space"], ["n"]):
            await shown.press("less_than_sign", "right", *keys)
            assert shown.session.branches == ()
            assert shown.session.newest == 8
        assert shown.session.frame.index == 4
        assert shown.note == "gone back to frame 4: the later ones stay until a command runs"
        await shown.press("n")
        assert shown.session.frame.same(last)
        await shown.press("less_than_sign", "right", *":lr=0.05", "enter")
        assert len(shown.session.branches) == 1
