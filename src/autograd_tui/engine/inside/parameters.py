"""A step or zero_grad, recorded: what became of each parameter, from the frames around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autograd_tui.engine.frame import Frame
from autograd_tui.engine.loop import Loop
from autograd_tui.engine.stats import measurable, to_host
from autograd_tui.engine.stats_table import MOST_VALUES, TensorStats, without_history
from autograd_tui.engine.trace import Op, Value

Firsts = Mapping[str, float]  # the first value of each large tensor: by "w", "w.grad", "w.momentum_buffer"
_OUTSIDE = ("params", "foreach", "fused", "capturable", "differentiable", "param_names", "initial_lr")


@dataclass(frozen=True, slots=True)
class Moment:
    """The parameters just before a phase, or just after it."""

    frame: Frame
    firsts: Firsts
    state_of: Mapping[str, list[int]]  # rows of the optimizer's state, by the parameter's name
    options: tuple[tuple[tuple[str, str], ...], ...]  # of each parameter group, as written

    @classmethod
    def of(cls, loop: Loop, frame: Frame) -> Moment:
        state_of: dict[str, list[int]] = {}
        for row, name in enumerate(frame.optimizer_state.layout.names):
            state_of.setdefault(name.rpartition(".")[0], []).append(row)
        options = tuple(_options(group) for group in loop.optimizer.param_groups)
        return cls(frame, _firsts(loop), state_of, options)

    def values(self, place: int) -> tuple[Value, ...]:
        """Give one parameter, its gradient if it has one, and the optimizer's state of it."""
        frame, name = self.frame, self.frame.params.layout.names[place]
        values = [self._value(frame.params[place], name, "value")]
        if (grad := frame.grads[place]) is not None:
            values.append(self._value(grad, f"{name}.grad", "grad"))
        for row in (frame.optimizer_state[each] for each in self.state_of.get(name, ())):
            values.append(self._value(row, row.name, row.name.rpartition(".")[2]))
        return tuple(values)

    def _value(self, row: TensorStats, name: str, role: str) -> Value:
        return Value(without_history(row, name), role, first=self.firsts.get(name))


def parameter_ops(before: Moment, after: Moment, loop: Loop) -> tuple[Op, ...]:
    """Tell parameter by parameter what a step or zero_grad did."""
    ops: list[Op] = []
    for place, name in enumerate(before.frame.params.layout.names):
        group = loop.group_of[place]
        settings = () if group is None else before.options[group]
        module = name.rpartition(".")[0]
        op = Op(len(ops), name, module, inputs=before.values(place), output=after.values(place), settings=settings)
        ops.append(op)
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
