"""A forward in which the output of one operation is shifted, to see how the loss follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.errors import Refused
from autograd_tui.engine.gradcheck.detached_values import DetachedValue, DetachedValuesMode
from autograd_tui.engine.gradcheck.float64_copy import Float64Copy
from autograd_tui.engine.gradcheck.float64_forward import CASTS
from autograd_tui.engine.tracing.forward_tracer import ForwardTracer, TorchLookups
from autograd_tui.engine.tracing.tensor_registry import MeasurementBatch


class PerturbedForward:
    """Runs the forward of a copy, counting operations as the recorder does; `number` is the one that is shifted.

    Casts are not counted: in float64 there are others than in the run.
    """

    def __init__(self, model_copy: Float64Copy, number: int, name: str) -> None:
        self.model_copy, self._number, self._name = model_copy, number, name
        self.size = 1.0
        self.detached: Sequence[DetachedValue] = ()  # in the last forward

    def grad(self) -> Tensor:
        """Give the gradient of the loss by the operation's output."""
        shifting = self._shifting(None)
        (found,), self.detached = self.model_copy.grads(shifting.shifts, shifting)
        if found is None:
            raise Refused(f"no gradient comes back to what came out of {self._name}, so there is nothing to prove.")
        self.size = shifting.size
        return found

    def loss_at(self, shift: Tensor, detaching: DetachedValuesMode | None) -> float:
        """Give the loss where the output is shifted so."""
        return self.model_copy.loss(self._shifting(shift.requires_grad_()), detaching=detaching).item()

    def _shifting(self, shift: Tensor | None) -> PerturbingMode:
        return PerturbingMode(self.model_copy, self._number, self._name, shift)


class PerturbingMode(ForwardTracer):
    """Adds a shift to the first output of one operation: the one given, else zeros that have a gradient."""

    def __init__(self, model_copy: Float64Copy, number: int, name: str, shift: Tensor | None) -> None:
        super().__init__(model_copy.model, MeasurementBatch(), TorchLookups())
        self._number, self._name, self.shift = number, name, shift
        self.size = 1.0
        self._done = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run one call, and shift what comes out where it is the one."""
        result = super().__torch_function__(func, types, args, kwargs)
        if self._done or not self.calls or self.calls[-1].opaque or self.calls[-1].name in CASTS:
            return result
        if sum(call.name not in CASTS for call in self.calls) != self._number + 1:
            return result
        self._done = True
        if self.calls[-1].name != self._name:
            raise Refused(f"the forward runs other operations in float64: {self.calls[-1].name}, not {self._name}.")
        return self._shifted(result)

    def shifts(self) -> list[Tensor]:
        """Give the shift; raises Refused where there was nothing to shift."""
        if self.shift is None:
            raise Refused(f"{self._name} cannot be shifted: nothing of its own comes out of it.")
        return [self.shift]

    def _shifted(self, result: Any) -> Any:
        if isinstance(result, (tuple, list)):
            return type(result)((self._shifted(result[0]), *result[1:]))
        if not isinstance(result, Tensor) or not result.is_floating_point():
            raise Refused(f"{self._name} gives no floating-point numbers, so there is no gradient to prove.")
        if self.shift is None:
            self.shift = torch.zeros_like(result, requires_grad=True)
        self.size = result.detach().norm().item() / math.sqrt(max(result.numel(), 1))
        return result + self.shift
