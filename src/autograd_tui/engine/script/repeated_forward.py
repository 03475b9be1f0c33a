"""A script's own forward, made again and again in forked copies of its process; nothing of the script moves.

Each copy has the same parameters, batch and random numbers. First one copy runs on as the script did, and learns where
the forward begins and what comes of it. Then another runs on to there, and is forked for each measurement: in that fork
parameters are moved, and the script's code runs on to where it calls backward.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.engine.gradcheck.detached_values import CallPoints, OperationsDiffer
from autograd_tui.engine.script.agent_messages import GradientOrder, SurfaceOrder
from autograd_tui.engine.script.forked_copy import Answers, Failure, ForkedCopy, RunsOn, failure_of, fork_copy
from autograd_tui.engine.script.recording import has_compiled, mode_of_script
from autograd_tui.engine.script.snapshot import why_not
from autograd_tui.engine.tracing.autograd_graph import is_leaf
from autograd_tui.engine.training.state import graph_nodes

if TYPE_CHECKING:
    from array import array

    from autograd_tui.engine.script.agent import Agent
    from autograd_tui.engine.script.event_counts import Forwards
    from autograd_tui.engine.script.loop_phases import Phases

MAX_SECONDS = 30.0  # for one forward
HARMLESS = ("grad", "zero_grad")  # events that may come inside a forward which is made again
OTHER_WAY = "the script goes another way where its forward is made again."
NICENESS = 5  # of a copy that measures: the script and the screen come first
Order = GradientOrder | SurfaceOrder


def measured(
    agent: Agent,
    order: Order,
    rehearsal: type[Rehearsal],
    repetition: Callable[[Any, Any, Answers, Any], RepeatedForward],
    is_wanted: Callable[[], bool],
    tell: Callable[[Any], object],
) -> Any:
    """Return what a repetition comes to that is made of what a rehearsal has learned; each has a copy of its own.

    It is called where the script is held before the forward; `tell` takes the progress. In the copies it raises RunsOn.
    Raises Refused where there is nothing, or nothing `is_wanted` any more.
    """
    if reason := why_not():
        raise Refused(f"the forward cannot be made again: {reason}.")
    if mode := mode_of_script():
        raise Refused(f"the script is inside a mode of its own here, {mode}, in which a forward is not made again.")
    if has_compiled():
        raise Refused("torch.compile has compiled a part of this script, which could not be made again as it was.")
    rehearsed = _answer(_forked(agent, lambda answers: rehearsal(agent, order, answers)), is_wanted, tell)
    return _answer(_forked(agent, lambda answers: repetition(agent, order, answers, rehearsed)), is_wanted, tell)


def _answer(copy: ForkedCopy, is_wanted: Callable[[], bool], tell: Callable[[Any], object]) -> Any:
    answer = copy.answer(is_wanted, on_progress=tell)
    if isinstance(answer, Failure):
        raise Refused(answer.sentence)
    return answer


def _forked(agent: Agent, make: Callable[[Answers], CopyListener]) -> ForkedCopy:
    """Fork a copy in which what is made there hears of the script's events."""
    assert agent.seams is not None
    forked = fork_copy(agent.seams)
    if isinstance(forked, ForkedCopy):
        return forked
    try:
        agent.detach()
        phases = agent.phases
        if phases.recorder is not None:
            phases.recorder.disarm()
        phases.frames = False
        phases.watch_activations(())
        listener = make(forked)
        phases.agent = listener
        listener.begin()
    except Exception as error:
        forked.end(failure_of(error))
    raise RunsOn


class CopyListener:
    """What the phases of a forked copy tell of each event, in place of an agent: it holds none, and takes no frame."""

    def __init__(self, agent: Agent, order: Order, answers: Answers) -> None:
        self.phases, self.order, self.answers = agent.phases, order, answers
        self.points = CallPoints(self._reach)
        self._count = 0  # points that were reached: calls and events from the stop before

    def begin(self) -> None:
        """Listen to the calls from here on."""
        self.points.__enter__()  # type: ignore[no-untyped-call]

    def _reach(self) -> None:
        """Count a point."""
        raise NotImplementedError

    def lets_pass(self, phases: Phases, name: str) -> bool:
        """Look at an event, and return True."""
        raise NotImplementedError

    def note_passed(self, forwards: Forwards, losses: array[float], last: str) -> None:
        """Do nothing: none passes here."""

    def stop(self, frame: Frame) -> None:
        """Take no frame."""

    def give_up(self, reason: str) -> None:
        """Answer that a seam has failed."""
        self.answers.fail("a seam has failed where the forward was made again.")


