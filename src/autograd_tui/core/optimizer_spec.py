"""An optimizer and the decay of its learning rate in words: sgd,lr=0.1,momentum=0.9 and plateau:0.1:10:1e-5."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from autograd_tui.core.errors import Refused, UnknownCommand

DEFAULT_MIN_LR = 1e-5  # below which a decay does not go unless told to: the smallest learning rate in common use
OptionValue = float | int | bool | str | None | tuple[float, ...]


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """The name of a `torch.optim` class in small letters, a learning rate, the other options in order."""

    name: str
    lr: float | None = None  # None keeps the learning rate as it is
    options: tuple[tuple[str, OptionValue], ...] = ()

    @classmethod
    def parse(cls, text: str) -> OptimizerSpec:
        """Read `name[,option=value ...]`; raises UnknownCommand."""
        name, *words = re.split(r",(?![^(]*\))", text)
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
            raise UnknownCommand(f'"optimizer={text}" needs a name first, such as optimizer=adam.')
        spec = cls(name.lower())
        for word in words:
            option, equals, value = word.partition("=")
            if not (equals and option.isidentifier()):
                raise UnknownCommand(f'"{word}" in "optimizer={text}" is not an option=value.')
            spec = spec.with_option(option, _parse_value(option, value))
        return spec

    def with_option(self, option: str, value: OptionValue) -> OptimizerSpec:
        """Return the same spec with one option set; the learning rate is one of them."""
        if option == "lr":
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UnknownCommand(f'the learning rate must be a number, not "{value}".')
            return replace(self, lr=float(value))
        return replace(self, options=tuple((dict(self.options) | {option: value}).items()))

    def __str__(self) -> str:
        options = [] if self.lr is None else [f"lr={format_number(self.lr)}"]
        options += [f"{option}={_format_value(value)}" for option, value in self.options]
        return ",".join([self.name, *options])


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """One of an optimizer's parameter groups: whom it holds, in order, and the options of its own but the lr."""

    names: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LrDecay:
    """`ReduceLROnPlateau` in words: plateau[:factor[:patience[:min_lr]]]."""

    factor: float = 0.1
    patience: int = 10  # iterations without improvement
    min_lr: float = DEFAULT_MIN_LR

    @classmethod
    def parse(cls, text: str, *, min_lr: float = DEFAULT_MIN_LR) -> LrDecay:
        """Read it; `min_lr` is for a text that gives none. Raises UnknownCommand or Refused."""
        kind, *words = text.split(":")
        numbers = [parse_number(word) for word in words]
        if kind != "plateau" or len(numbers) > 3 or None in numbers:
            raise UnknownCommand(f'"--decay {text}" is not understood: use plateau, or as in plateau:0.1:10:1e-5.')
        defaults = (0.1, 10.0, min_lr)[len(numbers) :]
        factor, patience, floor = [*(each for each in numbers if each is not None), *defaults]
        if not 0 < factor < 1:
            raise Refused(f"--decay {text}: the factor must lie between 0 and 1.")
        if not (patience >= 0 and patience.is_integer()):
            raise Refused(f"--decay {text}: the patience must be a whole number of iterations, 0 or more.")
        if not 0 <= floor < float("inf"):
            raise Refused(f"--decay {text}: the least learning rate must be a number from 0 up.")
        return cls(factor, int(patience), floor)

    def __str__(self) -> str:
        return ":".join(["plateau", *map(format_number, (self.factor, self.patience, self.min_lr))])

    @property
    def line(self) -> str:
        """The line of a script that steps it."""
        floor = f", not below {self.min_lr:g}" if self.min_lr else ""
        return f"scheduler.step(loss)  # plateau: lr x {self.factor:g} after {self.patience} without improvement{floor}"


def parse_number(text: str) -> float | None:
    """Read a finite number, nan or inf; None where it is no number."""
    if not re.fullmatch(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|nan|inf)", text):
        return None
    number = float(text)
    return math.nan if math.isnan(number) else number  # one and the same: w=nan is the command that w=nan was


def format_number(value: float) -> str:
    """Write a number with the fewest digits that read back as the same one."""
    whole = float(value).is_integer() and abs(value) < 1e15 and not str(value).startswith("-0")
    return str(int(value)) if whole else repr(float(value))


def _parse_value(option: str, text: str) -> OptionValue:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    if re.fullmatch(r"[+-]?\d{1,15}", text):
        return int(text)
    if (number := parse_number(text)) is not None:
        return number
    if text.startswith("("):
        numbers = [parse_number(each.strip()) for each in text[1:].removesuffix(")").removesuffix(",").split(",")]
        if None in numbers or not text.endswith(")"):
            raise UnknownCommand(f'"{option}={text}" is not a list of numbers.')
        return tuple(number for number in numbers if number is not None)
    if re.fullmatch(r"\w+", text):
        return text
    raise UnknownCommand(f'"{option}={text}" is not a value that an optimizer takes.')


def _format_value(value: OptionValue) -> str:
    if isinstance(value, tuple):
        return "(" + ",".join(format_number(number) for number in value) + ",)"[len(value) > 1 :]
    if isinstance(value, float):
        return format_number(value) if not value.is_integer() else repr(value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
