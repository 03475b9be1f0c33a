"""The calls that make a loss, kept while a forward is recorded, so that it can be run again without the script.

Kept are the outermost calls alone: of modules, which are pickled as they were before, and of functions of PyTorch. What
they are given that has no graph, such as the batch, is copied.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from autograd_tui.engine.script.call_site import user_frames
from autograd_tui.engine.script.pickled_object import Pickled, pickle_into
from autograd_tui.engine.script.registry import local_variables, untouched, variables
from autograd_tui.engine.tracing.call_description import call_name, writes_in_place
from autograd_tui.engine.training.tensor_properties import tensors_in, version_of

if TYPE_CHECKING:
    from autograd_tui.engine.script.registry import Registry

Method = TypeVar("Method", bound=Callable[..., Any])
MAX_BYTES = 2 << 30  # of models and tensors
MAX_TAPED = 2_000  # calls
CONSTANTS = (type(None), bool, int, float, complex, str, type(Ellipsis), torch.dtype, torch.device, torch.layout)


class CannotRepeat(Exception):
    """Says in a clause why a forward cannot be run again without its script."""


@dataclass(frozen=True, slots=True)
class TensorUse:
    """A tensor that a call is given or returns, by its number on the tape; `version`: of its values."""

    number: int
    version: int


@dataclass(frozen=True, slots=True)
class ParameterUse:
    """A parameter of a module that is pickled."""

    module: int  # the key of the pickled module
    path: str  # to it, as Python writes that: ".fc.weight"


@dataclass(frozen=True, slots=True)
class PickledUse:
    """An object that is pickled, by its key; `path`: to a module inside it, as Python writes that: ".layers[0]"."""

    key: int
    path: str = ""


@dataclass(slots=True)
class TapedCall:
    """One call, with tensors and objects replaced by what stands for them."""

    function: Callable[..., Any] | PickledUse
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    source: str  # "train.py:31"
    autocast: str | None  # the context that it ran in
    random_state: Tensor | None  # before it, where it draws random numbers
    output: Any = None
    random_after: Tensor | None = None
    written: tuple[int, ...] = ()  # numbers of the tensors that it has written into


@dataclass(frozen=True, slots=True)
class TapedForward:
    """A forward that has ended. It holds nothing of the script's own alive."""

    frame: int  # that it led to
    loss: TensorUse
    value: float
    unscaled: float | None  # what it was before GradScaler scaled it
    calls: tuple[TapedCall, ...]  # those that the loss was made by
    copies: Mapping[TensorUse, Tensor]
    pickled: Mapping[int, Pickled]
    names: Mapping[int, str]  # of tensors, by number: the variables that held them
    detached: frozenset[int]  # numbers of tensors whose graph began before


def _guarded(method: Method) -> Method:
    """Return a method that ends the tape where it fails, and raises nothing."""

    @functools.wraps(method)
    def guarded(self: ForwardTape, *args: Any, **kwargs: Any) -> Any:
        if self.problem is not None:
            return None
        try:
            with untouched():
                return method(self, *args, **kwargs)
        except Exception as error:
            self.fail(error)
            return None

    return guarded  # type: ignore[return-value]


