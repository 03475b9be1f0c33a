"""A proof in words and numbers: the gradient beside finite differences, and what follows."""

from __future__ import annotations

from collections.abc import Iterator

from autograd_tui.engine.values.proof_result import Proof
from autograd_tui.text.line import Line, wrapped
from autograd_tui.text.numbers import number

MOST_ROWS = 8  # of numbers that are shown
COLUMN = 11  # characters of a number and the blank before it
HEADINGS = {"agrees": "proven", "wrong": "refuted", "differs": "not the run's own", "kink": "a kink"}


def proof_lines(proof: Proof, width: int) -> list[Line]:
    """Show the ways in which a gradient was found, one column each, and say how they agree; a line fits in `width`."""
    style = {"agrees": "accent", "kink": "warn"}.get(proof.verdict, "error")
    lines: list[Line] = [[(f"{_title(proof)}: {HEADINGS[proof.verdict]}", style)]]
    for sentence in _verdict(proof):
        lines += wrapped(sentence, width)
    return [*lines, *_table(proof, width), *wrapped(_method(proof), width)]


def _title(proof: Proof) -> str:
    return f"dLoss/d({proof.name})" if " " in proof.name else f"{proof.name}.grad"


def _table(proof: Proof, width: int) -> Iterator[Line]:
    """Give the numbers: as many columns as fit, the differences and the run's own first."""
    columns = {"differences": proof.numeric, "the run": proof.held, "float64": proof.exact}
    if proof.closed is not None:
        columns["formula"] = proof.closed
    label = max(len(_place(proof, len(proof.numeric) - 1)), 4)
    names = list(columns)[: max((width - label) // (COLUMN + 2), 1)]
    if not proof.numeric:
        return
    yield [(" " * label, ""), *((f"{name:>{COLUMN + 2}}", "dim") for name in names)]
    for row in range(min(len(proof.numeric), MOST_ROWS)):
        values = [(f"{number(columns[name][row], signed=True):>{COLUMN + 2}}", "") for name in names]
        yield [(f"{_place(proof, row):<{label}}", "dim"), *values]
    if len(proof.numeric) > MOST_ROWS:
        yield [(f"and {len(proof.numeric) - MOST_ROWS} more", "dim")]


def _place(proof: Proof, row: int) -> str:
    """Name an element by its place in the tensor, a direction by its number."""
    if proof.kind == "directions":
        return f"way {row + 1}"
    places: list[str] = []
    for size in reversed(proof.shape):
        row, place = divmod(row, size)
        places.append(str(place))
    return f"[{','.join(reversed(places))}]"


def _method(proof: Proof) -> str:
    many = len(proof.numeric)
    what = "each element" if proof.kind == "elements" else f"{many} random directions of length 1"
    return (
        f"Measured along {what}: the loss a step of {proof.step:.1e} to both sides, in float64, on a copy of the model."
    )


def _verdict(proof: Proof) -> Iterator[str]:
    if proof.backwards > 1:
        yield f"The gradient is a sum of {proof.backwards} backwards of this forward."
    off, held = _off(proof.error, proof.relative_error), _off(proof.held_error, proof.relative_held_error)
    if proof.verdict == "wrong":
        yield f"Autograd in float64 is off by {off}: some operation's backward is not the slope of its forward."
    elif proof.verdict == "differs":
        yield (
            f"Autograd in float64 agrees with the differences (off by {off}), but the run's gradient is off by {held}: "
            f"more than {proof.dtype} rounds, so something else has changed it, such as a hook."
        )
    elif proof.verdict == "kink":
        yield (
            f"In {proof.kinks} of {len(proof.numeric)} the loss has a kink: its slopes on both sides differ, "
            "and autograd chooses one of those between."
        )
    else:
        yield f"Autograd in float64 is off by {off}; the run's {proof.dtype} gradient is off by {held}."


def _off(error: float, share: float) -> str:
    if share > 1:  # of next to nothing
        return f"{error:.1e}"
    return f"{error:.1e}, a share of {share:.0e}" if error else "nothing"
