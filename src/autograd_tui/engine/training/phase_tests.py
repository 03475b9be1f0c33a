"""Tests of what a phase has computed, from a few numbers: whether a watchpoint may hold there."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.core.tensor_stats import SAMPLE_SIZE
from autograd_tui.core.watcher import relative_size
from autograd_tui.core.watchpoint import Range, is_safe, matching
from autograd_tui.engine.training.stats_reader import flat_in_memory, norms_of_parts
from autograd_tui.engine.training.still_counter import compared_values

MIN_PARTS_SIZE = 1 << 16  # values of a tensor whose norm is taken in parts: quicker, and exact enough
MAX_FLOAT, SMALLEST_FLOAT = sys.float_info.max, 5e-324
IsFine = Callable[[float], bool]  # whether no condition holds for a number, nor nearly does


class NormTest:
    """Tests the norms of some of the tensors in a list: of each one, or of all together."""

    def __init__(self, indices: Sequence[int], safe: Range, *, together: bool) -> None:
        self.indices, self.safe, self.together = indices, safe, together

    def is_fine(self, norm: float) -> bool:
        """Return whether a norm is within the range."""
        return is_safe(norm, self.safe)

    def measure(self, tensors: Sequence[Tensor | None]) -> Tensor | None:
        """Return the norms to test, (tensors,) or (); None where there is no tensor."""
        picked = [tensor for index in self.indices if (tensor := tensors[index]) is not None]
        if not picked:
            return None
        return joint_norm(picked) if self.together else norms_of_each(picked)


class NumberTest:
    """Tests tensors that are single numbers on the host, at the least cost: each one's size, and all together."""

    def __init__(self, tests: Sequence[NormTest], count: int) -> None:
        """tests: all of them at once. count: of the tensors."""
        lows, highs, self._low, self._high = [0.0] * count, [MAX_FLOAT] * count, 0.0, MAX_FLOAT
        for test in tests:
            low, high = test.safe
            if test.together:
                self._low = max(self._low, low * low or (SMALLEST_FLOAT if low else 0.0))
                self._high = min(self._high, high * high)
            for index in () if test.together else test.indices:
                lows[index], highs[index] = max(lows[index], low), min(highs[index], high)
        self._ranges = tuple(zip(lows, highs, strict=True))

    def is_fine(self, params: Sequence[Tensor], *, of_grads: bool) -> bool:
        """Return whether all is fine with parameters, or with the gradients that there are."""
        squares, is_empty = 0.0, True
        for param, (low, high) in zip(params, self._ranges, strict=True):
            tensor = param.grad if of_grads else param
            if tensor is not None:
                value, is_empty = tensor.item(), False
                squares += value * value
                if not low <= abs(value) <= high:
                    return False
        return is_empty or self._low <= squares <= self._high


class UpdateTest:
    """Tests what each step changes of some parameters, over what there was: of each one, or of all together.

    What a step changed of a large one is estimated from the sample that frames have.
    """

    def __init__(self, params: Sequence[Tensor], safe: Range, *, together: bool) -> None:
        self._params, self._safe, self._together = params, safe, together
        self._pieces = [compared_values(each) for each in params]
        self._are_numbers = all(each.numel() == 1 and each.is_cpu for each in params)
        if self._are_numbers:
            self._numbers = [each.item() for each in params]
            return
        sampled = [each.numel() > SAMPLE_SIZE for each in params]
        self._sizes = [SAMPLE_SIZE if large else each.numel() for each, large in zip(params, sampled, strict=True)]
        scales = [
            math.sqrt(each.numel() / SAMPLE_SIZE) if large else 1.0 for each, large in zip(params, sampled, strict=True)
        ]
        self._scales = torch.tensor(scales, dtype=torch.float64, device=params[0].device)
        self._values, self._norms = self._read(), norms_of_each(params).double()

    def is_fine(self, share: float) -> bool:
        """Return whether a share is within the range."""
        return is_safe(share, self._safe)

    def are_numbers_fine(self) -> bool | None:
        """Return whether a step is fine, of parameters that are single numbers; None of others."""
        if not self._are_numbers:
            return None
        before, self._numbers = self._numbers, [each.item() for each in self._params]
        moves = [now - then for now, then in zip(self._numbers, before, strict=True)]
        if self._together:
            return self.is_fine(relative_size(math.hypot(*moves), math.hypot(*before)))
        return all(self.is_fine(relative_size(abs(move), abs(then))) for move, then in zip(moves, before, strict=True))

    def measure(self) -> Tensor:
        """Return what a step has changed over what there was, (parameters,) or ()."""
        before, starts = self._values, self._norms
        self._values, self._norms = self._read(), norms_of_each(self._params).double()
        moved = torch.split(self._values - before, self._sizes)
        moves = torch.stack([*torch._foreach_norm(moved)]) * self._scales
        if self._together:
            moves, starts = torch.linalg.vector_norm(moves), torch.linalg.vector_norm(starts)
        shares = torch.where((moves == 0) & (starts == 0), 0.0, moves / starts)
        return torch.where(starts.isfinite(), shares, math.nan)  # its squares may have overflown

    def _read(self) -> Tensor:
        """Return the values that are compared, the first one of a large tensor left out, (values,)."""
        values = [piece() for piece in self._pieces]
        return torch.cat([each[-size:] for each, size in zip(values, self._sizes, strict=True)]).double()


