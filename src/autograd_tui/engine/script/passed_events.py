"""The events of a free run that nobody looks at: taken down as they pass, and counted together afterwards.

Between two events a script runs PyTorch, and what is ours has left the processor's caches by then: to count an event
there and then takes several times as long as to take it down.
"""

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

from autograd_tui.core.norm_bounds import Range
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.script.call_site import position
from autograd_tui.engine.script.event_counts import CountedEvent

if TYPE_CHECKING:
    from autograd_tui.engine.script.loop_phases import Phases
    from autograd_tui.engine.script.watch_filter import MayHold, WatchFilter

ALL: Range = (-math.inf, math.inf)
_get_ident = threading.get_ident
_function_modes = torch._C._len_torch_function_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_cuda = torch.cuda


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
