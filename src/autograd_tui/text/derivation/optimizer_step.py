"""One parameter in an optimizer step: its tensors before and after, and the equations that lead to its new value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.derivation.nonfinite_lines import finite_example_lines
from autograd_tui.text.derivation.rule_context import first_value
from autograd_tui.text.derivation.small_tensor import FLOAT32_TOLERANCE, is_close, tolerance_of
from autograd_tui.text.equation import evaluated, exact, with_digits, wrapped_rows
from autograd_tui.text.numbers import parse_float, terse
from autograd_tui.text.styled_text import Line, one_line

MAX_NAME_LENGTH = 12  # characters; a parameter with a longer name is called p in formulas


@dataclass(frozen=True, slots=True)
class ParameterUpdate:
    """A parameter, its gradient and the optimizer's state for it, before and after `Optimizer.step`.

    Numbers are the first elements of these tensors, by role: "value", "grad", "exp_avg".
    """

    name: str  # the parameter's symbol in formulas
    optimizer: str  # as a command spells it
    settings: Mapping[str, str]  # the options of its group, the learning rate among them
    numbers_before: Mapping[str, float | None]
    numbers_after: Mapping[str, float | None]
    tolerance: float = FLOAT32_TOLERANCE  # relative, within which PyTorch's numbers are those of the formula
    of_first_value: bool = False  # whether the tensor has others

    @classmethod
    def traced(cls, trace: Trace, op: Operation) -> ParameterUpdate:
        """Return the update of one parameter as a step that was recorded has it."""
        short, value = one_line(op.name).rpartition(".")[2], op.named_output("value")
        return cls(
            name=short if len(short) <= MAX_NAME_LENGTH else "p",
            optimizer=trace.optimizer,
            settings=dict(op.settings),
            numbers_before={each.role: first_value(each) for each in reversed(op.inputs)},
            numbers_after={each.role: first_value(each) for each in reversed(op.output)},
            tolerance=tolerance_of((*op.inputs, *op.output)),
            of_first_value=value is not None and value.stats.size > 1,
        )

    def before(self, role: str) -> float | None:
        """Return a number of the optimizer's state as it was before the step; None where it was not recorded."""
        return self.numbers_before.get(role)

    def after(self, role: str) -> float | None:
        """Return a number of the optimizer's state as it is after the step; None where it was not recorded."""
        return self.numbers_after.get(role)

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
        lr = parse_float(self.settings.get("lr", "0"))
        return None not in (self.before("value"), self.after("value"), self.before("grad"), lr)

    def option(self, name: str) -> float:
        """Return an option of the parameter's group as a number, 1 for True; 0 where it has none."""
        return parse_float(self.settings.get(name)) or 0.0

    def option_pair(self, name: str) -> tuple[float, float]:
        """Return an option of two numbers, such as `betas`; NaN in place of what is not a number."""
        words = self.settings.get(name, "").strip("()[] ").split(",")
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

    @property
    def result(self) -> float:
        """PyTorch's result, if it keeps one, else that of the formula."""
        return self.computed if self.recorded is None else self.recorded

    def agrees(self, tolerance: float) -> bool:
        """Return whether PyTorch's result, if it keeps one, is that of the formula."""
        if self.recorded is None:
            return True
        return is_close(self.computed, self.recorded, tolerance=tolerance, magnitude=self.magnitude)

    def lines(self, width: int, *, tolerance: float) -> list[Line]:
        """Write the equation with PyTorch's result; a warning if it differs by more than `tolerance`, relative."""
        if self.recorded is None:
            return wrapped_rows(evaluated(self.text, [self.computed], terse(self.computed)), width, indent="  ")
        if not self.agrees(tolerance):
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

    def lines(self, op: Operation, width: int) -> list[Line]:
        """Write the formula, the equations below it, and the notes; `op` is the traced step of the parameter."""
        lines = wrapped_rows(self.formula, width, style="strong")
        if self.update.of_first_value:
            lines += wrapped_rows("of the first value:", width, style="dim")
        for equation in self.equations:
            lines += equation.lines(width, tolerance=self.update.tolerance)
        value, after = op.named_output("value"), self.update.after("value")
        if value is not None and after is not None:
            lines += finite_example_lines(after, value, [(each.role, each) for each in op.inputs], width)
        for note in self.notes:
            lines += wrapped_rows(note, width, style="dim")
        return lines


def signed(value: float) -> str:
    """Write a number as a further term of a sum, in full: "+ 2" or "- 2"."""
    return f"- {exact(abs(value))}" if value < 0 else f"+ {exact(value)}"


StepRule = Callable[[ParameterUpdate], StepDerivation]
