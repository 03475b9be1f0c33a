"""Follows a run of another terminal from the frames which that one has drawn. Needs no torch, and runs no user code."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from autograd_tui.core.capabilities import FOLLOWED_SCRIPT, READ_ONLY, Capabilities
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import open_file
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import FrameStore
from autograd_tui.core.history import History, Series
from autograd_tui.core.session_protocol import SessionInfo, StoredFramesSession
from autograd_tui.core.tensor_stats import Inspection
from autograd_tui.core.wire import FrameDecoder, parse_json, validated
from autograd_tui.journal.frame_stream import CLOSING_LINE, MAX_BYTES, decode_series, frames_path, parse_stream_header
from autograd_tui.journal.journal_file import first_line_hash

CHUNK_BYTES = 1 << 20  # bytes that are read at once
MAX_LINE_BYTES = MAX_BYTES  # of one frame
MAX_FILE_BYTES = MAX_BYTES + 2 * MAX_LINE_BYTES  # the leader begins it anew after the frame that exceeds MAX_BYTES


@dataclass(frozen=True, slots=True)
class FrameAnnouncement:
    """The line that a leader writes before each frame. Its names are those in the file."""

    newest: int  # frame that there is
    kept: int  # frames after this one are others than those written before
    losses: Series  # of those after it

    @classmethod
    def read(cls, line: bytes) -> FrameAnnouncement:
        """Parse the line; raises ValueError where it is not one."""
        written = parse_json(line)
        try:
            losses = decode_series(written["losses"])
            announcement = validated(cls, {"newest": written["newest"], "kept": written["kept"], "losses": losses})
        except (KeyError, TypeError) as error:
            raise ValueError(f"no news: {error}") from None
        if not announcement.kept <= announcement.newest or any(
            not announcement.kept < each <= announcement.newest for each in losses.indices
        ):
            raise ValueError("news of frames that there are not")
        return announcement


class FollowedSession(StoredFramesSession):
    """A view of a session that another process runs: `refresh` takes in the frames that it has drawn since.

    Where the file is damaged it stays at the frame before, until the leader begins the file anew.
    Raises Refused where there is nothing to follow.
    """

    def __init__(self, journal: Path, *, new_store: Callable[[Frame], FrameStore] = FrameStore) -> None:
        """`new_store`: makes the store of the frames that are read, with its first one."""
        self._new_store = new_store
        self._journal, self._path = journal, frames_path(journal)
        self.left = False  # by the leader, in order
        self.damage: str | None = None  # what is wrong with the file
        self.newest = 0
        self._latest: Frame
        try:
            self._open()
        except FileNotFoundError as error:
            if not journal.exists():
                raise Refused(f"{journal} cannot be followed: {error.strerror}.") from None
            why = f"no screen shows this run, for which there would be {self._path.name}"
            raise Refused(f"{journal} cannot be followed: {why}.") from None
        except OSError as error:
            raise Refused(f"{journal} cannot be followed: {self._path.name}: {error.strerror}.") from None
        self.refresh()
        if self._frames is None:
            nothing = f"{journal} has drawn nothing yet."
            raise Refused(f"{self._path} is no run that can be followed: {self.damage}." if self.damage else nothing)

    @property
    def can(self) -> Capabilities:  # type: ignore[override]
        """Nothing, of a script as of a scenario."""
        return FOLLOWED_SCRIPT if self.about.config.script else READ_ONLY

    @property
    def frame(self) -> Frame:
        """The frame that the leader drew last."""
        assert self._frames is not None
        return self._latest

    @property
    def notice(self) -> str:
        """What this terminal is for, and whether the other one is still there."""
        if self.damage:
            return f"the file of frames is damaged: {self.damage}; shown is what came before"
        if self.left and self.about.config.script:
            return f"the terminal that led this script has left it: {self.about.command_line} runs it anew"
        if self.left:
            return "the terminal that led this run has left it: autograd-tui resume goes on"
        return "following another terminal: arrows look back here, escape rejoins"

    def refresh(self) -> bool:
        """Take in what has been drawn since; return whether there was anything."""
        anything = self._read_new_lines()
        if not self._reopen_if_replaced():
            return anything
        self._read_new_lines()
        return True

    def inspect(self, name: str) -> Inspection:
        """Refuse: the tensors are elsewhere."""
        raise Refused("exact numbers are measured where the run is led.")

    def _open(self) -> None:
        """Open the file at its first line. Raises OSError."""
        self._file, self._rest, self._number = os.fdopen(open_file(self._path), "rb", buffering=0), b"", 0
        weakref.finalize(self, self._file.close)
        self._decoder, self.damage = FrameDecoder(), None
        self._header: tuple[SessionInfo, History] | None = None  # what the first line says, until there is a frame
        self._announcement: FrameAnnouncement | None = None  # of the frame that comes next
        self._plotted = 0  # the plots know all up to this frame

    def _reopen_if_replaced(self) -> bool:
        """Go over to the file that has taken this one's place, where one has."""
        try:
            now, here = os.stat(self._path), os.fstat(self._file.fileno())
            if (now.st_ino, now.st_dev) == (here.st_ino, here.st_dev):
                return False
            before = self._file
            self._open()
        except OSError:
            return False
        before.close()
        return True

    def _read_new_lines(self) -> bool:
        """Take in the lines that have come, up to one that is damaged; return whether there were any."""
        before = self._number, self.damage
        try:
            for line in self._lines() if self.damage is None else ():
                self._number += 1
                self._read_line(line)
        except ValueError as error:
            self._rest, self.damage = b"", f"its line {self._number} cannot be read ({error})"
        except OSError as error:
            self._rest, self.damage = b"", f"it cannot be read ({error.strerror})"
        return (self._number, self.damage) != before

    def _lines(self) -> Iterator[bytes]:
        """Yield the whole lines that have come; raises ValueError where there are more than any leader writes."""
        while data := self._file.read(CHUNK_BYTES):
            *whole, self._rest = (self._rest + data).split(b"\n")
            yield from whole
            if len(self._rest) > MAX_LINE_BYTES or self._file.tell() > MAX_FILE_BYTES:
                self._number += 1
                raise ValueError("too long")
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._number += 1
            raise ValueError("cut off")

    def _read_line(self, line: bytes) -> None:
        if self._number == 1:
            self._header = parse_stream_header(line, run=self._run_id())
        elif line.startswith(b'{"newest"'):
            self._announcement = FrameAnnouncement.read(line)
        elif line.startswith(b'{"frame"'):
            self._add_frame(self._decoder.frame(line))
        elif line == CLOSING_LINE:
            self.left = True
        else:
            raise ValueError("not written by a leader")

    def _run_id(self) -> str:
        """Return the hash by which the journal's run is known among others of its name."""
        try:
            return first_line_hash(self._journal)
        except OSError as error:
            raise ValueError(f"{self._journal} cannot be read: {error.strerror}") from None

    def _add_frame(self, frame: Frame) -> None:
        """Hold a frame as the newest, where it is not one that the leader went back to."""
        announcement, self._announcement = self._announcement, None
        if announcement is None or frame.index > announcement.newest:
            raise ValueError("a frame that nothing announces")
        is_other = self._frames is not None and frame.params.layout.names != self._latest.params.layout.names
        if is_other and (self._header is None or frame.script is None):
            raise ValueError("a frame of another model")
        if self._header is None and not self._is_in_order(frame, announcement):
            raise ValueError("a frame of an iteration that is over")
        if self._header is not None and not self._header[1].is_of(len(frame.params)):
            raise ValueError("a history of another model")
        if is_other:
            self._frames = None  # a script has come to one more model: its frames begin anew
        self._latest, self.newest, self.left = frame, announcement.newest, False
        if self._header is not None:
            self._set_header(*self._header)
            self._header, self._plotted = None, announcement.newest
        else:
            self.history.truncate_after(announcement.kept)
            self._plotted = min(self._plotted, announcement.kept)
        if self._frames is None:
            self._frames = self._new_store(frame)
        elif announcement.kept < self._store.oldest.index:
            self._store.truncate_to(frame)
        else:
            self._store.truncate_to(self.look(announcement.kept))
            if frame.index > self._store.newest.index:
                self._store.append(frame)
        if frame.index > self._plotted:
            self._plot(frame, announcement.losses, after=self._plotted)
            self._plotted = frame.index

    def _is_in_order(self, frame: Frame, announcement: FrameAnnouncement) -> bool:
        """Return whether no iteration goes back on the way to a frame, from what the plots keep."""
        plotted = (
            self.history.loss,
            self.history.grad_norm,
            self.history.learning_rate,
            *self.history.metrics.values(),
        )
        before = max((point.iteration for series in plotted if (point := series.at(announcement.kept))), default=0)
        iterations = [point.iteration for point in announcement.losses.points() if point.index < frame.index]
        return frame.index <= announcement.kept or all(
            one <= other for one, other in pairwise([before, *iterations, frame.iteration])
        )

    def _set_header(self, about: SessionInfo, history: History) -> None:
        """Take what a first line says of the run, and of how it went before the file's first frame."""
        self.history = history
        if self._frames is None or about != self.about:
            self.about = about

    def _plot(self, frame: Frame, losses: Series, *, after: int) -> None:
        """Take into the plots a frame, and the losses of those before it that were not drawn."""
        self.history.loss.append_between(losses, after, frame.index)
        self.history.append(frame)