@dataclass
class ForwardTape:
    """Takes up the outermost calls of one forward; `problem` says why there is nothing of it. It raises nothing."""

    registry: Registry
    problem: str | None = None
    _calls: list[TapedCall] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)  # of tensors, by their ids
    _tensors: list[Tensor] = field(default_factory=list)  # by number, held so that their ids stay theirs
    _made: set[int] = field(default_factory=set)  # numbers of tensors that calls on the tape have made
    _copies: dict[TensorUse, Tensor] = field(default_factory=dict)
    _detached: set[int] = field(default_factory=set)  # numbers of copied tensors that had a graph
    _pickled: dict[int, Pickled] = field(default_factory=dict)  # by the object's id
    _objects: dict[int, Any] = field(default_factory=dict)  # the same objects, by id
    _places: dict[int, tuple[nn.Module, str]] = field(default_factory=dict)  # of modules in models, by id
    _params: dict[int, tuple[nn.Module, str]] = field(default_factory=dict)  # of parameters in models, by id
    _names: dict[int, str] = field(default_factory=dict)  # of tensors and modules in variables, by id
    _module: nn.Module | None = None  # whose outermost call runs
    _begun: TapedCall | None = None  # that call
    _bytes: int = 0

    def __post_init__(self) -> None:
        for model in self.registry.models:
            module = model.module
            if module is None:
                continue
            self._names[id(module)] = model.name
            for name, each in module.named_modules():
                self._places.setdefault(id(each), (module, name))
            for name, param in module.named_parameters():
                self._params.setdefault(id(param), (module, name))
        for name, tensor in self.registry.params().items():
            self._names[id(tensor)] = name

    def fail(self, error: Exception) -> None:
        """Take up no more, and let everything go."""
        text = " ".join(str(error).split())[:200]
        problem = text if isinstance(error, CannotRepeat) else f"{type(error).__name__}: {text}"
        self.__init__(self.registry, problem)  # type: ignore[misc]

    # Calls, as they begin and end.

    def enter_module(self, module: nn.Module, args: Any, caller: FrameType) -> None:
        """Take up an outermost call of a module; `caller`: PyTorch's function that has its arguments."""
        is_on, autocast = torch.is_grad_enabled(), _autocast()
        self._enter_module(module, args, caller, is_on=is_on, autocast=autocast)

    @_guarded
    def _enter_module(
        self, module: nn.Module, args: Any, caller: FrameType, *, is_on: bool, autocast: str | None
    ) -> None:
        self._module, self._begun = module, None
        if not is_on:
            return
        kwargs = dict(local_variables(caller)).get("kwargs")
        if not isinstance(kwargs, dict):
            raise CannotRepeat(f"what {type(module).__name__} was called with by name could not be read")
        for each in (*tensors_in(args), *tensors_in(kwargs)):
            self._use(each)
        self._note_names(caller)
        root, path = self._places.get(id(module), (module, ""))
        function = PickledUse(self._pickle(root, "model" if _has_params(module) else "criterion"), _path(root, path))
        self._begun = self._begin(function, args, kwargs, caller, autocast)
        for use in _uses((self._begun.args, self._begun.kwargs)):
            self._copy(use)

    @_guarded
    def leave_module(self, output: Any) -> None:
        """Take up what an outermost call of a module has returned."""
        begun, self._module, self._begun = self._begun, None, None
        if begun is not None and output is not None:
            self._end(begun, output)

    def begin_call(self, function: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Take up a call of a function of PyTorch outside of modules; return what `end_call` is to be given."""
        if self._module is not None or not torch.is_grad_enabled() or call_name(function) is None:
            return None
        return self._begin_call(function, args, kwargs, autocast=_autocast())

    @_guarded
    def _begin_call(self, function: Any, args: Any, kwargs: Mapping[str, Any], *, autocast: str | None) -> Any:
        name = getattr(function, "__name__", "")
        if writes_in_place(name) and args and isinstance(args[0], Tensor) and not args[0].requires_grad:
            self._copy(self._use(args[0]))
        return function, args, kwargs, autocast, torch.get_rng_state()

    @_guarded
    def end_call(self, begun: Any, output: Any, caller: FrameType | None) -> None:
        """Take up what a function of PyTorch has returned, where that has a graph."""
        function, args, kwargs, autocast, random_state = begun
        name = getattr(function, "__name__", "")
        is_written = writes_in_place(name) and bool(args) and isinstance(args[0], Tensor)
        made = [args[0]] if is_written else list(tensors_in(output))
        if not any(each.grad_fn is not None for each in made):
            return
        call = self._begin(function, args, kwargs, caller, autocast, random_state)
        if is_written:
            written: TensorUse = call.args[0]
            before = next((each for each in reversed(self._copies) if each.number == written.number), written)
            call.args = (before if written.number not in self._made else written, *call.args[1:])
            call.written = (written.number,)
            self._made.add(written.number)
        for use in _uses((call.args, call.kwargs)):
            self._copy(use)
        self._end(call, None if is_written else output)

    def _begin(
        self,
        function: Any,
        args: Any,
        kwargs: Mapping[str, Any],
        caller: FrameType | None,
        autocast: str | None,
        random_state: Tensor | None = None,
    ) -> TapedCall:
        user = next(user_frames(caller), None)
        source = f"{os.path.basename(user.f_code.co_filename)}:{user.f_lineno}" if user is not None else ""
        of_module = isinstance(function, PickledUse)
        return TapedCall(
            function,
            tuple(self._stand_in(each, of_module=of_module) for each in args),
            {name: self._stand_in(each, of_module=of_module) for name, each in kwargs.items()},
            source,
            autocast,
            torch.get_rng_state() if random_state is None else random_state,
        )

    def _end(self, call: TapedCall, output: Any) -> None:
        after = torch.get_rng_state()
        if call.random_state is not None and torch.equal(call.random_state, after):
            call.random_state = None
        else:
            call.random_after = after
        call.output = self._output(output)
        made = [each for each in _uses(call.output) if self._tensors[each.number].grad_fn is not None]
        if not made and not call.written:
            return
        self._made.update(each.number for each in made)
        self._calls.append(call)
        if len(self._calls) > MAX_TAPED:
            raise CannotRepeat(f"it makes more than {MAX_TAPED:,} calls outside of its models")

    # Values.

    def _use(self, tensor: Tensor) -> TensorUse:
        number = self._numbers.get(id(tensor))
        if number is None:
            number = self._numbers[id(tensor)] = len(self._tensors)
            self._tensors.append(tensor)
        return TensorUse(number, version_of(tensor) or 0)

    def _stand_in(self, value: Any, *, of_module: bool) -> Any:
        """Return a value with what stands for tensors and objects in it."""
        if isinstance(value, Tensor):
            place = self._params.get(id(value))
            if place is None:
                return self._use(value)
            return ParameterUse(self._pickle(place[0], "model"), _path(*place))
        if type(value) in (list, tuple, torch.Size):
            made = [self._stand_in(each, of_module=of_module) for each in value]
            return made if type(value) is list else tuple(made)
        if type(value) is dict and all(type(key) in (str, int) for key in value):
            return {key: self._stand_in(each, of_module=of_module) for key, each in value.items()}
        if type(value) is slice:
            return slice(*(self._stand_in(each, of_module=of_module) for each in (value.start, value.stop, value.step)))
        if type(value) in CONSTANTS or type(value) is torch.memory_format:
            return value
        if isinstance(value, (bool, int, float)):  # also NumPy's
            return float(value) if isinstance(value, float) else int(value)
        if of_module:
            return PickledUse(self._pickle(value, "argument"))
        raise CannotRepeat(f"a call is given an object of the class {type(value).__name__}, which cannot be written")

    def _output(self, value: Any) -> Any:
        """Return the tensors of what a call has returned, in lists, tuples, dicts, and the attributes of objects."""
        if isinstance(value, Tensor):
            return self._use(value)
        if isinstance(value, (list, tuple)):
            return tuple(self._output(each) for each in value)
        if isinstance(value, dict):
            return {f"[{key!r}]": self._output(each) for key, each in value.items() if type(key) in (str, int)}
        if value is not None and type(value) not in CONSTANTS and hasattr(value, "__dict__"):
            return {f".{name}": self._output(each) for name, each in vars(value).items() if isinstance(each, Tensor)}
        return None

    def _copy(self, use: TensorUse) -> None:
        """Copy a tensor that no call on the tape has made."""
        if use.number in self._made or use in self._copies:
            return
        tensor = self._tensors[use.number]
        self._count(tensor.nbytes)
        if tensor.requires_grad and not tensor.is_leaf:
            self._detached.add(use.number)
        copy = tensor.detach().clone()
        self._copies[use] = copy.requires_grad_(tensor.requires_grad and tensor.is_leaf)

    def _pickle(self, value: Any, fallback: str) -> int:
        """Pickle an object as it is now, where it was not yet; return its key."""
        key = id(value)
        if key in self._pickled:
            return key
        if isinstance(value, nn.Module):
            self._count(sum(each.nbytes for each in (*value.parameters(), *value.buffers())))
        file, name = io.BytesIO(), self._names.get(key, fallback)
        try:
            references = pickle_into(file, value)
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            raise CannotRepeat(f"{name} cannot be pickled ({type(error).__name__}: {text})") from error
        if file.tell() > MAX_BYTES:
            raise CannotRepeat(f"{name} takes more than {MAX_BYTES >> 30} GB")
        has_params = isinstance(value, nn.Module) and _has_params(value)
        self._pickled[key] = Pickled(name, file.getvalue(), references, has_params)
        self._objects[key] = value
        return key

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > MAX_BYTES:
            raise CannotRepeat(f"its models and tensors are larger than {MAX_BYTES >> 30} GB")

    def _note_names(self, stack: FrameType | None) -> None:
        for name, value in variables(stack):
            if id(value) in self._numbers or issubclass(type(value), nn.Module):
                self._names.setdefault(id(value), name)

    # The end.

    def finish(self, loss: Tensor, unscaled: Tensor, stack: FrameType | None, frame: int) -> TapedForward | None:
        """End the tape at a loss, which led to a frame; None where there is a problem.

        unscaled: what it was before GradScaler scaled it, else the loss itself.
        """
        forward: TapedForward | None = self._finish(loss, unscaled, stack, frame)
        return forward

    @_guarded
    def _finish(self, loss: Tensor, unscaled: Tensor, stack: FrameType | None, frame: int) -> TapedForward:
        if loss.numel() != 1 or loss.is_complex():
            raise CannotRepeat("its loss is no single number")
        self._note_names(stack)
        use = self._use(loss)
        if use.number not in self._made:
            raise CannotRepeat("its loss is made by a call that PyTorch does not tell of")
        calls = self._calls_behind(use)
        uses = {each for call in calls for each in _uses((call.args, call.kwargs))}
        keys = {each.key if isinstance(each, PickledUse) else each.module for call in calls for each in _objects(call)}
        self._check_shared([each for key in keys if isinstance(each := self._objects[key], nn.Module)])
        copies = {each: copy for each, copy in self._copies.items() if each in uses}
        return TapedForward(
            frame,
            use,
            float(loss.detach()),
            None if unscaled is loss else float(unscaled.detach()),
            tuple(calls),
            copies,
            {key: self._pickled[key] for key in keys},
            {number: name for key, number in self._numbers.items() if (name := self._names.get(key)) is not None},
            frozenset(self._detached),
        )

    def _calls_behind(self, loss: TensorUse) -> list[TapedCall]:
        """Return the calls that a loss was made by, in order."""
        needed, storages = {loss.number}, {self._storage(loss.number)}
        calls = []
        for call in reversed(self._calls):
            made = {each.number for each in _uses(call.output)}
            written = {self._storage(number) for number in call.written}
            if made & needed or written & storages:
                calls.append(call)
                given = {each.number for each in _uses((call.args, call.kwargs))}
                needed |= given
                storages |= {self._storage(number) for number in given & self._made}
        return calls[::-1]

    def _storage(self, number: int) -> int:
        return int(self._tensors[number].untyped_storage()._cdata)

    @staticmethod
    def _check_shared(modules: Sequence[nn.Module]) -> None:
        seen: set[int] = set()
        for module in modules:
            own = {id(param) for param in module.parameters()}
            if own & seen:
                raise CannotRepeat("two of its models share parameters")
            seen |= own


def _uses(value: Any) -> Iterator[TensorUse]:
    """Yield the tensors in a value that `_stand_in` or `_output` has returned."""
    return (each for each in parts(value) if isinstance(each, TensorUse))


def _objects(call: TapedCall) -> Iterator[PickledUse | ParameterUse]:
    """Yield the objects that a call needs."""
    given = parts((call.function, call.args, call.kwargs))
    return (each for each in given if isinstance(each, (PickledUse, ParameterUse)))


def parts(value: Any) -> Iterator[Any]:
    """Yield what lists, tuples, dicts and slices hold."""
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from parts(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from parts(each)
    elif isinstance(value, slice):
        yield from parts((value.start, value.stop, value.step))
    else:
        yield value


def _autocast() -> str | None:
    """Return the context of autocast that is on, as Python: 'torch.autocast("cpu", dtype=torch.bfloat16)'."""
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            return f'torch.autocast("{device}", dtype={torch.get_autocast_dtype(device)})'
    return None


def _has_params(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _path(module: nn.Module, name: str) -> str:
    """Return the way from a module to a part of it as Python writes it: "layers.0.weight" is ".layers[0].weight"."""
    path = ""
    for part in name.split(".") if name else ():
        if part.isidentifier():
            path += f".{part}"
        elif isinstance(module, (nn.Sequential, nn.ModuleList, nn.ParameterList)):
            path += f"[{part}]"
        elif isinstance(module, (nn.ModuleDict, nn.ParameterDict)):
            path += f"[{part!r}]"
        else:
            raise CannotRepeat(f"there is no way to write {name} in Python")
        module = getattr(module, part, module)
    return path
