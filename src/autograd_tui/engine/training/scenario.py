"""Scenarios: functions that users write, which build a model, its data and its loss from options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.core.errors import Refused
from autograd_tui.core.optimizer_spec import parse_number
from autograd_tui.core.run_config import FLAG_OPTIONS

RESERVED = (
    *("seed", "threads", "optimizer", "lr", "momentum", "weight_decay", "decay", "memory", "state"),
    *("values", "generator"),
)
MAX_INTEGER = (1 << 62) - 1  # the largest whole number, positive or negative, as in a journal
DATA_MODES = ("fixed", "fresh")  # one batch drawn in build, or a new one each forward


@dataclass(frozen=True, slots=True)
class File:
    """The default of an option that names a file, as in `@scenario("mine", points=File("points.csv"))`.

    `build` gets the absolute path, and a journal holds the file's hash.
    """

    default: str | None = None
    words: tuple[str, ...] = ()  # values that name no file
    fetched: tuple[str, ...] = ()  # values for which a file is read all the same, or fetched from the net

    def names(self, value: Any) -> bool:
        """Return whether a value is the name of a file."""
        return isinstance(value, str) and value not in (*self.words, *self.fetched)


@dataclass(frozen=True, slots=True)
class Options:
    """The options that `build` gets; those of the scenario's own are attributes: `options.batch_size`."""

    seed: int = 0
    device: str = "cpu"
    values: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        """Return an option that the scenario has named; raises AttributeError, saying how, where it has not."""
        if name.startswith("__") or name not in self.values:
            raise AttributeError(f'no option "{name}": name it with a default, as in @scenario("...", {name}=...)')
        return self.values[name]

    def generator(self, index: int) -> torch.Generator:
        """Return the CPU generator from which fresh batch number `index` is drawn, the same on every run."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + index)


def flag(name: str) -> str:
    """Return an option as the command line has it: --batch-size, --option width=."""
    return "--" + name.replace("_", "-") if name in (*FLAG_OPTIONS, "state") else f"--option {name}="


def check_ranges(options: Options, **ranges: tuple[int, int]) -> None:
    """Raise Refused where an option lies outside its range, both ends of which are allowed."""
    for name, (low, high) in ranges.items():
        value = getattr(options, name)
        if not low <= value <= high:
            shown = value if abs(value) < 1e15 else f"{float(value):g}"
            raise Refused(f"{flag(name).rstrip('=')} must lie between {low} and {high}, not {shown}.")


def _parse_value(name: str, value: Any, default: Any) -> Any:
    """Return a value of the default's type; a text is parsed where that is a number or a bool. Raises Refused."""
    if isinstance(value, str) and not isinstance(default, str) and default is not None:
        value = _parse_text(name, value, default)
    if name == "data" and value not in DATA_MODES:
        raise Refused(f"--data must be fixed or fresh, not {value}.")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise Refused(
            f"{flag(name).rstrip('=')} is further from 0 than any whole number here: {MAX_INTEGER} is the most."
        )
    if name.endswith("_size") and isinstance(value, int) and value < 1:
        raise Refused(f"{flag(name).rstrip('=')} must be at least 1, not {value}.")
    return value


def _parse_text(name: str, text: str, default: Any) -> Any:
    number = parse_number(text)
    if isinstance(default, bool) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if isinstance(default, int) and not isinstance(default, bool) and number is not None and number.is_integer():
        return int(number)
    if isinstance(default, float) and number is not None:
        return number
    wanted = "true or false" if isinstance(default, bool) else "a whole number" if isinstance(default, int) else ""
    raise Refused(f"{flag(name)}{text} must be {wanted or 'a number'}, as its default {default} is.")


