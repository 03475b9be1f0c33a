"""The gradient check: the run's own gradient beside autograd in float64 and finite differences of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from autograd_tui.core.command import Phase
from autograd_tui.core.errors import Refused
from autograd_tui.core.gradcheck_result import GradCheck, Verdict
from autograd_tui.core.replay_check import ReplayChecker
from autograd_tui.core.run_observer import Interrupted
from autograd_tui.engine.gradcheck.detached_values import OperationsDiffer
from autograd_tui.engine.gradcheck.float64_forward import CASTS
from autograd_tui.engine.gradcheck.perturbed_loss import (
    CheckProgress,
    MeasurableLoss,
    RunGradient,
    loss_by_output,
    loss_by_parameter,
)
from autograd_tui.engine.replay.replayer import Replayer
from autograd_tui.engine.replay.timeline import TraceCache
from autograd_tui.engine.training.interruption import Interrupt, interruptible
from autograd_tui.engine.training.trainer import Trainer
from autograd_tui.engine.training.user_code import place_of

MAX_ELEMENTS = 64  # of a tensor whose every element is measured
NUM_DIRECTIONS = 8  # random ones, in which a larger tensor is measured
MAX_TRIED_PLACES = 8  # at which something leaves the graph, each of which is tried alone
STEP_SIZE = 1e-5  # near the cube root of float64's precision: errors of truncation and of rounding are both about 1e-10
STEP_FACTORS = (1.0, 0.1, 0.01, 10.0)  # times STEP_SIZE, where the first one does not agree
SLOPE_TOLERANCE = 1e-5  # as a share of the largest slope
AUTOGRAD_TOLERANCE = 2e-5  # as a share of the largest slope: what differences may miss autograd by
KINK_TOLERANCE = 1e-3  # as a share of the largest slope: by how much the slopes on both sides differ at least
LOSS_ROUNDING = 1e-10  # as a share of the loss itself: what a slope may be off by rounding alone
RUN_ROUNDING = 4  # times the root of the run's precision, as a share: what a gradient may lose on a long way
CANCELLATION = 32  # times the run's precision, as a share of all gradients: what is left of terms that cancel


class GradChecker:
    """Goes to the forward that a gradient is from, checks it on a copy, and comes back."""

    def __init__(self, trainer: Trainer, replayer: Replayer, traces: TraceCache, *, has_formula: bool) -> None:
        """`has_formula`: whether the model is the line, whose gradients have one."""
        self._trainer, self._replayer, self._traces, self._has_formula = trainer, replayer, traces, has_formula

    def check_gradient(
        self, index: int, what: str | int, checker: ReplayChecker, stopped: Callable[[], bool]
    ) -> GradCheck:
        """Check the gradient of a parameter, by its name, or of an operation's output, by the operation's number.

        The replayer's `watch` sees the progress. Raises Refused where there is no gradient, the differences say
        nothing, or the check is given up, by `watch` or `stopped`.
        """
        self._replayer.check_repeats("a gradient check measures the loss many times")
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
        current, trainer, replayer = self._trainer.frame.index, self._trainer, self._replayer
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

                def check() -> GradCheck:
                    measurable = loss_by_parameter(state, name, progress, has_formula=self._has_formula)
                    return compare_gradients(name, run_grad, measurable, progress, index=index)

                return _interruptible(check)
        finally:
            replayer.return_to(current, checker)

    def _of_output(self, index: int, number: int, checker: ReplayChecker) -> GradCheck:
        """Check the gradient of the output of operation `number` of the forward that frame `index` stands upon."""
        current, replayer = self._trainer.frame.index, self._replayer
        forward = replayer.last(Phase.FORWARD, index)
        if not forward:
            raise Refused(f"there is no forward before frame {index}, so there is nothing to check.")
        ops = self._traces.get(forward, checker).ops
        if not 0 <= number < len(ops):
            raise Refused(f"the forward has {len(ops)} operations, and none is number {number + 1}.")
        if ops[number].opaque:
            raise Refused(f"{ops[number].name} is known by what came out of it alone, which cannot be shifted.")
        if ops[number].name in CASTS:
            raise Refused(f"{ops[number].name} changes dtypes alone, and the copy is in float64: check what went in.")
        uncast = sum(op.name not in CASTS for op in ops[:number])
        name = f"{ops[number].name} {number + 1}"
        progress = CheckProgress(f"dLoss/d({name})", replayer.watch)
        try:
            replayer.go_to_start(forward, checker)
            with self._trainer.borrow_state() as state:

                def check() -> GradCheck:
                    run_grad, measurable = loss_by_output(state, uncast, ops[number].name, progress)
                    return compare_gradients(name, run_grad, measurable, progress, index=index)

                return _interruptible(check)
        finally:
            replayer.return_to(current, checker)

    def _find_param(self, name: str) -> tuple[str, int]:
        """Return a parameter's first name and its index; raises Refused where the model has none of that name."""
        with self._trainer.borrow_state() as state:
            state.param(name)
            first = state.names[name]
            return first, list(state.params).index(first)

    def _gradient(self, name: str) -> Tensor | None:
        """Return a copy of a parameter's `.grad`."""
        with self._trainer.borrow_state() as state:
            grad = state.params[name].grad
            return None if grad is None else grad.detach().clone()


