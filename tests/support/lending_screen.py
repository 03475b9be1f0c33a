"""A screen that lends its terminal to a script: the script's own marks say when, and no agent is needed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from autograd_tui.core.capabilities import Capabilities
from autograd_tui.core.command import Command, Commands
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.session_protocol import InteractiveSession
from autograd_tui.engine.script.script_process import ScriptProcess
from autograd_tui.tui.app import run_on_screen
from autograd_tui.tui.lent_terminal import LentTerminal
from handmade_frames import frame
from handmade_session import MadeSession
from picture_frames import LINE

if TYPE_CHECKING:
    from autograd_tui.core.frame import Frame

CAN = Capabilities(advance=True, run=True, script=True)
ASKS, GIVES_BACK = b"<input>", b"<back>"


class ScriptedSession(MadeSession):
    """Its script is never held: what is asked of it ends when the script does."""

    can = CAN
    process: ScriptProcess

    def next_command(self) -> Command:
        return Command("forward")

    def repeats(self, command: Command) -> bool:
        return False

    def run(self, command: Command) -> Frame:
        self.process.wait()
        return self.frame

    def end_of(self, iterations: int) -> Goal:
        return Goal(iterations)

    def run_until(self, goal: Goal) -> Iterator[Frame]:
        yield self.run(Command("forward"))


def main(folder: Path) -> int:
    """Show the screen, and run the script of that folder."""
    lent = LentTerminal()

    def print_it(data: bytes) -> None:
        sys.stdout.write(data.decode(errors="replace"))
        if ASKS in data:
            lent.lend()
        if GIVES_BACK in data:
            lent.take_back()

    def open_one(scenario: str | None) -> InteractiveSession:
        session = ScriptedSession(LINE, [frame()])
        session.process = ScriptProcess([str(folder / "train.py")], folder=folder, on_output=print_it)
        lent.attach(session.process)
        return session

    return run_on_screen(open_one, Commands(), title="train.py", theme=None, ascii_only=None, can=CAN, lent=lent)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
