"""Files of tensors, of which nothing is run, and the initial state of model and optimizer that they may hold."""

from __future__ import annotations

import errno
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import open_to_read
from autograd_tui.engine.training.optimizers import optimizer_to_spec
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.user_code import in_words

FACTORED_KEYS = ("row_var", "col_var")  # an optimizer's tensors that rightly differ in shape from their parameter
NUMBER_KEYS = ("step", "eta", "mu", "mu_product")  # that older versions of PyTorch save as numbers
StateDict = Mapping[str, Any]
MODEL_KEYS = ("model", "model_state_dict", "state_dict", "model_state")  # that scripts use in what they save
OPTIMIZER_KEYS = ("optimizer", "optimizer_state_dict", "optim", "optimizer_state")
_DAMAGED = "is cut short, damaged, or not what torch.save or safetensors writes."
_GLOBAL = re.compile(r"GLOBAL ([\w.]+) ")


def check_optimizer_state(saved: StateDict, state: TrainingState, path: str) -> None:
    """Raise Refused where an optimizer's state dict does not fit these parameters; call it before loading."""
    if not _is_state_dict(saved):
        raise Refused(f'"{path}" holds no state dict of an optimizer: that has state and param_groups.')
    sizes = [len(group["params"]) for group in saved["param_groups"]]
    wanted = [len(group["params"]) for group in state.optimizer.param_groups]
    if sizes != wanted:
        listed, expected = ", ".join(map(str, sizes)) or "no", ", ".join(map(str, wanted))
        raise Refused(
            f'"{path}" does not fit the optimizer: its groups hold {listed} parameters in place of {expected}.'
        )
    for key, name, param, value in _optimizer_entries(saved, state):
        if misfit := _misfit(key, value, param):
            raise Refused(f'"{path}" does not fit {type(state.optimizer).__name__}: {key} of {name} {misfit}.')


def check_options(state: TrainingState, path: str) -> None:
    """Raise Refused where options are missing, or have values of other types than the defaults; call it once loaded."""
    name, defaults = type(state.optimizer).__name__, state.optimizer.defaults
    for group in state.optimizer.param_groups:
        if missing := [option for option in defaults if option not in group]:
            raise Refused(f'"{path}" is from another optimizer than {name}: it has no {", ".join(missing)}.')
        for option, default in defaults.items():
            if not _alike(group[option], default):
                raise Refused(f'"{path}" does not fit {name}: its {option} is {kind_of(group[option])}.')


def _misfit(key: str, value: Any, param: Tensor) -> str | None:
    """Return why a value cannot be an optimizer's state of a parameter under a key; None where it can."""
    if not isinstance(value, Tensor):
        return (
            None
            if value is None or (key in NUMBER_KEYS and isinstance(value, (int, float)))
            else f"is {kind_of(value)}"
        )
    if kind := wrong_kind(value, param):
        return f"is {kind}"
    unlike = value.dim() and key not in FACTORED_KEYS and value.shape != param.shape
    return f"has shape {tuple(value.shape)}" if unlike else None


def _is_state_dict(saved: StateDict) -> bool:
    state, groups = saved.get("state"), saved.get("param_groups")
    if not isinstance(state, Mapping) or not isinstance(groups, list):
        return False
    params = [group.get("params") if isinstance(group, Mapping) else None for group in groups]
    indices = [index for each in params if isinstance(each, list) for index in each]
    return (
        all(isinstance(each, list) for each in params)
        and all(isinstance(index, int) for index in indices)
        and all(isinstance(state.get(index, {}), Mapping) for index in indices)
    )


def _optimizer_entries(saved: StateDict, state: TrainingState) -> Iterator[tuple[str, str, Tensor, Any]]:
    """Yield each entry of the optimizer's state: its key, the parameter's name, the parameter, and the value."""
    names = {id(param): name for name, param in state.params.items()}
    indices = (index for group in saved["param_groups"] for index in group["params"])
    params = (param for group in state.optimizer.param_groups for param in group["params"])
    for index, param in zip(indices, params, strict=True):
        for key, value in saved["state"].get(index, {}).items():
            yield str(key), names[id(param)], param, value


def _alike(value: Any, default: Any) -> bool:
    """Return whether a value has the type of an optimizer's default: a number for a number, and so on."""
    if isinstance(default, (tuple, list)):
        same = isinstance(value, (tuple, list)) and len(value) == len(default)
        return same and all(_alike(*pair) for pair in zip(value, default, strict=True))
    if isinstance(default, str):
        return isinstance(value, str)
    if isinstance(value, Tensor):  # which a learning rate may be
        return value.numel() == 1 and not value.is_meta and not isinstance(default, bool)
    return isinstance(value, (int, float)) or (value is None and (default is None or isinstance(default, bool)))


class InitialState:
    """What a file holds for a model and an optimizer: read once, and loaded as often as the loop is built.

    `options`: of the optimizer, which override the file's. Raises Refused, in one sentence.
    """

    def __init__(self, path: str, options: Mapping[str, float]) -> None:
        saved = read_saved(path)
        self._path, self._options = path, options
        self._model = model_state(saved, path)
        self._optimizer = optimizer_state(saved, path)

    def put_into(self, state: TrainingState) -> None:
        """Load both, copied, as a script does with `load_state_dict`. Raises Refused where they do not fit."""
        put_into_model(state.model, self._model, self._path)
        if self._optimizer is None:
            return
        check_optimizer_state(self._optimizer, state, self._path)
        try:
            # Copied: `load_state_dict` shares its tensors, which later steps would change.
            state.optimizer.load_state_dict(deepcopy(dict(self._optimizer)))
            check_options(state, self._path)
            for group in state.optimizer.param_groups:
                group.update(self._options)
            state.spec = optimizer_to_spec(state.optimizer)
        except Refused:
            raise
        except KeyError as error:
            raise Refused(f'"{self._path}" does not fit {type(state.optimizer).__name__}: it lacks {error}.') from error
        except Exception as error:
            raise Refused(f'"{self._path}" does not fit the optimizer: {in_words(error)}.') from error


