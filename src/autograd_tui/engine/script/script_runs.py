"""The processes that a script has been forked into, as the session sees them: snapshots, and runs that were left."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from autograd_tui.core.command import Command
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.files import read_file
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import FrameStore
from autograd_tui.core.history import History
from autograd_tui.core.run_config import DEFAULT_MEMORY
from autograd_tui.core.wire import FrameDecoder
from autograd_tui.engine.script.agent_messages import Hello, Snapshot, Stop

MAX_SNAPSHOTS = 32
MAX_LEFT = 8  # processes of branches that are kept
Settings = tuple[tuple[int, Command], ...]  # what the user has set, each with the frame that it led to


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
