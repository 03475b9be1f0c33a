from __future__ import annotations

import gc
import itertools
import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import data
from torch.utils.data import DataLoader, TensorDataset

from autograd_tui.core.errors import Refused
from autograd_tui.engine.training.data_loader import MAX_STATES_BETWEEN, Epoch, from_loader
from autograd_tui.engine.training.global_state import GlobalSnapshot, GlobalState

ROWS = TensorDataset(torch.arange(20.0).reshape(10, 2), torch.arange(10))
Loader = DataLoader[Any]


def generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loader(**options: Any) -> Loader:
    return DataLoader(ROWS, **{"batch_size": 3, "shuffle": True} | options)


class Noisy(data.Dataset[Tensor]):
    """Draws anew each time, as random transforms do: of PyTorch, Python, NumPy, and of a generator of its own."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(3)

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Tensor:
        return index + torch.rand(2) + random.random() + np.random.rand() + self.rng.random()


class Stream(data.IterableDataset[Tensor]):
    """Draws a random number with each row."""

    def __iter__(self) -> Iterator[Tensor]:
        return (i + torch.rand(1) for i in range(7))


class Endless(data.Sampler[int]):
    """Never ends, and draws from the model's own random numbers."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield int(torch.randint(10, ()))


class OwnOrder(data.Sampler[int]):
    """Shuffles by random numbers of its own."""

    def __init__(self) -> None:
        self.random = random.Random(5)

    def __iter__(self) -> Iterator[int]:
        return iter(self.random.sample(range(10), 10))


class HandsOn:
    """A loader that never ends, as scripts write it."""

    def __init__(self) -> None:
        self.loader = loader()
        self.iterator = iter(self.loader)

    def next(self) -> Any:
        try:
            return next(self.iterator)
        except StopIteration:
            self.iterator = iter(self.loader)
            return next(self.iterator)


def as_dicts(rows: list[Any]) -> dict[str, Tensor]:
    return {"x": torch.stack([x for x, _ in rows]), "y": torch.stack([y for _, y in rows])}


def replaced(**options: Any) -> Loader:
    return DataLoader(ROWS, batch_size=3, sampler=data.RandomSampler(ROWS, replacement=True, **options))


def of_batches() -> Loader:
    mine = generator()
    batches = data.BatchSampler(data.RandomSampler(ROWS, generator=mine), 4, drop_last=False)
    return DataLoader(ROWS, batch_sampler=batches, generator=mine)


KINDS: dict[str, Callable[[], Loader]] = {
    "shuffled": loader,
    "its own generator": lambda: loader(generator=generator()),
    "in order": lambda: loader(shuffle=False),
    "the last dropped": lambda: loader(drop_last=True),
    "collated to dicts": lambda: loader(collate_fn=as_dicts),
    "one by one": lambda: loader(batch_size=None),
    "weighted": lambda: loader(shuffle=False, sampler=data.WeightedRandomSampler([1.0, 2.0] + [1.0] * 8, 10)),
    "a random part": lambda: loader(shuffle=False, sampler=data.SubsetRandomSampler([1, 3, 5, 7])),
    "a part": lambda: DataLoader(data.Subset(ROWS, [1, 3, 5, 7]), batch_size=2, shuffle=True),
    "a sampler of batches": of_batches,
    "a list as a dataset": lambda: DataLoader([1.0, 2.0, 3.0, 4.0, 5.0], batch_size=2, shuffle=True),  # type: ignore[arg-type]
    "huge": lambda: replaced(num_samples=10**10),
    "huge, its own generator": lambda: replaced(num_samples=10**10, generator=generator()),
    "endless": lambda: DataLoader(ROWS, batch_size=3, sampler=Endless()),
    "an order of its own": lambda: DataLoader(ROWS, batch_size=3, sampler=OwnOrder()),
    "random transforms": lambda: DataLoader(Noisy(), batch_size=2, shuffle=True),
    "a stream": lambda: DataLoader(Stream(), batch_size=2),
}
WORKERS: dict[str, Callable[[], Loader]] = {
    "workers": lambda: loader(num_workers=2, generator=generator()),
    "workers and random transforms": lambda: DataLoader(Noisy(), batch_size=2, shuffle=True, num_workers=2),
    "workers that live on": lambda: loader(num_workers=1, persistent_workers=True),
    "workers and a stream": lambda: DataLoader(Stream(), batch_size=2, num_workers=1),
}


