"""The command `script`: somebody's own training script, unmodified, held at each phase."""

from __future__ import annotations

import argparse
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from autograd_tui.cli.arguments import (
    add_display_arguments,
    add_journal_arguments,
    add_watch_argument,
    new_journal,
    new_journal_path,
    new_parser,
)
from autograd_tui.cli.running import check_terminal
from autograd_tui.core.capabilities import SCRIPTED
from autograd_tui.core.command import Commands
from autograd_tui.core.errors import Refused
from autograd_tui.core.run_config import DEFAULT_MEMORY, read_size
from autograd_tui.core.session_protocol import InteractiveSession
from autograd_tui.core.watchpoint import parse_watchpoint

USAGE = "autograd-tui script [options] train.py ARGS | -m module ARGS | -- command ARGS"


def script(words: list[str]) -> int:
    """Start a script on a terminal of its own, and show where it is held.

    Returns the script's exit code where it ends by itself, and 0 where the user leaves it.
    """
    parser = new_parser("script", "Step a training script of your own, unmodified: it is held at each phase.")
    parser.usage = f"{USAGE}\n\nAll words behind the script are the script's own."
    parser.add_argument("--eager", action="store_true", help="run what torch.compile has compiled as it is written")
    parser.add_argument("--memory", metavar="SIZE", help="for what it goes back from (default 1GiB)")
    parser.add_argument("--attach", help=argparse.SUPPRESS)  # by step_into: a terminal's descriptor, and a folder
    add_watch_argument(parser)
    add_display_arguments(parser)
    add_journal_arguments(parser)
    own, command = _split(parser, words)
    options = parser.parse_args(own)
    attach = None
    if options.attach is None:
        _check(command)
    else:
        descriptor, _, folder = options.attach.partition(":")
        attach = Path(folder), int(descriptor)
    path, watchpoints = new_journal_path(options), [parse_watchpoint(text) for text in options.watch or ()]
    memory = read_size(options.memory) if options.memory else DEFAULT_MEMORY
    check_terminal()
    from autograd_tui.engine.script.script_session import NeverTrained, ScriptSession
    from autograd_tui.tui.app import run_on_screen
    from autograd_tui.tui.captured_output import CapturedOutput
    from autograd_tui.tui.lent_terminal import LentTerminal

    output, lent, switches = CapturedOutput(), LentTerminal(), ("--eager",) * options.eager
    ended: list[ScriptSession | NeverTrained] = []  # what knows the script's exit code when that has ended
    switches += ("--memory", options.memory) if options.memory else ()
    if options.eager:
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # the script inherits it

    def open_one(scenario: str | None) -> InteractiveSession:
        if scenario is not None:
            raise Refused("a script runs here: leave it (q) to open something else.")
        try:
            session = ScriptSession(
                tuple(command),
                on_output=output.take_in,
                switches=switches,
                terminal=lent,
                memory=memory,
                attach=attach,
            )
        except NeverTrained as error:
            ended.append(error)
            raise
        ended.append(session)
        for each in watchpoints:
            session.arm(each)
        session.observer = new_journal(session.about, options, path)
        return session

    looks = {"theme": options.theme, "ascii_only": options.ascii}
    title = os.path.basename((command[1] if command[0] in ("-m", "--") else command[0]).rstrip(os.sep))
    code = run_on_screen(
        open_one,
        Commands(),
        title=title,
        can=SCRIPTED,
        output=output,
        lent=lent,
        exporter=_export,
        says_command=attach is None,
        **looks,
    )
    own_code = ended[0].exit_code if ended else None
    is_own = code == 0 or (ended and isinstance(ended[0], NeverTrained))  # not that of a bug or a signal
    return own_code if own_code is not None and is_own else code


def _export(*arguments: Any, **options: Any) -> str:
    """Export as `export_from_session` does: what writes files is imported when the first export is asked for."""
    from autograd_tui.export.stored_run import export_from_session

    return export_from_session(*arguments, **options)


def _split(parser: argparse.ArgumentParser, words: list[str]) -> tuple[list[str], list[str]]:
    """Return this program's own options, and the words of the script behind them."""
    index = 0
    while index < len(words) and words[index].startswith("-") and words[index] not in ("-m", "--"):
        option = words[index].partition("=")[0]
        action = parser._option_string_actions.get(option)
        takes_value = action is not None and action.nargs is None and "=" not in words[index]
        index += 2 if takes_value else 1
    return words[:index], words[index:]


def _check(command: list[str]) -> None:
    """Raise Refused where there is nothing to start."""
    if not command or command in (["-m"], ["--"]):
        raise Refused(f"no script is named: {USAGE}.")
    name = command[0]
    if name in ("-m", "--"):
        return
    if not os.path.exists(name):
        folder, base = os.path.split(name)
        try:
            files = [each for each in os.listdir(folder or ".") if each.endswith(".py")]
        except (OSError, ValueError):  # there is no such folder, or a name that none can have
            files = []
        close = get_close_matches(base, files, n=1)
        hint = f": the nearest is {os.path.join(folder, close[0])}" if close else ""
        raise Refused(f'there is no file "{name}"{hint}.')
    if name.endswith(".ipynb"):
        raise Refused(f'"{name}" is a notebook: jupyter nbconvert --to script {name} makes a script of it.')
    if os.path.isdir(name) and not os.path.exists(os.path.join(name, "__main__.py")):
        raise Refused(f'"{name}" is a folder without a __main__.py, which Python would run: name a file in it.')
