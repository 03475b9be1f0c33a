"""The line of the user's own that has made a call, found on the stack: cheap to tell apart, and in words to show."""

from __future__ import annotations

import ast
import dis
import functools
import linecache
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import islice
from types import CodeType, FrameType
from typing import Any, Literal

from autograd_tui.engine.training.user_code import TORCH, is_ours, is_user_file

Kind = Literal["user", "library", "inner"]
LINES_AROUND = 12  # of the source, before and behind the line
MAX_CALL_LENGTH = 48  # characters of a call that are written as they stand
NO_LINE = "", 0
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")
_callers: dict[tuple[int, int], list[tuple[int, int]]] = {}  # of a position, innermost first, when it was met first
_kinds: dict[int, tuple[CodeType, Kind]] = {}  # by the id of the code, which is held so that it stays the same


@dataclass(frozen=True, slots=True)
class CallSite:
    """Where a call was made: the line of the user's, and that of a library between it and PyTorch, if there is one."""

    call: str  # as the line that made it names it: "loss.backward"; "" where that cannot be read
    file: str
    line: int
    function: str
    first_line: int
    source: tuple[str, ...]
    library: tuple[str, int] | None

    def fields(self) -> dict[str, Any]:
        """Return its fields, which a ScriptStop has too, by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def position(frame: FrameType | None) -> tuple[int, int]:
    """Return what tells one line of the user's from another, without its name: (0, 0) where none is on the stack."""
    while frame is not None:
        code = frame.f_code
        known = _kinds.get(id(code))
        if (known[1] if known else kind_of(code)) == "user":
            place = id(code), frame.f_lasti
            if place not in _callers:
                _callers[place] = [(id(each.f_code), each.f_lasti) for each in user_frames(frame)]
            return place
        frame = frame.f_back
    return 0, 0


@functools.lru_cache(maxsize=256)
def are_in_other_loops(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two positions are in loops of which neither is inside the other, such as one behind the other."""
    return not (_loop_has(one, other) or _loop_has(other, one))


def _loop_has(place: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether the innermost loop around a position has another one inside; True where there is none."""
    for code, instruction in _callers.get(place, ()):
        loops = [each for each in _loops(_kinds[code][0]) if each[0] <= instruction <= each[1]]
        if loops:
            first, last = min(loops, key=lambda loop: loop[1] - loop[0])
            return any(each == code and first <= at <= last for each, at in _callers.get(other, ()))
    return True


@functools.lru_cache(maxsize=64)
def _loops(code: CodeType) -> list[tuple[int, int]]:
    """Return the first and the last instruction of each loop in a code object."""
    loops: dict[int, int] = {}
    for each in dis.get_instructions(code):
        if "JUMP" in each.opname and isinstance(each.argval, int) and each.argval <= each.offset:
            loops[each.argval] = each.offset
    return list(loops.items())


def user_frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the frames of functions that the user has written, innermost first."""
    while frame is not None:
        if kind_of(frame.f_code) == "user":
            yield frame
        frame = frame.f_back


def kind_of(code: CodeType) -> Kind:
    """Return whose code it is: the user's, a library's, or PyTorch's, Python's or ours."""
    known = _kinds.get(id(code))
    if known is None:
        known = _kinds[id(code)] = code, _kind_of_file(code.co_filename)
    return known[1]


def _kind_of_file(file: str) -> Kind:
    if is_ours(file) or file.startswith((TORCH, "<frozen ")):
        return "inner"
    if file == getattr(sys.modules.get("__main__"), "__file__", None):
        return "user"
    if "site-packages" in file or "dist-packages" in file:
        return "library"
    if is_user_file(file):
        return "user"
    return "inner" if file.startswith(_STANDARD_LIBRARY) else "library"


def call_site(frame: FrameType | None) -> CallSite:
    """Return where the call that runs on top of this stack was made."""
    caller = frame
    while caller is not None and kind_of(caller.f_code) == "inner":
        caller = caller.f_back
    user = next(user_frames(caller), None)
    library = None
    if caller is not None and caller is not user:
        library = caller.f_code.co_filename, caller.f_lineno
    call = call_words(caller) if caller is not None else ""
    if user is None:
        return CallSite(call, *NO_LINE, "", 1, (), library)
    return replace(site_at(user, user.f_lineno), call=call, library=library)


def site_of_error(error: BaseException) -> CallSite:
    """Return the innermost line of the user's in an exception's traceback."""
    site, trace = CallSite("", *NO_LINE, "", 1, (), None), error.__traceback__
    while trace is not None:
        if kind_of(trace.tb_frame.f_code) == "user":
            site = site_at(trace.tb_frame, trace.tb_lineno)
        trace = trace.tb_next
    return site


def site_at(user: FrameType, line: int) -> CallSite:
    """Return a line in a function that the user has written, with those around it."""
    code = user.f_code
    lines = linecache.getlines(code.co_filename, user.f_globals)
    first = max(1, line - LINES_AROUND)
    source = tuple(each.rstrip("\r\n") for each in lines[first - 1 : line + LINES_AROUND])
    return CallSite("", code.co_filename, line, code.co_qualname, first, source, None)


def call_words(frame: FrameType) -> str:
    """Return the call that a frame is in, as its line names it: "optimizerG.step"; "" where it cannot be read."""
    return _words_at(frame.f_code, frame.f_lasti, linecache.getlines(frame.f_code.co_filename, frame.f_globals))


def call_words_at(place: tuple[int, int]) -> str:
    """Return the call at what `position` has returned, as its line names it; "" where it cannot be read."""
    known = _kinds.get(place[0])
    return _words_at(known[0], place[1], linecache.getlines(known[0].co_filename)) if known is not None else ""


def _words_at(code: CodeType, instruction: int, file: list[str]) -> str:
    place = next(islice(code.co_positions(), instruction // 2, None), (None,) * 4)
    first, last, begin, end = place
    if first is None or last is None or begin is None or end is None:
        return ""
    lines = [each.encode() for each in file[first - 1 : last]]
    if len(lines) != last - first + 1:
        return ""
    begins = lines[0][:begin].rstrip()
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][begin:]
    try:
        if begins.endswith(b"."):  # Python says of a call on a line of its own where the method's name begins
            node = _calls_by_end("".join(file)).get((last, end))
        else:
            node = ast.parse(f"({b''.join(lines).decode()})", mode="eval").body  # it may go over several lines
    except (SyntaxError, ValueError, RecursionError):
        return ""
    return _words(node.func) if isinstance(node, ast.Call) else ""


@functools.lru_cache(maxsize=4)
def _calls_by_end(source: str) -> dict[tuple[int, int], ast.expr]:
    """Return the calls in a file by the line and column behind each, the outermost of those that end at one place."""
    calls: dict[tuple[int, int], ast.expr] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.end_lineno is not None and node.end_col_offset is not None:
            calls.setdefault((node.end_lineno, node.end_col_offset), node)
    return calls


def _words(node: ast.expr) -> str:
    """Write an expression; what is long inside it is left out."""
    if isinstance(node, ast.Attribute):
        return f"{_words(node.value)}.{node.attr}"
    text = ast.unparse(node)
    if len(text) <= MAX_CALL_LENGTH:
        return text
    return f"{_words(node.func)}(...)" if isinstance(node, ast.Call) else "(...)"
