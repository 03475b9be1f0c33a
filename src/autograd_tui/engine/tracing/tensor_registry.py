"""Tensors met while a phase is traced: each is measured once a version, all with one copy to the host."""

from __future__ import annotations

import math
import weakref
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.tensor_stats import NONFINITE, SAMPLE, WIDTH, StatsLayout, StatsTable, TensorStats
from autograd_tui.core.trace import NonFinite, Value
from autograd_tui.engine.training.stats_reader import (
    SMALLEST_NORM,
    ReadPlan,
    TensorKind,
    ask_large,
    ask_sparse,
    kind_key,
    look_again,
    sampled_places,
    to_host,
)

MOST_WAYS = 1024  # that are remembered: a model may meet ever new shapes


@dataclass(frozen=True, slots=True)
class Measuring:
    """How tensors of one kind are measured."""

    kind: TensorKind
    places: Tensor | None  # to sample, of what is too large to be taken whole: slow to draw anew


@dataclass(frozen=True, slots=True)
class MeasuringPlans:
    """The ways of all kinds met so far, looked up for each tensor of each phase."""

    known: dict[object, Measuring] = field(default_factory=dict)

    def of(self, tensor: Tensor) -> Measuring:
        key = kind_key(tensor)
        way = self.known.get(key)
        return self._find(key, tensor) if way is None else way

    def _find(self, key: Any, tensor: Tensor) -> Measuring:
        if len(self.known) >= MOST_WAYS:
            self.known.clear()
        kind = TensorKind.of(tensor)
        large = kind.measurable and not kind.sparse and kind.size > SAMPLE
        self.known[key] = way = Measuring(kind, sampled_places(kind.reals, kind.device) if large else None)
        return way


class MeasurementBatch:
    """Collects measurements; each gets a number, its row in `table` once they are `read`.

    What is measured is the tensor as it is when seen: it may change or vanish afterwards.
    """

    def __init__(self, ways: MeasuringPlans | None = None) -> None:
        self.table = StatsTable(StatsLayout((), (), (), ()), array("d"))
        self._ways = MeasuringPlans() if ways is None else ways
        self._kinds: list[TensorKind] = []
        self._answers: list[list[Tensor]] = []
        self._singles: list[Tensor] = []
        self._rare: dict[int, Tensor] = {}  # copies of what is to be looked at again
        self._single: list[float] = []
        self._wild: dict[int, bool] = {}  # large ones in which something is not finite, and whether there is NaN

    def see(self, tensor: Tensor) -> int:
        """Measure a tensor as it is now; nothing is waited for, save by a large one on an accelerator."""
        way, plain, number = self._ways.of(tensor), tensor.detach(), len(self._kinds)
        self._kinds.append(way.kind)
        if way.places is not None:
            self._answers.append(self._ask(plain, way.places, number))
        elif way.kind.measurable:
            self._answers.append([ask_sparse(plain) if way.kind.sparse else plain.clone()])
        else:
            self._answers.append([])
        return number

    def note(self, number: Tensor) -> int:
        """Take note of a tensor of one element."""
        self._singles.append(number.detach().reshape(()).clone())
        return len(self._singles) - 1

    def read(self) -> None:
        """Bring all that was asked to the host; only numbers are left."""
        answered = iter(to_host([*(answer for answers in self._answers for answer in answers), *self._singles]))
        self._answers = [[next(answered) for _ in answers] for answers in self._answers]
        self._single = [float(each) for each in answered]
        plan = ReadPlan([""] * len(self._kinds), self._kinds)
        self.table = StatsTable(plan.layout, plan.numbers(plan.sorted(self._answers)))
        self._look_again()
        if not any(self.table.numbers[NONFINITE::WIDTH]):
            self.forget()

    def forget(self) -> None:
        """Let go of the values that were measured, of which some are kept where not all is finite."""
        self._kinds, self._answers, self._singles, self._rare = [], [], [], {}

    @property
    def keeps_values(self) -> bool:
        """Whether there are such, and `forget` has not been called."""
        return bool(self._kinds)

    def is_newly_wild(self, number: int, given: Iterable[int]) -> bool:
        """Tell, before anything is read, whether a large tensor has NaN or infinity that none of the `given` has."""
        nan = self._wild.get(number)
        return nan is not None and all(self._wild.get(each) is not nan for each in given)

    def values(self, number: int) -> Tensor | None:
        """Give what was measured, once read, as long as it is kept: all values of a small tensor."""
        kind = self._kinds[number] if self._kinds else None
        if kind is None or not kind.measurable or kind.sparse or kind.size > SAMPLE:
            return None
        return self._answers[number][0].reshape(kind.shape)

    def not_finite(self, number: int) -> bool:
        """Tell, once read, whether a small tensor has NaN or infinity in it, and its values are kept."""
        return bool(self.table.numbers[number * WIDTH + NONFINITE]) and self.values(number) is not None

    def single(self, number: int) -> float:
        """Give what `note` took note of."""
        return self._single[number]

    def _ask(self, plain: Tensor, places: Tensor, number: int) -> list[Tensor]:
        """Start measuring a large tensor."""
        answers = ask_large(plain, places)
        norm = math.hypot(*answers[0].tolist())
        if not SMALLEST_NORM < norm < math.inf:
            self._rare[number] = plain.clone()
            if not math.isfinite(norm):
                self._wild[number] = math.isnan(norm)
        return answers

    def _look_again(self) -> None:
        """Measure again what is not finite, or out of range."""
        columns = (self.table.numbers[column::WIDTH] for column in range(3))
        for number, (kind, norm, low, high) in enumerate(zip(self._kinds, *columns, strict=True)):
            usual = SMALLEST_NORM < norm < math.inf or low == high == 0
            if kind.measurable and not kind.sparse and kind.size <= SAMPLE and not usual:
                look_again(self.table, number, self._answers[number][0])
        for number, tensor in self._rare.items():
            if any(self.table.numbers[number * WIDTH + 1 : number * WIDTH + 3]):  # its least and greatest are not 0
                look_again(self.table, number, tensor)


