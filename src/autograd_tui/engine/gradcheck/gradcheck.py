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
from autograd_tui.core.session_view import Progress, Watch
from autograd_tui.engine.gradcheck.detached_values import DetachedValue, DetachedValuesMode, OtherPathTaken
from autograd_tui.engine.gradcheck.finite_differences import STEP, Slope, is_near, slope
from autograd_tui.engine.gradcheck.float64_copy import Float64Copy
from autograd_tui.engine.gradcheck.float64_forward import CASTS
from autograd_tui.engine.gradcheck.perturbed_forward import PerturbedForward
from autograd_tui.engine.replay.replayer import Replayer
from autograd_tui.engine.replay.trace_cache import TraceCache
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.trainer import Trainer

MOST_ELEMENTS = 64  # of a tensor whose every element is measured
DIRECTIONS = 8  # random ones, in which a larger one is
EXACT = 2e-5  # as a share of the largest slope: what differences may miss autograd by
ROUNDED = 4  # times the root of the run's precision, as a share: what a gradient may lose on a long way
MOST_PLACES = 8  # at which something leaves the graph, each of which is tried alone
CANCELLED = 32  # times the run's precision, as a share of all gradients: what is left of terms that cancel


@dataclass(slots=True)
class Course:
    """How far a proof has come; `watch` is told before each forward."""

    name: str
    watch: Watch
    done: int = 0  # slopes measured
    of: int = 0

    def go_on(self) -> None:
        """Raise Refused where the proof is not wanted any more."""
        if not self.watch(Progress(self.done, self.of, proof=self.name)):
            raise Refused("the proof was given up.")


@dataclass(frozen=True, slots=True)
class Held:
    """The gradient that the run holds, and what was in it before the forward that is measured."""

    grad: Tensor
    before: Tensor | None = None
    backwards: int = 1  # since that forward


@dataclass(frozen=True, slots=True)
class Measured:
    """A loss that can be shifted, what autograd holds still of it or not, and its gradient by autograd in float64."""

    double: Float64Copy
    loss_at: Callable[[Tensor, DetachedValuesMode | None], float]
    exact: Tensor
    size: float  # of a usual element of what is shifted
    around: float  # the norm of all gradients together: terms of that size may cancel, and leave their rounding
    left: Sequence[DetachedValue]  # what autograd holds still
    closed: Tensor | None = None


def parameter_of(state: TrainingState, name: str, course: Course, *, line: bool) -> Measured:
    """Measure by a parameter, where the loop stands just before its forward; `line`: whether there is a formula."""
    double = Float64Copy(state, before=course.go_on)
    param = double.params[name]
    base = param.detach().clone()
    trained: dict[str, Tensor] = {}

    def left_unfrozen() -> Iterable[Tensor]:
        trained.update((each, param) for each, param in double.params.items() if param.requires_grad)
        return trained.values()

    found, left = double.grads(left_unfrozen)
    if double.writes_into(param):
        raise Refused(f"the forward itself changes {name}, so there is no telling what moving it before would do.")
    grads = dict(zip(trained, found, strict=True))
    exact = grads.get(name)
    if exact is None:
        raise Refused(f"no gradient comes back to {name} in the forward before, so there is nothing to prove.")

    def loss_at(shift: Tensor, still: DetachedValuesMode | None) -> float:
        with torch.no_grad():
            param.copy_(base + shift)
        return float(double.loss(still=still).item())

    around = math.hypot(*(each.norm().item() for each in grads.values() if each is not None))
    closed = _closed_form(double, name) if line else None
    return Measured(double, loss_at, exact.to_dense(), _usual(base), around, left, closed)


def output_of(state: TrainingState, number: int, name: str, course: Course) -> tuple[Held, Measured]:
    """Measure by what comes out of operation `number` of the forward, called `name`, where the loop stands before it.

    The gradient held is that of the same forward in the run's own dtypes, run again.
    """
    mark = state.global_state.mark_closely()
    first = Float64Copy(state, dtype=None, before=course.go_on)
    held = Held(PerturbedForward(first, number, name).grad())
    first.put_back()
    state.global_state.return_to(mark)
    shifted = PerturbedForward(Float64Copy(state, before=course.go_on), number, name)
    exact = shifted.grad()
    return held, Measured(shifted.double, shifted.loss_at, exact, shifted.size, exact.norm().item(), shifted.left)


def prove(name: str, held: Held, measured: Measured, course: Course, *, index: int) -> GradCheck:
    """Compare along each element, or along random directions; raises Refused where that says nothing."""
    loss, step = _steady_loss(measured), STEP * max(1.0, measured.size)

    def compared(still: tuple[str, ...]) -> GradCheck:
        directions = _directions(measured.exact)
        slopes = _slopes(measured, directions, course, loss=loss, step=step, still=bool(still))
        proof = _side_by_side(name, held, measured, directions, index=index, slopes=slopes)
        return _judged(replace(proof, step=step, held_still=still), slopes, loss=loss, around=measured.around)

    still = _held_still(measured, step)
    proof = compared(still)
    if proof.verdict != "wrong" or not still:
        return proof
    # A backward of one's own may follow what is held still, as implicit differentiation does.
    moving = compared(())
    return proof if moving.verdict == "wrong" else moving


