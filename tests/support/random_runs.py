"""Random runs over small models, with all that a script must tell truly."""

from __future__ import annotations

import random
from dataclasses import dataclass

from autograd_tui.core.command import Phase
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.engine.session import Session

OPTIMIZERS = ("sgd", "sgd,momentum=0.9", "adam,betas=(0.5,0.9)", "adamw", "rmsprop,lr=0.01,momentum=0.5", "rprop")
WORDS = (*"fbszfbszfbszfbszFBSZ", "fbsz*5", "fbs*3", "lr", "optimizer", "value", "huge", "back")
Shown = list[tuple[int, float | None]]


@dataclass
class Walk:
    """Drives a session, and remembers the frames of its present branch."""

    session: Session
    draw: random.Random
    param: str  # whose one value is set, as "w"

    def __post_init__(self) -> None:
        self.branch = [self.session.frame]

    def go(self, words: int) -> None:
        for _ in range(words):
            self.say(self.draw.choice(WORDS))

    def say(self, word: str) -> None:
        if word == "back":
            index = self.draw.randint(max(len(self.branch) - 6, 0), len(self.branch) - 1)
            self.session.rewind(index)
            del self.branch[index + 1 :]
            return
        rate = self.draw.choice(("0.1", "0.05", "0.003"))
        words = {"lr": f"lr={rate}", "optimizer": f"optimizer={self.draw.choice(OPTIMIZERS)}"}
        words |= {"value": f"{self.param}={self.draw.uniform(-2, 2)}", "huge": "lr=1e39 S lr=0.01"}
        try:
            self.branch += self.session.run_all(words.get(word, word))
        except Refused:  # out of turn: nothing has run
            return

    @property
    def losses(self) -> Shown:
        return losses(self.branch)


def losses(frames: list[Frame]) -> Shown:
    """Give what a script has to print, by iteration."""
    return [(each.iteration, each.loss) for each in frames if each.phase is Phase.FORWARD and not each.error]


def printed(text: str) -> Shown:
    """Read what a script has printed."""
    lines = [line.split() for line in text.splitlines() if line.startswith("iteration ")]
    return [(int(line[1]), float(line[3])) for line in lines]
