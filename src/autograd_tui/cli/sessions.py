"""The command `sessions`."""

from __future__ import annotations

import sys
from pathlib import Path

from autograd_tui.cli.arguments import new_parser


def sessions(words: list[str]) -> int:
    """List the runs that are kept, or delete some."""
    from autograd_tui.journal.folder import journals

    parser = new_parser("sessions", "List the runs that are kept, the newest first.")
    parser.add_argument("--delete", metavar="JOURNAL", nargs="+", help="delete these, and what belongs to them")
    options = parser.parse_args(words)
    for name in options.delete or ():
        _delete(Path(name))
    if not options.delete:
        _list(journals())
    return 0


def _delete(path: Path) -> None:
    from autograd_tui.journal.folder import companions
    from autograd_tui.journal.reading import read_journal

    read_journal(path)  # nothing else is deleted
    for each in (*companions(path), path):
        each.unlink()


def _list(paths: list[Path]) -> None:
    from autograd_tui.journal.summary import HEADER, summary_line

    if not paths:
        print("no run is kept yet.", file=sys.stderr)
        return
    print(HEADER)
    for path in paths:
        print(summary_line(path))
