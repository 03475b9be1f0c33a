"""Tells from a few numbers whether a watchpoint may hold at an event of a free run: only there is a frame made."""

from __future__ import annotations

import math
import weakref
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from autograd_tui.core.tensor_stats import SAMPLE_SIZE
from autograd_tui.core.watcher import Watcher, watched_calls
from autograd_tui.core.watchpoint import (
    FINITE,
    GRAD_NORM,
    LOSS,
    NOT_ZERO,
    PARAM_NORM,
    Range,
    Watchpoint,
    is_safe,
    is_too_small,
    safe_range,
    watched_values,
)
from autograd_tui.engine.training.phase_tests import MAX_FLOAT

if TYPE_CHECKING:
    from autograd_tui.engine.script.loop_phases import Phases

MAX_ITEMS = 4  # norms that are copied to the host one by one
PLAIN = (Tensor, torch.nn.Parameter)
MayHold = Callable[[], bool]  # whether a watchpoint may hold of what an event has made
NARROW = (torch.float16, torch.bfloat16)  # whose norms are taken in float32


class WatchFilter:
    """Looks at the loss of each forward, at the gradients after each backward, at the parameters after each step.

    Nothing that holds of those is missed; the watcher decides, on the frame of such an event. For buffers, predictions
    and the optimizers' state there are the frames that the run makes anyway.
    """

    def __init__(self, watcher: Watcher, phases: Phases) -> None:
        self._watcher = watcher
        armed = watcher.armed
        self._armed = [each for each in armed if each.kind in ("bound", "zero")]
        self._nonfinite = any(each.kind == "nonfinite" for each in armed)
        self._rises = [each for each in armed if each.kind == "rises"]
        of_loss = [each for each in self._armed if each.kind == "bound" and each.name == LOSS]
        ends = {sign: [each.bound for each in of_loss if each.sign == sign] for sign in "<>"}
        low, high = max(ends["<"], default=-math.inf), min(ends[">"], default=math.inf)
        self.losses: Range = (low, high)  # for which no condition holds, nor for a NaN where this is all there is
        if self._nonfinite:
            self.losses = max(low, -MAX_FLOAT), min(high, MAX_FLOAT)
        self._named_grads: list[tuple[tuple[int, ...], Range]] = []  # which norms, and where each one lies
        self._named_params: list[tuple[tuple[int, ...], Range]] = []
        self._grad_norms = self._param_norms = FINITE  # where the norms over all lie
        self._looks_at_grads = self._looks_at_params = self._nonfinite
        self._of_activations = [each for each in armed if each.kind == "dead"]
        self._still = [each for each in armed if each.kind == "still"]
        self._needs_all = any(each.times == 1 for each in self._still)  # whether each event needs a frame
        self._params: list[weakref.ref[Tensor]] | None = None  # None: to be found anew
        self._names: tuple[str, ...] = ()
        self._are_numbers = False  # whether each parameter has one value, on the host
        self._is_mixed = False  # whether they are on several devices, of several kinds, or of few bits
        self._has_failed = False
        self.suffices = self._can_measure(phases) and not self._needs_all

    @property
    def counts(self) -> bool:
        """Whether something is counted from iteration to iteration: rises of the loss, or steps that move nothing."""
        return bool(self._rises or self._still)

    @property
    def counts_moves(self) -> bool:
        """Whether `before_step` is to be called."""
        return bool(self._still)

    def before_step(self, phases: Phases) -> None:
        """Read the parameters, to see whether the step moves them."""
        try:
            phases.values_before_step = [_values(each) for each in self._found(phases) or ()]
        except Exception:
            self._has_failed = True

    @property
    def is_near_stillness(self) -> bool:
        """Whether the next step may leave a parameter as it was for long enough: its frame needs what was before it."""
        if not self._still:
            return False
        return self._has_failed or any(
            (count + 1) % each.times == 0 for each in self._still for count in self._watcher.memory(each).still.values()
        )

    def count_moves(self, phases: Phases) -> bool:
        """Count behind a step for how many each parameter has been still; return whether the next may be enough.

        Of a step that was followed the frame counts instead, where that is so: it has what was before it.
        """
        try:
            return self._count_moves(phases)
        except Exception:
            self._has_failed = True
            return True

    def _count_moves(self, phases: Phases) -> bool:
        params, values_before = self._found(phases), phases.values_before_step
        if params is None or len(values_before) != len(params):
            return True
        if phases.counts.last_skipped == phases.counts.step_events:
            return False
        moved = [_has_moved(now, before) for now, before in zip(map(_values, params), values_before, strict=True)]
        trained = {id(param) for group in phases.registry.groups for param in group["params"] if param.requires_grad}
        before = [dict(self._watcher.memory(each).still) for each in self._still]
        for each in self._still:
            counts, is_one = self._watcher.memory(each).still, each.name in self._names
            for index in watched_values(each, self._names).params:
                if params[index].numel() and (is_one or id(params[index]) in trained):
                    counts[index] = 0 if moved[index] else counts.get(index, 0) + 1
        is_near = self.is_near_stillness
        if is_near and phases.follows_step:
            for each, counts in zip(self._still, before, strict=True):
                self._watcher.memory(each).still = counts
        return is_near

    def may_hold(self, phases: Phases, name: str, loss: float | None) -> bool:
        """Return whether an event needs a frame, for a watchpoint that holds or nearly does; `loss` of a forward."""
        if self._has_failed or phases.registry.changed:
            return True
        try:
            if name == "forward":
                holds = loss is not None and self._may_hold_of_loss(loss, phases.counts.iteration)
                return holds or (bool(self._of_activations) and self._holds_of_activations(phases))
            if name == "backward":
                return self._looks_at_grads and self._may_hold_of_grads(phases)
            return name == "step" and self._looks_at_params and self._may_hold_of_params(phases)
        except Exception:  # tensors of a kind that has no such norms: each event gets a frame
            self._has_failed = True
            return True

    def tests(self, phases: Phases) -> tuple[MayHold | None, MayHold | None, MayHold | None]:
        """Return what `may_hold` does for activations, gradients and parameters; None where nobody asks for them.

        They are to be used until an optimizer is met that was not known before.
        """
        if self._params is None:
            try:
                self._find(phases)
            except Exception:
                self._has_failed = True
        return (
            partial(self.may_hold, phases, "forward", None) if self._of_activations else None,
            self._norm_test(phases, "backward") if self._looks_at_grads else None,
            self._norm_test(phases, "step") if self._looks_at_params else None,
        )

    def _norm_test(self, phases: Phases, name: str) -> MayHold:
        if not self._are_numbers or self._params is None or self._has_failed:
            return partial(self.may_hold, phases, name, None)
        of_grads = name == "backward"
        return partial(_numbers_may_hold, self._params, self._grad_norms if of_grads else self._param_norms, of_grads)

    def look_anew(self) -> None:
        """Take the parameters from the registry again: a frame has been made, for which it was brought up to date."""
        self._params = None

    def _can_measure(self, phases: Phases) -> bool:
        """Return whether norms tell what is not finite: not where some values are infinite on purpose."""
        try:
            params = self._find(phases)
            if not all(type(each) in PLAIN for each in params):
                return False
            return not self._nonfinite or not self._may_hold_of_params(phases)
        except Exception:
            return False

    def _may_hold_of_loss(self, loss: float, iteration: int) -> bool:
        if not self.losses[0] <= loss <= self.losses[1] and self.losses != (-math.inf, math.inf):
            return True
        return bool(self._rises) and any(self._has_risen(each, loss, iteration) for each in self._rises)

    def _holds_of_activations(self, phases: Phases) -> bool:
        """Return whether a condition holds for what a module gave; where none does, those calls are done with."""
        shares = phases.activations.shares() if phases.activations is not None else ()
        names = [name for name, _ in shares]
        for each in self._of_activations:
            if any(each.holds_for(shares[index][1]) for index in watched_calls(each, names)):
                return True
        phases.take_zero_shares()
        return False

    def _has_risen(self, watchpoint: Watchpoint, loss: float, iteration: int) -> bool:
        """Count the loss of an iteration's first forward; where that is enough, the watcher counts it instead."""
        memory = self._watcher.memory(watchpoint)
        if iteration == memory.iteration:
            return False
        rises = memory.rises + 1 if memory.loss is not None and loss > memory.loss else 0
        if rises and rises % watchpoint.times == 0:
            return True
        memory.loss, memory.iteration, memory.rises = loss, iteration, rises
        return False

    def _may_hold_of_grads(self, phases: Phases) -> bool:
        if self._are_numbers and self._params is not None:
            return _numbers_may_hold(self._params, self._grad_norms, True)
        params = self._found(phases)
        if params is None:
            return True
        grads = [each.grad for each in params]
        norms = self._norms([each for each in grads if each is not None])
        if self._passes(norms, self._grad_norms):
            return True
        if not self._named_grads:
            return False
        held = iter(norms)
        return _one_passes([None if each is None else next(held) for each in grads], self._named_grads)

    def _may_hold_of_params(self, phases: Phases) -> bool:
        if self._are_numbers and self._params is not None:
            return _numbers_may_hold(self._params, self._param_norms, False)
        params = self._found(phases)
        if params is None:
            return True
        was_enabled = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)
        try:
            norms = self._norms(params)
        finally:
            torch._C._set_grad_enabled(was_enabled)
        if self._passes(norms, self._param_norms):
            return True
        return _one_passes(norms, self._named_params)

    def _passes(self, norms: list[float], safe: Range) -> bool:
        """Return whether the norm of all together may pass a bound, or something is not finite."""
        is_tested = bool(norms) and (self._nonfinite or safe != FINITE)
        return is_tested and not is_safe(math.hypot(*norms), safe)

    def _norms(self, tensors: list[Tensor]) -> list[float]:
        """Return the norm of each tensor, on the host."""
        if not tensors:
            return []
        if self._is_mixed:
            norms = [
                torch.linalg.vector_norm(each, dtype=torch.float32 if each.dtype in NARROW else None)
                for each in tensors
            ]
        else:
            norms = list(torch._foreach_norm(tensors))
        if len(norms) <= MAX_ITEMS or len({(each.dtype, each.device) for each in norms}) > 1:
            return [float(each.item()) for each in norms]
        return torch.stack(norms).tolist()

    def _found(self, phases: Phases) -> list[Tensor] | None:
        """Return the parameters; None where some have gone, so that the registry must look for others."""
        if self._params is None:
            return self._find(phases)
        params = [param for each in self._params if (param := each()) is not None]
        return params if len(params) == len(self._params) else None

    def _find(self, phases: Phases) -> list[Tensor]:
        """Take the floating parameters that the registry knows, and what of them is watched."""
        known = phases.registry.params()
        names = tuple(name for name, each in known.items() if each.is_floating_point() or each.is_complex())
        if names != self._names or self._params is None:
            self._names = names
            self._choose(names)
        params = [known[name] for name in self._names]
        self._params = [weakref.ref(each) for each in params]
        self._needs_all |= bool(self._still) and not all(map(_is_small, known.values()))
        if len(params) < len(known):  # frames have a norm of whole numbers, too
            watched = {watched_values(each, tuple(known)).kind for each in self._armed}
            self._needs_all |= not watched.isdisjoint((PARAM_NORM, "params"))
        self._are_numbers = not (self._named_grads or self._named_params) and all(
            each.numel() == 1 and each.is_cpu and each.is_floating_point() for each in params
        )
        kinds = {(each.dtype, each.device) for each in params}
        self._is_mixed = len(kinds) > 1 or any(dtype in NARROW for dtype, _ in kinds)
        return params

    def _choose(self, names: tuple[str, ...]) -> None:
        """Learn of which norms the conditions are, where the parameters have these names."""
        joint: dict[str, list[Watchpoint]] = {GRAD_NORM: [], PARAM_NORM: []}
        self._named_grads, self._named_params = [], []
        named = {"grads": self._named_grads, "params": self._named_params}
        for each in self._armed:
            watched = watched_values(each, names)
            if watched.kind in joint:
                joint[watched.kind].append(each)
            if watched.kind in named:
                named[watched.kind].append((watched.params, NOT_ZERO if each.kind == "zero" else safe_range([each])))
            self._needs_all |= watched.kind in ("update", "updates", "metric")
            self._needs_all |= each.kind == "bound" and watched.kind != LOSS and is_too_small(each)
        self._grad_norms, self._param_norms = safe_range(joint[GRAD_NORM]), safe_range(joint[PARAM_NORM])
        self._looks_at_grads = self._nonfinite or bool(joint[GRAD_NORM] or self._named_grads)
        self._looks_at_params = self._nonfinite or bool(joint[PARAM_NORM] or self._named_params)


