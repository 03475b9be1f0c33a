"""The frames that a screen has drawn, in a file beside the journal, for terminals that follow the run."""

from __future__ import annotations

import errno
import json
import os
from array import array
from base64 import b64encode
from contextlib import suppress
from dataclasses import asdict, fields
from itertools import chain
from pathlib import Path as FilePath
from time import monotonic
from typing import Any

from autograd_tui.core.files import new_part
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History, Path, Series, SizeTable
from autograd_tui.core.run_config import RunConfig
from autograd_tui.core.session_protocol import SessionInfo
from autograd_tui.core.wire import FrameEncoder, decode_array, parse_json, validated
from autograd_tui.journal.journal_file import first_line_hash

FORMAT = 2


def stream_header(about: SessionInfo, history: History, *, run: str) -> str:
    """Return the first line: session, history so far, and `run`, the hash of the journal's header."""
    # The file's name for the configuration is of an older version.
    info = {"opening" if name == "config" else name: value for name, value in asdict(about).items()}
    del info["picture"]  # who follows has no model to take one of
    first = {"autograd-tui frames": FORMAT, "run": run, "about": info, "history": encode_history(history)}
    return json.dumps(first) + "\n"


def parse_stream_header(line: bytes, *, run: str) -> tuple[SessionInfo, History]:
    """Parse the first line; raises ValueError where it is not one, or belongs to another run."""
    try:
        first = parse_json(line)
        if first["autograd-tui frames"] != FORMAT:
            raise ValueError(f"it is of another format than {FORMAT}, which this version reads")
        if first.get("run", run) != run:  # older versions did not say
            raise ValueError("the frames are those of another run, which had its name")
        about = first["about"]
        listing, tied = (
            {name: tuple(texts) for name, texts in about.pop(what).items()} for what in ("listing", "tied")
        )
        opening = about.pop("opening")
        config = validated(RunConfig, {**opening, "script": tuple(opening.get("script", ()))})
        tuples = {name: tuple(value) for name, value in about.items() if isinstance(value, list)}
        rest = {"config": config, "listing": listing, "tied": tied}
        return validated(SessionInfo, {**about, **tuples, **rest}), decode_history(first["history"])
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no first line: {error}") from None


SERIES = ("loss", "grad_norm", "learning_rate")
MAX_SIZES = 1 << 17  # of one table
SIZE_TABLES = ("grads", "params", "moves", "starts")  # of a history; files of older versions have none, and no path


def encode_history(history: History) -> dict[str, Any]:
    """Return all series of a history as JSON values, without sizes of more parameters than a line has room for."""
    metrics = {name: encode_series(column) for name, column in history.metrics.items()}
    series = {name: encode_series(getattr(history, name)) for name in SERIES}
    sizes: dict[str, SizeTable] = {name: getattr(history, name) for name in SIZE_TABLES}
    tables = {name: _encode_sizes(table) for name, table in sizes.items() if table.values <= MAX_SIZES}
    return {**series, "metrics": metrics, "path": _encode_path(history.path), **tables}


