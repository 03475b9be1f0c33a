"""The commands that open a run from its journal: `resume`, `replay` and `follow`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from autograd_tui.cli.arguments import (
    add_display_arguments,
    add_journal_choice,
    add_run_arguments,
    chosen_journal_path,
    new_parser,
    open_recorded_session,
    read_chosen_journal,
    trusted_scenario,
    warn_of_damage,
)
from autograd_tui.cli.running import check_terminal, initial_commands, run_session
from autograd_tui.core.capabilities import REPLAYED
from autograd_tui.core.command import Commands, parse
from autograd_tui.core.errors import Refused
from autograd_tui.core.optimizer_spec import parse_number
from autograd_tui.core.terminal_text import print_lines, say

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session
    from autograd_tui.journal.reader import Journal


def resume(words: list[str]) -> int:
    """Go on with a run where it stopped."""

    parser = new_parser("resume", "Go on with a run where it stopped: the latest, or the one of a journal.")
    add_journal_choice(parser, optional=True)
    parser.add_argument(
        "--salvage", action="store_true", help="go on from before a damaged line; the damaged file is kept beside"
    )
    add_run_arguments(parser)
    parser.set_defaults(journal=None, no_journal=False)  # of another model that is opened from here
    options = parser.parse_args(words)
    journal = read_chosen_journal(options)
    named = trusted_scenario(journal, options)

    def open_session() -> Session:
        from autograd_tui.journal.resume_run import resume_run

        session = open_recorded_session(journal, named, options, memory=options.memory)
        resume_run(session, journal, changed=options.changed)
        return session

    if journal.damage:
        _salvage(journal, wanted=options.salvage)
    elif journal.unread_bytes:
        say(f"the last line of {journal.path} was cut off and is left out.")
    return run_session(options, open_session, commands=initial_commands(options), title=named)


def _salvage(journal: Journal, *, wanted: bool) -> None:
    """Say what becomes of a damaged journal; raises Refused where nobody has asked to go on from before the damage."""
    from autograd_tui.journal.journal_file import damaged_copy_path

    damaged, frame = f"{journal.path} is damaged: {journal.damage}", f"frame {journal.frame:,}"
    if not wanted:
        raise Refused(f"{damaged}; resume --salvage goes on from before it, at {frame}, and keeps the damaged file.")
    copy = f"the damaged file will be kept as {damaged_copy_path(journal.path)}."
    say(f"{damaged}; the run goes on from before it, at {frame}; {copy}")


def replay(words: list[str]) -> int:
    """Run again what a journal tells, on a screen or to compare it."""

    parser = new_parser("replay", "Run again what a journal tells.")
    add_journal_choice(parser, optional=False)
    parser.add_argument("--speed", default="4", help="commands a second, or full (default 4); + and - change it")
    parser.add_argument("--headless", action="store_true", help="no screen")
    parser.add_argument("--check", action="store_true", help="say whether every number is the same, to the bit")
    add_display_arguments(parser)
    options = parser.parse_args(words)
    if options.headless != options.check:
        raise Refused("replay --headless --check says whether all numbers are the same; on a screen, use neither.")
    journal = read_chosen_journal(options)
    named = trusted_scenario(journal, options)
    warn_of_damage(journal)
    if options.check:
        return _check(journal, lambda: open_recorded_session(journal, named, options))
    speed = _parse_speed(options.speed)
    check_terminal("--headless --check")
    from autograd_tui.cli.torch_libraries import TorchLibraries
    from autograd_tui.tui.app import run_on_screen

    libraries = TorchLibraries()

    def open_replay(_: str | None) -> Session:
        libraries.wait()
        session = open_recorded_session(journal, named, options)
        session.can = REPLAYED
        return session

    return run_on_screen(
        open_replay,
        parse(" ".join(entry.command for entry in journal.entries)),
        title=named,
        theme=options.theme,
        ascii_only=options.ascii,
        can=REPLAYED,
        speed=speed,
        when_painted=libraries.start,
    )


def _parse_speed(text: str) -> float | None:
    """Read a number of commands a second; None for as many as there is time for."""
    number = parse_number(text)
    if text == "full":
        return None
    if number is None or not 0 < number < 1e6:
        raise Refused(f"--speed {text} is no number of commands a second: use --speed 4, or --speed full.")
    return number


def _check(journal: Journal, reopen: Callable[[], Session]) -> int:
    """Run everything again; 0 where all digests agree, else 1, naming the first line that differs.

    It is 1 also where a line is damaged, since nothing is known of those behind it.
    """
    from autograd_tui.journal.resume_run import NOT_DETERMINISTIC, is_repeatable, machine_differences, verify_journal

    session = reopen()
    elsewhere = machine_differences(journal.config, session.about.config)
    where = f" on another machine: {', '.join(elsewhere)}" if elsewhere else ""
    for checked in verify_journal(session, journal):
        if not checked.matches:
            line = f'line {checked.entry.id + 1} ("{checked.entry.command}")'
            may_differ = "" if is_repeatable(journal.config) else NOT_DETERMINISTIC.format(journal.config.device)
            print_lines(f"{journal.path}: differs from {line} on{where}.{may_differ}")
            return 1
    before = " before the damaged one" if journal.damage else ""
    print_lines(f"{journal.path}: all {len(journal.entries)} lines{before} agree{where}.")
    return bool(journal.damage)


def follow(words: list[str]) -> int:
    """Show a run that another terminal leads."""
    from autograd_tui.journal.followed_session import FollowedSession

    parser = new_parser("follow", "Show a run that another terminal leads; this one disturbs nothing.")
    parser.add_argument("journal", nargs="?", help="the journal's file (default: the latest)")
    add_display_arguments(parser)
    options = parser.parse_args(words)
    following = FollowedSession(chosen_journal_path(options, "follow"))
    check_terminal()
    from autograd_tui.tui.app import run_on_screen

    looks = {"theme": options.theme, "ascii_only": options.ascii}
    return run_on_screen(lambda _: following, Commands(), title=following.about.title, can=following.can, **looks)
