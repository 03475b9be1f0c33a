"""Tensors measured at the moments at which they are met, and read together with one copy to the host."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from autograd_tui.engine.training.stats import (
    SMALLEST_NORM,
    Kind,
    Plan,
    ask_large,
    ask_sparse,
    kind_key,
    look_again,
    sampled_places,
    to_host,
)
from autograd_tui.engine.values.stats_table import NONFINITE, SAMPLE, WIDTH, Layout, StatsTable

MOST_WAYS = 1024  # that are remembered: a model may meet ever new shapes


@dataclass(frozen=True, slots=True)
class Way:
    """How tensors of one kind are measured."""

    kind: Kind
    places: Tensor | None  # to sample, of what is too large to be taken whole: slow to draw anew


@dataclass(frozen=True, slots=True)
class Ways:
    """The ways of all kinds met so far, looked up for each tensor of each phase."""

    known: dict[object, Way] = field(default_factory=dict)

    def of(self, tensor: Tensor) -> Way:
        key = kind_key(tensor)
        way = self.known.get(key)
        return self._find(key, tensor) if way is None else way

    def _find(self, key: Any, tensor: Tensor) -> Way:
        if len(self.known) >= MOST_WAYS:
            self.known.clear()
        kind = Kind.of(tensor)
        large = kind.measurable and not kind.sparse and kind.size > SAMPLE
        self.known[key] = way = Way(kind, sampled_places(kind.reals, kind.device) if large else None)
        return way


class Moments:
    """Collects measurements; each gets a number, its row in `table` once they are `read`.

    What is measured is the tensor as it is when seen: it may change or vanish afterwards.
    """

    def __init__(self, ways: Ways | None = None) -> None:
        self.table = StatsTable(Layout((), (), (), ()), array("d"))
        self._ways = Ways() if ways is None else ways
        self._kinds: list[Kind] = []
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
        plan = Plan([""] * len(self._kinds), self._kinds)
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
