"""Arguments that several commands share: their types, where a run is kept, and which kept run is meant."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import absolute, other_kind, working_folder
from autograd_tui.core.run_config import BUILT_IN
from autograd_tui.core.terminal_text import quoted, say

if TYPE_CHECKING:
    from autograd_tui.core.session_protocol import SessionInfo
    from autograd_tui.engine.session import Session
    from autograd_tui.journal.reader import Journal
    from autograd_tui.journal.writer import JournalWriter


class _Parser(argparse.ArgumentParser):
    more_help: Callable[[], str] | None = None

    def format_help(self) -> str:
        """Return the help, with what is said behind the options: it is put together when it is asked for."""
        if self.more_help is not None:
            self.formatter_class, self.epilog = argparse.RawDescriptionHelpFormatter, self.more_help()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message} (--help lists all options)")


def new_parser(
    command: str, description: str, *, more_help: Callable[[], str] | None = None
) -> argparse.ArgumentParser:
    """Make a parser that refuses in a sentence; `more_help` is what its help says behind the options."""
    parser = _Parser(prog=f"autograd-tui {command}".strip(), description=description)
    parser.more_help = more_help
    return parser


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is asked for in every run, new or resumed."""
    running = parser.add_argument_group("running")
    running.add_argument("--do", metavar="COMMANDS", help='run these first, such as "fbsz*3 lr=0.01 fb"; - reads stdin')
    running.add_argument("--repeat", type=int, metavar="N", help="run what --do says N times")
    running.add_argument("--memory", metavar="SIZE", help="for checkpoints (default 1GiB)")
    add_watch_argument(running)
    add_display_arguments(running)
    running.add_argument("--headless", action="store_true", help="no screen: one line a command")
    running.add_argument("--json", action="store_true", help="with --headless: one JSON object a command")


def add_watch_argument(parser: argparse._ActionsContainer) -> None:
    """Add where runs pause."""
    parser.add_argument(
        "--watch",
        action="append",
        metavar="CONDITION",
        help='pause a run there: nonfinite, "*.grad > 1", "dead relu > 0.9", "w still"; may be given several times',
    )


def add_display_arguments(parser: argparse._ActionsContainer) -> None:
    """Add how the screen looks."""
    parser.add_argument("--theme", help="light, dark, ansi, or one of Textual's; remembered")
    parser.add_argument(
        "--ascii",
        action=argparse.BooleanOptionalAction,
        help="draw with ASCII characters alone; remembered (default: where the locale is not UTF-8)",
    )


def add_journal_arguments(parser: argparse._ActionsContainer) -> None:
    """Add where a run is kept."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--journal", metavar="PATH", help="keep the run there (default: the user's state folder)")
    where.add_argument("--no-journal", action="store_true", help="do not keep the run")


def add_journal_choice(parser: argparse.ArgumentParser, *, optional: bool) -> None:
    """Add which of the runs that are kept."""
    help_text = "the journal's file" + (" (default: the latest)" if optional else "")
    parser.add_argument("journal", nargs="?" if optional else None, help=help_text)
    parser.add_argument("--scenario", metavar="FILE", help="the scenario's file, where the journal is of one")
    parser.add_argument(
        "--allow-files",
        action="store_true",
        help="open the files that the journal names and fetch weights, though you did not write it here",
    )
    parser.add_argument(
        "--changed", action="store_true", help="go on though a file is not as it was, or a number of the run is another"
    )


def new_journal_path(options: argparse.Namespace) -> Path | None:
    """Return where a run is to be kept that the user gives a place; raises Refused where something is there.

    From the root on, since code of a scenario may go elsewhere.
    """
    if options.journal is None:
        return None
    if not options.journal:
        raise Refused("--journal needs a file's name, and none was given.")
    if os.path.exists(options.journal) and (kind := other_kind(os.stat(options.journal).st_mode)):
        raise Refused(f"{options.journal} is {kind}, and no file: give another name for the journal.")
    if os.path.exists(options.journal) and not os.path.getsize(options.journal):
        raise Refused(f"{options.journal} is there and holds no run: delete it, or give another name for the journal.")
    if os.path.lexists(options.journal):
        on = f"where it is a journal, autograd-tui resume {quoted(options.journal)} goes on with it"
        raise Refused(f"{options.journal} exists already: give another name; {on}.")
    return Path(absolute(options.journal, working_folder()))


def with_journal(session: Session, options: argparse.Namespace, path: Path | None = None) -> Session:
    """Have a session that has just been opened keep what it runs, in the state folder where it has no path."""
    session.observer = new_journal(session.about, options, path)
    return session


def new_journal(about: SessionInfo, options: argparse.Namespace, path: Path | None) -> JournalWriter | None:
    """Return the writer of a new run's journal, in the state folder where it has no path; None where none is wanted."""
    from autograd_tui.journal.paths import new_journal_paths
    from autograd_tui.journal.writer import JournalWriter

    if path is not None:
        return JournalWriter(path, about, private=False)
    if options.no_journal:
        return None
    paths = new_journal_paths(about.config)
    return JournalWriter(next(paths), about, private=True, fallback_paths=paths)


def read_chosen_journal(options: argparse.Namespace) -> Journal:
    """Read the journal that is named, else the latest."""
    from autograd_tui.journal.reader import read_journal

    return read_journal(chosen_journal_path(options, "resume"))


def warn_of_damage(journal: Journal) -> None:
    """Say, where a journal is damaged, that its lines before that are taken alone."""
    if journal.damage:
        sentence = (
            f"{journal.path} is damaged: {journal.damage}; the run up to there is taken, {journal.frame:,} frames."
        )
        say(sentence)


def chosen_journal_path(options: argparse.Namespace, what: str) -> Path:
    """Return the journal that is named, else the latest."""
    from autograd_tui.journal.paths import list_journals

    if options.journal == "":
        raise Refused('"" names no journal: give its file, as autograd-tui sessions lists them.')
    if options.journal is not None:
        return Path(absolute(options.journal, working_folder()))  # code of a scenario may go elsewhere
    latest = next(iter(list_journals()), None)
    if latest is None:
        raise Refused(f"no run is kept yet: there is nothing to {what}.")
    return latest


def trusted_scenario(journal: Journal, options: argparse.Namespace) -> str:
    """Return the scenario to open: no code runs that the user has not named, nor any that is not the journal's."""
    config = journal.config
    if config.script:
        where = f" in {config.folder}" if config.folder else ""
        raise Refused(f"{journal.path} is of a script, which is run anew{where}: {config.command_line}")
    if config.scenario in BUILT_IN:  # their code comes with this program
        return config.scenario
    if options.scenario is None:
        raise Refused(f"this run is of {config.scenario}: name it, as in --scenario {quoted(config.scenario)}.")
    from autograd_tui.core.run_config import sha256

    current_hash = sha256(options.scenario)
    if current_hash != config.sha256 and not options.changed:
        if current_hash is None:
            raise Refused(f"there is no file {quoted(options.scenario)}: this run is of {config.scenario}.")
        raise Refused(f"{options.scenario} is not as it was in this run: --changed takes it all the same.")
    named: str = options.scenario
    return named


def open_recorded_session(
    journal: Journal, named: str, options: argparse.Namespace, *, memory: str | None = None
) -> Session:
    """Open the session that a journal began with, writing no journal; raises Refused."""
    from autograd_tui.engine.open_session import open_again

    wanted = {"allow_files": options.allow_files or journal.is_own, "changed": options.changed}
    return open_again(journal.config, named, memory=memory, **wanted)
