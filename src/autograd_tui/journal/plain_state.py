"""A loop's state in values that `torch.load` reads without running any code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from autograd_tui.engine.training.loader import Epoch, Position
from autograd_tui.engine.training.surroundings import ForeignRandom, Mark


def plain_state(value: Any) -> Any:
    """Give tensors, numbers, texts, lists and dicts with texts as keys in place of all else."""
    if isinstance(value, Mark):
        others = [plain_state(state) for _, state in value.rewindables]
        return {"mark": [plain_state(value.torch), *_foreign(value.foreign), *others]}
    if isinstance(value, ForeignRandom):
        return {"foreign": _foreign(value)}
    if isinstance(value, Position):
        return {"position": [plain_state(each) for each in (value.epoch, value.place, value.before)]}
    if isinstance(value, Epoch):
        return {"epoch": [plain_state(each) for each in (value.first, value.start, value.between, value.lost)]}
    if isinstance(value, torch.dtype | torch.device):
        return {type(value).__name__: str(value).removeprefix("torch.")}
    if type(value).__name__ == "ndarray":
        return {"ndarray": torch.from_numpy(value.astype("int64"))}
    if isinstance(value, dict):
        return {"dict": [[plain_state(key), plain_state(each)] for key, each in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [plain_state(each) for each in value]}
    return [plain_state(each) for each in value] if isinstance(value, list) else value


def read_state(plain: Any) -> Any:
    """Give the value back."""
    if isinstance(plain, list):
        return [read_state(each) for each in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, inside),) = plain.items()
    match kind:
        case "mark":
            state, *foreign = inside[:5]
            others = tuple((None, read_state(each)) for each in inside[5:])  # whose, only the loop knows
            return Mark(read_state(state), _read_foreign(*foreign), others)
        case "foreign":
            return _read_foreign(*inside)
        case "position":
            return Position(*map(read_state, inside))
        case "epoch":
            return Epoch(*map(read_state, inside))
        case "dtype":
            return getattr(torch, inside)
        case "device":
            return torch.device(inside)
        case "ndarray":
            return inside.numpy().astype("uint32")
        case "tuple":
            return tuple(read_state(each) for each in inside)
        case _:
            return dict(_pairs(inside))


def _foreign(states: ForeignRandom) -> list[Any]:
    version, numbers, gauss = states.python
    return [list(numbers), version, gauss, plain_state(states.numpy)]


def _read_foreign(numbers: list[int], version: int, gauss: Any, numpy: Any) -> ForeignRandom:
    return ForeignRandom((version, tuple(numbers), gauss), read_state(numpy))


def _pairs(inside: list[Any]) -> Iterator[tuple[Any, Any]]:
    return ((read_state(key), read_state(each)) for key, each in inside)
