"""The batches of a DataLoader as a training script takes them, and the way back to any of them."""

from __future__ import annotations

import copy
import pickle
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from autograd_tui.core.errors import Refused
from autograd_tui.core.terminal_text import print_lines
from autograd_tui.engine.training.global_state import GlobalState, HostRng

MAX_STATES_BETWEEN = 4096  # batches of an epoch for which random states are kept
MAX_DEPTH = 4  # levels of attributes at which generators are looked for
_WITHOUT_GENERATORS = (type, ModuleType, nn.Module, Tensor)  # which hold no generators of a loader's
RandomStates = tuple[Any, ...]  # of torch, of Python and NumPy, and of each generator that the loader holds


def from_loader(loader: Any) -> Callable[[int], Any]:
    """Return `batch(i)` of a DataLoader: batch i is the i-th that this script takes, with the same random numbers.

        for epoch in itertools.count():
            for batch in loader:
                ...

    An epoch begins when its first batch is asked for: there `iter(loader)` draws from the live random numbers, as it
    does in the script. Going back puts the loader back too, with the generators that it, its samplers and its dataset
    hold. A batch asked for twice on the way on is taken once. `loader` may also be an object that holds one DataLoader
    and hands its batches on by `.next()`. Of two loaders each begins at its own first batch, where `zip` begins both
    before either gives one.

    Sampler, batch size, collate_fn, drop_last and workers are the loader's. Going back in an epoch that workers read,
    or that is of an IterableDataset, reads it again from its beginning. Raises Refused where a batch cannot be had a
    second time; where that shows only later, asking for it raises LookupError.
    """
    data_loader, next_batch = _loader_in(loader)
    if type(data_loader).__iter__ is not DataLoader.__iter__:
        raise Refused(f"{type(data_loader).__name__} has an __iter__ of its own: give from_loader a plain DataLoader.")
    batches = _Batches(data_loader, started=next_batch is not None and _has_started(loader))
    with batches.preserve_random_states():
        batches.check(next_batch)
    if data_loader.persistent_workers:
        print_lines(
            "persistent_workers=True: what the dataset itself draws at random in them, such as its transforms, is the "
            "script's; after going back it is so in the first epoch alone",
            file=sys.stderr,
        )
    GlobalState.register(batches)
    return batches


@dataclass(eq=False, slots=True)
class Epoch:
    """One pass through a loader, and what it takes to repeat it. Batches are counted from 0."""

    first: int  # the number of its first batch among those of all epochs
    start: RandomStates
    states_between: dict[int, dict[int, Any]] = field(default_factory=dict)  # before a batch, by index in RandomStates
    unrepeatable_index: int | None = None  # the first batch that cannot be drawn again
    first_values: str = ""  # the beginning of its first batch, or of that one's indices
    last_states: dict[int, Any] = field(default_factory=dict)  # those that it draws from, as it left them

    def note(self, index: int, before: RandomStates, after: RandomStates) -> None:
        """Note the random states before and after batch `index` was drawn.

        Those before it are kept where somebody else has drawn since the batch before: repeating would not yield them.
        """
        drawn = [each for each in range(len(after)) if not _same_state(before[each], after[each])]
        last = self.last_states
        if index and any(each not in last or not _same_state(last[each], before[each]) for each in drawn):
            if len(self.states_between) < MAX_STATES_BETWEEN:
                self.states_between[index] = {each: before[each] for each in drawn}
            elif self.unrepeatable_index is None:
                self.unrepeatable_index = index
        self.last_states.update((each, after[each]) for each in drawn)


@dataclass(frozen=True, slots=True)
class Position:
    """The batch that comes next; `before`: the random states just before the last one."""

    epoch: Epoch | None = None
    index: int = 0  # in the epoch
    before: RandomStates = ()

    @property
    def count(self) -> int:
        """The number of batches returned so far, in all epochs."""
        return self.epoch.first + self.index if self.epoch else 0


