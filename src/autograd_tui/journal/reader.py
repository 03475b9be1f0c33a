"""Reads a journal file: its entries, the tree that they form, and where training stood last."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from autograd_tui.core.command import MAX_COMMANDS
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import open_to_read
from autograd_tui.core.run_config import RunConfig
from autograd_tui.journal.entry import Entry, parse_closing_line, parse_header_line
from autograd_tui.journal.paths import is_own_journal


class EntryTree:
    """The lines of a journal as a tree: each has a parent line, and the frame that it starts from. Line 0 is frame 0.

    A line that runs something becomes the tip of the present branch; a branch left behind can be returned to. Finding
    the line of a frame takes logarithmic time: each line has a jump pointer to one far before it.
    """

    def __init__(self) -> None:
        self.tip, self.end = 0, 0  # the last line of the present branch, and the frame it led to
        self.left: dict[int, int] = {}  # by the last line of a branch that was left, the frame it led to
        self._parents, self._starts = array("q", [0]), array("q", [-1])
        self._jumps, self._depths = array("q", [0]), array("q", [0])

    @property
    def last(self) -> int:
        """The newest line."""
        return len(self._parents) - 1

    def start_of(self, line: int) -> int:
        """Return the frame that a line goes on from, or goes back to; -1 for line 0."""
        return self._starts[line]

    def line_of(self, frame: int) -> int:
        """Return the line of the present branch whose commands led to a frame, or past it."""
        line = self.tip if frame else 0
        while self._starts[line] >= frame > 0:
            jump = self._jumps[line]
            line = jump if self._starts[jump] >= frame else self._parents[line]
        return line

    def add_run(self, start: int, end: int) -> None:
        """Add a line that runs from frame `start` of the present branch to another frame."""
        parent = self.line_of(start)
        if start < self.end:
            self.left[self.tip] = self.end
        self._add(parent, start)
        self.tip, self.end = self.last, end

    def add_commands(self, count: int) -> None:
        """Add so many lines, each of which runs one command from the end of the present branch."""
        if count:
            self._add(self.tip, self.end, count)
            self.tip, self.end = self.last, self.end + count

    def add_rewind(self, frame: int) -> None:
        """Add a line that runs nothing: later frames stay until something runs from there."""
        self._add(self.line_of(frame), frame)

    def return_to_branch(self, tip: int) -> None:
        """Add a line that returns to the end of a branch that was left, which ends with line `tip`."""
        end = self.left.pop(tip)
        self.left[self.tip] = self.end
        self._add(tip, end)
        self.tip, self.end = tip, end

    def _add(self, parent: int, start: int, count: int = 1) -> None:
        """Add a line that starts from a frame, and so many after it, each a command further than the one before."""
        first, jumps, depths = len(self._parents), self._jumps, self._depths
        self._parents.append(parent)
        self._parents.extend(range(first, first + count - 1))
        self._starts.extend(range(start, start + count))
        depths.extend(range(depths[parent] + 1, depths[parent] + count + 1))
        for line in range(first, first + count):
            far = jumps[parent]
            further = jumps[far]
            skips = depths[parent] - depths[far] == depths[far] - depths[further]
            jumps.append(further if skips else parent)
            parent = line


# A line of one phase that has raised nothing, with its own loss or that of the line before. Most lines are such.
PLAIN_LINE = re.compile(
    rb"\[(0|[1-9][0-9]{0,17}),(0|[1-9][0-9]{0,17})," + rb'"([fbsz])","[0-9a-f]{16}"'
    rb'(?:,\{"loss":(?:"NaN"|"-?Infinity"|-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,3})?)\})?\]\n'
)
NOT_PLAIN = ord("-")


class Entries(Sequence[Entry]):
    """The entries of a journal, each parsed when it is asked for: a million of them take 50 MB.

    `letters` has one byte for each: that of its phase, as in b"f", where it is a plain line that goes on from the end
    of the branch, else b"-".
    """

    def __init__(self, data: bytes) -> None:
        self.letters = bytearray()
        self._data, self._offsets = data, array("q")

    def extend(self, offsets: Sequence[int], letters: Sequence[int] = (NOT_PLAIN,)) -> None:
        """Add the entries whose lines begin there."""
        self._offsets.extend(offsets)
        self.letters.extend(letters)

    def __len__(self) -> int:
        return len(self.letters)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        offset = self._offsets[index]
        return Entry.from_json_line(self._data[offset : self._data.index(b"\n", offset)])


ROOT = Entry(0, 0, "@0", "")
CLOSING_PREFIX = b'{"left":'
MAX_BYTES = 256 << 20  # of a file: ten days of a free run


@dataclass(frozen=True, slots=True)
class Journal:
    """The content of a journal file, up to the first line that cannot be read."""

    path: Path
    config: RunConfig
    started: float  # seconds since the epoch
    entries: Entries
    end_frames: Sequence[int]  # the frame that each entry led to
    size: int  # bytes of the lines that could be read
    unread_bytes: int  # bytes behind them, of a line that was never finished, or of those from a damaged one on
    left: Mapping[str, Any] | None  # in order: when, and the loss; None where the run was cut off
    tree: EntryTree
    status: os.stat_result  # of the file when it was read
    damage: str | None = None  # which line cannot be read, and why; None where all can

    @property
    def is_own(self) -> bool:
        """Whether this machine's user has written it, in the state folder."""
        return is_own_journal(self.path, self.status)

    @property
    def tip(self) -> Entry:
        """The entry after which training stood last."""
        return self.entries[-1] if self.entries else ROOT

    @property
    def branch_tip(self) -> Entry:
        """The entry that the branch ends with on which training stood last, perhaps at an earlier frame."""
        return next((entry for entry in reversed(self.entries) if not entry.command.startswith("@")), ROOT)

    @property
    def frame(self) -> int:
        """The index of the frame where training stood last."""
        return self.end_frames[-1] if self.end_frames else 0

    @property
    def loss(self) -> float | None:
        """The loss at the frame where training stood last; None where there is none yet."""
        if self.left is not None and self.left.get("loss") is not None:
            return float(self.left["loss"])
        entry = self.tip
        while entry.loss is None and entry.parent and entry.start is None:
            entry = self.entries[entry.parent - 1]
        return None if entry.loss is None else float(entry.loss)

    def start(self, entry: Entry) -> int:
        """Return the frame that an entry goes on from, or goes back to."""
        return self.tree.start_of(entry.id)

    def path_to(self, entry: Entry, *, after: int = 0) -> list[tuple[Entry, int]]:
        """Return the entries that lead from frame `after` to the end of one, each with the frame where the next begins.

        The last is up to its own end.
        """
        path, line = [], entry.id
        end = self.end_frames[line - 1] if line else 0
        while line and end > after:
            entry, start = self.entries[line - 1], self.tree.start_of(line)
            if start < self.end_frames[line - 1]:  # it runs something
                path.append((entry, end))
            line, end = entry.parent, start
        return path[::-1]

    def log(self, last: Entry | None = None) -> CommandLog:
        """Return the commands that lead to the end of an entry, or to where training stood last."""
        log = CommandLog()
        for entry, end in self.path_to(last or self.tip):
            entry.append_to(log)
            log.truncate_after(end)
        return log


