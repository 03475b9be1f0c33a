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

from autograd_tui.core.errors import Refused
from autograd_tui.engine.tracing.autograd_graph import node_name
from autograd_tui.engine.tracing.call_description import line_label, writes_in_place
from autograd_tui.engine.training.tensor_properties import tensors_in

CASTS = ("float", "half", "bfloat16", "double", "to", "type", "type_as")
_NARROW_CASTS = ("float", "half", "bfloat16")
_WIDENED = {
    **dict.fromkeys((torch.float32, torch.float16, torch.bfloat16), torch.float64),
    **dict.fromkeys((torch.complex64, torch.complex32), torch.complex128),
}
_RANDOM_FACTORIES = (torch.rand, torch.randn, torch.rand_like, torch.randn_like)
_RANDOM_FILLS = ("normal_", "uniform_", "exponential_", "log_normal_", "cauchy_", "geometric_")
_DROPOUTS = (torch.dropout, torch.dropout_, torch.feature_dropout, torch.feature_dropout_)
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_DISPATCH_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


def check_is_finite(loss: Tensor) -> None:
    """Raise Refused where a loss in float64 is not finite."""
    if not bool(loss.isfinite()):
        raise Refused("the loss is not finite in float64 either, so nothing can be measured around it.")


class Float64Mode(TorchFunctionMode):
    """Computes in float64 inside `with`, where casts, dtypes, autocast or other tensors ask for narrower numbers.

    Random numbers are drawn as float32 and made float64, so that noise and masks are the ones of the run.
    """

    def __init__(
        self, device: torch.device, home_files: Collection[str], run_dtype: torch.dtype | None = torch.float32
    ) -> None:
        """`home_files`: the files whose lines need no file's name. `run_dtype`: of all parameters, None: of several."""
        super().__init__()
        self.draws_by_dtype = device.type != "cpu"  # whether dropouts draw other numbers for another dtype
        self._run_dtype = run_dtype
        self.casts: dict[str, None] = {}  # the calls that have asked for less, in order
        self.autocast = False  # whether it was on anywhere
        self.dtypes: set[torch.dtype] = set()  # those that numbers with gradients have in the run
        self.narrow_call = ""  # the first call whose result had less than float64 all the same
        self.first_node = 0  # of a graph, by its number; what earlier ones have made may have less
        self._device, self._home_files = device.type, home_files
        self._transparent_functions: dict[FunctionType, FunctionType | None] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return func(*args, **kwargs)
        self._leave_autocast()
        drawn = _draw_as_float32(func, name, args, kwargs)
        if drawn is None and self.draws_by_dtype:
            drawn = self._drop_as_in_run(func, name, args, kwargs)
        if drawn is not None:
            return drawn
        if name in _NARROW_CASTS:
            self._note_cast(name, args[0], getattr(torch, name if name != "float" else "float32"))
            return args[0].double()
        first = next(iter(args), None)
        args = tuple(self._widened(name, first, each) for each in args)
        kwargs = {key: self._widened(name, first, value) for key, value in kwargs.items()}
        if any(each.dtype is torch.float64 for each in tensors_in((args, kwargs))):
            targets = 1 if writes_in_place(name) else 0
            narrow = (each.dtype for each in tensors_in(args[:targets]) if each.dtype in _WIDENED)
            dtype = next(narrow, torch.float64)
            args = (*args[:targets], *(self._matched(each, dtype) for each in args[targets:]))
            kwargs = {key: value if key == "out" else self._matched(value, dtype) for key, value in kwargs.items()}
        transparent = self._transparent(func)
        if transparent is None:
            return self._checked(name, func(*args, **kwargs))
        with self:
            return transparent(*args, **kwargs)

    def _drop_as_in_run(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        """Return in float64 what a dropout gives that draws in the run's dtype; None for any other call.

        On an accelerator the kernels of dropout take their random numbers in an order that depends on the dtype.
        Raises Refused where what the run drew cannot be had.
        """
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is None or first.dtype is not torch.float64:
            return None
        if name == "bernoulli_":
            buffer = torch.empty_like(first, dtype=torch.float32)
            return first.copy_(func(buffer, *args[1:], **kwargs))
        if _drops_unseen(name, args, kwargs):
            raise Refused(f"{name} draws other numbers in float64 on {self._device}: what the run drew cannot be had.")
        if func not in _DROPOUTS:
            return None
        p, is_training = [*args[1:], *(kwargs[key] for key in ("p", "train") if key in kwargs)]
        if not (is_training and 0 < p < 1):
            return None
        if self._run_dtype is None or self.autocast or self.dtypes - {self._run_dtype}:
            raise Refused(f"{name} draws by the dtype on {self._device}, and the run may have had several there.")
        is_kept = func(torch.ones_like(first, dtype=self._run_dtype), p, True) != 0
        kept = is_kept.to(torch.float64) / (1 - p)
        return first.mul_(kept) if name.endswith("_") else first * kept

    def _leave_autocast(self) -> None:
        if torch.is_autocast_enabled(self._device):
            self.autocast = True
            self.dtypes.add(torch.get_autocast_dtype(self._device))
            torch.set_autocast_enabled(self._device, False)

    def _widened(self, name: str, first: Any, value: Any) -> Any:
        """Return float64 for a narrower dtype, and any other argument as it is; `first`: the call's first argument."""
        dtype = _dtype_of_type(value) if name == "type" else value
        if not isinstance(dtype, torch.dtype) or dtype not in _WIDENED:
            return value
        self._note_cast(name, first, dtype)
        return _WIDENED[dtype]

    def _note_cast(self, name: str, what: Any, dtype: torch.dtype) -> None:
        self.casts[self._label(name)] = None
        if isinstance(what, Tensor) and what.requires_grad:
            self.dtypes.add(dtype)

    def _matched(self, value: Any, dtype: torch.dtype) -> Any:
        """Return tensors in the dtype of the call: float64, or `dtype` where that is written into a narrower tensor."""
        if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
            return type(value)([self._matched(each, dtype) for each in value])
        if not isinstance(value, Tensor):
            return value
        if dtype is not torch.float64:
            return value.to(dtype) if value.dtype is torch.float64 else value
        if value.dtype not in _WIDENED:
            return value
        if value.grad_fn is not None and value.grad_fn._sequence_nr() >= self.first_node:
            self._note_narrow_result(re.sub(r"Backward\d*$", "", node_name(value.grad_fn)), value.dtype)
        return value.to(_WIDENED[value.dtype])

    def _checked(self, name: str, result: Any) -> Any:
        for each in tensors_in(result):
            if each.dtype in _WIDENED and each.grad_fn is not None:
                self._note_narrow_result(name, each.dtype)
        return result

    def check_is_wide(self, loss: Tensor, where: str) -> None:
        """Raise Refused where a loss was not computed in float64 all the way; `where` that was tried, in words."""
        if self.narrow_call or loss.dtype is not torch.float64:
            narrow_call = self.narrow_call or f"the loss is {str(loss.dtype).removeprefix('torch.')}"
            raise Refused(f"{narrow_call} {where}, and float64 is needed all the way.")

    def _note_narrow_result(self, name: str, dtype: torch.dtype) -> None:
        self.narrow_call = self.narrow_call or f"{self._label(name)} gives {str(dtype).removeprefix('torch.')}"

    def _label(self, name: str) -> str:
        line = line_label(sys._getframe(1), self._home_files)
        return f"{name} ({line})" if line else name

    def _transparent(self, func: Callable[..., Any]) -> FunctionType | None:
        """Return a copy of a Python function of torch.nn.functional whose inner calls reach this mode; None for others.

        torch shows a mode the outermost call alone: the first line of each such function dispatches to it.
        """
        if not isinstance(func, FunctionType) or func.__module__ != "torch.nn.functional":
            return None
        if func not in self._transparent_functions:
            dispatches = any(name in func.__code__.co_names for name in _DISPATCH_CHECKS)
            self._transparent_functions[func] = _without_dispatch(func) if dispatches else None
        return self._transparent_functions[func]


def _without_dispatch(func: FunctionType) -> FunctionType:
    """Return a copy of a function that finds neither a mode nor a tensor subclass to dispatch to."""
    names = {**func.__globals__, **dict.fromkeys(_DISPATCH_CHECKS, lambda *_: False)}
    copy = FunctionType(func.__code__, names, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


def _dtype_of_type(value: Any) -> Any:
    """Return the dtype of a type such as "torch.FloatTensor" or torch.HalfTensor; any other value as it is."""
    match = re.search(r"torch\.(?:cuda\.)?(Float|Half|BFloat16)Tensor", str(value))
    names = {"Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16}
    return names[match[1]] if match else value


def _draw_as_float32(
    func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor | None:
    """Return in float64 what a call draws in float32; None for a call that draws no random numbers."""
    first = args[0] if args and isinstance(args[0], Tensor) else None
    if func in _RANDOM_FACTORIES and kwargs.get("dtype") in (None, torch.float64, *_WIDENED):
        like = torch.float64 if first is None else first.dtype
        dtype = kwargs["dtype"] if kwargs.get("dtype") in _WIDENED else torch.float32 if like is torch.float64 else like
        drawn: Tensor = func(*args, **{**kwargs, "dtype": dtype})
        like = _WIDENED.get(like, like)
        return drawn.to(like) if not drawn.requires_grad else drawn.detach().to(like).requires_grad_()
    if first is None or first.dtype is not torch.float64:
        return None
    if name in _RANDOM_FILLS:
        buffer = torch.empty_like(first, dtype=torch.float32)
        return first.copy_(func(buffer, *args[1:], **kwargs))
    if func in (torch.multinomial, Tensor.multinomial):
        indices: Tensor = func(first.to(torch.float32), *args[1:], **kwargs)
        return indices
    if func is torch.normal and len(args) == 2 and not (torch.is_grad_enabled() and _any_requires_grad(args)):
        size = (first + 0 * args[1]).shape
        noise = torch.randn(size, dtype=torch.float32, device=first.device, generator=kwargs.get("generator"))
        return torch.add(noise.to(torch.float64) * args[1], first)
    return None


def _drops_unseen(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a call drops values at random in a kernel of its own."""
    if name == "scaled_dot_product_attention":
        return bool(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0))
    if name in _RECURRENT:  # (..., layers, dropout, whether it trains, ...)
        at = next((index for index, each in enumerate(args) if isinstance(each, float)), None)
        return at is not None and args[at] > 0 and bool(args[at + 1])
    if name.rstrip("_") in ("alpha_dropout", "feature_alpha_dropout", "rrelu"):
        training = kwargs.get("training", kwargs.get("train", args[-1] if len(args) > 2 else False))
        return training is True
    return False


def _any_requires_grad(args: Iterable[Any]) -> bool:
    return any(each.requires_grad for each in tensors_in(list(args)))
