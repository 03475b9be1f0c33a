"""What a forward writes into, put back as it was: its model's weights, and tensors that belong to nobody's copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from autograd_tui.engine.inside.arguments import tensors_in
from autograd_tui.engine.inside.forward import is_transformed
from autograd_tui.engine.inside.held_still import switched_off


class PutBack(TorchFunctionMode):
    """Notes what is written in place inside `with`, but into what was made there; at its end all is as before."""

    def __init__(self) -> None:
        super().__init__()
        self._made: set[int] = set()  # storages
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}  # and what was in it
        self._data: list[tuple[Tensor, Tensor]] = []  # whose .data was set, and what it was
        self._followed: list[tuple[Tensor, bool]] = []  # whose requires_grad was set, and what it was
        self.changed: frozenset[int] = frozenset()  # storages, once it is over

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        switched = switched_off(func, args, kwargs)
        if switched is not None and switched[0].is_leaf:
            self._followed.append((switched[0], switched[0].requires_grad))
        if is_transformed() or switched is not None:
            return func(*args, **kwargs)
        if name == "__set__" and getattr(getattr(func, "__self__", None), "__name__", "") == "data":
            self._data.append((args[0], args[0].data))
        for tensor in _written(name, args, kwargs):
            storage = _storage(tensor)
            if storage is not None and storage.data_ptr() not in self._made:
                self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))  # type: ignore[no-untyped-call]
        there = set(_storages((args, kwargs)))
        result = func(*args, **kwargs)
        self._made.update(each for each in _storages(result) if each not in there)
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        differ = {
            place for place, (now, before) in self._before.items() if not torch.equal(_bytes(now), _bytes(before))
        }
        self.changed = frozenset(differ | {old.data_ptr() for now, old in self._data if not torch.equal(now.data, old)})
        for tensor, followed in reversed(self._followed):
            tensor.requires_grad_(followed)
        for tensor, data in reversed(self._data):
            tensor.data = data
        for storage, before in self._before.values():
            storage.copy_(before)


def _written(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Give the tensors that a call is about to write into, as far as its name tells."""
    yield from tensors_in(kwargs.get("out"))
    in_place = name.startswith("__i") if name.startswith("__") else name.endswith("_")
    if args and (in_place or name == "__setitem__"):
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