def read_journal(path: Path) -> Journal:
    """Read a journal, up to its first line that is damaged; raises Refused where the file is none."""
    data, status = _read_bytes(path)
    size, end = data.find(b"\n") + 1, data.rfind(b"\n") + 1  # of the lines that could be read, and of the whole ones
    config, started = parse_header_line(data[: max(size - 1, 0)], path=str(path))
    entries, end_frames, tree = Entries(data), array("q"), EntryTree()
    left, damage = None, None
    try:
        while size < end:
            if (after := _read_plain_lines(data, size, tree, entries, end_frames)) > size:
                size, left = after, None
                continue
            line = data[size : data.index(b"\n", size)]
            left = parse_closing_line(line) if line.startswith(CLOSING_PREFIX) else None
            if left is None:
                entry = Entry.from_json_line(line)
                end_frames.append(_end_frame(entry, tree, entries, end_frames))
                entries.extend([size])
            size += len(line) + 1
        _check_unfinished(data[end:], len(entries) + 1)
    except ValueError as error:
        number = data.count(b"\n", 0, size) + 1
        left, damage = None, f"its line {number} cannot be read ({error})"
    return Journal(path, config, started, entries, end_frames, size, len(data) - size, left, tree, status, damage)


def _read_plain_lines(data: bytes, offset: int, tree: EntryTree, entries: Entries, end_frames: array[int]) -> int:
    """Take in the plain lines from an offset on that go on from where training stood; return the offset behind them."""
    if end_frames and end_frames[-1] != tree.end:
        return offset
    number, parent, last = len(entries) + 1, tree.tip, len(entries) + MAX_COMMANDS - tree.end
    offsets, letters = [], bytearray()
    while (
        number <= last
        and (line := PLAIN_LINE.match(data, offset))
        and int(line[1]) == number
        and int(line[2]) == parent
    ):
        offsets.append(offset)
        letters += line[3]
        parent, number, offset = number, number + 1, line.end()
    end_frames.extend(range(tree.end + 1, tree.end + len(offsets) + 1))
    entries.extend(offsets, letters)
    tree.add_commands(len(offsets))
    return offset


