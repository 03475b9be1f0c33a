"""A float64 copy of the model in the state before one forward, whose loss can be computed any number of times."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autograd_tui.core.errors import Refused
from autograd_tui.engine.gradcheck.detached_values import DetachedValue, DetachedValuesMode
from autograd_tui.engine.gradcheck.float64_forward import Float64Mode, check_is_finite
from autograd_tui.engine.tracing.autograd_graph import is_leaf, node_name
from autograd_tui.engine.tracing.call_description import is_transformed, requires_grad_setting, writes_in_place
from autograd_tui.engine.training.forward_snapshot import ForwardSnapshot, ModelBuffers
from autograd_tui.engine.training.predict import predict, to_device
from autograd_tui.engine.training.python_state import PythonState, ReachableState
from autograd_tui.engine.training.state import TrainingState, graph_nodes
from autograd_tui.engine.training.tensor_properties import tensors_in
from autograd_tui.engine.training.user_code import in_words


class RestoringMode(TorchFunctionMode):
    """Undoes at the end of `with` what was written in place in it, but into tensors that were made in it."""

    def __init__(self) -> None:
        super().__init__()
        self._new_storages: set[int] = set()  # storages
        self._contents: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}  # and what was in it
        self._data_before: list[tuple[Tensor, Tensor]] = []  # whose .data was set, and what it was
        self._requires_grad: list[tuple[Tensor, bool]] = []  # whose requires_grad was set, and what it was
        self.changed: frozenset[int] = frozenset()  # storages, once it is over

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":  # of an attribute, which writes nothing: most calls are such
            return func(*args, **kwargs)
        setting = requires_grad_setting(func, args, kwargs)
        if setting is not None and setting[0].is_leaf:
            self._requires_grad.append((setting[0], setting[0].requires_grad))
        if is_transformed() or setting is not None:
            return func(*args, **kwargs)
        if name == "__set__" and getattr(getattr(func, "__self__", None), "__name__", "") == "data":
            self._data_before.append((args[0], args[0].data))
        for tensor in _written(name, args, kwargs):
            storage = _storage(tensor)
            if storage is not None and storage.data_ptr() not in self._new_storages:
                self._contents.setdefault(storage.data_ptr(), (storage, storage.clone()))  # type: ignore[no-untyped-call]
        earlier = set(_storages((args, kwargs)))
        result = func(*args, **kwargs)
        self._new_storages.update(each for each in _storages(result) if each not in earlier)
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        written = {
            address for address, (now, before) in self._contents.items() if not torch.equal(_bytes(now), _bytes(before))
        }
        replaced = {old.data_ptr() for now, old in self._data_before if not torch.equal(now.data, old)}
        self.changed = frozenset(written | replaced)
        for tensor, requires_grad in reversed(self._requires_grad):
            tensor.requires_grad_(requires_grad)
        for tensor, data in reversed(self._data_before):
            tensor.data = data
        for storage, before in self._contents.values():
            storage.copy_(before)


def _written(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the tensors that a call is about to write into, as far as its name tells."""
    yield from tensors_in(kwargs.get("out"))
    if args and writes_in_place(name):
        yield from tensors_in(args[0])
    if name in ("batch_norm", "instance_norm"):  # running statistics
        yield from (each for each in tensors_in((args[1:], kwargs)) if not each.requires_grad)


def _storages(value: Any) -> Iterator[int]:
    for tensor in tensors_in(value):
        storage = _storage(tensor)
        if storage is not None:
            yield storage.data_ptr()


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _storage(tensor: Tensor) -> torch.UntypedStorage | None:
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):  # a sparse one
        return None


_REENTRANT = "CheckpointFunctionBackward"
HIDES = "a checkpoint with use_reentrant=True hides from autograd what it runs: use_reentrant=False lets it be checked."


