"""Logs of commands, run-length encoded: iterations that repeat are stored once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.frame import Frame, TorchError
from autograd_tui.core.run_config import RunConfig

Pattern = tuple[Command, ...]
ITERATION: Pattern = tuple(Command(phase.value) for phase in Phase)


@dataclass(frozen=True, slots=True)
class _Block:
    start: int  # place of its first command
    pattern: Pattern  # one setting, or the phases from one forward to the next
    times: int

    @property
    def end(self) -> int:
        return self.start + len(self.pattern) * self.times


class CommandLog:
    """A list of commands whose memory does not grow while the same iteration repeats."""

    def __init__(self, commands: Iterable[Command] = ()) -> None:
        self._blocks: list[_Block] = []
        self._open: list[Command] = []  # the iteration that is still going on
        for command in commands:
            self.append(command)

    def __len__(self) -> int:
        return self._closed + len(self._open)

    @property
    def _closed(self) -> int:
        return self._blocks[-1].end if self._blocks else 0

    def append(self, command: Command) -> None:
        """Add the newest command."""
        if command.phase is None or command.phase is Phase.FORWARD:
            self._close()
        self._open.append(command)
        if command.phase is None:
            self._close()

    def append_all(self, pattern: Pattern, times: int) -> None:
        """Add a pattern so many times; whole iterations take no longer the more there are."""
        if pattern == ITERATION and times:
            self.append_iterations(times)
            return
        for command in pattern * times:
            self.append(command)

    def append_iterations(self, times: int) -> None:
        """Add whole iterations, f b s z, at once."""
        self._close()
        self._add(ITERATION, times)

    def _close(self) -> None:
        if self._open:
            self._add(tuple(self._open), 1)
            self._open = []

    def _add(self, pattern: Pattern, times: int) -> None:
        start = self._blocks[-1].end if self._blocks else 0
        if self._blocks and self._blocks[-1].pattern == pattern:
            last = self._blocks.pop()
            start, times = last.start, last.times + times
        self._blocks.append(_Block(start, pattern, times))

    def between(self, start: int, end: int) -> Iterator[Command]:
        """Give the commands from place `start` up to, but not with, `end`."""
        for pattern, times in self.stretches(start, end):
            for _ in range(times):
                yield from pattern

    def stretches(self, start: int, end: int) -> Iterator[tuple[Pattern, int]]:
        """Give the same commands as patterns that repeat; where one is cut, its part stands alone."""
        first = bisect_right(self._blocks, start, key=lambda block: block.start) - 1
        for block in self._blocks[max(first, 0) :]:
            yield from _cut(block, max(start, block.start), min(end, block.end))
        rest = tuple(self._open[max(start - self._closed, 0) : max(end - self._closed, 0)])
        if rest:
            yield rest, 1

    def up_to(self, length: int) -> CommandLog:
        """Give a log of the first `length` commands, of its own."""
        other = self.copy()
        other.truncate_after(length)
        return other

    def truncate_after(self, length: int) -> None:
        """Keep the first `length` commands."""
        if length >= len(self):
            return
        del self._open[max(length - self._closed, 0) :]
        while self._closed > length:
            block = self._blocks.pop()
            times, rest = divmod(max(length - block.start, 0), len(block.pattern))
            if times:
                self._blocks.append(_Block(block.start, block.pattern, times))
            self._open = list(block.pattern[:rest])
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
        """Give a log of its own, which goes on without this one."""
        other = CommandLog()
        other._blocks, other._open = self._blocks[:], self._open[:]
        return other

    def shared_with(self, other: CommandLog) -> int:
        """Count the commands from the first on that both logs hold alike."""
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
        """Give all commands as patterns that repeat, no two neighbours the same."""
        blocks = [(block.pattern, block.times) for block in self._blocks]
        if self._open:
            times = blocks.pop()[1] if blocks and blocks[-1][0] == tuple(self._open) else 0
            blocks.append((tuple(self._open), times + 1))
        return blocks

    def __str__(self) -> str:
        """Write the commands so that `parse` reads the same ones back, as short as reads well."""
        words = []
        for pattern, times in self._runs():
            word = "".join(map(str, pattern))
            if pattern[0].phase is None:
                words += [word] * times
            else:
                words.append(word if times == 1 else f"{word}*{times}")
        return " ".join(words)


def _alike(some: Pattern, others: Pattern) -> int:
    """Count the commands that two patterns begin with alike."""
    pairs = zip(some, others, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _cut(block: _Block, start: int, end: int) -> Iterator[tuple[Pattern, int]]:
    """Give the part of a block between two places inside it: an end of its pattern, whole ones, a beginning."""
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


@dataclass(frozen=True, slots=True)
class Step:
    """One command; `raised` is the type of what PyTorch raised in it, as in "RuntimeError"."""

    command: Command
    raised: str | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps that were run one after the other, so many times."""

    steps: tuple[Step, ...]
    times: int = 1


