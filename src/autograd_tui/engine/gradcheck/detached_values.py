"""Values that a forward detaches from the graph: recorded in one forward, and given back in a perturbed one."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import CodeType, FrameType, FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from autograd_tui.core.errors import Refused
from autograd_tui.engine.tracing.call_description import call_name, is_transformed, line_label, requires_grad_setting
from autograd_tui.engine.training.tensor_properties import tensors_in


class OperationsDiffer(Refused):
    """Raised where a perturbed forward runs other operations than the one that was recorded."""

    def __init__(self) -> None:
        super().__init__("the forward takes another way where it is moved a little: no difference means anything.")


@dataclass(frozen=True, slots=True)
class DetachedValue:
    """The result of a call that has no gradient, though an argument of the call requires one."""

    name: str  # of the call
    place: str  # where code detached it, such as "detach (line 18)"
    values: tuple[Tensor | float, ...]


class DetachedValuesMode(TorchFunctionMode):
    """Records the values that leave the graph inside `with`; or replaces them by those `recorded` earlier.

    Such values come out of detach, .data, item or torch.autograd.grad, and of all that runs while gradients are off; so
    does a parameter for as long as the forward has it frozen, and the padding of an embedding. Floating-point values
    alone: a mask or an index has no slope that a gradient could miss. Nothing inside a custom Function is recorded: it
    runs with gradients off, and its backward answers for them.
    """

    def __init__(
        self,
        home_files: Collection[str],
        recorded: Sequence[DetachedValue] | None = None,
        *,
        ignored: Collection[str] = (),
    ) -> None:
        """`home_files`: the files whose lines need no file's name. `ignored`: places at which nothing is replaced."""
        super().__init__()
        self.detached: list[DetachedValue] = []
        self.changed_places: dict[str, None] = {}  # places with other values than were recorded, in order
        self._home_files, self._recorded, self._ignored = home_files, recorded, ignored
        self._count = 0
        self._grad_off_at = ""  # where gradients were switched off
        self._substitutes: dict[int, Tensor] = {}  # what stands in for a tensor, by its id
        self._function_codes: frozenset[CodeType] | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = call_name(func)
        if func is torch._C._set_grad_enabled:
            self._grad_mode_set(on=args[0])
        setting = requires_grad_setting(func, args, kwargs)
        if setting is not None:
            self._requires_grad_set(*setting)
        if name is None or is_transformed():
            return func(*args, **kwargs)
        if self._substitutes:
            args, kwargs = self._substituted(args), self._substituted(kwargs)
        inputs = list(tensors_in((args, kwargs)))
        requires_grad_before = any(each.requires_grad for each in inputs)
        result = func(*args, **kwargs)
        if not requires_grad_before:
            return result
        if func is torch.embedding and result.requires_grad:
            return self._padded(result, *args, **kwargs)
        numbers = next(iter(args), None) if result is None else result  # what gives nothing writes into its first
        values = list(_values(numbers))
        if not values or (not self._grad_off_at and self._in_custom_function()):
            return result
        value = self._recorded_or_current(name, self._place(func, name), numbers, values, inputs)
        return None if result is None else value

    def _padded(
        self, result: Tensor, weight: Tensor, indices: Tensor, padding_idx: int = -1, *_: Any, **__: Any
    ) -> Tensor:
        """Return an embedding, its rows of `padding_idx`, which get no gradient, recorded or replaced; -1 for none."""
        if padding_idx < 0:
            return result
        padding = indices == padding_idx
        rows = result.detach()[padding]
        place = f"padding_idx{_bracket(line_label(sys._getframe(2), self._home_files))}"
        value = self._recorded_or_current("embedding", place, rows, [rows], [])
        return result if value is rows else result.masked_scatter(padding.unsqueeze(-1), value)

    def _in_custom_function(self) -> bool:
        """Return whether the forward of a custom autograd.Function is running."""
        if self._function_codes is None:
            self._function_codes = frozenset(_custom_forwards())
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code not in self._function_codes:
            frame = frame.f_back
        return frame is not None

    def _grad_mode_set(self, *, on: bool) -> None:
        if not self._in_custom_function():
            place = f"no_grad{_bracket(line_label(sys._getframe(1), self._home_files))}"
            self._grad_off_at = "" if on else self._grad_off_at or place

    def _requires_grad_set(self, tensor: Tensor, off: bool) -> None:
        """Record or replace a tensor whose requires_grad is being set to False, until it is set to True again."""
        self._substitutes.pop(id(tensor), None)
        if not off or not tensor.requires_grad:
            return
        place = f"requires_grad=False{_bracket(line_label(sys._getframe(2), self._home_files))}"
        current = tensor.detach()
        value = self._recorded_or_current("requires_grad_", place, current, [current], [])
        if value is not current:
            self._substitutes[id(tensor)] = value

    def _substituted(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._substitutes.get(id(value), value)
        if isinstance(value, dict):
            return type(value)((key, self._substituted(each)) for key, each in value.items())
        if type(value) in (tuple, list):
            return type(value)(self._substituted(each) for each in value)
        return value

    def _place(self, func: Callable[..., Any], name: str) -> str:
        if self._grad_off_at:
            return self._grad_off_at
        if func is torch.autograd.grad:
            name = "grad without create_graph"
        elif torch.is_inference_mode_enabled():
            name = "inference_mode"
        elif getattr(func, "__name__", "") == "__get__":
            name = f".{name}"
        return f"{name.strip('_')}{_bracket(line_label(sys._getframe(1), self._home_files))}"

    def _recorded_or_current(
        self, name: str, place: str, numbers: Any, values: Sequence[Tensor | float], inputs: Sequence[Tensor]
    ) -> Any:
        """Record `values` and return `numbers`, which holds them; or return it with the recorded values that differ.

        Raises OperationsDiffer where the recorded forward did not detach anything here.
        """
        self._count += 1
        if self._recorded is None:
            self.detached.append(DetachedValue(name, place, tuple(map(_copied, values))))
            return numbers
        if self._count > len(self._recorded) or self._recorded[self._count - 1].name != name:
            raise OperationsDiffer
        detached = self._recorded[self._count - 1]
        if all(map(_equal, values, detached.values)):
            return numbers
        self.changed_places[detached.place] = None
        return numbers if detached.place in self._ignored else _filled(numbers, iter(detached.values), inputs)


def _values(value: Any) -> Iterator[Tensor | float]:
    """Yield the floating-point numbers in a value that no gradient comes back to."""
    if isinstance(value, Tensor):
        if not value.requires_grad and (value.is_floating_point() or value.is_complex()):
            yield value
    elif type(value) is float:
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _values(each)


@torch.no_grad()
def _filled(value: Any, recorded: Iterator[Tensor | float], inputs: Sequence[Tensor]) -> Any:
    """Return `value` with recorded numbers for those that `_values` yields; an input is filled in place."""
    if not list(_values(value)):
        return value
    if isinstance(value, Tensor):
        number = next(recorded)
        assert isinstance(number, Tensor)
        return value.copy_(number) if any(value is each for each in inputs) else number.clone()
    if isinstance(value, dict):
        return type(value)((key, _filled(each, recorded, inputs)) for key, each in value.items())
    if not isinstance(value, (tuple, list)):
        return next(recorded)
    items = [_filled(each, recorded, inputs) for each in value]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def _copied(value: Tensor | float) -> Tensor | float:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _equal(one: Tensor | float, other: Tensor | float) -> bool:
    """Return whether two values are equal; NaN equals NaN."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())
    assert isinstance(one, float)
    assert isinstance(other, float)
    return one == other or (math.isnan(one) and math.isnan(other))


def _custom_forwards() -> Iterator[CodeType]:
    """Yield the code of the forward of each custom autograd.Function that exists."""
    classes = torch.autograd.Function.__subclasses__()
    while classes:
        each = classes.pop()
        classes += each.__subclasses__()
        for function in (each.forward, inspect.unwrap(each.forward)):
            if isinstance(function, FunctionType):
                yield function.__code__


def _bracket(place: str) -> str:
    return f" ({place})" if place else ""


class CallPoints(TorchFunctionMode):
    """Calls `reached` behind each call of PyTorch inside `with`; the calls run inside `modes`.

    It stands in this folder, whose files `tracing/call_description.py` takes for none of the user's code.
    """

    def __init__(self, reached: Callable[[], None]) -> None:
        super().__init__()
        self.modes: tuple[TorchFunctionMode, ...] = ()  # outermost first
        self._reached = reached

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        with ExitStack() as stack:
            for mode in self.modes:
                stack.enter_context(mode)
            result = func(*args, **(kwargs or {}))
        self._reached()
        return result
