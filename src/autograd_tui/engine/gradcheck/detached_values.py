"""What autograd was told to hold still in a forward: taken down once, and given back where parameters were moved."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType, FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from autograd_tui.core.errors import Refused
from autograd_tui.engine.tracing.call_arguments import tensors_in
from autograd_tui.engine.tracing.call_site import line_label
from autograd_tui.engine.tracing.forward_tracer import call_name, is_transformed


class OtherPathTaken(Refused):
    """Say that the forward runs other operations than it did where nothing was moved."""

    def __init__(self) -> None:
        super().__init__("the forward takes another way where it is moved a little: no difference means anything.")


@dataclass(frozen=True, slots=True)
class DetachedValue:
    """What a call gave that has no gradient, though something that it was given has one."""

    name: str  # of the call
    place: str  # such as "detach (line 18)"
    values: tuple[Tensor | float, ...]


class DetachedValuesMode(TorchFunctionMode):
    """Takes down what leaves the graph inside `with`; where that is `known`, gives back what it was then.

    That is what comes out of detach, .data, item or torch.autograd.grad, and of all that runs while gradients are off,
    a parameter for as long as the forward has it frozen, and the padding of an embedding. Numbers alone: a mask or an
    index has no slope that a gradient could miss. A custom Function runs with gradients off, and its backward answers
    for them: nothing inside it is held. `loose`: places that are not held either.
    """

    def __init__(
        self, home: Collection[str], known: Sequence[DetachedValue] | None = None, *, loose: Collection[str] = ()
    ) -> None:
        """`home`: the files whose lines need no file's name."""
        super().__init__()
        self.left: list[DetachedValue] = []
        self.moved: dict[str, None] = {}  # the places that gave something else than is known of them, in order
        self._home, self._known, self._loose = home, known, loose
        self._met = 0
        self._off = ""  # where gradients were switched off
        self._frozen: dict[int, Tensor] = {}  # what stands in for a tensor, by its id
        self._custom: frozenset[CodeType] | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = call_name(func)
        if func is torch._C._set_grad_enabled:
            self._switched(on=args[0])
        switched = switched_off(func, args, kwargs)
        if switched is not None:
            self._freeze(*switched)
        if name is None or is_transformed():
            return func(*args, **kwargs)
        if self._frozen:
            args, kwargs = self._thawed(args), self._thawed(kwargs)
        given = list(tensors_in((args, kwargs)))
        followed = any(each.requires_grad for each in given)
        result = func(*args, **kwargs)
        if not followed:
            return result
        if func is torch.embedding and result.requires_grad:
            return self._padded(result, *args, **kwargs)
        numbers = next(iter(args), None) if result is None else result  # what gives nothing writes into its first
        values = list(_values(numbers))
        if not values or (not self._off and self._in_a_function()):
            return result
        held = self._held(name, self._place(func, name), numbers, values, given)
        return None if result is None else held

    def _padded(
        self, result: Tensor, weight: Tensor, indices: Tensor, padding_idx: int = -1, *_: Any, **__: Any
    ) -> Tensor:
        """Hold the rows of an embedding that no gradient comes back to, those of its padding; -1 for none."""
        if padding_idx < 0:
            return result
        padding = indices == padding_idx
        rows = result.detach()[padding]
        place = f"padding_idx{_bracket(line_label(sys._getframe(2), self._home))}"
        held = self._held("embedding", place, rows, [rows], [])
        return result if held is rows else result.masked_scatter(padding.unsqueeze(-1), held)

    def _in_a_function(self) -> bool:
        """Tell whether the forward of a custom autograd.Function is running."""
        if self._custom is None:
            self._custom = frozenset(_custom_forwards())
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code not in self._custom:
            frame = frame.f_back
        return frame is not None

    def _switched(self, *, on: bool) -> None:
        if not self._in_a_function():
            self._off = "" if on else self._off or f"no_grad{_bracket(line_label(sys._getframe(1), self._home))}"

    def _freeze(self, tensor: Tensor, off: bool) -> None:
        """Hold a tensor that gradients do not follow any more, until they do again."""
        self._frozen.pop(id(tensor), None)
        if not off or not tensor.requires_grad:
            return
        place = f"requires_grad=False{_bracket(line_label(sys._getframe(2), self._home))}"
        value = tensor.detach()
        held = self._held("requires_grad_", place, value, [value], [])
        if held is not value:
            self._frozen[id(tensor)] = held

    def _thawed(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._frozen.get(id(value), value)
        if isinstance(value, dict):
            return type(value)((key, self._thawed(each)) for key, each in value.items())
        if type(value) in (tuple, list):
            return type(value)(self._thawed(each) for each in value)
        return value

    def _place(self, func: Callable[..., Any], name: str) -> str:
        if self._off:
            return self._off
        if func is torch.autograd.grad:
            name = "grad without create_graph"
        elif torch.is_inference_mode_enabled():
            name = "inference_mode"
        elif getattr(func, "__name__", "") == "__get__":
            name = f".{name}"
        return f"{name.strip('_')}{_bracket(line_label(sys._getframe(1), self._home))}"

    def _held(
        self, name: str, place: str, numbers: Any, values: Sequence[Tensor | float], given: Sequence[Tensor]
    ) -> Any:
        """Take numbers down, or give back what is known of them where they have moved."""
        self._met += 1
        if self._known is None:
            self.left.append(DetachedValue(name, place, tuple(map(_copied, values))))
            return numbers
        if self._met > len(self._known) or self._known[self._met - 1].name != name:
            raise OtherPathTaken
        left = self._known[self._met - 1]
        if all(map(_same, values, left.values)):
            return numbers
        self.moved[left.place] = None
        return numbers if left.place in self._loose else _put(numbers, iter(left.values), given)


def switched_off(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Tensor, bool] | None:
    """Give the tensor whose requires_grad a call is about to set, and whether to False; None for another call."""
    name = getattr(func, "__name__", "")
    if name == "requires_grad_":
        return args[0], not next(iter((*args[1:], *kwargs.values())), True)
    if name == "__set__" and getattr(getattr(func, "__self__", None), "__name__", "") == "requires_grad":
        return args[0], not args[1]
    return None


def _values(value: Any) -> Iterator[Tensor | float]:
    """Give the numbers that no gradient comes back to."""
    if isinstance(value, Tensor):
        if not value.requires_grad and (value.is_floating_point() or value.is_complex()):
            yield value
    elif type(value) is float:
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _values(each)


@torch.no_grad()
def _put(value: Any, known: Iterator[Tensor | float], given: Sequence[Tensor]) -> Any:
    """Put the known numbers in the places of those that `_values` gives; into a tensor that was given, in place."""
    if not list(_values(value)):
        return value
    if isinstance(value, Tensor):
        number = next(known)
        assert isinstance(number, Tensor)
        return value.copy_(number) if any(value is each for each in given) else number.clone()
    if isinstance(value, dict):
        return type(value)((key, _put(each, known, given)) for key, each in value.items())
    if not isinstance(value, (tuple, list)):
        return next(known)
    items = [_put(each, known, given) for each in value]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def _copied(value: Tensor | float) -> Tensor | float:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _same(one: Tensor | float, other: Tensor | float) -> bool:
    """Compare to the bit, but that NaN is NaN."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())
    assert isinstance(one, float)
    assert isinstance(other, float)
    return one == other or (math.isnan(one) and math.isnan(other))


def _custom_forwards() -> Iterator[CodeType]:
    """Give the code of the forward of each custom autograd.Function that there is."""
    waiting = torch.autograd.Function.__subclasses__()
    while waiting:
        each = waiting.pop()
        waiting += each.__subclasses__()
        for function in (each.forward, inspect.unwrap(each.forward)):
            if isinstance(function, FunctionType):
                yield function.__code__


def _bracket(place: str) -> str:
    return f" ({place})" if place else ""
