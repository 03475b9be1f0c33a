"""Does an optimizer's state dict that comes from a file fit the one that trains? PyTorch hardly looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from autograd_tui.engine.training.loop import Loop
from autograd_tui.engine.training.saved import kind_of, wrong_kind
from autograd_tui.engine.values.errors import Refused

BY_FACTORS = ("row_var", "col_var")  # an optimizer's tensors that rightly differ in shape from their parameter
NUMBERS = ("step", "eta", "mu", "mu_product")  # what older versions of PyTorch have saved as such
Saved = Mapping[str, Any]


def check_state(saved: Saved, loop: Loop, path: str) -> None:
    """Raise Refused where what is saved is not of these parameters; to be asked before it is loaded."""
    if not _is_state_dict(saved):
        raise Refused(f'"{path}" holds no state dict of an optimizer: that has state and param_groups.')
    sizes = [len(group["params"]) for group in saved["param_groups"]]
    wanted = [len(group["params"]) for group in loop.optimizer.param_groups]
    if sizes != wanted:
        has, place = ", ".join(map(str, sizes)) or "no", ", ".join(map(str, wanted))
        raise Refused(f'"{path}" does not fit the optimizer: its groups hold {has} parameters in place of {place}.')
    for key, name, param, value in _remembered(saved, loop):
        if wrong := _wrong(key, value, param):
            raise Refused(f'"{path}" does not fit {type(loop.optimizer).__name__}: {key} of {name} {wrong}.')


def check_options(loop: Loop, path: str) -> None:
    """Raise Refused where options are missing, or are none that this optimizer can have; asked once it is loaded."""
    name, defaults = type(loop.optimizer).__name__, loop.optimizer.defaults
    for group in loop.optimizer.param_groups:
        if missing := [option for option in defaults if option not in group]:
            raise Refused(f'"{path}" is from another optimizer than {name}: it has no {", ".join(missing)}.')
        for option, default in defaults.items():
            if not _alike(group[option], default):
                raise Refused(f'"{path}" does not fit {name}: its {option} is {kind_of(group[option])}.')


def _wrong(key: str, value: Any, param: Tensor) -> str | None:
    """Say why a value cannot be what is remembered of a parameter under a key; None where it can."""
    if not isinstance(value, Tensor):
        return None if value is None or (key in NUMBERS and isinstance(value, (int, float))) else f"is {kind_of(value)}"
    if kind := wrong_kind(value, param):
        return f"is {kind}"
    unlike = value.dim() and key not in BY_FACTORS and value.shape != param.shape
    return f"has shape {tuple(value.shape)}" if unlike else None


def _is_state_dict(saved: Saved) -> bool:
    state, groups = saved.get("state"), saved.get("param_groups")
    if not isinstance(state, Mapping) or not isinstance(groups, list):
        return False
    params = [group.get("params") if isinstance(group, Mapping) else None for group in groups]
    places = [place for each in params if isinstance(each, list) for place in each]
    return (
        all(isinstance(each, list) for each in params)
        and all(isinstance(place, int) for place in places)
        and all(isinstance(state.get(place, {}), Mapping) for place in places)
    )


def _remembered(saved: Saved, loop: Loop) -> Iterator[tuple[str, str, Tensor, Any]]:
    """Give what is remembered of each parameter: its key, the parameter's name, the parameter, and the value."""
    names = {id(param): name for name, param in loop.params.items()}
    places = (place for group in saved["param_groups"] for place in group["params"])
    params = (param for group in loop.optimizer.param_groups for param in group["params"])
    for place, param in zip(places, params, strict=True):
        for key, value in saved["state"].get(place, {}).items():
            yield str(key), names[id(param)], param, value


def _alike(value: Any, default: Any) -> bool:
    """Tell whether a value may stand where an optimizer has this default: a number for a number, and so on."""
    if isinstance(default, (tuple, list)):
        same = isinstance(value, (tuple, list)) and len(value) == len(default)
        return same and all(_alike(*pair) for pair in zip(value, default, strict=True))
    if isinstance(default, str):
        return isinstance(value, str)
    if isinstance(value, Tensor):  # which a learning rate may be
        return value.numel() == 1 and not value.is_meta and not isinstance(default, bool)
    return isinstance(value, (int, float)) or (value is None and (default is None or isinstance(default, bool)))
