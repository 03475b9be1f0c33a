"""A copy of the model in float64, at the state of one forward: its loss can be asked for as often as wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.engine.inside.as_drawn import DrawnAsInFloat32
from autograd_tui.engine.inside.graph import GraphNode, is_leaf, name_of
from autograd_tui.engine.training.buffers import Buffers
from autograd_tui.engine.training.loop import Loop, to_device
from autograd_tui.engine.training.predict import predict
from autograd_tui.engine.training.raised import in_words
from autograd_tui.engine.values.errors import Refused

_CAST = "ToCopyBackward"


class Double:
    """The model, its loss function and its batch, copied; use it inside the loop's surroundings.

    Each `loss` begins with the same buffers and draws the same random numbers as the loop's own forward would.
    Raises Refused, in one sentence, where the model cannot be copied.
    """

    def __init__(self, loop: Loop, *, dtype: torch.dtype | None = torch.float64, before: Callable[[], None]) -> None:
        """Copy what a loop holds just before its forward; with no `dtype` in its own ones.

        `before` is called before each forward.
        """
        self._loop, self._dtype, self._before = loop, dtype, before
        self.model = _copied(loop.model, dtype)
        self._parts = loop.parts
        self._loss = loop.parts.loss
        if isinstance(self._loss, nn.Module):
            self._loss = _copied(self._loss, dtype)
        self._surroundings = loop.surroundings
        self.batch = _cast(to_device(loop.parts.batch(loop.forwards), loop.device), dtype)
        self._mark = loop.surroundings.mark_closely()
        self._holders = Buffers.of(self.model)
        self._buffers = {name: buffer.detach().clone() for name, buffer in self._holders.tensors().items()}
        self.params = dict(self.model.named_parameters())

    def loss(self, looking_on: AbstractContextManager[Any] | None = None) -> Tensor:
        """Run the forward, inside `looking_on`; scalar. Raises Refused where it cannot run in float64."""
        self._before()
        self._surroundings.return_to(self._mark)
        self._holders.put_back(self._buffers)
        usual = torch.get_default_dtype()
        torch.set_default_dtype(self._dtype or usual)
        drawn = DrawnAsInFloat32() if self._dtype else nullcontext()
        batch = _cast(self.batch, None)
        try:
            with drawn, looking_on or nullcontext():
                loss, _, _ = predict(self._parts, self.model, self._loss, batch)
        except Refused:
            raise
        except Exception as error:
            raise Refused(f"the model cannot run in float64: {in_words(error)}.") from error
        finally:
            torch.set_default_dtype(usual)
        return loss

    def check(self, loss: Tensor) -> None:
        """Refuse a loss that does not depend on this copy alone, in float64 all the way."""
        if loss.numel() != 1:
            raise Refused("the loss is not one number, so it has no gradient to prove.")
        if not bool(loss.isfinite()):
            raise Refused("the loss is not finite in float64 either, so nothing can be measured around it.")
        if loss.grad_fn is None:
            raise Refused("the loss depends on no parameter, so there is no gradient to prove.")
        nodes = list(_nodes(loss))
        if loss.dtype is not torch.float64 or any(name_of(node).startswith(_CAST) for node in nodes):
            raise Refused("the model changes its numbers' dtype on the way, and float64 is needed all the way.")
        own = {id(param) for param in self._loop.params.values()}
        if any(is_leaf(node) and id(node.variable) in own for node in nodes):
            raise Refused("the loss reaches around the copy to the model itself, which is not to be touched.")


def _copied(module: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    if any(param.is_complex() for param in module.parameters()):
        raise Refused("the model has complex parameters, whose gradients cannot be proven yet.")
    try:
        copy = deepcopy(module)
        return copy if dtype is None else copy.to(dtype)
    except Exception as error:
        raise Refused(f"the model cannot be copied: {in_words(error)}.") from error


def _cast(value: Any, dtype: torch.dtype | None) -> Any:
    """Copy a batch, which a forward may change in place; its floating-point tensors in another dtype, if any."""
    if isinstance(value, Tensor):
        wanted = dtype if dtype and value.is_floating_point() else value.dtype
        return value.detach().to(wanted, copy=True)
    if isinstance(value, dict):
        return type(value)((key, _cast(each, dtype)) for key, each in value.items())
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(_cast(each, dtype) for each in value)
    return value


def _nodes(loss: Tensor) -> Iterator[GraphNode]:
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node: GraphNode = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [each for each, _ in node.next_functions]
