"""The command `export`: which run into which file, and how screens in it are drawn."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from autograd_tui.cli.arguments import (
    add_journal_choice,
    new_parser,
    open_recorded_session,
    read_chosen_journal,
    trusted_scenario,
    warn_of_damage,
)
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import absolute, working_folder
from autograd_tui.core.terminal_text import print_lines, say

if TYPE_CHECKING:
    from autograd_tui.core.command_log import CommandLog
    from autograd_tui.core.run_config import RunConfig
    from autograd_tui.engine.session import Session
    from autograd_tui.export.formats import PictureOptions
    from autograd_tui.journal.reader import Journal

MAX_STORED_BYTES, MAX_STORED_FRAMES = 1 << 30, 1 << 20  # of a script's frames that are exported
MIN_SIZE, MAX_SIZE = 20, 500  # columns or rows of a screen
PROGRESS_INTERVAL = 3.0  # seconds, of how far an export is


def export(words: list[str]) -> int:
    """Write what a journal tells into a file."""

    parser = new_parser("export", "Write what a journal tells as a script, a page, a table and so on.")
    add_journal_choice(parser, optional=False)
    add_export_arguments(parser)
    options = parser.parse_args(words)
    journal = read_chosen_journal(options)
    if journal.config.script:
        return _export_script(options, journal)
    named = trusted_scenario(journal, options)
    warn_of_damage(journal)
    config = replace(journal.config, scenario=named)
    reopen = lambda: open_recorded_session(journal, named, options)  # noqa: E731
    return run_export(options, config, journal.log(), reopen, journal=journal.path)


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where to and how."""
    parser.add_argument(
        "--to",
        metavar="FILE",
        required=True,
        help="its ending says what: .py a PyTorch script, .csv, .jsonl, .tb TensorBoard, .svg a screen, .html all, "
        ".pt the last iteration as a repro",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="write over a file that exists, or a link, but not what it leads to; never over the run's own files",
    )
    parser.add_argument("--frame", type=int, help="of an .svg or .pt (default: the last)")
    parser.add_argument("--size", metavar="120x40", help="columns and rows of screens")
    parser.add_argument("--theme", help="of screens: light, dark, ansi, or one of Textual's")


def run_export(
    options: argparse.Namespace,
    config: RunConfig,
    log: CommandLog,
    reopen: Callable[[], Session],
    *,
    journal: Path | None = None,
) -> int:
    """Write a run to the file asked for and return the exit code; raises Refused.

    config, log: what opened the run, and the commands that it ran. reopen: opens its session anew at frame 0, writing
    no journal. journal: the file that the run was read from.
    """
    from autograd_tui.export.formats import export_file

    picture = _picture_options(options)
    progress, path = _ExportProgress(len(log)), Path(absolute(options.to, working_folder()))
    protection: dict[str, Any] = {"overwrite": options.force, "journal": journal}
    missing = export_file(path, config, log, reopen, options=picture, stopped=progress, **protection)
    return _say_written(options, missing)


def _export_script(options: argparse.Namespace, journal: Journal) -> int:
    """Write what the frames beside the journal of a script tell; raises Refused where there are none."""
    from autograd_tui.core.frame_store import FrameStore
    from autograd_tui.export.stored_run import StoredRun, export_stored
    from autograd_tui.journal.followed_session import FollowedSession
    from autograd_tui.journal.frame_stream import frames_path

    beside = frames_path(journal.path)
    if not beside.exists():
        raise Refused(f"of a script the frames beside its journal are exported, and there is no {beside}.")
    warn_of_damage(journal)
    new_store = partial(FrameStore, budget=MAX_STORED_BYTES, max_frames=MAX_STORED_FRAMES)
    session = FollowedSession(journal.path, new_store=new_store)
    if session.damage:
        say(f"{beside} is damaged: {session.damage}; the frames up to there are taken.")
    run = StoredRun(session.about, session.stored_frames(), session.history, max(journal.frame, session.newest))
    path = Path(absolute(options.to, working_folder()))
    wanted: dict[str, Any] = {"options": _picture_options(options), "overwrite": options.force}
    return _say_written(options, export_stored(path, run, journal=journal.path, **wanted))


def _say_written(options: argparse.Namespace, missing: str) -> int:
    print_lines("; ".join([f"autograd-tui: written: {options.to}", *[missing] * bool(missing)]), file=sys.stderr)
    return 0


def _picture_options(options: argparse.Namespace) -> PictureOptions:
    from autograd_tui.export.formats import PictureOptions

    return PictureOptions(options.frame, _parse_size(options.size), options.theme)


class _ExportProgress:
    """Says on stderr how many frames of a long run have been made again; asked after each, it stops none."""

    def __init__(self, frames: int) -> None:
        self._frames, self._done, self._said = frames, 0, monotonic()

    def __call__(self) -> bool:
        self._done += 1
        if monotonic() - self._said >= PROGRESS_INTERVAL:
            say(f"frame {self._done:,} of {self._frames:,}")
            self._said = monotonic()
        return False


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,99})x(\d{1,99})", text)
    if not match:
        raise Refused(f"--size {text} is not understood: use columns x rows, as in --size 120x40.")
    columns, rows = int(match[1]), int(match[2])
    if not (MIN_SIZE <= columns <= MAX_SIZE and MIN_SIZE <= rows <= MAX_SIZE):
        raise Refused(f"--size {text}: columns and rows must lie between {MIN_SIZE} and {MAX_SIZE}.")
    return columns, rows
