"""The gradient check: the run's own gradient beside autograd in float64 and finite differences of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autograd_tui.core.command import Phase
from autograd_tui.core.divergence import ReplayChecker
from autograd_tui.core.errors import Refused
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.run_observer import Progress, Watch
from autograd_tui.engine.gradcheck.detached_values import DetachedValue, DetachedValuesMode, OperationsDiffer
from autograd_tui.engine.gradcheck.finite_differences import STEP_SIZE, Slope, is_near, slope
from autograd_tui.engine.gradcheck.float64_copy import Float64Copy
from autograd_tui.engine.gradcheck.float64_forward import CASTS
from autograd_tui.engine.gradcheck.perturbed_forward import PerturbedForward
from autograd_tui.engine.replay.replayer import Replayer
from autograd_tui.engine.replay.trace_cache import TraceCache
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.trainer import Trainer

MAX_ELEMENTS = 64  # of a tensor whose every element is measured
NUM_DIRECTIONS = 8  # random ones, in which a larger one is
AUTOGRAD_TOLERANCE = 2e-5  # as a share of the largest slope: what differences may miss autograd by
ROUNDING_TOLERANCE = 4  # times the root of the run's precision, as a share: what a gradient may lose on a long way
MAX_TRIED_PLACES = 8  # at which something leaves the graph, each of which is tried alone
CANCELLATION_TOLERANCE = 32  # times the run's precision, as a share of all gradients: what is left of terms that cancel


@dataclass(slots=True)
class CheckProgress:
    """How far a gradient check has come; `watch` is told before each forward."""

    name: str
    watch: Watch
    done: int = 0  # slopes measured
    of: int = 0  # slopes to measure; 0 until that is known

    def report(self) -> None:
        """Tell `watch`; raises Refused where it answers that the check is not wanted any more."""
        if not self.watch(Progress(self.done, self.of, proof=self.name)):
            raise Refused("the proof was given up.")


@dataclass(frozen=True, slots=True)
class RunGradient:
    """The gradient that the run has, and what was in it before the forward that is checked."""

    grad: Tensor
    before: Tensor | None = None
    backwards: int = 1  # since that forward


@dataclass(frozen=True, slots=True)
class MeasurableLoss:
    """The loss of the float64 copy as a function of a shift of one tensor, and its gradient there by autograd."""

    model_copy: Float64Copy
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

    found, detached = model_copy.grads(left_unfrozen)
    if model_copy.writes_into(param):
        raise Refused(f"the forward itself changes {name}, so there is no telling what moving it before would do.")
    grads = dict(zip(trained, found, strict=True))
    exact = grads.get(name)
    if exact is None:
        raise Refused(f"no gradient comes back to {name} in the forward before, so there is nothing to prove.")

    def loss_at(shift: Tensor, detaching: DetachedValuesMode | None) -> float:
        with torch.no_grad():
            param.copy_(base + shift)
        return float(model_copy.loss(detaching=detaching).item())

    total_norm = math.hypot(*(each.norm().item() for each in grads.values() if each is not None))
    closed = _closed_form(model_copy, name) if has_formula else None
    return MeasurableLoss(model_copy, loss_at, exact.to_dense(), _typical_size(base), total_norm, detached, closed)


def loss_by_output(
    state: TrainingState, number: int, name: str, progress: CheckProgress
) -> tuple[RunGradient, MeasurableLoss]:
    """Return the loss as a function of the output of operation `number` of the forward, called `name`.

    The run's gradient is that of the same forward in the run's own dtypes, run again.
    """
    snapshot = state.global_state.mark_closely()
    first = Float64Copy(state, dtype=None, before=progress.report)
    run_grad = RunGradient(PerturbedForward(first, number, name).grad())
    first.put_back()
    state.global_state.return_to(snapshot)
    shifted = PerturbedForward(Float64Copy(state, before=progress.report), number, name)
    exact = shifted.grad()
    norm = exact.norm().item()
    return run_grad, MeasurableLoss(
        shifted.model_copy, shifted.loss_at, exact, shifted.size, total_norm=norm, detached=shifted.detached
    )


def compare_gradients(
    name: str, run_grad: RunGradient, measurable: MeasurableLoss, progress: CheckProgress, *, index: int
) -> GradCheck:
    """Compare the gradients of a tensor along each element, or along random directions of a large one.

    `index`: of the frame whose gradient it is. Raises Refused where finite differences say nothing.
    """
    loss, step = _repeatable_loss(measurable), STEP_SIZE * max(1.0, measurable.size)

    def compare(held_still: tuple[str, ...]) -> GradCheck:
        directions = _directions(measurable.exact)
        slopes = _slopes(measurable, directions, progress, loss=loss, step=step, detached=bool(held_still))
        result = replace(_comparison(name, run_grad, measurable, directions, slopes, index=index), step=step)
        result = replace(result, held_still=held_still)
        return _with_verdict(result, slopes, loss=loss, total_norm=measurable.total_norm)

    places = _detached_places(measurable, step)
    result = compare(places)
    if result.verdict != "wrong" or not places:
        return result
    # A custom backward may follow what is detached, as implicit differentiation does.
    undetached = compare(())
    return result if undetached.verdict == "wrong" else undetached


def _comparison(
    name: str,
    run_grad: RunGradient,
    measurable: MeasurableLoss,
    directions: Sequence[Tensor],
    slopes: Sequence[Slope],
    *,
    index: int,
) -> GradCheck:
    """Return the numbers beside each other; the verdict is still to be found."""
    exact, float64_mode = measurable.exact, measurable.model_copy.float64_mode
    before = torch.zeros_like(exact) if run_grad.before is None else run_grad.before.to_dense().to(exact)
    coarsest = max((run_grad.grad.dtype, *float64_mode.dtypes), key=lambda dtype: torch.finfo(dtype).eps)

    def total(values: Sequence[float]) -> tuple[float, ...]:
        old = _projections(before, directions)
        return tuple(each + run_grad.backwards * value for each, value in zip(old, values, strict=True))

    return GradCheck(
        index,
        name,
        tuple(exact.shape),
        "elements" if len(directions) == exact.numel() else "directions",
        held=_projections(run_grad.grad.detach().to_dense().to(exact), directions),
        numeric=total([each.value for each in slopes]),
        exact=total(_projections(exact, directions)),
        closed=None if measurable.closed is None else total(measurable.closed.tolist()),
        verdict="agrees",
        step=STEP_SIZE,
        dtype=str(run_grad.grad.dtype).removeprefix("torch."),
        coarsest=str(coarsest).removeprefix("torch."),
        backwards=run_grad.backwards,
        kinks=sum(each.kink for each in slopes),
        casts=tuple(float64_mode.casts),
        autocast=float64_mode.autocast,
    )


def _repeatable_loss(measurable: MeasurableLoss) -> float:
    """Return the loss where nothing is shifted; raises Refused where two forwards give two of them."""
    nowhere = torch.zeros_like(measurable.exact)
    loss = measurable.loss_at(nowhere, None)
    if measurable.loss_at(nowhere, None) != loss:
        raise Refused("the model gives another loss each time, random numbers put back: no difference means anything.")
    return loss


def _detached_places(measurable: MeasurableLoss, step: float) -> tuple[str, ...]:
    """Return the places at which the forward detaches something that the loss depends on; mostly there are none."""
    if not measurable.detached:
        return ()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(measurable.exact.shape, generator=generator, dtype=measurable.exact.dtype)
    shift = step * drawn.to(measurable.exact.device)
    detaching = measurable.model_copy.detaching(measurable.detached)
    loss = measurable.loss_at(shift, detaching)
    if not detaching.changed_places or measurable.loss_at(shift, None) == loss:
        return ()
    places = tuple(detaching.changed_places)

    def matters(place: str) -> bool:
        try:
            return (
                measurable.loss_at(shift, measurable.model_copy.detaching(measurable.detached, ignored=[place])) != loss
            )
        except OperationsDiffer:
            return True

    return tuple(filter(matters, places[:MAX_TRIED_PLACES])) or places


def _slopes(
    measurable: MeasurableLoss,
    directions: Sequence[Tensor],
    progress: CheckProgress,
    *,
    loss: float,
    step: float,
    detached: bool,
) -> list[Slope]:
    """Measure the slope of the loss along each direction; `detached`: with what the forward detaches as it was."""
    progress.done, progress.of = 0, len(directions)
    expected, slopes = _projections(measurable.exact, directions), list[Slope]()
    largest = max(map(abs, expected), default=0.0)
    for direction, each in zip(directions, expected, strict=True):

        def function(distance: float, direction: Tensor = direction) -> float:
            if not distance:
                return loss
            detaching = measurable.model_copy.detaching(measurable.detached) if detached else None
            return measurable.loss_at(direction * distance, detaching)

        slopes.append(slope(function, each, size=largest, step=step))
        progress.done = len(slopes)
    return slopes


def _with_verdict(result: GradCheck, slopes: Sequence[Slope], *, loss: float, total_norm: float) -> GradCheck:
    """Say how the three agree, within what differences and the run's dtype can tell; a kink has no slope to miss."""
    size = max(map(abs, (*result.numeric, *result.exact)), default=0.0)
    pairs = zip(slopes, result.numeric, result.exact, strict=True)
    right = all(
        each.kink or is_near(a, b, size=size, function=loss, tolerance=AUTOGRAD_TOLERANCE) for each, a, b in pairs
    )
    eps = torch.finfo(getattr(torch, result.coarsest)).eps
    bound = ROUNDING_TOLERANCE * math.sqrt(eps) * size + CANCELLATION_TOLERANCE * eps * total_norm
    same = all(abs(a - b) <= bound for a, b in zip(result.exact, result.held, strict=True))
    return replace(
        result, verdict="wrong" if not right else "differs" if not same else "kink" if result.kinks else "agrees"
    )


