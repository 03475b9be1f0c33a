"""The batches of a DataLoader as a function of the iteration, so that any of them can be asked for again."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from autograd_tui.engine.training.surroundings import ForeignRandom
from autograd_tui.engine.values.errors import Refused


def from_loader(loader: DataLoader[Any]) -> Callable[[int], Any]:
    """Make `batch(i)` of a DataLoader: batch i is the one that this script takes as its i-th.

        for epoch in itertools.count():
            torch.manual_seed(seed + epoch)  # and so the loader's own generator, where it has one
            for batch in loader:
                ...

    `seed` is that of the loader's generator, else torch.initial_seed(), which --seed gives: without the seeding, the
    script begins with the same epoch, and shuffles the next ones otherwise. Sampler, batch size,
    collate_fn and drop_last are the loader's; its workers and pinned memory are not used. What a dataset draws itself,
    as random transforms do, comes from torch, random and numpy.random seeded with seed + i, unlike in the script.
    Raises Refused where a batch cannot be had a second time.
    """
    if not isinstance(loader, DataLoader):
        raise Refused(f"from_loader takes a torch.utils.data.DataLoader, not {type(loader).__name__}.")
    if isinstance(loader.dataset, IterableDataset):
        raise Refused("from_loader needs a dataset with an index: an IterableDataset gives each batch only once.")
    generators = _generators(loader)
    seed = generators[0].initial_seed() if generators else torch.initial_seed()

    @lru_cache(maxsize=1)
    def order(epoch: int) -> Sequence[Any]:
        with _seeded(seed + epoch, generators):
            return list(_like(loader, _Places(), _sampling(loader), collate=_as_it_is))

    def batch(i: int) -> Any:
        epoch, place = divmod(i, batches)
        if len(order(epoch)) != batches:
            raise ValueError(f"epoch {epoch} of the loader has {len(order(epoch))} batches, the first had {batches}")
        with _seeded(seed + i, generators):
            sampling = {"batch_size": None, "sampler": [order(epoch)[place]]}
            if loader.batch_sampler is not None:
                sampling = {"batch_sampler": [order(epoch)[place]]}
            return next(iter(_like(loader, loader.dataset, sampling, collate=loader.collate_fn)))

    batches = len(order(0))
    _check(order, batch, batches)
    return batch


def _check(order: Any, batch: Callable[[int], Any], batches: int) -> None:
    """Refuse what is empty, or gives something else when it is asked twice."""
    if not batches:
        raise Refused("the loader is empty: its dataset is, or drop_last leaves nothing of it.")
    first, taken = order(0), batch(0)
    order.cache_clear()
    if order(0) != first:
        raise Refused("the loader's sampler gives another order each time, seeded or not: from_loader cannot go back.")
    if not _same(batch(0), taken):
        raise Refused("the loader's dataset gives other data each time, seeded or not: from_loader cannot go back.")


def _like(loader: DataLoader[Any], dataset: Any, sampling: dict[str, Any], *, collate: Any) -> DataLoader[Any]:
    """Make a loader with another dataset or order that draws the same random numbers in the same places."""
    return DataLoader(dataset, **sampling, collate_fn=collate, generator=loader.generator)


def _sampling(loader: DataLoader[Any]) -> dict[str, Any]:
    if loader.batch_sampler is not None:
        return {"batch_sampler": loader.batch_sampler}
    return {"batch_size": None, "sampler": loader.sampler}


class _Places(Dataset[Any]):
    """Gives back the index that it is asked for: so a loader tells its order, and reads no data."""

    def __getitem__(self, index: Any) -> Any:
        return index


def _as_it_is(items: Any) -> Any:
    return items


def _generators(loader: DataLoader[Any]) -> list[torch.Generator]:
    """Give the generators of their own that the loader and its samplers have, each once."""
    inner = getattr(loader.batch_sampler, "sampler", None)
    holders = (loader, loader.sampler, loader.batch_sampler, inner)
    found = (getattr(holder, "generator", None) for holder in holders)
    return list({id(each): each for each in found if isinstance(each, torch.Generator)}.values())


@contextmanager
def _seeded(seed: int, generators: Sequence[torch.Generator]) -> Iterator[None]:
    """Seed all random numbers on the CPU inside, and put them back afterwards."""
    everybody = [torch.default_generator, *generators]
    states, foreign = [each.get_state() for each in everybody], ForeignRandom.read()
    numpy = sys.modules.get("numpy")
    try:
        for each in everybody:
            each.manual_seed(seed)
        random.seed(seed)
        if numpy is not None:
            numpy.random.seed(seed % (1 << 32))
        yield
    finally:
        foreign.write()
        for each, state in zip(everybody, states, strict=True):
            each.set_state(state)


def _same(one: Any, other: Any) -> bool:
    """Tell whether two batches hold the same; NaN is the same as NaN."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if (one.dtype, one.shape, one.layout) != (other.dtype, other.shape, other.layout):
            return False
        if one.layout is not torch.strided:
            return True  # sparse ones cannot be compared
        return bool(((one == other) | ((one != one) & (other != other))).all())
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and (one is other or not _known(one) or bool(one == other))


def _known(value: Any) -> bool:
    """Tell whether == says something about a value of this kind."""
    return isinstance(value, (str, bytes, int, float, complex, type(None)))
