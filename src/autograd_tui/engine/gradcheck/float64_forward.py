"""A forward in float64, whatever dtypes its code asks for, with the random numbers that the run has drawn."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from autograd_tui.engine.tracing.autograd_graph import node_name
from autograd_tui.engine.tracing.call_arguments import tensors_in
from autograd_tui.engine.tracing.call_site import line_label

CASTS = ("float", "half", "bfloat16", "double", "to", "type", "type_as")
_TO_NARROW = ("float", "half", "bfloat16")
_WIDE = {
    **dict.fromkeys((torch.float32, torch.float16, torch.bfloat16), torch.float64),
    **dict.fromkeys((torch.complex64, torch.complex32), torch.complex128),
}
_MADE = (torch.rand, torch.randn, torch.rand_like, torch.randn_like)
_FILLED = ("normal_", "uniform_", "exponential_", "log_normal_", "cauchy_", "geometric_")
_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


class Float64Mode(TorchFunctionMode):
    """Gives float64 inside `with` where narrower numbers are asked for: by casts, dtypes, autocast or other tensors.

    Random numbers are drawn as float32 and made float64, so that noise and masks are the ones of the run.
    """

    def __init__(self, device: torch.device, home: Collection[str]) -> None:
        """`home`: the files whose lines need no file's name."""
        super().__init__()
        self.casts: dict[str, None] = {}  # the calls that have asked for less, in order
        self.autocast = False  # whether it was on anywhere
        self.dtypes: set[torch.dtype] = set()  # those that numbers with gradients have in the run
        self.narrow = ""  # the first call whose result had less than float64 all the same
        self._device, self._home = device.type, home
        self._opened: dict[FunctionType, FunctionType | None] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return func(*args, **kwargs)
        self._leave_autocast()
        drawn = _drawn(func, name, args, kwargs)
        if drawn is not None:
            return drawn
        if name in _TO_NARROW:
            self._note(name, args[0], getattr(torch, name if name != "float" else "float32"))
            return args[0].double()
        first = next(iter(args), None)
        args = tuple(self._wide(name, first, each) for each in args)
        kwargs = {key: self._wide(name, first, value) for key, value in kwargs.items()}
        if any(each.dtype is torch.float64 for each in tensors_in((args, kwargs))):
            kept = 1 if _writes(name) else 0
            into = next((each.dtype for each in tensors_in(args[:kept]) if each.dtype in _WIDE), torch.float64)
            args = (*args[:kept], *(self._alike(each, into) for each in args[kept:]))
            kwargs = {key: value if key == "out" else self._alike(value, into) for key, value in kwargs.items()}
        opened = self._open(func)
        if opened is None:
            return self._checked(name, func(*args, **kwargs))
        with self:
            return opened(*args, **kwargs)

    def _leave_autocast(self) -> None:
        if torch.is_autocast_enabled(self._device):
            self.autocast = True
            self.dtypes.add(torch.get_autocast_dtype(self._device))
            torch.set_autocast_enabled(self._device, False)

    def _wide(self, name: str, first: Any, value: Any) -> Any:
        """Give float64 for a narrower dtype; `first`: what the call is given first."""
        dtype = _legacy(value) if name == "type" else value
        if not isinstance(dtype, torch.dtype) or dtype not in _WIDE:
            return value
        self._note(name, first, dtype)
        return _WIDE[dtype]

    def _note(self, name: str, what: Any, dtype: torch.dtype) -> None:
        self.casts[self._call(name)] = None
        if isinstance(what, Tensor) and what.requires_grad:
            self.dtypes.add(dtype)

    def _alike(self, value: Any, into: torch.dtype) -> Any:
        """Make narrower tensors float64 where others are; those that are written `into` a narrower one that narrow."""
        if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
            return type(value)([self._alike(each, into) for each in value])
        if not isinstance(value, Tensor):
            return value
        if into is not torch.float64:
            return value.to(into) if value.dtype is torch.float64 else value
        if value.dtype not in _WIDE:
            return value
        if value.grad_fn is not None:
            self._stays(re.sub(r"Backward\d*$", "", node_name(value.grad_fn)), value.dtype)
        return value.to(_WIDE[value.dtype])

    def _checked(self, name: str, result: Any) -> Any:
        for each in tensors_in(result):
            if each.dtype in _WIDE and each.grad_fn is not None:
                self._stays(name, each.dtype)
        return result

    def _stays(self, name: str, dtype: torch.dtype) -> None:
        self.narrow = self.narrow or f"{self._call(name)} gives {str(dtype).removeprefix('torch.')}"

    def _call(self, name: str) -> str:
        place = line_label(sys._getframe(1), self._home)
        return f"{name} ({place})" if place else name

    def _open(self, func: Callable[..., Any]) -> FunctionType | None:
        """Give a function of torch.nn.functional that is written in Python as one whose own calls are seen too.

        torch tells a mode of the outermost call alone: it is each function's own first line that asks for it.
        """
        if not isinstance(func, FunctionType) or func.__module__ != "torch.nn.functional":
            return None
        if func not in self._opened:
            asks = any(name in func.__code__.co_names for name in _CHECKS)
            self._opened[func] = _unasking(func) if asks else None
        return self._opened[func]


def _unasking(func: FunctionType) -> FunctionType:
    """Copy a function, with no mode and no subclass for it to find."""
    names = {**func.__globals__, **dict.fromkeys(_CHECKS, lambda *_: False)}
    copy = FunctionType(func.__code__, names, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


def _legacy(value: Any) -> Any:
    """Give the dtype of a type such as "torch.FloatTensor" or torch.HalfTensor."""
    found = re.search(r"torch\.(?:cuda\.)?(Float|Half|BFloat16)Tensor", str(value))
    names = {"Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16}
    return names[found[1]] if found else value


def _writes(name: str) -> bool:
    """Tell whether a call of this name writes into its first argument."""
    return name == "__setitem__" or (name.startswith("__i") if name.startswith("__") else name.endswith("_"))


def _drawn(func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Draw what a call draws as float32 does, and make it float64; None for a call that draws nothing of the kind."""
    first = args[0] if args and isinstance(args[0], Tensor) else None
    if func in _MADE and kwargs.get("dtype") in (None, torch.float64, *_WIDE):
        like = torch.float64 if first is None else first.dtype
        dtype = kwargs["dtype"] if kwargs.get("dtype") in _WIDE else torch.float32 if like is torch.float64 else like
        drawn: Tensor = func(*args, **{**kwargs, "dtype": dtype})
        like = _WIDE.get(like, like)
        return drawn.to(like) if not drawn.requires_grad else drawn.detach().to(like).requires_grad_()
    if first is None or first.dtype is not torch.float64:
        return None
    if name in _FILLED:
        room = torch.empty_like(first, dtype=torch.float32)
        return first.copy_(func(room, *args[1:], **kwargs))
    if func in (torch.multinomial, Tensor.multinomial):
        chosen: Tensor = func(first.to(torch.float32), *args[1:], **kwargs)
        return chosen
    if func is torch.normal and len(args) == 2 and not (torch.is_grad_enabled() and _followed(args)):
        size = (first + 0 * args[1]).shape
        noise = torch.randn(size, dtype=torch.float32, device=first.device, generator=kwargs.get("generator"))
        return torch.add(noise.to(torch.float64) * args[1], first)
    return None


def _followed(args: Iterable[Any]) -> bool:
    return any(each.requires_grad for each in tensors_in(list(args)))
