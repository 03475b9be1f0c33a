"""A script's free run: its events pass without frames, except in a whole iteration now and then."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import Series
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.script.watch_filter import WatchFilter

if TYPE_CHECKING:
    from autograd_tui.engine.script.loop_phases import Phases

MAX_FRAME_SHARE = 0.03  # of a free run's time that frames may cost
UNTIMED_SHARE = 0.5  # what following an iteration costs beside its frames, as a share of what those cost
MAX_WAIT = 60.0  # seconds for the next iteration to begin, before frames are made of the present one
MAX_SHOWN_EVENTS = 256  # in a row: of a script whose iterations do not end it is not known when they do
MAX_WAITING_LOSSES = 256  # on an accelerator, before they are copied to the host together


class LossRecord:
    """The losses since the last message to the screen; on an accelerator they wait to be copied together."""

    def __init__(self) -> None:
        self._series = Series()
        self._waiting: list[tuple[int, int, Tensor]] = []

    def add(self, index: int, iteration: int, loss: Tensor) -> float | None:
        """Add the loss of a forward; return it, None where that would have to wait for an accelerator."""
        if loss.is_cpu:
            value = float(loss.item())
            self._series.append(index, iteration, value)
            return value
        self._waiting.append((index, iteration, loss.detach().clone()))
        if len(self._waiting) >= MAX_WAITING_LOSSES:
            self._copy()
        return None

    def take(self) -> Series:
        """Return the losses, and begin anew."""
        self._copy()
        series, self._series = self._series, Series()
        return series

    def _copy(self) -> None:
        """Copy to the host what waits, with one wait for each device."""
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
        is_paused: Callable[[], bool],
    ) -> None:
        """`every`: seconds between two iterations with frames; `watch`: None where no watchpoint is armed."""
        self._goal, self._every, self._watch = goal, every, watch
        self._losses, self._is_paused = losses, is_paused
        self._makes_all = watch is not None and not watch.suffices  # whether each event needs a frame
        self._shows = False  # whether the screen gets the frames of the present iteration
        self._shows_next = phases.iteration == 0
        self._shown = 0  # events of this iteration, while they are shown
        self._cost, self._frame_began = 0.0, 0.0  # seconds
        self._due = monotonic() + every  # when frames are wanted again
        self._iteration = phases.iteration
        if phases.iteration:
            self._begin_iteration(phases)

    def lets_pass(self, phases: Phases, name: str) -> bool:
        """Return whether the event needs no frame."""
        loss = None
        if name == "forward":
            loss = self._note_loss(phases)
            self._look_at_iteration(phases)
        if (
            self._shows
            or self._makes_all
            or self._is_paused()
            or (loss is not None and self._goal.has_loss(loss))
            or (self._watch is not None and self._watch.may_hold(phases, name, loss))
        ):
            phases.frames = True
            self._frame_began = monotonic()
            return False
        return True

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
        if self._is_paused() or (frame.phase is Phase.FORWARD and self._goal.has_loss(frame.loss)):
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
        phases.frames = self._shows or self._shows_next or self._makes_all

    def _look_at_iteration(self, phases: Phases) -> None:
        """Turn frames on or off as a forward begins an iteration, or comes when frames are due."""
        now = monotonic()
        if phases.iteration != self._iteration or (self._shows_next and now >= self._due + MAX_WAIT):
            self._begin_iteration(phases)
        if not self._shows and now >= self._due:
            self._shows_next = phases.frames = True

    def _begin_iteration(self, phases: Phases) -> None:
        self._iteration = phases.iteration
        if self._shows:
            self._end_showing()
        end = self._goal.iteration
        is_last = end is not None and phases.iteration >= end
        self._shows = self._shows_next or is_last or phases.iteration == 1
        self._shows_next = end is not None and phases.iteration == end - 1
        self._shown = 0
        phases.frames = self._shows or self._shows_next or self._makes_all

    def _end_showing(self) -> None:
        self._due = monotonic() + max(self._every, self._cost * (1 + UNTIMED_SHARE) / MAX_FRAME_SHARE)
        self._shows, self._cost = False, 0.0

    def _note_loss(self, phases: Phases) -> float | None:
        """Remember the loss of a forward for the plot; return it where somebody looks at each one."""
        loss = phases.loss
        if loss is None or loss.numel() != 1 or loss.is_complex() or hasattr(loss, "to_local"):
            return None  # a sharded one would be gathered from all ranks
        value = self._losses.add(phases.index, phases.iteration, loss)
        if value is None and (self._goal.on_loss or self._watch is not None):
            value = float(loss.item())
        return value
