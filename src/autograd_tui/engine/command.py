"""Commands: what a session can be told to do, each with one spelling."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from autograd_tui.engine.errors import NotUnderstood
from autograd_tui.engine.optimizer_spec import OptimizerSpec, format_number, parse_number

MOST_COMMANDS = 1_000_000  # that one line of words may ask for


class Phase(StrEnum):
    """The four lines of a training loop, named as PyTorch names them."""

    FORWARD = "forward"
    BACKWARD = "backward"
    STEP = "step"
    ZERO_GRAD = "zero_grad"

    @property
    def letter(self) -> str:
        return self.value[0]


@dataclass(frozen=True, slots=True)
class Command:
    """One thing to do.

    `name` is a phase, "lr", "optimizer", "@", "undo", or the tensor to set: "w", "b[0]".
    `forced` runs a phase even out of turn. `value` is what a setting sets, or the frame after "@".
    """

    name: str
    value: float | int | OptimizerSpec | None = None
    forced: bool = False

    @property
    def phase(self) -> Phase | None:
        return PHASES.get(self.name)

    def __str__(self) -> str:
        if self.phase is not None:
            return self.phase.letter.upper() if self.forced else self.phase.letter
        if self.name == "@":
            return f"@{self.value}"
        if isinstance(self.value, (int, float)):
            return f"{self.name}={format_number(self.value)}"
        return self.name if self.value is None else f"{self.name}={self.value}"


PHASES = {phase.value: phase for phase in Phase}
LETTERS = {phase.letter: Command(phase.value) for phase in Phase} | {
    phase.letter.upper(): Command(phase.value, forced=True) for phase in Phase
}
_RUN = re.compile(r"([fbszFBSZ]+|forward|backward|step|zero_grad)(?:\*(\d+))?")
_TENSOR = re.compile(r"\w+(\.\w+)*(\[\d{1,15}(,\d{1,15})*\])?")  # a Sequential's names begin with a digit


def parse(text: str) -> list[Command]:
    """Read commands in words, as after `--do`: "fbsz*3 lr=0.01 f".

    Raises NotUnderstood, naming the word, before anything is run.
    """
    commands: list[Command] = []
    for word in text.split():
        commands.extend(_parse_word(word, room=MOST_COMMANDS - len(commands)))
    return commands


def parse_one(text: str) -> Command:
    """Read exactly one command; raises NotUnderstood where there are none or several."""
    commands = parse(text)
    if len(commands) != 1:
        raise NotUnderstood(f'one command is wanted here, "{text}" holds {len(commands)}.')
    return commands[0]


def _parse_word(word: str, *, room: int) -> list[Command]:
    if run := _RUN.fullmatch(word):
        letters, times = run[1], float(run[2] or 1)
        one = [Command(letters)] if letters in PHASES else [LETTERS[letter] for letter in letters]
        if len(one) * times > room:
            raise NotUnderstood(f'"{word}" asks for more than {MOST_COMMANDS:,} commands at once.')
        return one * int(times)
    if word == "undo":
        return [Command("undo")]
    if re.fullmatch(r"@\d{1,15}", word):
        return [Command("@", int(word[1:]))]
    return [_parse_setting(word)]


def _parse_setting(word: str) -> Command:
    name, equals, value = word.partition("=")
    if not equals:
        raise NotUnderstood(
            f'"{word}" is not a command: use f b s z (capitals insist), fbsz*3, '
            "lr=0.01, w=3, optimizer=adam, @3 or undo."
        )
    if name == "optimizer":
        return Command(name, OptimizerSpec.parse(value))
    if name in PHASES or name == "undo":
        raise NotUnderstood(f'"{word}" sets nothing: {name} is a command and takes no value.')
    if not _TENSOR.fullmatch(name):
        raise NotUnderstood(f'"{word}" sets nothing: a name such as w or b[0] belongs before "=".')
    number = parse_number(value)
    if number is None:
        raise NotUnderstood(f'"{word}" needs a number after "=", such as {name}=0.1.')
    return Command(name, number)
