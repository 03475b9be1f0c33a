"""A copy of the model in float64, at the state of one forward: its loss can be asked for as often as wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autograd_tui.engine.inside.graph import GraphNode, is_leaf, name_of
from autograd_tui.engine.inside.held_still import HeldStill, Left
from autograd_tui.engine.inside.in_float64 import InFloat64
from autograd_tui.engine.inside.put_back import PutBack
from autograd_tui.engine.training.attributes import Attributes, Reach
from autograd_tui.engine.training.buffers import Buffers
from autograd_tui.engine.training.loop import Loop, to_device
from autograd_tui.engine.training.predict import predict
from autograd_tui.engine.training.raised import in_words
from autograd_tui.engine.values.errors import Refused

_REENTRANT = "CheckpointFunctionBackward"
HIDES = "a checkpoint with use_reentrant=True hides from autograd what it runs: use_reentrant=False lets it be proven."


class Double:
    """The model, its loss function and its batch, copied; use it inside the loop's surroundings.

    Each `loss` begins with the same weights and buffers and draws the same random numbers as the loop's own forward
    would; what it writes into is put back. Raises Refused, in one sentence, where the model cannot be copied.
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
        self.batch = _batch(loop, dtype)
        self._mark = loop.surroundings.mark_closely()
        self._holders = Buffers.of(self.model)
        self._buffers = _cloned(self._holders.tensors())
        parts = replace(loop.parts, model=self.model, loss=self._loss)
        self._attributes = Attributes(Reach(parts), self._holders.modules)
        self.params = dict(self.model.named_parameters())
        self._home = _files(loop)
        self.wide = InFloat64(loop.device, self._home)  # and what it has found, where it is used
        self._written = PutBack()  # what the forward that gradients were asked of has

    def loss(self, looking_on: AbstractContextManager[Any] | None = None, *, still: HeldStill | None = None) -> Tensor:
        """Run the forward, inside `still` and `looking_on`; scalar. Raises Refused where it cannot run in float64."""
        with PutBack():
            return self._forward(looking_on, still)

    def grads(
        self, of: Callable[[], Iterable[Tensor]], looking_on: AbstractContextManager[Any] | None = None
    ) -> tuple[Sequence[Tensor | None], Sequence[Left]]:
        """Give gradients by autograd, and what left the graph in the forward.

        of: asked for once the forward is over. Raises Refused where the loss or its backward is of no use.
        """
        still = self.still()
        with PutBack() as self._written:
            loss = self._forward(looking_on, still)
            self._check(loss)
            with self._refusing("autograd gives no gradient in float64"), self._wide():
                found = torch.autograd.grad(loss, list(of()), allow_unused=True)
            if any(each is None for each in found) and any(name_of(node) == _REENTRANT for node in _nodes(loss)):
                raise Refused(HIDES)
        return found, still.left

    def _forward(self, looking_on: AbstractContextManager[Any] | None, still: HeldStill | None) -> Tensor:
        self._before()
        self._surroundings.return_to(self._mark)
        self._holders.put_back(self._buffers)
        self._attributes.put_back()
        batch = _cast(self.batch, None)
        refusing = self._refusing("the model cannot run in float64")
        with refusing, still or nullcontext(), self._wide(), looking_on or nullcontext():
            loss, _, _ = predict(self._parts, self.model, self._loss, batch)
        return loss

    def put_back(self) -> None:
        """Put back what the last forward remembers in Python, so that another copy begins with the same."""
        self._attributes.put_back()

    def still(self, known: Sequence[Left] | None = None, *, loose: Iterable[str] = ()) -> HeldStill:
        """Take down what leaves the graph in a forward; or hold still what is `known`, but at the places `loose`."""
        return HeldStill(self._home, known, loose=frozenset(loose))

    def writes_into(self, param: Tensor) -> bool:
        """Tell whether the forward that gradients were asked of has changed a parameter itself."""
        return param.untyped_storage().data_ptr() in self._written.changed

    def _wide(self) -> AbstractContextManager[Any]:
        return self.wide if self._dtype else nullcontext()

    @contextmanager
    def _refusing(self, what: str) -> Iterator[None]:
        """Make Refused of what other people's code raises, in the copy's dtype."""
        usual, device = torch.get_default_dtype(), self._loop.device.type
        autocast = torch.is_autocast_enabled(device)
        torch.set_default_dtype(self._dtype or usual)
        try:
            yield
        except Refused:
            raise
        except Exception as error:
            if "use_reentrant=True" in str(error):
                raise Refused(HIDES) from error
            raise Refused(f"{what}: {in_words(error)}.") from error
        finally:
            torch.set_default_dtype(usual)
            torch.set_autocast_enabled(device, autocast)

    def _check(self, loss: Tensor) -> None:
        """Refuse a loss that is no number, or does not depend on this copy alone, in float64 all the way."""
        if loss.numel() != 1:
            raise Refused("the loss is not one number, so it has no gradient to prove.")
        if not bool(loss.isfinite()):
            raise Refused("the loss is not finite in float64 either, so nothing can be measured around it.")
        if loss.grad_fn is None:
            raise Refused("the loss depends on no parameter, so there is no gradient to prove.")
        if self._dtype is None:
            return
        own = {id(param) for param in self._loop.params.values()}
        if any(is_leaf(node) and id(node.variable) in own for node in _nodes(loss)):
            raise Refused("the loss reaches around the copy to the model itself, which is not to be touched.")
        narrow = self.wide.narrow or f"the loss is {str(loss.dtype).removeprefix('torch.')}"
        if self.wide.narrow or loss.dtype is not torch.float64:
            raise Refused(f"{narrow} in the copy too, and float64 is needed all the way.")


