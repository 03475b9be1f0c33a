"""A journal read back: a tree of what ran, and where training stood last."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograd_tui.engine.values.command_log import CommandLog
from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.files import read_file
from autograd_tui.engine.values.opening import Opening
from autograd_tui.engine.values.recording import Recording, Step, Stretch
from autograd_tui.journal.entry import Entry, read_header

ROOT = Entry(0, 0, "@0", "")
LEFT = b'{"left":'


@dataclass(frozen=True, slots=True)
class Journal:
    """What a file holds."""

    path: Path
    opening: Opening
    started: float  # seconds since the epoch
    entries: Sequence[Entry]
    frames: Sequence[int]  # the frame that each entry led to
    size: int  # bytes of the lines that could be read
    cut: int  # bytes behind them, of a line that was never finished
    left: Mapping[str, Any] | None  # in order: when, and the loss; None where the run was cut off

    @property
    def tip(self) -> Entry:
        """Give the entry after which training stood last."""
        return self.entries[-1] if self.entries else ROOT

    @property
    def present(self) -> Entry:
        """Give the entry that the branch ends with on which training stood last, perhaps at an earlier frame."""
        return next((entry for entry in reversed(self.entries) if not entry.command.startswith("@")), ROOT)

    @property
    def frame(self) -> int:
        """Give the index of the frame where training stood last."""
        return self.frames[-1] if self.frames else 0

    @property
    def loss(self) -> float | None:
        """Give the loss at the frame where training stood last; None where there is none yet."""
        if self.left is not None and self.left.get("loss") is not None:
            return float(self.left["loss"])
        entry = self.tip
        while entry.loss is None and entry.parent and entry.start is None:
            entry = self.entries[entry.parent - 1]
        return None if entry.loss is None else float(entry.loss)

    def start(self, entry: Entry) -> int:
        """Give the frame that an entry goes on from."""
        return entry.start if entry.start is not None else self.frames[entry.parent - 1] if entry.parent else 0

    def path_to(self, entry: Entry) -> list[tuple[Entry, int]]:
        """Give the entries that lead to the end of one, each with the frame up to which it is on the way."""
        found, end = [], self.frames[entry.id - 1] if entry.id else 0
        while entry.id:
            if not entry.goes_back:
                found.append((entry, end))
            end = self.start(entry)
            entry = self.entries[entry.parent - 1] if entry.parent else ROOT
        return found[::-1]

    def recording(self, end: Entry | None = None) -> Recording:
        """Give the run that leads to the end of an entry, or to where training stood last."""
        return Recording(self.opening, list(self._stretches(end or self.tip)))

    def _stretches(self, last: Entry) -> Iterator[Stretch]:
        log = CommandLog()
        for entry, end in self.path_to(last):
            commands, wanted = entry.commands(), end - self.start(entry)
            if entry.raised is not None:
                yield from _as_stretches(log)
                log = CommandLog()
                yield Stretch((Step(commands[0], entry.raised),))
                continue
            for pattern, times in commands.blocks():
                whole = min(times, wanted // len(pattern))
                log.append_all(pattern, whole)
                wanted -= whole * len(pattern)
                if whole < times:
                    log.append_all(pattern[:wanted], 1)
                    break
        yield from _as_stretches(log)


def _as_stretches(log: CommandLog) -> Iterator[Stretch]:
    return (Stretch(tuple(map(Step, pattern)), times) for pattern, times in log.stretches(0, len(log)))


def read_journal(path: Path) -> Journal:
    """Read a journal; raises Refused where the file is none, or is damaged before its last line."""
    try:
        data = read_file(path)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}.") from None
    whole, _, cut = data.rpartition(b"\n")
    first, *lines = whole.split(b"\n")
    opening, started = read_header(first.decode("utf-8", "replace"), path=str(path))
    entries: list[Entry] = []
    frames: list[int] = []
    for number, line in enumerate(lines, start=2):
        if line.startswith(LEFT):
            continue
        try:
            entry = Entry.read(line.decode())
            if entry.id != len(entries) + 1 or not 0 <= entry.parent < entry.id:
                raise ValueError("out of order")
        except (ValueError, TypeError) as error:
            raise Refused(f"{path} is damaged: its line {number} cannot be read ({error}).") from None
        entries.append(entry)
        frames.append(_led_to(entry, frames))
    left = json.loads(lines[-1]) if lines and lines[-1].startswith(LEFT) else None
    return Journal(path, opening, started, entries, frames, len(data) - len(cut), len(cut), left)


def _led_to(entry: Entry, frames: Sequence[int]) -> int:
    """Give the frame that an entry led to, from those of the entries before it."""
    start = entry.start if entry.start is not None else frames[entry.parent - 1] if entry.parent else 0
    return start + len(entry.commands())
