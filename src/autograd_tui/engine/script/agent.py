"""The agent in a script's process: it sends frames to the screen, and holds the script where it is told to."""

from __future__ import annotations

import atexit
import mmap
import os
import select
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import wraps
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import open_file
from autograd_tui.core.watcher import Watcher
from autograd_tui.core.watchpoint import FiredWatchpoint
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
    NoSnapshot,
    Return,
    SeamsOff,
    Snapshot,
    Stop,
    TerminalBack,
    WantsTerminal,
)
from autograd_tui.engine.script.forked_copy import RunsOn
from autograd_tui.engine.script.lending import Lending, Reason, hold_exceptions, without_interrupts
from autograd_tui.engine.script.script_frames import error_frame
from autograd_tui.engine.script.script_free_run import FreeRun, LossRecord
from autograd_tui.engine.script.snapshot import CatchUp, Snapshots, take_terminal
from autograd_tui.engine.script.watch_filter import WatchFilter

if TYPE_CHECKING:
    from array import array

    from autograd_tui.core.command import Command
    from autograd_tui.core.frame import Frame
    from autograd_tui.engine.script.event_counts import Forwards
    from autograd_tui.engine.script.loop_phases import Phases
    from autograd_tui.engine.script.seams import Seams

HELD_TIMEOUT = timedelta(hours=24)  # that a collective waits for all ranks; PyTorch's own is 10 or 30 minutes
END_SECONDS = 2.0  # that a script waits at its end for a screen that has not read all before
entered: Agent | None = None  # this process's, once there is one


def enter_script() -> None:
    """Install the seams in this process; it attaches to the screen at its first event. Called behind `import torch`."""
    if "RANK" in os.environ:
        _extend_timeouts()
    if os.environ.get("RANK", "0") != "0":
        return  # one rank is shown, and the others wait for it where they reduce
    agent, seams = enter(Path(os.environ[SOCKET_VARIABLE]))
    agent.seams = seams  # which a snapshot needs


