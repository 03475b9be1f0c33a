"""What a user writes: a function that builds a model, its data and its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.engine.errors import Refused


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks of a scenario."""

    seed: int = 0
    device: str = "cpu"
    batch_size: int = 1
    image_size: int = 64  # pixels, height and width alike
    data: str = "fixed"  # "fixed": one batch drawn in build; "fresh": a new one each forward

    def generator(self, index: int) -> torch.Generator:
        """Give the CPU generator that fresh batch number `index` is drawn from, the same on every run."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A training loop in parts, as `build` returns them."""

    model: nn.Module
    batch: Callable[[int], Any]  # batch(0) is the first; (inputs, targets) unless `forward` knows better
    loss: Callable[[Any, Any], Tensor] | None = None  # loss(prediction, target), in torch's order
    forward: Callable[[nn.Module, Any], Any] | None = None  # (model, batch) -> loss, or (loss, output)
    optimizer: str = "sgd,lr=0.01"  # as the command optimizer= spells it; flags override
    listing: Mapping[str, str] = field(default_factory=dict)  # source lines: "setup", and one for each phase
    names: tuple[str, str, str] = ("inputs", "targets", "prediction")  # as the listing calls them
    metrics: Mapping[str, Callable[[Any, Any], Any]] = field(default_factory=dict)  # of (prediction, target)
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.optimizer, str):
            raise Refused(
                'Parts takes optimizer= in words, such as "sgd,lr=0.1,momentum=0.9": the optimizer is made of it.'
            )
        for name, value in (("metrics", self.metrics), ("listing", self.listing)):
            if not isinstance(value, Mapping):
                raise Refused(f"Parts takes {name}= as a dict by name, not {type(value).__name__}.")
        if not isinstance(self.model, nn.Module):
            raise Refused(f"Parts takes a torch.nn.Module as model=, not {type(self.model).__name__}.")
        if not callable(self.batch):
            raise Refused("Parts takes a function as batch=, such as lambda i: (x, y).")
        if (self.loss is None) == (self.forward is None):
            raise Refused("Parts takes either loss=, for loss(prediction, target), or forward=, not both or neither.")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A name and the function that builds it; `defaults` holds the options that it takes."""

    title: str
    build: Callable[[Options], Parts]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def options(self, seed: int, given: Mapping[str, Any]) -> Options:
        """Put what was given over the defaults; raises Refused for an option that has no meaning here."""
        for name, value in given.items():
            if name != "device" and name not in self.defaults:
                takes = ", ".join(_flag(each) for each in self.defaults if each != "device")
                raise Refused(
                    f'"{self.title}" has no {_flag(name)}: it takes {takes}.'
                    if takes
                    else f'"{self.title}" has no {_flag(name)}.'
                )
            if name == "data" and value not in ("fixed", "fresh"):
                raise Refused(f"--data must be fixed or fresh, not {value}.")
            if name.endswith("_size") and value < 1:
                raise Refused(f"{_flag(name)} must be at least 1, not {value}.")
        return replace(Options(seed=seed), **{**self.defaults, **given})


def scenario(title: str, **defaults: Any) -> Callable[[Callable[[Options], Parts]], Scenario]:
    """Make a scenario of a build function.

    `defaults` name the options that it takes: device, batch_size, image_size, data.
    """
    unknown = set(defaults) - {"device", "batch_size", "image_size", "data"}
    if unknown:
        raise Refused(f'scenario("{title}") names {", ".join(sorted(unknown))}: no such option exists.')
    return lambda build: Scenario(title, build, defaults)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
