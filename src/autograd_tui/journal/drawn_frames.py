"""What the screen has drawn, in a file beside the journal: for other terminals that follow the run."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from time import monotonic

from autograd_tui.engine.values.about import About
from autograd_tui.engine.values.files import new_part
from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.history import History
from autograd_tui.journal.digest import first_line_hash
from autograd_tui.journal.drawn_header import first_line, written
from autograd_tui.journal.frame_codec import FrameWriter

ENDING = ".frames"
SECONDS = 0.1  # between two of them
LEFT = b'{"left": true}'  # the line that a leader leaves with
MOST_BYTES = 16 << 20  # of the file, which then begins anew


def frames_path(journal: Path) -> Path:
    """Give the file that lies beside a journal."""
    return journal.with_name(journal.name + ENDING)


class DrawnFrames:
    """Appends frames, the newest always; whatever goes wrong here is no concern of who trains."""

    def __init__(self, journal: Path, about: About, *, mode: int, most_bytes: int = MOST_BYTES) -> None:
        self._journal, self._path = journal, frames_path(journal)
        self._about, self._mode, self._most_bytes = about, mode, most_bytes
        self._descriptor: int | None = None
        self._bytes = 0
        self._frames = FrameWriter()
        self._waiting: tuple[Frame, int, History] | None = None  # the newest one drawn, and the newest there is
        self._kept = 0  # frames after this one are others than those written before
        self._written = 0.0  # when
        self.problem: str | None = None  # why the last frame is not written

    def ran_from(self, index: int) -> None:
        """Take note that something ran from frame `index`: those after it are new."""
        self._kept = min(self._kept, index)

    def drew(self, frame: Frame, newest: int, history: History) -> None:
        """Take down a frame; where the last one is just written it waits for `write_newest`, or for a newer one."""
        self._waiting = (frame, newest, history)
        if monotonic() - self._written >= SECONDS:
            self.write_newest()

    def write_newest(self) -> None:
        """Write the frame that waits."""
        if self._waiting is None:
            return
        (frame, newest, history), self._waiting = self._waiting, None
        try:
            kept = min(self._kept, newest)
            news = json.dumps({"newest": newest, "kept": kept, "losses": written(history.loss.after(kept))})
            if self._descriptor is None or self._bytes > self._most_bytes:
                self._begin(history, news, frame)
            else:
                self._append(f"{news}\n{self._frames.line(frame)}")
            self.problem = None
        except OSError as error:  # a follower then stands still
            self.problem = error.strerror or str(error)
            self._end()
        self._kept, self._written = newest, monotonic()

    def close(self) -> None:
        """Write what waits, and that nothing follows."""
        self.write_newest()
        if self._descriptor is None:
            return
        with suppress(OSError):
            self._append(f"{LEFT.decode()}\n")
        self._end()

    def _end(self) -> None:
        """Write no more into the file that is open; the next one begins anew."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)

    def _begin(self, history: History, news: str, frame: Frame) -> None:
        """Begin the file anew with a frame, in one step for who reads it."""
        self._end()
        part, self._descriptor = new_part(self._path, self._mode)
        self._frames, self._bytes = FrameWriter(), 0
        try:
            first = first_line(self._about, history, run=first_line_hash(self._journal))
            self._append(f"{first}{news}\n{self._frames.line(frame)}")
            os.replace(part, self._path)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def _append(self, lines: str) -> None:
        assert self._descriptor is not None
        data = lines.encode()
        if os.write(self._descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._bytes += len(data)
