"""Which of the runs that are kept, and its session once more."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.files import absolute, working_folder
from autograd_tui.engine.values.printed import quoted, say
from autograd_tui.engine.values.scenario_names import BUILT_IN

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session
    from autograd_tui.journal.reading import Journal


def journal_of(options: argparse.Namespace) -> Journal:
    """Read the journal that is named, else the latest."""
    from autograd_tui.journal.reading import read_journal

    return read_journal(path_of(options, "resume"))


def take_damaged(journal: Journal) -> None:
    """Say, where a journal is damaged, that its lines before that are taken alone."""
    if journal.damage:
        said = f"{journal.path} is damaged: {journal.damage}; the run up to there is taken, {journal.frame:,} frames."
        say(said)


def path_of(options: argparse.Namespace, what: str) -> Path:
    """Give the journal that is named, else the latest."""
    from autograd_tui.journal.folder import journals

    if options.journal is not None:
        return Path(absolute(options.journal, working_folder()))  # code of a scenario may go elsewhere
    latest = next(iter(journals()), None)
    if latest is None:
        raise Refused(f"no run is kept yet: there is nothing to {what}.")
    return latest


def scenario_of(journal: Journal, options: argparse.Namespace) -> str:
    """Give the scenario to open: no code runs that the user has not named, nor any that is not the journal's."""
    opening = journal.opening
    if opening.scenario in BUILT_IN:  # their code comes with this program
        return opening.scenario
    if options.scenario is None:
        raise Refused(f"this run is of {opening.scenario}: name it, as in --scenario {quoted(opening.scenario)}.")
    from autograd_tui.engine.values.opening import sha256

    found = sha256(options.scenario)
    if found != opening.sha256 and not options.changed:
        if found is None:
            raise Refused(f"there is no file {quoted(options.scenario)}: this run is of {opening.scenario}.")
        raise Refused(f"{options.scenario} is not as it was in this run: --changed takes it all the same.")
    named: str = options.scenario
    return named


def open_again(journal: Journal, named: str, options: argparse.Namespace, *, memory: str | None = None) -> Session:
    """Open the session that a journal began with, writing no journal; raises Refused."""
    from autograd_tui.open import open_again

    asked = {"allow_files": options.allow_files or journal.ours, "changed": options.changed}
    return open_again(journal.opening, named, memory=memory, **asked)
