"""The lines of a script around the call where it is held, and the calls of an iteration in their order."""

from __future__ import annotations

from autograd_tui.core.command import SCRIPT_CALLS, Phase
from autograd_tui.core.errors import clipped
from autograd_tui.core.frame import Frame
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.text.nonfinite import shows_nonfinite
from autograd_tui.text.numbers import number, rate, short
from autograd_tui.text.styled_text import Line, length, scrolled

PHASES = tuple(phase.value for phase in Phase)
USUAL_ORDER = ("forward", "grad", "backward", "unscale", "clip", "step", "scheduler", "zero_grad")
GAP = 2  # columns between two numbers
_FORMS = (  # whether the variable is written, the arrows, and whether all numbers are: the longest first
    (True, " ───▶ ", True),
    (True, " ─▶ ", True),
    (False, " ─▶ ", True),
    (False, " ▶ ", True),
    (False, " ▶ ", False),
    (False, "▶", False),
)


def base_name(file: str) -> str:
    """Return a file's name without its folders."""
    return file.replace("\\", "/").rpartition("/")[2]


def stop_position(stop: ScriptStop) -> str:
    """Return the file and the line of the call, "train.py:33"; "" where no line of the user's is known."""
    return f"{base_name(stop.file)}:{stop.line}" if stop.file else ""


def code_title(stop: ScriptStop) -> str:
    """Return a title for the lines around the call: the file, the line, and the function it is in."""
    if stop.at_end:
        return "Code   the line of the call was not looked at"
    if not stop.file:
        return "Code   no line of the script's own made the call"
    function = "" if stop.function == "<module>" else f", in {stop.function}"
    return f"Code   {base_name(stop.file)}, line {stop.line}{function}"


