"""The zeros in what modules of a script give, counted by a global hook while a watchpoint asks for them."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.engine.script.module_calls import without_modes
from autograd_tui.engine.training.phase_tests import count_zeros

MAX_CALLS = 4096  # since the last forward that a backward followed


class ActivationCounts:
    """Counts zeros in calls in grad mode; the modules themselves stay as they are, whoever pickles or copies them.

    `calls`: of each call, the module's name, how many values are 0, and how many there are.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        """Begin to follow the calls of some modules, by name."""
        self._names = {id(module): (weakref.ref(module), name) for name, module in modules.items()}
        self.calls: deque[tuple[str, Tensor, int]] = deque(maxlen=MAX_CALLS)
        self._handle = nn.modules.module.register_module_forward_hook(self._count)
        self.hook_id: int = self._handle.id

    def remove(self) -> None:
        """Take the hook away."""
        self._handle.remove()

    def shares(self) -> tuple[tuple[str, float], ...]:
        """Return the share of zeros in each call so far, with the module's name."""
        return tuple((name, zeros.item() / size) for name, zeros, size in self.calls)

    def _count(self, module: nn.Module, arguments: Any, output: Any) -> None:
        known = self._names.get(id(module))
        if known is None or known[0]() is not module or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        if torch._C._are_functorch_transforms_active():
            return
        try:
            with without_modes():
                counted = count_zeros(output)
        except Exception:  # an output that cannot be read
            return
        if counted is not None:
            self.calls.append((known[1], *counted))
