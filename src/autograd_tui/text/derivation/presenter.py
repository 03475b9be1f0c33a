"""The rows in which a derivation is presented, in every phase: its arithmetic, its result, or how PyTorch differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autograd_tui.core.trace import NonFinite, Value
from autograd_tui.text.derivation.derivation import FIRST_VALUE, MAX_LISTED_VALUES, Derivation
from autograd_tui.text.derivation.small_tensor import SmallTensor, overflow_message
from autograd_tui.text.equation import evaluated, with_digits, wrapped_rows
from autograd_tui.text.numbers import terse
from autograd_tui.text.styled_text import Line
from autograd_tui.text.trace.tensor_words import dtype_change, nested, value_words


def written_result(recorded: Value, values: SmallTensor, width: int) -> str:
    """Write what PyTorch has: all values where they are few."""
    if len(values.values) <= MAX_LISTED_VALUES:
        return nested(values.values, values.shape)
    return value_words(recorded, width - 4)


def result_lines(written: str, width: int, *, style: str = "now") -> list[Line]:
    """Write what came out."""
    return wrapped_rows(f"= {written}", width, indent="  ", style=style)


def arithmetic_lines(
    derivation: Derivation, values: Sequence[float], written: str, width: int, *, style: str = "now"
) -> list[Line]:
    """Write the arithmetic and the `values` that it gives, as `written`; those alone where there is no arithmetic."""
    if not derivation.arithmetic:
        return result_lines(written, width, style=style)
    return wrapped_rows(evaluated(derivation.arithmetic, values, written), width, indent="  ", style=style)


def first_value_lines(derivation: Derivation, values: SmallTensor, width: int) -> list[Line]:
    """Write the first of several values with its arithmetic."""
    arithmetic = FIRST_VALUE + derivation.arithmetic.removeprefix(FIRST_VALUE)
    return wrapped_rows(evaluated(arithmetic, values.values[:1], terse(values.values[0])), width, indent="  ")


def agreeing_lines(
    derivation: Derivation, values: SmallTensor, written: str, width: int, *, works_nonfinite: bool
) -> list[Line]:
    """Show a derivation that agrees with PyTorch's `values`.

    works_nonfinite: another of its values, NaN or infinite, is worked instead of the first.
    """
    if not derivation.of_first_value:
        return arithmetic_lines(derivation, values.values, written, width)
    first = [] if works_nonfinite else first_value_lines(derivation, values, width)
    return [*first, *result_lines(written, width)]


def contradiction_lines(computed: str, recorded: Value, width: int, *, cause: str = "") -> list[Line]:
    """Say that the formula and PyTorch differ; with a `cause` in two sentences."""
    sentences = f"this formula gives {computed},", f"but {value_words(recorded, width - 8)} came out{cause or '.'}"
    if not cause:
        sentences = (" ".join(sentences), "")
    return [
        line for sentence in sentences if sentence for line in wrapped_rows(sentence, width, indent="  ", style="warn")
    ]


def overflow_of(derivation: Derivation | None, recorded: Value) -> str:
    """Say that a result is too large for its dtype; "" where it is not, or not known."""
    return overflow_message(derivation.result, recorded) if derivation and derivation.result else ""


def nonfinite_equation(derivation: Derivation | None, found: NonFinite, recorded: Value, error: float) -> str:
    """Write how a value that is NaN or infinite came about; "" where the formula does not tell.

    derivation: worked for that value alone.
    """
    if not (derivation and derivation.elementwise and derivation.result and derivation.arithmetic):
        return ""
    agrees = derivation.agrees(SmallTensor((), (found.value,)), error)
    if not agrees and not overflow_of(derivation, recorded):
        return ""
    return f"{with_digits(derivation.arithmetic)} = {terse(found.value)}"


def dtype_lines(inputs: Iterable[Value | None], outputs: Iterable[Value | None], width: int) -> list[Line]:
    """Say that the dtype changes on the way."""
    sentence = dtype_change(inputs, outputs)
    return wrapped_rows(sentence, width) if sentence else []
