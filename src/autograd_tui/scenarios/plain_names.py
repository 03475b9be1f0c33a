"""A file that holds the parts of a training loop under plain names, as a script or a notebook does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from autograd_tui.engine.training.loader import from_loader
from autograd_tui.engine.training.made_optimizer import groups_of, spec_of
from autograd_tui.engine.training.options import Options
from autograd_tui.engine.training.scenario import Parts, Scenario
from autograd_tui.engine.values.errors import Refused

MODELS = ("model", "net")
LOADERS = ("loader", "dataloader", "train_loader", "train_dataloader")
PAIRS = (("data", "labels"), ("inputs", "targets"), ("x", "y"), ("X", "Y"), ("X", "y"))
LOSSES = ("loss", "loss_fn", "criterion", "loss_function")
OPTIMIZERS = ("optim", "optimizer", "opt")


def plain_scenario(title: str, names: Mapping[str, Any], run_again: Callable[[], Mapping[str, Any]]) -> Scenario:
    """Make a scenario of what a file has just left under plain names; raises Refused where some are missing.

    It begins where the file's last line left the random numbers, as a script's loop would. Whoever opens it once more
    gets it from `run_again`: what was trained is not new any more.
    """
    unused = [(_parts(names), torch.get_rng_state())]

    def build(options: Options) -> Parts:
        if not unused:
            return _parts(run_again())
        parts, rng = unused.pop()
        torch.set_rng_state(rng)
        return parts

    return Scenario(title, build)


def _parts(names: Mapping[str, Any]) -> Parts:
    model = _first(names, MODELS, lambda value: isinstance(value, nn.Module))
    loader = _first(names, LOADERS, lambda value: isinstance(value, DataLoader))
    pair = next((pair for pair in PAIRS if all(isinstance(names.get(name), Tensor) for name in pair)), None)
    loss = _first(names, LOSSES, lambda value: callable(value) and not isinstance(value, (type, Tensor)))
    optimizer = _first(names, OPTIMIZERS, lambda value: isinstance(value, (str, torch.optim.Optimizer)))
    found = {"model": model, "data with labels (or loader)": loader or pair, "loss": loss, "optim": optimizer}
    if missing := [what for what, name in found.items() if not name]:
        raise Refused(f"missing: {', '.join(missing)}.")
    made = names[optimizer]
    for name, value in names.items():
        if isinstance(value, LRScheduler):
            kind = type(value).__name__
            print(f"{name}, a {kind}, is left out: --decay plateau is the schedule that there is", file=sys.stderr)
    inputs, targets = pair if pair and not loader else ("inputs", "targets")
    return Parts(
        model=names[model],
        batch=from_loader(names[loader]) if loader else _always((names[inputs], names[targets])),
        loss=names[loss],
        optimizer=made if isinstance(made, str) else str(spec_of(made, names[model])),
        groups=() if isinstance(made, str) else groups_of(made),
        names=(inputs, targets, "prediction"),
        listing={
            "setup": f"{inputs}, {targets} = next batch of {loader}" if loader else "",
            "forward": f"prediction = {model}({inputs})\nloss = {loss}(prediction, {targets})",
            "step": f"{optimizer}.step()",
            "zero_grad": f"{optimizer}.zero_grad()",
        },
    )


def _first(names: Mapping[str, Any], wanted: Iterable[str], fits: Callable[[Any], bool]) -> str:
    """Give the first name that holds what is looked for, else ""."""
    return next((name for name in wanted if name in names and fits(names[name])), "")


def _always(batch: tuple[Tensor, Tensor]) -> Callable[[int], tuple[Tensor, Tensor]]:
    return lambda i: batch
