"""Leads the script's process by the agent in it: orders go out, and what comes is taken in. Needs no torch."""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic
from typing import Any

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import is_locked, new_file, open_file, try_lock
from autograd_tui.core.run_observer import Progress
from autograd_tui.core.watchpoint import FiredWatchpoint
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
    NoSnapshot,
    Return,
    SeamsOff,
    Stop,
    TerminalBack,
    WantsTerminal,
)
from autograd_tui.engine.script.script_process import ScriptProcess, TerminalLender
from autograd_tui.engine.script.script_timeline import Run, ScriptTimeline, SnapshotTable, WaitingSnapshot

POLL_SECONDS = 0.005  # between two looks at whether what is waited for is still wanted
ATTACH_SECONDS = 10.0  # that a process has to attach in, which a busy machine may take
END_SECONDS = 2.0  # that a script has to end in by itself, which has come to its end
FOLDER_PREFIX, FOLDER_FILES = "autograd-tui-", {SOCKET_NAME, PAUSE_NAME}
MAX_PATH_BYTES = 90  # of a folder for a unix socket: systems take about 100 for the socket's own


class AgentClient:
    """The session's end of the socket. What comes of frames, losses and calls goes to the timeline."""

    def __init__(
        self,
        words: tuple[str, ...],
        process: ScriptProcess,
        folder: SocketFolder,
        timeline: ScriptTimeline,
        *,
        memory: int,
        terminal: TerminalLender | None,
    ) -> None:
        """`words`: the script's command line; memory: bytes for snapshots; `terminal`: that may be lent to it."""
        self.run = Run()  # the process that runs or is held now
        self.snapshots = SnapshotTable(memory)
        self.no_snapshot: str | None = None  # why there is none of late: a clause
        self.seams_off: str | None = None  # why the script goes on without seams: a clause
        self.fired: FiredWatchpoint | None = None  # where a watchpoint fired last
        self.stopped: Callable[[], bool] = bool  # whether what runs is to end
        self._words, self._process, self._folder, self._timeline = words, process, folder, timeline
        self._terminal = terminal
        self._untaken: FiredWatchpoint | None = None
        self._returning: int | None = None  # the snapshot that the script is to go on from
        self._first_connection: Connection | None = None  # of the process that was started: closed, it would run on

    # What is known of the process.

    @property
    def title(self) -> str:
        """The script's name."""
        words = self._words[1:] if self._words[0] in ("-m", "--") else self._words
        return os.path.basename(self.run.hello.file if self.run.hello else words[0])

    @property
    def end_sentence(self) -> str:
        """What is said once the script has ended, behind a free run also which frame is the last one shown."""
        run, newest = self.run, self._timeline.branch.newest
        is_partly_shown = run.last_index > newest or run.has_vanished or self.seams_off is not None
        if run.latest is None or not is_partly_shown:
            return f"{self.title} {run.ended}."
        can_go = run.last_index and self.snapshots.all
        goes_on = f", and :@{run.last_index} goes on to its last event" if can_go else ""
        return f"{self.title} {run.ended}; frame {newest:,} is the last one drawn{goes_on}."

    @property
    def unshown_sentence(self) -> str:
        """What is said of a script that has ended before its first frame has come."""
        reason = f", and could not be stepped: {self.seams_off}" if self.seams_off is not None else ""
        return f"{self.title} {self.run.ended}{reason}."

    @property
    def here(self) -> int:
        """The index of the stop where the script is held; raises Refused where it is not."""
        if self.run.ended:
            raise Refused(self.end_sentence)
        self.check_held()
        return self.run.frame.index

    @property
    def fires_here(self) -> bool:
        """Whether a watchpoint has fired that `take_fired` has not returned yet."""
        return self._untaken is not None

    def take_fired(self) -> FiredWatchpoint | None:
        """Return, once, the watchpoint that has fired since the last call."""
        fired, self._untaken = self._untaken, None
        return fired

    def check_held(self) -> None:
        """Raise Refused where the script neither is held nor has ended."""
        if self.run.held is None and not self.run.ended:
            raise Refused(f"{self.title} runs, and has not come to its next stop.")

    # Orders.

    def let_go_on(self, order: GoOn) -> None:
        """Let the script go on from the stop that the order names."""
        self._folder.pause(False)
        if self.run.was_taken_back and not order.muted:
            self.run.was_taken_back = False
            self._process.announce(f"[taken back to frame {order.stop:,}, it goes on from there]")
        self.run.held, self.run.is_free = None, order.goal is not None
        self._send(order)

    def ask(
        self,
        what: Any,
        *arguments: Any,
        tell: Callable[[Progress], object] = bool,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Any:
        """Ask the held script, and return its answer; raises Refused where it refuses.

        `tell` takes how far the answer has come, `stopped` says whether it is wanted no more.
        """
        order = Ask(self.here, what, arguments)
        self._folder.pause(False)
        self._send(order)
        while True:
            message = self.receive(stopped)
            if isinstance(message, Progress):
                tell(message)
            if isinstance(message, Answer):
                break
            if self.run.ended:
                raise Refused(self.end_sentence)
        if message.refused is not None:
            raise Refused(message.refused)
        return message.value

    def run_on_from(self, snapshot: WaitingSnapshot, order: Return) -> bool:
        """Make what a snapshot is forked into the present process; return whether it has come to a stop."""
        try:
            snapshot.connection.send(order)
        except OSError:
            return False
        before = self.run
        self.run = Run(hello=before.hello, latest=before.latest, last_index=before.last_index, was_taken_back=True)
        self._returning = snapshot.pid
        self._folder.pause(False)
        self._timeline.expect_again()
        deadline = monotonic() + ATTACH_SECONDS
        while self.run.connection is None and monotonic() < deadline:
            self.receive(bool)
        self._returning = None
        while self.run.held is None and not self.run.ended and self.run.connection is not None:
            self.receive(self.stopped)
        return self.run.held is not None

    def close(self) -> None:
        """End the script, which may be in the middle of its run."""
        if not self._process.ends_with_screen:
            self._folder.pause(True)  # it goes on, but learns first that the screen is gone
        self._process.close()
        self.snapshots.close()
        if self.run.connection is not None:
            self.run.connection.close()
        self._folder.close()

    def let_end(self) -> None:
        """Let the script end by itself, where it has come to its end and waits there."""
        connection = self.run.connection
        if self.run.ended and connection is not None and self.run.waits_at_end:
            with suppress(OSError, EOFError):
                connection.send(Detach())
                while connection.poll(END_SECONDS):
                    connection.recv()
            self.snapshots.close()  # what has started the script may wait until nobody holds its pipes any more
            if self.run.is_first:
                self._process.wait(END_SECONDS)

    def _send(self, message: Any) -> None:
        assert self.run.connection is not None
        with suppress(OSError):  # its end is seen when its answer is waited for
            self.run.connection.send(message)

    # What comes.

    def wait_until_held(self, stopped: Callable[[], bool] | None = None) -> None:
        """Take in what comes, until the script is held or has ended."""
        while self.run.held is None and not self.run.ended:
            self.receive(stopped or self.stopped)

    def take_in(self) -> bool:
        """Take in what has come by itself; return whether the script has ended by that."""
        connection, before = self.run.connection, self.run.ended
        if connection is None and before and self.run.is_first and self._process.exit_code is not None:
            self._end()  # it had left the socket, and went on for a while
        elif connection is not None and connection.poll(0):
            self.receive(bool)
        return self.run.ended != before

    def receive(self, stopped: Callable[[], bool]) -> Any:
        """Take in the next message and return it, None where none has come for a moment.

        Where it is `stopped`, the script is held at its next stop.
        """
        if stopped():
            self._folder.pause(True)
        connection, listening = self.run.connection, self._folder.listening
        ready = wait([listening, *([connection] if connection else [])], POLL_SECONDS)
        if listening in ready:
            self._attach()
        if self.run.connection is not None and self.run.connection in ready:
            try:
                message = self.run.connection.recv()
            except (EOFError, OSError):
                self._lose_connection()
                return None
            self._take(message)
            return message
        if not ready and self._process.exit_code is not None:
            self._end()
        return None

    def _attach(self) -> None:
        """Take the first process that attaches, and what is forked from it; others go on by themselves."""
        connection, run = self._folder.accept(), self.run
        if run.hello is not None:
            hello = _hello_of(connection)
            if hello is not None and hello.snapshot is not None and hello.parent == run.hello.pid:
                self.snapshots.add(hello, connection, self._timeline.branch.settings)
                return
            parent = hello.parent if hello is not None and hello.snapshot is None else None
            if parent is not None and parent == self._returning:
                run.connection, run.hello = connection, hello
                return
        if run.connection is not None or run.hello is not None:
            with suppress(OSError):
                connection.send(Detach())
            connection.close()
            return
        run.connection = self._first_connection = connection

    def _lose_connection(self) -> None:
        assert self.run.connection is not None
        self.run.connection.close()
        self.run.connection = None
        deadline = monotonic() + 1
        while self._process.exit_code is None and monotonic() < deadline:
            self._process.wait(0.05)
        self._end()

    def _end(self) -> None:
        run, code = self.run, self._process.exit_code
        if code is None and not run.is_first:
            code = 0  # of a process that nobody waits for
        if run.latest is None:
            unshown = "" if self.seams_off is not None else " before a backward was seen"
            run.ended = f"has ended{unshown}" + (f" (exit code {code})" if code else "")
        elif code is None and not run.last_index:
            run.ended, run.is_free = "goes on as under plain Python", True  # and nothing of it is seen
        elif run.has_vanished or self.seams_off is not None:
            run.ended = "has ended" + (f" (exit code {code})" if code else "")
        else:
            run.ended = f"has ended after {self._events()}" + (f" (exit code {code})" if code else "")

    def _events(self) -> str:
        """Say how many events the script has had: what the user has set is none, nor is the exception that ends it."""
        run, branch = self.run, self._timeline.branch
        raised = run.latest is not None and run.latest.error is not None
        events = (run.last_index or branch.newest) - len(branch.settings) - raised
        return f"{events:,} event{'' if events == 1 else 's'}"

    def _take(self, message: Any) -> None:
        run = self.run
        match message:
            case Hello():
                run.hello = message
            case Stop():
                self._take_stop(message)
            case SeamsOff(reason):
                self.seams_off = reason
                if run.latest is not None:  # else there is nothing to show until the script has ended by itself
                    run.ended = f"goes on as under plain Python: {reason}"
            case WantsTerminal() if self._terminal is not None:
                self._terminal.lend()
            case TerminalBack() if self._terminal is not None:
                self._terminal.take_back()
            case Ended():
                run.last_index = message.index
                if run.latest is not None:
                    self._timeline.take_end(message.losses, message.index, run.latest)
                if message.held:
                    run.ended = f"has ended after {self._events()}" + " by an exception" * message.raised
                    run.waits_at_end = True
            case NoSnapshot(reason):
                self.no_snapshot = reason
            case _:
                pass

    def _take_stop(self, stop: Stop) -> None:
        run = self.run
        frame = run.decoder.frame(stop.line)
        self._timeline.take(frame, stop, run.latest)
        run.latest, run.held = frame, stop if stop.held else None
        if stop.fired is not None:
            self.fired = self._untaken = stop.fired


def _hello_of(connection: Connection) -> Hello | None:
    """Return what a process says that attaches, None where it does not say it at once."""
    with suppress(EOFError, OSError):
        if connection.poll(ATTACH_SECONDS):
            message = connection.recv()
            return message if isinstance(message, Hello) else None
    return None


class SocketFolder:
    """The screen's side of the folder, which is removed when it is closed."""

    def __init__(self, path: Path | None = None) -> None:
        """`path`: of a folder that there is, by default a new one that no other user can enter."""
        self.path = path or _private_folder()
        self._pause_byte = _new_pause_byte(self.path / PAUSE_NAME)
        self.listening = _listen(self.path)

    def pause(self, wanted: bool) -> None:
        """Have the script held at its next event, or no longer."""
        self._pause_byte[:] = b"\1" if wanted else b"\0"

    def accept(self) -> Connection:
        """Return the connection of a process that attaches."""
        attached, _ = self.listening.accept()
        return Connection(attached.detach())

    def close(self) -> None:
        """Listen no more, and remove the folder."""
        self.listening.close()
        shutil.rmtree(self.path, ignore_errors=True)


def _private_folder() -> Path:
    """Make a folder for the socket that no other user can enter, with a path that a socket's may have."""
    folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX)
    if len(os.fsencode(folder)) > MAX_PATH_BYTES:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/tmp")
    _remove_left_folders(Path(folder).parent)
    return Path(folder)


def _remove_left_folders(place: Path) -> None:
    """Remove the folders of this user's screens that were killed: each has claimed its pause byte while it lived."""
    for folder in place.glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError):
            is_ours = folder.stat().st_uid == os.getuid() and {each.name for each in folder.iterdir()} == FOLDER_FILES
            if is_ours and not is_locked(folder / PAUSE_NAME):
                shutil.rmtree(folder, ignore_errors=True)


def _new_pause_byte(path: Path) -> mmap.mmap:
    """Make the file of the byte that the script looks at, claim it, and share it."""
    made = new_file(path, 0o600)
    os.write(made, b"\0" * PAUSE_BYTES)
    os.close(made)
    descriptor = open_file(path, os.O_RDWR)
    try:
        try_lock(descriptor)  # the map keeps the file open, and so the claim
        return mmap.mmap(descriptor, PAUSE_BYTES)
    finally:
        os.close(descriptor)


def _listen(folder: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / SOCKET_NAME))
    listening.listen()
    return listening
