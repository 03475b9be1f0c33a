"""One parameter in a step: its values before and after, the options, and the calculations that a rule makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from autograd_tui.core.trace import Operation, Trace, Value
from autograd_tui.text.derivation.node_context import parsed
from autograd_tui.text.derivation.small_tensor import near, rounding
from autograd_tui.text.equation import exact, rows, with_digits, worked
from autograd_tui.text.numbers import terse
from autograd_tui.text.styled_text import Line, one_line

LONGEST_NAME = 12  # characters; above it the parameter is called p in formulas


@dataclass(frozen=True, slots=True)
class Stepped:
    """A parameter before and after a step."""

    trace: Trace
    op: Operation

    @property
    def name(self) -> str:
        """Give what formulas call the parameter."""
        short = one_line(self.op.name).rpartition(".")[2]
        return short if len(short) <= LONGEST_NAME else "p"

    def before(self, role: str) -> Value | None:
        return next((value for value in self.op.inputs if value.role == role), None)

    def after(self, role: str) -> Value | None:
        return next((value for value in self.op.output if value.role == role), None)

    def was(self, role: str) -> float | None:
        return first(self.before(role))

    def became(self, role: str) -> float | None:
        return first(self.after(role))

    @property
    def known(self) -> bool:
        """Whether there are numbers to work with."""
        return None not in (self.was("value"), self.became("value"), self.was("grad"), self.option("lr"))

    def option(self, name: str) -> float | None:
        return parsed(dict(self.op.settings).get(name, "0"))

    def on(self, name: str) -> bool:
        """Tell whether an option is switched on."""
        return bool(self.option(name))

    def pair(self, name: str) -> tuple[float, float]:
        """Read an option of two numbers; NaN where it is none."""
        written = dict(self.op.settings).get(name, "").strip("()[] ").split(",")
        numbers = [parsed(each.strip()) for each in written]
        left, right = [*numbers, None, None][:2]
        return (float("nan") if left is None else left, float("nan") if right is None else right)

    @property
    def error(self) -> float:
        """Give the rounding to expect."""
        return rounding((*self.op.inputs, *self.op.output))


def first(value: Value | None) -> float | None:
    """Give the first value of a tensor, whatever its size."""
    if value is None:
        return None
    return value.stats.values[0] if value.stats.values else value.first


@dataclass(frozen=True, slots=True)
class ArithmeticRow:
    """One calculation, its result here and PyTorch's."""

    written: str  # its numbers in full
    computed: float
    recorded: float | None
    size: float  # of the largest number that entered
    start: float | None  # what it changes, from which the result is told apart

    def lines(self, stepped: Stepped, width: int) -> list[Line]:
        """Write it with PyTorch's result, or say that this is another one."""
        if self.recorded is None:
            return rows(worked(self.written, [self.computed], terse(self.computed)), width, indent="  ")
        if near(self.computed, self.recorded, error=stepped.error, size=self.size):
            digits = apart(self.recorded, self.start)
            text = worked(
                self.written,
                [self.recorded],
                terse(self.recorded, digits),
                shown=lambda value: terse(value, digits),
            )
            return rows(text, width, indent="  ", style="now")
        has = f"but PyTorch has {terse(self.recorded)}: something else was computed."
        said = f"{with_digits(self.written)} gives {terse(self.computed)}, {has}"
        return rows(said, width, indent="  ", style="warn")


@dataclass(slots=True)
class Worksheet:
    """Calculations in order, each with its numbers and what PyTorch has for it."""

    formula: str
    asides: list[str] = field(default_factory=list)
    rows: list[ArithmeticRow] = field(default_factory=list)

    def work(
        self,
        written: str,
        computed: float,
        recorded: float | None = None,
        *,
        size: float = 0.0,
        start: float | None = None,
    ) -> float:
        """Add one calculation; gives what PyTorch has where that is known, so that later ones start from it."""
        self.rows.append(ArithmeticRow(written, computed, recorded, size, start))
        return computed if recorded is None else recorded

    def move(self, stepped: Stepped, written: str, by: float, *, start: float | None = None) -> Worksheet:
        """Add the last calculation, how far the parameter moves; `start`: from where, if not from where it was."""
        before, after = stepped.was("value") or 0.0 if start is None else start, stepped.became("value")
        whole = f"{stepped.name} = {exact(before)} - {written}"
        self.work(whole, before - by, after, size=max(abs(before), abs(by)), start=before)
        return self

    def lines(self, stepped: Stepped, width: int) -> list[Line]:
        """Write all of them below the formula."""
        value = stepped.after("value")
        lines = rows(self.formula, width, style="strong")
        if value is not None and value.stats.size > 1:
            lines += rows("of the first value:", width, style="dim")
        for row in self.rows:
            lines += row.lines(stepped, width)
        for aside in self.asides:
            lines += rows(aside, width, style="dim")
        return lines


def apart(value: float, other: float | None) -> int:
    """Find how many digits it takes, from four on, to see that a number is not the other one."""
    if other is None or value == other:
        return 4
    return next((digits for digits in range(4, 9) if terse(value, digits) != terse(other, digits)), 9)


def signed(value: float) -> str:
    """Write a number in full that is added: "+ 2" or "- 2"."""
    return f"- {exact(abs(value))}" if value < 0 else f"+ {exact(value)}"


StepRule = Callable[[Stepped], Worksheet]