class Float64Copy:
    """The model, its loss function and its batch, copied; use it inside the loop's global_state.

    Each `loss` begins with the same weights and buffers and draws the same random numbers as the loop's own forward
    would; what it writes into is put back. Raises Refused, in one sentence, where the model cannot be copied.
    """

    def __init__(
        self,
        state: TrainingState,
        *,
        dtype: torch.dtype | None = torch.float64,
        before: Callable[[], None],
        batch: Any = None,
    ) -> None:
        """Copy what a loop holds just before its forward; with no `dtype` in its own ones.

        `before` is called before each forward. `batch`: another than that of the next forward.
        """
        self._state, self._dtype, self._before_forward = state, dtype, before
        self.model, loss = _copied(state.model, dtype), state.parts.loss
        self._parts = replace(
            state.parts, model=self.model, loss=_copied(loss, dtype) if isinstance(loss, nn.Module) else loss
        )
        self.batch = _batch(state, dtype) if batch is None else _cast(batch, dtype)
        snapshot, buffers = state.global_state.exact_snapshot(), ModelBuffers.of(self.model)
        copies = _cloned(buffers.tensors())
        python = PythonState(ReachableState(self._parts), buffers.modules)
        self._start = ForwardSnapshot(buffers, copies, python, state.global_state, snapshot)
        self.params = dict(self.model.named_parameters())
        self._home_files = _files(state)
        dtypes = {param.dtype for param in state.params.values()}
        run_dtype = dtypes.pop() if len(dtypes) == 1 else None
        self.float64_mode = Float64Mode(state.device, self._home_files, run_dtype)  # and the dtypes the run asks for
        self._written = RestoringMode()  # what the forward that gradients were asked of has

    def loss(
        self, observer: AbstractContextManager[Any] | None = None, *, detaching: DetachedValuesMode | None = None
    ) -> Tensor:
        """Run the forward, inside `detaching` and `observer`; scalar. Raises Refused where it cannot run in float64."""
        self._begin()
        with RestoringMode():
            return self._forward(observer, detaching)

    def grads(
        self, of: Callable[[], Iterable[Tensor]], observer: AbstractContextManager[Any] | None = None
    ) -> tuple[Sequence[Tensor | None], Sequence[DetachedValue]]:
        """Return gradients by autograd, and what left the graph in the forward.

        of: asked for once the forward is over. Raises Refused where the loss or its backward is of no use.
        """
        detaching = self.detaching()
        self._begin()
        with RestoringMode() as self._written:
            loss = self._forward(observer, detaching)
            self._check(loss)
            with self._refusing("autograd gives no gradient in float64"), self._in_float64():
                grads = torch.autograd.grad(loss, list(of()), allow_unused=True)
            check_shows_graph(loss, grads)
        return grads, detaching.detached

    def _begin(self) -> None:
        """Have all as it was before the forward; outside RestoringMode, for which what is put back is no change."""
        self._before_forward()
        self._start.restore()

    def _forward(self, observer: AbstractContextManager[Any] | None, detaching: DetachedValuesMode | None) -> Tensor:
        batch = _cast(self.batch, None)
        refusing = self._refusing("the model cannot run in float64")
        with refusing, detaching or nullcontext(), self._in_float64(), observer or nullcontext():
            loss, _, _ = predict(self._parts, self.model, self._parts.loss, batch)
        return loss

    def loss_as_is(self) -> float:
        """Run the forward with nothing put back before or after it, and return the loss.

        For a forward that repeats itself: no buffer, no random number.
        """
        return float(predict(self._parts, self.model, self._parts.loss, self.batch)[0].item())

    def restore(self) -> None:
        """Put back what the last forward has left in Python and the global state, where another copy may see it."""
        self._start.restore()

    def detaching(
        self, recorded: Sequence[DetachedValue] | None = None, *, ignored: Collection[str] = ()
    ) -> DetachedValuesMode:
        """Return a mode that records detached values, or puts `recorded` ones back, but at the places `ignored`."""
        return DetachedValuesMode(self._home_files, recorded, ignored=frozenset(ignored))

    def writes_into(self, param: Tensor) -> bool:
        """Return whether the forward that gradients were asked of has changed a parameter itself."""
        return param.untyped_storage().data_ptr() in self._written.changed

    def _in_float64(self) -> AbstractContextManager[Any]:
        return self.float64_mode if self._dtype else nullcontext()

    @contextmanager
    def _refusing(self, what: str) -> Iterator[None]:
        """Make Refused of what other people's code raises, in the copy's dtype."""
        default_dtype, device = torch.get_default_dtype(), self._state.device.type
        autocast = torch.is_autocast_enabled(device)
        torch.set_default_dtype(self._dtype or default_dtype)
        try:
            yield
        except Refused:
            raise
        except Exception as error:
            if "use_reentrant=True" in str(error):
                raise Refused(HIDES) from error
            raise Refused(f"{what}: {in_words(error)}.") from error
        finally:
            torch.set_default_dtype(default_dtype)
            torch.set_autocast_enabled(device, autocast)

    def _check(self, loss: Tensor) -> None:
        """Refuse a loss that is no number, or does not depend on this copy alone, in float64 all the way."""
        if loss.numel() != 1:
            raise Refused("the loss is not one number, so it has no gradient to check.")
        check_is_finite(loss)
        if loss.grad_fn is None:
            raise Refused("the loss depends on no parameter, so there is no gradient to check.")
        if self._dtype is None:
            return
        own = {id(param) for param in self._state.params.values()}
        if any(is_leaf(node) and id(node.variable) in own for node in graph_nodes(loss)):
            raise Refused("the loss reaches around the copy to the model itself, which is not to be touched.")
        self.float64_mode.check_is_wide(loss, "in the copy too")


def check_shows_graph(loss: Tensor, grads: Iterable[Tensor | None]) -> None:
    """Raise Refused where a gradient may be missing since a part of the forward is hidden from autograd."""
    if any(each is None for each in grads) and hides_graph(loss):
        raise Refused(HIDES)


def hides_graph(loss: Tensor) -> bool:
    """Return whether a part of the forward is hidden from autograd; see HIDES."""
    return any(node_name(node) == _REENTRANT for node in graph_nodes(loss))


def _batch(state: TrainingState, dtype: torch.dtype | None) -> Any:
    """Draw the batch of the forward once more, on its device and in a dtype; raises Refused where that raises."""
    try:
        return _cast(to_device(state.parts.batch(state.forwards), state.device), dtype)
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
        raise Refused("the model has complex parameters, whose gradients cannot be checked yet.")
    copy = detached_copy(module)
    try:
        return copy if dtype is None else _all_cast(copy.to(dtype), dtype)
    except Exception as error:
        raise Refused(f"the model cannot be copied: {in_words(error)}.") from error


def detached_copy(module: nn.Module) -> nn.Module:
    """Return a deep copy that holds on to no graph; raises Refused where there is none."""
    try:
        with _DetachedCopies():
            return deepcopy(module)
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


def _files(state: TrainingState) -> frozenset[str]:
    """Return the files that the loop's own functions are in."""
    own = getattr(type(state.model), "forward", None)  # a traced module has none
    functions = (state.parts.forward, state.parts.loss, own)
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