def listed(batch: Any) -> Any:
    """Write a batch as plain lists, which == compares to the bit."""
    if isinstance(batch, (list, tuple)):
        return [listed(each) for each in batch]
    if isinstance(batch, dict):
        return {key: listed(each) for key, each in batch.items()}
    return (str(batch.dtype), batch.tolist()) if isinstance(batch, Tensor) else batch


def seed() -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)


def own_numbers(loader: Loader) -> list[float]:
    """Draw as a model does: from PyTorch, and from the loader's own generator too."""
    return [torch.rand(1).item(), torch.rand(1, generator=loader.generator).item(), random.random()]


def script(loader: Loader) -> Iterator[Any]:
    """Run the script of from_loader's docstring; a model draws a random number for each batch."""
    seed()
    for _ in itertools.count():
        for batch in loader:
            yield listed(batch), own_numbers(loader)


class Run:
    """Asks for batches as a loop does, and goes back as it does: by a snapshot from just before a batch."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.global_state, self.snapshots = loader, GlobalState(), list[GlobalSnapshot]()
        with self.global_state:
            seed()
            self.batch = from_loader(loader)

    def iteration(self, i: int) -> Any:
        with self.global_state:
            if i == len(self.snapshots):
                self.snapshots.append(self.global_state.snapshot())
            return listed(self.batch(i)), own_numbers(self.loader)

    def go_back(self, i: int) -> None:
        with self.global_state:
            self.global_state.restore(self.snapshots[i])


@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_random_numbers_are_the_scripts_wherever_a_run_goes_back_to(kind: str) -> None:
    plain = list(islice(script(KINDS[kind]()), 25))
    run = Run(KINDS[kind]())
    assert [run.iteration(i) for i in range(20)] == plain[:20]
    places = random.Random(0)
    for start in [0, 3, 4, 19, *(places.randrange(20) for _ in range(12))]:
        run.go_back(start)
        end = min(start + places.randrange(1, 6), 25)
        assert [run.iteration(i) for i in range(start, end)] == plain[start:end]


@pytest.mark.parametrize("kind", WORKERS)
def test_batches_of_workers_are_the_scripts_after_going_back_too(kind: str) -> None:
    plain = list(islice(script(WORKERS[kind]()), 9))
    run = Run(WORKERS[kind]())
    assert [run.iteration(i) for i in range(7)] == plain[:7]
    for start in (1, 5):
        run.go_back(start)
        assert [run.iteration(i) for i in range(start, 9)] == plain[start:]


def test_a_loader_that_hands_on_its_batches_is_taken_for_the_one_in_it() -> None:
    seed()
    holder = HandsOn()
    plain = [(listed(holder.next()), own_numbers(holder.loader)) for _ in range(9)]
    global_state = GlobalState()
    with global_state:
        seed()
        holder = HandsOn()
        batch = from_loader(holder)
        start = global_state.snapshot()
        for _ in range(2):
            assert [(listed(batch(i)), own_numbers(holder.loader)) for i in range(9)] == plain
            global_state.restore(start)


def test_a_batch_asked_for_twice_is_drawn_once() -> None:
    run = Run(DataLoader(Noisy(), batch_size=2))
    with run.global_state:
        first = run.batch(0), run.batch(1)
        state = torch.get_rng_state()
        assert run.batch(1) is first[1]
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["shuffled", "random transforms", "huge, its own generator", "a stream"])
def test_a_batch_for_two_turns_is_the_same_where_a_run_goes_back_between_them(kind: str) -> None:
    run = Run(KINDS[kind]())
    between = []
    for i in range(12):
        first = run.iteration(i)
        with run.global_state:
            between.append((run.global_state.snapshot(), first[0]))
            own_numbers(run.loader)
    for i in (11, 0, 4, 5, 3):
        with run.global_state:
            run.global_state.restore(between[i][0])
            state = torch.get_rng_state()
            assert listed(run.batch(i)) == between[i][1]
            assert torch.equal(torch.get_rng_state(), state)


def test_earlier_batches_of_an_epoch_are_given_again() -> None:
    batch = from_loader(loader(batch_size=1))
    first = [listed(batch(i)) for i in range(8)]
    state = torch.get_rng_state()
    assert [listed(batch(i % 4)) for i in range(8)] == first[:4] * 2
    assert listed(batch(7)) == first[7]
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_that_are_gone_say_so() -> None:
    batch = from_loader(loader())
    batch(9)
    with pytest.raises(LookupError, match="batch 1 of the loader was of an earlier epoch: it is not kept"):
        batch(1)
    noisy = from_loader(DataLoader(Noisy(), batch_size=1))
    noisy(3)
    with pytest.raises(LookupError, match="batch 1 of the loader was drawn at random, and others came since"):
        noisy(1)


def test_batches_further_on_are_the_scripts() -> None:
    plain = DataLoader(ROWS, batch_size=3, shuffle=True)
    torch.manual_seed(4)
    wanted = [listed(each) for _ in range(2) for each in plain]
    torch.manual_seed(4)
    assert listed(from_loader(loader())(6)) == wanted[6]


def test_another_seed_before_an_epoch_gives_another_order_and_going_back_the_first() -> None:
    run = Run(loader())
    first = [run.iteration(i) for i in range(8)]
    run.go_back(3)
    with run.global_state:
        run.global_state.seed(99)
    assert run.iteration(3)[0] == first[3][0]  # the order of the present epoch stands
    other = [run.iteration(i) for i in range(4, 8)]
    torch.manual_seed(99)
    torch.rand(2)
    assert other[0][0] == listed(next(iter(loader())))
    run.go_back(6)
    assert [run.iteration(i) for i in (6, 7)] == first[6:8]


def test_two_loaders_may_share_a_generator() -> None:
    def both(shared: torch.Generator) -> tuple[Loader, Loader]:
        return loader(generator=shared), loader(batch_size=2, generator=shared)

    def epochs(loader: Loader) -> Iterator[Any]:
        while True:
            yield from loader

    one, two = map(epochs, both(generator()))
    plain = [(listed(next(one)), listed(next(two))) for _ in range(9)]
    global_state, (a, b) = GlobalState(), map(from_loader, both(generator()))
    with global_state:
        start = global_state.snapshot()
        for _ in range(3):
            assert [(listed(a(i)), listed(b(i))) for i in range(9)] == plain
            global_state.restore(start)


@pytest.mark.parametrize("own", [None, generator()])
def test_making_it_leaves_all_random_numbers_as_they_are(own: torch.Generator | None) -> None:
    before = torch.get_rng_state(), random.getstate(), own and own.get_state()
    from_loader(loader(generator=own))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert own is None or torch.equal(own.get_state(), before[2])  # type: ignore[arg-type]


def test_what_raises_is_asked_for_again_as_if_it_had_not_been_asked_for() -> None:
    rows: Any = [0.0, 1.0, 2.0, 3.0]
    run = Run(DataLoader(rows, batch_size=2))
    run.iteration(0)
    rows[2] = None
    with run.global_state:
        snapshot = run.global_state.snapshot()
        with pytest.raises(TypeError):
            run.batch(1)
        run.global_state.restore(snapshot)
    rows[2] = 5.0
    assert run.iteration(1)[0] == ("torch.float64", [5.0, 3.0])


def test_of_a_long_run_no_more_than_the_present_epoch_is_kept() -> None:
    batch = from_loader(loader())
    for i in range(400):
        batch(i)
    gc.collect()
    position, _ = batch.state()  # type: ignore[attr-defined]
    others = [each for each in gc.get_objects() if type(each) is Epoch]
    assert [each for each in others if each.first >= 200] == [position.epoch]


def test_states_are_kept_only_where_somebody_else_draws_between() -> None:
    batch = from_loader(replaced(num_samples=10**10, generator=generator()))
    for i in range(200):
        batch(i)
        torch.rand(1)
    position, _ = batch.state()  # type: ignore[attr-defined]
    assert not position.epoch.states_between


def test_an_epoch_of_more_draws_than_can_be_kept_says_how_far_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_STATES_BETWEEN == 4096
    monkeypatch.setattr("autograd_tui.engine.training.data_loader.MAX_STATES_BETWEEN", 3)
    run = Run(KINDS["endless"]())
    first = [run.iteration(i) for i in range(9)]
    run.go_back(3)
    assert run.iteration(3) == first[3]
    run.go_back(7)
    with pytest.raises(LookupError, match="only the first 4 batches of an epoch can be asked for again"):
        run.iteration(7)


class Counting(Noisy):
    """Gives other data each time, whatever is seeded."""

    def __init__(self) -> None:
        self.asked = itertools.count()

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor(float(next(self.asked)))


class CountingOrder(data.Sampler[int]):
    """Gives another order each time."""

    def __init__(self) -> None:
        self.asked = itertools.count()

    def __iter__(self) -> Iterator[int]:
        return iter([next(self.asked) % 10, 1, 2])


class Once(data.IterableDataset[Tensor]):
    """Is its own iterator."""

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        return torch.ones(1)


class Tapped(data.IterableDataset[int]):
    """Takes from something that goes on."""

    def __init__(self) -> None:
        self.source = itertools.count()

    def __iter__(self) -> Iterator[int]:
        return iter(self.source)


class OwnLoader(DataLoader[Any]):
    def __iter__(self) -> Any:
        return iter([1])


class Doubling:
    """Hands on other batches than those of the loader in it."""

    def __init__(self) -> None:
        self.loader = loader()

    def next(self) -> Any:
        x, y = next(iter(self.loader))
        return 2 * x, y


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ([(1, 2)], "from_loader takes a torch.utils.data.DataLoader, not list."),
        (DataLoader(Tapped()), "the loader's dataset gives other data each time: from_loader cannot go back."),
        (DataLoader(Once()), "from_loader cannot go back in an IterableDataset that is its own iterator."),
        (DataLoader(ROWS, batch_size=11, drop_last=True), "the loader is empty: its dataset is, or drop_last leaves"),
        (DataLoader(TensorDataset(torch.ones(0))), "the loader is empty"),
        (DataLoader(ROWS, sampler=CountingOrder()), "the loader's sampler gives another order each time"),
        (DataLoader(Counting()), "the loader's dataset gives other data each time"),
        (OwnLoader(ROWS), "OwnLoader has an __iter__ of its own: give from_loader a plain DataLoader."),
        (Doubling(), "from_loader takes a DataLoader, or an object that hands on its batches as they are."),
    ],
)
def test_a_loader_that_cannot_go_back_is_refused(wrong: Any, sentence: str) -> None:
    with pytest.raises(Refused) as caught:
        from_loader(wrong)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


class Sensor(data.IterableDataset[Tensor]):
    """Gives other numbers from its second row on when it is read again; the first may be old."""

    times = itertools.count()

    def __iter__(self) -> Iterator[Tensor]:
        yield torch.ones(1)
        yield torch.tensor([next(self.times)])
        yield torch.ones(1)


def test_a_stream_that_gives_something_else_says_so_when_it_is_read_again() -> None:
    run = Run(DataLoader(Sensor(), batch_size=2))
    for i in range(2):
        run.iteration(i)
    run.go_back(1)
    with pytest.raises(LookupError, match="the loader gives another batch than it gave before"):
        run.iteration(1)


class Shrinking(data.IterableDataset[Tensor]):
    """Has fewer rows when it is read again."""

    left = 10

    def __iter__(self) -> Iterator[Tensor]:
        self.left -= 2
        return iter(torch.ones(self.left + 1))


def test_a_stream_that_is_another_when_it_is_read_again_says_so() -> None:
    run = Run(DataLoader(Shrinking(), batch_size=1))
    for i in range(3):
        run.iteration(i)
    run.go_back(2)
    with pytest.raises(LookupError, match="the loader's epoch has 1 batches now, and had 2 or more"):
        run.iteration(2)


def test_data_with_nan_is_the_same_data() -> None:
    rows = TensorDataset(torch.tensor([float("nan"), 1.0]))
    assert from_loader(DataLoader(rows, batch_size=2))(0)[0].isnan().tolist() == [True, False]


class Growing(data.Sampler[list[int]]):
    """Has other numbers of batches in each epoch."""

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[0]] * (1 + int(torch.randint(4, ()))))


def test_epochs_may_have_different_lengths() -> None:
    plain = list(islice(script(DataLoader(ROWS, batch_sampler=Growing())), 12))
    run = Run(DataLoader(ROWS, batch_sampler=Growing()))
    assert [run.iteration(i) for i in range(12)] == plain
