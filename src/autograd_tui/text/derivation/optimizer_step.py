"""One parameter in an optimizer step: its tensors before and after, and the equations that lead to its new value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.derivation.derivation import Derivation, arithmetic_lines
from autograd_tui.text.derivation.rule_context import first_value
from autograd_tui.text.derivation.small_tensor import SmallTensor, tolerance_of
from autograd_tui.text.equation import evaluated, exact, with_digits, wrapped_rows
from autograd_tui.text.numbers import parse_float, terse
from autograd_tui.text.styled_text import Line, one_line

MAX_NAME_LENGTH = 12  # characters; a parameter with a longer name is called p in formulas


@dataclass(frozen=True, slots=True)
class ParameterUpdate:
    """A parameter, its gradient and the optimizer's state for it, before and after `Optimizer.step`."""

    trace: Trace
    op: Operation

    @property
    def name(self) -> str:
        """The parameter's symbol in formulas: the last part of its name, or p."""
        short = one_line(self.op.name).rpartition(".")[2]
        return short if len(short) <= MAX_NAME_LENGTH else "p"

    def number_before(self, role: str) -> float | None:
        """Return the first element of a tensor as it was before the step."""
        return first_value(self.op.named_input(role))

    def number_after(self, role: str) -> float | None:
        """Return the first element of a tensor as it is after the step."""
        return first_value(self.op.named_output(role))

    @property
    def has_numbers(self) -> bool:
        """Whether everything that each formula needs was recorded."""
        needed = self.number_before("value"), self.number_after("value"), self.number_before("grad"), self.option("lr")
        return None not in needed

    def option(self, name: str) -> float | None:
        """Return an option of the parameter's group, 0 if it has none; None if it is not a number."""
        return parse_float(dict(self.op.settings).get(name, "0"))

    def is_on(self, name: str) -> bool:
        return bool(self.option(name))

    def option_pair(self, name: str) -> tuple[float, float]:
        """Return an option of two numbers, such as `betas`; NaN in place of what is not a number."""
        words = dict(self.op.settings).get(name, "").strip("()[] ").split(",")
        first, second = [*(parse_float(word.strip()) for word in words), None, None][:2]
        return (float("nan") if first is None else first, float("nan") if second is None else second)

    @property
    def tolerance(self) -> float:
        """The relative error to expect from rounding in the dtypes of this update."""
        return tolerance_of((*self.op.inputs, *self.op.output))


@dataclass(frozen=True, slots=True)
class StepEquation:
    """One equation of a step, and what PyTorch has for its result."""

    derivation: Derivation
    recorded: float | None  # None where PyTorch keeps no such number
    baseline: float | None  # the number that it changes: the result is written with enough digits to differ from it

    def lines(self, width: int, *, tolerance: float) -> list[Line]:
        """Write the equation with PyTorch's result; a warning if it differs by more than rounding."""
        assert self.derivation.result is not None
        (computed,), arithmetic = self.derivation.result.values, self.derivation.arithmetic
        if self.recorded is None:
            return arithmetic_lines(self.derivation, [computed], terse(computed), width, style="")
        if not self.derivation.agrees(SmallTensor((), (self.recorded,)), tolerance):
            message = f"but PyTorch has {terse(self.recorded)}: something else was computed."
            warning = f"{with_digits(arithmetic)} gives {terse(computed)}, {message}"
            return wrapped_rows(warning, width, indent="  ", style="warn")
        digits = _digits_to_differ(self.recorded, self.baseline)
        text = evaluated(
            arithmetic, [self.recorded], terse(self.recorded, digits), shown=lambda value: terse(value, digits)
        )
        return wrapped_rows(text, width, indent="  ", style="now")


def _digits_to_differ(value: float, other: float | None) -> int:
    """Return the fewest digits, from four on, that print two numbers differently."""
    if other is None or value == other:
        return 4
    return next((digits for digits in range(4, 9) if terse(value, digits) != terse(other, digits)), 9)


@dataclass(slots=True)
class StepDerivation:
    """An optimizer's formula worked out for the first element of one parameter."""

    formula: str  # "w = w - lr × grad"
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
        derivation = Derivation("", SmallTensor((), (computed,)), text, magnitude)
        self.equations.append(StepEquation(derivation, recorded, baseline))
        return computed if recorded is None else recorded

    def finish(
        self, update: ParameterUpdate, text: str, change: float, *, start: float | None = None
    ) -> StepDerivation:
        """Append the last equation, parameter - change, and return this derivation.

        `text` writes `change`. `start` is the parameter's value if earlier equations changed it (weight decay).
        """
        before = update.number_before("value") or 0.0 if start is None else start
        equation = f"{update.name} = {exact(before)} - {text}"
        magnitude = max(abs(before), abs(change))
        self.add(equation, before - change, update.number_after("value"), magnitude=magnitude, baseline=before)
        return self

    def lines(self, update: ParameterUpdate, width: int) -> list[Line]:
        """Write the formula, the equations below it, and the notes."""
        value = update.op.named_output("value")
        lines = wrapped_rows(self.formula, width, style="strong")
        if value is not None and value.stats.size > 1:
            lines += wrapped_rows("of the first value:", width, style="dim")
        for equation in self.equations:
            lines += equation.lines(width, tolerance=update.tolerance)
        for note in self.notes:
            lines += wrapped_rows(note, width, style="dim")
        return lines


def signed(value: float) -> str:
    """Write a number as a further term of a sum, in full: "+ 2" or "- 2"."""
    return f"- {exact(abs(value))}" if value < 0 else f"+ {exact(value)}"


StepRule = Callable[[ParameterUpdate], StepDerivation]
