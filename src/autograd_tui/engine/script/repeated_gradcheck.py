"""Checks a gradient of a script: its forward is made again in float64, with a parameter moved a little."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from autograd_tui.core.errors import Refused
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.run_observer import Progress
from autograd_tui.engine.gradcheck.detached_values import DetachedValue, DetachedValuesMode
from autograd_tui.engine.gradcheck.float64_copy import HIDES, check_shows_graph, hides_graph
from autograd_tui.engine.gradcheck.float64_forward import Float64Mode, check_is_finite
from autograd_tui.engine.gradcheck.gradcheck import compare_gradients
from autograd_tui.engine.gradcheck.perturbed_loss import CheckProgress, MeasurableLoss, RunGradient, typical_size
from autograd_tui.engine.script.agent_messages import GradientOrder
from autograd_tui.engine.script.forked_copy import Answers
from autograd_tui.engine.script.repeated_forward import Rehearsal, RepeatedForward, first_node, measured, next_node

if TYPE_CHECKING:
    from autograd_tui.engine.script.agent import Agent
    from autograd_tui.engine.script.loop_phases import Phases

NO_GRADIENT = "no gradient comes back to {} in the forward before, so there is nothing to check."


@dataclass(frozen=True, slots=True)
class ScriptBackward:
    """What the script's own forward and backward were, run on as they stand."""

    start: int  # of the forward
    grad: Tensor
    before: Tensor | None  # the gradient that there was
    scale: float  # that GradScaler has multiplied the loss by


@dataclass(frozen=True, slots=True)
class Measurement:
    """A loss in float64; of the first one also its gradients, and what else is learned of such a forward."""

    loss: float
    changed_places: tuple[str, ...] = ()
    exact: Tensor | None = None
    total_norm: float = 0.0
    detached: Sequence[DetachedValue] = ()
    casts: tuple[str, ...] = ()
    dtypes: frozenset[torch.dtype] = frozenset()
    autocast: bool = False


def check_gradient(
    agent: Agent, order: GradientOrder, is_wanted: Callable[[], bool], tell: Callable[[Progress], object]
) -> Any:
    """Return the GradCheck, in the process of a script that is held before the forward; see `measured`."""
    if order.name not in agent.phases.registry.params():
        raise Refused(f'there is no parameter "{order.name}" before this forward.')
    return measured(agent, order, BackwardRehearsal, GradCheckForward, is_wanted, tell)


class BackwardRehearsal(Rehearsal):
    """Runs on to behind the backward, whose gradient is the script's own."""

    def __init__(self, agent: Agent, order: GradientOrder, answers: Answers) -> None:
        super().__init__(agent, order, answers)
        self._name, self._forward = order.name, order.forward
        self._scale = 1.0
        self._before: Tensor | None = None

    def begin(self) -> None:
        """Listen, and refuse a backward that is given a gradient: the slope would be a multiple of the loss's own."""
        super().begin()
        end = self.phases.end_backward

        def end_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = kwargs.get("gradient", kwargs.get("grad_tensors", args[0] if args else None))
            if given is not None and self.phases.counts.index == self._forward:
                self.answers.fail("this backward is given a gradient to begin with, which a check cannot repeat yet.")
            end(args, kwargs)

        self.phases.end_backward = end_backward  # type: ignore[method-assign]

    def begin_later(self, loss: Tensor) -> None:
        """Have the forward begin where it uses the parameter first: what comes before does not depend on that."""
        first = first_node(loss, self._param)
        if first is None:
            self.answers.fail(HIDES if hides_graph(loss) else NO_GRADIENT.format(self._name))
        if not self.begins_before(first):
            self.refuse_start(self._name)

    def end_forward(self, loss: Tensor, unscaled: Tensor) -> None:
        """Note the gradient that there is."""
        if loss is not unscaled and unscaled.item():
            self._scale = float(loss.item()) / float(unscaled.item())
        grad = self._param.grad
        self._before = None if grad is None else grad.detach().clone()

    def go_on(self, phases: Phases, name: str) -> None:
        """Answer with the gradient that the backward has left."""
        grad = self._param.grad
        if grad is None:
            self.answers.fail(f"{self._name} has no gradient behind the backward of this forward.")
        self.answers.end(ScriptBackward(self.start, grad.detach(), self._before, self._scale))

    @property
    def _param(self) -> Tensor:
        return self.phases.registry.params()[self._name]


