"""What a scenario may be asked for: the options that it names, and the values given for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.opening import FLAGS
from autograd_tui.engine.values.optimizer_spec import parse_number

RESERVED = (
    *("seed", "threads", "optimizer", "lr", "momentum", "weight_decay", "decay", "memory", "state"),
    *("values", "generator"),
)
MOST = 1 << 62  # that a whole number stays below, as in a journal
DATA = ("fixed", "fresh")  # one batch drawn in build, or a new one each forward


@dataclass(frozen=True, slots=True)
class File:
    """The default of an option that names a file, as in `@scenario("mine", points=File("points.csv"))`.

    A name that is given for it reaches `build` whole, from the root on, and a journal holds what the file hashes to.
    """

    default: str | None = None
    words: tuple[str, ...] = ()  # values that name no file
    fetched: tuple[str, ...] = ()  # and such for which one is read, or fetched from the net

    def names(self, value: Any) -> bool:
        """Tell whether a value is the name of a file."""
        return isinstance(value, str) and value not in (*self.words, *self.fetched)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks of a scenario; its own options are attributes: `options.batch_size`."""

    seed: int = 0
    device: str = "cpu"
    values: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        """Give an option that the scenario has named; raises AttributeError, saying how, where it has not."""
        if name.startswith("__") or name not in self.values:
            raise AttributeError(f'no option "{name}": name it with a default, as in @scenario("...", {name}=...)')
        return self.values[name]

    def generator(self, index: int) -> torch.Generator:
        """Give the CPU generator that fresh batch number `index` is drawn from, the same on every run."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + index)


def flag(name: str) -> str:
    """Write an option as the command line does: --batch-size, --option width=."""
    return "--" + name.replace("_", "-") if name in (*FLAGS, "state") else f"--option {name}="


def chosen(title: str, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Put what was given over the defaults; raises Refused for an option or value that has no meaning here."""
    for name in given:
        if name not in defaults:
            takes = ", ".join(map(flag, defaults))
            raise Refused(f'"{title}" has no {flag(name)}: it takes {takes}.' if takes else _none(title, name))
    plain = {name: each.default if isinstance(each, File) else each for name, each in defaults.items()}
    return plain | {name: _value(name, value, plain[name]) for name, value in given.items()}


def check_ranges(options: Options, **ranges: tuple[int, int]) -> None:
    """Raise Refused where an option lies outside its range, both ends of which are allowed."""
    for name, (least, most) in ranges.items():
        value = getattr(options, name)
        if not least <= value <= most:
            shown = value if abs(value) < 1e15 else f"{float(value):g}"
            raise Refused(f"{flag(name).rstrip('=')} must lie between {least} and {most}, not {shown}.")


def _none(title: str, name: str) -> str:
    return f'"{title}" has no {flag(name)}.' if name in FLAGS else f'"{title}" has no option {name}, nor any other.'


def _value(name: str, value: Any, default: Any) -> Any:
    """Read a value of the default's type; a text stands for a number, or for yes and no, where one is wanted."""
    if isinstance(value, str) and not isinstance(default, str) and default is not None:
        value = _read(name, value, default)
    if name == "data" and value not in DATA:
        raise Refused(f"--data must be fixed or fresh, not {value}.")
    if isinstance(value, int) and abs(value) >= MOST:
        raise Refused(f"{flag(name).rstrip('=')} is further from 0 than any whole number here: {MOST - 1} is the most.")
    if name.endswith("_size") and isinstance(value, int) and value < 1:
        raise Refused(f"{flag(name).rstrip('=')} must be at least 1, not {value}.")
    return value


def _read(name: str, text: str, default: Any) -> Any:
    number = parse_number(text)
    if isinstance(default, bool) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if isinstance(default, int) and not isinstance(default, bool) and number is not None and number.is_integer():
        return int(number)
    if isinstance(default, float) and number is not None:
        return number
    wanted = "true or false" if isinstance(default, bool) else "a whole number" if isinstance(default, int) else ""
    raise Refused(f"{flag(name)}{text} must be {wanted or 'a number'}, as its default {default} is.")