def _extend_timeouts() -> None:
    """Have the ranks of a distributed script wait longer for one that is held, as `torch.distributed.breakpoint` does.

    Called in each rank, before it makes a process group.
    """
    import torch.distributed as distributed

    if not distributed.is_available():
        return
    # Older versions of PyTorch have it under the other name alone.
    set_timeout = getattr(distributed, "set_timeout", None) or distributed.distributed_c10d._set_pg_timeout
    for name in ("init_process_group", "new_group"):
        original = getattr(distributed, name)

        def make_group(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
            group = _original(*args, **kwargs)
            with suppress(Exception):  # one of another backend, or of which this rank is no member
                set_timeout(HELD_TIMEOUT, group)
            return group

        setattr(distributed, name, wraps(original)(make_group))


def enter(folder: Path) -> tuple[Agent, Seams]:
    """Install seams in this process whose agent attaches to the screen in that folder."""
    from autograd_tui.engine.script.loop_phases import Phases
    from autograd_tui.engine.script.seams import install

    global entered
    entered = agent = Agent(folder)
    agent.phases = Phases(agent)
    seams = install(agent.phases)
    agent.lending.install()
    hold_exceptions(agent.hold_error)
    return agent, seams


class Agent:
    """Answers what the script's seams ask: whether an event passes, and how long it is held.

    It attaches at the first event. Without a screen, or once that is gone, everything passes.
    """

    phases: Phases
    _held: Frame  # where the script is held
    seams: Seams | None = None  # without them nothing is forked

    def __init__(self, folder: Path) -> None:
        """`folder`: that of the socket and of the pause byte."""
        self._folder, self._pid = folder, os.getpid()
        self._connection: Connection | None = None
        self._pause: mmap.mmap | bytes = b"\0" * PAUSE_BYTES
        self._encoder = FrameEncoder()
        self._watcher = Watcher()
        self._snapshots = Snapshots(self)
        self._free_run: FreeRun | CatchUp | None = None  # None where the script is held at the next event
        self._losses = LossRecord()  # since the last Stop
        self._last_event, self._last_sent = "", 0  # the name of the event counted last; the index of the last Stop
        self._iteration = 0  # of the last forward
        self.is_over = False  # the screen is gone, or the script was detached
        self.on_over: Callable[[], None] = lambda: None  # called where that is met, before the script goes on
        self.lending = Lending(self._borrow_terminal, self._give_terminal_back)
        self._mutes_again = False  # once the terminal is given back

    # Called by the phases.

    def lets_pass(self, phases: Phases, name: str) -> bool:
        """Return whether nothing is wanted of the event that has just been counted."""
        if self.is_over:
            phases.frames, phases.passed, phases.before_step = False, None, None
            return True
        self._last_event = name
        if name == "forward" and phases.counts.iteration != self._iteration:
            self._iteration = phases.counts.iteration
            if self._free_run is not None and self._connection is not None:
                order = self._snapshots.take_in_run(phases)
                if order is not None:  # this process was that snapshot until now
                    self._catch_up(order)
        if self._free_run is None:
            return False
        passes = self._free_run.lets_pass(phases, name)
        if phases.passed is not None and self.seams is not None:
            phases.passed.due = min(phases.passed.due, self._snapshots.due)
        return passes

    def note_passed(self, forwards: Forwards, losses: array[float], last: str) -> None:
        """Take note of events that passed and are counted now."""
        self._last_event = last
        self._iteration = self.phases.counts.iteration
        self._losses.extend(forwards, losses)
        if isinstance(self._free_run, FreeRun):
            self._free_run.note_passed(self.phases)

    def stop(self, frame: Frame) -> None:
        """Send the frame; where the script is to be held there, return when it may go on."""
        if self.is_over or not self._is_attached():
            return
        free_run = self._free_run
        if free_run is not None and free_run.counts_all:
            self._watcher.go_on_behind(frame.index - 1)
        self._watcher.check(frame)
        fired, ends_iteration = self._watcher.take_fired(), self.ends_iteration
        held = free_run is None or fired is not None or free_run.ends_at(frame, ends_iteration=ends_iteration)
        held = held and not self.lending.is_lent  # to a debugger that trains: it could not be told to go on
        shows = free_run is None or (free_run.shows and (held or isinstance(free_run, CatchUp) or self._is_read()))
        if (held or shows) and not self._send_stop(frame, held, fired):
            return
        if isinstance(free_run, CatchUp) and not held:
            held = self._set_again(frame, free_run) >= free_run.to
        if held:
            self._arrive(frame)
            self._hold_or_go_back(frame)
        elif free_run is not None:
            free_run.go_on(self.phases)

    def _hold_or_go_back(self, frame: Frame) -> None:
        """Hold the script at a frame; a snapshot of it that is forked here may go on from here later."""
        order = self._snapshots.take_at_stop(self.phases)
        if order is not None:  # this process was that snapshot until now
            run = self._catch_up(order)
            if order.to == frame.index:
                self._send_stop(frame, held=True)
            elif self._set_again(frame, run) < order.to:
                return
            self._arrive(self._held)
        self._hold(self.phases.counts.index)

    def _arrive(self, frame: Frame) -> None:
        """Run no further: from here on there are whole frames, and what is printed is seen."""
        self._held, self._free_run = frame, None
        self.phases.frames = True
        self._snapshots.unmute()

    def _send_stop(self, frame: Frame, held: bool, fired: FiredWatchpoint | None = None) -> bool:
        """Send a frame; return whether the screen is there."""
        if self._snapshots.are_muted and frame.script is not None:
            frame = replace(frame, script=replace(frame.script, output_muted=True))
        recorder = self.phases.recorder
        trace = recorder.take(frame) if recorder is not None else None
        problem = recorder.problem if recorder is not None and trace is None else None
        losses, self._last_sent = self._losses.take(), frame.index
        return self.send_message(
            Stop(self._encoder.line(frame), held, self.ends_iteration, losses, fired, trace, problem)
        )

    def give_up(self, reason: str) -> None:
        """Tell the screen that the seams are off, and why."""
        if not self.is_over and self._is_attached():
            self.send_message(SeamsOff(reason))
        self.is_over = True

    def hold_error(self, error: BaseException) -> None:
        """Hold the script where it has raised what ends it; one that has not trained ends as it would."""
        if self.is_over or self._connection is None or os.getpid() != self._pid:
            return
        self._snapshots.unmute()
        self.phases.count_passed()
        self.phases.counts.index += 1
        frame = error_frame(self.phases, error)
        if self.send_message(Stop(self._encoder.line(frame), True, False, self._losses.take())):
            self._held = frame
            self._hold(frame.index)

    def _borrow_terminal(self, why: Reason) -> None:
        """Ask for the terminal; a script that runs to a stop a second time is asked a second time too."""
        self._mutes_again = self._snapshots.are_muted
        self._snapshots.unmute()
        self._tell(WantsTerminal(why))

    def _give_terminal_back(self) -> None:
        self._tell(TerminalBack())
        if self._mutes_again:
            self._mutes_again = False
            self._snapshots.mute()

    def hold_next(self) -> None:
        """Hold the script at its next event, also where it runs freely."""
        self._free_run = None
        self.phases.frames = True

    def detach(self) -> None:
        """Have everything pass from now on, and close the connection."""
        self.is_over = True
        atexit.unregister(self._say_end)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _tell(self, message: Any) -> None:
        """Tell the screen what the script wants of the terminal, also where its seams are off."""
        if self._connection is not None or (not self.is_over and self._is_attached()):
            self.send_message(message)

    # Attaching and holding.

    def _is_attached(self) -> bool:
        """Return whether there is a screen, connecting to it at first."""
        if self._connection is not None:
            return True
        try:
            self._connection = self._connect()
            pause = open_file(self._folder / PAUSE_NAME, os.O_RDWR)
            self._pause = mmap.mmap(pause, PAUSE_BYTES)
            os.close(pause)
        except OSError:
            self.is_over = True
            return False
        atexit.register(self._say_end)
        return self.send_message(self._hello())

    def _connect(self) -> Connection:
        attached = socket.socket(socket.AF_UNIX)
        attached.connect(str(self._folder / SOCKET_NAME))
        return Connection(attached.detach())

    def _say_end(self) -> None:
        """Tell the screen how far the script has come, in the script's own process.

        Where it can be taken back, it waits there.
        """
        if self.is_over or os.getpid() != self._pid:
            return
        self.phases.count_passed()
        held = self._snapshots.count > 0 or self._snapshots.is_copy
        has_raised = hasattr(sys, "last_value")
        if isinstance(self._free_run, FreeRun) and self.phases.counts.index > self._last_sent and not has_raised:
            self._send_last_frame()
        ended = Ended(self.phases.counts.index, self._losses.take(), held, raised=has_raised)
        self._snapshots.unmute()
        if self.send_message(ended) and held:
            self._hold(None)

    def _send_last_frame(self) -> None:
        """Send the frame of the last event of a free run, where all that it shows is still there."""
        with suppress(Exception):  # it is one frame less
            frame = self.phases.last_frame(self._last_event)
            if frame is not None and self._is_read(END_SECONDS):
                self._send_stop(frame, held=False)

    # Going back.

    @property
    def is_paused(self) -> bool:
        """Whether the script is to be held at its next event."""
        return self._pause[0] != 0

    def say_no_snapshot(self, reason: str) -> None:
        """Tell the screen why the script cannot be taken back to here."""
        if self._connection is not None:
            self.send_message(NoSnapshot(reason))

    def reconnect(self, parent: int, snapshot: Snapshot | None) -> Connection | None:
        """Attach as a process that was forked from `parent`, as a snapshot or as the script."""
        assert self._connection is not None
        self._connection.close()
        self._connection, self._pid = self._connect(), os.getpid()
        self.lending.process = self._pid
        self._encoder = FrameEncoder()
        return self._connection if self.send_message(replace(self._hello(), parent=parent, snapshot=snapshot)) else None

    def _catch_up(self, order: Return) -> CatchUp:
        """Run on to where the order says, in a process that was a snapshot."""
        self._losses, self._watcher = LossRecord(), Watcher()
        if self.phases.recorder is not None:
            self.phases.recorder.disarm()
        self._free_run = run = CatchUp(self, order)
        return run

    def _set_again(self, frame: Frame, run: CatchUp) -> int:
        """Set what the user had set at the stop of a frame; return the index that this leads to."""
        self._held = frame
        for command in run.settings_at(frame.index):
            self._asked(Ask(self._held.index, "set", (command,)))
        return self._held.index

    def _hello(self) -> Hello:
        main = sys.modules.get("__main__")
        file = os.path.abspath(getattr(main, "__file__", None) or sys.argv[0] or "")
        rank = os.environ.get("RANK")
        versions = {"python": sys.version.split()[0], "torch": str(torch.__version__)}
        return Hello(os.getpid(), None, int(rank) if rank else None, file, tuple(sys.argv[1:]), versions)

    def send_message(self, message: Any) -> bool:
        """Send to the screen; return whether it is there."""
        assert self._connection is not None
        try:
            with without_interrupts():
                self._connection.send(message)
        except OSError:
            self._leave()
            return False
        return True

    def _leave(self) -> None:
        """Take note that the screen is gone, or wants nothing any more."""
        self.is_over = True
        self.phases.watch_activations(())
        self.on_over()

    def _is_read(self, seconds: float = 0.0) -> bool:
        """Return whether the screen reads what is sent, waiting so long for that.

        A free run leaves out frames where it is slow, or stopped. Only a frame of several 100 kB waits for it even so.
        """
        assert self._connection is not None
        return bool(select.select([], [self._connection], [], seconds)[1])

    def _hold(self, index: int | None) -> None:
        """Answer what the screen asks, until the script may go on from stop `index`, or, behind its end, for good."""
        while self._connection is not None:
            try:
                self._connection.poll(None)  # here ctrl+c is raised
                with without_interrupts():
                    message = self._connection.recv()
            except (EOFError, OSError):
                if self._snapshots.is_copy:
                    os._exit(1)  # nobody wants it any more
                self._leave()
                return
            match message:
                case GoOn(stop=stop) if stop == index:
                    self._go_on(message)
                    return
                case Ask(stop=stop) if stop == index:
                    try:
                        index = self._answer(message)
                    except RunsOn:  # in a copy
                        return
                case Detach():
                    self._leave()
                    return
                case _:
                    pass  # it answers a stop that is over

    def _go_on(self, order: GoOn) -> None:
        if order.watchpoints != self._watcher.armed:
            self._watcher.disarm()
            self._watcher.armed = order.watchpoints
            self.phases.watch_activations([each.name for each in order.watchpoints if each.kind == "dead"])
        self._free_run, self.phases.before_step = None, None
        if order.muted:
            self._snapshots.mute()
        if order.record:
            self.phases.record(self._held)
        elif self.phases.recorder is not None:
            self.phases.recorder.disarm()
        if self._snapshots.count:
            take_terminal()  # from another process of the script, which ran before
        if order.goal is not None:
            self._free_run = FreeRun(
                self.phases,
                order.goal,
                every=order.every,
                watch=WatchFilter(self._watcher, self.phases) if order.watchpoints else None,
                losses=self._losses,
                pause=self._pause,
            )

    def _answer(self, ask: Ask) -> int:
        """Answer, and return the index of the stop that the script is held at now."""
        try:
            answer = Answer(self._asked(ask))
        except Refused as error:
            answer = Answer(refused=str(error))
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            answer = Answer(refused=f"the script could not answer: {type(error).__name__}: {text}")
        self.send_message(answer)
        return self.phases.counts.index

    def _asked(self, ask: Ask) -> Any:
        from autograd_tui.engine.script.stop_requests import answer

        assert self._connection is not None
        return answer(self, self._held, ask, self._connection)

    @property
    def is_copy(self) -> bool:
        """Whether this process was forked from the script's own, to be gone back to."""
        return self._snapshots.is_copy

    def carry_out_setting(self, command: Command, carry_out: Callable[[], None]) -> None:
        """Carry out a setting and send its frame, at which the script is held now."""
        self._held = self.phases.set(command, carry_out)
        run = self._free_run
        self._send_stop(self._held, held=run is None or run.ends_at(self._held, ends_iteration=self.ends_iteration))

    # Iterations and free runs.

    @property
    def ends_iteration(self) -> bool:
        """Whether the iteration before had no more events than the present one has by now."""
        counts = self.phases.counts
        return counts.length is not None and counts.index - counts.first_index + 1 == counts.length
