"""Tensors measured at the moments at which they are met, and read together with one copy to the host."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autograd_tui.engine.stats import (
    SMALLEST_NORM,
    Kind,
    Plan,
    ask_large,
    look_again,
    sampled_places,
    to_host,
)
from autograd_tui.engine.stats_table import MOST_VALUES, SAMPLE, WIDTH, StatsTable, TensorStats


class Moments:
    """Collects measurements; each gets a number, by which `stats`, `first` and `single` know it after `read`.

    What is measured is the tensor as it is when seen: it may change or vanish afterwards.
    """

    def __init__(self, places: dict[object, Tensor] | None = None) -> None:
        self._places = {} if places is None else places  # to sample, by size and device: slow to draw anew
        self._kinds: list[Kind] = []
        self._answers: list[list[Tensor]] = []
        self._firsts: list[Tensor | None] = []  # of those above MOST_VALUES
        self._singles: list[Tensor] = []
        self._rare: dict[int, Tensor] = {}  # copies of what is to be looked at again
        self._rows: list[TensorStats] = []
        self._first: list[float | None] = []
        self._single: list[float] = []

    @torch.no_grad()
    def see(self, tensor: Tensor) -> int:
        """Measure a tensor as it is now; nothing is waited for, save by a large one on an accelerator."""
        kind, number = Kind.of(tensor), len(self._kinds)
        answers, first = self._ask(tensor, kind, number) if kind.measurable else ([], None)
        self._kinds.append(kind)
        self._answers.append(answers)
        self._firsts.append(first if kind.size > MOST_VALUES else None)
        return number

    def note(self, number: Tensor) -> int:
        """Take note of a tensor of one element."""
        self._singles.append(number.detach().reshape(()).clone())
        return len(self._singles) - 1

    def read(self) -> None:
        """Bring all that was asked to the host."""
        firsts = [first for first in self._firsts if first is not None]
        flat = [answer for answers in self._answers for answer in answers]
        answered = iter(to_host(flat + firsts + self._singles))
        self._answers = [[next(answered) for _ in answers] for answers in self._answers]
        self._first = [None if first is None else float(next(answered)) for first in self._firsts]
        self._single = [float(each) for each in answered]
        plan = Plan([""] * len(self._kinds), self._kinds)
        table = StatsTable(plan.layout, plan.numbers(plan.sorted(self._answers)))
        norms, ends = table.numbers[::WIDTH], zip(table.numbers[1::WIDTH], table.numbers[2::WIDTH], strict=True)
        for number, (kind, norm, (low, high)) in enumerate(zip(self._kinds, norms, ends, strict=True)):
            usual = SMALLEST_NORM < norm < math.inf or low == high == 0
            if kind.measurable and kind.size <= SAMPLE and not usual:
                look_again(table, number, self._answers[number][0])
        for number, tensor in self._rare.items():
            look_again(table, number, tensor)
        self._rows, self._answers, self._rare = list(table), [], {}

    def stats(self, number: int) -> TensorStats:
        """Give one tensor in numbers; it has no name."""
        return self._rows[number]

    def first(self, number: int) -> float | None:
        """Give the first value of a tensor that is too large to have all in its numbers."""
        return self._first[number]

    def single(self, number: int) -> float:
        """Give what `note` took note of."""
        return self._single[number]

    def _ask(self, tensor: Tensor, kind: Kind, number: int) -> tuple[list[Tensor], Tensor]:
        """Start measuring a tensor: what its row is made of, and its first value."""
        if kind.size <= SAMPLE:
            whole = tensor.detach().reshape(-1).clone()
            return [whole], whole[:1]
        place = kind.size, kind.device
        if place not in self._places:
            self._places[place] = sampled_places(*place)
        *ends, picked = ask_large(tensor, self._places[place])
        norm = math.hypot(*ends[0].tolist())
        if not SMALLEST_NORM < norm < math.inf:
            self._rare[number] = tensor.detach().clone()
        return [*ends, picked], picked[:1]
