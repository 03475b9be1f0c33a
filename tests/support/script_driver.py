"""Runs a script plain, held at every stop, or free with a watchpoint, in forks of a process that has imported PyTorch.

The agent, the seams and the socket are those of a real start; only `sitecustomize` and the terminal are not there.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import fork_server
from autograd_tui.core.frame import Frame
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.core.watchpoint import Watchpoint
from autograd_tui.core.wire import FrameDecoder
from autograd_tui.engine.script.agent_messages import (
    PAUSE_NAME,
    SOCKET_NAME,
    SOCKET_VARIABLE,
    Detach,
    Ended,
    GoOn,
    Hello,
    SeamsOff,
    Stop,
)
from script_recorder import LETTERS

SCRIPTS = Path(__file__).parent / "scripts"
Mode = Literal["plain", "held", "free"]
RUN = f"""
import os, runpy, sys
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
if "{SOCKET_VARIABLE}" in os.environ:
    from autograd_tui.engine.script.agent import enter_script
    enter_script()
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass
class ScriptRun:
    """What came from a script and its agent."""

    exit_code: int = 0
    output: str = ""
    errors: str = ""
    hello: Hello | None = None
    frames: list[Frame] = field(default_factory=list)
    fired: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)  # why the seams are off

    @property
    def stops(self) -> list[ScriptStop]:
        return [frame.script for frame in self.frames if frame.script is not None]

    @property
    def bits(self) -> str:
        return self.output.splitlines()[-1]

    def by_iteration(self) -> list[str]:
        """The events of each iteration, those before the first forward first; a step left out is "s"."""
        letters: dict[int, str] = {}
        for frame, stop in zip(self.frames, self.stops, strict=True):
            if frame.command is not None:
                letter = LETTERS[frame.command.name]
                letters[frame.iteration] = letters.get(frame.iteration, "") + (
                    letter.lower() if stop.skipped else letter
                )
        return [letters[each] for each in sorted(letters)]


def run_script(
    name: str, mode: Mode, *arguments: str, input: str = "", environment: Mapping[str, str] | None = None
) -> ScriptRun:
    """Run a script of `scripts/` to its end."""
    run = ScriptRun()
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    words = [sys.executable, "-c", RUN, str(SCRIPTS / name), *arguments]
    with tempfile.TemporaryDirectory(prefix="script-") as folder:
        if mode != "plain":
            variables[SOCKET_VARIABLE] = folder
            (Path(folder) / PAUSE_NAME).write_bytes(b"\0")
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(os.path.join(folder, SOCKET_NAME))
            listening.listen()
            led = threading.Thread(target=_lead, args=(listening, run, mode), daemon=True)
            led.start()
        ended = fork_server.run(words, input=input, environment=variables, folder=folder)
        if mode != "plain":
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # also where nobody has attached
            led.join(10)
            listening.close()
    run.exit_code, run.output, run.errors = ended.returncode, ended.stdout, ended.stderr
    return run


def _refuse_others(listening: socket.socket) -> None:
    """Let the snapshots of a script end at once, until nobody listens any more."""
    with suppress(OSError):
        while True:
            attached, _ = listening.accept()
            attached.close()


def _lead(listening: socket.socket, run: ScriptRun, mode: Mode) -> None:
    """Let a script go on from wherever it is held, and take in its frames."""
    try:
        attached, _ = listening.accept()
    except OSError:
        return
    threading.Thread(target=_refuse_others, args=(listening,), daemon=True).start()
    decoder = FrameDecoder()
    goal, watchpoints = (Goal(), (Watchpoint("nonfinite"),)) if mode == "free" else (None, ())
    with Connection(attached.detach()) as connection, suppress(EOFError, OSError):
        while True:
            match connection.recv():
                case Hello() as hello:
                    run.hello = hello
                case Stop() as stop:
                    frame = decoder.frame(stop.line)
                    run.frames.append(frame)
                    if stop.fired is not None:
                        run.fired.append(str(stop.fired))
                    if stop.held:
                        connection.send(GoOn(frame.index, goal, watchpoints=watchpoints))
                case SeamsOff(reason):
                    run.reasons.append(reason)
                case Ended(held=True):
                    connection.send(Detach())
