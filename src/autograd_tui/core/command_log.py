"""The commands of one branch, run-length encoded, and what they raised: iterations that repeat are stored once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, takewhile

from autograd_tui.core.command import NEXT, SCRIPT_CALLS, Command, Phase
from autograd_tui.core.frame import TorchError

Pattern = tuple[Command, ...]
ITERATION: Pattern = tuple(Command(phase.value) for phase in Phase)
MIN_FREE_ITERATIONS = 16  # in commands, from which on they run without a frame a phase
RanCommand = tuple[Command, str | None]  # and the type of what it raised, as in "RuntimeError"


@dataclass(frozen=True, slots=True)
class _Block:
    start: int  # the frame that its first command starts from
    pattern: Pattern  # one setting, or the phases from one forward to the next
    times: int  # 1 where one of its commands raised

    @property
    def end(self) -> int:
        return self.start + len(self.pattern) * self.times


class CommandLog:
    """Commands, the n-th of which led to frame n; memory does not grow while the same iteration repeats."""

    def __init__(self, commands: Iterable[Command] = ()) -> None:
        self.errors: dict[int, TorchError] = {}  # by frame, in order
        self._blocks: list[_Block] = []
        self._open: list[Command] = []  # the iteration that is still going on
        for command in commands:
            self.append(command)

    def __len__(self) -> int:
        return self._closed + len(self._open)

    def __iter__(self) -> Iterator[Command]:
        return self.between(0, len(self))

    @property
    def _closed(self) -> int:
        return self._blocks[-1].end if self._blocks else 0

    def append(self, command: Command, error: TorchError | None = None) -> None:
        """Add the newest command, and what it raised."""
        phase = command.phase
        if phase is None or phase is Phase.FORWARD:
            self._close()
        self._open.append(command)
        if error is not None:
            self.errors[len(self)] = error
        if phase is None:
            self._close()

    def append_block(self, pattern: Pattern, times: int) -> None:
        """Add a pattern so many times; whole iterations take no longer the more there are."""
        if times and (pattern == ITERATION or _is_script_call(pattern)):
            self._close()
            self._add(pattern, times)
            return
        for command in pattern * times:
            self.append(command)

    def _close(self) -> None:
        if self._open:
            self._add(tuple(self._open), 1)
            self._open = []

    def _add(self, pattern: Pattern, times: int) -> None:
        start = self._closed
        if self._blocks and self._blocks[-1].pattern == pattern:
            last_two = range(start - len(pattern) + 1, len(self) + 1)  # the last pattern, and the one to be added
            if not (self.errors and any(index in self.errors for index in last_two)):
                last = self._blocks.pop()
                start, times = last.start, last.times + times
        self._blocks.append(_Block(start, pattern, times))

    def leading_to(self, index: int) -> Command | None:
        """Return the command that led to frame `index`; None for frame 0."""
        return next(self.between(index - 1, index)) if index else None

    def between(self, start: int, end: int) -> Iterator[Command]:
        """Yield the commands after frame `start`, up to frame `end`."""
        for pattern, times in self.blocks(start, end):
            for _ in range(times):
                yield from pattern

    def with_errors(self, start: int, end: int) -> Iterator[RanCommand]:
        """Yield the commands after frame `start`, up to frame `end`, each with what it raised."""
        for index, command in enumerate(self.between(start, end), start + 1):
            yield command, self.errors[index].type if index in self.errors else None

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[tuple[Pattern, int]]:
        """Yield the commands after frame `start`, up to frame `end`, as patterns and how often each repeats.

        Part of a pattern that `start` or `end` cuts stands alone, and so does one in which a command raised.
        """
        end = len(self) if end is None else end
        first = bisect_right(self._blocks, start, key=lambda block: block.start) - 1
        for block in self._blocks[max(first, 0) :]:
            yield from _cut(block, max(start, block.start), min(end, block.end))
        rest = tuple(self._open[max(start - self._closed, 0) : max(end - self._closed, 0)])
        if rest:
            yield rest, 1

    def up_to(self, length: int) -> CommandLog:
        """Return a copy of the first `length` commands."""
        other = self.copy()
        other.truncate_after(length)
        return other

    def truncate_after(self, length: int) -> None:
        """Keep the first `length` commands: another one runs from frame `length`."""
        if length >= len(self):
            return
        del self._open[max(length - self._closed, 0) :]
        while self._closed > length:
            block = self._blocks.pop()
            times, rest = divmod(max(length - block.start, 0), len(block.pattern))
            if times:
                self._blocks.append(_Block(block.start, block.pattern, times))
            self._open = list(block.pattern[:rest])
        while self.errors and next(reversed(self.errors)) > length:
            self.errors.popitem()
        self._reopen()

    def _reopen(self) -> None:
        """Take the last iteration as still going on: more of its phases may follow."""
        if self._open or not self._blocks or self._blocks[-1].pattern[0].phase is None:
            return
        last = self._blocks.pop()
        if last.times > 1:
            self._blocks.append(_Block(last.start, last.pattern, last.times - 1))
        self._open = list(last.pattern)

    def copy(self) -> CommandLog:
        """Return a log of its own, which goes on without this one."""
        other = CommandLog()
        other.errors, other._blocks, other._open = dict(self.errors), self._blocks[:], self._open[:]
        return other

    def shared_with(self, other: CommandLog) -> int:
        """Count the commands from the first on that both logs have in common."""
        shared = 0
        for (pattern, times), (another, repeats) in zip(self._runs(), other._runs(), strict=False):
            if pattern != another:
                return shared + _alike(pattern, another)
            shared += len(pattern) * min(times, repeats)
            if times != repeats:  # the longer run goes on against what follows the shorter one
                longer, shorter = (self, other) if times > repeats else (other, self)
                end = shared + len(pattern)
                return shared + _alike(tuple(longer.between(shared, end)), tuple(shorter.between(shared, end)))
        return shared

    def _runs(self) -> list[tuple[Pattern, int]]:
        """Return all commands as patterns that repeat, no two neighbours the same, whatever raised."""
        neighbours = groupby(self.blocks(), key=lambda block: block[0])
        return [(pattern, sum(times for _, times in blocks)) for pattern, blocks in neighbours]

    def __str__(self) -> str:
        """Write the commands so that `parse` reads the same ones back, `parse_journal` also those of a script."""
        words = []
        for pattern, times in self._runs():
            word = "".join(map(str, pattern))
            if pattern[0].phase is None and not _is_script_call(pattern):
                words += [word] * times
            else:
                words.append(word if times == 1 else f"{word}*{times}")
        return " ".join(words)


def _is_script_call(pattern: Pattern) -> bool:
    """Return whether a pattern is one call of a script that is no phase."""
    return len(pattern) == 1 and (pattern[0].name == NEXT or pattern[0].name in SCRIPT_CALLS)


def _alike(some: Pattern, others: Pattern) -> int:
    """Count the commands that two patterns begin with alike."""
    pairs = zip(some, others, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _cut(block: _Block, start: int, end: int) -> Iterator[tuple[Pattern, int]]:
    """Yield the part of a block between two frames inside it: an end of its pattern, whole ones, a beginning."""
    if start >= end:
        return
    pattern, size = block.pattern, len(block.pattern)
    (skipped, ahead), (before, rest) = divmod(start - block.start, size), divmod(end - block.start, size)
    if skipped == before:
        yield pattern[ahead:rest], 1
        return
    if ahead:
        yield pattern[ahead:], 1
    if whole := before - skipped - bool(ahead):
        yield pattern, whole
    if rest:
        yield pattern[:rest], 1
