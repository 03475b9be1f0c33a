"""What a forward can change in Python: attributes of modules, variables of closures and modules, and their contents."""

from __future__ import annotations

import io
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.engine.training.captured_variables import (
    CapturedVariables,
    is_user_written,
    read_variable,
    write_variable,
)
from autograd_tui.engine.training.scenario import Parts
from autograd_tui.engine.training.tensor_properties import in_memory, is_writable

MAX_SMALL_BYTES = 1 << 20  # of a tensor that is always copied; a larger one once its version has changed
MAX_VALUES = 100_000  # in containers that are saved; what has more is data
MAX_DEPTH = 40
_MODULE_ATTRIBUTES = frozenset(vars(nn.Module())) - {"training"}  # that every module has; buffers are saved elsewhere
_IMMUTABLE = frozenset(
    {
        *(bool, int, float, complex, str, bytes, type(None), type, range, slice, type(...)),
        *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType),
        *(torch.Size, torch.dtype, torch.device),
    }
)
_OBJECTS = (nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
_GETTERS_AND_SETTERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {  # of what is written in C
    "torch._C.Generator": (lambda value: value.get_state(), lambda value, state: value.set_state(state)),
    "random.Random": (lambda value: value.getstate(), lambda value, state: value.setstate(state)),
    "numpy.ndarray": (lambda value: value.copy(), lambda value, state: value.__setitem__(..., state)),
    "numpy.random._generator.Generator": (
        lambda value: value.bit_generator.state,
        lambda value, state: setattr(value.bit_generator, "state", state),
    ),
}


@dataclass(frozen=True, slots=True)
class SavedValue:
    """A mutable object, and a copy of its content at one moment."""

    value: Any
    content: Any


@dataclass(slots=True)
class TensorCopies:
    """Copies of tensors; one whose version has not changed is not copied again, unless it is small.

    Small ones are copied where they are, so that an accelerator is not waited for, others to the host.
    """

    _copies: dict[int, tuple[weakref.ref[Tensor], int, Tensor]] = field(default_factory=dict)

    def of(self, tensor: Tensor, *, always: bool) -> Tensor:
        """Return a copy; `always`: also where the version has not changed, as far as it is small."""
        if always and tensor.numel() * tensor.element_size() <= MAX_SMALL_BYTES:
            return tensor.detach().clone()
        if always and isinstance(tensor, nn.Parameter):
            return tensor.detach().to("cpu", copy=True)
        entry, key = self._copies.get(id(tensor)), id(tensor)
        if entry is None or entry[0]() is not tensor or entry[1] != tensor._version:
            gone = weakref.ref(tensor, lambda _: self._copies.pop(key, None))
            entry = self._copies[key] = gone, tensor._version, tensor.detach().to("cpu", copy=True)
        return entry[2]

    def forget(self, tensor: Tensor) -> None:
        """Drop the copy of a tensor that was filled without its version being counted up."""
        self._copies.pop(id(tensor), None)


class ReachableState:
    """Where a forward can leave something in Python: its model, and the variables that its functions see."""

    def __init__(self, parts: Parts) -> None:
        self.model, self.captured, self.copies = parts.model, CapturedVariables(parts), TensorCopies()
        self.params = list(parts.model.parameters())


class PythonState:
    """A copy of the reachable Python state at one moment; `restore` can be called any number of times.

    `attached`: the tensors in it that have a graph, which is used up once and cannot be restored.
    `unrestorable`: descriptions of what cannot be put back: iterators, environments, files.
    """

    def __init__(self, reachable: ReachableState, modules: Sequence[nn.Module]) -> None:
        reader, self._copies = _StateReader(reachable, modules), reachable.copies
        self.modules = {module: reader.module(module) for module in modules}
        self.objects = [(path, reader.save(value, path)) for path, value in reachable.captured.objects.items()]
        self.variables = []
        for variable in reachable.captured.variables.values():
            values = list(read_variable(variable))  # one, or none where the variable has no value
            reader.always = variable.assigned or not any(isinstance(each, Tensor) for each in values)  # else it is data
            self.variables.append((variable, [reader.save(value, variable.path) for value in values]))
        self.attached, self.unrestorable, self.bytes = reader.attached, reader.unrestorable, reader.bytes

    def changes_since(self, initial: PythonState) -> Iterator[tuple[nn.Module | None, str, Any]]:
        """Yield what differs from the `initial` state: the module, the name and the saved value.

        The value is None for a deleted attribute. Of a variable outside the model, the module is None and the value a
        list.
        """
        for module, values in self.modules.items():
            before = initial.modules.get(module, {})
            for name in before.keys() | values.keys():
                if name not in before or name not in values or not _same_value(values[name], before[name]):
                    yield module, name, values.get(name)
        for (path, now), then in zip(self.objects, initial.objects, strict=True):
            if not _same_value(now, then):
                yield None, path, [now]
        for (variable, now_values), (_, then_values) in zip(self.variables, initial.variables, strict=True):
            if len(now_values) != len(then_values) or not all(map(_same_value, now_values, then_values)):
                yield None, variable.path, now_values

    def restore(self) -> None:
        """Assign the same objects again, each with the content that it had."""
        restored = _RestoredObjects(self._copies)
        for module, values in self.modules.items():
            space = vars(module)
            for name in space.keys() - values.keys() - _MODULE_ATTRIBUTES:
                del space[name]
            space.update({name: _restore_value(value, restored) for name, value in values.items()})
        for _, each in self.objects:
            _restore_value(each, restored)
        for variable, saved_values in self.variables:
            restored_values = [_restore_value(value, restored) for value in saved_values]
            if variable.assigned:
                write_variable(variable, restored_values)


class _StateReader:
    """Saves values, each object once."""

    def __init__(self, reachable: ReachableState, modules: Sequence[nn.Module]) -> None:
        self.attached: list[Tensor] = []
        self.unrestorable: list[str] = []
        self.bytes, self.always = 0, True
        self._reachable, self._modules = reachable, modules
        self._saved: dict[int, Any] = {}
        self._values_left, self._depth = MAX_VALUES, 0

    def module(self, module: nn.Module) -> dict[str, Any]:
        """Return the saved attributes of a module, without parameters and buffers."""
        is_torch_module = type(module).__module__.startswith("torch.nn.")  # its own lists and tuples stay as they are
        return {
            name: value
            if type(value) in _IMMUTABLE or (is_torch_module and (name[0] == "_" or type(value) is tuple))
            else self.save(value, f"self.{name}")
            for name, value in vars(module).items()
            if name not in _MODULE_ATTRIBUTES
        }

    def save(self, value: Any, path: str) -> Any:
        """Return a value with its content saved; an immutable one as it is. `path`: as code writes it."""
        if type(value) in _IMMUTABLE:
            return value
        if not self._saved:  # modules, and what the model's own state_dict has, are saved elsewhere
            self._saved = {id(each): each for each in (*self._modules, *self._reachable.params)}
        if id(value) not in self._saved:
            depth, self._depth = self._depth, self._depth + 1
            try:
                self._saved[id(value)] = value if depth >= MAX_DEPTH else self._save_new(value, path)
            except Exception as error:
                if not is_user_written(type(value)):
                    raise
                self.unrestorable.append(f"{path}, which raises {type(error).__name__} when it is looked into")
                self._saved[id(value)] = value
            self._depth = depth
        return self._saved[id(value)]

    def _save_new(self, value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, dict):
            return self._container(value, [*value, *value.values()], path)
        if isinstance(value, (list, tuple, deque, set)):
            return self._container(value, list(value), path)
        if state := _GETTERS_AND_SETTERS.get(f"{type(value).__module__}.{type(value).__qualname__}"):
            return SavedValue(value, state[0](value))
        if isinstance(value, _OBJECTS) or is_user_written(type(value)):
            saved = self._saved[id(value)] = SavedValue(value, {})
            saved.content.update(
                {name: self.save(each, f"{path}.{name}") for name, each in _attributes_of(value).items()}
            )
            return saved
        if kind := _unrestorable_kind(value):
            self.unrestorable.append(f"{path}, {kind}")
        return value

    def _tensor(self, tensor: Tensor) -> Any:
        """Save a tensor and its gradient; one whose values share memory cannot be written, so it stays as it is."""
        if tensor.grad_fn is not None:
            self.attached.append(tensor)
        if (
            tensor.is_inference()
            or tensor.is_meta
            or tensor.is_nested
            or not (is_writable(tensor) and in_memory(tensor))
        ):
            return tensor
        if not self.always and tensor.numel() * tensor.element_size() > MAX_SMALL_BYTES:
            return tensor
        copies = [self._reachable.copies.of(each, always=self.always) for each in (tensor, *_grad(tensor))]
        self.bytes += sum(each.numel() * each.element_size() for each in copies)
        return SavedValue(tensor, copies)

    def _container(self, value: Any, values: list[Any], path: str) -> Any:
        if len(values) > self._values_left:
            return value
        if type(value) is tuple and all(type(each) in _IMMUTABLE for each in values):
            return value
        self._values_left -= len(values)
        self.bytes += 8 * len(values)
        saved = self._saved[id(value)] = SavedValue(value, values)  # which may hold itself
        values[:] = [self.save(each, path) for each in values]
        return saved


def to_plain_data(saved: Any) -> Any:
    """Return a saved value as plain data that torch.load reads; raises TypeError where it is none such."""
    if isinstance(saved, SavedValue) and isinstance(saved.value, Tensor):
        return saved.content[0].cpu()
    value, content = (saved.value, saved.content) if isinstance(saved, SavedValue) else (saved, saved)
    kind = type(value)
    if kind in (list, tuple):
        return kind(to_plain_data(each) for each in content)
    if kind is dict:
        half = len(content) // 2
        return {
            to_plain_data(key): to_plain_data(each) for key, each in zip(content[:half], content[half:], strict=True)
        }
    if kind in (bool, int, float, str, type(None)):
        return value
    raise TypeError(f"a {kind.__name__}")


def _same_value(now: Any, then: Any, seen: set[int] | None = None) -> bool:
    """Return whether two saved values are the same object with the same content."""
    if not isinstance(now, SavedValue) or not isinstance(then, SavedValue):
        return now is then or (type(now) is type(then) and type(now) in _IMMUTABLE and bool(now == then))
    seen = set() if seen is None else seen
    if now.value is not then.value or id(now) in seen:
        return now.value is then.value
    seen.add(id(now))
    if isinstance(now.content, dict):
        return now.content.keys() == then.content.keys() and all(
            _same_value(each, then.content[name], seen) for name, each in now.content.items()
        )
    if isinstance(now.content, list):
        pairs = list(zip(now.content, then.content, strict=False))
        tensors = isinstance(now.value, Tensor)
        return len(now.content) == len(then.content) and all(
            _same_copy(*pair) if tensors else _same_value(*pair, seen) for pair in pairs
        )
    return _same_copy(now.content, then.content)


def _same_copy(one: Any, other: Any) -> bool:
    """Return whether two copies are the same to the bit; False where they cannot be compared."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return type(one) is type(other) and type(one) is tuple and bool(one == other)
    if one.is_nested or one.layout is not torch.strided or (one.shape, one.dtype) != (other.shape, other.dtype):
        return one is other
    if one.device != other.device:
        one, other = one.cpu(), other.cpu()
    if one.is_quantized:  # PyTorch ends the program where the bytes of such are looked at
        return torch.equal(one, other)
    return one is other or torch.equal(*(each.contiguous().reshape(-1).view(torch.uint8) for each in (one, other)))


def _attributes_of(value: Any) -> dict[str, Any]:
    slots = (name for cls in type(value).__mro__ for name in _slots(cls) if hasattr(value, name))
    return {**{name: getattr(value, name) for name in slots}, **getattr(value, "__dict__", {})}


def _slots(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    return tuple(name for name in ([slots] if isinstance(slots, str) else slots) if not name.startswith("__"))


def _grad(tensor: Tensor) -> list[Tensor]:
    return [tensor.grad] if tensor.is_leaf and tensor.grad is not None else []


@dataclass(frozen=True, slots=True)
class _RestoredObjects:
    """The ids of objects that have been restored already."""

    copies: TensorCopies
    ids: set[int] = field(default_factory=set)


def _restore_value(saved: Any, restored: _RestoredObjects) -> Any:
    """Restore a saved object's content, once, and return the object."""
    if not isinstance(saved, SavedValue) or id(saved.value) in restored.ids:
        return saved.value if isinstance(saved, SavedValue) else saved
    value, content = saved.value, saved.content
    restored.ids.add(id(value))
    if isinstance(value, Tensor):
        _fill(value, *content)
        restored.copies.forget(value)
    elif state := _GETTERS_AND_SETTERS.get(f"{type(value).__module__}.{type(value).__qualname__}"):
        state[1](value, content)
    elif isinstance(content, dict):
        _set_attributes(value, {name: _restore_value(each, restored) for name, each in content.items()})
    else:
        _refill(value, [_restore_value(each, restored) for each in content])
    return value


@torch.no_grad()
def _fill(tensor: Tensor, copy: Tensor, grad: Tensor | None = None) -> None:
    if tensor.shape == copy.shape and in_memory(tensor):
        tensor.data.copy_(copy)  # .data: an older graph that saved the tensor stays valid
    else:
        tensor.data = copy.to(tensor.device, copy=True)
    if tensor.is_leaf:
        tensor.grad = None if grad is None else grad.to(tensor.device, copy=True)


def _refill(value: Any, values: list[Any]) -> None:
    if isinstance(value, dict):
        half = len(values) // 2
        pairs = list(zip(values[:half], values[half:], strict=True))
        value.clear()
        value.update(pairs)
    elif not isinstance(value, tuple):
        value.clear()
        (value.update if isinstance(value, set) else value.extend)(values)


def _set_attributes(value: Any, content: dict[str, Any]) -> None:
    for name in _attributes_of(value).keys() - content.keys():
        object.__delattr__(value, name)
    for name, each in content.items():
        if getattr(value, "__dict__", {}).get(name) is not each:
            if hasattr(value, "__dict__") and name not in {s for cls in type(value).__mro__ for s in _slots(cls)}:
                value.__dict__[name] = each
            else:
                object.__setattr__(value, name, each)


def _unrestorable_kind(value: Any) -> str:
    """Return the kind of a value that changes as it is used and cannot be put back; "" for any other."""
    if isinstance(value, io.IOBase):
        return "a file"
    if isinstance(value, Iterator):
        return "an iterator"
    if all(callable(getattr(type(value), name, None)) for name in ("reset", "step")):
        return "an environment"
    return ""
