"""The command line for runs that are kept: resume, replay, follow, export, sessions, and where a run is kept."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from autograd_tui.cli_export import add_export_arguments, run_export
from autograd_tui.engine.command import Commands, parse
from autograd_tui.engine.errors import Refused
from autograd_tui.engine.optimizer_spec import parse_number
from autograd_tui.engine.scenario_names import BUILT_IN

if TYPE_CHECKING:
    from autograd_tui.engine.opening import Opening
    from autograd_tui.engine.session import Session
    from autograd_tui.journal.reading import Journal


def add_journal(parser: argparse._ActionsContainer) -> None:
    """Add where a run is kept."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--journal", metavar="PATH", help="keep the run there (default: the user's state folder)")
    where.add_argument("--no-journal", action="store_true", help="do not keep the run")


def kept(session: Session, options: argparse.Namespace) -> Session:
    """Have a session that has just been opened keep what it runs, where that is asked for."""
    from autograd_tui.journal.folder import new_path
    from autograd_tui.journal.writing import JournalWriter

    if options.no_journal:
        return session
    if options.journal is None:
        session.recorder = JournalWriter(new_path(session.about.opening), session.about, private=True)
        return session
    path = Path(options.journal)
    if path.exists():
        raise Refused(f"{path} exists already: autograd-tui resume {path} goes on with it.")
    session.recorder = JournalWriter(path, session.about, private=False)
    return session


def run_command(words: list[str]) -> int:
    """Do what a command about kept runs asks."""
    return RUN_COMMANDS[words[0]](words[1:])


def _resume(words: list[str]) -> int:
    from autograd_tui.cli import add_running, given_commands, new_parser, train

    parser = new_parser("resume", "Go on with a run where it stopped: the latest, or the one of a journal.")
    _add_which(parser, optional=True)
    add_running(parser)
    parser.set_defaults(journal=None, no_journal=False)  # of another model that is opened from here
    options = parser.parse_args(words)
    journal = _journal(options)
    named = _named(journal, options)

    def open_session() -> Session:
        from autograd_tui.journal.resuming import resume

        session = _open_again(journal.opening, named, memory=options.memory)
        resume(session, journal)
        return session

    if journal.cut:
        print(f"autograd-tui: the last line of {journal.path} was cut off and is left out.", file=sys.stderr)
    return train(options, open_session, commands=given_commands(options), title=named)


def _replay(words: list[str]) -> int:
    from autograd_tui.cli import add_looks, check_terminal, new_parser

    parser = new_parser("replay", "Run again what a journal tells.")
    _add_which(parser, optional=False)
    parser.add_argument("--speed", default="4", help="commands a second, or full (default 4); + and - change it")
    parser.add_argument("--headless", action="store_true", help="no screen")
    parser.add_argument("--check", action="store_true", help="say whether every number is the same, to the bit")
    add_looks(parser)
    options = parser.parse_args(words)
    if options.headless != options.check:
        raise Refused("replay --headless --check says whether all numbers are the same; on a screen, use neither.")
    journal = _journal(options)
    named = _named(journal, options)
    if options.check:
        return _check(journal, named)
    pace = _pace(options.speed)
    check_terminal()
    from autograd_tui.tui.app import run_on_screen
    from autograd_tui.tui.replay_thread import ReplayThread

    return run_on_screen(
        lambda _: _open_again(journal.opening, named),
        parse(" ".join(entry.command for entry in journal.entries)),
        title=named,
        theme=options.theme,
        ascii_only=options.ascii,
        thread=ReplayThread,
        pace=pace,
    )


def _pace(text: str) -> float | None:
    """Read a number of commands a second; None for as many as there is time for."""
    number = parse_number(text)
    if text == "full":
        return None
    if number is None or not 0 < number < 1e6:
        raise Refused(f"--speed {text} is no number of commands a second: use --speed 4, or --speed full.")
    return number


