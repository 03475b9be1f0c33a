"""Every optimizer of `torch.optim` that can step without a closure, by its name."""

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
from autograd_tui.engine.training.param_groups import Group, fitting, known_optimizers
from autograd_tui.engine.training.tensor_properties import is_number_or_tensor

MAX_NAME_LENGTH = 40  # characters of a name that is compared, or shown in a sentence


def make_optimizer(
    spec: OptimizerSpec, groups: Sequence[Group], lrs: Sequence[float] | None = None
) -> torch.optim.Optimizer:
    """Make the optimizer that `spec` names, as a script would, with its own lr by default; raises Refused.

    Groups keep what options of theirs it takes; `lrs`, one a group, go before those.
    """
    known = known_optimizers()
    if spec.name not in known:
        usable = [name for name, cls in known.items() if _closure_free(cls)]
        near = get_close_matches(spec.name, usable, n=1) if len(spec.name) <= MAX_NAME_LENGTH else []
        rest = f"the nearest is {near[0]}" if near else f"it has {', '.join(usable)}"
        raise Refused(f'torch.optim has no "{spec.name[:MAX_NAME_LENGTH]}": {rest}.')
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
        named = OptimizerSpec.parse(name)
        spec = replace(named, lr=spec.lr if named.lr is None else named.lr)
    if lr is not None:
        spec = replace(spec, lr=lr)
    for option, value in options.items():
        spec = spec.with_option(option, value)
    return spec


def make_scheduler(decay: LrDecay, optimizer: torch.optim.Optimizer) -> ReduceLROnPlateau:
    """Make the scheduler, its counters at zero."""
    return ReduceLROnPlateau(optimizer, factor=decay.factor, patience=decay.patience, min_lr=decay.min_lr)


def spec_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> OptimizerSpec:
    """Name its class, learning rate and the options that are not as PyTorch has them.

    Raises Refused where one that is made of these words would not train the same parameters in the same way.
    """
    cls = type(optimizer)
    if known_optimizers().get(cls.__name__.lower()) is not cls:
        raise Refused(f"{cls.__name__} is none of torch.optim's optimizers, and only those can be stepped.")
    if _has_stepped(optimizer):
        raise Refused(f"the {cls.__name__} has stepped already: leave the training loop out of the file.")
    held = {id(param) for group in optimizer.param_groups for param in group["params"]}
    trained = {id(param) for param in model.parameters() if param.requires_grad}
    if not trained <= held:
        raise Refused(
            f"the {cls.__name__} trains only some of the model's parameters: freeze those that it leaves out."
        )
    if not held <= {id(param) for param in model.parameters()}:
        raise Refused(f"the {cls.__name__} trains parameters that are not the model's.")
    return optimizer_to_spec(optimizer)


def groups_of(optimizer: torch.optim.Optimizer) -> list[Group]:
    """Give its parameter groups where there are several, each with the options that are not the first one's."""
    first, *others = optimizer.param_groups
    takes = inspect.signature(type(optimizer)).parameters
    own = [
        {option: _plain(option, group[option]) for option in takes if _own(option, group, first)} for group in others
    ]
    params = [{"params": group["params"]} for group in optimizer.param_groups]
    return [group | options for group, options in zip(params, [{}, *own], strict=True)] if others else []


def _own(option: str, group: Group, first: Group) -> bool:
    return option != "params" and option in group and _differs(group[option], _number(first[option]))


def optimizer_to_spec(optimizer: torch.optim.Optimizer) -> OptimizerSpec:
    """Name the optimizer, its learning rate and the options that are not as PyTorch has them. Raises Refused."""
    cls, group = type(optimizer), optimizer.param_groups[0]
    spec = OptimizerSpec(cls.__name__.lower(), lr=float(group["lr"]))
    for option, parameter in inspect.signature(cls).parameters.items():
        if option in group and option not in ("params", "lr") and _differs(group[option], parameter.default):
            spec = spec.with_option(option, _plain(option, group[option]))
    return spec


def _has_stepped(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether it remembers anything but zeros, which some begin with."""
    states = list(dict.values(optimizer.state)) if isinstance(optimizer.state, dict) else [optimizer.state]
    return any(not isinstance(state, dict) or any(map(_is_something, dict.values(state))) for state in states)


def _is_something(value: Any) -> bool:
    """Tell whether a value that an optimizer remembers is more than None or zeros."""
    return value is not None and not (is_number_or_tensor(value) and not torch.as_tensor(value).any())


def _differs(value: Any, usual: Any) -> bool:
    return bool(_number(value) != usual)


def _plain(option: str, value: Any) -> Any:
    """Give a value that words can hold; raises Refused."""
    value = _number(value)
    if isinstance(value, (tuple, list)) and all(isinstance(each, (int, float, Tensor)) for each in value):
        return tuple(float(each) for each in value)
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise Refused(f"the optimizer's option {option} is a {type(value).__name__}, which words cannot say.")
    return value


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