def _side_by_side(
    name: str, held: Held, measured: Measured, directions: Sequence[Tensor], *, index: int, slopes: Sequence[Slope]
) -> GradCheck:
    """Write the numbers beside each other, before anything is said of them."""
    exact, wide = measured.exact, measured.double.wide
    before = torch.zeros_like(exact) if held.before is None else held.before.to_dense().to(exact)
    coarsest = max((held.grad.dtype, *wide.dtypes), key=lambda dtype: torch.finfo(dtype).eps)

    def total(values: Sequence[float]) -> tuple[float, ...]:
        old = _along(before, directions)
        return tuple(each + held.backwards * value for each, value in zip(old, values, strict=True))

    return GradCheck(
        index,
        name,
        tuple(exact.shape),
        "elements" if len(directions) == exact.numel() else "directions",
        held=_along(held.grad.detach().to_dense().to(exact), directions),
        numeric=total([each.value for each in slopes]),
        exact=total(_along(exact, directions)),
        closed=None if measured.closed is None else total(measured.closed.tolist()),
        verdict="agrees",
        step=STEP,
        dtype=str(held.grad.dtype).removeprefix("torch."),
        coarsest=str(coarsest).removeprefix("torch."),
        backwards=held.backwards,
        kinks=sum(each.kink for each in slopes),
        casts=tuple(wide.casts),
        autocast=wide.autocast,
    )


def _steady_loss(measured: Measured) -> float:
    """Give the loss where nothing is shifted; raises Refused where that is not one."""
    nowhere = torch.zeros_like(measured.exact)
    loss = measured.loss_at(nowhere, None)
    if measured.loss_at(nowhere, None) != loss:
        raise Refused("the model gives another loss each time, random numbers put back: no difference means anything.")
    return loss


def _held_still(measured: Measured, step: float) -> tuple[str, ...]:
    """Give the places at which autograd holds something still that the loss depends on; none mostly."""
    if not measured.left:
        return ()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(measured.exact.shape, generator=generator, dtype=measured.exact.dtype)
    shift = step * drawn.to(measured.exact.device)
    still = measured.double.still(measured.left)
    loss = measured.loss_at(shift, still)
    if not still.moved or measured.loss_at(shift, None) == loss:
        return ()
    places = tuple(still.moved)

    def matters(place: str) -> bool:
        try:
            return measured.loss_at(shift, measured.double.still(measured.left, loose=[place])) != loss
        except OtherPathTaken:
            return True

    return tuple(filter(matters, places[:MOST_PLACES])) or places


def _slopes(
    measured: Measured, directions: Sequence[Tensor], course: Course, *, loss: float, step: float, still: bool
) -> list[Slope]:
    """Measure how steep the loss is along each direction, `still`: with that held which autograd holds still."""
    course.done, course.of = 0, len(directions)
    expected, found = _along(measured.exact, directions), list[Slope]()
    largest = max(map(abs, expected), default=0.0)
    for direction, each in zip(directions, expected, strict=True):

        def function(way: float, direction: Tensor = direction) -> float:
            if not way:
                return loss
            return measured.loss_at(direction * way, measured.double.still(measured.left) if still else None)

        found.append(slope(function, each, size=largest, step=step))
        course.done = len(found)
    return found


def _judged(proof: GradCheck, slopes: Sequence[Slope], *, loss: float, around: float) -> GradCheck:
    """Say how the three agree, within what differences and the run's dtype can tell; a kink has no slope to miss."""
    size = max(map(abs, (*proof.numeric, *proof.exact)), default=0.0)
    pairs = zip(slopes, proof.numeric, proof.exact, strict=True)
    right = all(each.kink or is_near(a, b, size=size, function=loss, tolerance=EXACT) for each, a, b in pairs)
    eps = torch.finfo(getattr(torch, proof.coarsest)).eps
    bound = ROUNDED * math.sqrt(eps) * size + CANCELLED * eps * around
    same = all(abs(a - b) <= bound for a, b in zip(proof.exact, proof.held, strict=True))
    return replace(
        proof, verdict="wrong" if not right else "differs" if not same else "kink" if proof.kinks else "agrees"
    )


def _directions(like: Tensor) -> list[Tensor]:
    """Give each element of a small tensor, of a larger one random directions of length 1, the same each time."""
    if like.numel() <= MOST_ELEMENTS:
        return [each.view_as(like) for each in torch.eye(like.numel(), dtype=like.dtype, device=like.device)]
    generator = torch.Generator().manual_seed(like.numel())
    drawn = torch.randn(DIRECTIONS, *like.shape, generator=generator, dtype=like.dtype)
    return [(each / each.norm()).to(like.device) for each in drawn]