MAX_PARAMETERS = 1 << 20  # of a group: an endless iterator ends here
PHASES = ("setup", "forward", "backward", "step", "zero_grad")  # that a listing has lines for


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A training loop in parts, as `build` returns them; raises Refused, in one sentence, where they are not usable.

    picture: a function that shows what the model has learned. It is called with a copy of the model in eval mode,
    without gradients, whenever parameters have changed and nothing waits, and returns one of

    - rows of text, as one string or a list of them: shown as they are;
    - texts by name, {"truth": "...", "written": "..."}: one below the other, with the differences marked;
    - points by name, {"truth": [(x, y), ...], "predicted": ...}, also as tensors of shape (n, 2): drawn in one plot;
    - Plane(values, x=(low, high), y=(low, high), points={...}): values from 0 to 1 over two inputs.

    Its name is the panel's title. What it draws of random numbers or changes in the copy does not reach the run.
    """

    model: nn.Module
    batch: Callable[[int], Any]  # batch(0) is the first; (inputs, targets) unless `forward` knows better
    loss: Callable[[Any, Any], Tensor] | None = None  # loss(prediction, target), in torch's order
    forward: Callable[[nn.Module, Any], Any] | None = None  # (model, batch) -> see `predict`: loss, (loss, output), ...
    optimizer: str = "sgd,lr=0.01"  # as the command optimizer= spells it; flags override
    groups: Sequence[Mapping[str, Any]] = ()  # of parameters, in torch's own form; by default one holds them all
    listing: Mapping[str, str] = field(default_factory=dict)  # source lines: "setup", and one for each phase
    names: tuple[str, str, str] = ("inputs", "targets", "prediction")  # as the listing calls them
    metrics: Mapping[str, Callable[[Any, Any], Any]] = field(default_factory=dict)  # of (prediction, target)
    class_names: tuple[str, ...] = ()
    picture: Callable[[nn.Module], Any] | None = None  # (copy of the model) -> rows, texts, points or a Plane
    settled: Mapping[str, str] = field(default_factory=dict, init=False)  # own options as `settle` sets them

    def __post_init__(self) -> None:
        if not isinstance(self.optimizer, str):
            raise Refused(
                'Parts takes optimizer= in words, such as "sgd,lr=0.1,momentum=0.9": the optimizer is made of it.'
            )
        metrics, listing = _by_name("metrics", self.metrics), _by_name("listing", self.listing)
        if wrong := [name for name, each in metrics.items() if not callable(each)]:
            raise Refused(f'Parts takes functions as metrics=, and "{wrong[0]}" is {type_text(metrics[wrong[0]])}.')
        if wrong := [name for name in listing if name not in PHASES]:
            raise Refused(f'Parts takes listing= for {", ".join(PHASES)}, not for "{wrong[0]}".')
        plain = {
            "optimizer": as_text(self.optimizer),
            "groups": _as_lists(self.groups),
            "listing": dict(zip(listing, _texts("listing", [*listing.values()]), strict=True)),
            "names": _texts("names", self.names),
            "metrics": metrics,
            "class_names": _texts("class_names", self.class_names),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        if len(self.names) != 3:
            raise Refused(f"Parts takes names= of inputs, targets and prediction, and here are {len(self.names)}.")
        if not isinstance(self.model, nn.Module):
            raise Refused(f"Parts takes a torch.nn.Module as model=, not {type(self.model).__name__}.")
        if not callable(self.batch):
            raise Refused("Parts takes a function as batch=, such as lambda i: (x, y).")
        if (self.loss is None) == (self.forward is None):
            raise Refused("Parts takes either loss=, for loss(prediction, target), or forward=, not both or neither.")
        for name, function in (("loss", self.loss), ("forward", self.forward), ("picture", self.picture)):
            if function is not None and not callable(function):
                raise Refused(f"Parts takes a function as {name}=, not {type_text(function)}.")

    def settle(self, **own: str) -> Parts:
        """Set what options of the scenario's own turned out to be, to repeat the run with; return these parts."""
        _texts("settled", [*own.values()])
        object.__setattr__(self, "settled", own)
        return self


def type_text(value: Any) -> str:
    """Return a value's type with its article, "a list", and nothing of what it says of itself."""
    kind = type(value).__name__
    return f"{'an' if kind[:1] in 'aeiouAEIOU' else 'a'} {kind}"


def as_text(value: str) -> str:
    """Return a plain str, not a subclass's, that UTF-8 can encode."""
    return str.__str__(value).encode("utf-8", "backslashreplace").decode()


def _by_name(part: str, given: Any) -> dict[str, Any]:
    """Return a part as a dict by name; raises Refused where it is none."""
    if not isinstance(given, Mapping):
        raise Refused(f"Parts takes {part}= as a dict by name, not {type(given).__name__}.")
    pairs = list(given.items())
    if wrong := [name for name, _ in pairs if not isinstance(name, str)]:
        raise Refused(f"Parts takes {part}= as a dict by name, and one name is {type_text(wrong[0])}.")
    return {as_text(name): each for name, each in pairs}


def _texts(part: str, given: Any) -> tuple[str, ...]:
    """Return a part as a tuple of texts; raises Refused where it is none."""
    if not isinstance(given, (list, tuple)):
        raise Refused(f"Parts takes texts in {part}= as a list or a tuple, not {type_text(given)}.")
    if wrong := [each for each in given if not isinstance(each, str)]:
        raise Refused(f"Parts takes texts in {part}=, and one of them is {type_text(wrong[0])}.")
    return tuple(map(as_text, given))


