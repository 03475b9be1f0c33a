"""Every optimizer of `torch.optim` that can step without a closure, by its name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from autograd_tui.engine.training.groups import Group, fitting, known_optimizers
from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.optimizer_spec import Decay, OptimizerSpec

LONGEST = 40  # characters of a name that is compared, or shown in a sentence


def make_optimizer(
    spec: OptimizerSpec, groups: Sequence[Group], lrs: Sequence[float] | None = None
) -> torch.optim.Optimizer:
    """Make the optimizer that `spec` names, as a script would, with its own lr by default; raises Refused.

    Groups keep what options of theirs it takes; `lrs`, one a group, go before those.
    """
    known = known_optimizers()
    if spec.name not in known:
        usable = [name for name, cls in known.items() if _closure_free(cls)]
        near = get_close_matches(spec.name, usable, n=1) if len(spec.name) <= LONGEST else []
        rest = f"the nearest is {near[0]}" if near else f"it has {', '.join(usable)}"
        raise Refused(f'torch.optim has no "{spec.name[:LONGEST]}": {rest}.')
    cls = known[spec.name]
    if not _closure_free(cls):
        raise Refused(f"{cls.__name__} calls forward and backward itself, through a closure: it cannot be stepped.")
    takes = [name for name in inspect.signature(cls).parameters if name not in ("params", "lr")]
    for option, _ in spec.options:
        if option not in takes:
            raise Refused(f"{spec.name} has no option {option}: it takes lr, {', '.join(takes)}.")
    if spec.lr is not None and not 0 <= spec.lr < float("inf"):
        raise Refused(f"a learning rate must be a number from 0 up, not {spec.lr}.")
    try:
        options: dict[str, Any] = dict(spec.options) if spec.lr is None else {"lr": spec.lr, **dict(spec.options)}
        return cls(fitting(groups, cls, lrs), **options)
    except Exception as error:  # PyTorch's own checks, of many types
        raise Refused(f"{cls.__name__} does not take these parameters or options: {_sentence(error)}") from error


def _closure_free(cls: type[torch.optim.Optimizer]) -> bool:
    return inspect.signature(cls.step).parameters["closure"].default is None


def _sentence(error: BaseException) -> str:
    """Take the first line of an exception's text."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def override(spec: OptimizerSpec, name: str | None, lr: float | None, options: dict[str, float]) -> OptimizerSpec:
    """Put what flags say over a scenario's own optimizer, which keeps its learning rate unless given.

    `name` may be a whole spelling, "sgd,momentum=0.9"; another optimizer starts without the old one's options.
    """
    if name is not None:
        given = OptimizerSpec.parse(name)
        spec = replace(given, lr=spec.lr if given.lr is None else given.lr)
    if lr is not None:
        spec = replace(spec, lr=lr)
    for option, value in options.items():
        spec = spec.with_option(option, value)
    return spec


def make_scheduler(decay: Decay, optimizer: torch.optim.Optimizer) -> ReduceLROnPlateau:
    """Make the scheduler, its counters at zero."""
    return ReduceLROnPlateau(optimizer, factor=decay.factor, patience=decay.patience, min_lr=decay.min_lr)