class ZeroShares:
    """Measures the share of zeros in what some modules return, by hooks that are there while a forward runs.

    `counts`: of each call of such a module, its name, how many values are 0, and how many there are. Of several
    tensors the first one counts. The hooks change nothing.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        """names: of modules, or patterns."""
        modules = {name: module for name, module in model.named_modules() if name} if names else {}
        known = list(modules)
        picked = dict.fromkeys(index for name in names for index in matching(name, known))
        self.modules = [(known[index], modules[known[index]]) for index in picked]
        self.counts: list[tuple[str, Tensor, int]] = []
        self._named = {name: frozenset(known[index] for index in matching(name, known)) for name in names}
        self._handles: list[Any] = []

    def named(self, name: str) -> frozenset[str]:
        """Return the names of the modules that a name or pattern is for."""
        return self._named[name]

    def attach(self) -> None:
        """Begin to follow the calls."""
        for name, module in self.modules:
            self._handles.append(module.register_forward_hook(_CountingHook(self.counts, name)))

    def detach(self) -> None:
        """End it."""
        while self._handles:
            self._handles.pop().remove()

    def take(self) -> list[tuple[str, Tensor, int]]:
        """Return the counts so far, and begin anew."""
        counts = list(self.counts)
        self.counts.clear()
        return counts


class _CountingHook:
    def __init__(self, counts: list[tuple[str, Tensor, int]], name: str) -> None:
        self._counts, self._name = counts, name

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        with torch._C.DisableTorchFunction():  # so that no recorder sees it
            counted = count_zeros(output)
        if counted is not None:
            self._counts.append((self._name, *counted))


def count_zeros(output: Any) -> tuple[Tensor, int] | None:
    """Return how many values of what a module gave are 0, (), and how many there are; None where it gave no values.

    Of several tensors the first one counts.
    """
    tensor = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or tensor.is_nested or not tensor.numel():
        return None
    with torch.no_grad():
        size = tensor.numel()
        return size - tensor.detach().count_nonzero(), size


def is_no_nan(value: float) -> bool:
    """Return whether a number is one."""
    return not math.isnan(value)


def norms_of_each(tensors: Sequence[Tensor]) -> Tensor:
    """Return the norm of each of some tensors, (tensors,)."""
    if any(each.layout is not torch.strided for each in tensors):
        raise TypeError("no plain tensor")
    as_floats = [each if each.dtype is torch.float32 else each.float() for each in tensors]
    return torch.stack([*torch._foreach_norm(as_floats)])


def joint_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the norm over all of some tensors together, ()."""
    norms: list[Tensor] = []
    small: list[Tensor] = []
    for tensor in tensors:
        if tensor.layout is not torch.strided:
            raise TypeError("no plain tensor")
        if tensor.dtype is not torch.float32:
            wide = tensor if tensor.is_complex() else tensor.float()
            norms.append(torch.linalg.vector_norm(wide).reshape(1))
        elif tensor.is_cpu and tensor.numel() >= MIN_PARTS_SIZE:
            norms.append(norms_of_parts(tensor.view(-1) if tensor.is_contiguous() else flat_in_memory(tensor)))
        else:
            small.append(tensor)
    if small:
        norms.append(torch.stack([*torch._foreach_norm(small)]))
    joint: Tensor = norms[0] if len(norms) == 1 else torch.cat([each.float() for each in norms])
    return joint[0] if len(joint) == 1 else torch.linalg.vector_norm(joint)
