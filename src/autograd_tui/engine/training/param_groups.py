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
from autograd_tui.engine.training.scenario import type_text
from autograd_tui.engine.training.tensor_properties import has_shape

OptimizerClass = type[torch.optim.Optimizer]
Group = dict[str, Any]  # "params", and options of its own, such as "lr"


def read_groups(given: Sequence[Mapping[str, Any]], model: nn.Module) -> list[Group]:
    """Return a scenario's groups, with the model's own parameters; one group of all of them where it names none.

    Raises Refused where a group holds anything else, or an option that no optimizer has.
    """
    params = dict(model.named_parameters(remove_duplicate=False))
    if not params:
        raise Refused("the model has an empty parameter list: there is nothing to train.")
    if not given:
        return [{"params": _members(0, {"params": model.parameters()}, params)}]
    groups = [
        {**{key: _to_python(each) for key, each in group.items()}, "params": _members(number, group, params)}
        for number, group in enumerate(given)
    ]
    if not any(group["params"] for group in groups):
        raise Refused("the parameter groups are empty: there is nothing to train.")
    seen: set[Tensor] = set()
    for number, group in enumerate(groups):
        twice = [param for param in group["params"] if param in seen]
        if twice or len(set(group["params"])) < len(group["params"]):
            name = _param_name(twice[0], params) if twice else "a parameter"
            raise Refused(f"group {number} holds {name} a second time: a parameter belongs into one group, once.")
        seen.update(group["params"])
        _check_options(number, group)
    return groups


def check_optimizer(optimizer: torch.optim.Optimizer, groups: Sequence[Group]) -> None:
    """Raise TypeError where an optimizer holds what cannot be copied, put back or read.

    `groups`: those that it was made of.
    """
    own, state = optimizer.param_groups, optimizer.state
    same = isinstance(own, list) and all(
        isinstance(each, dict) and isinstance(each.get("params"), list) for each in own
    )
    if not same or [len(each["params"]) for each in own] != [len(each["params"]) for each in groups]:
        raise TypeError("the optimizer's parameter groups are not those that it was made with.")
    for group in own:
        if not _is_rate(group.get("lr")):
            raise TypeError(f"the optimizer's learning rate is {type_text(group.get('lr'))} now, and no number.")
        if wrong := [key for key, value in group.items() if key != "params" and not _is_option(key, value)]:
            raise TypeError(f"the optimizer's option {_quoted(wrong[0])} is {type_text(group[wrong[0]])} now.")
    if not isinstance(state, dict):
        raise TypeError(f"the optimizer's state is {type_text(state)} now, and no dict.")
    for param in (param for group in own for param in group["params"]) if state else ():
        entry = state.get(param, {})
        if not isinstance(entry, dict):
            raise TypeError(f"the optimizer's state of a parameter is {type_text(entry)} now, and no dict.")
        for key, value in entry.items():
            if not (_is_tensor(value) and type(key) is str) and not _is_option(key, value):
                raise TypeError(
                    f"the optimizer remembers {type_text(value)} as {_quoted(key)}, which cannot be put back."
                )


def _is_tensor(value: Any) -> bool:
    """Return whether a value is a tensor; raises what a subclass raises that lets nobody read it."""
    return type(value) is Tensor or (has_shape(value) and value.numel() >= 0)


def _is_rate(lr: Any) -> bool:
    if has_shape(lr):
        return _is_scalar(lr)
    return _is_number(lr) and not isinstance(lr, bool)


def _is_number(value: Any) -> bool:
    return type(value) in (bool, int, float) or _is_numpy_number(value)


def _is_numpy_number(value: Any) -> bool:
    """Return whether a value is one of NumPy's numbers; NumPy itself may not be installed."""
    return type(value).__module__ == "numpy" and isinstance(value, Number)


def _is_option(key: Any, value: Any) -> bool:
    """Return whether a name and a value are of the types that optimizers have: numbers, texts, None, lists of them."""
    if type(key) is not str:
        return False
    if type(value) in (tuple, list):
        return all(map(_is_plain, value))
    return _is_plain(value)


def _is_plain(value: Any) -> bool:
    return value is None or type(value) is str or _is_number(value) or (has_shape(value) and _is_scalar(value))


