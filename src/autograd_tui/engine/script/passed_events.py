"""The events of a free run that nobody looks at: taken down as they pass, and counted together afterwards.

Between two events a script runs PyTorch, and what is ours has left the processor's caches by then: to count an event
there and then takes several times as long as to take it down.
"""

from __future__ import annotations

import threading
import weakref
from time import monotonic
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.script.call_site import position
from autograd_tui.engine.script.event_counts import CountedEvent

if TYPE_CHECKING:
    from autograd_tui.engine.script.loop_phases import Phases
    from autograd_tui.engine.script.watch_filter import WatchFilter

_get_ident = threading.get_ident
_function_modes = torch._C._len_torch_function_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_cuda = torch.cuda


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
        "_phases",
        "_version",
        "due",
        "events",
        "forwards_left",
        "known",
        "losses",
        "pause",
        "thread",
        "watch",
    )

    def __init__(self, phases: Phases, goal: Goal, *, watch: WatchFilter | None, pause: Indexed) -> None:
        """Listen to the thread that this is made in, where the phases are told to."""
        self._phases, self.watch, self.pause = phases, watch, pause
        self._goal = goal if goal.on_loss else None
        self.thread = _get_ident()
        self.known = phases.counts.cleared  # optimizers and modules, by their ids
        self.due = 0.0  # when the next forward is to be counted as any other, by `monotonic`
        self.forwards_left = 0  # until then
        self.events: list[CountedEvent] = []
        self.losses: list[float] = []  # of the forwards among them
        self._loss: weakref.ref[Tensor] | None = None  # of the last forward
        self._version = 0
        self._code: CodeType | None = None  # the script's own, that the last forward's backward was called from
        self._instruction = -1
        self._forward: CountedEvent = "forward", (0, 0)

    def takes_forward(self, loss: Any, frame: FrameType) -> bool:
        """Take down the forward that ends where the function of `frame` calls the backward of `loss`.

        Return False where it is to be counted as any other, behind those that were taken down.
        """
        if (
            self.pause[0]
            or self.forwards_left <= 0
            or type(loss) is not Tensor
            or not loss.is_cpu
            or self._loss is None
            or self._loss() is loss
            or _get_ident() != self.thread
            or _cuda._initialized
            or _function_modes()
            or _dispatch_modes()
            or monotonic() >= self.due
        ):
            return False
        try:
            value = loss.item()
        except Exception:  # it is not one number
            return False
        if type(value) is not float or (self._goal is not None and self._goal.has_loss(value)):
            return False
        if self.watch is not None and self.watch.may_hold(self._phases, "forward", value):
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
        self._loss = self._phases.loss_ref
        self.due, self.forwards_left = due, forwards

    def take(self) -> tuple[list[CountedEvent], list[float]]:
        """Return the events, and the losses of the forwards among them, and begin anew."""
        events, losses = self.events, self.losses
        self.events, self.losses = [], []
        if losses:
            self._phases.loss_ref, self._phases.loss_version = self._loss, self._version
        return events, losses