def _along(gradient: Tensor, directions: Sequence[Tensor]) -> tuple[float, ...]:
    return tuple(float((gradient * each).sum()) for each in directions)


def _usual(tensor: Tensor) -> float:
    norm: float = tensor.norm().item()
    return norm / math.sqrt(max(tensor.numel(), 1))


def _closed_form(double: Float64Copy, name: str) -> Tensor:
    """Give 2/n sum((Q - y) x), for b without the x; (1,)."""
    x, y = double.batch
    error: Tensor = double.params["w"].detach() * x + double.params["b"].detach() - y
    return (2 / error.numel() * (error * x if name == "w" else error).sum()).reshape(1)


class GradChecker:
    """Goes to the forward that a gradient is from, proves it on a copy, and comes back."""

    def __init__(self, trainer: Trainer, way: Replayer, traces: TraceCache, *, line: bool) -> None:
        """Take what trains; `line`: whether it is the line, whose gradients have a formula."""
        self._trainer, self._way, self._traces, self._line = trainer, way, traces, line

    def of(self, index: int, what: str | int, comparison: ReplayChecker, stopped: Callable[[], bool]) -> GradCheck:
        """Prove the gradient of a parameter, by its name, or of what came out of an operation, by its number.

        Whoever watches going back is told how far it is, and may give it up too.
        """
        self._way.check_repeats("a proof measures the loss many times")
        watch = self._way.watch
        self._way.watch = lambda progress: watch(progress) and not stopped()
        try:
            if isinstance(what, int):
                return self._of_output(index, what, comparison)
            return self._of_parameter(index, what, comparison)
        finally:
            self._way.watch = watch

    def _of_parameter(self, index: int, name: str, comparison: ReplayChecker) -> GradCheck:
        """Prove the gradient of a parameter as it is at frame `index`; raises Refused where there is none."""
        here, trainer, way = self._trainer.frame.index, self._trainer, self._way
        name, place = self._place_of(name)
        backward = way.last(Phase.BACKWARD, index)
        forward = way.last(Phase.FORWARD, backward)
        try:
            way.travel(index, comparison)
            grad, counted = self._gradient(name), trainer.frame.grads.backwards[place]
            if grad is None or not forward:
                raise Refused(f"{name} has no gradient at frame {index}: there is one after backward, until zero_grad.")
            way.go_to_start(forward, comparison)
            before, earlier = self._gradient(name), trainer.frame.grads.backwards[place]
            if counted <= earlier and before is not None:
                raise Refused(f"the last backward has added nothing to the gradient of {name}.")
            held = Held(grad, before, counted - (earlier if before is not None else 0))
            course = Course(f"{name}.grad", way.watch)
            with trainer.borrow_state() as state:
                return prove(name, held, parameter_of(state, name, course, line=self._line), course, index=index)
        finally:
            way.return_to(here, comparison)

    def _of_output(self, index: int, number: int, comparison: ReplayChecker) -> GradCheck:
        """Prove the gradient of what came out of operation `number` of the forward that frame `index` stands upon."""
        here, way = self._trainer.frame.index, self._way
        forward = way.last(Phase.FORWARD, index)
        if not forward:
            raise Refused(f"there is no forward before frame {index}, so there is nothing to prove.")
        ops = self._traces.of(forward, comparison).ops
        if not 0 <= number < len(ops):
            raise Refused(f"the forward has {len(ops)} operations, and none is number {number + 1}.")
        if ops[number].opaque:
            raise Refused(f"{ops[number].name} is known by what came out of it alone, which cannot be shifted.")
        if ops[number].name in CASTS:
            raise Refused(f"{ops[number].name} changes dtypes alone, and the copy is in float64: prove what went in.")
        uncast = sum(op.name not in CASTS for op in ops[:number])
        name = f"{ops[number].name} {number + 1}"
        course = Course(f"dLoss/d({name})", way.watch)
        try:
            way.go_to_start(forward, comparison)
            with self._trainer.borrow_state() as state:
                held, measured = output_of(state, uncast, ops[number].name, course)
                return prove(name, held, measured, course, index=index)
        finally:
            way.return_to(here, comparison)

    def _place_of(self, name: str) -> tuple[str, int]:
        """Give a parameter's first name, and its place; raises Refused where the model has none of that name."""
        with self._trainer.borrow_state() as state:
            state.param(name)
            first = state.names[name]
            return first, list(state.params).index(first)

    def _gradient(self, name: str) -> Tensor | None:
        """Copy what a parameter's `.grad` holds now."""
        with self._trainer.borrow_state() as state:
            grad = state.params[name].grad
            return None if grad is None else grad.detach().clone()
