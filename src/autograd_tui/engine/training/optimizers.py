"""Optimizers of `torch.optim` made from their specs, and specs read from optimizers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from autograd_tui.core.errors import Refused
from autograd_tui.core.optimizer_spec import LrDecay, OptimizerSpec
from autograd_tui.engine.training.compiler_import import without_compiler
from autograd_tui.engine.training.param_groups import Group, groups_for_optimizer, optimizer_classes
from autograd_tui.engine.training.tensor_properties import is_number_or_tensor

MAX_NAME_LENGTH = 40  # of an optimizer that is compared with others, or shown in a sentence


def make_optimizer(
    spec: OptimizerSpec, groups: Sequence[Group], lrs: Sequence[float] | None = None
) -> torch.optim.Optimizer:
    """Return the optimizer that `spec` names, as a script makes it, with its own lr by default.

    Groups keep those of their options that it takes; `lrs`, one for each group, override them. Raises Refused where
    it needs a closure to step, or does not take the options.
    """
    classes = optimizer_classes()
    if spec.name not in classes:
        usable = [name for name, cls in classes.items() if _closure_free(cls)]
        near = get_close_matches(spec.name, usable, n=1) if len(spec.name) <= MAX_NAME_LENGTH else []
        hint = f"the nearest is {near[0]}" if near else f"it has {', '.join(usable)}"
        raise Refused(f'torch.optim has no "{spec.name[:MAX_NAME_LENGTH]}": {hint}.')
    cls = classes[spec.name]
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
        with without_compiler():
            return cls(groups_for_optimizer(groups, cls, lrs), **options)
    except Exception as error:  # PyTorch's own checks, of many types
        sentence = str(error).strip().split("\n")[0] or type(error).__name__
        raise Refused(f"{cls.__name__} does not take these parameters or options: {sentence}") from error


def _closure_free(cls: type[torch.optim.Optimizer]) -> bool:
    return inspect.signature(cls.step).parameters["closure"].default is None


def override_spec(spec: OptimizerSpec, name: str | None, lr: float | None, options: dict[str, float]) -> OptimizerSpec:
    """Return a scenario's optimizer with what flags say, its learning rate unless they name one.

    `name` may be a whole spec, "sgd,momentum=0.9"; another optimizer starts without the old one's options.
    """
    if name is not None:
        named = OptimizerSpec.parse(name)
        spec = replace(named, lr=spec.lr if named.lr is None else named.lr)
    if lr is not None:
        spec = replace(spec, lr=lr)
    for option, value in options.items():
        spec = spec.with_option(option, value)
    return spec


def make_scheduler(decay: LrDecay, optimizer: torch.optim.Optimizer) -> ReduceLROnPlateau:
    """Return the scheduler, its counters at zero."""
    return ReduceLROnPlateau(optimizer, factor=decay.factor, patience=decay.patience, min_lr=decay.min_lr)


def initial_spec(optimizer: torch.optim.Optimizer, model: nn.Module) -> OptimizerSpec:
    """Return the spec of an optimizer that has not stepped yet.

    Raises Refused where one made from the spec would not train the same parameters in the same way.
    """
    cls = type(optimizer)
    if optimizer_classes().get(cls.__name__.lower()) is not cls:
        raise Refused(f"{cls.__name__} is none of torch.optim's optimizers, and only those can be stepped.")
    if _has_stepped(optimizer):
        raise Refused(f"the {cls.__name__} has stepped already: leave the training loop out of the file.")
    own = {id(param) for group in optimizer.param_groups for param in group["params"]}
    trained = {id(param) for param in model.parameters() if param.requires_grad}
    if not trained <= own:
        raise Refused(
            f"the {cls.__name__} trains only some of the model's parameters: freeze those that it leaves out."
        )
    if not own <= {id(param) for param in model.parameters()}:
        raise Refused(f"the {cls.__name__} trains parameters that are not the model's.")
    return optimizer_to_spec(optimizer)


def optimizer_to_groups(optimizer: torch.optim.Optimizer) -> list[Group]:
    """Return the parameter groups where there are several, each with the options that differ from the first one's."""
    first, *others = optimizer.param_groups
    options = inspect.signature(type(optimizer)).parameters
    groups = [{"params": group["params"]} for group in optimizer.param_groups]
    for group, own in zip(groups[1:], others, strict=True):
        for option in options:
            if option != "params" and option in own and _differs(own[option], _unwrapped(first[option])):
                group[option] = _plain_option(option, own[option])
    return groups if others else []


def optimizer_to_spec(optimizer: torch.optim.Optimizer) -> OptimizerSpec:
    """Return the optimizer's spec: class, learning rate and the options that are not at their default.

    Raises Refused where a spec cannot hold an option.
    """
    cls, group = type(optimizer), optimizer.param_groups[0]
    spec = OptimizerSpec(cls.__name__.lower(), lr=float(group["lr"]))
    for option, parameter in inspect.signature(cls).parameters.items():
        if option in group and option not in ("params", "lr") and _differs(group[option], parameter.default):
            spec = spec.with_option(option, _plain_option(option, group[option]))
    return spec


def _has_stepped(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether its state holds anything but zeros, with which some begin."""
    states = list(dict.values(optimizer.state)) if isinstance(optimizer.state, dict) else [optimizer.state]
    return any(not isinstance(state, dict) or any(map(_is_nonzero, dict.values(state))) for state in states)


def _is_nonzero(value: Any) -> bool:
    return value is not None and not (is_number_or_tensor(value) and not torch.as_tensor(value).any())


def _differs(value: Any, default: Any) -> bool:
    return bool(_unwrapped(value) != default)


def _plain_option(option: str, value: Any) -> Any:
    """Return an option's value as a spec holds it; raises Refused where it cannot."""
    value = _unwrapped(value)
    if isinstance(value, (tuple, list)) and all(isinstance(each, (int, float, Tensor)) for each in value):
        return tuple(float(each) for each in value)
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise Refused(f"the optimizer's option {option} is a {type(value).__name__}, which words cannot say.")
    return value


def _unwrapped(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