@dataclass(frozen=True, slots=True)
class Recording:
    """One branch, from frame 0 to where it stands; it holds no command that goes back."""

    opening: RunConfig
    stretches: Sequence[Stretch] = ()

    def __iter__(self) -> Iterator[Step]:
        for stretch in self.stretches:
            for _ in range(stretch.times):
                yield from stretch.steps

    def __len__(self) -> int:
        return sum(len(stretch.steps) * stretch.times for stretch in self.stretches)

    def split(self, frame: int) -> tuple[Recording, Recording]:
        """Give the part up to a frame, and the part from there on."""
        before: list[Stretch] = []
        for place, stretch in enumerate(self.stretches):
            size = len(stretch.steps)
            whole, rest = divmod(frame, size)
            if whole >= stretch.times:
                before.append(stretch)
                frame -= size * stretch.times
                continue
            steps = stretch.steps
            before += [Stretch(steps, whole)] * bool(whole) + [Stretch(steps[:rest])] * bool(rest)
            left = stretch.times - whole - bool(rest)
            after = [Stretch(steps[rest:])] * bool(rest) + [Stretch(steps, left)] * bool(left)
            return Recording(self.opening, before), Recording(self.opening, [*after, *self.stretches[place + 1 :]])
        return self, Recording(self.opening)


class Track:
    """Enough to run one branch again, frame by frame."""

    def __init__(self) -> None:
        self.commands = CommandLog()  # the n-th one led to frame n
        self.errors: dict[int, TorchError] = {}  # by frame

    def __len__(self) -> int:
        return len(self.commands)

    def append(self, command: Command, frame: Frame) -> None:
        """Take note of a command that has led to a frame."""
        self.commands.append(command)
        if frame.error:
            self.errors[frame.index] = frame.error

    def truncate_after(self, index: int) -> None:
        """Leave the commands after frame `index`: another one has been run from there."""
        self.commands.truncate_after(index)
        self.errors = {each: error for each, error in self.errors.items() if each <= index}

    def copy(self) -> Track:
        """Give a track of its own, which goes on without this one."""
        other = Track()
        other.commands, other.errors = self.commands.copy(), dict(self.errors)
        return other

    def raised_between(self, start: int, end: int) -> bool:
        """Tell whether any command after frame `start`, up to frame `end`, raised."""
        return any(start < index <= end for index in self.errors)

    def recorded(self, end: int) -> list[Stretch]:
        """Give the commands up to frame `end` with what they raised."""
        found, start = [], 0
        for pattern, times in self.commands.stretches(0, end):
            ends = start + len(pattern) * times
            if not self.raised_between(start, ends):
                found.append(Stretch(tuple(map(Step, pattern)), times))
            else:
                turns = range(start, ends, len(pattern))
                found += [Stretch(self.steps(turn, turn + len(pattern))) for turn in turns]
            start = ends
        return found

    def steps(self, start: int, end: int) -> tuple[Step, ...]:
        """Give the commands after frame `start`, up to frame `end`, one by one with what they raised."""
        commands = enumerate(self.commands.between(start, end), start + 1)
        return tuple(Step(command, self._raised(index)) for index, command in commands)

    def _raised(self, index: int) -> str | None:
        error = self.errors.get(index)
        return error.type if error else None