def script_code_lines(frame: Frame, stop: ScriptStop, width: int, height: int) -> list[Line]:
    """Return the numbered lines around the call, the one that made it marked, scrolled until it is seen.

    Below them stands the line in a library, where one made the call for it.
    """
    below = _library_lines(stop)
    room = max(height - len(below), 1)
    if height == 1:
        below = []
    numbers = range(stop.first_line, stop.first_line + len(stop.source))
    if stop.line not in numbers:
        rows: list[Line] = [[("▶ ", "accent"), (stop.call or "the script", "strong")]]
        return [*rows, *below][:height]
    index, digits = stop.line - stop.first_line, len(str(numbers[-1]))
    top = scrolled(index - room // 2, range(index, index + 1), count=len(numbers), room=room)
    shown = range(top, min(top + room, len(numbers)))
    indent = min((_indent(stop.source[each]) for each in shown if stop.source[each].strip()), default=0)
    rows = [_row(frame, stop, each, digits, indent, width) for each in shown]
    return [*rows, *below]


def _row(frame: Frame, stop: ScriptStop, index: int, digits: int, indent: int, width: int) -> Line:
    number, code = stop.first_line + index, stop.source[index].expandtabs(4)[indent:]
    here, code = number == stop.line, clipped(code, max(width - digits - 3, 1))
    mark = ("! " if frame.error else "▶ ") if here else "  "
    style = ("error" if frame.error else "strong") if here else ""
    return [(mark, "error" if frame.error else "accent"), (f"{number:>{digits}} ", "dim"), *_styled(code, style)]


def _styled(code: str, style: str) -> Line:
    """Dim the comment at a line's end, where no # may stand inside a string."""
    source, mark, comment = code.partition("#")
    if not mark or "'" in code or '"' in code:
        return [(code, style)]
    return [(source, style), (mark + comment, "dim")]


def _indent(code: str) -> int:
    code = code.expandtabs(4)
    return len(code) - len(code.lstrip())


def _library_lines(stop: ScriptStop) -> list[Line]:
    if stop.library is None or not stop.source:
        return []
    file, line = stop.library
    return [[("  ", ""), (f"{stop.call} is called in {base_name(file)}, line {line}", "dim")]]


def kind_of(frame: Frame) -> str | None:
    """Return the kind of call that led to a frame of a script; None for a setting of the user's, and for frame 0."""
    name = frame.command.name if frame.command is not None else None
    return name if name in PHASES or name in SCRIPT_CALLS else None


def learn_order(seen: tuple[str, ...], before: Frame | None, frame: Frame) -> tuple[str, ...]:
    """Return the kinds of calls seen so far, with that of a new frame in its place.

    It comes behind the call just before it where that is known, else where most loops have it.
    """
    kind = kind_of(frame)
    if frame.script is None or kind is None or kind in seen:
        return seen
    last = kind_of(before) if before is not None and before.index == frame.index - 1 else None
    kinds = _with(seen, kind, behind=last if last in seen else None)
    if kinds[-1] == "forward" and "backward" in kinds:  # the loop was met in its middle
        kinds = ("forward", *kinds[:-1])
    return kinds


def shown_order(seen: tuple[str, ...], frame: Frame) -> tuple[str, ...]:
    """Return the kinds to show, in the order of the loop: those seen, the present one, and the four phases."""
    kinds = learn_order(seen, None, frame)
    for kind in PHASES:
        if kind not in kinds and not (kind == "step" and frame.lacks_optimizers):
            kinds = _with(kinds, kind)
    return kinds


def _with(kinds: tuple[str, ...], kind: str, *, behind: str | None = None) -> tuple[str, ...]:
    """Insert a kind behind another one, or where most loops have it; a loop may begin with zero_grad."""
    order = ("zero_grad", *USUAL_ORDER[:-1]) if kinds[:1] == ("zero_grad",) else USUAL_ORDER
    earlier = [each for each in kinds if order.index(each) < order.index(kind)]
    index = max(map(kinds.index, earlier if behind is None else [behind]), default=-1) + 1
    return (*kinds[:index], kind, *kinds[index:])


def call_rows(frame: Frame, stop: ScriptStop, seen: tuple[str, ...], width: int, numbers: dict[str, str]) -> list[Line]:
    """Return two rows: the kinds of calls with the present one marked, and the key number of each below it.

    `numbers` are those of the four phases. Where there is no room for all, the script's own variable goes first, then
    the arrows shrink, then numbers go that would reach below another: those of the present call and the loss last.
    """
    return _call_rows(frame, stop, shown_order(seen, frame), width, numbers)


def cut_call_rows(
    frame: Frame, stop: ScriptStop, seen: tuple[str, ...], width: int, numbers: dict[str, str]
) -> list[Line]:
    """Return the two rows where not even their shortest form has room: calls far from the present one are left out."""
    kinds, present = shown_order(seen, frame), kind_of(frame)
    first, end = 0, len(kinds)
    while True:
        names, below = _call_rows(frame, stop, kinds[first:end], width - (end < len(kinds)), numbers, more=first > 0)
        if length(names) + (end < len(kinds)) <= width or end - first == 1:
            return [[*names, ("…", "dim")] if end < len(kinds) else names, below]
        index = kinds.index(present) if present is not None else 0
        if index - first > end - 1 - index:
            first += 1
        else:
            end -= 1


def _call_rows(
    frame: Frame, stop: ScriptStop, kinds: tuple[str, ...], width: int, numbers: dict[str, str], *, more: bool = False
) -> list[Line]:
    """Return the rows of these kinds; `more`: whether others have been left out before them."""
    present = kind_of(frame)
    texts_by_kind = numbers | call_numbers(frame, stop)
    rows: list[Line] = []
    for with_variable, arrow, with_numbers in _FORMS:
        labels = [_label(kind, present, stop if with_variable else None) for kind in kinds]
        labels[0] = "…" * more + labels[0]
        texts = [texts_by_kind.get(kind, "") if with_numbers else "" for kind in kinds]
        rows = _rows(kinds, labels, texts, arrow, present, raised=frame.error is not None)
        if not with_numbers:
            starts = [sum(length([span]) for span in rows[0][: 2 * index]) + 1 for index in range(len(kinds))]
            columns = {kind: start for kind, start in zip(kinds, starts, strict=True) if kind in texts_by_kind}
            rows[1] = numbers_with_room(columns, texts_by_kind, width, present, raised=frame.error is not None)
        if max(map(length, rows)) <= width:
            break
    return rows


def _label(kind: str, present: str | None, stop: ScriptStop | None) -> str:
    """Write a kind of call; the present one in capitals, with the variable that it is a method of."""
    if kind != present:
        return f" {kind} "
    return f"▌{_variable(kind, stop)}{kind.upper()}▐" if stop is not None else f"▌{kind.upper()}▐"


def _variable(kind: str, stop: ScriptStop) -> str:
    """Return the variable that a call is a method of, with a dot: of a forward the model, where it is one."""
    if kind == "forward":
        return f"{stop.models[0]}." if len(stop.models) == 1 else ""
    variable, dot, _ = stop.call.rpartition(".")
    return "" if stop.library is not None or kind == "clip" or "(" in variable else variable + dot


def _rows(
    kinds: tuple[str, ...], labels: list[str], texts: list[str], arrow: str, present: str | None, *, raised: bool
) -> list[Line]:
    """Write each kind above its number, in a column as wide as both; arrows fill what is left."""
    names: Line = []
    numbers: Line = []
    for index, (kind, label, text) in enumerate(zip(kinds, labels, texts, strict=True)):
        here, link = kind == present, arrow if index < len(kinds) - 1 else ""
        cell = max(len(label) + len(link), len(text) + 2 * bool(text))
        spare = cell - len(label) - len(link)
        line = link.replace("─", "─" * (1 + spare), 1) if "─" in link else " " * spare + link
        names += [(label, ("error" if raised else "now") if here else "dim"), (line, "dim")]
        numbers.append((f" {text}".ljust(cell), _number_style(text, here=here, raised=raised)))
    return [names, numbers]


def numbers_with_room(
    columns: dict[str, int], texts: dict[str, str], width: int, present: str | None, *, raised: bool
) -> Line:
    """Write numbers below their kinds, by the column where each begins; what reaches into another one is left out."""
    taken: dict[int, str] = {}
    for kind in sorted(columns, key=lambda kind: (kind != present, kind != "forward")):
        start = min(columns[kind], max(width - len(texts[kind]), 0)) if kind == present else columns[kind]
        end = start + len(texts[kind])
        clear = all(end + GAP <= other or other + len(texts[which]) + GAP <= start for other, which in taken.items())
        if texts[kind] and clear and (kind == present or end <= width):
            taken[start] = kind
    line: Line = []
    for start in sorted(taken):
        text = texts[taken[start]]
        line += [
            (" " * (start - length(line)), ""),
            (text, _number_style(text, here=taken[start] == present, raised=raised)),
        ]
    return line


def _number_style(text: str, *, here: bool, raised: bool) -> str:
    wrong = (here and (raised or "▲" in text)) or shows_nonfinite(text)  # a loss that has risen too
    return "error" if wrong else "" if here else "dim"


def call_numbers(frame: Frame, stop: ScriptStop) -> dict[str, str]:
    """Return the key numbers of calls that only scripts make, and of a step that was left out."""
    numbers: dict[str, str] = {}
    present = kind_of(frame)
    if frame.error is not None and present is not None:
        return {present: "raised"}
    if present == "clip" and stop.norm is not None:
        bound = "" if stop.max_norm is None else f" of {short(stop.max_norm)}"
        numbers["clip"] = f"norm {number(stop.norm)}{bound}"
    if present == "scheduler":
        numbers["scheduler"] = f"lr {rate(frame.learning_rate)}"
    if present == "step" and stop.skipped:
        numbers["step"] = "left out"
    return numbers
