"""A model's buffers and modes, also where its forward puts other tensors in their places, or changes a mode."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Buffers:
    """Which tensor, or None, lies under each name; the tensors themselves, not copies. And which modules train."""

    held: tuple[tuple[str, nn.Module, dict[str, Tensor | None]], ...]  # of each module
    modes: tuple[bool, ...]  # `training` of each

    @classmethod
    def of(cls, model: nn.Module) -> Buffers:
        """Say what the model holds now."""
        held = tuple((name, module, dict(module._buffers)) for name, module in model.named_modules())
        return cls(held, tuple(module.training for _, module, _ in held))

    def tensors(self) -> dict[str, Tensor]:
        """Give the tensors by their names."""
        return _named((prefix, buffers) for prefix, _, buffers in self.held)

    def now(self) -> dict[str, Tensor]:
        """Give the tensors that the same modules hold by now."""
        return _named((prefix, module._buffers) for prefix, module, _ in self.held)

    @torch.no_grad()
    def put_back(self, copies: dict[str, Tensor]) -> None:
        """Hold the same tensors again, filled with what `copies` remember of them."""
        for (_, module, buffers), training in zip(self.held, self.modes, strict=True):
            module._buffers.clear()
            module._buffers.update(buffers)
            module.training = training
        for name, buffer in self.tensors().items():
            if _writable(buffer):
                buffer.data.copy_(copies[name])  # .data: an older graph that saved the buffer stays valid


def _named(held: Iterable[tuple[str, dict[str, Tensor | None]]]) -> dict[str, Tensor]:
    return {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, buffers in held
        for name, buffer in buffers.items()
        if buffer is not None
    }


def _writable(tensor: Tensor) -> bool:
    """Tell whether PyTorch writes into it: not where values share memory, so that no model has done so either."""
    if tensor.is_nested or tensor.layout is not torch.strided:
        return True
    return all(stride or size < 2 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
