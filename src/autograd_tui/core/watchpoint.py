"""Watchpoints: conditions at which a run pauses, each with one spelling, and the norms that lie safely beyond one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import Literal

from autograd_tui.core.errors import UnknownCommand, clipped, nearest
from autograd_tui.core.optimizer_spec import format_number, parse_number

LOSS, GRAD_NORM, PARAM_NORM, UPDATE = "loss", "grad_norm", "param_norm", "update"
USUAL = (LOSS, GRAD_NORM, PARAM_NORM, UPDATE)
NO_NORM = "compares a norm, which is 0 or more: give a larger number."
DEFAULT_TIMES = 5  # iterations, where none are given
MAX_QUOTED_LENGTH = 60  # characters of what is quoted in a sentence
EXAMPLES = (
    "nonfinite",
    "loss > 10",
    "grad_norm > 10",
    "update > 0.1",
    "w.grad < 1e-6",
    "*.grad > 1",
    "w.grad zero",
    "w still",
    "loss rises 5",
    "dead relu > 0.9",
)
_NAME = r"[\w*?]+(?:\.[\w*?]+)*"
_BOUND = re.compile(rf"(dead )?({_NAME})\s*([<>])\s*(.*)")
_STILL = re.compile(rf"(?:({_NAME}) )?still(?: (\S+))?")
_ZERO = re.compile(rf"(?:({_NAME}) )?zero|zero ({_NAME})")
_RISES = re.compile(r"loss rises(?: (\S+))?")
Kind = Literal["loss", "grad_norm", "param_norm", "metric", "params", "grads", "updates", "update", "activations"]
MARGIN = 0.01  # of a norm in float32, which is compared with a bound
MIN_BOUND = 1e-15  # below it the squares in a norm may vanish
Range = tuple[float, float]
FINITE: Range = (0.0, math.inf)  # within which each norm lies that is a number
NOT_ZERO: Range = (MIN_BOUND, math.inf)  # within which each lies whose tensor has some other value than 0


@dataclass(frozen=True, slots=True)
class Watchpoint:
    """One condition.

    `name` of "bound" is "loss", "grad_norm", "param_norm", "update", a metric, a parameter, its "w.grad" or "w.update",
    of which norms are compared; of "dead" a module; of "still" a parameter, of "zero" a parameter or "w.grad"; of these
    two also "" for any. Parameters and modules may be patterns, "layer1.*.grad": the condition holds where one does.
    """

    kind: Literal["nonfinite", "bound", "dead", "still", "zero", "rises"]
    name: str = ""
    sign: Literal["<", ">", ""] = ""
    bound: float = 0.0
    times: int = 0  # iterations in a row

    def holds_for(self, value: float) -> bool:
        """Return whether a value is beyond the bound; a NaN always is."""
        return math.isnan(value) or (value > self.bound if self.sign == ">" else value < self.bound)

    def __str__(self) -> str:
        match self.kind:
            case "bound":
                return f"{self.name} {self.sign} {format_number(self.bound)}"
            case "dead":
                return f"dead {self.name} {self.sign} {format_number(self.bound)}"
            case "still":
                return f"{self.name} still {self.times}".lstrip()
            case "zero":
                return f"{self.name} zero".lstrip()
            case "rises":
                return f"loss rises {self.times}"
            case _:
                return self.kind


@dataclass(frozen=True, slots=True)
class WatchedValues:
    """What of a model a watchpoint is about: of several parameters, each one alone, but for "update" all together."""

    kind: Kind
    params: tuple[int, ...] = ()  # their indices


def watched_values(watchpoint: Watchpoint, params: tuple[str, ...]) -> WatchedValues:
    """Return what a watchpoint is about in a model with parameters of these names.

    What is named as nothing else is called is a metric.
    """
    return _watched_values(watchpoint.kind, watchpoint.name, params)


@lru_cache(maxsize=64)
def _watched_values(kind: str, name: str, params: tuple[str, ...]) -> WatchedValues:
    if kind == "dead":
        return WatchedValues("activations")
    if kind in ("bound", "rises") and name in USUAL:
        return WatchedValues(name, tuple(range(len(params))))  # type: ignore[arg-type]
    if not name:
        return WatchedValues("grads" if kind == "zero" else "params", tuple(range(len(params))))
    if indices := matching(name, params):
        return WatchedValues("params", indices)
    if kind != "still":
        stem, _, end = name.rpartition(".")
        indices = matching(stem, params)
        if indices and end == "grad":
            return WatchedValues("grads", indices)
        if indices and end == UPDATE and kind == "bound":
            return WatchedValues("updates", indices)
    return WatchedValues("metric")


def matching(name: str, names: Sequence[str]) -> tuple[int, ...]:
    """Return the indices of the one of this name; where there is none, of those that it is a pattern for."""
    if name in names:
        return (names.index(name),)
    if not is_pattern(name):
        return ()
    fits = re.compile(translate(name)).match
    return tuple(index for index, each in enumerate(names) if fits(each))


def is_pattern(name: str) -> bool:
    """Return whether a name may stand for several."""
    return "*" in name or "?" in name


def parse_watchpoint(text: str) -> Watchpoint:
    """Read "nonfinite", "grad_norm > 10", "w still 5", "dead relu > 0.9" or "loss rises 5"; raises UnknownCommand."""
    text = " ".join(text.split())
    if text == "nonfinite":
        return Watchpoint("nonfinite")
    if match := _RISES.fullmatch(text):
        return Watchpoint("rises", LOSS, times=_times(match[1], text))
    if match := _STILL.fullmatch(text):
        return Watchpoint("still", match[1] or "", times=_times(match[2], text))
    if match := _ZERO.fullmatch(text):
        return Watchpoint("zero", match[1] or match[2] or "")
    if match := _BOUND.fullmatch(text):
        return _bounded(match[2], match[3], match[4], text, is_share=bool(match[1]))
    raise UnknownCommand(f'"{_clipped(text)}" is no watchpoint: {_meant(text)}.')


def _meant(text: str) -> str:
    """Return a sentence: which condition a text is most like, or else which there are."""
    if text.lower() in ("nan", "inf", "infinity", "infinite"):
        return "nonfinite watches for NaN and infinity"
    name, blank, _ = text.partition(" ")
    near = nearest(text, (*EXAMPLES, f"{name} still" if blank else "still"))
    return f"the nearest is {near}" if near else f"there are {', '.join(EXAMPLES)}"


def _bounded(name: str, sign: str, number: str, text: str, *, is_share: bool) -> Watchpoint:
    if number.startswith("=") and parse_number(number[1:].strip()) is not None:
        likely = f"{'dead ' * is_share}{name} {sign} {number[1:].strip()}"
        raise UnknownCommand(f'"{_clipped(text)}" is no watchpoint: the nearest is {_clipped(likely)}.')
    bound = parse_number(number)
    if bound is None or not math.isfinite(bound):
        raise UnknownCommand(f'"{_clipped(text)}" needs a number behind {sign}, as in {_clipped(name)} {sign} 10.')
    watchpoint = Watchpoint("dead" if is_share else "bound", name, "<" if sign == "<" else ">", bound)
    if is_share and not (0 <= bound < 1 if sign == ">" else 0 < bound <= 1):
        raise UnknownCommand(
            f'"{_clipped(text)}" compares a share of zeros, from 0 to 1, as in dead {_clipped(name)} > 0.9.'
        )
    if (name in USUAL[1:] or name.endswith((".grad", ".update"))) and not can_hold_of_norm(watchpoint):
        raise UnknownCommand(f'"{_clipped(text)}" {NO_NORM}')
    return watchpoint


def can_hold_of_norm(watchpoint: Watchpoint) -> bool:
    """Return whether a norm can be below or above the bound, as all are above less than 0."""
    return not (watchpoint.bound < 0 or (watchpoint.sign == "<" and watchpoint.bound == 0))


def _times(number: str | None, text: str) -> int:
    if number is None:
        return DEFAULT_TIMES
    if not re.fullmatch(r"[1-9]\d{0,8}", number):
        example = "loss rises 5" if text.startswith("loss rises") else "w still 5"
        raise UnknownCommand(f'"{_clipped(text)}" needs whole iterations, from 1 to 999,999,999, as in {example}.')
    return int(number)


def _clipped(text: str) -> str:
    return clipped(text, MAX_QUOTED_LENGTH)


@dataclass(frozen=True, slots=True)
class FiredWatchpoint:
    """A frame at which conditions hold; `reason` is one sentence about all of them."""

    index: int
    iteration: int
    reason: str

    def __str__(self) -> str:
        return f"frame {self.index}: {self.reason}"


def safe_range(bounds: Iterable[Watchpoint]) -> Range:
    """Return between what a norm lies where none of the bounds holds, nor nearly does."""
    low, high = FINITE
    for each in bounds:
        if each.sign == ">":
            high = min(high, each.bound / (1 + MARGIN))
        else:
            low = max(low, each.bound / (1 - MARGIN))
    return low, high


def is_safe(norm: float, safe: Range) -> bool:
    """Return whether a norm lies in a range; one that is not finite never does, since its squares may have overflown.

    It may be of finite values, beyond no bound: the exact norm decides.
    """
    return math.isfinite(norm) and safe[0] <= norm <= safe[1]


def is_too_small(watchpoint: Watchpoint) -> bool:
    """Return whether a norm may be above a bound and yet vanish in float32."""
    return watchpoint.sign == ">" and watchpoint.bound < MIN_BOUND
