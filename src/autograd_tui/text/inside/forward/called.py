"""What a forward operation computed: in a formula, and in numbers where they are all known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autograd_tui.engine.values.trace import NotFinite, Op, Trace, Value
from autograd_tui.text.inside.backward.scene import parsed, parsed_whole, setting
from autograd_tui.text.inside.expression import expression, operands
from autograd_tui.text.inside.not_finite import at_place
from autograd_tui.text.inside.small import Small


@dataclass(frozen=True, slots=True)
class Called:
    """A forward operation as a rule sees it; with `first`, one value of each tensor alone: the first, or that `at`."""

    trace: Trace
    op: Op
    first: bool = False
    at: NotFinite | None = None

    def role(self, *roles: str) -> Value | None:
        """Find an input by what torch calls it."""
        return next((value for role in roles for value in self.op.inputs if value.role == role), None)

    def small(self, value: Value | None) -> Small | None:
        if not self.first or value is None:
            return Small.of(value)
        if self.at is not None:
            return at_place(self.at, self.op.inputs, value)
        values = value.stats.values or ((value.first,) if value.first is not None else ())
        return Small((), values[:1]) if values else None

    def operand(self, place: int) -> Small | None:
        """Take one operand of arithmetic: a tensor, or the number among the settings."""
        if place < len(self.op.inputs):
            return self.small(self.op.inputs[place])
        numbers = [parsed(value) for name, value in self.op.settings if name in ("self", "other", "exponent")]
        number = next(iter(numbers[place - len(self.op.inputs) :]), None)
        return None if number is None else Small((), (number,))

    def names(self) -> list[str]:
        return operands(self.trace, self.op)

    def name(self, place: int = 0) -> str:
        """Name one input, as a reader would write it."""
        return expression(self.trace, self.op.inputs[place]) if place < len(self.op.inputs) else "nothing"

    def words(self, name: str) -> str | None:
        return setting(self.op, name)

    def number(self, name: str, otherwise: float) -> float | None:
        return otherwise if self.words(name) is None else parsed(self.words(name))

    def whole(self, name: str) -> tuple[int, ...] | None:
        return parsed_whole(self.words(name))


@dataclass(frozen=True, slots=True)
class Computed:
    """What a rule says of it."""

    formula: str  # "w × x"
    result: Small | None = None
    worked: str = ""  # "[2 × 1, 2 × 2]", its numbers in full
    size: float = 0.0  # of the largest number that entered
    by_value: bool = False


ForwardRule = Callable[[Called], Computed]
