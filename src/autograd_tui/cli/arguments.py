"""The arguments that several commands share."""

from __future__ import annotations

import argparse
from typing import NoReturn

from autograd_tui.engine.values.errors import Refused


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message} (--help lists all options)")


def new_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Make a parser that refuses in a sentence."""
    return _Parser(prog=f"autograd-tui {command}".strip(), description=description)


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add what is asked for in every run, new or resumed."""
    running = parser.add_argument_group("running")
    running.add_argument("--do", metavar="COMMANDS", help='run these first, such as "fbsz*3 lr=0.01 fb"; - reads stdin')
    running.add_argument("--repeat", type=int, metavar="N", help="run what --do says N times")
    running.add_argument("--memory", metavar="SIZE", help="for checkpoints (default 1GiB)")
    running.add_argument(
        "--watch",
        action="append",
        metavar="CONDITION",
        help='pause a run there: nonfinite, "grad_norm > 10", "w still", "loss rises 5"; may be said several times',
    )
    add_looks(running)
    running.add_argument("--headless", action="store_true", help="no screen: one line a command")
    running.add_argument("--json", action="store_true", help="with --headless: one JSON object a command")


def add_looks(parser: argparse._ActionsContainer) -> None:
    """Add how the screen looks."""
    parser.add_argument("--theme", help="light, dark, ansi, or one of Textual's; remembered")
    parser.add_argument(
        "--ascii",
        action=argparse.BooleanOptionalAction,
        help="draw with ASCII characters alone; remembered (default: where the locale is not UTF-8)",
    )


def add_journal(parser: argparse._ActionsContainer) -> None:
    """Add where a run is kept."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--journal", metavar="PATH", help="keep the run there (default: the user's state folder)")
    where.add_argument("--no-journal", action="store_true", help="do not keep the run")


def add_which(parser: argparse.ArgumentParser, *, optional: bool) -> None:
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
