"""Parameter groups, in torch's own form: which parameters of a model each holds, and the options of its own."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.core.errors import Refused
from autograd_tui.core.optimizer_spec import GroupSpec, OptimizerSpec
from autograd_tui.engine.training.scenario import a_kind
from autograd_tui.engine.training.tensor_properties import has_shape

type_of_optimizer = type[torch.optim.Optimizer]
Group = dict[str, Any]  # "params", and options of its own, such as "lr"


def read_groups(given: Sequence[Mapping[str, Any]], model: nn.Module) -> list[Group]:
    """Check groups against the model that they are of; raises Refused. None given are one group of all parameters."""
    params = dict(model.named_parameters(remove_duplicate=False))
    if not params:
        raise Refused("the model has an empty parameter list: there is nothing to train.")
    if not given:
        return [{"params": _members(0, {"params": model.parameters()}, params)}]
    groups = [
        {**{key: _of_python(each) for key, each in group.items()}, "params": _members(number, group, params)}
        for number, group in enumerate(given)
    ]
    if not any(group["params"] for group in groups):
        raise Refused("the parameter groups are empty: there is nothing to train.")
    seen: set[Tensor] = set()
    for number, group in enumerate(groups):
        twice = [param for param in group["params"] if param in seen]
        if twice or len(set(group["params"])) < len(group["params"]):
            name = _name(twice[0], params) if twice else "a parameter"
            raise Refused(f"group {number} holds {name} a second time: a parameter belongs into one group, once.")
        seen.update(group["params"])
        _check_options(number, group)
    return groups


def check_optimizer(optimizer: torch.optim.Optimizer, groups: Sequence[Group]) -> None:
    """Raise TypeError where somebody has put into an optimizer what cannot be copied, put back or read.

    groups: those that it was made of.
    """
    own, state = optimizer.param_groups, optimizer.state
    same = isinstance(own, list) and all(
        isinstance(each, dict) and isinstance(each.get("params"), list) for each in own
    )
    if not same or [len(each["params"]) for each in own] != [len(each["params"]) for each in groups]:
        raise TypeError("the optimizer's parameter groups are not those that it was made with.")
    for group in own:
        if not _is_rate(group.get("lr")):
            raise TypeError(f"the optimizer's learning rate is {a_kind(group.get('lr'))} now, and no number.")
        if wrong := [key for key, value in group.items() if key != "params" and not _is_option(key, value)]:
            raise TypeError(f"the optimizer's option {_shown(wrong[0])} is {a_kind(group[wrong[0]])} now.")
    if not isinstance(state, dict):
        raise TypeError(f"the optimizer's state is {a_kind(state)} now, and no dict.")
    for param in (param for group in own for param in group["params"]) if state else ():
        remembered = state.get(param, {})
        if not isinstance(remembered, dict):
            raise TypeError(f"the optimizer's state of a parameter is {a_kind(remembered)} now, and no dict.")
        for key, value in remembered.items():
            if not (_is_tensor(value) and type(key) is str) and not _is_option(key, value):
                raise TypeError(f"the optimizer remembers {a_kind(value)} as {_shown(key)}, which cannot be put back.")


def _is_tensor(value: Any) -> bool:
    """Tell whether a value is a tensor; raises what one raises of a class that lets nobody read it."""
    return type(value) is Tensor or (has_shape(value) and value.numel() >= 0)


def _is_rate(lr: Any) -> bool:
    if has_shape(lr):
        return _is_single(lr)
    return _is_number(lr) and not isinstance(lr, bool)


def _is_number(value: Any) -> bool:
    return type(value) in (bool, int, float) or _is_numpys(value)


def _is_numpys(value: Any) -> bool:
    """Tell whether a value is one of NumPy's numbers, whose classes are not asked for by name: it may not be there."""
    return type(value).__module__ == "numpy" and isinstance(value, Number)


def _is_option(key: Any, value: Any) -> bool:
    """Tell whether a name and a value are of the kinds that optimizers have: numbers, texts, None, lists of them."""
    if type(key) is not str:
        return False
    if type(value) in (tuple, list):
        return all(map(_is_plain, value))
    return _is_plain(value)


