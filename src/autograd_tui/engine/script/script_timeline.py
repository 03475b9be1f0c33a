"""What has come from a script on each branch, and the processes it was forked into: snapshots, and runs left."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection

from autograd_tui.core.command import NEXT, SCRIPT_CALLS, Command
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.files import read_file
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch, Branches, FrameStore
from autograd_tui.core.history import History, Series
from autograd_tui.core.replay_check import Divergence, ReplayChecker
from autograd_tui.core.run_config import DEFAULT_MEMORY
from autograd_tui.core.run_observer import RunObserver
from autograd_tui.core.trace import Trace
from autograd_tui.core.wire import FrameDecoder
from autograd_tui.engine.script.agent_messages import Hello, Snapshot, Stop

MAX_SNAPSHOTS = 32
MAX_LEFT = 8  # processes of branches that are kept
Settings = tuple[tuple[int, Command], ...]  # what the user has set, each with the frame that it led to
MAX_TRACES = 16  # that are kept
MAX_LOGGED_TOGETHER = 50  # calls of a free run that had frames, in one line of the journal


@dataclass(slots=True)
class Run:
    """A process of the script that can go on, and where it stands."""

    connection: Connection | None = None
    decoder: FrameDecoder = field(default_factory=FrameDecoder)
    hello: Hello | None = None  # None before a process has attached
    held: Stop | None = None  # where it waits for an order
    latest: Frame | None = None  # that has come from it; None before the first one
    ended: str | None = None  # a sentence, once it has
    waits_at_end: bool = False  # for an order to let it go
    last_index: int = 0  # of its events, once it has said that it ends
    was_taken_back: bool = False  # and has not gone on since, so that nothing was printed a second time
    is_free: bool = False  # whether it was let go on in a free run, where not every event comes as a frame

    @property
    def frame(self) -> Frame:
        """The latest frame, once there is one."""
        assert self.latest is not None
        return self.latest

    @property
    def position(self) -> int:
        """The index of the last event that it came to."""
        return max(self.frame.index, self.last_index if self.ended else 0)

    @property
    def has_vanished(self) -> bool:
        """Whether it is gone from a free run without a word, so that nobody knows how far it had come."""
        return self.is_free and self.held is None and self.connection is None and not self.last_index

    @property
    def is_first(self) -> bool:
        """Whether it is the process that was started."""
        return self.hello is None or self.hello.parent is None

    def end(self) -> None:
        """Let the process end, unless it is the one that was started: that one has the terminal."""
        if not self.is_first and self.connection is not None:
            self.connection.close()
            self.connection = None


@dataclass(slots=True)
class ScriptBranch:
    """What has come from the script on one branch, from its first event on."""

    frames: FrameStore | None = None  # None before the first frame
    log: CommandLog = field(default_factory=CommandLog)
    history: History = field(default_factory=History)
    settings: Settings = ()
    newest: int = 0  # index of the last frame

    def up_to(self, fork: int, latest: Frame) -> ScriptBranch:
        """Return a branch of its own that goes on from frame `fork`, or from the latest one where none is stored."""
        history = self.history.copy()
        history.truncate_after(fork)
        frames = frames_up_to(self.frames, fork) if self.frames is not None else None
        settings = settings_before(self.settings, fork + 1)
        return ScriptBranch(frames or FrameStore(latest), self.log.up_to(fork), history, settings, fork)


@dataclass(slots=True)
class LeftBranch:
    """A branch that was left, and the process that stands at its end."""

    run: Run | None  # None where its process is gone: a snapshot is run on to where it ended
    branch: ScriptBranch

    def end_run(self) -> None:
        """End the process."""
        if self.run is not None:
            self.run.end()
            self.run = None


@dataclass(slots=True)
class WaitingSnapshot:
    """A snapshot that waits."""

    pid: int
    of: Snapshot
    settings: Settings  # that it was made with
    connection: Connection
    bytes: int = 0

    @property
    def first(self) -> int:
        """The first frame that it can lead to."""
        return self.of.index if self.of.is_whole else self.of.index + max(self.of.length, 1)

    def end(self) -> None:
        """Have the process end: it reads that nobody wants it any more."""
        self.connection.close()


@dataclass(slots=True)
class SnapshotTable:
    """Snapshots in order of their events, within a budget: the first stays, and the newer ones lie closer."""

    budget: int = DEFAULT_MEMORY
    max_count: int = MAX_SNAPSHOTS
    all: list[WaitingSnapshot] = field(default_factory=list)

    def add(self, hello: Hello, connection: Connection, settings: Settings) -> None:
        """Take one that has attached, and end those that there is no room for."""
        assert hello.snapshot is not None
        made = WaitingSnapshot(
            hello.pid, hello.snapshot, settings_before(settings, hello.snapshot.index + 1), connection
        )
        if self.all:
            self._measure(self.all[-1])
        made.bytes = made.of.bytes
        position = bisect_left(self.all, made.of.index, key=lambda each: each.of.index)
        for other in self.all[position:]:
            if other.of.index == made.of.index and other.settings == made.settings and other.of.is_whole:
                made.end()
                return
        self.all.insert(position, made)
        while len(self.all) > 2 and (len(self.all) > self.max_count or self.bytes > self.budget):
            self.drop(self._least())

    @property
    def bytes(self) -> int:
        """The memory that all of them have for themselves, about."""
        return sum(each.bytes for each in self.all)

    def before(self, index: int, settings: Settings) -> Iterator[WaitingSnapshot]:
        """Yield those that lead to frame `index` of the branch with these settings, nearest first."""
        for each in reversed(self.all):
            if each.first <= index and each.settings == settings_before(settings, each.of.index + 1):
                yield each

    def drop(self, snapshot: WaitingSnapshot) -> None:
        """End one."""
        self.all = [each for each in self.all if each is not snapshot]
        snapshot.end()

    def close(self) -> None:
        """End all."""
        for each in self.all:
            each.end()
        self.all = []

    def _least(self) -> WaitingSnapshot:
        """Return the one whose end leaves the smallest gap, measured by how long ago that is."""
        at = [each.of.index for each in self.all]
        gaps = {k: (at[k + 1] - at[k - 1]) / (at[-1] - at[k] + 1) for k in range(1, len(at) - 1)}
        return self.all[min(gaps, key=lambda k: gaps[k])]

    @staticmethod
    def _measure(snapshot: WaitingSnapshot) -> None:
        """Take what the system says that a snapshot has for itself, where that is more."""
        with suppress(OSError, ValueError, KeyError):
            lines = read_file(f"/proc/{snapshot.pid}/smaps_rollup").splitlines()
            words = dict(line.split()[:2] for line in lines[1:])
            snapshot.bytes = max(snapshot.of.bytes, int(words[b"Private_Dirty:"]) << 10)


def settings_before(settings: Settings, index: int) -> Settings:
    """Return what was set before frame `index`."""
    return tuple(each for each in settings if each[0] < index)


def settings_between(settings: Settings, start: int, end: int) -> Settings:
    """Return what was set behind frame `start`, up to frame `end`."""
    return tuple(each for each in settings if start < each[0] <= end)


def frames_up_to(store: FrameStore, index: int) -> FrameStore | None:
    """Return a store of the frames up to `index` alone, None where there are none."""
    frames = [frame for frame in store.frames() if frame.index <= index]
    if not frames:
        return None
    copy = FrameStore(frames[0])
    for frame in frames[1:]:
        copy.append(frame)
    return copy


class ScriptTimeline:
    """Takes in each frame where it belongs, and tells the observer; it knows of processes only which branch has one."""

    def __init__(self) -> None:
        self.branch = ScriptBranch()  # the present one
        self.left: dict[int, LeftBranch] = {}  # by the branch's number
        self.branches: tuple[Branch, ...] = ()  # that can be taken again; replaced, never changed
        self.ahead: Run | None = None  # a process that stands further on than the present one, on the same branch
        self.traces: dict[int, Trace] = {}  # the newest ones, by frame
        self.observer: RunObserver | None = None
        self._left_behind = Branches()
        self._checker: ReplayChecker | None = None  # while the script comes to frames that it had before
        self._divergence: Divergence | None = None
        self._since_written = 0  # frames of a free run that the observer was told of

    @property
    def frames(self) -> FrameStore:
        """The frames of the present branch that are stored."""
        assert self.branch.frames is not None
        return self.branch.frames

    def take_divergence(self) -> Divergence | None:
        """Return, once, where the script has come to other numbers than the first time."""
        divergence, self._divergence = self._divergence, None
        return divergence

    # What comes.

    def take(self, frame: Frame, stop: Stop, before: Frame | None) -> None:
        """Take in a frame, and what came with it. `before`: the frame that came before it from the same process."""
        self.add_losses(stop.losses, before=frame.index)
        if before is None or self.branch.frames is None:
            self.branch.frames = FrameStore(frame)
            self.branch.history.append(frame)
        elif frame.index <= len(self.branch.log) and self._was_made_by(frame):
            self._check_again(frame, before, held=stop.held)
        else:
            self._append(frame, before, held=stop.held)
        self.branch.newest = max(self.branch.newest, frame.index)
        if self.ahead is not None and self.ahead.position < frame.index:
            self.ahead.end()
            self.ahead = None
        self.traces = {index: trace for index, trace in self.traces.items() if index < frame.index}
        if stop.trace is not None:
            self.traces[frame.index] = stop.trace
            while len(self.traces) > MAX_TRACES:
                del self.traces[next(iter(self.traces))]

    def take_end(self, losses: Series, last: int, latest: Frame) -> None:
        """Take in what came of the script behind its latest frame, up to its last event."""
        self.add_losses(losses, before=last + 1)
        self._log_unseen(last, latest)

    def add_losses(self, losses: Series, *, before: int) -> None:
        """Plot the losses of forwards that no frame has brought."""
        loss = self.branch.history.loss
        loss.append_between(losses, loss.indices[-1] if loss else -1, before)

    def _was_made_by(self, frame: Frame) -> bool:
        """Return whether the frame of this index may be this one: the user has set the same there, or nothing."""
        return not _sets(frame) or self.branch.log.leading_to(frame.index) == frame.command

    def _append(self, frame: Frame, before: Frame, *, held: bool) -> None:
        if frame.index <= len(self.branch.log):
            self.leave_branch(frame.index - 1, before)
        self._checker = None
        branch = self.branch
        if _sets(frame) and frame.command is not None:
            branch.settings = (*branch.settings, (frame.index, frame.command))
        if frame.params.layout.names != before.params.layout.names:
            history = branch.history
            branch.history = History(history.loss, history.grad_norm, history.learning_rate, history.metrics)
        self.frames.append(frame)
        branch.history.append(frame)
        self._log_frame(frame, before, held=held)

    # Frames that come a second time.

    def expect_again(self) -> None:
        """Compare the frames that come now with those of the first time."""
        self._checker = ReplayChecker(self.frames.get, self.branch.history)

    def _check_again(self, frame: Frame, before: Frame, *, held: bool) -> None:
        """Compare a frame that has come a second time; where it differs, the script goes another way from there."""
        stored = self.frames.get(frame.index)
        if stored is not None and stored.script is not None and stored.script.at_end:
            self.frames.truncate_after(frame.index - 1)  # it had what the script changed behind its last event
            self.frames.append(frame)
        if self._checker is None:
            self.expect_again()
        checker = self._checker
        assert checker is not None
        script = frame.script and replace(frame.script, output_muted=False)
        checker.check(replace(frame, script=script))
        divergence = checker.divergence
        if divergence is not None and not divergence.what:
            divergence = self._checker = None  # the same numbers: one of the two knew less, in a run without frames
        if divergence is not None:
            self._divergence = divergence
            self._append(frame, before, held=held)
        elif frame.index > self.branch.newest:
            self.frames.append(frame)  # of a part that had no frames the first time; the history is there
        elif held and self.observer is not None:
            self.observer.on_rewind(frame)

    # Branches.

    def leave_settings_ahead(self, here: Frame) -> None:
        """Go another way than the first time, where something was set further on that is not set again."""
        if any(index > here.index for index, _ in self.branch.settings):
            self.leave_branch(here.index, here)

    def leave_branch(self, fork: int, latest: Frame) -> None:
        """Keep what there is behind frame `fork` as a branch: another way begins there, or at the latest frame."""
        left = self._left_behind.leave(self.branch.log, self.branch.history, fork=fork)
        if left is not None:
            if self.observer is not None:
                self.observer.on_branch_left(left.number, left.loss)
            self.left[left.number] = LeftBranch(self.ahead, self.branch)
            self._show_branches()
        elif self.ahead is not None:
            self.ahead.end()
        self.ahead = None
        self.branch = self.branch.up_to(fork, latest)
        self.traces = {index: trace for index, trace in self.traces.items() if index <= fork}

    def take_branch(self, branch: Branch, run: Run | None) -> tuple[LeftBranch, Branch | None]:
        """Make a branch that was left the present one again. `run`: the process at the end of the one that is left now.

        Return what was kept of it, and how the one that is left is listed; None where it is a part of the other.
        """
        taken = self.left.pop(branch.number)
        self._left_behind.remove(branch)
        fork = self.branch.log.shared_with(taken.branch.log)
        made = self._left_behind.leave(self.branch.log, self.branch.history, fork=fork)
        if made is not None:
            self.left[made.number] = LeftBranch(run, self.branch)
        self.ahead = None
        self.branch = taken.branch
        self.traces = {index: trace for index, trace in self.traces.items() if index <= fork}
        self._show_branches()
        return taken, made

    def get_branch(self, number: int) -> Branch:
        """Return a branch by its number; raises Refused where there is none, or none any more."""
        return self._left_behind.get(number)

    def _show_branches(self) -> None:
        """Show the branches that there are, and keep processes of the newest alone."""
        self.branches = self._left_behind.newest
        numbers = {each.number for each in self.branches}
        for number in [each for each in self.left if each not in numbers]:
            self.left.pop(number).end_run()
        for number in sorted(self.left)[:-MAX_LEFT]:
            self.left[number].end_run()

    # What is logged, and told to the observer.

    def _log_frame(self, frame: Frame, before: Frame, *, held: bool) -> None:
        """Log the command that led to a frame, and the calls before it that no frame has brought."""
        log = self.branch.log
        start, unseen = len(log), frame.index - len(log) - 1
        command = frame.command or Command(NEXT)
        log.append_block((Command(NEXT),), unseen)
        log.append(command, frame.error)
        if self.observer is None or unseen < 0:
            return
        if frame.error is not None and unseen:  # which stands in a line of its own
            last = replace(before, index=frame.index - 1)
            self.observer.on_free_run([((Command(NEXT),), unseen)], start, last)
            unseen = 0
        if (held or frame.error is not None) and not unseen:
            self.observer.on_command(str(command), frame)
            return
        self.observer.on_free_run([((Command(NEXT),), unseen), ((command,), 1)], start, frame)
        self._since_written += 1
        if held or self._since_written == MAX_LOGGED_TOGETHER:
            self._since_written = 0
            self.observer.on_free_run_end()

    def _log_unseen(self, last: int, latest: Frame) -> None:
        """Log the calls behind the latest frame, up to the script's last one."""
        log = self.branch.log
        unseen, start = last - len(log), len(log)
        if unseen > 0:
            log.append_block((Command(NEXT),), unseen)
        if self.observer is not None:
            if unseen > 0:
                end = replace(latest, index=last, loss=self.branch.history.last_loss)
                self.observer.on_free_run([((Command(NEXT),), unseen)], start, end)
            self.observer.on_free_run_end()


def _sets(frame: Frame) -> bool:
    """Return whether the user has led to a frame, who set something."""
    return frame.command is not None and frame.command.phase is None and frame.command.name not in SCRIPT_CALLS
