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
    """Collects measurements; `see` gives each a number, by which `stats` and `first` know it once `read` was called.

    What is measured is the tensor as it is when seen: it may change or vanish afterwards.
    """

    def __init__(self, places: dict[object, Tensor] | None = None) -> None:
        self._places = {} if places is None else places  # to sample, by size and device: slow to draw anew
        self._kinds: list[Kind] = []
        self._answers: list[list[Tensor]] = []
        self._firsts: list[Tensor | None] = []  # of those above MOST_VALUES
        self._rare: dict[int, Tensor] = {}  # copies of what is to be looked at again
        self._rows: list[TensorStats] = []
        self._first: list[float | None] = []

    def __len__(self) -> int:
        return len(self._kinds)

    @torch.no_grad()
    def see(self, tensor: Tensor) -> int:
        """Measure a tensor as it is now; nothing is waited for, save by a large one on an accelerator."""
        kind, number = Kind.of(tensor), len(self._kinds)
        self._kinds.append(kind)
        self._answers.append(self._ask(tensor, kind, number))
        many = kind.measurable and kind.size > MOST_VALUES
        self._firsts.append(tensor.detach()[(0,) * tensor.dim()].clone() if many else None)
        return number

    def read(self) -> None:
        """Bring all that was asked to the host."""
        firsts = [first for first in self._firsts if first is not None]
        flat = [answer for answers in self._answers for answer in answers]
        answered = iter(to_host(flat + firsts))
        self._answers = [[next(answered) for _ in answers] for answers in self._answers]
        self._first = [None if first is None else float(next(answered)) for first in self._firsts]
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

    def _ask(self, tensor: Tensor, kind: Kind, number: int) -> list[Tensor]:
        if not kind.measurable:
            return []
        if kind.size <= SAMPLE:
            return [tensor.detach().reshape(-1).clone()]
        place = kind.size, kind.device
        if place not in self._places:
            self._places[place] = sampled_places(*place)
        answers = ask_large(tensor, self._places[place])
        norm = math.hypot(*answers[0].tolist())
        if not SMALLEST_NORM < norm < math.inf:
            self._rare[number] = tensor.detach().clone()
        return answers
