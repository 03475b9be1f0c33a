"""What may be set and asked where a script is held: rates, values, exact statistics, gradients, the loss around."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from autograd_tui.core.command import Command
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import Inspection
from autograd_tui.engine.script.agent_messages import Answer, Ask, GradientOrder, SurfaceOrder, SurfaceSoFar
from autograd_tui.engine.script.registry import Registry, named_param, untouched
from autograd_tui.engine.script.snapshot import children_unheard
from autograd_tui.engine.training.inspection import inspect
from autograd_tui.engine.training.state import groups_to_set, write_value

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from autograd_tui.engine.script.agent import Agent
    from autograd_tui.engine.script.loop_phases import Phases


def answer(agent: Agent, held: Frame, ask: Ask, connection: Connection) -> Any:
    """Return the answer to what the screen asks at the stop of frame `held`; raises Refused where there is none."""
    phases = agent.phases
    if held.error is not None and ask.what == "set":
        raise Refused("the script has raised, and ends: nothing that is set would be used.")
    match ask.what, ask.arguments:
        case "set", (command,):
            agent.carry_out_setting(command, _setting(phases, held, command))
            return None
        case "inspect", (name,):
            return _inspected(phases, held, name)
        case "modules", ():
            return tuple(phases.registry.modules())
        case "check_gradient", (order,):
            return _check_gradient(agent, order, connection)
        case "latest_forward", ():
            recorder, forward = phases.recorder, phases.counts.forward_index
            return forward, recorder is not None and any(recorder.taped(forward))
        case "repro", (path,):
            from autograd_tui.engine.script.repro_writer import write_repro

            return write_repro(phases, path)
        case "surface", (order,) if agent.is_copy:
            _measure_surface(agent, order, connection)
    raise Refused(f"{ask.what} cannot be had of a script yet.")


def _check_gradient(agent: Agent, order: GradientOrder, connection: Connection) -> Any:
    """Have copies of this process make the forward that comes next, again and again."""
    from autograd_tui.engine.script.repeated_gradcheck import check_gradient

    with children_unheard():
        return check_gradient(
            agent, order, lambda: not (agent.is_paused or connection.closed or connection.poll(0)), agent.send_message
        )


def _measure_surface(agent: Agent, order: SurfaceOrder, connection: Connection) -> NoReturn:
    """Have copies of this process make the forward that comes next; the first answer is followed by others.

    This process is a copy too, and ends with that, or where nobody reads it any more.
    """
    from autograd_tui.engine.script.repeated_surface import measure_surface

    has_answered = False

    def tell(so_far: SurfaceSoFar) -> None:
        nonlocal has_answered
        agent.send_message(so_far if has_answered else Answer(so_far))
        has_answered = True

    with children_unheard():
        try:
            measure_surface(agent, order, lambda: not connection.poll(0), tell)
        except Refused:
            if not has_answered:
                raise
    os._exit(0)


def _setting(phases: Phases, frame: Frame, command: Command) -> Callable[[], None]:
    """Return the function that carries out a setting at the stop of `frame`; raises Refused where it cannot be."""
    value = command.value
    if isinstance(value, (int, float)) and command.kind == "lr":
        return lambda: _set_lr(phases.registry, float(value), command.group)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and command.name != "seed":
        return lambda: _set_value(phases.registry, frame, command.name, float(value))
    raise Refused(f"{command} cannot be set here: it is the script that makes its own.")


def _inspected(phases: Phases, frame: Frame, name: str) -> Inspection:
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
