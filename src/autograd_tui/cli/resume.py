"""The command `resume`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from autograd_tui.cli.arguments import add_running, add_which, new_parser
from autograd_tui.cli.running import given_commands, run
from autograd_tui.cli.which import journal_of, open_again, scenario_of

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session


def resume(words: list[str]) -> int:
    """Go on with a run where it stopped."""

    parser = new_parser("resume", "Go on with a run where it stopped: the latest, or the one of a journal.")
    add_which(parser, optional=True)
    add_running(parser)
    parser.set_defaults(journal=None, no_journal=False)  # of another model that is opened from here
    options = parser.parse_args(words)
    journal = journal_of(options)
    named = scenario_of(journal, options)

    def open_session() -> Session:
        from autograd_tui.journal.resuming import resume

        session = open_again(journal.opening, named, memory=options.memory)
        resume(session, journal, changed=options.changed)
        return session

    if journal.cut:
        print(f"autograd-tui: the last line of {journal.path} was cut off and is left out.", file=sys.stderr)
    return run(options, open_session, commands=given_commands(options), title=named)
