"""An optimizer that a script has made, put into words again."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.engine.training.groups import Group, known_optimizers
from autograd_tui.engine.training.stats import is_measured
from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.optimizer_spec import OptimizerSpec


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
    return words_of(optimizer)


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


def words_of(optimizer: torch.optim.Optimizer) -> OptimizerSpec:
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
    return value is not None and not (is_measured(value) and not torch.as_tensor(value).any())


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