def decode_history(plain: Any) -> History:
    """Return the history that `encode_history` was given; raises ValueError where the values are not one."""
    try:
        metrics = {name: decode_series(column) for name, column in plain["metrics"].items()}
        parts: dict[str, Any] = {name: decode_series(plain[name]) for name in SERIES}
        parts |= {name: _decode_sizes(plain[name]) for name in SIZE_TABLES if name in plain}
        if "path" in plain:
            parts["path"] = _decode_path(plain["path"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no history: {error}") from None
    history = History(**parts, metrics=metrics)
    if list(history.moves.indices) != list(history.starts.indices):
        raise ValueError("no history: steps without what they moved from")
    return history


def _encode_path(path: Path) -> list[Any]:
    return [path.capacity, *(_encode_array(each) for each in (path.indices, path.iterations, path.xs, path.ys))]


def _decode_path(column: Any) -> Path:
    capacity, *columns = column
    values = (capacity, *(decode_array(*pair) for pair in zip("qqdd", columns, strict=True)))
    return validated(Path, dict(zip((each.name for each in fields(Path)), values, strict=True)))


def _encode_sizes(table: SizeTable) -> list[Any]:
    """Return a table as JSON values, all of its rows joined in one array."""
    joined = array("d", chain.from_iterable(table.rows))
    return [table.spacing, *(_encode_array(each) for each in (table.indices, table.iterations, joined))]


def _decode_sizes(column: Any) -> SizeTable:
    spacing, *columns = column
    indices, iterations, joined = (decode_array(*pair) for pair in zip("qqd", columns, strict=True))
    width = len(joined) // max(len(indices), 1)
    rows = tuple(joined[start : start + width] for start in range(0, len(joined), width)) if width else ()
    values = {"spacing": spacing, "indices": indices, "iterations": iterations, "rows": rows}
    return validated(SizeTable, values)


def encode_series(series: Series) -> list[Any]:
    """Return a series as JSON values: capacity, bucket, and each column in base64."""
    return [
        series.capacity,
        series.bucket,
        *(_encode_array(each) for each in (series.indices, series.iterations, series.values)),
    ]


def decode_series(column: Any) -> Series:
    """Return the series that `encode_series` was given; raises ValueError where the values are not one."""
    if not isinstance(column, list) or len(column) != len(fields(Series)):
        raise ValueError("no column")
    capacity, bucket, *columns = column
    indices, iterations, values = map(decode_array, "qqd", columns)
    names = (each.name for each in fields(Series))
    return validated(Series, dict(zip(names, (capacity, bucket, indices, iterations, values), strict=True)))


def _encode_array(column: array[Any]) -> str:
    return b64encode(column.tobytes()).decode()


SUFFIX = ".frames"
MIN_INTERVAL = 0.1  # seconds between two frames
CLOSING_LINE = b'{"left": true}'  # the line that a leader leaves with
MAX_BYTES = 16 << 20  # of the file, which then begins anew


def frames_path(journal: FilePath) -> FilePath:
    """Return the path of the frame stream of a journal."""
    return journal.with_name(journal.name + SUFFIX)


class FrameStream:
    """Appends frames to the file that followers read. Errors are kept in `problem`, and never raised."""

    def __init__(self, journal: FilePath, about: SessionInfo, *, mode: int, max_bytes: int = MAX_BYTES) -> None:
        self._journal, self._path = journal, frames_path(journal)
        self._about, self._mode, self._max_bytes = about, mode, max_bytes
        self._descriptor: int | None = None
        self._bytes = 0
        self._encoder = FrameEncoder()
        self._names: tuple[str, ...] = ()  # of the parameters of the frame before: a script may come to more of them
        self._pending: tuple[Frame, int, History] | None = None  # the newest one drawn, and the newest there is
        self._unchanged_to = 0  # frames after this one are others than those written before
        self._write_time = 0.0  # of the last frame, by the monotonic clock
        self.problem: str | None = None  # why the last frame is not written

    def ran_from(self, index: int) -> None:
        """Note that something ran from frame `index`: those after it are new."""
        self._unchanged_to = min(self._unchanged_to, index)

    def drew(self, frame: Frame, newest: int, history: History) -> None:
        """Write a frame; right after another one it waits for `write_newest`, or for a newer one."""
        self._pending = (frame, newest, history)
        if monotonic() - self._write_time >= MIN_INTERVAL:
            self.write_newest()

    def write_newest(self) -> None:
        """Write the frame that waits."""
        if self._pending is None:
            return
        (frame, newest, history), self._pending = self._pending, None
        try:
            unchanged_to = min(self._unchanged_to, newest)
            announcement = json.dumps(
                {"newest": newest, "kept": unchanged_to, "losses": encode_series(history.loss.after(unchanged_to))}
            )
            names = frame.params.layout.names
            if self._descriptor is None or self._bytes > self._max_bytes or names != self._names:
                self._names = names
                self._start_file(history, announcement, frame)
            else:
                self._append(f"{announcement}\n{self._encoder.line(frame)}")
            self.problem = None
        except OSError as error:  # a follower then sees nothing new
            self.problem = error.strerror or str(error)
            self._close_file()
        self._unchanged_to, self._write_time = newest, monotonic()

    def close(self) -> None:
        """Write what waits, and that nothing follows."""
        self.write_newest()
        if self._descriptor is None:
            return
        with suppress(OSError):
            self._append(f"{CLOSING_LINE.decode()}\n")
        self._close_file()

    def _close_file(self) -> None:
        """Write no more into the file that is open; the next one begins anew."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)

    def _start_file(self, history: History, announcement: str, frame: Frame) -> None:
        """Begin the file anew with a frame, in one step for who reads it."""
        self._close_file()
        part, self._descriptor = new_part(self._path, self._mode)
        self._encoder, self._bytes = FrameEncoder(), 0
        try:
            first = stream_header(self._about, history, run=first_line_hash(self._journal))
            self._append(f"{first}{announcement}\n{self._encoder.line(frame)}")
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
