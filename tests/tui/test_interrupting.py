"""ctrl+c: it stops what runs, then interrupts it, and says where that does not reach."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from app_screen import Screen, running, screen
from autograd_tui.core.command import Phase, parse
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.scenario import Parts, Scenario
from autograd_tui.export.live_export import export_live
from autograd_tui.tui import main_screen
from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.trace_screen import TraceScreen

READING, WRITING = os.pipe()


def how() -> str:
    """Return how a forward is to hang. It stands where no way back restores it, as it does attributes of classes."""
    return os.environ.get("HANGS", "")


class Hanging(nn.Linear):
    """Hangs, where it is to: in Python, once or always, in C, or in Python that catches everything."""

    def forward(self, x: Tensor) -> Tensor:
        way = how()
        if way:
            os.environ["HUNG"] = "1"
        if way == "once":
            os.environ["HANGS"] = ""
        while way == "once" or (way == "always" and how()):
            x = x + 0
        if way == "C":
            os.read(READING, 1)
        while way == "stubborn" and how():
            try:
                while how():
                    x = x + 0
            except:  # noqa: E722
                pass
        return super().forward(x)


def free() -> None:
    """Have it hang no more."""
    if how() == "C" and os.environ.get("HUNG"):
        os.write(WRITING, b".")
    os.environ["HANGS"] = os.environ["HUNG"] = ""


def hanging_scenario() -> Scenario:
    def build(options: object) -> Parts:
        x, y = torch.ones(2, 1), torch.ones(2, 3)
        return Parts(model=Hanging(1, 3), batch=lambda i: (x, y), loss=nn.functional.mse_loss)

    return Scenario("hanging", build)


@asynccontextmanager
async def hanging_screen(do: str = "", way: str = "", **options: Any) -> AsyncIterator[Screen]:
    free()

    app = AutogradApp(lambda name: open_session(hanging_scenario(), **options), parse(do), title="hanging")
    async with running(app, (120, 40)) as shown:
        os.environ["HANGS"] = way
        try:
            yield shown
        finally:
            free()


async def hang(shown: Screen, *keys: str) -> None:
    """Press keys, and wait until the model hangs."""
    await shown.pilot.press(*keys)
    await shown.until(lambda: bool(os.environ["HUNG"]))


async def test_a_phase_that_hangs_is_interrupted_by_the_second_press_and_all_goes_on() -> None:
    async with hanging_screen("fbsz", "always") as shown:
        await hang(shown, "f")
        await shown.pilot.press("ctrl+c")
        assert shown.note == "stops after what runs now; ctrl+c once more interrupts it"
        await shown.pilot.press("ctrl+c")
        await shown.settle()
        assert shown.note.startswith("forward was interrupted at test_interrupting.py, line ")
        assert shown.note.endswith(": all is as before it.")
        await shown.pilot.pause(0.5)
        assert shown.note.startswith("forward was interrupted")
        free()
        await shown.press("f", "b")
        assert shown.session.commands() == "fbsz fb"
        await shown.press("ctrl+c")
        assert shown.note == "nothing runs; ctrl+c once more quits"


@pytest.mark.parametrize(
    ("way", "sentence"),
    [
        ("C", "what runs has not returned to Python"),
        ("stubborn", "KeyboardInterrupt was raised, and what runs goes on"),
    ],
)
async def test_where_that_does_not_reach_the_screen_says_so_and_offers_to_quit(
    way: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_screen, "MAX_INTERRUPT_SECONDS", 0.1)
    async with hanging_screen(way=way) as shown:
        await hang(shown, "f")
        await shown.pilot.press("ctrl+c", "ctrl+c")
        assert shown.note == "KeyboardInterrupt is raised in what runs; ctrl+c once more quits"
        await shown.until(lambda: shown.note == f"{sentence}; ctrl+c once more quits")
        free()
        await shown.settle()
        assert "forward was interrupted" in shown.note
        assert shown.session.commands() == ""


async def test_the_third_press_quits_while_a_phase_hangs() -> None:
    async with hanging_screen(way="C") as shown:
        await hang(shown, "f")
        await shown.pilot.press("ctrl+c", "ctrl+c", "ctrl+c")
        assert shown.app.return_code == 130
        free()


async def test_a_run_that_ctrl_c_has_stopped_says_that_once_more_quits() -> None:
    async with hanging_screen() as shown:
        await shown.pilot.press("r")
        await shown.until(lambda: shown.session.newest > 8)
        await shown.press("ctrl+c")
        assert shown.note == "stopped; ctrl+c once more quits"
        await shown.press("ctrl+c")
        assert shown.app.return_code == 130


@pytest.mark.parametrize("keys", ["r", "i", "4000n"])
async def test_whatever_runs_a_phase_that_hangs_can_be_interrupted(keys: str) -> None:
    async with hanging_screen("fbsz*20") as shown:
        if keys != "i":
            await shown.pilot.press(*keys)
            await shown.until(lambda: shown.session.newest > 100)
        os.environ["HANGS"] = "once"
        await hang(shown, *keys * (keys == "i"))
        await shown.pilot.press("ctrl+c", "ctrl+c")
        await shown.settle()
        assert "interrupted at test_interrupting.py, line" in shown.note
        assert shown.app.screen is shown.app.main
        free()
        end = shown.session.frame
        assert end.phase is Phase.ZERO_GRAD
        await shown.press("n")
        assert shown.session.frame.index == end.index + 4
        await shown.press(*f"g{end.index}", "enter")
        assert shown.session.frame.same(end)


async def test_a_way_back_that_hangs_is_interrupted_and_training_stands_where_it_did() -> None:
    async with hanging_screen("fbsz*40") as shown:
        await shown.settle()
        shown.session._replayer.checkpoints.drop_from(1)
        os.environ["HANGS"] = "once"
        await hang(shown, *"g80", "enter")
        await shown.pilot.press("ctrl+c", "ctrl+c")
        await shown.settle()
        assert shown.note.startswith("going back was interrupted at test_interrupting.py, line ")
        assert shown.note.endswith(": training stands at frame 160, as before.")
        assert shown.session.frame.index == 160
        await shown.press("f")
        assert shown.session.commands() == "fbsz*40 f"


async def test_where_the_way_home_hangs_too_it_can_be_left_and_training_stands_at_a_checkpoint() -> None:
    async with hanging_screen("fbsz*40") as shown:
        await shown.settle()
        shown.session._replayer.checkpoints.drop_from(1)
        os.environ["HANGS"] = "always"
        await hang(shown, *"g80", "enter")
        await shown.pilot.press("ctrl+c", "ctrl+c")
        await shown.until(lambda: shown.note.startswith("interrupted; all is put back"))
        await shown.pilot.press("ctrl+c")
        await shown.settle()
        assert shown.note.endswith(": training stands at frame 0 now.")
        assert (shown.session.frame.index, shown.session.newest) == (0, 160)
        free()
        await shown.press(*"g160", "enter")
        assert shown.session.frame.index == 160


async def test_opening_another_scenario_that_hangs_can_be_left_and_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "hangs.py"
    path.write_text("import os\nos.environ['HUNG'] = '1'\nwhile True:\n    pass\n")
    async with screen(do="fb") as shown:
        os.environ["HUNG"] = ""
        await hang(shown, "colon", *f"model {path}", "enter")
        await shown.pilot.press("ctrl+c", "ctrl+c")
        await shown.settle()
        assert shown.note.startswith("hangs.py was interrupted while it was read at hangs.py, line ")
        await shown.press("s")
        assert shown.session.commands() == "fbs"


async def test_an_export_that_hangs_can_be_left_and_writes_nothing(tmp_path: Path) -> None:
    async with hanging_screen("fbsz*3") as shown:
        target = tmp_path / "run.csv"
        shown.app.main.trainer.runner._exporter = export_hanging
        await hang(shown, "colon", *f"export {target}", "enter")
        await shown.pilot.press("ctrl+c", "ctrl+c")
        await shown.settle()
        assert shown.note.startswith("nothing is written: ")
        assert list(tmp_path.iterdir()) == []
        free()
        await shown.press("f")
        assert shown.session.commands() == "fbsz*3 f"


def export_hanging(path: Path, session: Any, *arguments: Any, **options: Any) -> str:
    """Export as the program does, with the scenario of the session, which hangs by then."""
    os.environ["HANGS"] = "always"
    with patch("autograd_tui.export.live_export.open_again", lambda config, name: open_session(hanging_scenario())):
        return export_live(path, session, *arguments, **options)


async def test_a_gradient_check_that_hangs_can_be_left() -> None:
    async with hanging_screen("fb") as shown:
        await shown.press("i")
        await shown.press("p")
        before = shown.session.frame
        os.environ["HANGS"] = "once"
        await hang(shown, "p")
        await shown.pilot.press("ctrl+c", "ctrl+c")
        await shown.settle()
        assert isinstance(shown.app.screen, TraceScreen)
        note = shown.app.screen.view.note
        assert note is not None
        assert "interrupted at test_interrupting.py, line " in note.text
        assert shown.session.frame.same(before)


async def test_a_surface_whose_forward_hangs_can_be_left() -> None:
    async with hanging_screen("fbs") as shown:
        await shown.press("colon", *"surface bias[0] bias[1]")
        os.environ["HANGS"] = "once"
        await hang(shown, "enter")
        await shown.pilot.press("ctrl+c", "ctrl+c")
        await shown.settle()
        assert "surface" in shown.note
        await shown.press("z")
        assert shown.session.commands() == "fbsz"


async def test_ctrl_c_while_something_is_measured_by_itself_says_once_that_is_over_that_once_more_quits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with screen() as shown:
        publisher = shown.app.main.trainer.publisher
        rest = publisher.rest
        monkeypatch.setattr(publisher, "rest", lambda: None)  # the thread, which does nothing, would say so
        for _ in range(2):
            publisher.begin("")  # as while the line's surface is measured
            await shown.pilot.press("ctrl+c")
            assert shown.note == "stops after what runs now; ctrl+c once more interrupts it"
            rest()
            await shown.until(lambda: shown.note == "stopped; ctrl+c once more quits")
            shown.app.main.state.forget_interrupts()