def _one_passes(norms: Sequence[float | None], bounds: Iterable[tuple[tuple[int, ...], Range]]) -> bool:
    """Return whether the norm of one of the tensors may pass a bound; norms: None where there is no tensor."""
    return any(
        norm is not None and not is_safe(norm, safe)
        for indices, safe in bounds
        for norm in map(norms.__getitem__, indices)
    )


def _numbers_may_hold(params: list[weakref.ref[Tensor]], safe: Range, of_grads: bool) -> bool:
    """Return the same for parameters that are single numbers, at the least cost: also True where it cannot be told."""
    squares, count = 0.0, 0
    try:
        for reference in params:
            tensor = reference()
            if of_grads:
                tensor = tensor.grad  # type: ignore[union-attr]
                if tensor is None:
                    continue
            value = tensor.item()  # type: ignore[union-attr]
            squares += value * value
            count += 1
    except Exception:  # it is gone, or a single number no more
        return True
    return count > 0 and not is_safe(math.sqrt(squares), safe)


def _is_small(param: Tensor) -> bool:
    """Return whether all values of a parameter are compared by the frames, and are at hand."""
    return (
        type(param) in PLAIN
        and param.is_cpu
        and param.layout is torch.strided
        and param.is_floating_point()
        and param.numel() <= SAMPLE_SIZE
    )


def _values(param: Tensor) -> list[float]:
    return [param.item()] if param.numel() == 1 else param.detach().reshape(-1).tolist()


def _has_moved(now: list[float], before: list[float]) -> bool:
    """Return whether values have changed. As in statistics, infinity less infinity is no number, and so a move."""
    if now != before or not all(map(math.isfinite, now)):
        return True
    return 0.0 in now and array("d", now).tobytes() != array("d", before).tobytes()  # 0 and -0 are told apart there too
