"""A script's free run: events are taken down as they pass, and one whole iteration has frames now and then."""

from __future__ import annotations

import math
import threading
import weakref
from array import array
from collections.abc import Callable
from time import monotonic
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import Series
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.watchpoint import Range
from autograd_tui.engine.script.call_site import position
from autograd_tui.engine.script.event_counts import CountedEvent, Forwards
from autograd_tui.engine.script.watch_filter import WatchFilter

if TYPE_CHECKING:
    from autograd_tui.engine.script.loop_phases import Phases
    from autograd_tui.engine.script.watch_filter import MayHold, WatchFilter

ALL: Range = (-math.inf, math.inf)
_get_ident = threading.get_ident
_function_modes = torch._C._len_torch_function_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_cuda = torch.cuda
MAX_FRAME_SHARE = 0.02  # of a free run's time that frames may cost
UNTIMED_SHARE = 0.5  # what following an iteration costs beside its frames, as a share of what those cost
MAX_WAIT = 60.0  # seconds for the next iteration to begin, before frames are made of the present one
MAX_SHOWN_EVENTS = 256  # in a row: of a script whose iterations do not end it is not known when they do
MAX_PASSED = 1024  # forwards that pass before the events are counted
MAX_LOSSES = 1 << 15  # that are sent at once, before they are thinned
MAX_WAITING_LOSSES = 256  # on an accelerator, before they are copied to the host together


def _no_loss() -> None:
    """Stand for a reference to the last loss, before there is one."""


class Indexed(Protocol):
    """Bytes, of which some may be shared with another process."""

    def __getitem__(self, index: int, /) -> int: ...


class PassedEvents:
    """Takes down the events of usual calls, as long as no frame may be wanted of any of them.

    What is in none of its methods the seams do themselves: to call one costs as much as what it does.
    """

    __slots__ = (
        "_code",
        "_forward",
        "_goal",
        "_instruction",
        "_loss",
        "_may_hold_of_activations",
        "_phases",
        "_range",
        "_version",
        "_watch",
        "due",
        "events",
        "forwards_left",
        "losses",
        "may_hold_of_grads",
        "may_hold_of_params",
        "pause",
        "steps",
        "thread",
        "zero_grads",
    )

    def __init__(self, phases: Phases, goal: Goal, *, watch: WatchFilter | None, pause: Indexed) -> None:
        """Listen to the thread that this is made in, where the phases are told to."""
        self._phases, self._goal, self._watch, self.pause = phases, goal, watch, pause
        self.thread = _get_ident()
        self.steps: dict[int, CountedEvent] = {}  # of known optimizers and modules, by their ids
        self.zero_grads: dict[int, CountedEvent] = {}
        self.due = 0.0  # when the next forward is to be counted as any other, by `monotonic`
        self.forwards_left = 0  # until then
        self.events: list[CountedEvent] = []
        self.losses = array("d")  # of the forwards among them
        self._loss: Callable[[], Tensor | None] = _no_loss  # of the last forward
        self._version = 0
        self._code: CodeType | None = None  # the script's own, that the last forward's backward was called from
        self._instruction = -1
        self._forward: CountedEvent = "forward", (0, 0)
        self._range: Range | None = None  # of losses that nobody waits for; None where all are
        self._may_hold_of_activations: MayHold | None = None  # these three are None where nobody asks
        self.may_hold_of_grads: MayHold | None = None
        self.may_hold_of_params: MayHold | None = None

    def takes_forward(self, loss: Any, frame: FrameType) -> bool:
        """Take down the forward that ends where the function of `frame` calls the backward of `loss`.

        Return False where it is to be counted as any other, behind those that were taken down.
        """
        if (
            self.pause[0]
            or self.forwards_left <= 0
            or type(loss) is not Tensor
            or not loss.is_cpu
            or self._loss() is loss
            or _get_ident() != self.thread
            or _function_modes()
            or _dispatch_modes()
            or monotonic() >= self.due
        ):
            return False
        try:
            value = loss.item()
        except Exception:  # it is not one number
            return False
        if type(value) is not float:
            return False
        if self._range is not None and not self._range[0] <= value <= self._range[1]:  # NaN is in no range
            return False
        if self._may_hold_of_activations is not None and self._may_hold_of_activations():
            return False
        if frame.f_lasti != self._instruction or frame.f_code is not self._code:
            self._find_place(frame)
        self._loss, self._version = weakref.ref(loss), loss._version
        self.forwards_left -= 1
        self.events.append(self._forward)
        self.losses.append(value)
        return True

    def _find_place(self, frame: FrameType) -> None:
        place = position(frame)
        self._forward = "forward", place
        is_own = place == (id(frame.f_code), frame.f_lasti)  # or a library's, that several lines of the script's call
        self._code, self._instruction = frame.f_code if is_own else None, frame.f_lasti

    def go_on(self, due: float, forwards: int) -> None:
        """Take down events until the time `due`, and no more than so many forwards."""
        cleared = self._phases.counts.cleared
        self.steps = {key: ("step", key) for key in cleared}
        self.zero_grads = {key: ("zero_grad", key) for key in cleared}
        low = -math.inf if self._goal.below is None else self._goal.below
        high = math.inf if self._goal.above is None else self._goal.above
        if self._watch is not None:
            low, high = max(low, self._watch.losses[0]), min(high, self._watch.losses[1])
            self._may_hold_of_activations, self.may_hold_of_grads, self.may_hold_of_params = self._watch.tests(
                self._phases
            )
        self._range = None if (low, high) == ALL else (low, high)
        self._loss = self._phases.loss_ref or _no_loss
        self.due, self.forwards_left = due, 0 if _cuda._initialized else forwards

    def take(self) -> tuple[list[CountedEvent], array[float]]:
        """Return the events, and the losses of the forwards among them, and begin anew."""
        events, losses = self.events, self.losses
        self.events, self.losses = [], array("d")
        if losses:
            self._phases.loss_ref, self._phases.loss_version = self._loss, self._version  # type: ignore[assignment]
        return events, losses