class _Batches:
    """Goes through a loader on the live random numbers; restored, it goes through the same epoch again."""

    def __init__(self, loader: DataLoader[Any], *, started: bool) -> None:
        """`started`: whether `iter` has been called before the first batch is asked for."""
        self._loader, self._started = loader, started
        self._persistent_loader: DataLoader[Any] | None = None  # its workers live on from epoch to epoch
        self._generators = _generators(loader)
        # Here the indices come from a loader that reads no data, so that going back reads none either.
        indexed = not loader.num_workers and not isinstance(loader.dataset, IterableDataset)
        self._read_batch = _BatchReader(loader) if indexed else None
        self._host_rng: HostRng | None = None  # as it was read last
        self._position = Position()
        self._iterator: Iterator[Any] | None = None
        self._iterator_at: tuple[Epoch | None, int] = None, 0  # the batch that the iterator yields next
        self._last: tuple[Epoch | None, int, Any] = None, 0, None  # the batch returned last, and the index after it
        if started and not indexed:
            raise Refused("from_loader needs a DataLoader whose iterator has not begun: give it the DataLoader itself.")

    def __call__(self, number: int) -> Any:
        """Return batch `number`; those between it and the last one are drawn too, as the script must.

        Raises LookupError where it is an earlier one that cannot be drawn again.
        """
        GlobalState.register(self)
        if number < self._position.count:
            return self._repeat(number)
        while self._position.count <= number:
            batch = self._next()
        return batch

    @property
    def generators(self) -> tuple[Any, ...]:
        """The generators that the loader holds, whose states are part of its own."""
        return tuple(self._generators)

    def state(self) -> tuple[Position, RandomStates]:
        """Return the position, and the state of each generator that the loader holds."""
        return self._position, tuple(map(_read_state, self._generators))

    def restore(self, state: tuple[Position, RandomStates]) -> None:
        """Return to a state; the iterator follows when the next batch is asked for."""
        self._position, own = state
        for generator, each in zip(self._generators, own, strict=True):
            _write_state(generator, each)

    put_back = restore  # the name by which exported scripts call it

    @contextmanager
    def preserve_random_states(self) -> Iterator[None]:
        """Put all random numbers back afterwards."""
        current = self._random_states()
        try:
            yield
        finally:
            self._set_states(current)

    def check(self, next_batch: Callable[[], Any] | None) -> None:
        """Raise Refused where the loader is empty or, as far as a first batch shows, does not repeat itself."""
        current = self._random_states()
        if isinstance(self._loader.dataset, IterableDataset):
            stream: Any = self._loader.dataset
            if iter(stream) is stream:
                raise Refused("from_loader cannot go back in an IterableDataset that is its own iterator.")
            item = next(iter(stream), None)
            self._set_states(current)
            if not _same_content(next(iter(stream), None), item):
                raise Refused("the loader's dataset gives other data each time: from_loader cannot go back.")
            return
        order = self._first_indices(current)
        if order is None:
            raise Refused("the loader is empty: its dataset is, or drop_last leaves nothing of it.")
        if not _same_content(self._first_indices(current), order):
            raise Refused("the loader's sampler gives another order each time: from_loader cannot go back.")
        if self._read_batch:
            drawn, batch = self._random_states(), self._read_batch(order)
            self._set_states(drawn)
            if not _same_content(self._read_batch(order), batch):
                raise Refused("the loader's dataset gives other data each time: from_loader cannot go back.")
            self._set_states(current)
            if next_batch and not _same_content(next_batch(), batch):
                raise Refused("from_loader takes a DataLoader, or an object that hands on its batches as they are.")

    def _first_indices(self, start: RandomStates) -> Any:
        self._set_states(start)
        return next(self._start_epoch(Epoch(0, start)) if self._read_batch else _index_batches(self._loader), None)

    def _next(self) -> Any:
        """Return the next batch as the script takes it; where that raises, the position stays."""
        if self._position.epoch is not None:
            try:
                return self._draw(self._position.epoch, self._position.index)
            except StopIteration:
                pass
        try:
            return self._draw(Epoch(self._position.count, self._random_states()), 0)
        except StopIteration:
            raise LookupError("the loader gives no batch: its dataset is empty.") from None

    def _draw(self, epoch: Epoch, index: int) -> Any:
        """Return batch `index` of the epoch, drawn on the live random numbers."""
        self._advance(epoch, index)
        before = self._random_states() if index else epoch.start
        batch = self._next_item(epoch, index)
        epoch.note(index, before, self._random_states())
        if not index:
            epoch.first_values = _first_values(batch)
        if self._read_batch:
            batch = self._read_batch(batch)
        self._position, self._last = Position(epoch, index + 1, before), (epoch, index + 1, batch)
        return batch

    def _repeat(self, number: int) -> Any:
        """Return a batch that was returned before; the live random numbers stay as they are."""
        current = self._position
        assert current.epoch is not None
        index, last = number - current.epoch.first, number == current.count - 1
        if self._last[:2] == (current.epoch, index + 1):
            return self._last[2]
        if index < 0:
            raise LookupError(f"batch {number} of the loader was of an earlier epoch: it is not kept.")
        self._iterator = None
        with self.preserve_random_states():
            self._iterator = self._replay(current.epoch, index)
            if index:
                before = current.epoch.states_between.get(index, {})
                self._set_some_states(dict(enumerate(current.before)) if last else before)
            batch = self._next_item(current.epoch, index)
            drawn = self._random_states()
            batch = self._read_batch(batch) if self._read_batch else batch
            if not last and not all(map(_same_state, drawn, self._random_states())):
                raise LookupError(f"batch {number} of the loader was drawn at random, and others came since.")
        if last:
            self._last = current.epoch, index + 1, batch
        return batch

    def _advance(self, epoch: Epoch, index: int) -> None:
        """Bring the iterator to batch `index`; at 0 the epoch begins on the live random numbers."""
        if index and self._iterator is not None and self._iterator_at == (epoch, index):
            return
        self._iterator = None
        if not index:
            self._iterator = self._start_epoch(epoch)
            return
        with self.preserve_random_states():
            self._iterator = self._replay(epoch, index)

    def _next_item(self, epoch: Epoch, index: int) -> Any:
        iterator, self._iterator = self._iterator, None  # it is of no use any more where it raises
        assert iterator is not None
        item = next(iterator)
        self._iterator, self._iterator_at = iterator, (epoch, index + 1)
        return item

    def _start_epoch(self, epoch: Epoch) -> Iterator[Any]:
        """Do what `for batch in loader` does first."""
        if self._started and not epoch.first:
            with self.preserve_random_states():  # the script did it long ago
                return _index_batches(self._loader)
        if self._read_batch:
            return _index_batches(self._loader)
        if not self._loader.persistent_workers:
            return iter(self._loader)
        if self._persistent_loader is None or not epoch.first:
            self._persistent_loader = copy.copy(self._loader)
            if epoch.first:
                with self.preserve_random_states():
                    iter(self._persistent_loader)  # which later epochs only reset
        return iter(self._persistent_loader)

    def _replay(self, epoch: Epoch, index: int) -> Iterator[Any]:
        """Return an iterator of the epoch, advanced to batch `index`; raises LookupError where it differs by now."""
        if epoch.unrepeatable_index is not None and index > epoch.unrepeatable_index:
            raise LookupError(
                "the loader draws from the model's random numbers at each batch: only the first "
                f"{epoch.unrepeatable_index:,} batches of an epoch can be asked for again."
            )
        self._set_states(epoch.start)
        iterator = self._start_epoch(epoch)
        for number in range(index):
            self._set_some_states(epoch.states_between.get(number, {}))
            try:
                item = next(iterator)
            except StopIteration:
                raise LookupError(f"the loader's epoch has {number} batches now, and had {index} or more.") from None
            if not number and epoch.first_values and epoch.first_values != _first_values(item):
                what = "order" if self._read_batch else "batch"
                raise LookupError(f"the loader gives another {what} than it gave before.")
        return iterator

    def _random_states(self) -> RandomStates:
        host_rng = HostRng.read()
        if self._host_rng is None or not host_rng.same(self._host_rng):  # else one copy will do
            self._host_rng = host_rng
        return torch.get_rng_state(), self._host_rng, *map(_read_state, self._generators)

    def _set_states(self, states: RandomStates) -> None:
        self._set_some_states(dict(enumerate(states)))

    def _set_some_states(self, states: Mapping[int, Any]) -> None:
        for index, state in states.items():
            if index == 0:
                torch.set_rng_state(state)
            elif index == 1:
                state.write()
            else:
                _write_state(self._generators[index - 2], state)


