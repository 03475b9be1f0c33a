"""Watchpoints: conditions at which a run pauses, each with one spelling."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from autograd_tui.core.errors import UnknownCommand, clipped, nearest
from autograd_tui.core.optimizer_spec import format_number, parse_number

LOSS, GRAD_NORM, PARAM_NORM = "loss", "grad_norm", "param_norm"
DEFAULT_TIMES = 5  # iterations, where none are given
MAX_QUOTED_LENGTH = 60  # characters of what is quoted in a sentence
EXAMPLES = ("nonfinite", "loss > 10", "grad_norm > 10", "w.grad < 1e-6", "w still", "loss rises 5")
_NAME = r"\w+(?:\.\w+)*"
_BOUND = re.compile(rf"({_NAME})\s*([<>])\s*(.*)")
_STILL = re.compile(rf"(?:({_NAME}) )?still(?: (\S+))?")
_RISES = re.compile(r"loss rises(?: (\S+))?")


@dataclass(frozen=True, slots=True)
class Watchpoint:
    """One condition.

    `name` is "loss", "grad_norm", "param_norm", a parameter or its "w.grad", of which norms are compared; of "still" a
    parameter, or "" for any.
    """

    kind: Literal["nonfinite", "bound", "still", "rises"]
    name: str = ""
    sign: Literal["<", ">", ""] = ""
    bound: float = 0.0
    times: int = 0  # iterations in a row

    @property
    def tensor(self) -> str | None:
        """The parameter, or "w.grad", that the model must have."""
        usual = ("",) if self.kind == "still" else ("", LOSS, GRAD_NORM, PARAM_NORM)
        return None if self.name in usual else self.name

    def holds_for(self, value: float) -> bool:
        """Return whether a value is beyond the bound; a NaN always is."""
        return math.isnan(value) or (value > self.bound if self.sign == ">" else value < self.bound)

    def __str__(self) -> str:
        match self.kind:
            case "bound":
                return f"{self.name} {self.sign} {format_number(self.bound)}"
            case "still":
                return f"{self.name} still {self.times}".lstrip()
            case "rises":
                return f"loss rises {self.times}"
            case _:
                return self.kind


def parse_watchpoint(text: str) -> Watchpoint:
    """Read "nonfinite", "grad_norm > 10", "w still 5" or "loss rises 5"; raises UnknownCommand."""
    text = " ".join(text.split())
    if text == "nonfinite":
        return Watchpoint("nonfinite")
    if match := _RISES.fullmatch(text):
        return Watchpoint("rises", LOSS, times=_times(match[1], text))
    if match := _STILL.fullmatch(text):
        return Watchpoint("still", match[1] or "", times=_times(match[2], text))
    if match := _BOUND.fullmatch(text):
        return _bounded(match[1], match[2], match[3], text)
    raise UnknownCommand(f'"{_clipped(text)}" is no watchpoint: {_meant(text)}.')


def _meant(text: str) -> str:
    """Return a sentence: which condition a text is most like, or else which there are."""
    if text.lower() in ("nan", "inf", "infinity", "infinite"):
        return "nonfinite watches for NaN and infinity"
    name, blank, _ = text.partition(" ")
    near = nearest(text, (*EXAMPLES, f"{name} still" if blank else "still"))
    return f"the nearest is {near}" if near else f"there are {', '.join(EXAMPLES)}"


def _bounded(name: str, sign: str, number: str, text: str) -> Watchpoint:
    if number.startswith("=") and parse_number(number[1:].strip()) is not None:
        likely = f"{name} {sign} {number[1:].strip()}"
        raise UnknownCommand(f'"{_clipped(text)}" is no watchpoint: the nearest is {_clipped(likely)}.')
    bound = parse_number(number)
    if bound is None or not math.isfinite(bound):
        raise UnknownCommand(f'"{_clipped(text)}" needs a number behind {sign}, as in {_clipped(name)} {sign} 10.')
    if name != LOSS and (bound < 0 or (sign == "<" and bound == 0)):
        raise UnknownCommand(f'"{_clipped(text)}" compares a norm, which is 0 or more: give a larger number.')
    return Watchpoint("bound", name, "<" if sign == "<" else ">", bound)


def _times(number: str | None, text: str) -> int:
    if number is None:
        return DEFAULT_TIMES
    if not re.fullmatch(r"[1-9]\d{0,8}", number):
        raise UnknownCommand(f'"{_clipped(text)}" needs whole iterations, 1 or more, as in loss rises 5.')
    return int(number)


def _clipped(text: str) -> str:
    return clipped(text, MAX_QUOTED_LENGTH)
