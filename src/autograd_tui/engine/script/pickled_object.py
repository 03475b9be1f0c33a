"""Objects of a script that are pickled as torch.save does it, with what they need to be read again."""

from __future__ import annotations

import io
import pickle
import warnings
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

References = frozenset[tuple[str, str]]  # classes and functions that are pickled by name: their modules and names


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
