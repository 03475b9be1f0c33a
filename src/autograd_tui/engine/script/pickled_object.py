"""Objects of a script that are pickled as torch.save does it, with what they need to be read again."""

from __future__ import annotations

import importlib
import io
import marshal
import pickle
import sys
import warnings
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType, SimpleNamespace
from typing import Any

import torch

References = frozenset[tuple[str, str]]  # what is pickled by name, mostly classes: its module, and its name there


@dataclass(frozen=True, slots=True)
class Pickled:
    """An object as it was."""

    name: str  # of the variable that held it
    data: bytes
    references: References
    has_params: bool

    def read(self) -> Any:
        """Return a new object that is as that one was."""
        return torch.load(io.BytesIO(self.data), weights_only=False)


def pickle_into(file: Any, value: Any) -> References:
    """Pickle a value into an open file; return what it needs by name. Raises whatever the value's own code raises."""
    references = set[tuple[str, str]]()

    class NotingPickler(pickle.Pickler):
        def reducer_override(self, each: Any) -> Any:
            module, name = getattr(each, "__module__", None), getattr(each, "__qualname__", None)
            if isinstance(each, FunctionType) and "<" in each.__qualname__ and module in sys.modules:
                references.update(
                    (each.__module__, used) for used in each.__code__.co_names if used in each.__globals__
                )
                return _reduced(each)
            if each is FunctionType or each is CellType:  # which are not found by their own names
                return getattr, (_Imported("types"), "FunctionType" if each is FunctionType else "CellType")
            if isinstance(each, CodeType):
                return marshal.loads, (marshal.dumps(each),)
            if isinstance(module, str) and isinstance(name, str):  # a class or a function
                references.add((module, name))
            return NotImplemented

    module = SimpleNamespace(__name__="pickle", Pickler=NotingPickler)
    ignored = ("ignore", None, Warning, None, 0)
    warnings.filters.insert(0, ignored)  # type: ignore[attr-defined]  # not simplefilter: warnings would come twice
    try:
        torch.save(value, file, pickle_module=module)
    finally:
        warnings.filters.remove(ignored)  # type: ignore[attr-defined]
    return frozenset(references)


class _Globals:
    """Stands for the variables of a module, which are read from that when they are unpickled."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __reduce__(self) -> Any:
        return getattr, (_Imported(self._module), "__dict__")


class _Imported:
    """Stands for a module."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __reduce__(self) -> Any:
        return importlib.import_module, (self._module,)


class _Cell:
    """Stands for a variable that an inner function has from the one around it."""

    def __init__(self, contents: Any) -> None:
        self._contents = contents

    def __reduce__(self) -> Any:
        return CellType, (self._contents,)


def _reduced(function: FunctionType) -> tuple[Any, ...]:
    """Return how to make an inner function or a lambda again, which no name leads to, by Python's own means."""
    cells = tuple(_Cell(each.cell_contents) for each in function.__closure__ or ())
    given = (function.__code__, _Globals(function.__module__), function.__name__, function.__defaults__, cells)
    return FunctionType, given, {"__kwdefaults__": function.__kwdefaults__} if function.__kwdefaults__ else None
