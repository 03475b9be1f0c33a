"""A file that holds the parts of a training loop under plain names, as a script or a notebook does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import read_file
from autograd_tui.core.terminal_text import print_lines
from autograd_tui.engine.training.data_loader import from_loader, holds_loader
from autograd_tui.engine.training.optimizers import initial_spec, optimizer_to_groups
from autograd_tui.engine.training.scenario import Options, Parts, Scenario
from autograd_tui.scenarios.loop_check import Roles, find_unsupported

MODELS = ("model", "net")
LOADERS = ("loader", "dataloader", "train_loader", "train_dataloader")
PAIRS = (("data", "labels"), ("inputs", "targets"), ("x", "y"), ("X", "Y"), ("X", "y"))
LOSSES = ("loss", "loss_fn", "criterion", "loss_function")
OPTIMIZERS = ("optim", "optimizer", "opt")


def script_scenario(title: str, names: Mapping[str, Any], run_again: Callable[[], Mapping[str, Any]]) -> Scenario:
    """Make a scenario of what a file has just left under plain names; raises Refused where some are missing.

    It begins where the file's last line left the random numbers, as a script's loop would. Whoever opens it once more
    gets it from `run_again`: what was trained is not new any more.
    """
    unused = [(_parts(names), torch.get_rng_state())]
    for sentence in _warnings(names):
        print_lines(sentence, file=sys.stderr)

    def build(options: Options) -> Parts:
        if not unused:
            return _parts(run_again())
        parts, rng = unused.pop()
        torch.set_rng_state(rng)
        return parts

    return Scenario(title, build)


def _parts(names: Mapping[str, Any]) -> Parts:
    model, loader, loss, optimizer = _role_names(names)
    pair = next((pair for pair in PAIRS if all(isinstance(names.get(name), Tensor) for name in pair)), None)
    parts = {"model": model, "data with labels (or loader)": loader or pair, "loss": loss, "optimizer": optimizer}
    if missing := [what for what, name in parts.items() if not name]:
        raise Refused(f"missing: {', '.join(missing)}{_suggestions(names, missing)}.")
    value = names[optimizer]
    inputs, targets = pair if pair and not loader else ("inputs", "targets")
    return Parts(
        model=names[model],
        batch=from_loader(names[loader]) if loader else _constant_batch((names[inputs], names[targets])),
        loss=names[loss],
        optimizer=value if isinstance(value, str) else str(initial_spec(value, names[model])),
        groups=() if isinstance(value, str) else optimizer_to_groups(value),
        names=(inputs, targets, "prediction"),
        listing={
            "setup": f"{inputs}, {targets} = next batch of {loader}" if loader else "",
            "forward": f"prediction = {model}({inputs})\nloss = {loss}(prediction, {targets})",
            "step": f"{optimizer}.step()",
            "zero_grad": f"{optimizer}.zero_grad()",
        },
    )


def _role_names(names: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return the names of model, loader, loss and optimizer, each "" where there is none."""
    return (
        _first_name(names, MODELS, lambda value: isinstance(value, nn.Module)),
        _first_name(names, LOADERS, holds_loader),
        _first_name(names, LOSSES, lambda value: callable(value) and not isinstance(value, (type, Tensor))),
        _first_name(names, OPTIMIZERS, lambda value: isinstance(value, (str, Optimizer))),
    )


def _suggestions(names: Mapping[str, Any], missing: Iterable[str]) -> str:
    """Return what there is under other names, and what can be done."""
    kinds: dict[str, Callable[[Any], bool]] = {
        "model": lambda value: isinstance(value, nn.Module) and not _is_torchs_loss(value),
        "data with labels (or loader)": lambda value: isinstance(value, DataLoader),
        "loss": _is_torchs_loss,
        "optimizer": lambda value: isinstance(value, Optimizer),
    }
    candidates = {what: [name for name, value in names.items() if kinds[what](value)] for what in missing}
    if len(candidates.get("optimizer", [])) > 1:
        optimizers = _join_words(candidates["optimizer"])
        return (
            f"; there are the optimizers {optimizers}, and one is stepped: write a build function "
            "with one model of all parts and one optimizer, in which each part's turn is an iteration of its own"
        )
    hints = [
        f"{_join_words(others)} could be called {what.split()[-1].rstrip(')')}"
        for what, others in candidates.items()
        if others
    ]
    return f"; {', '.join(hints)}" if hints else ""


def _is_torchs_loss(value: Any) -> bool:
    return type(value).__module__ == nn.MSELoss.__module__


def _join_words(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _warnings(names: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a run does not do that the file does in its loop, or has made for it."""
    model, _, loss, optimizer = _role_names(names)
    kinds = {LRScheduler: "scheduler", Optimizer: "optimizer", GradScaler: "scaler", nn.Module: "model"}
    others = {
        name: next(kind for cls, kind in kinds.items() if isinstance(value, cls))
        for name, value in names.items()
        if name not in (model, loss, optimizer) and isinstance(value, tuple(kinds))
    }
    text = _source_of(names.get("__file__"))
    lines = find_unsupported(text, Roles(model, optimizer, loss, others))
    yield from (f"{Path(names['__file__']).name}, line {line}: {sentence}" for line, sentence in lines)
    sentences = " ".join(sentence for _, sentence in lines)
    for name, kind in others.items():
        if kind == "scheduler" and f"{name}.step" not in sentences:
            yield f"{name}, a {type(names[name]).__name__}, is left out: --decay plateau is the schedule that there is"
        if kind == "optimizer" and f"{name}.step" not in sentences:
            yield f"the optimizer {name} is left out: {optimizer} is the one that is stepped"


def _source_of(file: str | None) -> str:
    try:
        return read_file(file or "").decode()
    except (OSError, ValueError):
        return ""


def _first_name(names: Mapping[str, Any], choices: Iterable[str], fits: Callable[[Any], bool]) -> str:
    """Return the first name of `choices` that holds a fitting value, else ""."""
    return next((name for name in choices if name in names and fits(names[name])), "")


def _constant_batch(batch: tuple[Tensor, Tensor]) -> Callable[[int], tuple[Tensor, Tensor]]:
    return lambda i: batch