class Rehearsal(CopyListener):
    """Runs on as the script did, and notes between which calls the forward began."""

    def __init__(self, agent: Agent, order: Order, answers: Answers) -> None:
        super().__init__(agent, order, answers)
        self.start = 0  # points from the stop before up to where the forward begins
        self._counts: dict[int, int] = {}  # that were reached while the next node would have been of this number
        self._events: list[tuple[int, str]] = []  # with the points before

    def begin(self) -> None:
        self._counts[next_node()] = 0
        super().begin()

    def end_forward(self, loss: Tensor, unscaled: Tensor) -> None:
        """Learn what is wanted of the forward, where its backward is about to run."""

    def go_on(self, phases: Phases, name: str) -> None:
        """Learn what is wanted of an event behind the forward, and answer."""
        raise NotImplementedError

    def begin_later(self, loss: Tensor) -> None:
        """Find a later beginning, where the first one is not known or too much comes behind it."""
        self.refuse_start("its parameters")

    def lets_pass(self, phases: Phases, name: str) -> bool:
        """Look at the forward where it comes, and at what comes behind it."""
        forward = self.order.forward
        if phases.counts.index < forward:
            self._reach()
            self._events.append((self._count, name))
        elif phases.counts.index > forward:
            self.go_on(phases, name)
        elif name == "forward":
            self._find_start(phases)
        else:
            self.answers.fail(OTHER_WAY)
        return True

    def _reach(self) -> None:
        self._count += 1
        self._counts[next_node()] = self._count

    def _find_start(self, phases: Phases) -> None:
        """Learn where the forward began: before the first node of the loss's graph."""
        loss, unscaled, expected = phases.backward_loss, phases.loss, self.order.loss
        if loss is None or unscaled is None or not phases.is_loss_alone or loss.numel() != 1:
            self.answers.fail("the backward does not begin at one loss that is one number: nothing can be measured.")
        value = float(unscaled.item())
        if not math.isfinite(value):
            self.answers.fail("the loss is not finite, so nothing can be measured around it.")
        if expected is not None and value != expected:
            self.answers.fail(
                f"the forward gives another loss where it is made again ({value:.6g}, and {expected:.6g} before): "
                "no difference means anything."
            )
        if not self.begins_before(first_node(loss)):
            self.begin_later(loss)
        self.end_forward(loss, unscaled)

    def begins_before(self, node: int | None) -> bool:
        """Have the forward begin before a node; return whether nothing but what is harmless comes behind that."""
        starts = [count for number, count in self._counts.items() if node is not None and number <= node]
        self.start = max(starts, default=-1)
        return bool(starts) and not self._between

    def refuse_start(self, moved: str) -> NoReturn:
        """Answer why the forward cannot be made again from its beginning."""
        if self.start < 0 and self.phases.counts.iteration == 1:
            self.answers.fail("this forward ran before anything of the script was followed: it cannot be made again.")
        if self.start < 0:
            self.answers.fail("this forward has begun too long before its backward to be made again.")
        self.answers.fail(
            f"the script calls {_listed(self._between)} between the beginning of this forward and its backward: "
            f"moving {moved} before would change that too."
        )

    @property
    def _between(self) -> list[str]:
        """The events between the beginning of the forward and its end that change more than gradients."""
        return [name for count, name in self._events if count > self.start and name not in HARMLESS]


class RepeatedForward(CopyListener):
    """Runs on to where the forward begins, and measures there: each time in a fork that makes the forward again."""

    def __init__(self, agent: Agent, order: Order, answers: Answers, start: int) -> None:
        super().__init__(agent, order, answers)
        assert agent.seams is not None
        self.seams, self._start = agent.seams, start
        self._measures = False  # in a fork that measures

    def begin(self) -> None:
        """Measure here, or once the calls before the forward have been made."""
        os.nice(NICENESS)
        super().begin()
        if not self._start:
            self._stand()

    def work(self) -> Any:
        """Measure, where the forward begins, and return the answer."""
        raise NotImplementedError

    def measure(self, loss: Tensor) -> Any:
        """Return the answer of a fork, where the forward ends in it."""
        raise NotImplementedError

    def make_forward(self, prepare: Callable[[], None]) -> Any:
        """Return what a fork answers that makes the forward; in it, prepare that and raise RunsOn."""
        copy = fork_copy(self.seams)
        if isinstance(copy, ForkedCopy):
            answer = copy.answer(lambda: self.answers.are_wanted, seconds=MAX_SECONDS)
            if isinstance(answer, Failure):
                raise OperationsDiffer if answer.other_operations else Refused(answer.sentence)
            return answer
        self.answers, self._measures = copy, True
        try:
            prepare()
        except Exception as error:
            copy.end(failure_of(error))
        raise RunsOn

    def _reach(self) -> None:
        self._count += 1
        if self._count == self._start and not self._measures:
            self._stand()

    def _stand(self) -> None:
        """Answer with what is measured and end this process; return in a fork that measures."""
        try:
            with torch._C.DisableTorchFunction(), torch.inference_mode(False), torch.no_grad():
                self.answers.end(self.work())
        except RunsOn:
            return
        except Exception as error:
            self.answers.end(failure_of(error))

    def lets_pass(self, phases: Phases, name: str) -> bool:
        """Answer where the forward ends."""
        is_end = phases.counts.index == self.order.forward and name == "forward"
        if self._measures and is_end:
            self._end_forward(phases)
        if phases.counts.index >= self.order.forward or (self._measures and name not in HARMLESS):
            self.answers.fail(OTHER_WAY)
        self._reach()
        return True

    def _end_forward(self, phases: Phases) -> None:
        loss = phases.backward_loss
        if loss is None or loss.numel() != 1:
            self.answers.fail(OTHER_WAY)
        try:
            self.answers.end(self.measure(loss))
        except Exception as error:
            self.answers.end(failure_of(error))


def first_node(loss: Tensor, param: Tensor | None = None) -> int | None:
    """Return the number of the first node of a loss's graph, or of the first that uses a parameter; None for none."""
    nodes = list(graph_nodes(loss))
    if param is None:
        return min((node._sequence_nr() for node in nodes if not is_leaf(node)), default=None)
    leaves = {node for node in nodes if is_leaf(node) and node.variable is param}
    users = (node for node in nodes for used, _ in node.next_functions if used in leaves)
    return min((node._sequence_nr() for node in users), default=None)


def next_node() -> int:
    """Return the number that the next node of a graph will have; those of later nodes are greater."""
    number: int = torch.autograd._get_sequence_nr()
    return number


def _listed(names: Sequence[str]) -> str:
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} and {last}" if others else last
