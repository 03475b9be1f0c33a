"""A session that runs what was asked for, on a screen or without one."""

from __future__ import annotations

import argparse
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from autograd_tui.cli.arguments import with_journal
from autograd_tui.core.command import MAX_COMMANDS, Command, Commands, parse
from autograd_tui.core.errors import Refused, UnknownCommand
from autograd_tui.core.files import go_to, working_folder

if TYPE_CHECKING:
    from autograd_tui.core.watchpoint import Watchpoint
    from autograd_tui.engine.session import Session


def run_session(
    options: argparse.Namespace, open_session: Callable[[], Session], *, commands: Commands, title: str
) -> int:
    """Run what is asked for on a screen or without one, from where the session stands."""
    watchpoints = _read_watchpoints(options.watch or ())

    def armed() -> Session:
        session = open_session()
        for each in watchpoints:
            session.arm(each)
        return session

    if options.headless:
        return _run_headless(options, armed, commands)
    return _run_on_screen(options, armed, commands, title=title)


def _run_headless(options: argparse.Namespace, open_session: Callable[[], Session], commands: Commands) -> int:
    if sys.stdout is None:
        raise Refused("stdout is closed, and there the lines would go.")
    from_stdin = options.do == "-"
    if from_stdin and options.repeat is not None:
        raise Refused("--repeat needs commands that can be read twice: --do - reads them once.")
    if options.theme is not None:
        raise Refused("--theme is for the screen, and --headless has none.")
    if options.do is None:
        raise Refused('--headless needs commands: --do "fbsz", or --do - for standard input.')
    wanted = _read_commands(sys.stdin or ()) if from_stdin else iter(commands)
    if from_stdin:
        sys.stdin = io.StringIO()  # a scenario's input() would take our commands
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # It ends the program at once, as SIGTERM does: each line is flushed, and a running phase cannot be interrupted.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # stdout is for data alone: what a model prints, even from C, goes to stderr.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        session = open_session()
        from autograd_tui.headless import report_problem, run_headless

        code = run_headless(session, wanted, json_lines=options.json, out=out)
        session.close(in_order=True)
        report_problem(session)
        return code


def _run_on_screen(
    options: argparse.Namespace, open_session: Callable[[], Session], commands: Commands, *, title: str
) -> int:
    if options.json:
        raise Refused("--json needs --headless: a screen prints no lines.")
    if options.do == "-":
        raise Refused("--do - needs --headless: with a screen, the keyboard gives the commands.")
    check_terminal('--headless --do "fbsz"')
    gc.disable()
    from autograd_tui.cli.torch_libraries import TorchLibraries
    from autograd_tui.tui.app import run_on_screen

    gc.freeze()  # what has been imported stays, and need not be looked through
    gc.enable()
    folder, libraries = working_folder(), TorchLibraries()

    def open_one(scenario: str | None) -> Session:
        libraries.wait()
        return open_session() if scenario is None else _open_another(scenario, options, folder)

    greeting = _interrupted_run() if len(sys.argv) == 1 else None
    looks = {"theme": options.theme, "ascii_only": options.ascii}
    return run_on_screen(
        open_one,
        commands,
        title=title,
        begins_slowly=True,
        greeting=greeting,
        exporter=export_session,
        when_painted=libraries.start,
        **looks,
    )


def _interrupted_run() -> str | None:
    """Return a sentence about a run that can be resumed, if there is one."""
    from autograd_tui.journal.interrupted import interrupted_run

    return interrupted_run()


def export_session(*arguments: Any, **options: Any) -> str:
    """Export as `export_beside` does, which needs PyTorch: it is imported when the first export is asked for."""
    from autograd_tui.export.live_export import export_live

    return export_live(*arguments, **options)


def check_terminal(instead: str = "") -> None:
    """Raise Refused where there is no terminal to draw on; `instead`: the options that do without one."""
    if sys.stdout is None:
        raise Refused("stdout is closed, and there the command line that repeats the run would go.")
    if not all(each and each.isatty() for each in (sys.stdin, sys.stderr)):
        raise Refused("this is no terminal, so there is no screen" + f": use {instead}" * bool(instead) + ".")
    term = os.environ.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        use = f"use {instead}, or set it" if instead else "set it to yours, such as xterm-256color"
        raise Refused(f'TERM="{term}" names no terminal that can place text: {use}.')


def initial_commands(options: argparse.Namespace) -> Commands:
    """Read what --do and --repeat ask for; nothing where commands come from stdin."""
    if options.do == "-":
        return Commands()
    if options.repeat is not None and options.repeat < 1:
        raise Refused(f"--repeat must be at least 1, not {options.repeat}.")
    commands, times = _parse(options.do or ""), options.repeat or 1
    if len(commands) * times > MAX_COMMANDS:
        raise Refused(f"--repeat {times} asks for more than {MAX_COMMANDS:,} commands at once.")
    return commands * times


def _parse(text: str) -> Commands:
    """Read commands; what is a word for the screen is refused as one."""
    try:
        return parse(text)
    except UnknownCommand as error:
        from autograd_tui.text.prompt.word_table import is_screen_word

        for word in filter(is_screen_word, text.split()):
            if f'"{word}" is not a command:' in (sentence := str(error)):
                where = f'"{word}" is for the screen, where it is typed after a colon:'
                raise UnknownCommand(sentence.replace(f'"{word}" is not a command:', where)) from None
        raise


def _read_watchpoints(texts: Sequence[str]) -> list[Watchpoint]:
    """Read what --watch asks for, with a module that most starts go without."""
    if not texts:
        return []
    from autograd_tui.core.watchpoint import parse_watchpoint

    return [parse_watchpoint(text) for text in texts]


def _read_commands(lines: Iterable[str]) -> Iterator[Command]:
    try:
        for line in lines:
            yield from _parse(line)
    except UnicodeDecodeError:
        raise UnknownCommand("what comes from stdin is no text.") from None


def _open_another(scenario: str, options: argparse.Namespace, folder: str | None) -> Session:
    """Open another scenario in the same place; how it is trained is its own again.

    folder: where this program was started, which code of the present one may have left.
    """
    from autograd_tui.engine.open_session import open_session

    wanted = {name: getattr(options, name, None) for name in ("device", "threads", "memory", "deterministic")}
    arguments: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    before = working_folder()
    go_to(folder)
    try:
        session = open_session(scenario, seed=getattr(options, "seed", 0), **arguments)
    except BaseException:
        go_to(before)
        raise
    return with_journal(session, options)  # a place that was given is the first session's
