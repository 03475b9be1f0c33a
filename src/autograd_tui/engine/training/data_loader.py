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
from autograd_tui.core.printing import print_lines
from autograd_tui.engine.training.global_state import GlobalState, HostRng

MAX_STATES_BETWEEN = 4096  # places of an epoch at which random states are kept
MAX_DEPTH = 4  # attributes of attributes among which generators are looked for

_OTHERS = (type, ModuleType, nn.Module, Tensor)  # which hold no generators of a loader's
Randoms = tuple[Any, ...]  # random states: of torch, of Python and NumPy, and of each generator that the loader holds


def from_loader(loader: Any) -> Callable[[int], Any]:
    """Make `batch(i)` of a DataLoader: batch i is the i-th that this script takes, with the same random numbers.

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
    found, hands_on = _loader_in(loader)
    if type(found).__iter__ is not DataLoader.__iter__:
        raise Refused(f"{type(found).__name__} has an __iter__ of its own: give from_loader a plain DataLoader.")
    batches = _Batches(found, begun=hands_on is not None and _has_begun(loader))
    with batches.aside():
        batches.check(hands_on)
    if found.persistent_workers:
        print_lines(
            "persistent_workers=True: what the dataset itself draws at random in them, such as its transforms, is the "
            "script's; after going back it is so in the first epoch alone",
            file=sys.stderr,
        )
    GlobalState.register(batches)
    return batches


@dataclass(eq=False, slots=True)
class Epoch:
    """One pass through a loader, so that it can be gone through again."""

    first: int  # the number of its first batch
    start: Randoms
    between: dict[int, dict[int, Any]] = field(default_factory=dict)  # by place: states before a draw, by their number
    lost: int | None = None  # the first place that cannot be gone through again
    head: str = ""  # the beginning of its first batch, or of its indices
    left: dict[int, Any] = field(default_factory=dict)  # the states that it draws from, as it left them

    def note(self, place: int, before: Randoms, after: Randoms) -> None:
        """Remember what a draw began with, where it cannot be known: somebody else has drawn since the last one."""
        drawn = [each for each in range(len(after)) if not _equal(before[each], after[each])]
        if place and any(each not in self.left or not _equal(self.left[each], before[each]) for each in drawn):
            if len(self.between) < MAX_STATES_BETWEEN:
                self.between[place] = {each: before[each] for each in drawn}
            elif self.lost is None:
                self.lost = place
        self.left.update((each, after[each]) for each in drawn)


@dataclass(frozen=True, slots=True)
class Position:
    """How many batches of which epoch have been given; `before`: the random states just before the last of them."""

    epoch: Epoch | None = None
    place: int = 0
    before: Randoms = ()

    @property
    def given(self) -> int:
        """Count the batches of all epochs."""
        return self.epoch.first + self.place if self.epoch else 0


class _Batches:
    """Goes through a loader on the live random numbers; put back, it goes through the same epoch again."""

    def __init__(self, loader: DataLoader[Any], *, begun: bool) -> None:
        """Take a loader; `begun`: `iter` has been called before the first batch is asked for."""
        self._loader, self._begun = loader, begun
        self._workers: DataLoader[Any] | None = None  # those that live on from epoch to epoch
        self._generators = _generators(loader)
        # Here the indices come from a loader that reads no data, so that going back reads none either.
        indexed = not loader.num_workers and not isinstance(loader.dataset, IterableDataset)
        self._fetch = _Fetch(loader) if indexed else None
        self._host_rng: HostRng | None = None  # as they were seen last
        self._position = Position()
        self._iterator: Iterator[Any] | None = None
        self._reached: tuple[Epoch | None, int] = None, 0  # by the iterator
        self._last: tuple[Epoch | None, int, Any] = None, 0, None  # the batch given last, and its place
        if begun and not indexed:
            raise Refused("from_loader needs a DataLoader whose iterator has not begun: give it the DataLoader itself.")

    def __call__(self, number: int) -> Any:
        """Give batch `number`; those between it and the last one are taken too, as the script must."""
        GlobalState.register(self)
        if number < self._position.given:
            return self._again(number)
        while self._position.given <= number:
            batch = self._next()
        return batch

    @property
    def generators(self) -> tuple[Any, ...]:
        """The generators that the loader holds, whose states are part of its own."""
        return tuple(self._generators)

    def state(self) -> tuple[Position, Randoms]:
        """Return where it is, and the state of each generator that the loader holds."""
        return self._position, tuple(map(_read, self._generators))

    def restore(self, state: tuple[Position, Randoms]) -> None:
        """Be there again; the iterator is brought there when the next batch is asked for."""
        self._position, own = state
        for generator, each in zip(self._generators, own, strict=True):
            _write(generator, each)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Put all random numbers back afterwards."""
        here = self._randoms()
        try:
            yield
        finally:
            self._set(here)

    def check(self, hands_on: Callable[[], Any] | None) -> None:
        """Refuse what is empty or, as far as it shows before, gives something else when it is asked twice."""
        here = self._randoms()
        if isinstance(self._loader.dataset, IterableDataset):
            stream: Any = self._loader.dataset
            if iter(stream) is stream:
                raise Refused("from_loader cannot go back in an IterableDataset that is its own iterator.")
            item = next(iter(stream), None)
            self._set(here)
            if not _same(next(iter(stream), None), item):
                raise Refused("the loader's dataset gives other data each time: from_loader cannot go back.")
            return
        order = self._first_indices(here)
        if order is None:
            raise Refused("the loader is empty: its dataset is, or drop_last leaves nothing of it.")
        if not _same(self._first_indices(here), order):
            raise Refused("the loader's sampler gives another order each time: from_loader cannot go back.")
        if self._fetch:
            drawn, batch = self._randoms(), self._fetch(order)
            self._set(drawn)
            if not _same(self._fetch(order), batch):
                raise Refused("the loader's dataset gives other data each time: from_loader cannot go back.")
            self._set(here)
            if hands_on and not _same(hands_on(), batch):
                raise Refused("from_loader takes a DataLoader, or an object that hands on its batches as they are.")

    def _first_indices(self, start: Randoms) -> Any:
        self._set(start)
        return next(self._begin(Epoch(0, start)) if self._fetch else _order(self._loader), None)

    def _next(self) -> Any:
        """Take the next batch as the script does; where that raises, the last one stays the last."""
        if self._position.epoch is not None:
            try:
                return self._take(self._position.epoch, self._position.place)
            except StopIteration:
                pass
        try:
            return self._take(Epoch(self._position.given, self._randoms()), 0)
        except StopIteration:
            raise LookupError("the loader gives no batch: its dataset is empty.") from None

    def _take(self, epoch: Epoch, place: int) -> Any:
        """Take the batch at a place on the live random numbers."""
        self._reach(epoch, place)
        before = self._randoms() if place else epoch.start
        taken = self._draw(epoch, place)
        epoch.note(place, before, self._randoms())
        if not place:
            epoch.head = _beginning(taken)
        if self._fetch:
            taken = self._fetch(taken)
        self._position, self._last = Position(epoch, place + 1, before), (epoch, place + 1, taken)
        return taken

    def _again(self, number: int) -> Any:
        """Give a batch that was given before on the same way: the live random numbers stay as they are."""
        here = self._position
        assert here.epoch is not None
        place, last = number - here.epoch.first, number == here.given - 1
        if self._last[:2] == (here.epoch, place + 1):
            return self._last[2]
        if place < 0:
            raise LookupError(f"batch {number} of the loader was of an earlier epoch: it is not kept.")
        self._iterator = None
        with self.aside():
            self._iterator = self._go_through(here.epoch, place)
            if place:
                before = here.epoch.between.get(place, {})
                self._set_some(dict(enumerate(here.before)) if last else before)
            batch = self._draw(here.epoch, place)
            drawn = self._randoms()
            batch = self._fetch(batch) if self._fetch else batch
            if not last and not all(map(_equal, drawn, self._randoms())):
                raise LookupError(f"batch {number} of the loader was drawn at random, and others came since.")
        if last:
            self._last = here.epoch, place + 1, batch
        return batch

    def _reach(self, epoch: Epoch, place: int) -> None:
        """Bring the iterator to a place; an epoch's first one begins on the live random numbers."""
        if place and self._iterator is not None and self._reached == (epoch, place):
            return
        self._iterator = None
        if not place:
            self._iterator = self._begin(epoch)
            return
        with self.aside():
            self._iterator = self._go_through(epoch, place)

    def _draw(self, epoch: Epoch, place: int) -> Any:
        iterator, self._iterator = self._iterator, None  # it is of no use any more where it raises
        assert iterator is not None
        taken = next(iterator)
        self._iterator, self._reached = iterator, (epoch, place + 1)
        return taken

    def _begin(self, epoch: Epoch) -> Iterator[Any]:
        """Do what `for batch in loader` does first."""
        if self._begun and not epoch.first:
            with self.aside():  # the script did it long ago
                return _order(self._loader)
        if self._fetch:
            return _order(self._loader)
        if not self._loader.persistent_workers:
            return iter(self._loader)
        if self._workers is None or not epoch.first:
            self._workers = copy.copy(self._loader)
            if epoch.first:
                with self.aside():
                    iter(self._workers)  # which later epochs only reset
        return iter(self._workers)

    def _go_through(self, epoch: Epoch, place: int) -> Iterator[Any]:
        """Begin an epoch again and go to a place. Raises LookupError where something else comes than had come."""
        if epoch.lost is not None and place > epoch.lost:
            raise LookupError(
                "the loader draws from the model's random numbers at each batch: only the first "
                f"{epoch.lost:,} batches of an epoch can be asked for again."
            )
        self._set(epoch.start)
        iterator = self._begin(epoch)
        for each in range(place):
            self._set_some(epoch.between.get(each, {}))
            try:
                taken = next(iterator)
            except StopIteration:
                raise LookupError(f"the loader's epoch has {each} batches now, and had {place} or more.") from None
            if not each and epoch.head and epoch.head != _beginning(taken):
                what = "order" if self._fetch else "batch"
                raise LookupError(f"the loader gives another {what} than it gave before.")
        return iterator

    def _randoms(self) -> Randoms:
        host_rng = HostRng.read()
        if self._host_rng is None or not host_rng.same(self._host_rng):  # else one copy will do
            self._host_rng = host_rng
        return torch.get_rng_state(), self._host_rng, *map(_read, self._generators)

    def _set(self, randoms: Randoms) -> None:
        self._set_some(dict(enumerate(randoms)))

    def _set_some(self, states: Mapping[int, Any]) -> None:
        for number, state in states.items():
            if number == 0:
                torch.set_rng_state(state)
            elif number == 1:
                state.write()
            else:
                _write(self._generators[number - 2], state)


