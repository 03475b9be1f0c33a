"""The phase tracer: one phase of the loop runs as always, and leaves a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import without_history
from autograd_tui.core.trace import InplaceHazard, LazySequence, Node, Operation, Trace, Value
from autograd_tui.engine.tracing.autograd_graph import AutogradGraph, name_of
from autograd_tui.engine.tracing.backward_tracer import BackwardTracer
from autograd_tui.engine.tracing.forward_tracer import ForwardTracer, Lookups
from autograd_tui.engine.tracing.saved_tensors import SavedTensor, memory_of
from autograd_tui.engine.tracing.tensor_registry import MeasurementBatch, MeasuringPlans, TensorRegistry
from autograd_tui.engine.training.loop import TrainingLoop
from autograd_tui.engine.training.model_buffers import ModelBuffers
from autograd_tui.engine.training.predict import Losses
from autograd_tui.engine.training.state import TrainingState

_OUTSIDE = ("params", "foreach", "fused", "capturable", "differentiable", "param_names", "initial_lr")


class Moment:
    """The parameters just before a phase, or just after it, as the frame has them."""

    def __init__(self, state: TrainingState, frame: Frame) -> None:
        self.names = frame.params.layout.names
        self.group_of = state.group_of
        self.options = tuple(_options(group) for group in state.optimizer.param_groups)
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


def parameter_ops(phase: Phase, before: Moment, after: Moment) -> LazySequence[Operation]:
    """Tell parameter by parameter what a step did, or which gradients zero_grad cleared."""
    of = Moment.values if phase is Phase.STEP else Moment.grad

    def ops() -> Iterator[Operation]:
        for place, name in enumerate(before.names):
            group = before.group_of[place]
            settings = before.options[group] if group is not None and phase is Phase.STEP else ()
            yield Operation(place, name, name.rpartition(".")[0], None, of(before, place), of(after, place), settings)

    return LazySequence(len(before.names), ops)


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


_FAST_PATHS = (nn.TransformerEncoderLayer, nn.TransformerEncoder, nn.MultiheadAttention)
Finish = Callable[[Frame], Trace]  # makes the trace, given the frame that the phase led to


@dataclass(frozen=True, slots=True)
class TracedForward:
    """The forward that made the live graph."""

    loss: Tensor
    graph: AutogradGraph
    kept: Mapping[int, Sequence[SavedTensor]]  # by node
    trace: Trace


class PhaseTracer:
    """Records phases of a loop; a backward knows the operations of the forward before it, if that was recorded."""

    def __init__(self, loop: TrainingLoop) -> None:
        self._loop, self._state = loop, loop.state
        self._ways = MeasuringPlans()
        self._lookups = Lookups()
        self._forward: TracedForward | None = None
        self._finish: Finish | None = None

    @property
    def knows_forward(self) -> bool:
        """Whether the forward that the loss is from was recorded."""
        return self._forward is not None and self._forward.loss is self._state.loss

    @property
    def leaves_no_trace(self) -> bool:
        """Whether recording changes nothing in how this model is run."""
        return not any((*_fast_paths(self._state.model), *_compiled(self._state.model)))

    def forget(self) -> None:
        """Let the recorded forward go, and its graph with it."""
        self._forward = None

    def take(self, frame: Frame) -> Trace | None:
        """Give, once, the trace of the phase that was recorded last; `frame`: what it led to."""
        finish, self._finish = self._finish, None
        if finish is None:
            return None
        with torch._C.DisableTorchFunctionSubclass():  # of tensors that are not torch's own, which may do anything
            made = finish(frame)
        trace = replace(made, error=frame.error)
        if self._forward is not None and self._forward.trace is made:  # and not one that raised after it
            self._forward = replace(self._forward, trace=trace)
        return trace

    def forward(self, frame: Frame) -> None:
        """Run the loop's forward; raises as it does, and there is a trace all the same."""
        state, moments = self._state, MeasurementBatch(self._ways)
        recorder = ForwardTracer(state.model, moments, self._lookups)
        recorder.name(state.params, frame.params)
        recorder.name(ModelBuffers.of(state.model).tensors())
        made: list[Tensor] = []

        def predict(batch: Any) -> tuple[Tensor, Any, Losses]:
            recorder.name(_batch_names(batch, state.parts.names))
            with recorder:
                loss, prediction, losses = self._loop.predict(batch)
            named = {"loss": loss, state.parts.names[2]: prediction}
            recorder.name({name: value for name, value in named.items() if isinstance(value, Tensor)})
            made.append(loss)
            return loss, prediction, losses

        self._finish = lambda after: self._forward_trace(recorder, moments, made, after)
        self._loop.forward(predict)

    def backward(self, frame: Frame, *, note: str | None = None) -> None:
        """Run the loop's backward; raises as it does, and there is a trace all the same, with a note."""
        forward = self._forward if self.knows_forward else None
        graph = forward.graph if forward else AutogradGraph(self._state.loss)
        recorder = BackwardTracer(graph, MeasurementBatch(self._ways), forward.kept if forward else None)
        notes = [] if forward or note is None else [note]
        self._finish = lambda after: self._backward_trace(recorder, forward, frame, after, notes)
        self._loop.backward(recorder.backward)

    def parameters(self, phase: Phase, run: Callable[[], Any], frame: Frame) -> Any:
        """Run the loop's step or zero_grad."""
        state, before = self._state, Moment(self._state, frame)

        def finish(after: Frame) -> Trace:
            ops = parameter_ops(phase, before, Moment(state, after))
            return Trace(phase, after.index, after.iteration, ops, optimizer=str(state.spec))

        self._finish = finish
        return run()

    def raised_step(self, frame: Frame) -> Trace:
        """Tell of a step that raised, and has left all as it was."""
        moment = Moment(self._state, frame)
        ops = parameter_ops(Phase.STEP, moment, moment)
        return Trace(Phase.STEP, frame.index, frame.iteration, ops, optimizer=str(self._state.spec), error=frame.error)

    def _forward_trace(
        self, recorder: ForwardTracer, moments: MeasurementBatch, made: list[Tensor], frame: Frame
    ) -> Trace:
        loss = made[0] if made else None
        graph = recorder.finish(loss)
        moments.read()
        recorder.look_for_not_finite(self._state.params)
        moments.forget()
        kept = {graph.number[node]: each for node, each in recorder.saved.by_node.items() if node in graph.number}
        calls, saved = recorder.calls, {number: [(one.role, one.seen) for one in each] for number, each in kept.items()}
        marred = {number: each for number, each in kept.items() if any(one.changed_by for one in each)}
        values = {number: [one.seen.value(moments, one.role) for one in each] for number, each in marred.items()}
        spoilt = {number: self._overwritten(each, values[number]) for number, each in marred.items()}
        bare = graph.plain(self._param_names(), ops=recorder.owner)
        ops = LazySequence(len(calls), lambda: (call.plain(number, moments) for number, call in enumerate(calls)))
        nodes = LazySequence(
            len(bare),
            lambda: (_with_saved(node, saved.get(node.number), spoilt.get(node.number, ()), moments) for node in bare),
        )
        notes = (*_fast_paths(self._state.model), *_compiled(self._state.model))
        trace = Trace(Phase.FORWARD, frame.index, frame.iteration, ops, nodes, notes=notes)
        if loss is not None and loss is self._state.loss:
            self._forward = TracedForward(loss, graph, kept, trace)
        return trace

    def _backward_trace(
        self,
        recorder: BackwardTracer,
        forward: TracedForward | None,
        before: Frame,
        after: Frame,
        notes: Sequence[str],
    ) -> Trace:
        nodes = forward.trace.nodes if forward else recorder.graph.plain(self._param_names())
        if after.error and forward:
            nodes = self._with_what_spoilt_it(nodes, forward, recorder.unfinished, before)
        whole = forward.trace if forward else None
        ops = recorder.ops(nodes, whole.ops if whole else (), before=before, after=after)
        all_notes = (*notes, *_hidden(map(name_of, recorder.graph.nodes)))
        return Trace(Phase.BACKWARD, after.index, after.iteration, ops, nodes, forward=whole, notes=all_notes)

    def _with_what_spoilt_it(
        self, nodes: Sequence[Node], forward: TracedForward, unfinished: Sequence[int], before: Frame
    ) -> Sequence[Node]:
        """Tell of the nodes that could not run which of the tensors that they keep were changed since."""
        mover = before.mover if before.moved else None
        said = "" if mover is None else mover.phase.value if mover.phase else str(mover)
        told = {
            number: self._overwritten(forward.kept.get(number, ()), nodes[number].saved or (), said)
            for number in unfinished
        }
        return [replace(node, overwritten=told.get(node.number, node.overwritten)) for node in nodes]

    def _overwritten(
        self, kept: Sequence[SavedTensor], values: Sequence[Value], mover: str = ""
    ) -> tuple[InplaceHazard, ...]:
        """Give what has been changed since a node kept it, by operations of the forward or else by `mover`."""
        names = {memory_of(param): name for name, param in self._state.params.items()}
        found = []
        for each, value in zip(kept, values, strict=False):
            version = each.version
            if version is None:
                continue
            if not value.name and value.maker is None:  # a view of a parameter
                value = replace(value, stats=replace(value.stats, name=names.get(each.memory, "")))
            by = tuple(each.changed_by)
            found.append(InplaceHazard(value, version, by, "" if by else mover))
        return tuple(found)

    def _param_names(self) -> dict[int, str]:
        return {id(param): name for name, param in self._state.params.items()}


