"""A gradient check in words and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autograd_tui.core.command import Phase
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.numbers import number
from autograd_tui.text.styled_text import Line, wrapped


def what_to_prove(trace: Trace, op: Operation) -> tuple[int, str | int] | None:
    """Give the frame, and the parameter whose gradient is at hand or the number of the operation it came out of.

    None where there is no gradient of the kind.
    """
    if trace.phase is Phase.ZERO_GRAD:
        return trace.index - 1, op.name
    if trace.phase is Phase.STEP:
        return trace.index, op.name
    if trace.phase is Phase.FORWARD:
        return trace.index, op.number
    what = op.accumulates_into if op.accumulates_into is not None else op.made_by
    return None if what is None else (trace.index, what)


MOST_ROWS = 8  # of numbers that are shown
MOST_PLACES = 3  # in the code that are named
COLUMN = 11  # characters of a number and the blank before it
HEADINGS = {"agrees": "proven", "wrong": "refuted", "differs": "not the run's own", "kink": "a kink"}


def proof_lines(proof: GradCheck, width: int) -> list[Line]:
    """Show the ways in which a gradient was found, one column each, and say how they agree; a line fits in `width`."""
    style = {"agrees": "accent", "kink": "warn"}.get(proof.verdict, "error")
    lines: list[Line] = [[(f"{_title(proof)}: {HEADINGS[proof.verdict]}", style)]]
    for sentence in (*_verdict(proof), *_copy(proof)):
        lines += wrapped(sentence, width)
    return [*lines, *_table(proof, width), *wrapped(_method(proof), width)]


def _title(proof: GradCheck) -> str:
    return f"dLoss/d({proof.name})" if " " in proof.name else f"{proof.name}.grad"


def _table(proof: GradCheck, width: int) -> Iterator[Line]:
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


def _place(proof: GradCheck, row: int) -> str:
    """Name an element by its place in the tensor, a direction by its number."""
    if proof.kind == "directions":
        return f"way {row + 1}"
    places: list[str] = []
    for size in reversed(proof.shape):
        row, place = divmod(row, size)
        places.append(str(place))
    return f"[{','.join(reversed(places))}]"


def _method(proof: GradCheck) -> str:
    many = len(proof.numeric)
    what = "each element" if proof.kind == "elements" else f"{many} random directions of length 1"
    return (
        f"Measured along {what}: the loss a step of {proof.step:.1e} to both sides, in float64, on a copy of the model."
    )


def _copy(proof: GradCheck) -> Iterator[str]:
    """Say what of the forward is another in the copy."""
    others = [f"{_listed(proof.casts)} {'gives' if len(proof.casts) == 1 else 'give'} float64"] if proof.casts else []
    others += ["autocast is off"] if proof.autocast else []
    if others:
        yield f"In the copy {' and '.join(others)}."


def _listed(places: Sequence[str]) -> str:
    """Write some places, and how many more there are."""
    more = len(places) - MOST_PLACES
    some = [*places[:MOST_PLACES], *([f"{more} more"] if more > 0 else [])]
    return some[0] if len(some) == 1 else f"{', '.join(some[:-1])} and {some[-1]}"


def _stillness(proof: GradCheck) -> Iterator[str]:
    """Say what was held still, and that autograd was told to."""
    if not proof.held_still:
        return
    what = f"what comes out of {proof.name}" if " " in proof.name else proof.name
    start = f"The loss also depends on {what} through {_listed(proof.held_still)}, which gradients do not follow"
    end = "measured with that held still, they agree" if proof.verdict == "agrees" else "that was held still here"
    yield f"{start}: {end}."


def _verdict(proof: GradCheck) -> Iterator[str]:
    if proof.backwards > 1:
        yield f"The gradient is a sum of {proof.backwards} backwards of this forward."
    yield from _stillness(proof)
    off, held = _off(proof.error, proof.relative_error), _off(proof.held_error, proof.relative_held_error)
    if proof.verdict == "wrong":
        yield f"Autograd in float64 is off by {off}: some operation's backward is not the slope of its forward."
    elif proof.verdict == "differs":
        yield (
            f"Autograd in float64 agrees with the differences (off by {off}), but the run's gradient is off by {held}: "
            f"more than {proof.coarsest} rounds, so something else has changed it, such as a hook."
        )
    elif proof.verdict == "kink":
        yield (
            f"In {proof.kinks} of {len(proof.numeric)} the loss has a kink: its slopes on both sides differ, "
            "and autograd chooses one of those between."
        )
    else:
        way = f", with {proof.coarsest} on its way," if proof.coarsest != proof.dtype else ""
        yield f"Autograd in float64 is off by {off}; the run's {proof.dtype} gradient{way} is off by {held}."


def _off(error: float, share: float) -> str:
    if share > 1:  # of next to nothing
        return f"{error:.1e}"
    return f"{error:.1e}, a share of {share:.0e}" if error else "nothing"
