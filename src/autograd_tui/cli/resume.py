"""The command `resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autograd_tui.cli.arguments import (
    add_journal_choice,
    add_run_arguments,
    new_parser,
    open_recorded_session,
    read_chosen_journal,
    trusted_scenario,
)
from autograd_tui.cli.running import initial_commands, run_session
from autograd_tui.core.errors import Refused
from autograd_tui.core.terminal_text import say

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