def _with_saved(
    node: Node,
    saved: Sequence[tuple[str, TensorRegistry]] | None,
    overwritten: tuple[InplaceHazard, ...],
    moments: MeasurementBatch,
) -> Node:
    """Tell what a node keeps, as far as it is known."""
    if saved is None:
        return node
    return replace(node, saved=tuple(seen.value(moments, role) for role, seen in saved), overwritten=overwritten)


def _batch_names(batch: Any, names: tuple[str, str, str]) -> Mapping[str, Tensor]:
    """Name the tensors of a batch: of a pair as the scenario does, of a dict by key, of others by place."""
    if isinstance(batch, Tensor):
        return {names[0]: batch}
    if isinstance(batch, Mapping):
        pairs = [(str(key), value) for key, value in batch.items()]
    elif isinstance(batch, (tuple, list)):
        pair = len(batch) == 2
        pairs = [(names[place] if pair else f"batch[{place}]", value) for place, value in enumerate(batch)]
    else:
        pairs = []
    return {name: value for name, value in pairs if isinstance(value, Tensor)}


def _fast_paths(model: nn.Module) -> Iterator[str]:
    quick = [module for module in model.modules() if isinstance(module, _FAST_PATHS) and not module.training]
    if quick:
        yield (
            f"{type(quick[0]).__name__} in eval mode has a fast path that recording turns off: "
            "the last digits may differ from an unrecorded forward."
        )


def _compiled(model: nn.Module) -> Iterator[str]:
    if any(isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod") for module in model.modules()):
        yield "A compiled module is one operation here: what happens in it cannot be seen."


def _hidden(names: Iterator[str]) -> Iterator[str]:
    if any(name.startswith("CheckpointFunction") for name in names):
        yield "A reentrant checkpoint runs its part of the forward again in its own node, and hides what happens there."
