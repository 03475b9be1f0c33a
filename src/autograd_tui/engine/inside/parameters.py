"""A step or zero_grad, recorded: what became of each parameter, from the frames around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograd_tui.engine.command import Phase
from autograd_tui.engine.frame import Frame
from autograd_tui.engine.loop import Loop
from autograd_tui.engine.stats import measurable, to_host
from autograd_tui.engine.stats_table import MOST_VALUES, TensorStats, without_history
from autograd_tui.engine.trace import Op, Value

Firsts = Mapping[str, float]  # the first value of each large tensor: by "w", "w.grad", "w.momentum_buffer"
_OUTSIDE = ("params", "foreach", "fused", "capturable", "differentiable", "param_names", "initial_lr")


class Moment:
    """The parameters just before a phase, or just after it."""

    def __init__(self, loop: Loop, frame: Frame) -> None:
        self.names = frame.params.layout.names
        self.options = tuple(_options(group) for group in loop.optimizer.param_groups)
        self._params, self._grads, self._state = tuple(frame.params), tuple(frame.grads), tuple(frame.optimizer_state)
        self._firsts = _firsts(loop)
        self._state_of: dict[str, list[TensorStats]] = {}
        for row in self._state:
            self._state_of.setdefault(row.name.rpartition(".")[0], []).append(row)

    def values(self, place: int) -> tuple[Value, ...]:
        """Give one parameter, its gradient if it has one, and the optimizer's state of it."""
        state = self._state_of.get(self.names[place], ())
        rows = [(self._params[place], "value"), *((row, row.name.rpartition(".")[2]) for row in state)]
        values = [Value(row, role, first=self._firsts.get(row.name)) for row, role in rows]
        return (values[0], *self.grad(place), *values[1:])

    def grad(self, place: int) -> tuple[Value, ...]:
        """Give a parameter's gradient, if there is one."""
        row, name = self._grads[place], f"{self.names[place]}.grad"
        return () if row is None else (Value(without_history(row, name), "grad", first=self._firsts.get(name)),)


def parameter_ops(phase: Phase, before: Moment, after: Moment, loop: Loop) -> tuple[Op, ...]:
    """Tell parameter by parameter what a step did, or which gradients zero_grad cleared."""
    ops = []
    for place, name in enumerate(before.names):
        group = loop.group_of[place]
        of = Moment.values if phase is Phase.STEP else Moment.grad
        settings = before.options[group] if group is not None and phase is Phase.STEP else ()
        ops.append(Op(place, name, name.rpartition(".")[0], None, of(before, place), of(after, place), settings))
    return tuple(ops)


def _options(group: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    written = {key: value for key, value in group.items() if key not in _OUTSIDE and value is not None}
    return tuple(
        (key, str(float(value)) if isinstance(value, Tensor) else repr(value)) for key, value in written.items()
    )


@torch.no_grad()
def _firsts(loop: Loop) -> Firsts:
    large = {
        name: tensor[(0,) * tensor.dim()]
        for name, tensor in _tensors(loop)
        if isinstance(tensor, Tensor) and measurable(tensor) and tensor.numel() > MOST_VALUES
    }
    return {name: float(value) for name, value in zip(large, to_host(list(large.values())), strict=True)}


def _tensors(loop: Loop) -> Iterable[tuple[str, Any]]:
    for name, param in loop.params.items():
        yield name, param.detach()
        yield f"{name}.grad", param.grad
        for key, value in loop.optimizer.state.get(param, {}).items():
            yield f"{name}.{key}", value
