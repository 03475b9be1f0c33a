"""How many backwards are summed in each gradient of a script, and whether a step has used it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from autograd_tui.engine.script.event_counts import EventCounts
from autograd_tui.engine.training.tensor_properties import version_of

Seen = tuple[int, int] | None  # which gradient a parameter has, and how often that was changed in place


class GradHistory:
    """Follows the gradients of parameters, by their ids, from one event to the next."""

    def __init__(self) -> None:
        self.backwards: dict[int, int] = {}  # summed in each gradient; 0 where there is none
        self.used: dict[int, bool] = {}
        self._seen: dict[int, Seen] = {}  # as of the last event

    def restart(self, params: Iterable[Tensor], owners: Mapping[int, Iterable[int]], counts: EventCounts) -> None:
        """Begin behind events that were counted alone.

        `owners`: the ids of the optimizers and models that have each parameter. A gradient may have fewer backwards in
        it than there were since it was cleared, where some of them did not reach it.
        """
        self.backwards, self.used, self._seen = {}, {}, {}
        self.add(params, owners, counts)

    def add(self, params: Iterable[Tensor], owners: Mapping[int, Iterable[int]], counts: EventCounts) -> None:
        """Begin to follow more parameters."""
        for param in params:
            of = owners.get(id(param), ())
            cleared = max((counts.cleared.get(each, 0) for each in of), default=0)
            used = max((counts.used.get(each, 0) for each in of), default=0)
            summed = counts.backwards - cleared
            self.backwards[id(param)] = max(summed, 1) if param.grad is not None else 0
            self.used[id(param)] = param.grad is not None and used == counts.backwards > 0
            self._seen[id(param)] = _seen(param)

    def note(self, params: Iterable[Tensor]) -> None:
        """Take the gradients as they are for those of the last event."""
        self._seen = {id(param): _seen(param) for param in params}

    def changed(self, param: Tensor) -> bool:
        """Return whether a parameter's gradient is another one, or another value, than at the last event."""
        return self._seen.get(id(param)) != _seen(param)

    def was_written(self, param: Tensor) -> bool:
        """Return whether a parameter has the same gradient as at the last event, with other values."""
        before, now = self._seen.get(id(param)), _seen(param)
        return before is not None and now is not None and before[0] == now[0] and before != now

    def count_backward(self, params: Iterable[Tensor], before: Mapping[int, Seen]) -> None:
        """Count a backward for the gradients that are not what they were before it."""
        for param in params:
            seen = _seen(param)
            if seen is not None and seen != before.get(id(param)):
                self.backwards[id(param)] = self.backwards.get(id(param), 0) + 1
                self.used[id(param)] = False

    def count_step(self, param_ids: Iterable[int]) -> None:
        """Take note that a step has used these gradients."""
        for each in param_ids:
            self.used[each] = self.backwards.get(each, 0) > 0

    def clear(self, param: Tensor) -> None:
        """Take note that a parameter has no gradient, or one of zeros alone."""
        self.backwards[id(param)], self.used[id(param)] = 0, False


def seen_grads(params: Iterable[Tensor]) -> dict[int, Seen]:
    """Return which gradients parameters have, by their ids."""
    return {id(param): _seen(param) for param in params}


def _seen(param: Tensor) -> Seen:
    grad = param.grad
    return None if grad is None else (id(grad), version_of(grad))
