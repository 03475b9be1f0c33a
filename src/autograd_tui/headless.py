"""Commands in, frames out, no screen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TextIO

from autograd_tui.core.command import Command
from autograd_tui.core.errors import Refused, UnknownCommand
from autograd_tui.core.frame import Frame
from autograd_tui.core.terminal_text import print_lines, say
from autograd_tui.engine.session import Session
from autograd_tui.text.explain_backward import stray_lines
from autograd_tui.text.frame_summary import HEADER, frame_line, raised_line
from autograd_tui.text.messages import divergence_line
from autograd_tui.text.trace.operation_lines import trace_lines


def run_headless(session: Session, commands: Iterable[Command], *, json_lines: bool, out: TextIO) -> int:
    """Run the commands in order, write one line a frame, and give the exit code.

    0: all ran; what a forced command raised is a result. 1: an unforced command was refused or raised; it stops there.
    2: the words of the first command were not understood, so nothing ran.
    """
    write = _json_writer(out) if json_lines else _table_writer(out)
    ran = False
    if session.warning:
        say(session.warning)
    try:
        for command in commands:
            frame = session.run(command)
            ran = True
            write(frame)
            for sentence in stray_lines(frame):
                say(sentence)
            report_problem(session)
            if difference := session.take_divergence():
                say(divergence_line(difference))
            if fired := session.take_fired():
                say(str(fired))
            if frame.error and not (command.forced or command.goes_back):
                say(f"{command} raised {raised_line(frame.error)}")
                return 1
    except UnknownCommand as error:
        say(str(error))
        return 1 if ran else 2
    except Refused as error:
        say(str(error))
        return 1
    return 0


def report_problem(session: Session) -> None:
    """Say, once, what of the run is not kept."""
    if session.observer is not None and (problem := session.observer.take_problem()):
        say(problem)


def _json_writer(out: TextIO) -> Callable[[Frame], None]:
    def write(frame: Frame) -> None:
        print_lines(json.dumps(frame.plain(), allow_nan=False), file=out, flush=True)

    return write


def _table_writer(out: TextIO) -> Callable[[Frame], None]:
    started = False

    def write(frame: Frame) -> None:
        nonlocal started
        if not started:
            print_lines(HEADER, file=out)
            started = True
        inside = trace_lines(frame.trace) if frame.trace else ()
        print_lines(*frame_line(frame).split("\n"), *inside, file=out, flush=True)

    return write