def _batch(loop: Loop, dtype: torch.dtype | None) -> Any:
    """Draw the batch of the forward once more, on its device and in a dtype; raises Refused where that raises."""
    try:
        return _cast(to_device(loop.parts.batch(loop.forwards), loop.device), dtype)
    except Exception as error:
        raise Refused(f"the batch cannot be drawn once more: {in_words(error)}.") from error


def _cloned(buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy buffers; raises Refused where there is no memory for them."""
    try:
        return {name: buffer.detach().clone() for name, buffer in buffers.items()}
    except Exception as error:
        raise Refused(f"the model cannot be copied: {in_words(error)}.") from error


def _copied(module: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    if any(param.is_complex() for param in module.parameters()):
        raise Refused("the model has complex parameters, whose gradients cannot be proven yet.")
    try:
        with _DetachedCopies():
            copy = deepcopy(module)
        return copy if dtype is None else _all_cast(copy.to(dtype), dtype)
    except Exception as error:
        raise Refused(f"the model cannot be copied: {in_words(error)}.") from error


class _DetachedCopies(TorchFunctionMode):
    """Copies what a module remembers of an earlier forward, which PyTorch refuses to copy with its graph."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[1].setdefault(id(args[0]), args[0].detach().clone())
        return func(*args, **(kwargs or {}))


def _files(loop: Loop) -> frozenset[str]:
    """Give the files that the loop's own functions are in."""
    own = getattr(type(loop.model), "forward", None)  # a traced module has none
    functions = (loop.parts.forward, loop.parts.loss, own)
    codes = (getattr(function, "__code__", None) for function in functions)
    return frozenset(code.co_filename for code in codes if code is not None)


def _all_cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast, of a model, the tensors too that its modules hold as plain attributes, such as a hidden state."""
    for module in model.modules():
        space = vars(module)
        held = {name: each for name, each in space.items() if type(each) in (Tensor, tuple, list, dict)}
        space.update({name: _cast(each, dtype) for name, each in held.items() if not name.startswith("_")})
    return model


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
