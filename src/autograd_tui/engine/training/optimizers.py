"""Optimizers of `torch.optim` made from their specs, with parameter groups, and specs read from optimizers."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from autograd_tui.core.errors import Refused
from autograd_tui.core.optimizer_spec import GroupSpec, LrDecay, OptimizerSpec
from autograd_tui.engine.training.scenario import type_text
from autograd_tui.engine.training.tensor_properties import has_shape, is_number_or_tensor

MAX_NAME_LENGTH = 40  # of an optimizer that is compared with others, or shown in a sentence
OptimizerClass = type[torch.optim.Optimizer]
Group = dict[str, Any]  # "params", and options of its own, such as "lr"
# The compiler's own module, behind those of the modules it imports that take long by themselves.
PARTS = (
    "mpmath",
    "sympy",
    "torch.fx.experimental.symbolic_shapes",
    "triton",
    "torch.distributed.tensor",
    "torch.onnx.ops",
)
COMPILER = "torch._dynamo"
_DISABLED = "__dynamo_disable"  # the attribute in which `torch._disable_dynamo` keeps what it calls in place of it
_failed: set[str] = set()  # names of parts


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


@contextmanager
def without_compiler() -> Iterator[None]:
    """Have an optimizer made without importing the compiler, as long as nothing else has imported it.

    PyTorch imports it to keep it off the method that adds parameter groups. Where it is not imported nothing is
    compiled, so that the method is called as it is.
    """
    method = getattr(torch.optim.Optimizer.add_param_group, "__wrapped__", None)
    if method is None or COMPILER in sys.modules or hasattr(method, _DISABLED):
        yield
        return
    setattr(method, _DISABLED, method)
    try:
        yield
    finally:
        delattr(method, _DISABLED)


def import_compiler() -> None:
    """Import it whole, as the next step or zero_grad of an optimizer would, there in the phase's own time."""
    while import_part():
        pass


def import_part() -> bool:
    """Import a part of it that is not imported yet, so that no part takes long; return whether there was one."""
    if COMPILER in sys.modules:
        return False
    part = next((each for each in (*PARTS, COMPILER) if each not in sys.modules and each not in _failed), None)
    if part is None:
        return False
    try:
        import_module(part)
    except Exception:  # this PyTorch goes without it, or cannot import it, as its optimizers will say then
        _failed.add(part)
    return True