def _is_scalar(tensor: Tensor) -> bool:
    return tensor.numel() == 1 and not (tensor.is_complex() or tensor.is_meta or tensor.is_nested)


def _quoted(key: Any) -> str:
    return f'"{key}"' if type(key) is str else type_text(key)


def groups_for_optimizer(groups: Sequence[Group], cls: OptimizerClass, lrs: Sequence[float] | None) -> list[Group]:
    """Return the groups with the options that an optimizer takes, and with `lrs`, one for each group, if any."""
    takes = {"params", *inspect.signature(cls).parameters}
    own = [{key: value for key, value in group.items() if key in takes} for group in groups]
    return own if lrs is None else [{**group, "lr": lr} for group, lr in zip(own, lrs, strict=True)]


def optimizer_classes() -> dict[str, OptimizerClass]:
    """Return the optimizer classes of `torch.optim` by their names in small letters."""
    classes = [each for each in vars(torch.optim).values() if inspect.isclass(each)]
    base = torch.optim.Optimizer
    return {each.__name__.lower(): each for each in classes if issubclass(each, base) and each is not base}


def group_indices(groups: Sequence[Group], params: Iterable[Tensor]) -> tuple[int | None, ...]:
    """Return for each parameter the index of the group that holds it, None where none does."""
    indices = {param: index for index, group in enumerate(groups) for param in group["params"]}
    return tuple(indices.get(param) for param in params)


def group_specs(groups: Sequence[Group], optimizer: str, params: Mapping[str, Tensor]) -> tuple[GroupSpec, ...]:
    """Return the groups as plain values, with the options that an optimizer of this name takes."""
    names = {param: name for name, param in params.items()}
    specs = []
    for group in groups_for_optimizer(groups, optimizer_classes()[optimizer], None):
        options = {key: value for key, value in group.items() if key not in ("params", "lr")}
        specs.append(GroupSpec(tuple(names[param] for param in group["params"]), options))
    return tuple(specs)


def optimizer_text(spec: OptimizerSpec, group: Group) -> str:
    """Return an optimizer as a command spells it, with a group's own options, without the learning rate."""
    takes = inspect.signature(optimizer_classes()[spec.name]).parameters
    for option, value in group.items():
        if option in takes and option not in ("params", "lr"):
            spec = spec.with_option(option, value)
    return str(replace(spec, lr=None))


def _members(number: int, group: Mapping[str, Any], params: Mapping[str, nn.Parameter]) -> list[nn.Parameter]:
    """Return the parameters of one group, which holds tensors, pairs of name and tensor, or names."""
    own, members = set(params.values()), []
    for each in group["params"]:
        member = each[1] if isinstance(each, tuple) and len(each) == 2 else each
        member = params.get(member, member) if isinstance(member, str) else member
        if not isinstance(member, Tensor):
            raise Refused(f"group {number} takes parameters of the model, or their names, not {_member_text(member)}.")
        if member not in own:
            raise Refused(f"group {number} holds a tensor of shape {tuple(member.shape)} that is not the model's.")
        members.append(member)
    return members  # type: ignore[return-value]


def _to_python(value: Any) -> Any:
    """Return a number of NumPy's as Python's, which a script can spell."""
    return value.item() if _is_numpy_number(value) else value


def _member_text(member: Any) -> str:
    return repr(member) if type(member) in (str, int, float, type(None)) else type_text(member)


def _check_options(number: int, group: Group) -> None:
    lr = group.get("lr", 0.0)
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not 0 <= lr < float("inf"):
        raise Refused(f"group {number}: a learning rate must be a number from 0 up, not {lr}.")
    all_options = {name for each in optimizer_classes().values() for name in inspect.signature(each).parameters}
    for option, value in group.items():
        if option not in all_options:
            raise Refused(f"group {number} has {option}, an option that no optimizer of torch.optim takes.")
        if option != "params" and (isinstance(value, Tensor) or not _is_option(option, value)):
            raise Refused(f"group {number}: the option {option} is {type_text(value)}, which words cannot say.")


def _param_name(param: Tensor, params: Mapping[str, nn.Parameter]) -> str:
    return next(name for name, each in params.items() if each is param)