def put_into_model(model: nn.Module, state: Mapping[str, Any], path: str) -> None:
    """Load a state dict, copied; raises Refused, saying which names do not fit."""
    misfits = _misfits(model.state_dict(), state)
    if any(misfits.values()):
        raise Refused(_misfit_sentence(path, misfits))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            missing, unexpected = model.load_state_dict(state, strict=False)
    except Exception as error:
        raise Refused(f'"{path}" does not fit the model: {in_words(error)}.') from error
    if missing or unexpected:
        raise Refused(_misfit_sentence(path, {"missing": missing, "unexpected": unexpected}))


def _misfits(own_state: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of what cannot be copied, by what is wrong with them."""
    own_tensors = {name: value for name, value in own_state.items() if isinstance(value, Tensor)}
    pairs = {name: (value, state[name]) for name, value in own_tensors.items() if name in state}
    tensors = {name: pair for name, pair in pairs.items() if isinstance(pair[1], Tensor)}
    return {
        "of another shape": [
            f"{name} {tuple(loaded.shape)} in place of {tuple(own.shape)}"
            for name, (own, loaded) in tensors.items()
            if loaded.shape != own.shape
        ],
        "of another kind": [
            f"{name} {kind}" for name, (own, loaded) in tensors.items() if (kind := wrong_kind(loaded, own))
        ],
        "no tensors": [name for name in pairs if name not in tensors],
    }


def _misfit_sentence(path: str, misfits: Mapping[str, list[str]]) -> str:
    parts = [f"{len(names)} {what} ({_first(names)})" for what, names in misfits.items() if names]
    return f'"{path}" does not fit the model: {"; ".join(parts)}.'


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(name or '""' for name in names[:count]) + ", …" * (len(names) > count)


def save(content: Any, file: BinaryIO) -> None:
    """Write with torch.save. Raises OSError, also for what torch reports as a RuntimeError of its own: a full disk."""
    try:
        torch.save(content, file)
    except RuntimeError as error:
        raise OSError(str(error)) from error


def read_saved(path: str) -> Any:
    """Return what a file holds, on the host; nothing in it is run. Raises Refused, in one sentence."""
    file = Path(path)
    try:
        with open_to_read(file) as opened, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats of old, which are read all the same
            if file.suffix == ".safetensors":
                return _read_safetensors(file)
            return torch.load(opened, map_location="cpu", weights_only=True)
    except Refused:
        raise
    except OSError as error:
        # A damaged file may send its reader to an offset that does not exist.
        reason = _DAMAGED if error.errno == errno.EINVAL else f"could not be read: {error.strerror or error}."
        raise Refused(f'"{path}" {reason}') from error
    except Exception as error:
        raise Refused(f'"{path}" {_wrong(error)}') from error


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise Refused(f'"{file}" needs the package safetensors: pip install safetensors.') from None
    return load_file(file)  # type: ignore[no-any-return, unused-ignore]


def _wrong(error: Exception) -> str:
    if match := _GLOBAL.search(str(error)):
        return f"holds {match[1]}, which is neither a tensor nor a plain value: nothing in it was run."
    return _DAMAGED


def kind_of(value: object) -> str:
    """Return the type of a value that should be another one, as a part of a sentence."""
    return f"a value of type {type(value).__name__}"


def wrong_kind(value: Tensor, own: Tensor) -> str | None:
    """Return why one tensor's numbers cannot be copied into another; None where they can."""
    if value.is_meta:
        return "without values"
    if value.is_quantized and not own.is_quantized:
        return "quantized"
    if value.layout is not torch.strided and own.layout is torch.strided:
        return "sparse"
    return "complex" if value.is_complex() and not own.is_complex() else None


def model_state(saved: Any, path: str) -> Mapping[str, Any]:
    """Return the model's state dict in what a file holds: under one of MODEL_KEYS, or bare. Raises Refused."""
    if not isinstance(saved, Mapping):
        raise Refused(f'"{path}" holds {kind_of(saved)}, and no state dict.')
    named = _named(saved, MODEL_KEYS, path)
    state: Mapping[Any, Any] = saved if named is None else named
    has_tensors = named is not None or any(isinstance(value, Tensor) for value in state.values())
    if not state or not all(isinstance(name, str) for name in state) or not has_tensors:
        raise Refused(f'"{path}" holds no state dict, neither bare nor as one of {", ".join(MODEL_KEYS)}.')
    return state


def optimizer_state(saved: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """Return the optimizer's state dict beside the model's; None where there is none. Raises Refused."""
    return _named(saved, OPTIMIZER_KEYS, path) if _named(saved, MODEL_KEYS, path) is not None else None


def _named(saved: Mapping[str, Any], names: Iterable[str], path: str) -> Mapping[str, Any] | None:
    for name in names:
        if name in saved and not isinstance(saved[name], Tensor):
            if not isinstance(saved[name], Mapping):
                raise Refused(f'"{path}" holds {kind_of(saved[name])} as {name}, and no state dict.')
            return saved[name]  # type: ignore[no-any-return]
    return None
