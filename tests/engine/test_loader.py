from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import data
from torch.utils.data import DataLoader, TensorDataset

from autograd_tui.engine.training.loader import from_loader
from autograd_tui.engine.values.errors import Refused

ROWS = TensorDataset(torch.arange(20.0).reshape(10, 2), torch.arange(10))
Loader = DataLoader[Any]


def generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loader(**options: Any) -> Loader:
    return DataLoader(ROWS, **{"batch_size": 3, "shuffle": True} | options)


def script(loader: Loader, seed: int) -> Iterator[Any]:
    """Run the script of from_loader's docstring."""
    for epoch in itertools.count():
        torch.manual_seed(seed + epoch)
        if loader.generator is not None:
            loader.generator.manual_seed(seed + epoch)
        yield from loader


def listed(batch: Any) -> Any:
    """Write a batch as plain lists, which == compares to the bit."""
    if isinstance(batch, (list, tuple)):
        return [listed(each) for each in batch]
    if isinstance(batch, dict):
        return {key: listed(each) for key, each in batch.items()}
    return (str(batch.dtype), batch.tolist()) if isinstance(batch, Tensor) else batch


def as_dicts(rows: list[Any]) -> dict[str, Tensor]:
    return {"x": torch.stack([x for x, _ in rows]), "y": torch.stack([y for _, y in rows])}


def kinds() -> dict[str, Loader]:
    """Make loaders of many kinds."""
    weights = [1.0, 2.0, 3.0] + [1.0] * 7
    mine = generator()
    batches = data.BatchSampler(data.RandomSampler(ROWS, generator=mine), 4, drop_last=False)
    return {
        "shuffled": loader(),
        "its own generator": loader(generator=generator()),
        "in order": loader(shuffle=False),
        "the last dropped": loader(drop_last=True),
        "collated to dicts": loader(collate_fn=as_dicts),
        "workers": loader(num_workers=2),
        "one by one": loader(batch_size=None),
        "weighted": loader(shuffle=False, sampler=data.WeightedRandomSampler(weights, 10)),
        "a part": DataLoader(data.Subset(ROWS, [1, 3, 5, 7]), batch_size=2, shuffle=True),
        "a sampler of batches": DataLoader(ROWS, batch_sampler=batches, generator=mine),
        "a list as a dataset": DataLoader([float(i) for i in range(7)], batch_size=2, shuffle=True),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("kind", kinds())
def test_the_batches_are_those_of_the_script_over_several_epochs(kind: str) -> None:
    seed = 7 if kinds()[kind].generator else 3
    plain = [listed(batch) for batch in islice(script(kinds()[kind], seed), 25)]
    torch.manual_seed(3)
    batch = from_loader(kinds()[kind])
    assert [listed(batch(i)) for i in range(25)] == plain


@pytest.mark.parametrize("kind", kinds())
def test_any_batch_can_be_asked_for_again_in_any_order(kind: str) -> None:
    batch = from_loader(kinds()[kind])
    first = {i: listed(batch(i)) for i in range(25)}
    order = [*range(24, -1, -1), *(random.Random(0).randrange(25) for _ in range(50))]
    assert [listed(batch(i)) for i in order] == [first[i] for i in order]


def test_the_first_epoch_is_that_of_a_script_which_seeds_once() -> None:
    batch = from_loader(loader(generator=generator()))
    assert [listed(batch(i)) for i in range(4)] == [listed(each) for each in loader(generator=generator())]


def test_epochs_are_shuffled_anew() -> None:
    batch = from_loader(loader(batch_size=10))
    assert listed(batch(0)) != listed(batch(1))


@pytest.mark.parametrize("own", [None, generator()])
def test_random_numbers_stay_as_they_are(own: torch.Generator | None) -> None:
    before = torch.get_rng_state(), random.getstate(), own and own.get_state()
    batch = from_loader(loader(generator=own))
    for i in range(9):
        batch(i)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert own is None or torch.equal(own.get_state(), before[2])


class Noisy(data.Dataset[Tensor]):
    """Draws anew each time, as random transforms do."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return torch.rand(2) + random.random()


def test_random_transforms_give_the_same_for_the_same_iteration() -> None:
    batch = from_loader(DataLoader(Noisy(), batch_size=2))
    assert torch.equal(batch(3), batch(3))
    assert not torch.equal(batch(1), batch(3))


class Counting(Noisy):
    """Gives other data each time, whatever is seeded."""

    def __init__(self) -> None:
        self.asked = itertools.count()

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor(float(next(self.asked)))


class Stream(data.IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        yield torch.ones(1)


class OwnOrder(data.Sampler[int]):
    """Shuffles by numbers that nobody can seed."""

    def __init__(self) -> None:
        self.random = random.Random(5)

    def __iter__(self) -> Iterator[int]:
        return iter(self.random.sample(range(10), 10))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ([(1, 2)], "from_loader takes a torch.utils.data.DataLoader, not list."),
        (DataLoader(Stream()), "an IterableDataset gives each batch only once."),
        (DataLoader(ROWS, batch_size=11, drop_last=True), "the loader is empty: its dataset is, or drop_last leaves"),
        (DataLoader(TensorDataset(torch.ones(0))), "the loader is empty"),
        (DataLoader(ROWS, sampler=OwnOrder()), "the loader's sampler gives another order each time"),
        (DataLoader(Counting()), "the loader's dataset gives other data each time"),
    ],
)
def test_a_loader_that_cannot_go_back_is_refused(wrong: Any, sentence: str) -> None:
    with pytest.raises(Refused) as caught:
        from_loader(wrong)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_data_with_nan_is_the_same_data() -> None:
    rows = TensorDataset(torch.tensor([float("nan"), 1.0]))
    assert from_loader(DataLoader(rows, batch_size=2))(0)[0].isnan().tolist() == [True, False]


class Growing(data.Sampler[list[int]]):
    """Has one batch more in each epoch."""

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[0]] * (1 + int(torch.initial_seed()) % 5))


def test_an_epoch_of_another_length_is_an_error_when_it_comes() -> None:
    torch.manual_seed(0)
    batch = from_loader(DataLoader(ROWS, batch_sampler=Growing()))
    with pytest.raises(ValueError, match="epoch 1 of the loader has 2 batches, the first had 1"):
        batch(1)
