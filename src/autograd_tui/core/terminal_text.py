"""Everything that this program prints goes through here: control characters are removed first."""

from __future__ import annotations

import re
import shlex
import sys
import traceback
import warnings
from typing import Any, TextIO

_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|.)")

_format_raw = warnings.formatwarning


def printable(text: str) -> str:
    """Take out what would move a terminal's cursor or change its colours: escape sequences and control characters.

    So too what turns the direction of writing, which would show a name as another one.
    """
    if text.isprintable():
        return text
    return "".join(character for character in _ESCAPE.sub("", text.expandtabs(4)) if character.isprintable())


def one_line(text: str, longest: int = 1000) -> str:
    """Return text of others as one printable line, shortened where it is longer than anyone reads."""
    line = printable(" ".join(text[: 2 * longest].split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def quoted(word: str) -> str:
    """Write a word as a shell takes it, and as a terminal can show it: $'\\033[2J' where it has such characters."""
    if word.isprintable() and "  " not in word:  # of which a sentence that is shown leaves one
        return shlex.quote(word)
    written = (each if each.isprintable() else _octal(each) for each in re.sub(r"[\\']", r"\\\g<0>", word))
    return f"$'{''.join(written).replace('  ', _octal(' ') * 2)}'"


def _octal(character: str) -> str:
    of_a_file_name = "\udc80" <= character <= "\udcff"  # a byte that is no UTF-8
    encoded = character.encode("utf-8", "surrogateescape" if of_a_file_name else "surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in encoded)


def print_lines(*lines: str, file: TextIO | None = None, flush: bool = False) -> None:
    """Print lines as they can be shown, on stdout where no file is given."""
    if lines:
        print(*map(printable, lines), sep="\n", file=file, flush=flush)


def say(sentence: str) -> None:
    """Print one sentence of this program's own on stderr."""
    print_lines(f"autograd-tui: {one_line(sentence)}", file=sys.stderr)


def print_traceback(error: BaseException) -> None:
    """Print where an error came from, on stderr, as Python does."""
    print_lines(*"".join(traceback.format_exception(error)).rstrip("\n").split("\n"), file=sys.stderr)


def print_warnings_as_lines() -> None:
    """Have Python print warnings as they can be shown, from now on."""
    warnings.formatwarning = _format_warning


def _format_warning(*warning: Any, **line: Any) -> str:
    return "\n".join(map(printable, _format_raw(*warning, **line).split("\n")))
