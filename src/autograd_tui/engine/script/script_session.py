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
from autograd_tui.core.command import NEXT, SCRIPT_CALLS, Command, Phase
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import is_locked, new_file, open_file, try_lock, working_folder
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch, Branches, FrameStore
from autograd_tui.core.history import History, Series
from autograd_tui.core.loss_surface import SurfaceChoice
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.replay_check import Divergence, ReplayChecker
from autograd_tui.core.run_config import DEFAULT_MEMORY, RunConfig, sha256
from autograd_tui.core.run_observer import Watch
from autograd_tui.core.session_protocol import SCRIPTED, Capabilities, SessionInfo, StoredFramesSession
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
    NoSnapshot,
    Return,
    SeamsOff,
    Stop,
    TerminalBack,
    WantsTerminal,
)
from autograd_tui.engine.script.attached_script import AttachedScript
from autograd_tui.engine.script.script_process import ScriptProcess, TerminalLender
from autograd_tui.engine.script.script_runs import (
    MAX_LEFT,
    Left,
    Run,
    Settings,
    SnapshotTable,
    Waiting,
    frames_up_to,
    settings_before,
    settings_between,
)

POLL_SECONDS = 0.005  # between two looks at whether what is waited for is still wanted
MAX_TRACES = 16  # that are kept
ATTACH_SECONDS = 10.0  # that a process has to attach in, which a busy machine may take
END_SECONDS = 2.0  # that a script has to end in by itself, which has come to its end
FOLDER_PREFIX, FOLDER_FILES = "autograd-tui-", {SOCKET_NAME, PAUSE_NAME}
MAX_PATH_BYTES = 90  # of a folder for a unix socket: systems take about 100 for the socket's own
MAX_LOGGED_TOGETHER = 50  # calls of a free run that had frames, in one line of the journal
EVENTS_OF_FORWARD = 4  # from the stop before a model's call to the one behind its forward, at most
NO_CALL = "a script calls its phases itself"


class NeverTrained(Refused):
    """A script has ended before it has trained: there is nothing to show of it."""

    def __init__(self, sentence: str, exit_code: int | None) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code  # the script's own, as a shell has it


