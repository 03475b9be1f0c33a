"""The models, optimizers and parameters of a script: found in its variables, and read without a trace in its run."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from dis import get_instructions
from functools import cache
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.core.errors import Refused, first_few
from autograd_tui.engine.script.call_site import user_frames
from autograd_tui.engine.script.module_calls import without_modes
from autograd_tui.engine.training.stats_reader import TensorGroup
from autograd_tui.engine.training.tensor_properties import has_shape, in_memory

Optimizer = torch.optim.Optimizer
MAX_LISTED = 64  # items of a list or dict in a variable that are looked at
WRAPPERS = ("DistributedDataParallel", "DataParallel")  # whose `.module` is the model
_USES_ITS_LOCALS = {"locals", "vars", "eval", "exec", "dir"}  # functions that give out the dict that we would fill
_OPTIMIZED = 1  # the flag of code whose variables are no dict


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model, unwrapped, and the variable that holds it."""

    name: str
    reference: weakref.ref[nn.Module]
    prefix: str  # of its parameters' names: "netD." where there are several models

    @property
    def module(self) -> nn.Module | None:
        return self.reference()


class Registry:
    """Knows what a script trains. It keeps nothing of the script's alive."""

    def __init__(self) -> None:
        self.models: list[NamedModel] = []
        self.changed = True  # whether an optimizer was made, or one that it did not know has been met, since the scan
        self._optimizers: dict[int, weakref.ref[Optimizer]] = {}  # by their ids, in the order in which they were made
        self._names: dict[int, tuple[weakref.ref[Any], str]] = {}  # of models and optimizers, by their ids
        self._cleared: dict[int, weakref.ref[nn.Module]] = {}  # modules whose zero_grad was called, by their ids
        self._tensors: dict[str, weakref.ref[Tensor]] = {}  # parameters that are no model's
        self._strangers: dict[int, weakref.ref[Tensor]] = {}  # leaves that are no parameters, by their ids

    # Optimizers.

    def add_optimizer(self, optimizer: Optimizer) -> bool:
        """Take note of an optimizer that was made or used; return whether it is new."""
        known = self._optimizers.get(id(optimizer))
        if known is not None and known() is optimizer:
            return False
        self._optimizers = {key: each for key, each in self._optimizers.items() if each() is not None}
        self._optimizers[id(optimizer)] = weakref.ref(optimizer)
        self.changed = True
        return True

    @property
    def optimizers(self) -> list[Optimizer]:
        """Those that still exist and hold parameters themselves."""
        alive = (each() for each in self._optimizers.values())
        return [each for each in alive if each is not None and "param_groups" in vars(each)]

    def modules(self) -> dict[str, nn.Module]:
        """Return all modules of the models, by the names that the names of their parameters begin with."""
        return {
            f"{model.prefix}{name}".rstrip("."): each
            for model in self.models
            if model.module is not None
            for name, each in model.module.named_modules()
            if name or model.prefix
        }

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all optimizers, in order."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @property
    def has_optimizer(self) -> bool:
        return any(each() is not None for each in self._optimizers.values())

    def optimizer_name(self, optimizer: Optimizer) -> str:
        """Return the variable that holds an optimizer, or its class in small letters."""
        return self._name_of(optimizer) or type(optimizer).__name__.lower()

    def add_cleared(self, owner: nn.Module) -> None:
        """Take note of a module whose gradients are cleared: it is trained, though it may have had no optimizer yet."""
        known = self._cleared.get(id(owner))
        if known is None or known() is not owner:
            self._cleared = {key: each for key, each in self._cleared.items() if each() is not None}
            self._cleared[id(owner)] = weakref.ref(owner)
            self.changed = True

    # Parameters.

    def params(self) -> dict[str, Tensor]:
        """Return all parameters by name, each once; those that have no shape yet are left out."""
        found: dict[str, Tensor] = {}
        seen: set[int] = set()
        for model in self.models:
            module = model.module
            for name, param in module.named_parameters() if module is not None else ():
                if id(param) not in seen and has_shape(param):
                    seen.add(id(param))
                    found[model.prefix + name] = param
        for name, reference in self._tensors.items():
            tensor = reference()
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                found[_unused_name(name, found)] = tensor
        return found

    def buffers(self) -> dict[str, Tensor]:
        """Return all buffers of all models by name."""
        return {
            model.prefix + name: buffer
            for model in self.models
            if (module := model.module) is not None
            for name, buffer in module.named_buffers()
            if has_shape(buffer)
        }

    def owners(self, param_ids: Iterable[int]) -> tuple[str, ...]:
        """Return the names of the models that have some of these parameters."""
        wanted = set(param_ids)
        return tuple(
            model.name
            for model in self.models
            if (module := model.module) is not None and any(id(each) in wanted for each in module.parameters())
        )

    def _is_stranger(self, leaf: Tensor) -> bool:
        known = self._strangers.get(id(leaf))
        return known is not None and known() is leaf

    # The scan.

    def knows(self, leaves: Iterable[Tensor], called: Iterable[nn.Module]) -> bool:
        """Return whether a scan would find nothing new: all models live, and these leaves and modules are known."""
        if self.changed or any(model.module is None for model in self.models):
            return False
        modules = {id(each) for model in self.models if model.module is not None for each in model.module.modules()}
        if any(id(unwrapped(each)) not in modules for each in called):
            return False
        known = {id(each) for each in self.params().values()}
        return all(id(leaf) in known or self._is_stranger(leaf) for leaf in leaves)

    def scan(
        self,
        frame: FrameType | None,
        leaves: Iterable[Tensor] = (),
        called: Iterable[nn.Module] = (),
        inputs: Iterable[Tensor] = (),
    ) -> None:
        """Look for the models and parameters that an optimizer, or the graph of a loss, knows.

        `leaves`: of that graph; `called`: the modules whose outputs are in it; `inputs`: tensors that models were
        called with, which are no parameters though they may have gradients.
        """
        self.changed = False
        leaves, called = list(leaves), [unwrapped(each) for each in called]
        held = [each for group in self.groups for each in group["params"]]
        cleared = [unwrapped(module) for each in self._cleared.values() if (module := each()) is not None]
        called += cleared
        wanted = {
            id(each) for each in (*held, *leaves, *(param for module in cleared for param in module.parameters()))
        }
        tensor_names = self._name_variables(frame)
        modules = self._candidates(called, wanted)
        order = {key: index for index, key in enumerate(tensor_names)}
        leaves.sort(key=lambda leaf: order.get(id(leaf), len(order)))
        missing = self._missing(modules, held, leaves, tensor_names, {id(each) for each in inputs})
        strange = [each for each in missing if id(each) not in tensor_names]
        if strange:
            modules = _outermost([*modules, *_owners_anywhere({id(each) for each in strange})])
        self._set_models(modules)
        covered = {id(each) for module in modules for each in module.parameters()}
        self._tensors = {
            tensor_names.get(id(each), f"tensor{number}"): weakref.ref(each)
            for number, each in enumerate(missing)
            if id(each) not in covered
        }
        known = {id(each) for each in self.params().values()}
        self._strangers = {id(each): weakref.ref(each) for each in leaves if id(each) not in known}

    def _name_variables(self, frame: FrameType | None) -> dict[int, str]:
        """Learn the variables that hold modules and optimizers; return those of other tensors that have gradients."""
        tensors: dict[int, str] = {}
        self._found: dict[int, nn.Module] = {}  # modules in variables, unwrapped
        fresh: dict[int, str] = {}
        rows: dict[str, list[tuple[Any, str]]] = {}  # what lists and dicts hold, with its name, by their own names
        for name, value in variables(frame):
            cls = type(value)
            if issubclass(cls, nn.Module):
                module = unwrapped(value)
                self._found.setdefault(id(module), module)
                self._learn(module, name, fresh, rows)
            elif issubclass(cls, Optimizer):
                self._learn(_inner_optimizer(value), name, fresh, rows)
            elif issubclass(cls, Tensor) and value.requires_grad and value.is_leaf:
                tensors.setdefault(id(value), name)
        for items in rows.values():
            if not all(id(value) in fresh for value, _ in items):  # a variable of a loop holds some of them in turn
                for value, name in items:
                    self._names[id(value)] = weakref.ref(value), name
        return tensors

    def _learn(self, value: Any, name: str, fresh: dict[int, str], rows: dict[str, list[tuple[Any, str]]]) -> None:
        """Take a variable as the name of what it holds, unless one that is better was met before in this scan."""
        if name.endswith("]"):
            rows.setdefault(name[: name.index("[")], []).append((value, name))
        elif fresh.get(id(value), "self") == "self":
            fresh[id(value)] = name
            if name != "self":
                self._names[id(value)] = weakref.ref(value), name

    def _name_of(self, value: Any) -> str | None:
        reference, name = self._names.get(id(value), (None, None))
        return name if reference is not None and reference() is value else None

    def _candidates(self, called: list[nn.Module], wanted: set[int]) -> list[nn.Module]:
        """Return the outermost modules that were called, or have parameters that are wanted."""
        known = [model.module for model in self.models if model.module is not None]
        modules = {id(each): each for each in (*self._found.values(), *called, *known)}
        self._found = {}
        called_ids = {id(each) for each in called}
        return _outermost(
            each
            for each in modules.values()
            if any(id(param) in wanted or id(each) in called_ids for param in each.parameters())
        )

    def _missing(
        self,
        modules: list[nn.Module],
        held: list[Tensor],
        leaves: list[Tensor],
        names: Mapping[int, str],
        inputs: set[int],
    ) -> list[Tensor]:
        """Return the parameters that no module has: an optimizer's, and leaves that are in a variable and no input."""
        covered = {id(each) for module in modules for each in module.parameters()}
        before = {id(each()) for each in self._tensors.values()}
        missing: dict[int, Tensor] = {}
        for each in held:
            if id(each) not in covered:
                missing.setdefault(id(each), each)
        for each in leaves:
            is_parameter = isinstance(each, nn.Parameter) or id(each) in names or id(each) in before
            if id(each) not in covered and id(each) not in inputs and is_parameter:
                missing.setdefault(id(each), each)
        return list(missing.values())

    def _set_models(self, modules: list[nn.Module]) -> None:
        """Name the models; one that had a name keeps it, and so do its parameters."""
        before = {id(model.module): model for model in self.models if model.module is not None}
        taken = {model.name for key, model in before.items() if key in {id(each) for each in modules}}
        models = []
        for module in modules:
            known = before.get(id(module))
            if known is None:
                name = _unused_name(self._name_of(module) or type(module).__name__.lower(), taken)
                taken.add(name)
                alone = len(modules) == 1
                known = NamedModel(name, weakref.ref(module), "" if alone else f"{name}.")
            models.append(known)
        self.models = models


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the model inside of what torch.compile, DataParallel or DistributedDataParallel have made of it."""
    while True:
        children = vars(module).get("_modules")
        if not isinstance(children, dict):  # of a scripted module
            return module
        inner = children.get("_orig_mod")
        if inner is None and type(module).__name__ in WRAPPERS:
            inner = children.get("module")
        if inner is None:
            return module
        module = inner


def _inner_optimizer(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer that a library's own has inside."""
    inner = vars(optimizer).get("optimizer")
    return inner if isinstance(inner, Optimizer) else optimizer