def _follow(words: list[str]) -> int:
    from autograd_tui.cli import add_looks, check_terminal, new_parser
    from autograd_tui.journal.following import Following

    parser = new_parser("follow", "Show a run that another terminal leads; this one disturbs nothing.")
    parser.add_argument("journal", nargs="?", help="the journal's file (default: the latest)")
    add_looks(parser)
    options = parser.parse_args(words)
    following = Following(_path(options, "follow"))
    check_terminal()
    from autograd_tui.tui.app import run_on_screen
    from autograd_tui.tui.follower_thread import FollowerThread

    def open_one(_: str | None) -> Session:
        return cast("Session", following)

    looks = {"theme": options.theme, "ascii_only": options.ascii}
    return run_on_screen(open_one, Commands(), title=following.about.title, thread=FollowerThread, **looks)


def _check(journal: Journal, named: str) -> int:
    """Run everything again; 0 where all digests agree, else 1, naming the first line that differs."""
    from autograd_tui.journal.check import check, machine

    session = _open_again(journal.opening, named)
    elsewhere = machine(journal.opening, session.about.opening)
    where = f" on another machine: {', '.join(elsewhere)}" if elsewhere else ""
    for checked in check(session, journal):
        if not checked.agrees:
            line = f'line {checked.entry.id + 1} ("{checked.entry.command}")'
            print(f"{journal.path}: differs from {line} on{where}.")
            return 1
    print(f"{journal.path}: all {len(journal.entries)} lines agree{where}.")
    return 0


def _export(words: list[str]) -> int:
    from autograd_tui.cli import new_parser

    parser = new_parser("export", "Write what a journal tells as a script, a page, a table and so on.")
    _add_which(parser, optional=False)
    add_export_arguments(parser)
    options = parser.parse_args(words)
    journal = _journal(options)
    named = _named(journal, options)
    recording = replace(journal.recording(), opening=replace(journal.opening, scenario=named))
    return run_export(options, recording, lambda: _open_again(journal.opening, named))


def _sessions(words: list[str]) -> int:
    from autograd_tui.cli import new_parser
    from autograd_tui.journal.folder import journals

    parser = new_parser("sessions", "List the runs that are kept, the newest first.")
    parser.add_argument("--delete", metavar="JOURNAL", nargs="+", help="delete these, and what belongs to them")
    options = parser.parse_args(words)
    for name in options.delete or ():
        _delete(Path(name))
    if not options.delete:
        _list(journals())
    return 0


def _add_which(parser: argparse.ArgumentParser, *, optional: bool) -> None:
    help_text = "the journal's file" + (" (default: the latest)" if optional else "")
    parser.add_argument("journal", nargs="?" if optional else None, help=help_text)
    parser.add_argument("--scenario", metavar="FILE", help="the scenario's file, where the journal is of one")
    parser.add_argument("--changed", action="store_true", help="though that file has changed since")


def _journal(options: argparse.Namespace) -> Journal:
    from autograd_tui.journal.reading import read_journal

    return read_journal(_path(options, "resume"))


def _path(options: argparse.Namespace, what: str) -> Path:
    """Give the journal that is named, else the latest."""
    from autograd_tui.journal.folder import journals

    if options.journal is not None:
        return Path(options.journal)
    latest = next(iter(journals()), None)
    if latest is None:
        raise Refused(f"no run is kept yet: there is nothing to {what}.")
    return latest


def _named(journal: Journal, options: argparse.Namespace) -> str:
    """Give the scenario to open: no code runs that the user has not named, nor any that is not the journal's."""
    opening = journal.opening
    if opening.scenario in BUILT_IN:  # their code comes with this program
        return opening.scenario
    if options.scenario is None:
        raise Refused(f"this run is of {opening.scenario}: name it, as in --scenario {opening.scenario}.")
    from autograd_tui.engine.opening import sha256

    if sha256(options.scenario) != opening.sha256 and not options.changed:
        raise Refused(f"{options.scenario} is not as it was in this run: --changed takes it all the same.")
    named: str = options.scenario
    return named


def _open_again(opening: Opening, named: str, *, memory: str | None = None) -> Session:
    from autograd_tui.open import open_session

    return open_session(named, **{**opening.arguments, **({"memory": memory} if memory else {})}, **opening.own)


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


RUN_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "resume": _resume,
    "replay": _replay,
    "follow": _follow,
    "export": _export,
    "sessions": _sessions,
}
