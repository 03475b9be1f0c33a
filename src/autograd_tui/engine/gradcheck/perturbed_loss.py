"""The loss of a float64 copy as a function of a shift: of a parameter, or of what one operation gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from autograd_tui.core.errors import Refused
from autograd_tui.core.run_observer import Progress, ProgressCallback
from autograd_tui.engine.gradcheck.detached_values import DetachedValue, DetachedValuesMode
from autograd_tui.engine.gradcheck.float64_copy import Float64Copy
from autograd_tui.engine.gradcheck.float64_forward import CASTS, Float64Mode
from autograd_tui.engine.tracing.forward_tracer import ForwardTracer, TorchLookups, module_names
from autograd_tui.engine.tracing.measurement_batch import MeasurementBatch
from autograd_tui.engine.training.interruption import Uninterrupted
from autograd_tui.engine.training.state import TrainingState


@dataclass(slots=True)
class CheckProgress:
    """How far a gradient check has come; `watch` is called before each forward."""

    name: str
    watch: ProgressCallback
    done: int = 0  # slopes measured
    of: int = 0  # slopes to measure; 0 until that is known

    def report(self) -> None:
        """Call `watch`; raises Refused where it returns that the check is not wanted any more."""
        with Uninterrupted():
            is_wanted = self.watch(Progress(self.done, self.of, gradient=self.name))
        if not is_wanted:
            raise Refused("the gradient check was given up.")


@dataclass(frozen=True, slots=True)
class RunGradient:
    """The gradient that the run has, and what was in it before the forward that is checked."""

    grad: Tensor
    before: Tensor | None = None
    backwards: int = 1  # since that forward


class CheckedForward(Protocol):
    """What makes the forward again in float64."""

    @property
    def float64_mode(self) -> Float64Mode:
        """The mode that it runs in, which knows the dtypes that the run asks for."""

    def detaching(
        self, recorded: Sequence[DetachedValue] | None = None, *, ignored: Collection[str] = ()
    ) -> DetachedValuesMode:
        """Return a mode that records detached values, or puts `recorded` ones back, but at the places `ignored`."""


@dataclass(frozen=True, slots=True)
class MeasurableLoss:
    """The loss of a float64 copy as a function of a shift of one tensor, and its gradient there by autograd."""

    model_copy: CheckedForward
    loss_at: Callable[[Tensor, DetachedValuesMode | None], float]  # the shift has the tensor's shape
    exact: Tensor  # the gradient, of the same shape
    size: float  # of a usual element of what is shifted
    total_norm: float  # the norm of all gradients together: terms of that size may cancel, and leave their rounding
    detached: Sequence[DetachedValue]  # what the forward takes out of the graph
    closed: Tensor | None = None  # the gradient by a formula, (1,)


def loss_by_parameter(state: TrainingState, name: str, progress: CheckProgress, *, has_formula: bool) -> MeasurableLoss:
    """Return the loss as a function of a parameter, of a state just before its forward.

    `has_formula`: whether it is the line's. Raises Refused where the parameter has no gradient.
    """
    model_copy = Float64Copy(state, before=progress.report)
    param = model_copy.params[name]
    base = param.detach().clone()
    trained: dict[str, Tensor] = {}

    def left_unfrozen() -> Iterable[Tensor]:
        trained.update((each, param) for each, param in model_copy.params.items() if param.requires_grad)
        return trained.values()

    all_grads, detached = model_copy.grads(left_unfrozen)
    if model_copy.writes_into(param):
        raise Refused(f"the forward itself changes {name}, so there is no telling what moving it before would do.")
    grads = dict(zip(trained, all_grads, strict=True))
    exact = grads.get(name)
    if exact is None:
        raise Refused(f"no gradient comes back to {name} in the forward before, so there is nothing to check.")

    def loss_at(shift: Tensor, detaching: DetachedValuesMode | None) -> float:
        with torch.no_grad():
            param.copy_(base).add_(shift)  # in its own memory: fresh memory is slow
        return float(model_copy.loss(detaching=detaching).item())

    total_norm = math.hypot(*(each.norm().item() for each in grads.values() if each is not None))
    closed = _closed_form(model_copy, name) if has_formula else None
    return MeasurableLoss(model_copy, loss_at, exact.to_dense(), typical_size(base), total_norm, detached, closed)


def _closed_form(model_copy: Float64Copy, name: str) -> Tensor:
    """Return 2/n sum((Q - y) x), for b without the x; (1,)."""
    x, y = model_copy.batch
    error: Tensor = model_copy.params["w"].detach() * x + model_copy.params["b"].detach() - y
    return (2 / error.numel() * (error * x if name == "w" else error).sum()).reshape(1)


def loss_by_output(
    state: TrainingState, number: int, name: str, progress: CheckProgress
) -> tuple[RunGradient, MeasurableLoss]:
    """Return the loss as a function of the output of operation `number` of the forward, called `name`.

    The run's gradient is that of the same forward in the run's own dtypes, run again. Raises Refused where the output
    has no gradient, or cannot be shifted.
    """
    snapshot = state.global_state.exact_snapshot()
    run_copy = Float64Copy(state, dtype=None, before=progress.report)
    run_grad, _, _ = _output_gradient(run_copy, number, name)
    run_copy.restore()
    state.global_state.restore(snapshot)
    model_copy = Float64Copy(state, before=progress.report)
    exact, size, detached = _output_gradient(model_copy, number, name)

    def loss_at(shift: Tensor, detaching: DetachedValuesMode | None) -> float:
        shifted = PerturbingMode(model_copy, number, name, shift.requires_grad_())
        return float(model_copy.loss(shifted, detaching=detaching).item())

    norm = exact.norm().item()
    return RunGradient(run_grad), MeasurableLoss(model_copy, loss_at, exact, size, norm, detached)


def _output_gradient(model_copy: Float64Copy, number: int, name: str) -> tuple[Tensor, float, Sequence[DetachedValue]]:
    """Return the gradient of the loss by an operation's output, the output's usual size, and what is detached."""
    shifted = PerturbingMode(model_copy, number, name)
    (grad,), detached = model_copy.grads(shifted.shifts, shifted)
    if grad is None:
        raise Refused(f"no gradient comes back to what came out of {name}, so there is nothing to check.")
    return grad, shifted.size, detached


class PerturbingMode(ForwardTracer):
    """Adds a shift to the first output of operation `number`: the given one, else zeros that require a gradient.

    Operations are counted as the tracer does, but for casts: in float64 there are others than in the run.
    """

    def __init__(self, model_copy: Float64Copy, number: int, name: str, shift: Tensor | None = None) -> None:
        super().__init__(module_names(model_copy.model), MeasurementBatch(), TorchLookups())
        self._number, self._name, self._shift = number, name, shift
        self.size = 1.0  # of a usual element of the output
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
        """Return the shift, as one of several tensors; raises Refused where there was nothing to shift."""
        if self._shift is None:
            raise Refused(f"{self._name} cannot be shifted: nothing of its own comes out of it.")
        return [self._shift]

    def _shifted(self, result: Any) -> Any:
        if isinstance(result, (tuple, list)):
            return type(result)((self._shifted(result[0]), *result[1:]))
        if not isinstance(result, Tensor) or not result.is_floating_point():
            raise Refused(f"{self._name} gives no floating-point numbers, so there is no gradient to check.")
        if self._shift is None:
            self._shift = torch.zeros_like(result, requires_grad=True)
        self.size = typical_size(result.detach())
        return result + self._shift


def typical_size(tensor: Tensor) -> float:
    """Return the root mean square of a tensor's values."""
    norm: float = tensor.norm().item()
    return norm / math.sqrt(max(tensor.numel(), 1))
