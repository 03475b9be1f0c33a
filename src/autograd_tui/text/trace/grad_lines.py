"""Gradients of a trace: the `.grad` of each parameter at the current operation, and the result of a check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autograd_tui.core.command import Phase
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.trace import Operation, Trace, Value
from autograd_tui.text.numbers import number
from autograd_tui.text.styled_text import Line, more_line, one_line, scrolled, wrapped
from autograd_tui.text.table.table_rows import shorten_name
from autograd_tui.text.trace.tensor_words import dtype_words, value_words
from autograd_tui.text.trace.trace_position import TracePosition

MAX_NAME = 28  # characters
MAX_ROWS = 8  # of the table
MAX_LISTED_PLACES = 3  # in the code, in one sentence
COLUMN_WIDTH = 13  # characters, with the spaces before a number
VERDICT_HEADINGS = {"agrees": "agrees", "wrong": "wrong", "differs": "not the run's own", "kink": "a kink"}


def grad_operations(trace: Trace) -> list[Operation]:
    """Return the operations that change a `.grad`, in order; in a step, those that use one."""
    if trace.is_by_parameter:
        return list(trace.ops)
    return [op for op in trace.ops if op.accumulates_into is not None]


def grad_lines(position: TracePosition, width: int, height: int) -> list[Line]:
    """Return a row for each parameter in the order of the trace, scrolled so that the next ones are in sight."""
    ops = grad_operations(position.trace)
    if not ops or height < 1:
        return []
    done_count = sum(op.number <= position.index for op in ops)
    count_line: list[Line] = []
    top, bottom = 0, len(ops)
    if len(ops) > height:
        room = max(height - 1, 1)
        range_in_sight = range(max(done_count - (room + 1) // 2, 0), done_count + room // 2)
        top = scrolled(0, range_in_sight, count=len(ops), room=room)
        bottom = top + room
        count_line = [more_line(top, bottom, len(ops))]
    name_width = min(max(len(_parameter_name(op)) for op in ops[top:bottom]), MAX_NAME, width // 2)
    return [*(_row(position, op, name_width, width) for op in ops[top:bottom]), *count_line]


def grad_summary(position: TracePosition) -> str:
    """Return how many parameters are done; "" where the phase has none."""
    ops = grad_operations(position.trace)
    verb = {Phase.STEP: "used", Phase.ZERO_GRAD: "cleared"}.get(position.trace.phase, "filled")
    if position.trace.error:
        filled = f"{sum(op.number <= position.index for op in ops)} filled before it raised"
        return filled if position.trace.phase is Phase.BACKWARD else ""
    return f"{sum(op.number <= position.index for op in ops)} of {len(ops)} {verb}" if ops else ""


def _row(position: TracePosition, op: Operation, name_width: int, width: int) -> Line:
    is_current, is_done = op.number == position.index, op.number <= position.index
    line: Line = [
        ("▶ " if is_current else "  ", "accent"),
        (f"{shorten_name(_parameter_name(op), name_width):<{name_width}}  ", "strong"),
    ]
    return [*line, *_grad_cells(position.trace, op, is_done, width - name_width - 4)]


def _grad_cells(trace: Trace, op: Operation, is_done: bool, room: int) -> Line:
    if trace.is_by_parameter:
        grad = op.named_input("grad")
        words, effect = _grad_words(grad, room), ""
        if is_done and not trace.error:
            effect = "  used" if trace.phase is Phase.STEP else " → None"
        return [(words[:room], "" if is_done else "strong"), (effect if len(words + effect) <= room else "", "accent")]
    before = "None" if op.grad_before is None else _grad_words(op.grad_before, room // 2 if is_done else room)
    if not is_done:
        until = f", until operation {op.number + 1}"
        return [(before, "dim"), (until if len(before) + len(until) <= room else "", "dim")]
    if trace.error and op.grad_after is not None:
        return _reverted_cells(before, op.grad_after, room)
    arrow, after = f"{before} → ", _grad_words(op.grad_after, room)
    return [(arrow if len(arrow) + len(after) <= room else "", "dim"), (after[:room], "strong")]


def _reverted_cells(before: str, filled: Value, room: int) -> Line:
    """Write a `.grad` that was filled before the backward raised and was then reverted, as fully as there is room."""
    for arrow in (f"{before} → ", "→ "):
        for tail in (", then taken back", ", taken back"):
            after = _grad_words(filled, room - len(arrow) - len(tail))
            if len(arrow) + len(after) + len(tail) <= room:
                return [(arrow, "dim"), (after, "strong"), (tail, "error")]
    return [("taken back"[:room], "error")]


def _grad_words(value: Value | None, room: int) -> str:
    """Write a tensor; where there is no room for a large one's shape, its norm alone."""
    words = value_words(value, max(room, 8))
    if value is None or value.stats.values is not None or "norm" in words:
        return words
    norm, dtype = f"norm {number(value.stats.norm)}", dtype_words(value)
    return norm + dtype if len(norm + dtype) <= room else norm


def _parameter_name(op: Operation) -> str:
    return one_line(op.accumulates_into or op.name)


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