def _interruptible(check: Callable[[], GradCheck]) -> GradCheck:
    """Return what a check gives; raises Interrupted where `interrupt` has ended it."""
    try:
        return interruptible(check)
    except Interrupt as error:
        raise Interrupted(f"the gradient check was interrupted{place_of(error)}.") from error


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
        result = _comparison(name, run_grad, measurable, directions, slopes, index=index)
        result = replace(result, step=step, held_still=held_still)
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
    """Return the numbers beside each other; the verdict comes later."""
    exact, float64_mode = measurable.exact, measurable.model_copy.float64_mode
    coarsest = max((run_grad.grad.dtype, *float64_mode.dtypes), key=lambda dtype: torch.finfo(dtype).eps)

    before = (0.0,) * len(directions)
    if run_grad.before is not None:
        before = _projections(run_grad.before.to_dense().to(exact), directions)

    def total(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(each + run_grad.backwards * value for each, value in zip(before, values, strict=True))

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
        detaching = measurable.model_copy.detaching(measurable.detached, ignored=[place])
        try:
            return measurable.loss_at(shift, detaching) != loss
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
    """Return the result with its verdict, within what differences and the run's dtype can tell; a kink has no slope."""
    size = max(map(abs, (*result.numeric, *result.exact)), default=0.0)
    pairs = zip(slopes, result.numeric, result.exact, strict=True)
    agrees = all(each.kink or is_near(a, b, size=size, loss=loss, tolerance=AUTOGRAD_TOLERANCE) for each, a, b in pairs)
    eps = torch.finfo(getattr(torch, result.coarsest)).eps
    bound = RUN_ROUNDING * math.sqrt(eps) * size + CANCELLATION * eps * total_norm
    held = all(abs(a - b) <= bound for a, b in zip(result.exact, result.held, strict=True))
    verdict: Verdict = "wrong" if not agrees else "differs" if not held else "kink" if result.kinks else "agrees"
    return replace(result, verdict=verdict)


def _directions(like: Tensor) -> list[Tensor]:
    """Return directions of the tensor's shape: one for each element, or of a larger one random ones of length 1."""
    if like.numel() <= MAX_ELEMENTS:
        return [each.view_as(like) for each in torch.eye(like.numel(), dtype=like.dtype, device=like.device)]
    generator = torch.Generator().manual_seed(like.numel())
    drawn = torch.randn(NUM_DIRECTIONS, *like.shape, generator=generator, dtype=like.dtype)
    return [(each / each.norm()).to(like.device) for each in drawn]


def _projections(gradient: Tensor, directions: Sequence[Tensor]) -> tuple[float, ...]:
    return tuple(float((gradient * each).sum()) for each in directions)


@dataclass(frozen=True, slots=True)
class Slope:
    """The slope of a function at a point, and whether it has a kink there, as relu has at 0."""

    value: float
    kink: bool = False


def slope(function: Callable[[float], float], expected: float, *, size: float, step: float = STEP_SIZE) -> Slope:
    """Return the slope of a function at 0 by central differences; where it is not `expected`, with other step sizes.

    `size`: of the largest slope around, of which tolerances are a share. The function is asked once for each distance.
    """
    function = cache(function)
    first = _central(function, step)
    if is_near(first, expected, size=size, loss=function(0.0)):
        return Slope(first)
    if _has_kink(function, step, size):
        return Slope(first, kink=True)
    slopes = sorted((factor, _central(function, step * factor)) for factor in STEP_FACTORS)
    # The two neighbours that agree best are the least disturbed, by rounding or by what is cut off.
    best = min(pairwise(slopes), key=lambda pair: abs(pair[0][1] - pair[1][1]))
    return Slope(best[1][1])


def is_near(one: float, other: float, *, size: float, loss: float, tolerance: float = SLOPE_TOLERANCE) -> bool:
    """Return whether two slopes are the same as far as differences can tell; NaN is the same as nothing."""
    return abs(one - other) <= tolerance * size + LOSS_ROUNDING * abs(loss)


def _central(function: Callable[[float], float], step: float) -> float:
    return (function(step) - function(-step)) / (2 * step)


def _has_kink(function: Callable[[float], float], step: float, size: float) -> bool:
    """Return whether the slopes on both sides stay apart however near they are measured."""
    gaps = []
    for step_size in (step, step / 100):
        middle = function(0.0)
        right, left = (function(step_size) - middle) / step_size, (middle - function(-step_size)) / step_size
        gaps.append(abs(right - left))
    bound = KINK_TOLERANCE * size + 4e-16 * abs(function(0.0)) / (step / 100)
    return all(math.isfinite(each) for each in gaps) and gaps[1] > bound and gaps[1] > gaps[0] / 2
