"""The command `sessions`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from autograd_tui.cli.arguments import new_parser
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import open_to_read, try_lock
from autograd_tui.core.terminal_text import print_lines

MAX_HEADER_BYTES = 1 << 20  # bytes


def sessions(words: list[str]) -> int:
    """List the runs that are kept, or delete some."""
    from autograd_tui.journal.paths import list_journals

    parser = new_parser("sessions", "List the runs that are kept, the newest first.")
    parser.add_argument("--delete", metavar="JOURNAL", nargs="+", help="delete these, and what was kept beside them")
    options = parser.parse_args(words)
    if options.delete:
        _delete(options.delete)
    else:
        _list(list_journals())
    return 0


def _delete(names: Sequence[str]) -> None:
    """Delete journals with what this program wrote beside them, and name each file; all are looked at before any."""
    paths = {path.parent.resolve() / path.name: path for path in map(Path, names)}.values()
    for path in paths:
        with ExitStack() as claimed:
            _journal_files(path, claimed)
    for path in paths:
        with ExitStack() as claimed:
            for each in _journal_files(path, claimed):
                _unlink(each)
                print_lines(f"deleted: {each}")


def _journal_files(path: Path, claimed: ExitStack) -> list[Path]:
    """Claim a journal; give its companions and itself. Raises Refused where it is none, or its run goes on."""
    from autograd_tui.journal.entry import parse_header_line
    from autograd_tui.journal.paths import companion_files

    if os.path.islink(path):
        raise Refused(f"{path} is a link: name the journal that it leads to.")
    try:
        file = claimed.enter_context(open_to_read(path))
        parse_header_line(file.readline(MAX_HEADER_BYTES), path=str(path))
        beside = companion_files(path)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}.") from None
    if not try_lock(file.fileno()):
        raise Refused(f"{path} is being written by a run that goes on: it is not deleted.")
    return [*beside, path]


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise Refused(f"{path} cannot be deleted: {error.strerror}.") from None


def _list(paths: list[Path]) -> None:
    from autograd_tui.journal.interrupted import SUMMARY_HEADER, journal_summaries

    if not paths:
        print_lines("no run is kept yet.", file=sys.stderr)
        return
    print_lines(SUMMARY_HEADER)
    for row in journal_summaries(paths):
        print_lines(row)
