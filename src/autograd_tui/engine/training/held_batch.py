"""The batch that a training loop already holds, where each iteration takes the same tensors as they are."""

from __future__ import annotations

import dis
from types import FunctionType

import torch
from torch import Tensor

from autograd_tui.engine.training.scenario import Parts
from autograd_tui.engine.training.tensor_properties import in_memory

_LOADS_AND_RETURNS = {  # all that a function may do which does no more than return what it holds
    "RESUME",
    "NOP",
    "COPY_FREE_VARS",
    "LOAD_CONST",
    "LOAD_DEREF",
    "LOAD_GLOBAL",
    "LOAD_FAST",
    "LOAD_FAST_LOAD_FAST",
    "LOAD_FAST_BORROW",
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW",
    "BUILD_TUPLE",
    "RETURN_VALUE",
}


def held_batch(parts: Parts) -> tuple[Tensor, Tensor] | None:
    """Return the inputs and targets of the first batch; None where a call would do more than return them.

    No random number is drawn, nothing is read, and no code runs but `return x, y`.
    """
    function = parts.batch
    if parts.loss is None or not isinstance(function, FunctionType):
        return None
    if any(each.opname not in _LOADS_AND_RETURNS for each in dis.get_instructions(function)):
        return None
    try:
        batch = function(0)
    except Exception:  # as where it names what is not there yet: the forward will raise it
        return None
    if type(batch) is not tuple or len(batch) != 2 or not all(map(_is_plain, batch)):
        return None
    return batch


def _is_plain(value: object) -> bool:
    """Return whether a value is a tensor that can be read without running any code of the user's."""
    return type(value) is Tensor and value.layout is torch.strided and not value.is_nested and in_memory(value)
