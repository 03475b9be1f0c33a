"""Calls to torch as a TorchFunctionMode sees them: name, arguments by name, and the line of code that makes them."""

from __future__ import annotations

import inspect
import linecache
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from types import FrameType, MethodDescriptorType, MethodWrapperType, WrapperDescriptorType
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.trace import Source
from autograd_tui.engine.training.tensor_properties import tensors_in
from autograd_tui.engine.training.user_code import TORCH, is_nameable, is_ours

MAX_SETTING_LENGTH = 60  # characters of an argument that is no tensor
_INDEX_ARGUMENTS = ("self", "index", "value")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_NO_OPERATIONS = ("requires_grad_", "retain_grad", "register_hook", "__repr__", "__set__", "__deepcopy__")
_DESCRIPTORS = (MethodDescriptorType, WrapperDescriptorType, MethodWrapperType)  # methods of tensors
_TORCH_MODULES = ("torch", "torch._tensor", "torch.functional", "torch.nn.functional", "torch._C._nn")
_TRACING_CODE = tuple(str(Path(__file__).parents[1] / name) + os.sep for name in ("tracing", "gradcheck"))
_TORCH_WRAPPERS = ("_contextlib.py", "grad_mode.py", "overrides.py")  # run around a call, and do not make it


def call_name(func: Callable[..., Any]) -> str | None:
    """Return a call's name as torch has it, "mul", "pow" for "**"; None for a call that computes nothing."""
    name = getattr(func, "__name__", None)
    if name is None or name in _NO_OPERATIONS:
        return None
    if name == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", None)
    return str(name).removeprefix("__").removesuffix("__")


def is_transformed() -> bool:
    """Return whether the call is part of a torch.func transform, whose tensors cannot be looked at."""
    return torch._C._are_functorch_transforms_active()


def writes_in_place(name: str) -> bool:
    """Return whether a call of this name writes into its first argument."""
    return name == "__setitem__" or (name.startswith("__i") if name.startswith("__") else name.endswith("_"))


def may_write(func: Callable[..., Any], kwargs: Mapping[str, Any], settings: Sequence[tuple[str, str]]) -> bool:
    """Return whether a call may write into any of its arguments: not known of functions that are not PyTorch's own."""
    name = getattr(func, "__name__", "")
    if writes_in_place(name) or "out" in kwargs or ("inplace", "True") in settings:
        return True
    return not isinstance(func, _DESCRIPTORS) and getattr(func, "__module__", "") not in _TORCH_MODULES


def requires_grad_setting(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Tensor, bool] | None:
    """Return the tensor whose requires_grad a call is about to set, and whether to False; None for another call."""
    name = getattr(func, "__name__", "")
    if name == "requires_grad_":
        return args[0], not next(iter((*args[1:], *kwargs.values())), True)
    if name == "__set__" and getattr(getattr(func, "__self__", None), "__name__", "") == "requires_grad":
        return args[0], not args[1]
    return None


class CallArguments:
    """Names positional arguments, looking up each function once."""

    def __init__(self) -> None:
        self._names: dict[str, tuple[str, ...]] = {}

    def of(
        self, function: Callable[..., Any], name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[tuple[str, Tensor]], tuple[tuple[str, str], ...]]:
        """Return the tensors, and the other arguments as written, each with its name; None is left out.

        `name`: of the call, as `call_name` has it.
        """
        if name not in self._names:
            self._names[name] = _signature(function) or _schema(name)
        names = self._names[name]
        tensors: list[tuple[str, Tensor]] = []
        settings: list[tuple[str, str]] = []
        for role, value in (*zip_longest(names[: len(args)], args, fillvalue=""), *kwargs.items()):
            if isinstance(value, Tensor):
                tensors.append((role, value))
                continue
            tensors_inside = list(tensors_in(value)) if isinstance(value, (tuple, list, dict)) else []
            tensors += [(role, each) for each in tensors_inside]
            if not tensors_inside and value is not None:
                settings.append((role, _written(value)))
        return tensors, tuple(settings)


def _signature(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the argument names of a function that is written in Python; () for one that is not."""
    try:
        params = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    return () if any(param.kind in _VARIADIC for param in params) else tuple(param.name for param in params)


def _schema(name: str) -> tuple[str, ...]:
    """Return the argument names of the operator of that name: each from the first overload that has so many."""
    if name in ("getitem", "setitem"):
        return _INDEX_ARGUMENTS
    packet = getattr(torch.ops.aten, name, None)
    names: list[str] = []
    for overload in packet.overloads() if packet is not None and hasattr(packet, "overloads") else ():
        arguments = getattr(packet, overload)._schema.arguments
        positional = [each.name for each in arguments if not each.kwarg_only]
        names += positional[len(names) :]
    return tuple(names)


def _written(value: Any) -> str:
    if type(value) in (bool, int, float) or (type(value) is tuple and {*map(type, value)} == {int}):
        return _shortened(repr(value))
    try:
        text = repr(value).replace("torch.", "")
    except Exception as error:
        return f"(cannot be shown: {type(error).__name__})"
    return _shortened(" ".join(text.split()))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SETTING_LENGTH else text[: MAX_SETTING_LENGTH - 1] + "…"


class CallSites:
    """Finds the lines that make calls, and reads each but once."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, int], Source] = {}
        self._is_source: dict[str, bool | None] = {}  # whether a file may be shown; None of ours

    def source_of(self, frame: FrameType | None) -> Source | None:
        """Return the innermost line of a scenario, a model or a library but PyTorch; None where ours comes first.

        `frame`: where to begin, within other people's code.
        """
        while frame is not None:
            file = frame.f_code.co_filename
            is_source = self._is_source[file] if file in self._is_source else self._look_up(file)
            if is_source is None:
                return None
            if is_source:
                return self._read(file, frame.f_lineno)
            frame = frame.f_back
        return None

    def _look_up(self, file: str) -> bool | None:
        found = self._is_source[file] = None if is_ours(file) else is_nameable(file)
        return found

    def _read(self, file: str, line: int) -> Source:
        if (file, line) not in self._sources:
            self._sources[file, line] = Source(file, line, linecache.getline(file, line).strip())
        return self._sources[file, line]


def line_label(frame: FrameType | None, home_files: Collection[str]) -> str:
    """Return the line of a call, with its file where that is not one of `home_files`: "line 18", "net.py, line 3".

    `frame`: where to begin, in the code that traces or checks gradients. Where the engine called PyTorch, a line of
    PyTorch's; "" where none is known.
    """
    torch_line = ""
    while frame is not None:
        file, line = frame.f_code.co_filename, frame.f_lineno
        if is_nameable(file):
            return f"line {line}" if file in home_files else f"{Path(file).name}, line {line}"
        if is_ours(file) and not file.startswith(_TRACING_CODE):
            return torch_line
        if file.startswith(TORCH) and not file.endswith(_TORCH_WRAPPERS):
            torch_line = torch_line or f"{Path(file).name}, line {line}"
        frame = frame.f_back
    return torch_line
