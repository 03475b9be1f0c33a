"""Proofs of any gradient of a run: from where training stands, and back to there."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from autograd_tui.engine.inside.in_float64 import CASTS
from autograd_tui.engine.line.proof import Course, Held, output_of, parameter_of, prove
from autograd_tui.engine.line.traces import Traces
from autograd_tui.engine.line.way_back import WayBack
from autograd_tui.engine.training.trainer import Trainer
from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.difference import Comparison
from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.proof_result import Proof


class Proofs:
    """Goes to the forward that a gradient is from, proves it on a copy, and comes back."""

    def __init__(self, trainer: Trainer, way: WayBack, traces: Traces, *, line: bool) -> None:
        """Take what trains; `line`: whether it is the line, whose gradients have a formula."""
        self._trainer, self._way, self._traces, self._line = trainer, way, traces, line

    def of(self, index: int, what: str | int, comparison: Comparison, stopped: Callable[[], bool]) -> Proof:
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

    def _of_parameter(self, index: int, name: str, comparison: Comparison) -> Proof:
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
            with trainer.beside() as loop:
                return prove(name, held, parameter_of(loop, name, course, line=self._line), course, index=index)
        finally:
            way.return_to(here, comparison)

    def _of_output(self, index: int, number: int, comparison: Comparison) -> Proof:
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
            with self._trainer.beside() as loop:
                held, measured = output_of(loop, uncast, ops[number].name, course)
                return prove(name, held, measured, course, index=index)
        finally:
            way.return_to(here, comparison)

    def _place_of(self, name: str) -> tuple[str, int]:
        """Give a parameter's first name, and its place; raises Refused where the model has none of that name."""
        with self._trainer.beside() as loop:
            loop.param(name)
            first = loop.names[name]
            return first, list(loop.params).index(first)

    def _gradient(self, name: str) -> Tensor | None:
        """Copy what a parameter's `.grad` holds now."""
        with self._trainer.beside() as loop:
            grad = loop.params[name].grad
            return None if grad is None else grad.detach().clone()
