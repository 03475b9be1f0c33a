"""Files of tensors, as torch.save and safetensors write them: read without running anything in them."""

from __future__ import annotations

import errno
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import open_to_read

MODEL_KEYS = ("model", "model_state_dict", "state_dict", "model_state")  # that scripts use in what they save
OPTIMIZER_KEYS = ("optimizer", "optimizer_state_dict", "optim", "optimizer_state")
_DAMAGED = "is cut short, damaged, or not what torch.save or safetensors writes."
_GLOBAL = re.compile(r"GLOBAL ([\w.]+) ")


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
