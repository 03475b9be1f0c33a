"""The lines of a script around the call where it is held."""

from __future__ import annotations

from autograd_tui.core.errors import clipped
from autograd_tui.core.frame import Frame
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.text.styled_text import Line, scrolled


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