def _read_bytes(path: Path) -> tuple[bytes, os.stat_result]:
    """Return the bytes of a file and its status; raises Refused where that is not possible."""
    try:
        with open_to_read(path) as file:
            status = os.fstat(file.fileno())
            data = file.read(min(status.st_size, MAX_BYTES) + 1)  # so much memory is taken, whatever there is to read
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}.") from None
    if len(data) > MAX_BYTES:
        raise Refused(f"{path} is no journal: it is longer than {MAX_BYTES:,} bytes.")
    return data, status


def _end_frame(entry: Entry, tree: EntryTree, entries: Sequence[Entry], end_frames: Sequence[int]) -> int:
    """Return the frame that an entry led to, and take it into the tree; raises ValueError where no run goes on so."""
    if entry.id != tree.last + 1:
        raise ValueError("out of order")
    goes_back = entry.goes_back
    if goes_back and entry.takes_branch:
        if entry.parent not in tree.left or tree.left[entry.parent] != entry.start:
            raise ValueError("it returns to a branch that no line before it has left")
        tree.return_to_branch(entry.parent)
        return tree.end
    current = int(entry.command[1:]) if goes_back else end_frames[-1] if end_frames else 0
    start = entry.start
    if start is None:
        start = current if goes_back else tree.end
    goes_on = start == current or (_start_is_unknown(entries) and not goes_back)
    if not goes_on or start > tree.end or entry.parent != tree.line_of(start):
        raise ValueError("it goes on from where no line before it has led")
    if goes_back:
        tree.add_rewind(start)
        return start
    end = start + len(entry.commands())
    if end > MAX_COMMANDS:
        raise ValueError("it leads further than any run")
    tree.add_run(start, end)
    return end


def _start_is_unknown(entries: Sequence[Entry]) -> bool:
    """Return whether the last line goes back without its start, as older versions wrote it."""
    return bool(entries) and entries[-1].goes_back and entries[-1].start is None


def _check_unfinished(rest: bytes, number: int) -> None:
    """Raise ValueError where the bytes after the last whole line are not the beginning of a line of this run.

    A disk that lost its power may have put zeros in its place.
    """
    prefixes = (b"[%d," % number, CLOSING_PREFIX)
    if rest.strip(b"\0") and not any(rest.startswith(each[: len(rest)]) for each in prefixes):
        raise ValueError("no line of this run")
