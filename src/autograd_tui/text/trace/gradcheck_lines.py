"""The result of a gradient check as a table of numbers with sentences around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autograd_tui.core.command import Phase
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.numbers import number
from autograd_tui.text.styled_text import Line, wrapped

MAX_ROWS = 8  # of the table
MAX_LISTED_PLACES = 3  # in the code, in one sentence
COLUMN_WIDTH = 13  # characters, with the spaces before a number
VERDICT_HEADINGS = {"agrees": "agrees", "wrong": "wrong", "differs": "not the run's own", "kink": "a kink"}


def gradcheck_target(trace: Trace, op: Operation) -> tuple[int, str | int] | None:
    """Return the gradient that a check of an operation is about; None where there is none.

    That is the index of the frame, and the name of a parameter or the index of an operation of the forward, whose
    output's gradient is meant. In zero_grad the frame is the one before, which still has gradients.
    """
    if trace.phase is Phase.ZERO_GRAD:
        return trace.index - 1, op.name
    if trace.phase is Phase.STEP:
        return trace.index, op.name
    if trace.phase is Phase.FORWARD:
        return trace.index, op.number
    target = op.accumulates_into if op.accumulates_into is not None else op.made_by
    return None if target is None else (trace.index, target)


def gradcheck_lines(check: GradCheck, width: int) -> list[Line]:
    """Return the verdict with its numbers: a column for each way in which the gradient was computed."""
    style = {"agrees": "accent", "kink": "warn"}.get(check.verdict, "error")
    lines: list[Line] = [[(f"{_title(check)}: {VERDICT_HEADINGS[check.verdict]}", style)]]
    for sentence in (*_verdict_sentences(check), *_copy_sentences(check)):
        lines += wrapped(sentence, width)
    return [*lines, *_table(check, width), *wrapped(_method_sentence(check), width)]


def _title(check: GradCheck) -> str:
    return f"dLoss/d({check.name})" if " " in check.name else f"{check.name}.grad"


def _verdict_sentences(check: GradCheck) -> Iterator[str]:
    if check.backwards > 1:
        yield f"The gradient is a sum of {check.backwards} backwards of this forward."
    yield from _untracked_path_sentence(check)
    error = _error_words(check.error, check.relative_error)
    run_error = _error_words(check.held_error, check.relative_held_error)
    if check.verdict == "wrong":
        yield (
            f"Autograd in float64 is off by {error}: some operation's backward is not the slope of its forward, or a "
            "hook has changed the gradient on its way."
        )
    elif check.verdict == "differs":
        yield (
            f"Autograd in float64 agrees with the differences (off by {error}), but the run's gradient is off by "
            f"{run_error}: more than {check.coarsest} rounds, so something else has changed it, such as a hook."
        )
    elif check.verdict == "kink":
        yield (
            f"In {check.kinks} of {len(check.numeric)} the loss has a kink: its slopes on both sides differ, "
            "and autograd chooses one of those between."
        )
    else:
        casts = f", with {check.coarsest} on its way," if check.coarsest != check.dtype else ""
        yield f"Autograd in float64 is off by {error}; the run's {check.dtype} gradient{casts} is off by {run_error}."


def _untracked_path_sentence(check: GradCheck) -> Iterator[str]:
    """Yield where the loss depends on the tensor in a way that autograd was told not to follow, as `detach` does."""
    if not check.held_still:
        return
    tensor = f"what comes out of {check.name}" if " " in check.name else check.name
    start = f"The loss also depends on {tensor} through {_place_list(check.held_still)}, which gradients do not follow"
    end = "measured with that held still, they agree" if check.verdict == "agrees" else "that was held still here"
    yield f"{start}: {end}."


def _error_words(error: float, share: float) -> str:
    if share > 1:  # of next to nothing
        return f"{error:.1e}"
    return f"{error:.1e}, a share of {share:.0e}" if error else "nothing"


def _copy_sentences(check: GradCheck) -> Iterator[str]:
    """Yield how the forward of the float64 copy differs from the run's."""
    changes: list[str] = []
    if check.casts:
        changes.append(f"{_place_list(check.casts)} {'gives' if len(check.casts) == 1 else 'give'} float64")
    if check.autocast:
        changes.append("autocast is off")
    if check.scale != 1:
        yield f"GradScaler has multiplied the loss by {number(check.scale)}, and so the gradient."
    if changes:
        yield f"In the copy {' and '.join(changes)}."


def _place_list(places: Sequence[str]) -> str:
    """List the first places, and count the others."""
    more = len(places) - MAX_LISTED_PLACES
    listed = [*places[:MAX_LISTED_PLACES], *([f"{more} more"] if more > 0 else [])]
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"


def _table(check: GradCheck, width: int) -> Iterator[Line]:
    """Yield the rows of the table, with as many columns as fit: the differences and the run's gradient first."""
    columns = {"differences": check.numeric, "the run": check.held, "float64": check.exact}
    if check.closed is not None:
        columns["formula"] = check.closed
    label_width = max(len(_element_label(check, len(check.numeric) - 1)), 4)
    names = list(columns)[: max((width - label_width) // COLUMN_WIDTH, 1)]
    if not check.numeric:
        return
    yield [(" " * label_width, ""), *((f"{name:>{COLUMN_WIDTH}}", "dim") for name in names)]
    for row in range(min(len(check.numeric), MAX_ROWS)):
        values = [(f"{number(columns[name][row], signed=True):>{COLUMN_WIDTH}}", "") for name in names]
        yield [(f"{_element_label(check, row):<{label_width}}", "dim"), *values]
    if len(check.numeric) > MAX_ROWS:
        yield [(f"and {len(check.numeric) - MAX_ROWS} more", "dim")]


def _element_label(check: GradCheck, row: int) -> str:
    """Label an element by its index in the tensor, a direction by its number."""
    if check.kind == "directions":
        return f"way {row + 1}"
    indices: list[str] = []
    for size in reversed(check.shape):
        row, index = divmod(row, size)
        indices.append(str(index))
    return f"[{','.join(reversed(indices))}]"


def _method_sentence(check: GradCheck) -> str:
    count = len(check.numeric)
    directions = "each element" if check.kind == "elements" else f"{count} random directions of length 1"
    distance = f"a step of {check.step:.1e} to both sides"
    copies = "in copies of the script that run its own forward" if check.of_script else "on a copy of the model"
    return f"Measured along {directions}: the loss {distance}, in float64, {copies}."
