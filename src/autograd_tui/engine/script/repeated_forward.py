"""A script's own forward, made again and again in forked copies of its process; nothing of the script moves.

Each copy has the same parameters, batch and random numbers. First one copy runs on as the script did, and learns where
the forward begins and what its backward gives. Then another runs on to there, and is forked for each measurement: in
that fork one parameter is shifted, all are float64, and the script's code runs on to where it calls backward.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.run_observer import Progress
from autograd_tui.engine.gradcheck.call_points import CallPoints
from autograd_tui.engine.gradcheck.detached_values import DetachedValue, DetachedValuesMode, OperationsDiffer
from autograd_tui.engine.gradcheck.float64_copy import HIDES, hides_graph
from autograd_tui.engine.gradcheck.float64_forward import Float64Mode
from autograd_tui.engine.gradcheck.gradcheck import compare_gradients
from autograd_tui.engine.gradcheck.perturbed_loss import CheckProgress, MeasurableLoss, RunGradient, typical_size
from autograd_tui.engine.script.agent_messages import GradientOrder, Measured
from autograd_tui.engine.script.forked_copy import Answers, Failure, ForkedCopy, RunsOn, failure_of, fork_copy
from autograd_tui.engine.script.recording import has_compiled, mode_of_script
from autograd_tui.engine.tracing.autograd_graph import is_leaf
from autograd_tui.engine.training.state import graph_nodes

if TYPE_CHECKING:
    from autograd_tui.engine.script.agent import Agent
    from autograd_tui.engine.script.loop_phases import Phases

MAX_SECONDS = 30.0  # for one forward
NO_GRADIENT = "no gradient comes back to {} in the forward before, so there is nothing to check."
HARMLESS = ("grad", "zero_grad")  # events that may come inside a forward which is repeated


@dataclass(frozen=True, slots=True)
class ScriptForward:
    """What the script's own forward and backward were, run on as they stand."""

    start: int  # calls and events from the stop before up to where the forward begins
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
    agent: Agent, order: GradientOrder, tell: Callable[[Measured], None], is_wanted: Callable[[], bool]
) -> Any:
    """Return the GradCheck, in the process of a script that is held before the forward; in copies raise RunsOn.

    `tell` takes the progress. Raises Refused where there is none, or `is_wanted` says so.
    """
    if order.name not in agent.phases.registry.params():
        raise Refused(f'there is no parameter "{order.name}" before this forward.')
    if mode := mode_of_script():
        raise Refused(f"the script is inside a mode of its own here, {mode}, in which a forward is not made again.")
    if has_compiled():
        raise Refused("torch.compile has compiled a part of this script: that could not be made again in float64.")
    copy = _forked(agent, lambda answers: Rehearsal(agent.phases, order, answers))
    rehearsed = copy.answer(is_wanted)
    if isinstance(rehearsed, Failure):
        raise Refused(rehearsed.sentence)
    copy = _forked(agent, lambda answers: RepeatedForward(agent, order, rehearsed, answers))
    result = copy.answer(is_wanted, on_progress=tell)
    if isinstance(result, Failure):
        raise Refused(result.sentence)
    return result


def _forked(agent: Agent, make: Callable[[Answers], Rehearsal | RepeatedForward]) -> ForkedCopy:
    """Fork a copy in which what is made there hears of the script's events."""
    assert agent.seams is not None
    forked = fork_copy(agent.seams)
    if isinstance(forked, ForkedCopy):
        return forked
    try:
        agent.detach()
        phases = agent.phases
        if phases.recorder is not None:
            phases.recorder.disarm()
        phases.frames = False
        listener = make(forked)
        phases.agent = listener
        listener.begin()
    except Exception as error:
        forked.end(failure_of(error))
    raise RunsOn


