"""A run as it can be told again: what opened it, and its commands from frame 0 on, with what they raised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autograd_tui.engine.command import Command
from autograd_tui.engine.opening import Opening


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
