"""The agent in a script's process: it sends frames to the screen, and holds the script where it is told to."""

from __future__ import annotations

import atexit
import mmap
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import open_file
from autograd_tui.core.watchpoint import Watcher
from autograd_tui.core.wire import FrameEncoder
from autograd_tui.engine.script.agent_messages import (
    PAUSE_BYTES,
    PAUSE_NAME,
    SOCKET_NAME,
    SOCKET_VARIABLE,
    Answer,
    Ask,
    Detach,
    Ended,
    GoOn,
    Hello,
    SeamsOff,
    Stop,
    TerminalBack,
    WantsTerminal,
)
from autograd_tui.engine.script.lending import Lending, hold_exceptions, without_interrupts
from autograd_tui.engine.script.script_error import error_frame
from autograd_tui.engine.script.script_free_run import FreeRun, LossRecord
from autograd_tui.engine.script.watch_filter import WatchFilter

if TYPE_CHECKING:
    from autograd_tui.core.command import Command
    from autograd_tui.core.frame import Frame
    from autograd_tui.engine.script.loop_phases import Phases


def enter_script() -> None:
    """Install the seams in this process; it attaches to the screen at its first event. Called behind `import torch`."""
    from autograd_tui.engine.script.loop_phases import Phases
    from autograd_tui.engine.script.seams import install

    if "RANK" in os.environ:
        from autograd_tui.engine.script.process_groups import extend_timeouts

        extend_timeouts()
    if os.environ.get("RANK", "0") != "0":
        return  # one rank is shown, and the others wait for it where they reduce
    agent = Agent(Path(os.environ[SOCKET_VARIABLE]))
    agent.phases = Phases(agent)
    install(agent.phases)
    agent.lending.install()
    hold_exceptions(agent.hold_error)


