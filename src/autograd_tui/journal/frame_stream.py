"""The frames that a screen has drawn, in a file beside the journal, for terminals that follow the run."""

from __future__ import annotations

import errno
import json
import os
from array import array
from base64 import b64encode
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from time import monotonic
from typing import Any

from autograd_tui.core.files import new_part
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History, Series
from autograd_tui.core.run_config import RunConfig
from autograd_tui.core.session_view import SessionInfo
from autograd_tui.core.validation import made, strict, unpacked
from autograd_tui.core.wire import FrameEncoder
from autograd_tui.journal.digest import first_line_hash

FORMAT = 2


def first_line(about: SessionInfo, history: History, *, run: str) -> str:
    """Write what the run is, and how it went so far; `run` tells it from others of the same name."""
    first = {"autograd-tui frames": FORMAT, "run": run, "about": asdict(about), "history": columns(history)}
    return json.dumps(first) + "\n"


def read_first_line(line: bytes, *, run: str) -> tuple[SessionInfo, History]:
    """Read it back; raises ValueError where it is none, or of another run."""
    try:
        first = strict(line)
        if first["autograd-tui frames"] != FORMAT:
            raise ValueError(f"it is of another format than {FORMAT}, which this version reads")
        if first.get("run", run) != run:  # older versions did not say
            raise ValueError("the frames are those of another run, which had its name")
        about = first["about"]
        listing, tied = (
            {name: tuple(texts) for name, texts in about.pop(what).items()} for what in ("listing", "tied")
        )
        opening = made(RunConfig, about.pop("opening"))
        tuples = {name: tuple(value) for name, value in about.items() if isinstance(value, list)}
        rest = {"opening": opening, "listing": listing, "tied": tied}
        return made(SessionInfo, {**about, **tuples, **rest}), read_columns(first["history"])
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no first line: {error}") from None


def columns(history: History) -> dict[str, Any]:
    """Write all columns."""
    series = {name: getattr(history, name) for name in ("loss", "grad_norm", "learning_rate")}
    metrics = {name: written(column) for name, column in history.metrics.items()}
    return {name: written(column) for name, column in series.items()} | {"metrics": metrics}


def read_columns(plain: Any) -> History:
    """Read them back; raises ValueError where they are none."""
    try:
        metrics = {name: read_series(column) for name, column in plain["metrics"].items()}
        loss, grad_norm, learning_rate = (read_series(plain[name]) for name in ("loss", "grad_norm", "learning_rate"))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no history: {error}") from None
    return History(loss, grad_norm, learning_rate, metrics)


def written(series: Series) -> list[Any]:
    """Write a column."""
    return [
        series.capacity,
        series.stretch,
        *(_packed(each) for each in (series.indices, series.iterations, series.values)),
    ]


def read_series(column: Any) -> Series:
    """Read a column back; raises ValueError where it is none."""
    if not isinstance(column, list) or len(column) != len(fields(Series)):
        raise ValueError("no column")
    capacity, stretch, *columns = column
    indices, iterations, values = map(unpacked, "qqd", columns)
    names = (each.name for each in fields(Series))
    return made(Series, dict(zip(names, (capacity, stretch, indices, iterations, values), strict=True)))


def _packed(column: array[Any]) -> str:
    return b64encode(column.tobytes()).decode()


ENDING = ".frames"
SECONDS = 0.1  # between two of them
LEFT = b'{"left": true}'  # the line that a leader leaves with
MOST_BYTES = 16 << 20  # of the file, which then begins anew


def frames_path(journal: Path) -> Path:
    """Give the file that lies beside a journal."""
    return journal.with_name(journal.name + ENDING)


class FrameStream:
    """Appends frames, the newest always; whatever goes wrong here is no concern of who trains."""

    def __init__(self, journal: Path, about: SessionInfo, *, mode: int, most_bytes: int = MOST_BYTES) -> None:
        self._journal, self._path = journal, frames_path(journal)
        self._about, self._mode, self._most_bytes = about, mode, most_bytes
        self._descriptor: int | None = None
        self._bytes = 0
        self._frames = FrameEncoder()
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
        self._frames, self._bytes = FrameEncoder(), 0
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