class Rehearsal:
    """Runs on as the script did, to behind the backward, and notes between which calls the forward began."""

    def __init__(self, phases: Phases, order: GradientOrder, answers: Answers) -> None:
        self._phases, self._order, self._answers = phases, order, answers
        self._points = CallPoints(self._reach)
        self._count = 0  # points that were reached
        self._counts: dict[int, int] = {}  # that were reached while the next node would have been of this number
        self._events: list[tuple[int, str]] = []  # with the points before
        self._start, self._scale = 0, 1.0
        self._before: Tensor | None = None

    def begin(self) -> None:
        """Listen to the calls from here on."""
        self._counts[_next_node()] = 0
        self._hear_arguments()
        self._points.__enter__()  # type: ignore[no-untyped-call]

    def lets_pass(self, phases: Phases, name: str) -> bool:
        """Look at the forward and the backward where they come."""
        forward = self._order.forward
        if phases.index < forward:
            self._reach()
            self._events.append((self._count, name))
        elif phases.index == forward and name == "forward":
            self._end_forward(phases)
        elif phases.index == forward + 1 and name == "backward":
            self._end_backward()
        else:
            self._answers.fail("the script goes another way where its forward is made again.")
        return True

    def stop(self, frame: Frame) -> None:
        """Take no frame."""

    def give_up(self, reason: str) -> None:
        """Answer that a seam has failed."""
        self._answers.fail("a seam has failed where the forward was made again.")

    def _reach(self) -> None:
        self._count += 1
        self._counts[_next_node()] = self._count

    def _hear_arguments(self) -> None:
        """Have a gradient that backward is given refuse the check: the loss's slope would be a multiple of its own."""
        end = self._phases.end_backward

        def end_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = kwargs.get("gradient", kwargs.get("grad_tensors", args[0] if args else None))
            if given is not None and self._phases.index == self._order.forward:
                self._answers.fail("this backward is given a gradient to begin with, which a check cannot repeat yet.")
            end(args, kwargs)

        self._phases.end_backward = end_backward  # type: ignore[method-assign]

    def _end_forward(self, phases: Phases) -> None:
        """Learn where the forward began: before the first node of the loss's graph."""
        loss, unscaled, expected = phases.backward_loss, phases.loss, self._order.loss
        if loss is None or unscaled is None or not phases.is_loss_alone or loss.numel() != 1:
            self._answers.fail(
                "the backward does not begin at one loss that is one number: no gradient can be checked."
            )
        value = float(unscaled.item())
        if not math.isfinite(value):
            self._answers.fail("the loss is not finite, so nothing can be measured around it.")
        if expected is not None and value != expected:
            self._answers.fail(
                f"the forward gives another loss where it is made again ({value:.6g}, and {expected:.6g} before): "
                "no difference means anything."
            )
        if not self._begins_before(_first_node(loss)):
            self._begin_before_param(loss)
        if value and loss is not unscaled:
            self._scale = float(loss.item()) / value
        grad = self._param.grad
        self._before = None if grad is None else grad.detach().clone()

    def _begins_before(self, node: int | None) -> bool:
        """Have the forward begin before a node; return whether nothing but what is harmless comes behind that."""
        starts = [count for number, count in self._counts.items() if node is not None and number <= node]
        self._start = max(starts, default=-1)
        return bool(starts) and not self._between

    @property
    def _between(self) -> list[str]:
        """The events between the beginning of the forward and its end that change more than gradients."""
        return [name for count, name in self._events if count > self._start and name not in HARMLESS]

    def _begin_before_param(self, loss: Tensor) -> None:
        """Have the forward begin where it uses the parameter first: what comes before does not depend on that."""
        name = self._order.name
        first = _first_node(loss, self._param)
        if first is None:
            self._answers.fail(HIDES if hides_graph(loss) else NO_GRADIENT.format(name))
        if self._begins_before(first):
            return
        if self._start < 0 and self._phases.iteration == 1:
            self._answers.fail("this forward ran before anything of the script was followed: it cannot be made again.")
        if self._start < 0:
            self._answers.fail("this forward has begun too long before its backward to be made again.")
        self._answers.fail(
            f"the script calls {_listed(self._between)} between the beginning of this forward and its backward: "
            f"moving {name} before would change that too."
        )

    def _end_backward(self) -> None:
        grad = self._param.grad
        if grad is None:
            self._answers.fail(f"{self._order.name} has no gradient behind the backward of this forward.")
        self._answers.end(ScriptForward(self._start, grad.detach(), self._before, self._scale))

    @property
    def _param(self) -> Tensor:
        return self._phases.registry.params()[self._order.name]