def _is_plain(value: Any) -> bool:
    return value is None or type(value) is str or _is_number(value) or (has_shape(value) and _is_single(value))


def _is_single(tensor: Tensor) -> bool:
    return tensor.numel() == 1 and not (tensor.is_complex() or tensor.is_meta or tensor.is_nested)


def _shown(key: Any) -> str:
    return f'"{key}"' if type(key) is str else a_kind(key)


def fitting(groups: Sequence[Group], cls: type_of_optimizer, lrs: Sequence[float] | None) -> list[Group]:
    """Give the groups with the options that this optimizer takes, and with these learning rates, if any."""
    takes = {"params", *inspect.signature(cls).parameters}
    kept = [{key: value for key, value in group.items() if key in takes} for group in groups]
    return kept if lrs is None else [{**group, "lr": lr} for group, lr in zip(kept, lrs, strict=True)]


def known_optimizers() -> dict[str, type_of_optimizer]:
    """Give the classes of `torch.optim` by their names in small letters."""
    classes = (each for each in vars(torch.optim).values() if inspect.isclass(each))
    ours = (each for each in classes if issubclass(each, torch.optim.Optimizer) and each is not torch.optim.Optimizer)
    return {each.__name__.lower(): each for each in ours}


def places(groups: Sequence[Group], params: Iterable[Tensor]) -> tuple[int | None, ...]:
    """Say for each parameter which group holds it, None where none does."""
    found = {param: number for number, group in enumerate(groups) for param in group["params"]}
    return tuple(found.get(param) for param in params)


def specs(groups: Sequence[Group], optimizer: str, params: Mapping[str, Tensor]) -> tuple[GroupSpec, ...]:
    """Put groups into words, with the options that an optimizer of this name takes."""
    names = {param: name for name, param in params.items()}
    found = []
    for group in fitting(groups, known_optimizers()[optimizer], None):
        options = {key: value for key, value in group.items() if key not in ("params", "lr")}
        found.append(GroupSpec(tuple(names[param] for param in group["params"]), options))
    return tuple(found)


def spelled(spec: OptimizerSpec, group: Group) -> str:
    """Spell an optimizer with the options that a group has of its own, without the learning rate."""
    takes = inspect.signature(known_optimizers()[spec.name]).parameters
    for option, value in group.items():
        if option in takes and option not in ("params", "lr"):
            spec = spec.with_option(option, value)
    return str(replace(spec, lr=None))


def _members(number: int, group: Mapping[str, Any], params: Mapping[str, nn.Parameter]) -> list[nn.Parameter]:
    """Find the parameters of one group, which come as tensors, as pairs of name and tensor, or as names."""
    own, members = set(params.values()), []
    for each in group["params"]:
        member = each[1] if isinstance(each, tuple) and len(each) == 2 else each
        member = params.get(member, member) if isinstance(member, str) else member
        if not isinstance(member, Tensor):
            raise Refused(f"group {number} takes parameters of the model, or their names, not {_member_shown(member)}.")
        if member not in own:
            raise Refused(f"group {number} holds a tensor of shape {tuple(member.shape)} that is not the model's.")
        members.append(member)
    return members  # type: ignore[return-value]


def _of_python(value: Any) -> Any:
    """Give a number of NumPy's as Python's, which a script can say."""
    return value.item() if _is_numpys(value) else value


def _member_shown(member: Any) -> str:
    return repr(member) if type(member) in (str, int, float, type(None)) else a_kind(member)


def _check_options(number: int, group: Group) -> None:
    lr = group.get("lr", 0.0)
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not 0 <= lr < float("inf"):
        raise Refused(f"group {number}: a learning rate must be a number from 0 up, not {lr}.")
    known = {name for each in known_optimizers().values() for name in inspect.signature(each).parameters}
    for option, value in group.items():
        if option not in known:
            raise Refused(f"group {number} has {option}, an option that no optimizer of torch.optim takes.")
        if option != "params" and (isinstance(value, Tensor) or not _is_option(option, value)):
            raise Refused(f"group {number}: the option {option} is {a_kind(value)}, which words cannot say.")


def _name(param: Tensor, params: Mapping[str, nn.Parameter]) -> str:
    return next(name for name, each in params.items() if each is param)