class LossRecord:
    """The losses since the last message to the screen; on an accelerator they wait to be copied together."""

    def __init__(self) -> None:
        self._series = Series(MAX_LOSSES)
        self._waiting: list[tuple[int, int, Tensor]] = []

    def add(self, index: int, iteration: int, loss: Tensor) -> float | None:
        """Add the loss of a forward; return it, None where that would have to wait for an accelerator.

        A loss that is not one number is left out, and one that would be gathered from all ranks.
        """
        if type(loss) is not Tensor and hasattr(loss, "to_local"):
            return None
        if loss.is_cpu:
            try:
                value = loss.item()
            except RuntimeError:
                return None
            if type(value) is not float:
                return None
            self._series.append(index, iteration, value)
            return value
        if loss.numel() != 1 or loss.is_complex():
            return None
        self._waiting.append((index, iteration, loss.detach().clone()))
        if len(self._waiting) >= MAX_WAITING_LOSSES:
            self._sort_in()
        return None

    def extend(self, forwards: Forwards, losses: array[float]) -> None:
        """Add the losses of forwards."""
        self._sort_in()
        self._series.extend(*forwards, losses)

    def take(self) -> Series:
        """Return the losses, and begin anew."""
        self._sort_in()
        series, self._series = self._series, Series(MAX_LOSSES)
        return series

    def _sort_in(self) -> None:
        """Add what waits to the series, with one wait for each device."""
        waiting, self._waiting = self._waiting, []
        with torch.no_grad():
            for device in dict.fromkeys(loss.device for *_, loss in waiting):
                there = [each for each in waiting if each[2].device == device]
                values = torch.stack([loss.reshape(()).double() for *_, loss in there]).tolist()
                for (index, iteration, _), value in zip(there, values, strict=True):
                    self._series.append(index, iteration, value)


