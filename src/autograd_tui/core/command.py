"""Commands: what a session can be asked to do, each with one spelling."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate
from typing import Any

from autograd_tui.core.errors import Refused, UnknownCommand
from autograd_tui.core.optimizer_spec import OptimizerSpec, format_number, parse_number

MAX_COMMANDS = 10**12  # that one line of words may ask for
MAX_LINE_LENGTH = 10_000  # characters of a line that is typed
MAX_COMMAND_LENGTH = 2000  # characters of one command's spelling


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

    `name` is a phase, "lr" or that of one group, "lr[1]", "optimizer", "seed", "@", "undo", "branch", the tensor to
    set: "w", "b[0]", or what is to be frozen or not: "w.requires_grad".
    `forced` runs a phase even out of turn, `recorded` takes down its operations. `value` is what a setting sets, the
    frame after "@", or the branch's number.
    """

    name: str
    value: float | int | bool | OptimizerSpec | None = None
    forced: bool = False
    recorded: bool = False

    @property
    def phase(self) -> Phase | None:
        return PHASES.get(self.name)

    @property
    def goes_back(self) -> bool:
        """Whether it runs nothing, and only says where training is to stand."""
        return self.name in ("@", "undo", "branch")

    @property
    def kind(self) -> str:
        """What it sets: "lr", "requires_grad", or its name."""
        if isinstance(self.value, bool):
            return "requires_grad"
        return "lr" if _LR.fullmatch(self.name) else self.name

    @property
    def group(self) -> int | None:
        """The one parameter group whose learning rate it sets."""
        match = _LR.fullmatch(self.name)
        return int(match[1]) if match and match[1] else None

    @property
    def target(self) -> str:
        """What it freezes, or no longer: a parameter or a module; all there is where that is empty."""
        return self.name.removesuffix("requires_grad").removesuffix(".")

    def __str__(self) -> str:
        if self.phase is not None:
            letter = self.phase.letter.upper() if self.forced else self.phase.letter
            return f"i:{letter}" if self.recorded else letter
        if self.name == "@":
            return f"@{self.value}"
        if isinstance(self.value, (int, float)) and not isinstance(self.value, bool):
            return f"{self.name}={format_number(self.value)}"
        return self.name if self.value is None else f"{self.name}={self.value}"


PHASES = {phase.value: phase for phase in Phase}
# What else a loop of the user's own may call between its phases; nobody can ask for one by name.
SCRIPT_CALLS = ("grad", "unscale", "clip", "scheduler")
NEXT = "next"  # whatever a script calls next: of a free run, which has few frames, nothing else is known
COMMAND_BY_LETTER = {phase.letter: Command(phase.value) for phase in Phase} | {
    phase.letter.upper(): Command(phase.value, forced=True) for phase in Phase
}
_RUN = re.compile(r"(i:)?([fbszFBSZ]+|forward|backward|step|zero_grad)(?:\*(\d+))?")
_SCRIPT_CALL = re.compile(rf"({'|'.join((*SCRIPT_CALLS, NEXT))})(?:\*(\d{{1,15}}))?")
_LR = re.compile(r"lr(?:\[(\d{1,15})\])?")
_TENSOR = re.compile(r"\w+(\.\w+)*(\[\d{1,15}(,\d{1,15})*\])?")  # a Sequential's names begin with a digit


class Commands(Sequence[Command]):
    """Commands in order; what repeats is held once, so that a million iterations take no room."""

    def __init__(self, blocks: Sequence[tuple[tuple[Command, ...], int]] = (), *, times: int = 1) -> None:
        self._blocks, self._times = tuple(blocks), times
        self._ends = list(accumulate(len(pattern) * repeats for pattern, repeats in self._blocks))

    def __len__(self) -> int:
        return self._once * self._times

    @property
    def _once(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Command]:
        for _ in range(self._times):
            for pattern, repeats in self._blocks:
                for _ in range(repeats):
                    yield from pattern

    def blocks(self) -> Iterator[tuple[tuple[Command, ...], int]]:
        """Yield the same commands as patterns, and how often each is to run."""
        for _ in range(self._times):
            yield from self._blocks

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        offset = range(len(self))[index] % self._once
        block = bisect_right(self._ends, offset)
        pattern = self._blocks[block][0]
        return pattern[(offset - (self._ends[block - 1] if block else 0)) % len(pattern)]

    def __mul__(self, times: int) -> Commands:
        if len(self._blocks) == 1 and self._times == 1:
            pattern, repeats = self._blocks[0]
            return Commands([(pattern, repeats * times)])
        return Commands(self._blocks, times=self._times * times)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Commands({self._blocks!r}, times={self._times})"


def frame_before(index: int, times: int = 1) -> int:
    """Return the frame that so many undos at frame `index` lead to; raises Refused at frame 0."""
    if not index:
        raise Refused("there is nothing to undo: this is frame 0.")
    return max(index - times, 0)