class GradCheckForward(RepeatedForward):
    """Compares the gradients; each fork has all parameters in float64, and one of them moved."""

    def __init__(self, agent: Agent, order: GradientOrder, answers: Answers, rehearsed: ScriptBackward) -> None:
        super().__init__(agent, order, answers, rehearsed.start)
        self._name, self._index, self._rehearsed = order.name, order.index, rehearsed
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        self._home_files = frozenset([main] if main else [])
        self.float64_mode = Float64Mode(torch.device("cpu"), self._home_files)
        self._detaching: DetachedValuesMode | None = None  # of a fork
        self._wants_gradients = False  # in a fork

    def work(self) -> GradCheck:
        rehearsed = self._rehearsed
        progress = CheckProgress(f"{self._name}.grad", self._report)
        param = self._params()[self._name]
        base = param.detach().double()

        def loss_at(shift: Tensor, detaching: DetachedValuesMode | None) -> float:
            progress.report()
            measured = self._measured(base + shift, detaching)
            if detaching is not None:
                detaching.changed_places.update(dict.fromkeys(measured.changed_places))
            return measured.loss

        first = self._measured(base, DetachedValuesMode(self._home_files), gradients=True)
        self.float64_mode.casts.update(dict.fromkeys(first.casts))
        self.float64_mode.dtypes.update(first.dtypes)
        self.float64_mode.autocast = first.autocast
        exact = first.exact
        assert exact is not None
        measurable = MeasurableLoss(
            self, loss_at, exact.to_dense(), typical_size(base), first.total_norm, first.detached
        )
        run_grad = RunGradient(rehearsed.grad, rehearsed.before)
        result = compare_gradients(self._name, run_grad, measurable, progress, index=self._index)
        return replace(result, of_script=True, scale=rehearsed.scale)

    def detaching(
        self, recorded: Sequence[DetachedValue] | None = None, *, ignored: Collection[str] = ()
    ) -> DetachedValuesMode:
        """Return a mode that records detached values, or puts `recorded` ones back, but at the places `ignored`."""
        return DetachedValuesMode(self._home_files, recorded, ignored=frozenset(ignored))

    def _report(self, progress: Progress) -> bool:
        if not self.answers.are_wanted:
            return False
        self.answers.tell(progress)
        return True

    def _measured(self, value: Tensor, detaching: DetachedValuesMode | None, *, gradients: bool = False) -> Measurement:
        """Return what a forward gives with another value of the parameter."""

        def prepare() -> None:
            self._detaching, self._wants_gradients = detaching, gradients
            self._make_float64(value)
            self.float64_mode.first_node = next_node()
            self.points.modes = (*([detaching] if detaching is not None else []), self.float64_mode)

        measurement: Measurement = self.make_forward(prepare)
        return measurement

    # In a fork.

    def _make_float64(self, value: Tensor) -> None:
        """Have the script's models in float64, with the parameter's own value."""
        tensors = {**self._params(), **{f" {name}": each for name, each in self.phases.registry.buffers().items()}}
        for tensor in tensors.values():
            if tensor.is_complex():
                raise Refused("the model has complex parameters, whose gradients cannot be checked yet.")
            if tensor.is_floating_point():
                tensor.data = tensor.data.double()
        self._params()[self._name].data = value.clone()
        self._value = value
        torch.set_default_dtype(torch.float64)
        torch.nn.modules.module.register_module_forward_pre_hook(_in_float64)  # type: ignore[arg-type]

    def measure(self, loss: Tensor) -> Measurement:
        """Return the loss, the first time with its gradients."""
        if self._wants_gradients:
            return self._with_gradients(loss)
        changed = tuple(self._detaching.changed_places) if self._detaching is not None else ()
        return Measurement(float(loss.detach().item()), changed)

    def _with_gradients(self, loss: Tensor) -> Measurement:
        name, mode, params = self._name, self.float64_mode, self._params()
        check_is_finite(loss)
        mode.check_is_wide(loss, "where all is to be float64")
        if not torch.equal(params[name].detach(), self._value):
            raise Refused(f"the forward itself changes {name}, so there is no telling what moving it before would do.")
        trained = {each: param for each, param in params.items() if param.requires_grad}
        self.seams.turn_off()
        detached = self._detaching.detached if self._detaching is not None else ()
        with torch._C._EnableTorchFunction(), mode:
            found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        grads: Mapping[str, Tensor | None] = dict(zip(trained, found, strict=True))
        exact = grads.get(name)
        check_shows_graph(loss, found)
        if exact is None:
            raise Refused(NO_GRADIENT.format(name))
        total_norm = math.hypot(*(float(each.norm().item()) for each in found if each is not None))
        return Measurement(
            float(loss.detach().item()),
            exact=exact.detach(),
            total_norm=total_norm,
            detached=list(detached),
            casts=tuple(mode.casts),
            dtypes=frozenset(mode.dtypes),
            autocast=mode.autocast,
        )

    def _params(self) -> dict[str, Tensor]:
        return self.phases.registry.params()


def _in_float64(module: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a module's arguments in float64, as its parameters are: some look at the dtype of what they are given."""
    return tuple(each.double() if isinstance(each, Tensor) and each.is_floating_point() else each for each in arguments)