class ScriptSession(StoredFramesSession):
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
        memory: int = DEFAULT_MEMORY,
        attach: tuple[Path, int] | None = None,
    ) -> None:
        """`words`: the command line of the script, as ScriptProcess takes it; `switches`: the options before it.

        `terminal` is lent to the script while that reads from its own. memory: bytes for snapshots. `attach`: of a
        script that has started this process, the folder of the socket, and our end of the terminal that it has now.
        """
        self._words, self._switches = words, switches
        self._stopped: Callable[[], bool] = bool  # whether what runs is to end
        self._folder = attach[0] if attach else _private_folder()
        self._pause_byte = _new_pause_byte(self._folder / PAUSE_NAME)
        self._listening = _listen(self._folder)
        self._connection: Connection | None = None
        self._hello: Hello | None = None  # of the process that attached
        self._decoder = FrameDecoder()
        self._watcher = Watcher()  # which watchpoints are armed; the script's own one checks them
        self._untaken: FiredWatchpoint | None = None
        self._ended: str | None = None  # a sentence, once the script has
        self._first_connection: Connection | None = None  # of the process that was started: closed, it would run on
        self._is_waiting_at_end = False  # and the script's process waits behind its end
        self._divergence: Divergence | None = None
        self._log = CommandLog()
        self._traces: dict[int, Trace] = {}  # the newest ones, by frame
        self._since_written = 0  # frames of a free run that the observer was told of
        self._held: Stop | None = None  # where the script waits for an order
        self._memory = memory
        self._snapshots = SnapshotTable(memory)
        self._no_snapshot: str | None = None  # why there is none of late
        if attach:
            self._no_snapshot = "it has opened the screen itself"
        self._settings: Settings = ()  # of the present branch
        self._ahead: Run | None = None  # a process that stands further on than the present one, on the same branch
        self._left_behind = Branches()
        self._left: dict[int, Left] = {}  # by the branch's number
        self._returning: int | None = None  # the snapshot that the script is to go on from
        self._checker: ReplayChecker | None = None  # while the script comes to frames that it had before
        self.history = History()
        self.newest = 0
        self._last_index = 0  # of the script's events, once it has ended
        self.exit_code: int | None = None  # once it is closed: the script's own, where it has ended by itself
        self.process: ScriptProcess
        try:
            if attach:
                self.process = AttachedScript(words, terminal=attach[1], on_output=on_output)
            else:
                self.process = ScriptProcess(words, folder=self._folder, on_output=on_output)
        except BaseException:
            self._listening.close()
            self._remove_folder()
            raise
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
        if self._ended is None or self._snapshots.all:
            return SCRIPTED
        return Capabilities(export=True, script=True, refusal=self._end_sentence)

    @property
    def watchpoints(self) -> tuple[Watchpoint, ...]:  # type: ignore[override]
        """The armed watchpoints."""
        return self._watcher.armed

    @property
    def notice(self) -> str | None:
        """A sentence once the script has ended, or goes on without seams."""
        return self._end_sentence if self._ended else None

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
        self._leave_settings_ahead()
        self._send(GoOn(self._here, goal, every, self._watcher.armed))
        try:
            while self._held is None:
                newest = self._latest
                self._wait(stopped)
                if self._ended:
                    raise Refused(self._end_sentence)
                if self._latest is not newest:
                    yield self._latest
        finally:
            if self._held is None and not self._ended:  # nobody wants more of it
                self._wait_until_held(lambda: True)

    def rewind(self, index: int) -> Frame:
        """Take the script to frame `index`: a snapshot of it runs on to there, without printing again."""
        if index == self._latest.index and not self._ended:
            return self._latest
        if not 0 <= index <= self.newest:
            raise Refused(f"there is no frame {index} to go back to: the last one is frame {self.newest}.")
        if self._ahead is not None and index == self._ahead.latest.index and not self._ahead.ended:
            self._take_run(self._ahead)
            if self.observer is not None:
                self.observer.on_rewind(self._latest)
            return self._latest
        return self._return_to(index)

    def take_divergence(self) -> Divergence | None:
        """Return, once, where the script has come to other numbers than the first time."""
        checker, self._divergence = self._divergence, None
        return checker

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

        Where it was not recorded, the script is taken back, makes it again, and returns to where it was.
        """
        if index not in self._traces and 0 < index <= self._latest.index:
            self._record_again(index)
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
        self._let_end()
        self.exit_code = self.process.exit_code
        if not self.process.ends_with_screen:
            self._pause(True)  # it goes on, but learns first that the screen is gone
        self.process.close()
        self._snapshots.close()
        if self._connection is not None:
            self._connection.close()
        self._listening.close()
        self._remove_folder()
        if self.observer is not None:
            self.observer.close(in_order=in_order)

    # Going on.

    @property
    def _end_sentence(self) -> str:
        """What is said once the script has ended, behind a free run also which frame is the last one shown."""
        is_behind = self._frames is not None and self._last_index > self.newest
        return f"{self._title} {self._ended}" + f"; frame {self.newest:,} is the last one drawn" * is_behind + "."

    @property
    def _title(self) -> str:
        words = self._words[1:] if self._words[0] in ("-m", "--") else self._words
        return os.path.basename(self._hello.file if self._hello else words[0])

    @property
    def _here(self) -> int:
        """The index of the stop where the script is held; raises Refused where it is not."""
        if self._ended:
            raise Refused(self._end_sentence)
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

    def _record_again(self, index: int) -> None:
        """Take the script back to before frame `index`, let it go on recorded to there, and return to where it is."""
        here, frame = self._latest.index, self.stored(index)
        # A loop may clear gradients and set rates between the call of its model and the stop behind the forward.
        is_forward = frame is None or frame.phase is Phase.FORWARD
        try:
            self.rewind(max(index - EVENTS_OF_FORWARD, 0) if is_forward else index - 1)
        except Refused as error:
            raise Refused(f"what led to frame {index} was not recorded, and {error}") from None
        while self._latest.index < index:
            self._go_on(record=True)
        trace = self._traces.get(index)
        self._untaken = None  # a watchpoint that fires there has done so before
        if index < here:
            self.rewind(here)
        if trace is not None:
            self._traces[index] = trace

    def _go_on(self, *, record: bool = False) -> Frame:
        """Let the script go on to its next stop."""
        self._leave_settings_ahead()
        self._send(GoOn(self._here, watchpoints=self._watcher.armed, record=record))
        self._wait_until_held()
        if self._ended:
            raise Refused(self._end_sentence)
        return self._latest

    def _go_on_to(self, phase: Phase) -> Frame:
        """Let the script go on to the next stop after a phase."""
        while True:
            frame = self._go_on()
            if frame.phase is phase or self._fires_here or self._stopped():
                return frame

    # Going back.

    def _go_back(self, command: Command) -> Frame:
        value = command.value
        if command.name == "branch" and isinstance(value, int):
            return self._take_branch(self._left_behind.get(value))
        if command.name == "undo":
            if not self._latest.index:
                raise Refused("there is nothing to undo: this is frame 0.")
            return self.rewind(self._latest.index - 1)
        assert isinstance(value, int)
        return self.rewind(value)

    def _return_to(self, index: int) -> Frame:
        """Have a snapshot run on to frame `index`."""
        if self._held is None and not self._ended:
            raise Refused(f"{self._title} runs, and has not come to its next stop.")
        present = self._present_run()
        for snapshot in self._snapshots.before(index, self._settings):
            if self._returns(snapshot, index):
                self._keep_further_run(present)
                return self._latest
            self._snapshots.drop(snapshot)
            self._take_up(present)
        if self._no_snapshot:
            raise Refused(f"{self._title} cannot be taken back: {self._no_snapshot}.")
        raise Refused(f"{self._title} cannot be taken back to frame {index}: no copy of it is kept from before.")

    def _returns(self, snapshot: Waiting, index: int) -> bool:
        """Return whether a snapshot has run on to frame `index`, or to where it was stopped on the way."""
        settings = settings_between(self._settings, snapshot.of.index, index)
        try:
            snapshot.connection.send(Return(index, settings))
        except OSError:
            return False
        self._connection, self._decoder, self._held, self._ended = None, FrameDecoder(), None, None
        self._returning = snapshot.pid
        self._pause(False)
        self._checker = ReplayChecker(self._store.get, self.history)
        deadline = monotonic() + ATTACH_SECONDS
        while self._connection is None and monotonic() < deadline:
            self._receive(bool)
        self._returning = None
        self._wait_until_held_again()
        return self._held is not None

    def _wait_until_held_again(self) -> None:
        while self._held is None and not self._ended and self._connection is not None:
            self._wait(self._stopped)

    def _present_run(self) -> Run:
        assert self._hello is not None
        return Run(
            self._connection, self._decoder, self._hello, self._held, self._latest, self._ended, self._last_index
        )

    def _take_up(self, run: Run) -> None:
        """Make a process the present one, where it stands."""
        self._connection, self._decoder, self._hello, self._held = run.connection, run.decoder, run.hello, run.held
        self._latest, self._ended, self._last_index = run.latest, run.ended, run.last_index
        self._is_waiting_at_end = run.ended is not None

    def _take_run(self, run: Run) -> None:
        """Go to the process further on, and end the present one."""
        self._present_run().end()
        self._take_up(run)
        self._ahead = None

    def _keep_further_run(self, run: Run) -> None:
        """Keep the process that was left, where no other stands further on."""
        if self._ahead is None:
            self._ahead = run
        else:
            run.end()

    def _leave_settings_ahead(self) -> None:
        """Go another way than the first time, where something was set further on that is not set again."""
        here = self._latest.index
        if any(index > here for index, _ in self._settings):
            self._leave_branch(here)

    def _leave_branch(self, fork: int) -> None:
        """Keep what there is behind frame `fork` as a branch: another way begins there."""
        branch = self._left_behind.leave(self._log, self.history, fork=fork)
        if branch is not None:
            if self.observer is not None:
                self.observer.on_branch_left(branch.number, branch.loss)
            self._left[branch.number] = Left(
                self._ahead, self._log, self._store, self.history, self._settings, self.newest
            )
            self._show_branches()
        elif self._ahead is not None:
            self._ahead.end()
        self._ahead = None
        self._log, self.history = self._log.up_to(fork), self.history.copy()
        self.history.truncate_after(fork)
        self._frames = frames_up_to(self._store, fork) or FrameStore(self._latest)
        self._settings, self.newest = settings_before(self._settings, fork + 1), fork
        self._traces = {index: trace for index, trace in self._traces.items() if index <= fork}

    def _take_branch(self, branch: Branch) -> Frame:
        """Go to where a branch ended, which is the present one then; what is left becomes a branch."""
        if self._held is None and not self._ended:
            raise Refused(f"{self._title} runs, and has not come to its next stop.")
        left = self._left[branch.number]
        present = self._present_run()
        if self._ahead is not None:
            present.end()
        run = self._ahead or present
        fork = self._log.shared_with(left.log)
        made = self._left_behind.leave(self._log, self.history, fork=fork)
        if made is not None and self.observer is not None:
            self.observer.on_branch_left(made.number, made.loss)
        before = Left(run, self._log, self._store, self.history, self._settings, self.newest)
        self._ahead = None
        self._log, self._frames, self.history = left.log, left.frames, left.history
        self._settings, self.newest = left.settings, left.newest
        self._traces = {index: trace for index, trace in self._traces.items() if index <= fork}
        if left.run is not None and left.run.connection is not None and not left.run.ended:
            self._take_up(left.run)
        else:
            self._return_to(left.newest)
        if made is not None:
            self._left[made.number] = before
        self._left_behind.remove(branch)
        del self._left[branch.number]
        self._show_branches()
        if self.observer is not None:
            self.observer.on_branch_taken(branch.number, self._latest)
        return self._latest

    def _show_branches(self) -> None:
        """Show the branches that there are, and keep processes of the newest alone."""
        self.branches = self._left_behind.newest
        numbers = {each.number for each in self.branches}
        for number in [each for each in self._left if each not in numbers]:
            self._end_run(self._left.pop(number))
        for number in sorted(self._left)[:-MAX_LEFT]:
            self._end_run(self._left[number])

    @staticmethod
    def _end_run(left: Left) -> None:
        if left.run is not None:
            left.run.end()
            left.run = None

    def _check_again(self, frame: Frame, *, held: bool) -> None:
        """Compare a frame that has come a second time; where it differs, the script goes another way from there."""
        if self._checker is None:
            self._checker = ReplayChecker(self._store.get, self.history)
        script = frame.script and replace(frame.script, output_muted=False)
        self._checker.check(replace(frame, script=script))
        if self._checker.divergence is not None and not self._checker.divergence.what:
            self._checker = None  # the same numbers: one of the two followed a run without frames, and knew less
        if self._checker is not None and self._checker.divergence is not None:
            self._divergence = self._checker.divergence
            self._append(frame, held=held)
        elif frame.index > self.newest:
            self._store.append(frame)  # of a part that had no frames the first time; the history is there
        elif held and self.observer is not None:
            self.observer.on_rewind(frame)

    def _let_end(self) -> None:
        """Let the script end by itself, where it has come to its end and waits there."""
        connection = self._connection
        if self._ended and connection is not None and self._is_waiting_at_end:
            with suppress(OSError, EOFError):
                connection.send(Detach())
                while connection.poll(END_SECONDS):
                    connection.recv()
            if self._hello is not None and self._hello.parent is None:
                self.process.wait(END_SECONDS)

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
                raise Refused(self._end_sentence)
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
        """Take the first process that attaches, and what is forked from it; others go on by themselves."""
        attached, _ = self._listening.accept()
        connection = Connection(attached.detach())
        if self._hello is not None:
            hello = _hello_of(connection)
            if hello is not None and hello.snapshot is not None and hello.parent == self._hello.pid:
                self._snapshots.add(hello, connection, self._settings)
                return
            if hello is not None and hello.snapshot is None and hello.parent == self._returning:
                self._connection, self._hello = connection, hello
                return
        if self._connection is not None or self._hello is not None:
            with suppress(OSError):
                connection.send(Detach())
            connection.close()
            return
        self._connection = self._first_connection = connection

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
        if code is None and self._hello is not None and self._hello.parent is not None:
            code = 0  # of a process that nobody waits for
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
                self._ended = f"goes on without seams: {reason.removesuffix('.')}"
            case WantsTerminal() if self._terminal is not None:
                self._terminal.lend()
            case TerminalBack() if self._terminal is not None:
                self._terminal.take_back()
            case Ended():
                self._last_index = message.index
                self._add_losses(message.losses, before=message.index + 1)
                self._log_unseen(message.index)
                if message.held:
                    self._ended = f"has ended after {message.index:,} events" + " by an exception" * message.raised
                    self._is_waiting_at_end = True
            case NoSnapshot(reason):
                self._no_snapshot = reason
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
        elif frame.index <= len(self._log) and self._was_made_by(frame):
            self._check_again(frame, held=stop.held)
        else:
            self._append(frame, held=stop.held)
        self._latest, self.newest = frame, max(self.newest, frame.index)
        if self._ahead is not None and self._ahead.position < frame.index:
            self._ahead.end()
            self._ahead = None
        self._held = stop if stop.held else None
        self._traces = {index: trace for index, trace in self._traces.items() if index < frame.index}
        if stop.trace is not None:
            self._traces[frame.index] = stop.trace
            while len(self._traces) > MAX_TRACES:
                del self._traces[next(iter(self._traces))]
        if stop.fired is not None:
            self.fired = self._untaken = stop.fired

    def _was_made_by(self, frame: Frame) -> bool:
        """Return whether the frame of this index may be this one: the user has set the same there, or nothing."""
        return not _sets(frame) or self._log.leading_to(frame.index) == frame.command

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
        if frame.index <= len(self._log):
            self._leave_branch(frame.index - 1)
        self._checker = None
        if _sets(frame) and frame.command is not None:
            self._settings = (*self._settings, (frame.index, frame.command))
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
        start, unseen = len(self._log), frame.index - len(self._log) - 1
        command = frame.command or Command(NEXT)
        self._log.append_block((Command(NEXT),), unseen)
        self._log.append(command, frame.error)
        if self.observer is None or unseen < 0:
            return
        if frame.error is not None and unseen:  # which stands in a line of its own
            before = replace(self._latest, index=frame.index - 1)
            self.observer.on_free_run([((Command(NEXT),), unseen)], start, before)
            unseen = 0
        if (held or frame.error is not None) and not unseen:
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


def _sets(frame: Frame) -> bool:
    """Return whether the user has led to a frame, who set something."""
    return frame.command is not None and frame.command.phase is None and frame.command.name not in SCRIPT_CALLS


def _hello_of(connection: Connection) -> Hello | None:
    """Return what a process says that attaches, None where it does not say it at once."""
    with suppress(EOFError, OSError):
        if connection.poll(ATTACH_SECONDS):
            message = connection.recv()
            return message if isinstance(message, Hello) else None
    return None


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