def can_be_spelled(name: str) -> bool:
    """Return whether a command can name a parameter of this name."""
    return _TENSOR.fullmatch(name) is not None and "[" not in name


def is_value_name(name: str) -> bool:
    """Return whether this names a parameter, or one of its values: "w", "weight[0,1]"."""
    return _TENSOR.fullmatch(name) is not None


def parse(text: str) -> Commands:
    """Read commands in words, as after `--do`: "fbsz*3 lr=0.01 f".

    Raises UnknownCommand, naming the word, before anything is run.
    """
    blocks: list[tuple[tuple[Command, ...], int]] = []
    room = MAX_COMMANDS
    words = text.split()
    for number, word in enumerate(words, 1):
        try:
            pattern, times = _parse_word(word, room=room)
        except UnknownCommand as error:
            raise UnknownCommand(f"word {number}: {error}" if len(words) > 1 else str(error)) from None
        blocks.append((pattern, times))
        room -= len(pattern) * times
    return Commands(blocks)


def parse_one(text: str) -> Command:
    """Read exactly one command; raises UnknownCommand where there are none or several."""
    commands = parse(text)
    if len(commands) != 1:
        raise UnknownCommand(f'one command is wanted here, "{text}" holds {len(commands)}.')
    one: Command = commands[0]
    return one


def parse_recorded(text: str) -> Command:
    """Read the one command that a file says has led to a frame: also a call of a script, which cannot be asked for."""
    return Command(text) if text in SCRIPT_CALLS else parse_one(text)


def parse_journal(text: str) -> Commands:
    """Read the commands of a line of a journal: `parse`'s, and calls of a script, "clip" or "next*500"."""
    words = text.split()
    if not any(map(_SCRIPT_CALL.fullmatch, words)):
        return parse(text)
    blocks: list[tuple[tuple[Command, ...], int]] = []
    for word in words:
        call = _SCRIPT_CALL.fullmatch(word)
        blocks += [((Command(call[1]),), int(call[2] or 1))] if call else parse(word).blocks()
    if not all(times for _, times in blocks) or sum(len(pattern) * times for pattern, times in blocks) > MAX_COMMANDS:
        raise UnknownCommand(f'"{text}" asks for no calls, or for more than any run has.')
    return Commands(blocks)


def _parse_word(word: str, *, room: int) -> tuple[tuple[Command, ...], int]:
    """Return the commands of one word, and how often they are to run."""
    if run := _RUN.fullmatch(word):
        letters, times = run[2], float(run[3] or 1)
        one = (Command(letters),) if letters in PHASES else tuple(COMMAND_BY_LETTER[letter] for letter in letters)
        if run[1]:
            one = tuple(replace(each, recorded=True) for each in one)
        if times < 1:
            raise UnknownCommand(f'"{word}" asks for nothing: repeat it once or more.')
        if len(one) * times > room:
            raise UnknownCommand(f'"{word}" asks for more than {MAX_COMMANDS:,} commands at once.')
        return one, int(times)
    if word == "undo":
        return (Command("undo"),), 1
    if re.fullmatch(r"@\d{1,15}", word):
        return (Command("@", int(word[1:])),), 1
    setting = _parse_setting(word)
    if len(str(setting)) > MAX_COMMAND_LENGTH:
        raise UnknownCommand(
            f'"{word[:20]}…" is longer than a command may be: {MAX_COMMAND_LENGTH:,} characters are the most.'
        )
    return (setting,), 1


def _parse_setting(word: str) -> Command:
    name, equals, value = word.partition("=")
    if not equals:
        raise UnknownCommand(
            f'"{word}" is not a command: use f b s z (capitals insist), fbsz*3, '
            "i:b (recorded), lr=0.01, w=3, optimizer=adam, @3, undo or branch=1."
        )
    if name == "optimizer":
        return Command(name, OptimizerSpec.parse(value))
    if name == "branch":
        if not re.fullmatch(r"[1-9]\d{0,14}", value):
            raise UnknownCommand(f'"{word}" needs the number of a branch after "=", such as branch=1.')
        return Command(name, int(value))
    if name == "seed":
        if not re.fullmatch(r"\d{1,12}", value):
            raise UnknownCommand(f'"{word}" needs a whole number from 0 to 999,999,999,999 after "=", such as seed=1.')
        return Command(name, int(value))
    if name in PHASES or name == "undo":
        raise UnknownCommand(f'"{word}" sets nothing: {name} is a command and takes no value.')
    if not _TENSOR.fullmatch(name):
        raise UnknownCommand(f'"{word}" sets nothing: a name such as w or b[0] belongs before "=".')
    if name.split(".")[-1] == "requires_grad":
        if value.lower() not in ("true", "false"):
            raise UnknownCommand(f'"{word}" needs True or False after "=".')
        return Command(name, value.lower() == "true")
    number = parse_number(value)
    if number is None:
        raise UnknownCommand(f'"{word}" needs a number after "=", such as {name}=0.1.')
    return Command(name, number)
