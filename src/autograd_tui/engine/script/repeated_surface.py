"""Measures the loss around a script's parameters: its forward is made again with all of them at points of a plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import nan
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from autograd_tui.core.errors import Refused
from autograd_tui.core.history import Path
from autograd_tui.core.run_observer import Progress
from autograd_tui.engine.script.agent_messages import SurfaceOrder, SurfaceSoFar
from autograd_tui.engine.script.forked_copy import Answers
from autograd_tui.engine.script.registry import named_param
from autograd_tui.engine.script.repeated_forward import OTHER_WAY, Rehearsal, RepeatedForward, measured
from autograd_tui.engine.surface_slice import Axes, PlaneAxes, StepDirection, SurfaceSlice, ValueAxes, can_move

if TYPE_CHECKING:
    from autograd_tui.engine.script.agent import Agent
    from autograd_tui.engine.script.loop_phases import Phases


@dataclass(frozen=True, slots=True)
class ScriptStep:
    """What the script's forward and the step behind it were."""

    start: int  # of the forward
    after: Mapping[str, Tensor]  # the parameters behind the step; none where no step was asked for


def measure_surface(
    agent: Agent, order: SurfaceOrder, is_wanted: Callable[[], bool], tell: Callable[[SurfaceSoFar], None]
) -> None:
    """Measure until the surface is finished, in the process of a script that is held before the forward."""
    measured(agent, order, StepRehearsal, MovedForward, is_wanted, tell)


class StepRehearsal(Rehearsal):
    """Runs on to behind the step, where that is wanted."""

    def __init__(self, agent: Agent, order: SurfaceOrder, answers: Answers) -> None:
        super().__init__(agent, order, answers)
        self._step = order.step

    def end_forward(self, loss: Tensor, unscaled: Tensor) -> None:
        """Answer where no step is wanted."""
        if not self._step:
            self.answers.end(ScriptStep(self.start, {}))

    def go_on(self, phases: Phases, name: str) -> None:
        """Answer with the parameters behind the step."""
        if phases.counts.index == self._step and name == "step":
            params = phases.registry.params()
            self.answers.end(
                ScriptStep(self.start, {each: param.detach() for each, param in params.items() if can_move(param)})
            )
        if phases.counts.index >= self._step:
            self.answers.fail(OTHER_WAY)


@dataclass(frozen=True, slots=True)
class NamedParams:
    """A script's parameters, as a plane is laid through them."""

    params: Mapping[str, Tensor]

    @property
    def names(self) -> Mapping[str, str]:
        """Each name, by itself."""
        return {name: name for name in self.params}

    def param(self, name: str) -> Tensor:
        return named_param(self.params, name)


class MovedForward(RepeatedForward):
    """Measures a surface point by point; in each fork the parameters are moved to one point."""

    def __init__(self, agent: Agent, order: SurfaceOrder, answers: Answers, rehearsed: ScriptStep) -> None:
        super().__init__(agent, order, answers, rehearsed.start)
        self._surface_order, self._after = order, rehearsed.after

    def work(self) -> None:
        """Measure until the surface is finished, telling of each point."""
        order, params = self._surface_order, self.phases.registry.params()
        axes, path = self._axes(params)
        surface = SurfaceSlice(axes, ForkedLoss(self, axes, params), order.step or order.forward, path=path)

        def tell(progress: Progress) -> None:
            shown = surface.surface and replace(surface.surface, is_followed=False)
            self.answers.tell(SurfaceSoFar(shown, progress, surface.complete))

        tell(surface.progress)
        surface.advance(lambda: not self.answers.are_wanted, tell)

    def _axes(self, params: Mapping[str, Tensor]) -> tuple[Axes, Path]:
        """Return the plane, and where training stood on it."""
        order = self._surface_order
        if order.values is not None:
            values = ValueAxes(NamedParams(params), order.values)
            path = Path()
            path.insert(order.forward, order.iteration - 1, *values.origin)
            return values, path
        before = {name: params[name].detach().clone() for name in self._after}
        after = {name: value.clone().requires_grad_(params[name].requires_grad) for name, value in self._after.items()}
        step = StepDirection(order.step, order.iteration, before, {name: each.detach() for name, each in after.items()})
        plane = PlaneAxes(NamedParams(after), step)
        return plane, plane.path_of(step)

    def measure(self, loss: Tensor) -> float:
        """Return the loss, not scaled."""
        unscaled = self.phases.loss
        return float((loss if unscaled is None else unscaled).detach().item())


class ForkedLoss:
    """The loss at points of a plane; NaN where there is none."""

    def __init__(self, forward: MovedForward, axes: Axes, params: Mapping[str, Tensor]) -> None:
        self._forward, self._move = forward, axes.mover(params)

    def __call__(self, x: float, y: float) -> float:
        try:
            return self.or_raise(x, y)
        except Refused:
            return nan

    def or_raise(self, x: float, y: float) -> float:
        def prepare() -> None:
            with torch.no_grad():
                self._move(x, y)

        loss: float = self._forward.make_forward(prepare)
        return loss

    def put_back(self) -> None:
        """Do nothing: each forward has a process of its own."""
