"""The proof of a gradient: the run's own beside autograd in float64 and finite differences of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autograd_tui.engine.inside.differences import STEP, Slope, is_near, slope
from autograd_tui.engine.inside.double import Double
from autograd_tui.engine.inside.shifted import Shifted
from autograd_tui.engine.training.loop import Loop
from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.progress import Progress, Watch
from autograd_tui.engine.values.proof_result import Proof

MOST_ELEMENTS = 64  # of a tensor whose every element is measured
DIRECTIONS = 8  # random ones, in which a larger one is
EXACT = 2e-5  # as a share of the largest slope: what differences may miss autograd by
ROUNDED = 4  # times the root of the run's precision, as a share: what a gradient may lose on a long way
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
    """A loss that can be shifted, and its gradient by autograd in float64."""

    loss_at: Callable[[Tensor], float]
    exact: Tensor
    size: float  # of a usual element of what is shifted
    around: float  # the norm of all gradients together: terms of that size may cancel, and leave their rounding
    closed: Tensor | None = None


def parameter_of(loop: Loop, name: str, course: Course, *, line: bool) -> Measured:
    """Measure by a parameter, where the loop stands just before its forward; `line`: whether there is a formula."""
    double = Double(loop, before=course.go_on)
    param = double.params[name]
    base = param.detach().clone()
    loss = double.loss()
    double.check(loss)
    trained = {each: param for each, param in double.params.items() if param.requires_grad}
    grads = dict(zip(trained, torch.autograd.grad(loss, list(trained.values()), allow_unused=True), strict=True))
    exact = grads.get(name)
    if exact is None:
        raise Refused(f"the loss does not depend on {name} in the forward before: there is nothing to prove.")

    def loss_at(shift: Tensor) -> float:
        with torch.no_grad():
            param.copy_(base + shift)
        return float(double.loss().item())

    around = math.hypot(*(each.norm().item() for each in grads.values() if each is not None))
    return Measured(loss_at, exact.to_dense(), _usual(base), around, _closed_form(double, name) if line else None)


def output_of(loop: Loop, number: int, name: str, course: Course) -> tuple[Held, Measured]:
    """Measure by what comes out of operation `number` of the forward, called `name`, where the loop stands before it.

    The gradient held is that of the same forward in the run's own dtypes, run again.
    """
    mark = loop.surroundings.mark_closely()
    held = Held(Shifted(Double(loop, dtype=None, before=course.go_on), number, name).grad())
    loop.surroundings.return_to(mark)
    shifted = Shifted(Double(loop, before=course.go_on), number, name)
    exact = shifted.grad(check=True)
    return held, Measured(shifted.loss_at, exact, shifted.size, exact.norm().item())


def prove(name: str, held: Held, measured: Measured, course: Course, *, index: int) -> Proof:
    """Compare along each element, or along random directions; raises Refused where that says nothing."""
    exact = measured.exact
    directions = _directions(exact)
    before = torch.zeros_like(exact) if held.before is None else held.before.to_dense().to(exact)
    step = STEP * max(1.0, measured.size)
    loss, slopes = _slopes(measured, directions, course, step=step)

    def total(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(
            old + held.backwards * value for old, value in zip(_along(before, directions), values, strict=True)
        )

    proof = Proof(
        index,
        name,
        tuple(exact.shape),
        "elements" if len(directions) == exact.numel() else "directions",
        held=_along(held.grad.detach().to_dense().to(exact), directions),
        numeric=total([each.value for each in slopes]),
        exact=total(_along(exact, directions)),
        closed=None if measured.closed is None else total(measured.closed.tolist()),
        verdict="agrees",
        step=step,
        dtype=str(held.grad.dtype).removeprefix("torch."),
        backwards=held.backwards,
        kinks=sum(each.kink for each in slopes),
    )
    return _judged(proof, slopes, loss=loss, around=measured.around, eps=torch.finfo(held.grad.dtype).eps)


def _slopes(
    measured: Measured, directions: Sequence[Tensor], course: Course, *, step: float
) -> tuple[float, list[Slope]]:
    """Give the loss, and how steep it is along each direction."""
    nowhere = torch.zeros_like(measured.exact)
    course.of = len(directions)
    loss = measured.loss_at(nowhere)
    if measured.loss_at(nowhere) != loss:
        raise Refused("the model gives another loss each time, random numbers put back: no difference means anything.")
    expected, found = _along(measured.exact, directions), []
    largest = max(map(abs, expected), default=0.0)
    for direction, each in zip(directions, expected, strict=True):

        def function(way: float, direction: Tensor = direction) -> float:
            return measured.loss_at(direction * way) if way else loss

        found.append(slope(function, each, size=largest, step=step))
        course.done = len(found)
    return loss, found


def _judged(proof: Proof, slopes: Sequence[Slope], *, loss: float, around: float, eps: float) -> Proof:
    """Say how the three agree, within what differences and the run's dtype can tell; a kink has no slope to miss."""
    size = max(map(abs, (*proof.numeric, *proof.exact)), default=0.0)
    pairs = zip(slopes, proof.numeric, proof.exact, strict=True)
    right = all(each.kink or is_near(a, b, size=size, function=loss, tolerance=EXACT) for each, a, b in pairs)
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


def _closed_form(double: Double, name: str) -> Tensor:
    """Give 2/n sum((Q - y) x), for b without the x; (1,)."""
    x, y = double.batch
    error: Tensor = double.params["w"].detach() * x + double.params["b"].detach() - y
    return (2 / error.numel() * (error * x if name == "w" else error).sum()).reshape(1)