class FreeRun:
    """Says of each event whether it needs a frame, and of each frame whether the screen gets it and the run ends there.

    Frames are made of one whole iteration about every so many seconds, fewer where they would cost too much; of the
    last one before an iteration that is the goal; and of an event where a watchpoint may hold.
    """

    def __init__(
        self,
        phases: Phases,
        goal: Goal,
        *,
        every: float,
        watch: WatchFilter | None,
        losses: LossRecord,
        pause: Indexed,
    ) -> None:
        """Begin where the script is held.

        every: seconds between two iterations with frames
        watch: None where no watchpoint is armed
        pause: of which the first number is not 0 where the script is to be held at its next event
        """
        self._goal, self._every, self._watch = goal, every, watch
        self._losses, self._pause = losses, pause
        self._ends_at_loss = goal.on_loss
        self._needs_losses = goal.on_loss or watch is not None
        self._makes_all = watch is not None and not watch.suffices  # whether each event needs a frame
        self._shows = False  # whether the screen gets the frames of the present iteration
        self._shows_next = phases.counts.iteration == 0
        self._shown = 0  # events of this iteration, while they are shown
        self._cost, self._frame_began = 0.0, 0.0  # seconds
        self._due = monotonic() + every  # when frames are wanted again
        self._iteration = phases.counts.iteration
        self._needs_frame = self._makes_all
        may_pass = watch is None or (watch.suffices and not watch.counts)
        self._passed = PassedEvents(phases, goal, watch=watch, pause=pause) if may_pass else None
        if phases.counts.iteration:
            self._shows_next = phases.counts.iteration == 1
            self._begin_iteration(phases)
        self._follow(phases)
        counts_moves = watch is not None and watch.counts_moves and not self._makes_all
        phases.before_step = watch.before_step if watch is not None and counts_moves else None

    def lets_pass(self, phases: Phases, name: str) -> bool:
        """Return whether the event needs no frame."""
        loss = None
        if name == "forward":
            loss = self._note_loss(phases)
            if self._needs_frame or phases.counts.iteration != self._iteration or monotonic() >= self._due:
                self._look_at_iteration(phases)
        needs_frame = (
            self._needs_frame
            or self._pause[0] != 0
            or (self._watch is not None and self._watch.may_hold(phases, name, loss))
            or (self._ends_at_loss and self._goal.has_loss(loss))
        )
        if name == "step" and phases.before_step is not None and not (needs_frame and phases.follows_step):
            assert self._watch is not None
            needs_frame |= self._watch.count_moves(phases)
        if needs_frame:
            phases.frames = True
            self._frame_began = monotonic()
            return False
        if name == "forward" and self._passed is not None:
            self._let_pass(phases, self._passed)
        return True

    def note_passed(self, phases: Phases) -> None:
        """Take note that events have passed without a look at them."""
        self._iteration = phases.counts.iteration

    def _let_pass(self, phases: Phases, passed: PassedEvents) -> None:
        """Have the coming events taken down alone, up to the forward of which something may be wanted again."""
        end = self._goal.iteration
        forwards = MAX_PASSED if end is None else min(MAX_PASSED, end - 2 - phases.counts.iteration)
        is_usual = not (phases.frames or phases.inside or phases.scaled) and forwards > 0
        is_known = self._watch is None or not phases.registry.changed
        phases.passed = passed if is_usual and is_known else None
        passed.go_on(self._due, forwards)

    @property
    def counts_all(self) -> bool:
        """Whether what the watchpoints remember was counted at each event, also where no frame was made."""
        return self._watch is not None and not self._makes_all

    @property
    def shows(self) -> bool:
        """Whether the screen gets the present frame, even though the run goes on."""
        return self._shows

    def ends_at(self, frame: Frame, *, ends_iteration: bool) -> bool:
        """Return whether the run ends at a frame; `ends_iteration`: whether that is its iteration's last one."""
        if self._pause[0] or (frame.phase is Phase.FORWARD and self._goal.has_loss(frame.loss)):
            return True
        end = self._goal.iteration
        return end is not None and (frame.iteration > end or (frame.iteration == end and ends_iteration))

    def go_on(self, phases: Phases) -> None:
        """Take note that the run goes on behind a frame."""
        self._cost += monotonic() - self._frame_began
        if self._watch is not None:
            self._watch.look_anew()
        self._shown += 1
        if self._shown > MAX_SHOWN_EVENTS and self._shows and self._goal.iteration is None:
            self._end_showing()
        self._follow(phases)

    def _look_at_iteration(self, phases: Phases) -> None:
        """Turn frames on or off as a forward begins an iteration, or comes when frames are due."""
        now = monotonic()
        if phases.counts.iteration != self._iteration or (self._shows_next and now >= self._due + MAX_WAIT):
            self._begin_iteration(phases)
        if not self._shows and not self._shows_next and now >= self._due:
            self._shows_next = phases.frames = True

    def _begin_iteration(self, phases: Phases) -> None:
        self._iteration = phases.counts.iteration
        end = self._goal.iteration
        if end is None and not self._shows and not self._shows_next:
            return
        if self._shows:
            self._end_showing()
        is_last = end is not None and phases.counts.iteration >= end
        self._shows = self._shows_next or is_last
        self._shows_next = end is not None and phases.counts.iteration == end - 1
        self._shown = 0
        self._follow(phases)

    def _follow(self, phases: Phases) -> None:
        """Have everything followed that the frames need which will be made."""
        is_near = self._watch is not None and self._watch.is_near_stillness
        self._needs_frame = self._shows or self._makes_all or is_near
        phases.frames = self._needs_frame or self._shows_next

    def _end_showing(self) -> None:
        self._due = monotonic() + max(self._every, self._cost * (1 + UNTIMED_SHARE) / MAX_FRAME_SHARE)
        self._shows, self._cost = False, 0.0

    def _note_loss(self, phases: Phases) -> float | None:
        """Remember the loss of a forward for the plot; return it where somebody looks at each one."""
        loss = phases.loss
        if loss is None:
            return None
        value = self._losses.add(phases.counts.index, phases.counts.iteration, loss)
        if value is None and self._needs_losses and not loss.is_cpu and type(loss) is Tensor and loss.numel() == 1:
            value = float(loss.item())
        return value
