"""What a forward may change: the model's buffers, Python state and global state; copied, and put back."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autograd_tui.engine.training.global_state import GlobalSnapshot, GlobalState
from autograd_tui.engine.training.python_state import PythonState
from autograd_tui.engine.training.tensor_properties import (
    MAX_MEASURED_VALUES,
    CopyBatch,
    has_one_block,
    has_shape,
    in_memory,
    is_writable,
    kind_key,
    shape_of,
)

_PLAIN = (Tensor, nn.Buffer)  # other classes may hold other tensors each time


@dataclass(frozen=True, slots=True)
class ModelBuffers:
    """Which tensor, or None, each module has under each buffer name; the tensors themselves, not copies.

    A forward may write into them, and may also put other tensors in their places.
    """

    slots: tuple[tuple[str, nn.Module, dict[str, Tensor | None]], ...]  # by module: its name, and its buffers

    @classmethod
    def of(cls, model: nn.Module) -> ModelBuffers:
        """Return the buffers that the model has now."""
        return cls(tuple((name, module, dict(module._buffers)) for name, module in model.named_modules()))

    @property
    def modules(self) -> list[nn.Module]:
        return [module for _, module, _ in self.slots]

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by their full names."""
        return _named((prefix, buffers) for prefix, _, buffers in self.slots)

    def current(self) -> dict[str, Tensor]:
        """Return the tensors that the same modules have by now."""
        return _named((prefix, module._buffers) for prefix, module, _ in self.slots)

    @torch.no_grad()
    def restore(self, copies: dict[str, Tensor]) -> None:
        """Give the modules the same tensors again, filled with `copies` of them, by full name."""
        for _, module, buffers in self.slots:
            if isinstance(module._buffers, dict):  # a compiled module keeps its tensors
                module._buffers.clear()
                module._buffers.update(buffers)
        batch = CopyBatch()
        for name, buffer in self.tensors().items():
            if shape_of(buffer) != shape_of(copies[name]) or not in_memory(buffer):
                buffer.data = copies[name].to(buffer.device, copy=True)
            elif is_writable(buffer):
                batch.add(buffer.data, copies[name])  # .data: an older graph that saved the buffer stays valid
        batch.run()


def _named(slots: Iterable[tuple[str, dict[str, Tensor | None]]]) -> dict[str, Tensor]:
    return {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, buffers in slots
        for name, buffer in buffers.items()
        if has_shape(buffer)
    }


class BufferCopies:
    """Copies of buffers, made again before each forward in the same memory.

    All of one dtype are copied in one call, which is one launch on an accelerator. How is worked out once, for as long
    as the model has the same tensors of the same kinds.
    """

    def __init__(self) -> None:
        self._copies: dict[str, Tensor] = {}
        self._buffers: list[Tensor] = []  # that they were made of last, and their kinds then
        self._kinds: list[object] = []
        self._batch: CopyBatch | None = None  # that makes them again; None where it must be worked out anew

    def update(self, buffers: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return copies of buffers by their full names; those that were returned before are overwritten."""
        kinds = [kind_key(each) for each in buffers.values()]
        batch, self._batch = self._batch, None
        if batch is None or not self._are_same(buffers, kinds):
            batch = self._prepare(buffers)
            self._buffers, self._kinds = list(buffers.values()), kinds
        batch.repeat()
        if all(type(each) in _PLAIN and has_one_block(each) and not each.is_meta for each in self._buffers):
            self._batch = batch
        return self._copies

    def _are_same(self, buffers: dict[str, Tensor], kinds: list[object]) -> bool:
        same_names = list(buffers) == list(self._copies)
        return same_names and kinds == self._kinds and all(map(operator.is_, buffers.values(), self._buffers))

    def _prepare(self, buffers: dict[str, Tensor]) -> CopyBatch:
        before, self._copies, batch = self._copies, {}, CopyBatch()
        for name, buffer in buffers.items():
            if buffer.numel() > MAX_MEASURED_VALUES:
                self._copies[name] = buffer
            elif buffer.is_meta or not has_one_block(buffer):
                self._copies[name] = buffer.detach().clone()
            else:
                copy = before.get(name)
                if copy is None or (copy.shape, copy.dtype, copy.device) != (buffer.shape, buffer.dtype, buffer.device):
                    copy = torch.empty_like(buffer, requires_grad=False)
                self._copies[name] = copy
                batch.add(copy, buffer if type(buffer) in _PLAIN else buffer.detach())
        return batch


@dataclass(frozen=True, slots=True)
class ForwardSnapshot:
    """Copies of all that a forward may change, as it was just before; `restore` reads them as often as wanted."""

    buffers: ModelBuffers
    copies: dict[str, Tensor]  # of the buffers, by full name
    python: PythonState
    global_state: GlobalState
    global_snapshot: GlobalSnapshot

    def restore(self) -> None:
        """Put everything back, inside the global state."""
        self.buffers.restore(self.copies)
        self.python.restore()
        self.global_state.restore(self.global_snapshot)