class RepeatedForward:
    """Runs on to where the forward begins, and measures there: each time in a fork that makes the forward again."""

    def __init__(self, agent: Agent, order: GradientOrder, rehearsed: ScriptForward, answers: Answers) -> None:
        assert agent.seams is not None
        self._phases, self._seams, self._order, self._rehearsed = agent.phases, agent.seams, order, rehearsed
        self._answers = answers
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        self._home_files = frozenset([main] if main else [])
        self.float64_mode = Float64Mode(torch.device("cpu"), self._home_files)
        self._points = CallPoints(self._reach)
        self._count = 0
        self._measures = False  # in a fork that measures
        self._detaching: DetachedValuesMode | None = None  # of that fork
        self._wants_gradients = False  # in it

    def begin(self) -> None:
        """Measure here, or once the calls before the forward have been made."""
        self._points.__enter__()  # type: ignore[no-untyped-call]
        if not self._rehearsed.start:
            self._check()

    # What the script's code comes to.

    def _reach(self) -> None:
        self._count += 1
        if self._count == self._rehearsed.start and not self._measures:
            self._check()

    def lets_pass(self, phases: Phases, name: str) -> bool:
        """Measure the loss where the forward ends."""
        if self._measures and phases.index == self._order.forward and name == "forward":
            self._measure(phases)
        if phases.index >= self._order.forward or (self._measures and name not in HARMLESS):
            self._answers.fail("the forward takes another way where it is made again.")
        self._reach()
        return True

    def stop(self, frame: Frame) -> None:
        """Take no frame."""

    def give_up(self, reason: str) -> None:
        """Answer that a seam has failed."""
        self._answers.fail("a seam has failed where the forward was made again.")

    # In the copy that stands where the forward begins.

    def _check(self) -> None:
        """Answer with the check and end this process; return in a fork that measures."""
        try:
            with torch._C.DisableTorchFunction(), torch.inference_mode(False), torch.no_grad():
                self._answers.end(self._compared())
        except RunsOn:
            return
        except Exception as error:
            self._answers.end(failure_of(error))

    def _compared(self) -> GradCheck:
        order, rehearsed = self._order, self._rehearsed
        progress = CheckProgress(f"{order.name}.grad", self._report)
        param = self._params()[order.name]
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
        result = compare_gradients(order.name, run_grad, measurable, progress, index=order.index)
        return replace(result, of_script=True, scale=rehearsed.scale)

    def detaching(
        self, recorded: Sequence[DetachedValue] | None = None, *, ignored: Collection[str] = ()
    ) -> DetachedValuesMode:
        """Return a mode that records detached values, or puts `recorded` ones back, but at the places `ignored`."""
        return DetachedValuesMode(self._home_files, recorded, ignored=frozenset(ignored))

    def _report(self, progress: Progress) -> bool:
        if not self._answers.are_wanted:
            return False
        self._answers.tell(Measured(progress.done, progress.of))
        return True

    def _measured(self, value: Tensor, detaching: DetachedValuesMode | None, *, gradients: bool = False) -> Measurement:
        """Return what a forward gives with another value of the parameter, in a fork; raise RunsOn in that."""
        copy = fork_copy(self._seams)
        if isinstance(copy, ForkedCopy):
            measured = copy.answer(lambda: self._answers.are_wanted, seconds=MAX_SECONDS)
            if isinstance(measured, Failure):
                raise OperationsDiffer if measured.other_operations else Refused(measured.sentence)
            assert isinstance(measured, Measurement)
            return measured
        self._answers, self._measures = copy, True
        self._detaching, self._wants_gradients = detaching, gradients
        try:
            self._make_float64(value)
        except Exception as error:
            copy.end(failure_of(error))
        self.float64_mode.first_node = _next_node()
        self._points.modes = (*([detaching] if detaching is not None else []), self.float64_mode)
        raise RunsOn

    # In a fork that measures.

    def _make_float64(self, value: Tensor) -> None:
        """Have the script's models in float64, with the parameter's own value."""
        tensors = {**self._params(), **{f" {name}": each for name, each in self._phases.registry.buffers().items()}}
        for tensor in tensors.values():
            if tensor.is_complex():
                raise Refused("the model has complex parameters, whose gradients cannot be checked yet.")
            if tensor.is_floating_point():
                tensor.data = tensor.data.double()
        self._params()[self._order.name].data = value.clone()
        self._value = value
        torch.set_default_dtype(torch.float64)
        torch.nn.modules.module.register_module_forward_pre_hook(_in_float64)  # type: ignore[arg-type]

    def _measure(self, phases: Phases) -> None:
        """Answer with the loss, and end this process."""
        loss = phases.backward_loss
        if loss is None or loss.numel() != 1:
            self._answers.fail("the forward takes another way where it is made again.")
        changed = tuple(self._detaching.changed_places) if self._detaching is not None else ()
        if not self._wants_gradients:
            self._answers.end(Measurement(float(loss.detach().item()), changed))
        try:
            self._answers.end(self._with_gradients(loss))
        except Exception as error:
            self._answers.end(failure_of(error))

    def _with_gradients(self, loss: Tensor) -> Measurement:
        name, mode, params = self._order.name, self.float64_mode, self._params()
        if not bool(loss.isfinite()):
            raise Refused("the loss is not finite in float64 either, so nothing can be measured around it.")
        narrow = mode.narrow_call or f"the loss is {str(loss.dtype).removeprefix('torch.')}"
        if mode.narrow_call or loss.dtype is not torch.float64:
            raise Refused(f"{narrow} where all is to be float64, and float64 is needed all the way.")
        if not torch.equal(params[name].detach(), self._value):
            raise Refused(f"the forward itself changes {name}, so there is no telling what moving it before would do.")
        trained = {each: param for each, param in params.items() if param.requires_grad}
        self._seams.turn_off()
        detached = self._detaching.detached if self._detaching is not None else ()
        with torch._C._EnableTorchFunction(), mode:
            found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        grads: Mapping[str, Tensor | None] = dict(zip(trained, found, strict=True))
        exact = grads.get(name)
        if any(each is None for each in found) and hides_graph(loss):
            raise Refused(HIDES)
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
        return self._phases.registry.params()


def _in_float64(module: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give a module float64 numbers, as its parameters are: some look at the dtype of what they are given."""
    return tuple(each.double() if isinstance(each, Tensor) and each.is_floating_point() else each for each in arguments)


def _first_node(loss: Tensor, param: Tensor | None = None) -> int | None:
    """Return the number of the first node of a loss's graph, or of the first that uses a parameter; None for none."""
    nodes = list(graph_nodes(loss))
    if param is None:
        return min((node._sequence_nr() for node in nodes if not is_leaf(node)), default=None)
    leaves = {node for node in nodes if is_leaf(node) and node.variable is param}
    return min(
        (node._sequence_nr() for node in nodes for used, _ in node.next_functions if used in leaves), default=None
    )


def _listed(names: Sequence[str]) -> str:
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} and {last}" if others else last


def _next_node() -> int:
    """Return the number that the next node of a graph will have; those of later nodes are greater."""
    number: int = torch.autograd._get_sequence_nr()
    return number
