"""A run that another terminal leads, as far as that one has drawn it; no torch, and nobody's code."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.files import open_file
from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.frame_store import FrameStore
from autograd_tui.engine.values.inspection import Inspection
from autograd_tui.engine.values.still_session import StillSession
from autograd_tui.journal.digest import first_line_hash
from autograd_tui.journal.drawn_frames import frames_path
from autograd_tui.journal.drawn_header import read_first_line, read_series
from autograd_tui.journal.frame_codec import FrameReader


class Following(StillSession):
    """Looks like a session that never runs anything itself: `read` takes in what the leader has drawn since.

    Raises Refused where there is nothing to follow.
    """

    def __init__(self, journal: Path) -> None:
        self._journal, self._path = journal, frames_path(journal)
        self._file = self._opened(journal)
        self._reader, self._rest = FrameReader(), b""
        self._began = False  # whether the plots are those of the file's first line, which know the next frame too
        self.left = False  # by the leader, in order
        self.newest = 0
        self._frames: FrameStore | None = None
        self._news: dict[str, Any] = {}
        self.read()
        if self._frames is None:
            raise Refused(f"{journal} has drawn nothing yet.")

    @property
    def frame(self) -> Frame:
        """The frame that the leader drew last."""
        assert self._frames is not None
        return self._latest

    def read(self) -> bool:
        """Take in what has been drawn since; tell whether there was anything."""
        anything = False
        for _ in range(2):
            for line in self._lines():
                anything = True
                self._take(line)
            if not self._began_anew():
                return anything
        return anything

    def stored(self, index: int) -> Frame | None:
        """Give a frame that was drawn and is still held."""
        return self.frame if index == self.frame.index else self._held.get(index)

    def nearest(self, index: int, by: int) -> int:
        """Give the held frame nearest to `index`, at or after it (`by` 1) or at or before it (-1)."""
        return self._held.nearest(index, by)

    def look(self, index: int) -> Frame:
        """Give frame `index`, or the nearest before it that was drawn here."""
        found = self.stored(index) or self._held.get(self.nearest(index, -1))
        assert found is not None
        return found

    def look_alike(self, index: int, by: int) -> Frame | None:
        """Give the nearest frame of the same phase in another iteration, before (`by` -1) or after (1)."""
        here, place = self.look(index), index
        while (further := self.nearest(place + by, by)) != place and (further - place) * by > 0:
            place = further
            found = self.look(place)
            if found.phase is here.phase and found.iteration != here.iteration:
                return found
        return None

    def inspect(self, name: str) -> Inspection:
        """Refuse: the tensors are elsewhere."""
        raise Refused("exact numbers are measured where the run is led.")

    @property
    def _held(self) -> FrameStore:
        assert self._frames is not None
        return self._frames

    def _begin(self, line: bytes) -> None:
        """Take in a first line: what the run is, and how it went before the first frame of the file."""
        self._reader, self._began = FrameReader(), True
        try:
            run = first_line_hash(self._journal)
        except OSError as error:
            raise Refused(f"{self._journal} cannot be read: {error.strerror}.") from None
        self.about, self.history = read_first_line(line, run=run)

    def _take(self, line: bytes) -> None:
        if line.startswith(b'{"newest"'):
            self._news = json.loads(line)
        elif line.startswith(b'{"frame"'):
            self._take_frame(self._reader.frame(line.decode()))
        elif line.startswith(b'{"left"'):
            self.left = True
        elif line:
            self._begin(line)

    def _take_frame(self, frame: Frame) -> None:
        """Hold a frame as the newest, where it is not one that the leader went back to."""
        self._latest, self.newest, self.left = frame, self._news["newest"], False
        kept, up_to_date = self._news["kept"], self._began
        self._began = False
        if not up_to_date:
            self.history.forget_after(kept)
        if self._frames is None:
            self._frames = FrameStore(frame)
        elif kept < self._held.oldest.index:
            self._held.forget_after(frame)
        else:
            self._held.forget_after(self.look(kept))
            if frame.index <= self._held.newest.index:
                return
            self._held.append(frame)
        if not up_to_date:
            self._plot(frame)

    def _plot(self, frame: Frame) -> None:
        """Take into the plots a frame, and the losses of those before it that were not drawn."""
        losses = read_series(*self._news["losses"])
        for point in losses.points():
            if point.index < frame.index:
                self.history.loss.append(point.index, point.iteration, point.value)
        self.history.append(frame)

    def _lines(self) -> Iterator[bytes]:
        """Give the whole lines that have come."""
        data = self._rest + self._file.read()
        *whole, self._rest = data.split(b"\n")
        yield from whole

    def _began_anew(self) -> bool:
        """Go over to the file that has taken this one's place, where one has."""
        try:
            now = os.stat(self._path)
        except OSError:
            return False
        if now.st_ino == os.fstat(self._file.fileno()).st_ino:
            return False
        self._file.close()
        self._file, self._rest = os.fdopen(open_file(self._path), "rb", buffering=0), b""
        weakref.finalize(self, self._file.close)
        return True

    def _opened(self, journal: Path) -> BinaryIO:
        try:
            file = os.fdopen(open_file(self._path), "rb", buffering=0)
        except OSError as error:
            raise Refused(f"{journal} cannot be followed: {self._path.name}: {error.strerror}.") from None
        weakref.finalize(self, file.close)
        return file
