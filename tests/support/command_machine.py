"""A state machine that runs random commands in a session and in plain PyTorch, and compares them after each."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame, TorchError
from autograd_tui.core.tensor_stats import TensorStats
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.replay import free_run
from autograd_tui.engine.session import Session
from command_oracle import OPTIMIZERS, PlainRun, two_groups
from models_hard_to_repeat import gated, mixed, tripwire, wilful, words
from plain_loop import Build, Tensors, differing, line, small_net
from session_internals import FEW, PLENTY, as_scenario, commands_between, open_with_many_checkpoints, tensors
from suite_options import LONG


@dataclass(frozen=True)
class World:
    build: Build
    target: str  # a value to set
    values: tuple[str, ...]


WORLDS = [
    World(line, "w", ("2", "3", "-1", "nan", "inf")),
    World(small_net, "4.bias[0]", ("2", "-1")),
    World(gated, "gate", ("0", "1", "4")),  # above 3 the forward raises
    World(tripwire, "w", ("1", "2", "4")),  # above 3 the backward raises
    World(words, "out.bias", ("0", "1")),  # Adam raises half way through its step
    World(mixed, "w", ("1", "2")),
    World(wilful, "w", ("1", "2", "4")),
]
IMPOSSIBLE = (
    "optimizer=muon",
    "optimizer=lbfgs",
    "optimizer=adam,momentum=1",
    "lr=-1",
    "lr=nan",
    "nobody=1",
    "@9999",
    "branch=999",
)


class Machine(RuleBasedStateMachine):
    @initialize(
        world=st.sampled_from(WORLDS),
        optimizer=st.sampled_from(list(OPTIMIZERS)),
        seed=st.integers(0, 3),
        decay=st.sampled_from([None, (0.5, 0)]),
        checkpoints=st.sampled_from(["when due", "many", "few", "none"]),
        grouped=st.booleans(),
    )
    def open(
        self,
        world: World,
        optimizer: str,
        seed: int,
        decay: tuple[float, int] | None,
        checkpoints: str,
        grouped: bool,
    ) -> None:
        groups: dict[str, Any] = {"groups": two_groups} if grouped else {}
        scenario, spelled = as_scenario(world.build, **groups), f"{optimizer},lr=0.05"
        plateau = f"plateau:{decay[0]}:{decay[1]}" if decay else None
        options: dict[str, Any] = {"optimizer": spelled, "seed": seed, "decay": plateau}
        self.world = world

        def opened() -> Session:
            if checkpoints == "when due":
                return open_session(scenario, **options)
            budget = {"many": PLENTY, "few": FEW, "none": 1}[checkpoints]
            return open_with_many_checkpoints(scenario, budget=budget, frames=5000, **options)

        self.opened, self.session = opened, opened()
        self.begin()
        self.plain = PlainRun(world.build, optimizer, lr=0.05, seed=seed, decay=decay, **groups)
        self.frames = [self.session.frame]
        self.left: dict[int, list[Frame]] = {}  # by branch

    def begin(self) -> None:
        """Do what is to be done with a session that has just been opened."""

    @rule(letter=st.sampled_from("fbszFBSZ"))
    def phase(self, letter: str) -> None:
        if letter.islower() and not self.may_run(letter):
            self.refused(letter)
            return
        self.run(letter)

    @rule(letter=st.sampled_from("fbszFB"))
    def run_recorded(self, letter: str) -> None:
        if letter.islower() and not self.may_run(letter):
            self.refused(f"i:{letter}")
            return
        frame = self.run(letter, inside="i:")
        assert frame.trace is not None
        assert (frame.trace.phase, frame.trace.index, frame.trace.error) == (frame.phase, frame.index, frame.error)

    @rule(where=st.floats(0, 1))
    def look_inside(self, where: float) -> None:
        index, before = round(where * self.session.newest), self.session.frame
        phase = self.frames[index].phase
        if phase is None:
            with pytest.raises(Refused):
                self.session.trace(index)
        else:
            assert self.session.trace(index).phase is phase
        assert self.session.frame.same(before)

    @rule(times=st.integers(1, 6))
    def go_on(self, times: int) -> None:
        for _ in range(times):
            self.run(str(self.session.next_command()))

    @rule(times=st.integers(2, 9 if LONG else 4), below=st.sampled_from([None, 0.5, 3.0]))
    def run_freely(self, times: int, below: float | None) -> None:
        start = self.session.frame.index
        goal = replace(self.session.end_of(times), below=below)
        left = self.frames[:]
        with patch.object(free_run, "MAX_FRAME_SHARE", 1e9):  # frames as often as they are asked for
            *_, frame = self.session.run_free(goal, lambda: False, every=0)
        del self.frames[start + 1 :]
        for command in commands_between(self.session, start, frame.index):
            raised = self.plain.run(str(command))
        self.remember(left)
        assert wording(frame.error) == wording(raised)
        self.frames += [self.session.look(index) for index in range(start + 1, frame.index)] + [frame]

    @rule(watched=st.sampled_from(["nonfinite", "grad_norm > 1", "still 2", "loss rises 2", None]))
    def watch_for(self, watched: str | None) -> None:
        self.session.disarm() if watched is None else self.session.arm(watched)

    @rule(value=st.sampled_from(["0", "0.01", "0.1", "1e39"]))
    def set_learning_rate(self, value: str) -> None:
        self.run(f"lr={value}")

    @rule(group=st.integers(0, 2), value=st.sampled_from(["0", "0.02", "0.2"]))
    def set_learning_rate_of_a_group(self, group: int, value: str) -> None:
        command = f"lr[{group}]={value}"
        if group < len(self.session.frame.learning_rates):
            self.run(command)
        else:
            self.refused(command)

    @rule(which=st.floats(0, 1), wanted=st.booleans())
    def freeze(self, which: float, wanted: bool) -> None:
        names = ["", *self.plain.params]
        name = names[round(which * (len(names) - 1))]
        self.run(f"{name}.requires_grad={wanted}".removeprefix("."))

    @rule(index=st.integers(0, 4))
    def set_value(self, index: int) -> None:
        self.run(f"{self.world.target}={self.world.values[index % len(self.world.values)]}")

    @rule(index=st.integers(0, 4), letters=st.sampled_from(["FB", "FBS", "FFB", "BFS"]))
    def provoke(self, index: int, letters: str) -> None:
        self.set_value(index)
        for letter in letters:
            self.run(letter)

    @rule(optimizer=st.sampled_from(list(OPTIMIZERS)))
    def change_optimizer(self, optimizer: str) -> None:
        self.run(f"optimizer={optimizer}")

    @rule(command=st.sampled_from(IMPOSSIBLE))
    def ask_the_impossible(self, command: str) -> None:
        self.refused(command)

    @rule(where=st.floats(0, 1))
    def go_to(self, where: float) -> None:
        index = round(where * self.session.newest)
        frame = self.session.run(f"@{index}")
        self.arrive(index, frame)

    @precondition(lambda self: self.session.frame.index > 0)
    @rule()
    def undo(self) -> None:
        index = self.session.frame.index - 1
        self.arrive(index, self.session.run("undo"))

    @precondition(lambda self: self.plain.left)
    @rule(which=st.floats(0, 1))
    def take_branch(self, which: float) -> None:
        numbers = list(self.plain.left)
        number = numbers[round(which * (len(numbers) - 1))]
        left = self.frames
        frame = self.session.run(f"branch={number}")
        self.plain.take_branch(number)
        self.frames = self.left.pop(number)
        self.remember(left)
        assert frame.same(self.frames[-1])

    @rule(letters=st.sampled_from(["F", "FS", "FBS", "FZ"]), times=st.integers(2, 6))
    def never_rest(self, letters: str, times: int) -> None:
        for letter in letters * times:
            self.run(letter)

    @rule(where=st.floats(0, 1))
    def look(self, where: float) -> None:
        index = round(where * self.session.newest)
        assert self.session.look(index).same(self.frames[index])

    @rule()
    def draw_random_numbers_outside(self) -> None:
        torch.rand(3)

    @invariant()
    def every_tensor_is_equal(self) -> None:
        assert differing(tensors(self.session), self.plain.now) == []

    @invariant()
    def the_frame_says_what_the_tensors_are(self) -> None:
        check_frame(self.session.frame, self.plain.now)

    @invariant()
    def the_frame_stands_where_the_oracle_stands(self) -> None:
        assert self.session.frame.index == self.plain.index
        assert self.session.newest == len(self.plain.past) - 1
        assert [branch.number for branch in self.session.branches] == list(self.plain.left)

    @invariant()
    def nothing_differed(self) -> None:
        assert self.session.take_divergence() is None

    def may_run(self, letter: str) -> bool:
        self.plain.catch_up()
        if letter == "b":
            return self.plain.graph == "alive"
        if letter == "s":
            return any(count and not self.plain.used[name] for name, count in self.plain.backwards.items())
        return True

    def run(self, command: str, *, inside: str = "") -> Frame:
        left = self.frames[:]
        frame, raised = self.session.run(inside + command), self.plain.run(command)
        self.remember(left)
        self.frames[frame.index :] = [frame]
        assert wording(frame.error) == wording(raised)
        self.plain.catch_up()
        assert (frame.graph, frame.steps) == (self.plain.graph, self.plain.steps)
        assert frame.grads.backwards == tuple(self.plain.backwards.values())
        assert frame.grads.used == tuple(self.plain.used.values())
        frozen = [place for place, param in enumerate(self.plain.params.values()) if not param.requires_grad]
        assert sorted(frame.frozen) == frozen
        return frame

    def remember(self, left: list[Frame]) -> None:
        """Keep the frames of a run for the branch that it has just become, if it has."""
        for number in self.plain.left.keys() - self.left.keys():
            self.left[number] = left

    def refused(self, command: str) -> None:
        before = self.session.frame, self.session.newest
        with pytest.raises(Refused):
            self.session.run(command)
        assert (self.session.frame, self.session.newest) == before

    def arrive(self, index: int, frame: Frame) -> None:
        self.plain.rewind(index)
        assert frame.same(self.frames[index])


def wording(error: TorchError | BaseException | None) -> tuple[str, str] | None:
    """Give type and text, but for how often a tensor has been written to."""
    if error is None:
        return None
    kind, text = (error.type, error.message) if isinstance(error, TorchError) else (type(error).__name__, str(error))
    return kind, re.sub(r"version \d+", "version", text)


def check_frame(frame: Frame, now: Tensors) -> None:
    """Compare each row with its tensor, by PyTorch's own functions."""
    for row, grad in zip(frame.params, frame.grads, strict=True):
        check_row(row, now[f"parameter {row.name}"])
        check_row(grad, now[f"gradient {row.name}"])
    for row in frame.buffers:
        check_row(row, now[f"buffer {row.name}"])
    for row in frame.optimizer_state:
        check_row(row, now[f"state {row.name}"])
    assert len(frame.optimizer_state) == sum(name.startswith("state ") for name in now)
    for place, rate in enumerate(frame.learning_rates):
        assert rate == now[f"learning rate {place}"]
    loss = now["loss"]
    assert (frame.loss is None) is (loss is None)
    if frame.loss is not None and loss is not None:
        assert torch.equal(torch.tensor(frame.loss), loss.float()) or loss.isnan()


def check_row(row: TensorStats | None, tensor: torch.Tensor | None) -> None:
    assert (row is None) is (tensor is None)
    if row is None or tensor is None or tensor.is_sparse:
        return
    exact = tensor.detach().double().reshape(-1)
    assert (row.shape, row.nonfinite) == (tuple(tensor.shape), int((~exact.isfinite()).sum()))
    numbers = torch.tensor([row.norm, row.min, row.max], dtype=torch.float64)
    expected = torch.stack([torch.linalg.vector_norm(exact), exact.min(), exact.max()])
    torch.testing.assert_close(numbers, expected, equal_nan=True, rtol=1e-6, atol=0)
    if row.values is not None:
        torch.testing.assert_close(torch.tensor(row.values, dtype=torch.float64), exact, equal_nan=True, rtol=0, atol=0)