def _outermost(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Leave out the modules that are parts of others."""
    unique = list({id(each): each for each in modules}.values())
    inside = {id(part) for each in unique for part in each.modules() if part is not each}
    return [each for each in unique if id(each) not in inside]


def variables(frame: FrameType | None) -> Iterator[tuple[str, Any]]:
    """Yield the variables of the user's functions on the stack, and what lists and dicts in them hold."""
    seen: set[int] = set()
    for each in user_frames(frame):
        code = each.f_code
        for name, value in local_variables(each):
            yield from _with_items(name, value)
            if code.co_argcount and name == code.co_varnames[0] == "self":
                for attribute, part in _attributes(value):
                    yield from _with_items(attribute, part)
        if id(each.f_globals) not in seen:
            seen.add(id(each.f_globals))
            for name, value in list(each.f_globals.items()):
                yield from _with_items(name, value)


def local_variables(frame: FrameType) -> list[tuple[str, Any]]:
    """Return the local variables of a function, without leaving a trace in it.

    Before Python 3.13 `f_locals` fills a dict that keeps the variables alive, and that `locals()` gives out.
    """
    if not frame.f_code.co_flags & _OPTIMIZED:
        return []  # of a module: its globals
    if sys.version_info >= (3, 13):
        return list(frame.f_locals.items())
    if _uses_its_locals(frame.f_code) or sys.gettrace() is not None:
        return []
    variables = frame.f_locals
    items = list(variables.items())
    variables.clear()
    return items


@cache
def _uses_its_locals(code: CodeType) -> bool:
    """Return whether a function may read the dict of its variables: by a global name, which `model.eval()` is not."""
    if _USES_ITS_LOCALS.isdisjoint(code.co_names):
        return False
    return any(each.opname == "LOAD_GLOBAL" and each.argval in _USES_ITS_LOCALS for each in get_instructions(code))


def _attributes(value: Any) -> list[tuple[str, Any]]:
    """Return an object's own attributes, without running code of its class."""
    try:
        return list(object.__getattribute__(value, "__dict__").items())
    except (AttributeError, TypeError):
        return []


def _with_items(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    yield name, value
    if type(value) in (list, tuple) and len(value) <= MAX_LISTED:
        yield from ((f"{name}[{index}]", each) for index, each in enumerate(value))
    elif type(value) is dict and len(value) <= MAX_LISTED:
        yield from ((f"{name}[{key!r}]", each) for key, each in list(value.items()) if type(key) in (str, int))


def _owners_anywhere(param_ids: set[int]) -> list[nn.Module]:
    """Return the outermost modules, of all that exist, that have some of these parameters: it takes 0.1 s or more."""
    modules = [
        each
        for each in gc.get_objects()
        if issubclass(type(each), nn.Module) and isinstance(vars(each).get("_modules"), dict)
    ]
    parents = {id(child): module for module in modules for child in module._modules.values() if child is not None}
    roots = {}
    for module in modules:
        if any(id(param) in param_ids for param in module._parameters.values()):
            seen: set[int] = set()
            while id(module) in parents and id(module) not in seen:
                seen.add(id(module))
                module = parents[id(module)]
            roots[id(module)] = unwrapped(module)
    return list(roots.values())


def _unused_name(name: str, taken: Iterable[str]) -> str:
    """Return the name, with a number behind it where it is taken."""
    names, number = set(taken), 2
    if name not in names:
        return name
    while f"{name}_{number}" in names:
        number += 1
    return f"{name}_{number}"


def named_param(params: Mapping[str, Tensor], name: str) -> Tensor:
    """Return a parameter; raises Refused where there is none of this name."""
    if name not in params:
        raise Refused(f'there is no parameter "{name}": this script has {first_few(list(params))}.')
    return params[name]


@contextmanager
def untouched() -> Iterator[None]:
    """Read tensors without a graph, autocast, or the user's own modes around."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(without_modes())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def readable_group(tensors: Mapping[str, Tensor], *, exact: bool = True, sampled_range: bool = True) -> TensorGroup:
    """Return tensors to measure together; what cannot be read, or not without the other ranks, is not."""
    return TensorGroup({name: _readable(each) for name, each in tensors.items()}, exact, sampled_range)


def _readable(tensor: Tensor) -> Tensor:
    """Return this rank's part of a distributed tensor, and nothing to measure of one whose memory was given back."""
    if type(tensor).__name__ == "DTensor":
        tensor = tensor._local_tensor  # type: ignore[attr-defined]  # reading the whole would wait for the others
    return tensor if in_memory(tensor) else torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