def _directions(like: Tensor) -> list[Tensor]:
    """Return directions of the tensor's shape: one for each element, or of a larger one random ones of length 1."""
    if like.numel() <= MAX_ELEMENTS:
        return [each.view_as(like) for each in torch.eye(like.numel(), dtype=like.dtype, device=like.device)]
    generator = torch.Generator().manual_seed(like.numel())
    drawn = torch.randn(NUM_DIRECTIONS, *like.shape, generator=generator, dtype=like.dtype)
    return [(each / each.norm()).to(like.device) for each in drawn]


def _projections(gradient: Tensor, directions: Sequence[Tensor]) -> tuple[float, ...]:
    return tuple(float((gradient * each).sum()) for each in directions)


def _typical_size(tensor: Tensor) -> float:
    norm: float = tensor.norm().item()
    return norm / math.sqrt(max(tensor.numel(), 1))


def _closed_form(model_copy: Float64Copy, name: str) -> Tensor:
    """Give 2/n sum((Q - y) x), for b without the x; (1,)."""
    x, y = model_copy.batch
    error: Tensor = model_copy.params["w"].detach() * x + model_copy.params["b"].detach() - y
    return (2 / error.numel() * (error * x if name == "w" else error).sum()).reshape(1)


class GradChecker:
    """Goes to the forward that a gradient is from, checks it on a copy, and comes back."""

    def __init__(self, trainer: Trainer, replayer: Replayer, traces: TraceCache, *, has_formula: bool) -> None:
        """`has_formula`: whether the model is the line, whose gradients have one."""
        self._trainer, self._replayer, self._traces, self._has_formula = trainer, replayer, traces, has_formula

    def check_gradient(
        self, index: int, what: str | int, checker: ReplayChecker, stopped: Callable[[], bool]
    ) -> GradCheck:
        """Check the gradient of a parameter, by its name, or of an operation's output, by the operation's number.

        Whoever watches going back is told how far it is, and may give it up too.
        """
        self._replayer.check_repeats("a proof measures the loss many times")
        watch = self._replayer.watch
        self._replayer.watch = lambda progress: watch(progress) and not stopped()
        try:
            if isinstance(what, int):
                return self._of_output(index, what, checker)
            return self._of_parameter(index, what, checker)
        finally:
            self._replayer.watch = watch

    def _of_parameter(self, index: int, name: str, checker: ReplayChecker) -> GradCheck:
        """Check the gradient of a parameter as it is at frame `index`; raises Refused where there is none."""
        here, trainer, replayer = self._trainer.frame.index, self._trainer, self._replayer
        name, param_index = self._find_param(name)
        backward = replayer.last(Phase.BACKWARD, index)
        forward = replayer.last(Phase.FORWARD, backward)
        try:
            replayer.travel(index, checker)
            grad, counted = self._gradient(name), trainer.frame.grads.backwards[param_index]
            if grad is None or not forward:
                raise Refused(f"{name} has no gradient at frame {index}: there is one after backward, until zero_grad.")
            replayer.go_to_start(forward, checker)
            before, earlier = self._gradient(name), trainer.frame.grads.backwards[param_index]
            if counted <= earlier and before is not None:
                raise Refused(f"the last backward has added nothing to the gradient of {name}.")
            run_grad = RunGradient(grad, before, counted - (earlier if before is not None else 0))
            progress = CheckProgress(f"{name}.grad", replayer.watch)
            with trainer.borrow_state() as state:
                measurable = loss_by_parameter(state, name, progress, has_formula=self._has_formula)
                return compare_gradients(name, run_grad, measurable, progress, index=index)
        finally:
            replayer.return_to(here, checker)

    def _of_output(self, index: int, number: int, checker: ReplayChecker) -> GradCheck:
        """Check the gradient of the output of operation `number` of the forward that frame `index` stands upon."""
        here, replayer = self._trainer.frame.index, self._replayer
        forward = replayer.last(Phase.FORWARD, index)
        if not forward:
            raise Refused(f"there is no forward before frame {index}, so there is nothing to prove.")
        ops = self._traces.of(forward, checker).ops
        if not 0 <= number < len(ops):
            raise Refused(f"the forward has {len(ops)} operations, and none is number {number + 1}.")
        if ops[number].opaque:
            raise Refused(f"{ops[number].name} is known by what came out of it alone, which cannot be shifted.")
        if ops[number].name in CASTS:
            raise Refused(f"{ops[number].name} changes dtypes alone, and the copy is in float64: prove what went in.")
        uncast = sum(op.name not in CASTS for op in ops[:number])
        name = f"{ops[number].name} {number + 1}"
        progress = CheckProgress(f"dLoss/d({name})", replayer.watch)
        try:
            replayer.go_to_start(forward, checker)
            with self._trainer.borrow_state() as state:
                run_grad, measurable = loss_by_output(state, uncast, ops[number].name, progress)
                return compare_gradients(name, run_grad, measurable, progress, index=index)
        finally:
            replayer.return_to(here, checker)

    def _find_param(self, name: str) -> tuple[str, int]:
        """Return a parameter's first name and its index; raises Refused where the model has none of that name."""
        with self._trainer.borrow_state() as state:
            state.param(name)
            first = state.names[name]
            return first, list(state.params).index(first)

    def _gradient(self, name: str) -> Tensor | None:
        """Copy what a parameter's `.grad` holds now."""
        with self._trainer.borrow_state() as state:
            grad = state.params[name].grad
            return None if grad is None else grad.detach().clone()
