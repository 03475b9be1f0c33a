"""A run as it can be told again: what opened it, and its commands from frame 0 on, with what they raised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autograd_tui.engine.values.command import Command
from autograd_tui.engine.values.opening import Opening


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

    opening: Opening
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
