"""A session that leads a script of the user's own, which runs in a process of its own. Needs no torch."""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic
from typing import Any

from autograd_tui import __version__
from autograd_tui.core.command import NEXT, Command, Phase
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import new_file, open_file, working_folder
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import FrameStore
from autograd_tui.core.history import History, Series
from autograd_tui.core.loss_surface import SurfaceChoice
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.run_config import RunConfig, sha256
from autograd_tui.core.run_observer import Watch
from autograd_tui.core.session_protocol import SCRIPTED, Capabilities, ReadOnlySession, SessionInfo
from autograd_tui.core.tensor_stats import Inspection
from autograd_tui.core.trace import Trace
from autograd_tui.core.watchpoint import FiredWatchpoint, Watcher, Watchpoint
from autograd_tui.core.wire import FrameDecoder
from autograd_tui.engine.script.agent_messages import (
    PAUSE_BYTES,
    PAUSE_NAME,
    SOCKET_NAME,
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
from autograd_tui.engine.script.script_process import ScriptProcess, TerminalLender

POLL_SECONDS = 0.005  # between two looks at whether what is waited for is still wanted
MAX_TRACES = 16  # that are kept
MAX_PATH_BYTES = 90  # of a folder for a unix socket: systems take about 100 for the socket's own
MAX_LOGGED_TOGETHER = 50  # calls of a free run that had frames, in one line of the journal
NO_CALL = "a script calls its phases itself"


class NeverTrained(Refused):
    """A script has ended before it has trained: there is nothing to show of it."""

    def __init__(self, sentence: str, exit_code: int | None) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code  # the script's own, as a shell has it


class ScriptSession(ReadOnlySession):
    """Starts the script, and stands where that is held first; every request after that lets it go on, or asks it.

    Raises NeverTrained where the script ends before that.
    """

    def __init__(
        self,
        words: tuple[str, ...],
        *,
        on_output: Callable[[bytes], None],
        switches: tuple[str, ...] = (),
        terminal: TerminalLender | None = None,
    ) -> None:
        """`words`: the command line of the script, as ScriptProcess takes it; `switches`: the options before it.

        `terminal` is lent to the script while that reads from its own.
        """
        self._words, self._switches = words, switches
        self._stopped: Callable[[], bool] = bool  # whether what runs is to end
        self._folder = _private_folder()
        self._pause_byte = _new_pause_byte(self._folder / PAUSE_NAME)
        self._listening = _listen(self._folder)
        self._connection: Connection | None = None
        self._hello: Hello | None = None  # of the process that attached
        self._decoder = FrameDecoder()
        self._watcher = Watcher()  # which watchpoints are armed; the script's own one checks them
        self._untaken: FiredWatchpoint | None = None
        self._ended: str | None = None  # a sentence, once the script has
        self._frames: FrameStore | None = None
        self._log = CommandLog()
        self._traces: dict[int, Trace] = {}  # the newest ones, by frame
        self._since_written = 0  # frames of a free run that the observer was told of
        self._held: Stop | None = None  # where the script waits for an order
        self.history = History()
        self.newest = 0
        self._last_index = 0  # of the script's events, once it has ended
        self.exit_code: int | None = None  # once it is closed: the script's own, where it has ended by itself
        self.process = ScriptProcess(words, folder=self._folder, on_output=on_output)
        self._terminal = terminal
        if terminal is not None:
            terminal.attach(self.process)
        try:
            self._wait_until_held()
            if self._frames is None:
                raise NeverTrained(f"{self._title} {self._ended}.", self.process.exit_code)
        except BaseException:
            self.close(in_order=False)
            raise

    # What a screen draws.

    @property
    def frame(self) -> Frame:
        """The frame where the script is held, or the newest that has come from it."""
        return self._latest

    @property
    def can(self) -> Capabilities:  # type: ignore[override]
        """What may be asked: once the script has ended, nothing that would let it go on."""
        if self._ended is None:
            return SCRIPTED
        return Capabilities(export=True, script=True, refusal=f"{self._title} {self._ended}.")

    @property
    def watchpoints(self) -> tuple[Watchpoint, ...]:  # type: ignore[override]
        """The armed watchpoints."""
        return self._watcher.armed

    @property
    def notice(self) -> str | None:
        """A sentence once the script has ended, or goes on without seams."""
        return f"{self._title} {self._ended}" if self._ended else None

    def stored(self, index: int) -> Frame | None:
        """Return a frame that has come and is still stored."""
        return self._latest if index == self._latest.index else self._store.get(index)

    def stored_frames(self) -> list[Frame]:
        """Return the frames that have come and are still stored, oldest first."""
        return self._store.frames()

    def nearest(self, index: int, by: int) -> int:
        """Return the index of the stored frame nearest to `index`, at or after it (`by` 1) or at or before it (-1)."""
        return self._store.nearest(index, by)

    def look(self, index: int) -> Frame:
        """Return frame `index`, or the nearest before it that is stored."""
        frame = self.stored(index) or self._store.get(self.nearest(index, -1))
        assert frame is not None
        return frame

    def look_alike(self, index: int, by: int) -> Frame | None:
        """Return the nearest frame after the same call in another iteration, before (`by` -1) or after (1)."""
        here, current = self.look(index), index
        while (further := self.nearest(current + by, by)) != current and (further - current) * by > 0:
            current = further
            frame = self.look(current)
            if _name(frame) == _name(here) and frame.iteration != here.iteration:
                return frame
        return None

    def refresh(self) -> bool:
        """Take in what comes from a script that no order was given to: its end, or that it reads from its terminal."""
        if self._connection is None or not self._connection.poll(0):
            return False
        before = self._ended
        self._receive(bool)
        return self._ended != before

    def log(self) -> CommandLog:
        """Return the calls that the script has made, as far as their frames have come."""
        return self._log.copy()

    # What may be asked.

    def next_command(self) -> Command:
        """Return what stands for the script's next call, whatever that is."""
        return Command(NEXT)

    def repeats(self, command: Command) -> bool:
        """Return False: the script runs on."""
        return False

    def run(self, command: Command) -> Frame:
        """Let the script go on to its next stop, or to the next after a phase; set a learning rate or a value."""
        if command.recorded:
            return self._record(command)
        if command.name == NEXT:
            return self._go_on()
        if command.phase is not None:
            if command.forced:
                raise Refused(
                    f"{NO_CALL}, and none can be forced: {command.phase.letter} goes on to its next {command.name}."
                )
            return self._go_on_to(command.phase)
        if command.goes_back:
            return self._go_back(command)
        return self._set(command)

    def run_until(self, goal: Goal) -> Iterator[Frame]:
        """Let the script go on stop by stop until `goal`, a watchpoint, or its end, yielding each frame."""
        while True:
            frame = self._go_on()
            yield frame
            if self._reaches(goal) or self._fires_here or self._stopped():
                return

    def run_free(self, goal: Goal, stopped: Callable[[], bool], *, every: float) -> Iterator[Frame]:
        """Let the script run at its own speed, yielding a frame about every so many seconds and the last one."""
        if self._reaches(goal):
            return
        self._send(GoOn(self._here, goal, every, self._watcher.armed))
        try:
            while self._held is None:
                newest = self._latest
                self._wait(stopped)
                if self._ended:
                    raise Refused(f"{self._title} {self._ended}.")
                if self._latest is not newest:
                    yield self._latest
        finally:
            if self._held is None and not self._ended:  # nobody wants more of it
                self._wait_until_held(lambda: True)

    def rewind(self, index: int) -> Frame:
        """Refuse: a script runs on, and its earlier frames can only be looked at."""
        raise Refused("this script cannot be taken back: arrows look at the frames that it had.")

    def arm(self, watchpoint: Watchpoint | str) -> None:
        """Have runs pause where a condition holds."""
        self._watcher.arm(watchpoint, self.frame)

    def disarm(self) -> None:
        """Disarm all watchpoints."""
        self._watcher.disarm()

    def take_fired(self) -> FiredWatchpoint | None:
        """Return, once, the watchpoint that has fired since the last call."""
        fired, self._untaken = self._untaken, None
        return fired

    def watch(self, watch: Watch, stopped: Callable[[], bool] = bool) -> None:
        """Take the callback that says whether what runs is to end at its next stop."""
        self._stopped = stopped

    def trace(self, index: int) -> Trace:
        """Return what happened inside the call that led to frame `index`.

        Where it was not recorded, and the script is held behind it, the script is taken back and makes it again.
        """
        if index not in self._traces and index == self._latest.index and index > 0:
            try:
                self.rewind(index - 1)
            except Refused as error:
                raise Refused(f"what led to frame {index} was not recorded, and {error}") from None
            self._record(self.next_command())
            self._untaken = None  # a watchpoint that fires there has done so before
        if index not in self._traces:
            raise Refused(f"what led to frame {index} was not recorded: i records what comes next.")
        return self._traces[index]

    def check_gradient(self, index: int, what: str | int, *, stopped: Callable[[], bool]) -> Any:
        """Refuse: a check runs the forward many times."""
        raise Refused("no gradient of a script can be checked: only the script itself can run its forward.")

    def choose_surface(self, choice: SurfaceChoice) -> None:
        """Refuse: a surface is made of many forwards."""
        raise Refused("no surface of a script can be measured: only the script itself can run its forward.")

    def inspect(self, name: str) -> Inspection:
        """Return exact statistics of a parameter where the script is held."""
        inspection: Inspection = self._ask("inspect", name)
        return inspection

    def close(self, *, in_order: bool) -> None:
        """End the script, which may be in the middle of its run, and the observer."""
        self.exit_code = self.process.exit_code
        self.process.close()
        if self._connection is not None:
            self._connection.close()
        self._listening.close()
        self._remove_folder()
        if self.observer is not None:
            self.observer.close(in_order=in_order)

    # Going on.

    @property
    def _title(self) -> str:
        words = self._words[1:] if self._words[0] in ("-m", "--") else self._words
        return os.path.basename(self._hello.file if self._hello else words[0])

    @property
    def _store(self) -> FrameStore:
        assert self._frames is not None
        return self._frames

    @property
    def _here(self) -> int:
        """The index of the stop where the script is held; raises Refused where it is not."""
        if self._ended:
            raise Refused(f"{self._title} {self._ended}.")
        if self._held is None:
            raise Refused(f"{self._title} runs, and has not come to its next stop.")
        return self._latest.index

    @property
    def _fires_here(self) -> bool:
        return self._untaken is not None

    def _reaches(self, goal: Goal) -> bool:
        """Return whether a run ends at the present stop."""
        frame, held = self._latest, self._held
        if frame.phase is Phase.FORWARD and goal.has_loss(frame.loss):
            return True
        end = goal.iteration
        over = held is not None and held.ends_iteration
        return end is not None and (frame.iteration > end or (frame.iteration == end and over))

    def end_of(self, iterations: int) -> Goal:
        """Return the goal so many iterations from here, counting the one that has begun."""
        frame, held = self._latest, self._held
        over = frame.iteration == 0 or (held is not None and held.ends_iteration)
        return Goal(frame.iteration + iterations - (not over))

    def _record(self, command: Command) -> Frame:
        """Let the script go on to its next phase, recorded, or to the next of one kind; others are passed over."""
        if command.phase is None and command.name != NEXT:
            raise Refused(f"{command} runs nothing that could be recorded.")
        while True:
            frame = self._go_on(record=True)
            assert self._held is not None
            trace = self._held.trace
            if self._held.unrecorded is not None:
                raise Refused(self._held.unrecorded)
            if trace is not None and command.phase in (None, frame.phase):
                return replace(frame, trace=trace)
            if self._fires_here or self._stopped():
                raise Refused("the script is held here before the phase that was to be recorded.")

    def _go_on(self, *, record: bool = False) -> Frame:
        """Let the script go on to its next stop."""
        self._send(GoOn(self._here, watchpoints=self._watcher.armed, record=record))
        self._wait_until_held()
        if self._ended:
            raise Refused(f"{self._title} {self._ended}.")
        return self._latest

    def _go_on_to(self, phase: Phase) -> Frame:
        """Let the script go on to the next stop after a phase."""
        while True:
            frame = self._go_on()
            if frame.phase is phase or self._fires_here or self._stopped():
                return frame

    def _go_back(self, command: Command) -> Frame:
        raise Refused("this script cannot be taken back: arrows look at the frames that it had.")

    def _set(self, command: Command) -> Frame:
        if command.name in ("optimizer", "seed") or command.kind == "requires_grad":
            raise Refused(f"{command} cannot be set here: it is the script that makes its own.")
        self._ask("set", command)
        return self._latest

    def _ask(self, what: Any, *arguments: Any) -> Any:
        """Ask the held script, and return its answer; raises Refused where it refuses."""
        self._send(Ask(self._here, what, arguments))
        while True:
            message = self._receive(lambda: False)
            if isinstance(message, Answer):
                break
            if self._ended:
                raise Refused(f"{self._title} {self._ended}.")
        if message.refused is not None:
            raise Refused(message.refused)
        return message.value

    def _send(self, message: Any) -> None:
        assert self._connection is not None
        if isinstance(message, GoOn):
            self._pause(False)
            self._held = None
        with suppress(OSError):  # its end is seen when its answer is waited for
            self._connection.send(message)

    # What comes from the script.

    def _wait_until_held(self, stopped: Callable[[], bool] | None = None) -> None:
        """Take in what comes, until the script is held or has ended."""
        while self._held is None and not self._ended:
            self._wait(stopped or self._stopped)

    def _wait(self, stopped: Callable[[], bool]) -> None:
        """Take in one message, or nothing for a moment; where it is `stopped`, the script is held at its next stop."""
        self._receive(stopped)

    def _receive(self, stopped: Callable[[], bool]) -> Any:
        """Take in the next message and return it, None where none has come for a moment."""
        if stopped():
            self._pause(True)
        sources: list[Any] = [self._listening, *([self._connection] if self._connection else [])]
        ready = wait(sources, POLL_SECONDS)
        if self._listening in ready:
            self._attach()
        if self._connection in ready:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                self._lose_connection()
                return None
            self._take(message)
            return message
        if not ready and self.process.exit_code is not None:
            self._end()
        return None

    def _attach(self) -> None:
        """Take the first process that attaches; others go on by themselves."""
        attached, _ = self._listening.accept()
        connection = Connection(attached.detach())
        if self._connection is not None:
            with suppress(OSError):
                connection.send(Detach())
            connection.close()
            return
        self._connection = connection

    def _lose_connection(self) -> None:
        assert self._connection is not None
        self._connection.close()
        self._connection = None
        deadline = monotonic() + 1
        while self.process.exit_code is None and monotonic() < deadline:
            self.process.wait(0.05)
        self._end()

    def _end(self) -> None:
        code = self.process.exit_code
        if self._frames is None:
            self._ended = "has ended without a backward" + (f" (exit code {code})" if code else "")
        elif code is None and not self._last_index:
            self._ended = "goes on without seams"
        else:
            self._ended = f"has ended after {self._last_index or self.newest:,} events" + (
                f" (exit code {code})" if code else ""
            )

    def _take(self, message: Any) -> None:
        match message:
            case Hello():
                self._hello = message
            case Stop():
                self._take_stop(message)
            case SeamsOff(reason):
                self.warning = reason
                self._ended = f"goes on without seams: {reason}"
            case WantsTerminal() if self._terminal is not None:
                self._terminal.lend()
            case TerminalBack() if self._terminal is not None:
                self._terminal.take_back()
            case Ended():
                self._last_index = message.index
                self._add_losses(message.losses, before=message.index + 1)
                self._log_unseen(message.index)
            case _:
                pass

    def _add_losses(self, losses: Series, *, before: int) -> None:
        """Plot the losses of forwards that no frame has brought."""
        last = self.history.loss.indices[-1] if self.history.loss else -1
        for point in losses.points():
            if last < point.index < before:
                self.history.loss.append(point.index, point.iteration, point.value)

    def _take_stop(self, stop: Stop) -> None:
        frame = self._decoder.frame(stop.line)
        self._add_losses(stop.losses, before=frame.index)
        if self._frames is None:
            self._open(frame)
        else:
            self._append(frame, held=stop.held)
        self._latest, self.newest = frame, frame.index
        self._held = stop if stop.held else None
        self._traces = {index: trace for index, trace in self._traces.items() if index < frame.index}
        if stop.trace is not None:
            self._traces[frame.index] = stop.trace
            while len(self._traces) > MAX_TRACES:
                del self._traces[next(iter(self._traces))]
        if stop.fired is not None:
            self.fired = self._untaken = stop.fired

    def _open(self, frame: Frame) -> None:
        """Take the script's first frame."""
        hello = self._hello
        assert hello is not None
        self._frames = FrameStore(frame)
        config = RunConfig(
            hello.file,
            versions={"autograd-tui": __version__, **hello.versions},
            sha256=sha256(hello.file),
            folder=working_folder(),
            script=(*self._switches, *self._words),
        )
        self.about = SessionInfo(
            self._title,
            "cpu",
            0,
            config,
            listing={"setup": (), **{phase.value: () for phase in Phase}},
        )
        self.history.append(frame)

    def _append(self, frame: Frame, *, held: bool) -> None:
        if frame.params.layout.names != self._latest.params.layout.names:
            history = self.history
            self.history = History(history.loss, history.grad_norm, history.learning_rate, history.metrics)
        self._store.append(frame)
        self.history.append(frame)
        self._log_frame(frame, held=held)

    def _pause(self, wanted: bool) -> None:
        self._pause_byte[:] = b"\1" if wanted else b"\0"

    def _remove_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    # What is logged, and told to the observer.

    def _log_frame(self, frame: Frame, *, held: bool) -> None:
        """Log the command that led to a frame, and the calls before it that no frame has brought."""
        start, unseen = self._latest.index, frame.index - self._latest.index - 1
        command = frame.command or Command(NEXT)
        self._log.append_block((Command(NEXT),), unseen)
        self._log.append(command, frame.error)
        if self.observer is None or unseen < 0:
            return
        if held and not unseen:
            self.observer.on_command(str(command), frame)
            return
        self.observer.on_free_run([((Command(NEXT),), unseen), ((command,), 1)], start, frame)
        self._since_written += 1
        if held or self._since_written == MAX_LOGGED_TOGETHER:
            self._since_written = 0
            self.observer.on_free_run_end()

    def _log_unseen(self, last: int) -> None:
        """Log the calls behind the last frame, up to the script's last one."""
        unseen, start = last - len(self._log), len(self._log)
        if unseen <= 0:
            return
        self._log.append_block((Command(NEXT),), unseen)
        if self.observer is not None:
            end = replace(self._latest, index=last, loss=self.history.last_loss)
            self.observer.on_free_run([((Command(NEXT),), unseen)], start, end)
            self.observer.on_free_run_end()


def _name(frame: Frame) -> str | None:
    return frame.command.name if frame.command else None


def _private_folder() -> Path:
    """Make a folder for the socket that no other user can enter, with a path that a socket's may have."""
    folder = tempfile.mkdtemp(prefix="autograd-tui-")
    if len(os.fsencode(folder)) > MAX_PATH_BYTES:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="autograd-tui-", dir="/tmp")
    return Path(folder)


def _new_pause_byte(path: Path) -> mmap.mmap:
    """Make the file of the byte that the script looks at, and share it."""
    made = new_file(path, 0o600)
    os.write(made, b"\0" * PAUSE_BYTES)
    os.close(made)
    descriptor = open_file(path, os.O_RDWR)
    try:
        return mmap.mmap(descriptor, PAUSE_BYTES)
    finally:
        os.close(descriptor)


def _listen(folder: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / SOCKET_NAME))
    listening.listen()
    return listening