class Agent:
    """Answers what the script's seams ask: whether an event passes, and how long it is held.

    It attaches at the first event. Without a screen, or once that is gone, everything passes.
    """

    phases: Phases
    _held: Frame  # where the script is held

    def __init__(self, folder: Path) -> None:
        """`folder`: that of the socket and of the pause byte."""
        self._folder, self._pid = folder, os.getpid()
        self._connection: Connection | None = None
        self._pause: mmap.mmap | bytes = b"\0" * PAUSE_BYTES
        self._encoder = FrameEncoder()
        self._watcher = Watcher()
        self._free_run: FreeRun | None = None  # None where the script is held at the next event
        self._losses = LossRecord()  # since the last Stop
        self._iteration, self._first_index = 0, 0  # the present one, and the index of its first event
        self._length: int | None = None  # events of the iteration before; None before there was a whole one
        self._is_over = False  # the screen is gone, or the script was detached
        self.lending = Lending(lambda why: self._tell(WantsTerminal(why)), lambda: self._tell(TerminalBack()))

    # Called by the phases.

    def lets_pass(self, phases: Phases, name: str) -> bool:
        """Return whether nothing is wanted of the event that has just been counted."""
        if name == "forward" and phases.iteration != self._iteration:
            self._begin_iteration(phases)
        if self._free_run is not None:
            return self._free_run.lets_pass(phases, name)
        if self._is_over:
            phases.frames = False
        return self._is_over

    def stop(self, frame: Frame) -> None:
        """Send the frame; where the script is to be held there, return when it may go on."""
        if self._is_over or not self._is_attached():
            return
        free_run = self._free_run
        if free_run is not None and free_run.counts_all:
            self._watcher.go_on_behind(frame.index - 1)
        self._watcher.check(frame)
        fired, ends_iteration = self._watcher.take_fired(), self.ends_iteration
        held = free_run is None or fired is not None or free_run.ends_at(frame, ends_iteration=ends_iteration)
        held = held and not self.lending.is_lent  # to a debugger that trains: it could not be told to go on
        if held or free_run is None or free_run.shows:
            recorder = self.phases.recorder
            trace = recorder.take(frame) if recorder is not None else None
            problem = recorder.problem if recorder is not None and trace is None else None
            losses = self._losses.take()
            stop = Stop(self._encoder.line(frame), held, ends_iteration, losses, fired, trace, problem)
            if not self._send(stop):
                return
        if held:
            self._free_run = None
            self.phases.frames = True
            self._held = frame
            self._hold(frame.index)
        elif free_run is not None:
            free_run.go_on(self.phases)

    def give_up(self, reason: str) -> None:
        """Tell the screen that the seams are off, and why."""
        self._is_over = True
        if self._connection is not None:
            self._send(SeamsOff(reason))

    def hold_error(self, error: BaseException) -> None:
        """Hold the script where it has raised what ends it; one that has not trained ends as it would."""
        if self._is_over or self._connection is None:
            return
        self.phases.index += 1
        frame = error_frame(self.phases, error)
        if self._send(Stop(self._encoder.line(frame), True, False, self._losses.take())):
            self._held = frame
            self._hold(frame.index)

    def _tell(self, message: Any) -> None:
        """Tell the screen what the script wants of the terminal, also where its seams are off."""
        if self._connection is not None or (not self._is_over and self._is_attached()):
            self._send(message)

    # Attaching and holding.

    def _is_attached(self) -> bool:
        """Return whether there is a screen, connecting to it at first."""
        if self._connection is not None:
            return True
        try:
            attached = socket.socket(socket.AF_UNIX)
            attached.connect(str(self._folder / SOCKET_NAME))
            pause = open_file(self._folder / PAUSE_NAME, os.O_RDWR)
            self._pause = mmap.mmap(pause, PAUSE_BYTES)
            os.close(pause)
        except OSError:
            self._is_over = True
            return False
        self._connection = Connection(attached.detach())
        atexit.register(self._say_end)
        return self._send(self._hello())

    def _say_end(self) -> None:
        """Tell the screen how far the script has come, in the script's own process."""
        if not self._is_over and os.getpid() == self._pid:
            self._send(Ended(self.phases.index, self._losses.take()))

    def _hello(self) -> Hello:
        main = sys.modules.get("__main__")
        file = os.path.abspath(getattr(main, "__file__", None) or sys.argv[0] or "")
        rank = os.environ.get("RANK")
        versions = {"python": sys.version.split()[0], "torch": str(torch.__version__)}
        return Hello(os.getpid(), None, int(rank) if rank else None, file, tuple(sys.argv[1:]), versions)

    def _send(self, message: Any) -> bool:
        """Send to the screen; return whether it is there."""
        assert self._connection is not None
        try:
            with without_interrupts():
                self._connection.send(message)
        except OSError:
            self._is_over = True
            return False
        return True

    def _hold(self, index: int) -> None:
        """Answer what the screen asks, until the script may go on from stop `index`."""
        assert self._connection is not None
        while True:
            try:
                self._connection.poll(None)  # here ctrl+c is raised
                with without_interrupts():
                    message = self._connection.recv()
            except (EOFError, OSError):
                self._is_over = True
                return
            match message:
                case GoOn(stop=stop) if stop == index:
                    self._go_on(message)
                    return
                case Ask(stop=stop) if stop == index:
                    index = self._answer(message, index)
                case Detach():
                    self._is_over = True
                    return
                case _:
                    pass  # it answers a stop that is over

    def _go_on(self, order: GoOn) -> None:
        if order.watchpoints != self._watcher.armed:
            self._watcher.disarm()
            self._watcher.armed = order.watchpoints
        self._free_run = None
        if order.record:
            self.phases.record(self._held)
        elif self.phases.recorder is not None:
            self.phases.recorder.disarm()
        if order.goal is not None:
            self._free_run = FreeRun(
                self.phases,
                order.goal,
                every=order.every,
                watch=WatchFilter(self._watcher, self.phases) if order.watchpoints else None,
                losses=self._losses,
                pause=self._pause,
            )

    def _answer(self, ask: Ask, index: int) -> int:
        """Answer, and return the index of the stop that the script is held at now."""
        try:
            answer = Answer(self._asked(ask))
        except Refused as error:
            answer = Answer(refused=str(error))
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            answer = Answer(refused=f"the script could not answer: {type(error).__name__}: {text}")
        self._send(answer)
        return self.phases.index

    def _asked(self, ask: Ask) -> Any:
        from autograd_tui.engine.script import stop_requests

        if self._held.error is not None and ask.what == "set":
            raise Refused("the script has raised, and ends: nothing that is set would be used.")
        match ask.what, ask.arguments:
            case "set", (command,):
                self._send_setting(command, stop_requests.setting(self.phases, self._held, command))
                return None
            case "inspect", (name,):
                return stop_requests.inspected(self.phases, self._held, name)
        raise Refused(f"{ask.what} cannot be had of a script yet.")

    def _send_setting(self, command: Command, carry_out: Callable[[], None]) -> None:
        """Carry out a setting and send its frame, at which the script is held now."""
        self._held = self.phases.set(command, carry_out)
        self._first_index += 1  # it is no event, and an iteration is as long as before
        self._send(Stop(self._encoder.line(self._held), True, self.ends_iteration))

    # Iterations and free runs.

    @property
    def ends_iteration(self) -> bool:
        """Whether the iteration before had no more events than the present one has by now."""
        return self._length is not None and self.phases.index - self._first_index + 1 == self._length

    def _begin_iteration(self, phases: Phases) -> None:
        if self._iteration:
            self._length = phases.index - self._first_index
        self._iteration, self._first_index = phases.iteration, phases.index