def _as_lists(groups: Any) -> tuple[dict[str, Any], ...]:
    """Return the groups with their parameters as lists: `model.parameters()` can be read only once."""
    given = groups if isinstance(groups, (list, tuple)) else [None]
    if not all(isinstance(each, Mapping) and "params" in each for each in given):
        raise Refused('Parts takes groups= as torch does: [{"params": model.parameters(), "lr": 0.1}, ...].')
    params = [each["params"] for each in groups]
    if not all(isinstance(each, (Tensor, str, Iterable)) for each in params):
        raise Refused('Parts takes parameters as "params" of a group, as in {"params": model.parameters()}.')
    listed = [[each] if isinstance(each, (Tensor, str)) else list(islice(each, MAX_PARAMETERS)) for each in params]
    return tuple({**each, "params": own} for each, own in zip(groups, listed, strict=True))


@dataclass(frozen=True, slots=True)
class Scenario:
    """A name and the function that builds it; `defaults` holds the options that it takes."""

    title: str
    build: Callable[[Options], Parts]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", _title(self.title))
        if not callable(self.build):
            raise Refused(f'@scenario("{self.title}") stands above a build function, not {type_text(self.build)}.')
        if wrong := [name for name in self.defaults if not name.isidentifier()]:
            raise Refused(f'scenario("{self.title}") has an option "{wrong[0]}", which is no name in Python.')
        device = self.defaults.get("device")
        if not (device is None or isinstance(device, str)):
            raise Refused(f'scenario("{self.title}") takes device= as a text, such as "cpu", not {type_text(device)}.')

    def options(self, seed: int, given: Mapping[str, Any], *, device: str = "cpu") -> Options:
        """Return the options for `build`; raises Refused for one that has no meaning here."""
        return Options(seed, device, self._merged(given))

    def _merged(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults with the values given; raises Refused for an option or value that has no meaning here."""
        defaults = {
            name: default.default if isinstance(default, File) else default
            for name, default in self.defaults.items()
            if name != "device"
        }
        flags = ", ".join(map(flag, defaults))
        for name in given:
            if name not in defaults and flags:
                raise Refused(f'"{self.title}" has no {flag(name)}: it takes {flags}.')
            if name not in defaults:
                nothing = flag(name) if name in FLAG_OPTIONS else f"option {name}, nor any other"
                raise Refused(f'"{self.title}" has no {nothing}.')
        return defaults | {name: _parse_value(name, value, defaults[name]) for name, value in given.items()}

    def file_options(self, given: Mapping[str, Any]) -> dict[str, str]:
        """Return those of the given options that name files."""
        kinds = ((name, value, self.defaults.get(name)) for name, value in given.items())
        return {name: value for name, value, kind in kinds if isinstance(kind, File) and kind.names(value)}

    def opened_options(self, given: Mapping[str, Any], *, own_code: bool) -> dict[str, Any]:
        """Return the options by which something may be opened: files, what is fetched and, of `own_code`, any text.

        Raises Refused for an option that has no meaning here.
        """
        opened: dict[str, Any] = {}
        values = self._merged(given)
        for name in given:
            default, value = self.defaults[name], values[name]
            if isinstance(default, File):
                opens = default.names(value) or value in default.fetched
            else:
                opens = own_code and value != default and _contains_text(value)
            opened |= {name: value} if opens else {}
        return opened


def _contains_text(value: Any) -> bool:
    inside = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, str) or (isinstance(value, (list, tuple, Mapping)) and any(map(_contains_text, inside)))


def scenario(title: str, **defaults: Any) -> Callable[[Callable[[Options], Parts]], Scenario]:
    """Return a decorator that makes a scenario of a build function.

    `defaults` name the options that it takes, as `options.NAME` there: batch_size, image_size and data have flags of
    their own, others are given with --option NAME=VALUE. `device` is where it trains unless --device says otherwise.
    File("points.csv") is the default of one that names a file.
    """
    title = _title(title)  # where the parentheses are forgotten, nothing else is ever called
    taken = [name for name in defaults if name in RESERVED]
    if taken:
        raise Refused(f'scenario("{title}") names {", ".join(taken)}: that is an option of every scenario already.')
    return lambda build: Scenario(title, build, defaults)


def _title(title: Any) -> str:
    if not isinstance(title, str):
        raise Refused('@scenario("a title") stands above a build function: the title is a text in parentheses.')
    return as_text(title)
