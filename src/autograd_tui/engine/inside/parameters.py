"""A step or zero_grad, recorded: what became of each parameter, from the frames around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from autograd_tui.engine.training.loop import Loop
from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.later import Later
from autograd_tui.engine.values.stats_table import without_history
from autograd_tui.engine.values.trace import Op, Value

_OUTSIDE = ("params", "foreach", "fused", "capturable", "differentiable", "param_names", "initial_lr")


class Moment:
    """The parameters just before a phase, or just after it, as the frame has them."""

    def __init__(self, loop: Loop, frame: Frame) -> None:
        self.names = frame.params.layout.names
        self.group_of = loop.group_of
        self.options = tuple(_options(group) for group in loop.optimizer.param_groups)
        self._params, self._grads, self._state = frame.params, frame.grads, frame.optimizer_state
        self._state_of: dict[str, list[int]] | None = None

    def values(self, place: int) -> tuple[Value, ...]:
        """Give one parameter, its gradient if it has one, and the optimizer's state of it."""
        param = Value(self._params[place], "value", first=self._params.first(place))
        return (param, *self.grad(place), *self._states(self.names[place]))

    def grad(self, place: int) -> tuple[Value, ...]:
        """Give a parameter's gradient, if there is one."""
        row, name = self._grads[place], f"{self.names[place]}.grad"
        return () if row is None else (Value(without_history(row, name), "grad", first=self._grads.first(place)),)

    def _states(self, name: str) -> Iterator[Value]:
        if self._state_of is None:
            self._state_of = _by_parameter(self._state.layout.names)
        for place in self._state_of.get(name, ()):
            row = self._state[place]
            yield Value(row, row.name.rpartition(".")[2], first=self._state.first(place))


def parameter_ops(phase: Phase, before: Moment, after: Moment) -> Later[Op]:
    """Tell parameter by parameter what a step did, or which gradients zero_grad cleared."""
    of = Moment.values if phase is Phase.STEP else Moment.grad

    def ops() -> Iterator[Op]:
        for place, name in enumerate(before.names):
            group = before.group_of[place]
            settings = before.options[group] if group is not None and phase is Phase.STEP else ()
            yield Op(place, name, name.rpartition(".")[0], None, of(before, place), of(after, place), settings)

    return Later(len(before.names), ops)


def _options(group: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    written = {key: value for key, value in group.items() if key not in _OUTSIDE and value is not None}
    return tuple(
        (key, str(float(value)) if isinstance(value, Tensor) else repr(value)) for key, value in written.items()
    )


def _by_parameter(names: tuple[str, ...]) -> dict[str, list[int]]:
    """Find the places of the rows "w.exp_avg" by parameter."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name.rpartition(".")[0], []).append(place)
    return places