class _BatchReader:
    """Reads the batch of given indices in this process, as the loader does."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._indices: Any = None
        options: dict[str, Any] = {"batch_size": None, "sampler": self}
        if loader.batch_sampler is not None:
            options = {"batch_sampler": self}
        own = torch.Generator()  # what the beginning of an epoch draws is none of the script's
        self._items = iter(DataLoader(loader.dataset, **options, collate_fn=loader.collate_fn, generator=own))

    def __call__(self, indices: Any) -> Any:
        self._indices = indices
        return next(self._items)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:  # no generator, which would be at its end once an exception had passed through it
        return self._indices


def _index_batches(loader: DataLoader[Any]) -> Iterator[Any]:
    """Begin an epoch that yields each batch's indices alone; it draws the same random numbers as the loader."""
    options: dict[str, Any] = {"batch_size": None, "sampler": loader.sampler}
    if loader.batch_sampler is not None:
        options = {"batch_sampler": loader.batch_sampler}
    return iter(DataLoader(_IndexDataset(), **options, collate_fn=_identity, generator=loader.generator))


class _IndexDataset(Dataset[Any]):
    """Returns the indices that it is asked for."""

    def __getitem__(self, index: Any) -> Any:
        return index

    def __getitems__(self, indices: Any) -> Any:
        return indices


