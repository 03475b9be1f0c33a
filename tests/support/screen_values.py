"""What a screen says, read from its cells: each number and each word of age, and whether it is true.

It knows how the panels look and none of the code that draws them. What it does not understand it counts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from screen_oracle import Moment

NUMBER = r"(?:[+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|inf)|NaN)"
MARKED = rf"[~≥≈]?{NUMBER}"
BARS = r"[█▏▎▍▌▋▊▉?]*"
SPREAD = r"[▁▂▃▄▅▆▇█ ]+"
PARTS = rf"(?<![\w.×…])[~≥≈]?{NUMBER}(?![\w×])"  # a number as the whole of a word
AGES = r"\b(?:fresh|old|used|sum of \d+|None|frozen|was|unused|before the move)\b"
TIMES = rf"\btook {NUMBER} (?:ns|µs|ms|s|min)\b"  # measured here: no other loop can know them
RAISED = r"(?<= raised )\w+[^:]*:\s(?:.|\n)+?(?=Parameters, gradients|\Z)"  # PyTorch's own sentence
LOOSE = 3e-6  # of a number: in float32 sums come out so far apart
Truth = float | int | str | bool | None


@dataclass
class Facts:
    """What is true of a screen: the moment shown, and the run that it is part of."""

    moment: Moment
    moments: Sequence[Moment]  # of the branch, up to the newest frame
    left: Sequence[Moment]  # of branches that were left, which a plot draws behind
    latest: int  # where training stands
    names: tuple[str, ...]  # of the batch's parts
    slope: Callable[[], float]  # of the loss along the last step, where it began


@dataclass
class Tally:
    """What was painted in a panel, and how much of it was understood."""

    numbers: int = 0
    known_numbers: int = 0
    words: int = 0
    known_words: int = 0
    unknown: Counter[str] = field(default_factory=Counter)  # with digits made alike

    def add(self, other: Tally) -> None:
        self.numbers += other.numbers
        self.known_numbers += other.known_numbers
        self.words += other.words
        self.known_words += other.known_words
        self.unknown += other.unknown


def size(tensors: Iterable[Tensor]) -> float:
    """Give the norm over tensors in double precision."""
    return math.hypot(*(float(torch.linalg.vector_norm(each.double())) for each in tensors), 0.0)


def agrees(text: str, true: float | None) -> bool:
    """Tell whether a number as written is a number rounded to the digits that are shown."""
    if true is None:
        return text in ("-", "None")
    if text == "-":
        return False
    text = text.rstrip("%")
    sampled, value = text.startswith("~"), float(text.lstrip("~≥≈").replace(" ", ""))
    if math.isnan(true) or math.isnan(value) or math.isinf(true) or math.isinf(value):
        return value == true or (math.isnan(true) and math.isnan(value))
    if text.startswith("≥"):
        return value <= true * (1 + LOOSE)
    mantissa, _, power = text.lstrip("~≥≈+-").partition("e")
    unit = 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))
    if sampled:
        return abs(value - true) <= 0.3 * abs(true) + unit
    return abs(value - true) <= unit * 0.5001 + LOOSE * abs(true)


class Page:
    """The text of one panel: patterns claim what they understand, and say whether it is true."""

    def __init__(self, panel: str, rows: Sequence[str], title: str, names: Iterable[str]) -> None:
        self.panel, self.rows, self.title, self.text = panel, rows, title, "\n".join(rows)
        self.faults: list[str] = []
        self._known: list[tuple[int, int]] = []
        self._masked = self.text
        for not_ours in (TIMES, RAISED):
            self._masked = re.sub(not_ours, lambda m: re.sub(r"\S", " ", m[0]), self._masked)
        for name in sorted(names, key=len, reverse=True):  # whose digits are no numbers
            self._masked = re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w])", "n" * len(name), self._masked)

    def read(self, pattern: str, truths: Callable[[re.Match[str]], Sequence[Truth]]) -> int:
        """Compare what a pattern's groups found with what is true, in their order; give how often it was found.

        A bool says whether the group is true, a str what it must be, a number what it must be but for its last digit.
        """
        pattern = re.sub(r"(?<!\[) (?!\])", r"\\s+", pattern)  # a sentence may go on in the next row
        matches = list(re.finditer(pattern, self.text, re.MULTILINE))
        for match in matches:
            for group, true in enumerate(truths(match), 1):
                self._compare(match, group, true)
        return len(matches)

    def _compare(self, match: re.Match[str], group: int, true: Truth) -> None:
        written = match[group]
        if written is None:
            return
        self._known.append(match.span(group))
        if isinstance(true, bool):
            right = true
        elif isinstance(true, str):
            right = " ".join(written.split()) == true
        else:
            right = agrees(written, true)
        if not right:
            row = self.text[: match.start(group)].count("\n")
            self.faults.append(f'{self.panel}: "{written}" where it is {true!r}, in "{self.rows[row].strip()}"')

    def claim(self, start: int, written: str, true: Truth) -> None:
        """Compare one piece of the text, as `read` does."""
        piece = re.compile(f"({re.escape(written)})").match(self.text, start)
        assert piece is not None
        self._compare(piece, 1, true)

    def fault(self, said: str) -> None:
        self.faults.append(f"{self.panel}: {said}")

    def tally(self) -> Tally:
        """Count what was painted, and what was understood."""
        found = Tally()
        for pattern, what in ((PARTS, "numbers"), (AGES, "words")):
            for match in re.finditer(pattern, self._masked):
                known = any(start <= match.start() and match.end() <= end for start, end in self._known)
                setattr(found, what, getattr(found, what) + 1)
                setattr(found, f"known_{what}", getattr(found, f"known_{what}") + known)
                if not known:
                    row = self.rows[self._masked[: match.start()].count("\n")].strip()
                    found.unknown[
                        f"{self.panel}: {match[0] if what == 'words' else ''} {re.sub(NUMBER, '#', row)}"
                    ] += 1
        return found