Place = tuple[int, ...]


@torch.no_grad()
def first_not_finite(made: Tensor, given: Sequence[Tensor | None], *, output: int) -> list[NonFinite]:
    """Find the first NaN, or else the first infinity; nothing where all is finite.

    given: None for what is not known any more. output: which of the operation's results it is.
    """
    made = made.detach()
    nan, infinite = made.isnan(), made.isinf()
    many = int(nan.sum())
    if not many and not bool(infinite.any()):
        return []
    flat = int((nan if many else infinite).reshape(-1).to(torch.uint8).argmax())
    place = _place(flat, tuple(made.shape))
    values = tuple(None if each is None else _at(each.detach(), place, tuple(made.shape)) for each in given)
    return [NonFinite(output, place, float(made[place]), many, int(infinite.sum()), values)]


def _place(flat: int, shape: Place) -> Place:
    place = []
    for size in reversed(shape):
        flat, here = divmod(flat, size)
        place.append(here)
    return tuple(reversed(place))


def _at(tensor: Tensor, place: Place, shape: Place) -> float | None:
    """Look up one value, as broadcasting would; None where the tensor is not broadcast to the shape."""
    own, sizes = place[len(place) - tensor.dim() :], shape[len(shape) - tensor.dim() :]
    fits = tensor.dim() <= len(shape) and all(size in (1, each) for size, each in zip(tensor.shape, sizes, strict=True))
    if not fits or tensor.is_complex() or tensor.layout is not torch.strided:
        return None
    return float(tensor[tuple(at if size > 1 else 0 for size, at in zip(tensor.shape, own, strict=True))])


@dataclass(slots=True)
class TensorRegistry:
    """A tensor at one moment, until its numbers have been read."""

    row: int  # its number in Moments, or its place in the table where it was `known` already
    name: str = ""
    maker: int | None = None
    version: int = 0
    known: StatsTable | None = None
    _stats: TensorStats | None = None  # with its name

    def value(self, moments: MeasurementBatch, role: str = "") -> Value:
        """Give it as a plain value."""
        table = moments.table if self.known is None else self.known
        if self._stats is None:
            stats: TensorStats = table[self.row]
            self._stats = stats if stats.name == self.name else replace(stats, name=self.name)
        return Value(self._stats, role, self.maker, table.first(self.row), self.version)


class TensorRecord:
    """Meets tensors, and knows them again while they live and nothing has changed them."""

    def __init__(self, moments: MeasurementBatch) -> None:
        self.moments = moments
        self._seen: dict[int, tuple[weakref.ref[Tensor], int, TensorRegistry]] = {}  # by the tensor's id
        self._named: dict[int, tuple[Tensor, str]] = {}

    def name(self, tensors: Mapping[str, Tensor], known: StatsTable | None = None) -> None:
        """Call tensors by names from now on; `known`: numbers about them as they are now."""
        places = {} if known is None else {name: place for place, name in enumerate(known.layout.names)}
        for name, tensor in tensors.items():
            if id(tensor) in self._named:
                continue
            self._named[id(tensor)] = tensor, name
            if id(tensor) in self._seen and self._seen[id(tensor)][0]() is tensor:
                self._seen[id(tensor)][2].name = name
            elif name in places:
                self._remember(tensor, TensorRegistry(places[name], name, None, version_of(tensor), known))

    def meet(self, tensor: Tensor, *, maker: int | None = None) -> TensorRegistry:
        """Measure a tensor, where it was not met in this state before; `maker`: the operation that has just made it."""
        known = self._seen.get(id(tensor))
        version = version_of(tensor)
        if known is not None and known[0]() is tensor:
            if known[1] == version and maker is None:
                return known[2]
            maker = known[2].maker if maker is None else maker
        seen = TensorRegistry(self.moments.see(tensor), self._name_of(tensor), maker, version)
        self._remember(tensor, seen)
        return seen

    def renew(self, tensor: Tensor) -> TensorRegistry:
        """Measure a tensor again that was changed without its changes being counted."""
        known = self._seen.get(id(tensor))
        maker = known[2].maker if known is not None and known[0]() is tensor else None
        seen = TensorRegistry(self.moments.see(tensor), self._name_of(tensor), maker, version_of(tensor))
        self._remember(tensor, seen)
        return seen

    def _remember(self, tensor: Tensor, seen: TensorRegistry) -> None:
        self._seen[id(tensor)] = weakref.ref(tensor), seen.version, seen

    def _name_of(self, tensor: Tensor) -> str:
        named = self._named.get(id(tensor))
        return named[1] if named is not None and named[0] is tensor else ""


def version_of(tensor: Tensor) -> int:
    """Count the changes in place; 0 for what does not count them."""
    try:
        return tensor._version
    except RuntimeError:  # an inference tensor
        return 0
