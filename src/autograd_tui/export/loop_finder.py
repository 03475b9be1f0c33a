"""A recording as passes of a loop: what repeats stands once, and what each line of a script needs to know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from autograd_tui.core.command import Phase
from autograd_tui.core.command_log import Recording, Step


@dataclass(frozen=True, slots=True)
class LoopPass:
    """One setting, or the phases from one forward to the next, run so many times."""

    steps: tuple[Step, ...]
    times: int = 1


def find_loops(recording: Recording) -> list[LoopPass]:
    """Take a recording apart into passes; neighbours that are alike become one."""
    runs = groupby(_split_passes(recording), key=lambda each: each.steps)
    return [LoopPass(steps, sum(each.times for each in alike)) for steps, alike in runs]


def _split_passes(recording: Recording) -> Iterator[LoopPass]:
    started: list[Step] = []  # the pass that is still going on
    for stretch in recording.stretches:
        if stretch.times > 1:
            yield from _flush(started)
            yield LoopPass(stretch.steps, stretch.times)
            continue
        for step in stretch.steps:
            if step.command.phase in (None, Phase.FORWARD):
                yield from _flush(started)
            started.append(step)
            if step.command.phase is None:
                yield from _flush(started)
    yield from _flush(started)


def _flush(started: list[Step]) -> Iterator[LoopPass]:
    if started:
        yield LoopPass(tuple(started))
        started.clear()


@dataclass(slots=True)
class LoopProgress:
    """How far a run has come, as far as it shows in the commands alone."""

    iteration: int = 0
    steps: int = 0
    loss_steps: int = 0
    graph: Literal["none", "alive", "freed"] = "none"
    grads: Literal["none", "fresh", "used"] = "none"
    has_loss: bool = False

    @property
    def next_iteration(self) -> int:
        """Give the iteration that a forward from here belongs to."""
        return self.iteration + (self.iteration == 0 or self.steps > self.loss_steps)

    def advance(self, step: Step) -> None:
        """Go on by one command."""
        phase = step.command.phase
        if phase is Phase.BACKWARD and self.graph == "alive":
            self.graph = "freed"  # also where it raises
        if step.raised or phase is None:
            return
        if phase is Phase.FORWARD:
            self.iteration, self.loss_steps = self.next_iteration, self.steps
            self.graph, self.has_loss = "alive", True
        elif phase is Phase.BACKWARD:
            self.grads = "fresh"
        elif phase is Phase.STEP:
            self.steps += 1
            self.grads = "none" if self.grads == "none" else "used"
        else:
            self.grads = "none"
