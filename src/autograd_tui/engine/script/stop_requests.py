"""What may be set and asked where a script is held: learning rates, values of parameters, exact statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from autograd_tui.core.command import Command
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import Inspection
from autograd_tui.engine.script.registry import Registry, named_param
from autograd_tui.engine.script.tensor_access import untouched
from autograd_tui.engine.training.inspection import inspect
from autograd_tui.engine.training.state import groups_to_set, write_value

if TYPE_CHECKING:
    from autograd_tui.engine.script.loop_phases import Phases


def setting(phases: Phases, frame: Frame, command: Command) -> Callable[[], None]:
    """Return the function that carries out a setting at the stop of `frame`; raises Refused where it cannot be."""
    value = command.value
    if isinstance(value, (int, float)) and command.kind == "lr":
        return lambda: _set_lr(phases.registry, float(value), command.group)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and command.name != "seed":
        return lambda: _set_value(phases.registry, frame, command.name, float(value))
    raise Refused(f"{command} cannot be set here: it is the script that makes its own.")


def inspected(phases: Phases, frame: Frame, name: str) -> Inspection:
    """Return exact statistics of a parameter where the script is held."""
    param = named_param(phases.registry.params(), name)
    states = (dict.get(each.state, param) for each in phases.registry.optimizers)
    state: Any = next((each for each in states if isinstance(each, dict) and each), {})
    with untouched():
        return inspect(name, param, state=state, index=frame.index)


def _set_lr(registry: Registry, lr: float, group: int | None) -> None:
    """Set the learning rate of every parameter group of all optimizers, or of one, counted through all of them."""
    groups = registry.groups
    if not groups:
        raise Refused("this script has no optimizer so far, and so there is no learning rate to set.")
    chosen = groups_to_set(groups, lr, group)
    if any("lr" not in each for each in chosen):
        raise Refused("the optimizer has no learning rate of this name.")
    with untouched():
        for each in chosen:
            if isinstance(each["lr"], Tensor):
                each["lr"].fill_(lr)
            else:
                each["lr"] = lr


def _set_value(registry: Registry, frame: Frame, target: str, value: float) -> None:
    """Set one value of a small parameter, where no graph of the present loss waits for its backward."""
    params = registry.params()
    name = target if target in params else target.partition("[")[0]
    param = named_param(params, name)
    if frame.graph == "alive":
        raise Refused(f"{name} cannot be set here: the graph of the loss was made with it. Set it behind the backward.")
    if type(param) not in (Tensor, nn.Parameter) or param.layout is not torch.strided or param.is_inference():
        raise Refused(f"{name} cannot be set: it is no ordinary parameter.")
    with untouched():
        # Its version is left alone: graphs that the script made before, and keeps, do not refuse to run.
        write_value(name, param.data, target, value)
