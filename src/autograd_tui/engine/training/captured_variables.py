"""Variables that a user's functions can read and assign: of closures and modules, and attributes of classes."""

from __future__ import annotations

import dis
import functools
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

from autograd_tui.engine.training.scenario import Parts
from autograd_tui.engine.training.user_code import is_user_file

_OPCODES = ("LOAD_GLOBAL", "STORE_GLOBAL", "STORE_DEREF", "LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True, slots=True)
class VariableRef:
    """A variable that user-written code uses: of a closure or a module, or an attribute of a class or function."""

    path: str  # as code would write it: "count", "Net.calls"
    owner: Any
    name: str
    assigned: bool = True  # whether the code assigns it


class CapturedVariables:
    """The variables that the user-written functions of a training loop read or assign, found in their bytecode."""

    def __init__(self, parts: Parts) -> None:
        self.variables: dict[tuple[int, str], VariableRef] = {}
        self.objects: dict[str, Any] = {}  # callable objects and mutable defaults, by path
        self.names: set[str] = set()  # of all attributes and globals that the functions read
        self._seen: set[int] = set()
        for name in ("forward", "loss", "batch"):
            self._call(getattr(parts, name), name)
        for param in parts.model.parameters():
            for hook in (param._backward_hooks or {}).values():
                self._call(hook, "")
        for module in parts.model.modules():
            self._instance(module)
            hooks = (each for kind in _HOOKS for each in vars(module)[kind].values())
            for each in (*hooks, *vars(module).values()):
                if isinstance(each, (FunctionType, MethodType, functools.partial)):
                    self._call(each, "")

    def _call(self, what: Any, path: str) -> None:
        """Search a callable: a function, a method, a partial, or an object."""
        if isinstance(what, functools.partial):
            self._call(what.func, path)
            for each in (*what.args, *what.keywords.values()):
                self._value(each, path)
        elif isinstance(what, MethodType):
            self._call(what.__func__, path)
            self._value(what.__self__, path)
        elif isinstance(what, FunctionType):
            self._function(what)
        elif what is not None and not isinstance(what, type) and hasattr(what, "__dict__"):
            if is_user_written(type(what)) or isinstance(what, nn.Module):
                self.objects.setdefault(path, what)
            self._instance(what)

    def _function(self, function: FunctionType) -> None:
        if id(function) in self._seen or not is_user_written(function):
            return
        self._seen.add(id(function))
        names = _names(function.__code__)
        self.names |= names["LOAD_GLOBAL"] | names["LOAD_ATTR"] | names["LOAD_METHOD"]
        for each in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            if isinstance(each, (list, dict, set)):
                self.objects.setdefault(f"a default of {function.__qualname__}", each)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self._add(VariableRef(name, cell, name, name in names["STORE_DEREF"]))
        space, assigned = function.__globals__, names["STORE_GLOBAL"]
        for name in assigned | (names["LOAD_GLOBAL"] & space.keys()):
            self._add(VariableRef(name, space, name, name in assigned))
        for name in vars(function):
            self._add(VariableRef(f"{function.__name__}.{name}", function, name))
        attributes = names["LOAD_ATTR"] | names["LOAD_METHOD"] | names["STORE_ATTR"]
        for module in map(space.get, names["LOAD_GLOBAL"]):
            if isinstance(module, ModuleType) and is_user_file(getattr(module, "__file__", None) or "<frozen"):
                for name in attributes & vars(module).keys():
                    self._add(VariableRef(f"{module.__name__}.{name}", vars(module), name, name in names["STORE_ATTR"]))

    def _add(self, variable: VariableRef) -> None:
        earlier = self.variables.get((id(variable.owner), variable.name))
        if earlier is None or (variable.assigned and not earlier.assigned):
            self.variables[id(variable.owner), variable.name] = variable
        if earlier is None:
            for value in read_variable(variable):
                self._value(value, variable.path)

    def _value(self, value: Any, path: str) -> None:
        """Search a value for more functions."""
        if isinstance(value, (FunctionType, MethodType, functools.partial)):
            self._call(value, path)
        elif isinstance(value, type):
            self._class(value)
        elif not isinstance(value, ModuleType):
            self._instance(value)

    def _instance(self, value: Any) -> None:
        if isinstance(value, nn.Module):
            for module in value.modules():
                self._class(type(module))
        else:
            self._class(type(value))

    def _class(self, cls: type) -> None:
        if id(cls) in self._seen or not is_user_written(cls):
            return
        self._seen.add(id(cls))
        for name, value in vars(cls).items():
            function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
            function = function.fget if isinstance(function, property) else function
            if isinstance(function, FunctionType):
                self._function(function)
            elif not name.startswith("__") and not inspect.isdatadescriptor(value):
                self._add(VariableRef(f"{cls.__name__}.{name}", cls, name))
        for base in cls.__mro__[1:]:
            self._class(base)


def read_variable(variable: VariableRef) -> Iterator[Any]:
    """Yield the value of a variable; nothing where it has none."""
    if isinstance(variable.owner, CellType):
        try:
            yield variable.owner.cell_contents
        except ValueError:
            return
    else:
        space = variable.owner if isinstance(variable.owner, dict) else vars(variable.owner)
        if variable.name in space:
            yield space[variable.name]


def write_variable(variable: VariableRef, values: list[Any]) -> None:
    """Assign what `read_variable` yielded, or delete the variable where that was nothing."""
    if list(map(id, read_variable(variable))) == list(map(id, values)):
        return
    if isinstance(variable.owner, CellType):
        if values:
            variable.owner.cell_contents = values[0]
        else:
            del variable.owner.cell_contents
    elif isinstance(variable.owner, type):
        setattr(variable.owner, variable.name, values[0]) if values else delattr(variable.owner, variable.name)
    else:
        space = variable.owner if isinstance(variable.owner, dict) else vars(variable.owner)
        if values:
            space[variable.name] = values[0]
        else:
            del space[variable.name]


def is_user_written(what: FunctionType | type) -> bool:
    """Return whether a user has written a function or a class, and not Python, a library, or this package."""
    if isinstance(what, FunctionType):
        return is_user_file(what.__code__.co_filename)
    return _is_users_class(what)


@functools.lru_cache(maxsize=1024)
def _is_users_class(cls: type) -> bool:
    code = next((each.__code__ for each in vars(cls).values() if isinstance(each, FunctionType)), None)
    if code is not None:
        return is_user_file(code.co_filename)
    if cls.__module__ in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return file is not None and is_user_file(file)


def _names(code: CodeType) -> dict[str, set[str]]:
    """Return the names in code, and in the functions inside it, by opcode: STORE_GLOBAL, LOAD_ATTR."""
    names: dict[str, set[str]] = {kind: set() for kind in _OPCODES}
    for each in dis.get_instructions(code):
        if each.opname in names and not (each.opname == "STORE_DEREF" and each.argval in code.co_cellvars):
            names[each.opname].add(each.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            for opcode, inner_names in _names(inner).items():
                names[opcode] |= inner_names - {*code.co_cellvars} if opcode == "STORE_DEREF" else inner_names
    return names
