"""The arguments of a call to torch, by the names that torch has for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

MAX_SETTING_LENGTH = 60  # characters of an argument that is no tensor
_INDEX = ("self", "index", "value")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class CallArguments:
    """Names positional arguments, looking up each function once."""

    def __init__(self) -> None:
        self._names: dict[str, tuple[str, ...]] = {}

    def of(
        self, function: Callable[..., Any], name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[tuple[str, Tensor]], tuple[tuple[str, str], ...]]:
        """Give the tensors, and the settings as written, those that are None left out; name: what the call is named."""
        if name not in self._names:
            self._names[name] = _signature(function) or _schema(name)
        names = self._names[name]
        named = [(names[index] if index < len(names) else "", value) for index, value in enumerate(args)]
        tensors: list[tuple[str, Tensor]] = []
        settings: list[tuple[str, str]] = []
        for role, value in (*named, *kwargs.items()):
            if isinstance(value, Tensor):
                tensors.append((role, value))
                continue
            tensors_inside = list(tensors_in(value))
            tensors += [(role, each) for each in tensors_inside]
            if not tensors_inside and value is not None:
                settings.append((role, _written(value)))
        return tensors, tuple(settings)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Give the tensors in a value of any shape."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors_in(each)
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from tensors_in(each)


def _signature(function: Callable[..., Any]) -> tuple[str, ...]:
    """Read the names of a function that is written in Python."""
    try:
        params = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    return () if any(param.kind in _VARIADIC for param in params) else tuple(param.name for param in params)


def _schema(name: str) -> tuple[str, ...]:
    """Read the names of the operator of that name: at each place those of the first overload that reaches so far."""
    if name in ("getitem", "setitem"):
        return _INDEX
    packet = getattr(torch.ops.aten, name, None)
    names: list[str] = []
    for overload in packet.overloads() if packet is not None and hasattr(packet, "overloads") else ():
        arguments = getattr(packet, overload)._schema.arguments
        positional = [each.name for each in arguments if not each.kwarg_only]
        names += positional[len(names) :]
    return tuple(names)


def _written(value: Any) -> str:
    if type(value) in (bool, int, float):
        return repr(value)
    try:
        text = repr(value).replace("torch.", "")
    except Exception as error:
        return f"(cannot be shown: {type(error).__name__})"
    text = " ".join(text.split())
    return text if len(text) <= MAX_SETTING_LENGTH else text[: MAX_SETTING_LENGTH - 1] + "…"
