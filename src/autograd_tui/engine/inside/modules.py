"""Which module of a model is running."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle


class ModulePath:
    """Follows, inside `with`, which module is called; `path` is its name in the model, "" in the model itself."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {id(module): name for name, module in model.named_modules()}
        self._stack: list[str] = []
        self._handles: list[RemovableHandle] = []

    @property
    def path(self) -> str:
        return self._stack[-1] if self._stack else ""

    def __enter__(self) -> None:
        self._handles = [
            register_module_forward_pre_hook(self._begin),
            register_module_forward_hook(self._end, always_call=True),
        ]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._stack = [], []

    def _begin(self, module: nn.Module, _: Any) -> None:
        self._stack.append(self._names.get(id(module), self.path))

    def _end(self, *_: Any) -> None:
        if self._stack:
            self._stack.pop()