def _identity(items: Any) -> Any:
    return items


def holds_loader(value: Any) -> bool:
    """Return whether from_loader may take a value: a DataLoader, or what hands on the batches of one."""
    try:
        return bool(_loader_in(value))
    except Refused:
        return False


def _loader_in(holder: Any) -> tuple[DataLoader[Any], Callable[[], Any] | None]:
    """Return the DataLoader, and the function that hands on its batches where another object holds it.

    Raises Refused where it holds none, or several.
    """
    if isinstance(holder, DataLoader):
        return holder, None
    loaders = [each for each in _attributes(holder) if isinstance(each, DataLoader)]
    next_batch = getattr(holder, "next", None) or getattr(holder, "__next__", None)
    if len(loaders) != 1 or not callable(next_batch):
        raise Refused(f"from_loader takes a torch.utils.data.DataLoader, not {type(holder).__name__}.")
    return loaders[0], next_batch


def _has_started(holder: Any) -> bool:
    return any(isinstance(each, Iterator) for each in _attributes(holder))


def _attributes(holder: Any) -> list[Any]:
    return list(getattr(holder, "__dict__", {}).values())


def _generators(loader: DataLoader[Any]) -> list[Any]:
    """Return the generators that a loader, its samplers, its dataset and what these hold have, each once."""
    generators: dict[int, Any] = {}
    seen, holders = {id(loader)}, [loader]
    for _ in range(MAX_DEPTH):
        values = [each for holder in holders for each in _attributes(holder)]
        values += [each for many in values if isinstance(many, (list, tuple)) for each in many[:16]]
        values = list({id(each): each for each in values if id(each) not in seen}.values())
        seen.update(map(id, values))
        generators.update((id(each), each) for each in values if _is_generator(each))
        holders = [each for each in values if not isinstance(each, _WITHOUT_GENERATORS) and hasattr(each, "__dict__")]
    return list(generators.values())


def _is_generator(value: Any) -> bool:
    if value is torch.default_generator or value is getattr(random.seed, "__self__", None):  # everybody's
        return False
    if isinstance(value, (torch.Generator, random.Random)):
        return not isinstance(value, random.SystemRandom)
    numpy = sys.modules.get("numpy")
    if numpy is None or value is getattr(numpy.random.mtrand, "_rand", None):
        return False
    return isinstance(value, (numpy.random.Generator, numpy.random.RandomState))


def _read_state(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.bit_generator.state if hasattr(generator, "bit_generator") else generator.get_state(legacy=False)


def _write_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, torch.Generator) or not hasattr(generator, "bit_generator"):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def _same_state(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return one.same(other) if isinstance(one, HostRng) else pickle.dumps(one) == pickle.dumps(other)


def _first_values(value: Any) -> str:
    """Return the first values of a batch, or of its indices, as a text to compare."""
    if isinstance(value, Tensor):
        few = value.flatten()[:16].tolist() if value.layout is torch.strided else "sparse"
        return f"{value.dtype} {tuple(value.shape)} {few}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_first_values(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_first_values, value[:16]))
    return repr(value) if _is_comparable(value) else type(value).__name__


def _same_content(one: Any, other: Any) -> bool:
    """Return whether two batches hold the same values; NaN equals NaN."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if (one.dtype, one.shape, one.layout) != (other.dtype, other.shape, other.layout):
            return False
        if one.layout is not torch.strided:
            return True  # sparse ones cannot be compared
        return bool(((one == other) | ((one != one) & (other != other))).all())
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same_content(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same_content, one, other))
    return type(one) is type(other) and (one is other or not _is_comparable(one) or bool(one == other))


def _is_comparable(value: Any) -> bool:
    """Return whether == compares values of this kind by content."""
    return isinstance(value, (str, bytes, int, float, complex, type(None)))
