"""One parameter in an optimizer step: its tensors before and after, and the equations that lead to its new value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.derivation.nonfinite_lines import finite_example_lines
from autograd_tui.text.derivation.rule_context import first_value
from autograd_tui.text.derivation.small_tensor import is_close, tolerance_of
from autograd_tui.text.equation import evaluated, exact, with_digits, wrapped_rows
from autograd_tui.text.numbers import parse_float, terse
from autograd_tui.text.styled_text import Line, one_line

MAX_NAME_LENGTH = 12  # characters; a parameter with a longer name is called p in formulas


@dataclass(frozen=True, slots=True)
class ParameterUpdate:
    """A parameter, its gradient and the optimizer's state for it, before and after `Optimizer.step`.

    Numbers are the first elements of these tensors.
    """

    trace: Trace
    op: Operation

    @property
    def name(self) -> str:
        """The parameter's symbol in formulas: the last part of its name, or p."""
        short = one_line(self.op.name).rpartition(".")[2]
        return short if len(short) <= MAX_NAME_LENGTH else "p"

    def before(self, role: str) -> float | None:
        """Return a number of the optimizer's state as it was before the step; None where it was not recorded."""
        return first_value(self.op.named_input(role))

    def after(self, role: str) -> float | None:
        """Return a number of the optimizer's state as it is after the step; None where it was not recorded."""
        return first_value(self.op.named_output(role))

    @property
    def value(self) -> float:
        """The parameter before the step."""
        return self.before("value") or 0.0

    @property
    def grad(self) -> float:
        """The gradient, negated with `maximize`."""
        grad = self.before("grad") or 0.0
        return -grad if self.option("maximize") else grad

    @property
    def grad_symbol(self) -> str:
        """The gradient in formulas: "grad", or "g" if the optimizer negates it or adds weight decay first."""
        return "g" if self.option("maximize") or self.option("weight_decay") else "grad"

    @property
    def has_numbers(self) -> bool:
        """Whether everything that each formula needs was recorded."""
        lr = parse_float(dict(self.op.settings).get("lr", "0"))
        return None not in (self.before("value"), self.after("value"), self.before("grad"), lr)

    def option(self, name: str) -> float:
        """Return an option of the parameter's group as a number, 1 for True; 0 where it has none."""
        return parse_float(dict(self.op.settings).get(name)) or 0.0

    def option_pair(self, name: str) -> tuple[float, float]:
        """Return an option of two numbers, such as `betas`; NaN in place of what is not a number."""
        words = dict(self.op.settings).get(name, "").strip("()[] ").split(",")
        first, second = [*(parse_float(word.strip()) for word in words), None, None][:2]
        return (math.nan if first is None else first, math.nan if second is None else second)


@dataclass(frozen=True, slots=True)
class StepEquation:
    """One equation of a step, and what PyTorch has for its result."""

    text: str  # "v = 0.9 × 2 + 1", its numbers in full
    computed: float
    recorded: float | None  # None where PyTorch keeps no such number
    magnitude: float  # of the largest number that entered: rounding is judged by it
    baseline: float | None  # the number that it changes: the result is written with enough digits to differ from it

    def lines(self, width: int, *, tolerance: float) -> list[Line]:
        """Write the equation with PyTorch's result; a warning if it differs by more than `tolerance`, relative."""
        if self.recorded is None:
            return wrapped_rows(evaluated(self.text, [self.computed], terse(self.computed)), width, indent="  ")
        if not is_close(self.computed, self.recorded, tolerance=tolerance, magnitude=self.magnitude):
            message = f"but PyTorch has {terse(self.recorded)}: something else was computed."
            warning = f"{with_digits(self.text)} gives {terse(self.computed)}, {message}"
            return wrapped_rows(warning, width, indent="  ", style="warn")
        digits = _digits_to_differ(self.recorded, self.baseline)
        written = evaluated(
            self.text, [self.recorded], terse(self.recorded, digits), shown=lambda value: terse(value, digits)
        )
        return wrapped_rows(written, width, indent="  ", style="now")


def _digits_to_differ(value: float, other: float | None) -> int:
    """Return the fewest digits, from four on, that print two numbers differently."""
    if other is None or value == other:
        return 4
    return next((digits for digits in range(4, 9) if terse(value, digits) != terse(other, digits)), 9)


@dataclass(slots=True)
class StepDerivation:
    """An optimizer's formula worked out for the first element of one parameter."""

    formula: str  # "w = w - lr × grad"
    update: ParameterUpdate
    notes: list[str] = field(default_factory=list)
    equations: list[StepEquation] = field(default_factory=list)

    def add(
        self,
        text: str,
        computed: float,
        recorded: float | None = None,
        *,
        magnitude: float = 0.0,
        baseline: float | None = None,
    ) -> float:
        """Append an equation and return its result: PyTorch's own if recorded, so that rounding does not add up."""
        self.equations.append(StepEquation(text, computed, recorded, magnitude, baseline))
        return computed if recorded is None else recorded

    def finish(self, text: str, change: float, *, start: float | None = None) -> StepDerivation:
        """Append the last equation, parameter - change, and return this derivation.

        `text` writes `change`. `start` is the parameter's value if earlier equations changed it (weight decay).
        """
        before = self.update.value if start is None else start
        equation, magnitude = f"{self.update.name} = {exact(before)} - {text}", max(abs(before), abs(change))
        self.add(equation, before - change, self.update.after("value"), magnitude=magnitude, baseline=before)
        return self

    def lines(self, width: int) -> list[Line]:
        """Write the formula, the equations below it, and the notes."""
        op, lines = self.update.op, wrapped_rows(self.formula, width, style="strong")
        value, tolerance = op.named_output("value"), tolerance_of((*op.inputs, *op.output))
        if value is not None and value.stats.size > 1:
            lines += wrapped_rows("of the first value:", width, style="dim")
        for equation in self.equations:
            lines += equation.lines(width, tolerance=tolerance)
        after = self.update.after("value")
        if value is not None and after is not None:
            lines += finite_example_lines(after, value, [(each.role, each) for each in op.inputs], width)
        for note in self.notes:
            lines += wrapped_rows(note, width, style="dim")
        return lines


def signed(value: float) -> str:
    """Write a number as a further term of a sum, in full: "+ 2" or "- 2"."""
    return f"- {exact(abs(value))}" if value < 0 else f"+ {exact(value)}"


StepRule = Callable[[ParameterUpdate], StepDerivation]
