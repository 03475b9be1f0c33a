"""Tells from a few numbers whether a watchpoint may hold at an event of a free run: only there is a frame made."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from autograd_tui.core.watchpoint import GRAD_NORM, LOSS, PARAM_NORM, Watcher, Watchpoint

if TYPE_CHECKING:
    from autograd_tui.engine.script.loop_phases import Phases

MARGIN = 0.01  # of a norm in float32, which is compared with a bound
MIN_BOUND = 1e-15  # below it the squares in a norm may vanish
MAX_ITEMS = 4  # norms that are copied to the host one by one
PLAIN = (Tensor, torch.nn.Parameter)
NARROW = (torch.float16, torch.bfloat16)  # whose norms are taken in float32


class WatchFilter:
    """Looks at the loss of each forward, at the gradients after each backward, at the parameters after each step.

    Nothing that holds of those is missed; the watcher decides, on the frame of such an event. For buffers, predictions
    and the optimizers' state there are the frames that the run makes anyway.
    """

    def __init__(self, watcher: Watcher, phases: Phases) -> None:
        self._watcher = watcher
        armed = watcher.armed
        names = phases.registry.params()
        self._nonfinite = any(each.kind == "nonfinite" for each in armed)
        self._rises = [each for each in armed if each.kind == "rises"]
        bounds = [each for each in armed if each.kind == "bound"]
        self._of_loss = [each for each in bounds if each.name == LOSS]
        self._of_params = [each for each in bounds if each.name == PARAM_NORM or each.name in names]
        self._of_grads = [each for each in bounds if each not in self._of_loss and each not in self._of_params]
        self._params: dict[str, weakref.ref[Tensor]] | None = None  # floating, by name; None: to be found anew
        self._narrow = self._scattered = False  # whether some are of few bits; on several devices
        self._has_failed = False
        self.suffices = not any(each.kind == "still" or _is_too_small(each) for each in armed) and self._can_measure(
            phases
        )

    def may_hold(self, phases: Phases, name: str, loss: float | None) -> bool:
        """Return whether an event needs a frame, for a watchpoint that holds or nearly does; `loss` of a forward."""
        if self._has_failed or phases.registry.changed:
            return True
        try:
            match name:
                case "forward":
                    return loss is not None and self._may_hold_of_loss(loss, phases.iteration)
                case "backward":
                    return self._looks_at(self._of_grads) and self._may_hold_of(phases, self._of_grads, GRAD_NORM)
                case "step":
                    return self._looks_at(self._of_params) and self._may_hold_of(phases, self._of_params, PARAM_NORM)
                case _:
                    return False
        except Exception:  # tensors of a kind that has no such norms: each event gets a frame
            self._has_failed = True
            return True

    def look_anew(self) -> None:
        """Take the parameters from the registry again: a frame has been made, for which it was brought up to date."""
        self._params = None

    def _looks_at(self, bounds: list[Watchpoint]) -> bool:
        return self._nonfinite or bool(bounds)

    def _can_measure(self, phases: Phases) -> bool:
        """Return whether norms tell what is not finite: not where some values are infinite on purpose."""
        try:
            params = self._find(phases)
            if not all(type(each) in PLAIN for each in params.values()):
                return False
            return not self._nonfinite or all(map(math.isfinite, self._norms(list(params.values()))))
        except Exception:
            return False

    def _may_hold_of_loss(self, loss: float, iteration: int) -> bool:
        if self._nonfinite and not math.isfinite(loss):
            return True
        if any(each.holds_for(loss) for each in self._of_loss):
            return True
        return any(self._has_risen(each, loss, iteration) for each in self._rises)

    def _has_risen(self, watchpoint: Watchpoint, loss: float, iteration: int) -> bool:
        """Count the loss of an iteration's first forward; where that is enough, the watcher counts it instead."""
        memory = self._watcher.memory(watchpoint)
        if iteration == memory.iteration:
            return False
        rises = memory.rises + 1 if memory.loss is not None and loss > memory.loss else 0
        if rises and rises % watchpoint.times == 0:
            return True
        memory.loss, memory.iteration, memory.rises = loss, iteration, rises
        return False

    def _may_hold_of(self, phases: Phases, bounds: list[Watchpoint], joint_name: str) -> bool:
        """Return whether one of the bounds may be passed by norms of gradients or of parameters."""
        params = self._found(phases)
        if params is None:
            return True
        if joint_name == GRAD_NORM:
            tensors = {f"{name}.grad": grad for name, each in params.items() if (grad := each.grad) is not None}
        else:
            tensors = params
        if not tensors:
            return False
        norms = self._norms(list(tensors.values()))
        joint = math.hypot(*norms)
        if self._nonfinite and not math.isfinite(joint):
            return True
        for each in bounds:
            if each.name == joint_name:
                if _nearly_holds(each, joint):
                    return True
            else:
                norm = dict(zip(tensors, norms, strict=True)).get(each.name)
                if norm is not None and _nearly_holds(each, norm):
                    return True
        return False

    def _norms(self, tensors: list[Tensor]) -> list[float]:
        """Return the norm of each tensor, on the host."""
        if not tensors:
            return []
        with torch.no_grad():
            if self._narrow:
                dtype = [torch.float32 if each.dtype in NARROW else None for each in tensors]
                norms = [torch.linalg.vector_norm(each, dtype=of) for each, of in zip(tensors, dtype, strict=True)]
            else:
                norms = list(torch._foreach_norm(tensors))
            if len(norms) <= MAX_ITEMS or self._narrow or self._scattered:
                return [float(each.item()) for each in norms]
            return torch.stack(norms).tolist()

    def _found(self, phases: Phases) -> dict[str, Tensor] | None:
        """Return the parameters by name; None where some have gone, so that the registry must look for others."""
        if self._params is None:
            return self._find(phases)
        params = {name: param for name, each in self._params.items() if (param := each()) is not None}
        return params if len(params) == len(self._params) else None

    def _find(self, phases: Phases) -> dict[str, Tensor]:
        params = {
            name: each
            for name, each in phases.registry.params().items()
            if each.is_floating_point() or each.is_complex()
        }
        self._params = {name: weakref.ref(each) for name, each in params.items()}
        self._narrow = len({each.dtype for each in params.values()}) > 1 or any(
            each.dtype in NARROW for each in params.values()
        )
        self._scattered = len({each.device for each in params.values()}) > 1
        return params


def _nearly_holds(watchpoint: Watchpoint, norm: float) -> bool:
    """Return whether a norm is beyond a bound, or near it."""
    return watchpoint.holds_for(norm * (1 + MARGIN)) or watchpoint.holds_for(norm * (1 - MARGIN))


def _is_too_small(watchpoint: Watchpoint) -> bool:
    """Return whether a norm may be above a bound and yet vanish in float32."""
    return (
        watchpoint.kind == "bound"
        and watchpoint.name != LOSS
        and watchpoint.sign == ">"
        and watchpoint.bound < MIN_BOUND
    )