class _Fetch:
    """Reads the data of given indices in this process, as the loader does."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._indices: Any = None
        options: dict[str, Any] = {"batch_size": None, "sampler": self}
        if loader.batch_sampler is not None:
            options = {"batch_sampler": self}
        aside = torch.Generator()  # what beginning draws is none of the script's
        self._items = iter(DataLoader(loader.dataset, **options, collate_fn=loader.collate_fn, generator=aside))

    def __call__(self, indices: Any) -> Any:
        self._indices = indices
        return next(self._items)

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self._indices


def _order(loader: DataLoader[Any]) -> Iterator[Any]:
    """Begin an epoch of indices alone; it draws the same random numbers in the same places."""
    options: dict[str, Any] = {"batch_size": None, "sampler": loader.sampler}
    if loader.batch_sampler is not None:
        options = {"batch_sampler": loader.batch_sampler}
    return iter(DataLoader(_Places(), **options, collate_fn=_as_it_is, generator=loader.generator))


class _Places(Dataset[Any]):
    """Gives back the indices that it is asked for."""

    def __getitem__(self, index: Any) -> Any:
        return index

    def __getitems__(self, indices: Any) -> Any:
        return indices


def _as_it_is(items: Any) -> Any:
    return items


def holds_loader(value: Any) -> bool:
    """Tell whether from_loader may take a value: a DataLoader, or what hands on the batches of one."""
    try:
        return bool(_loader_in(value))
    except Refused:
        return False


def _loader_in(given: Any) -> tuple[DataLoader[Any], Callable[[], Any] | None]:
    """Find the DataLoader, and what hands on its batches where that is another object. Raises Refused."""
    if isinstance(given, DataLoader):
        return given, None
    held = [each for each in _attributes(given) if isinstance(each, DataLoader)]
    hands_on = getattr(given, "next", None) or getattr(given, "__next__", None)
    if len(held) != 1 or not callable(hands_on):
        raise Refused(f"from_loader takes a torch.utils.data.DataLoader, not {type(given).__name__}.")
    return held[0], hands_on


def _has_begun(holder: Any) -> bool:
    return any(isinstance(each, Iterator) for each in _attributes(holder))


def _attributes(holder: Any) -> list[Any]:
    return list(getattr(holder, "__dict__", {}).values())


def _generators(loader: DataLoader[Any]) -> list[Any]:
    """Find the generators that a loader, its samplers, its dataset and what these hold have of their own, each once."""
    found: dict[int, Any] = {}
    seen, level = {id(loader)}, [loader]
    for _ in range(MAX_DEPTH):
        held = [each for holder in level for each in _attributes(holder)]
        held += [each for many in held if isinstance(many, (list, tuple)) for each in many[:16]]
        held = list({id(each): each for each in held if id(each) not in seen}.values())
        seen.update(map(id, held))
        found.update((id(each), each) for each in held if _is_generator(each))
        level = [each for each in held if not isinstance(each, _OTHERS) and hasattr(each, "__dict__")]
    return list(found.values())


def _is_generator(value: Any) -> bool:
    if value is torch.default_generator or value is getattr(random.seed, "__self__", None):  # everybody's
        return False
    if isinstance(value, (torch.Generator, random.Random)):
        return not isinstance(value, random.SystemRandom)
    numpy = sys.modules.get("numpy")
    if numpy is None or value is getattr(numpy.random.mtrand, "_rand", None):
        return False
    return isinstance(value, (numpy.random.Generator, numpy.random.RandomState))


def _read(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.bit_generator.state if hasattr(generator, "bit_generator") else generator.get_state(legacy=False)


def _write(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, torch.Generator) or not hasattr(generator, "bit_generator"):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def _equal(one: Any, other: Any) -> bool:
    """Tell whether two random states are the same."""
    if one is other:
        return True
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return one.same(other) if isinstance(one, HostRng) else pickle.dumps(one) == pickle.dumps(other)


def _beginning(value: Any) -> str:
    """Write the first values of a batch, or of its indices."""
    if isinstance(value, Tensor):
        few = value.flatten()[:16].tolist() if value.layout is torch.strided else "sparse"
        return f"{value.dtype} {tuple(value.shape)} {few}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_beginning(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_beginning, value[:16]))
    return repr(value) if _known(value) else type(value).__name__


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
