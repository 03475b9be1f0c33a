"""The phase tracer: runs a phase of the training loop as always, and records a trace of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import without_history
from autograd_tui.core.trace import InplaceHazard, LazySequence, Node, Operation, Trace, Value
from autograd_tui.engine.tracing.autograd_graph import AutogradGraph, SavedTensor, node_name
from autograd_tui.engine.tracing.backward_tracer import BackwardTracer
from autograd_tui.engine.tracing.forward_tracer import ForwardTracer, TorchLookups
from autograd_tui.engine.tracing.measurement_batch import MeasurementBatch, MeasuringPlans
from autograd_tui.engine.tracing.tensor_registry import TensorRecord
from autograd_tui.engine.training.forward_snapshot import ModelBuffers
from autograd_tui.engine.training.loop import TrainingLoop
from autograd_tui.engine.training.predict import Losses, predict
from autograd_tui.engine.training.tensor_properties import storage_address

_HIDDEN_OPTIONS = ("params", "foreach", "fused", "capturable", "differentiable", "param_names", "initial_lr")


class ParameterRows:
    """The parameters just before or just after a phase, with gradients and optimizer state, as rows of a frame."""

    def __init__(self, frame: Frame, group_of: Sequence[int | None], groups: Sequence[Mapping[str, Any]]) -> None:
        """`group_of`: the group of each parameter, by its index; `groups`: those of the optimizer."""
        self.names = frame.params.layout.names
        self.group_of = group_of
        self.options = tuple(_options(group) for group in groups)
        self._params, self._grads, self._state = frame.params, frame.grads, frame.optimizer_state
        self._state_of: dict[str, list[int]] | None = None

    def values(self, index: int) -> tuple[Value, ...]:
        """Return one parameter, its gradient if it has one, and the optimizer's state of it."""
        param = Value(self._params[index], "value", first=self._params.first(index))
        return (param, *self.grad(index), *self._states(self.names[index]))

    def grad(self, index: int) -> tuple[Value, ...]:
        """Return a parameter's gradient, if there is one."""
        row, name = self._grads[index], f"{self.names[index]}.grad"
        return () if row is None else (Value(without_history(row, name), "grad", first=self._grads.first(index)),)

    def _states(self, name: str) -> Iterator[Value]:
        if self._state_of is None:
            self._state_of = _by_parameter(self._state.layout.names)
        for index in self._state_of.get(name, ()):
            row = self._state[index]
            yield Value(row, row.name.rpartition(".")[2], first=self._state.first(index))


def parameter_ops(
    phase: Phase, before: ParameterRows, after: ParameterRows, indices: Sequence[int] | None = None
) -> LazySequence[Operation]:
    """Return parameter by parameter what a step did, or which gradients zero_grad cleared; `indices`: of which ones."""
    of = ParameterRows.values if phase is Phase.STEP else ParameterRows.grad
    chosen = range(len(before.names)) if indices is None else indices

    def ops() -> Iterator[Operation]:
        for number, index in enumerate(chosen):
            name, group = before.names[index], before.group_of[index]
            settings = before.options[group] if group is not None and phase is Phase.STEP else ()
            yield Operation(number, name, name.rpartition(".")[0], None, of(before, index), of(after, index), settings)

    return LazySequence(len(chosen), ops)


def _options(group: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    written = {key: value for key, value in group.items() if key not in _HIDDEN_OPTIONS and value is not None}
    return tuple(
        (key, str(float(value)) if isinstance(value, Tensor) else repr(value)) for key, value in written.items()
    )


def _by_parameter(names: tuple[str, ...]) -> dict[str, list[int]]:
    """Find the places of the rows "w.exp_avg" by parameter."""
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        indices.setdefault(name.rpartition(".")[0], []).append(index)
    return indices


FAST_PATHS = (nn.TransformerEncoderLayer, nn.TransformerEncoder, nn.MultiheadAttention)
Finish = Callable[[Frame], Trace]  # makes the trace, given the frame that the phase led to


@dataclass(frozen=True, slots=True)
class TracedForward:
    """The forward that made the live graph."""

    loss: Tensor | None  # None where it raised
    graph: AutogradGraph
    saved: Mapping[int, Sequence[SavedTensor]]  # by node
    trace: Trace


class PhaseTracer:
    """Records phases of a loop; a backward knows the operations of the forward before it, if that was recorded."""

    def __init__(self, loop: TrainingLoop) -> None:
        self._loop, self._state = loop, loop.state
        self._plans = MeasuringPlans()
        self._lookups = TorchLookups()
        self._forward: TracedForward | None = None
        self._finish: Finish | None = None
        self._backward: BackwardTracer | None = None  # until its gradients have been asked for
        self._note: str | None = None
        self._remove_hooks: Callable[[], None] = lambda: None  # those of the phase that was recorded last

    @property
    def knows_forward(self) -> bool:
        """Whether the forward that the loss is from was recorded."""
        return self._forward is not None and self._forward.loss is self._state.loss

    @property
    def leaves_no_trace(self) -> bool:
        """Whether recording changes nothing in how this model is run."""
        modules = list(self._state.model.modules())
        return not any((*_fast_paths(modules), *_compiled(modules)))

    def forget(self) -> None:
        """Let the recorded forward go, and its graph with it."""
        self._forward = None

    def abandon(self) -> None:
        """Take away what a phase that was ended midway has left, if it was recorded."""
        self._finish = self._backward = None
        self.forget()
        self._remove_hooks()

    def take(self, frame: Frame) -> Trace | None:
        """Return, once, the trace of the phase that was recorded last; `frame`: what it led to."""
        finish, self._finish, self._backward = self._finish, None, None
        if finish is None:
            return None
        with torch._C.DisableTorchFunctionSubclass():  # of tensors that are not torch's own, which may do anything
            made = finish(frame)
        trace = replace(made, error=frame.error)
        if self._forward is not None and self._forward.trace is made:  # and not one that raised after it
            self._forward = replace(self._forward, trace=trace)
        return trace

    def begin(self, frame: Frame, *, note: str | None) -> None:
        """Record the phase that runs next, from `frame` on; `note`: a sentence for a backward without its forward."""
        self._before, self._note = frame, note

    def forward(self) -> None:
        """Run the loop's forward; raises as it does, and there is a trace all the same."""
        state, measurements = self._state, MeasurementBatch(self._plans)
        buffers = ModelBuffers.of(state.model)
        names = {id(module): name for name, module, _ in buffers.slots}
        recorder = ForwardTracer(names, measurements, self._lookups)
        self._remove_hooks = recorder.modules.remove_hooks
        recorder.name(state.params, self._before.params)
        recorder.name(buffers.tensors())
        losses: list[Tensor] = []  # of this forward: none where it raises

        def run(batch: Any) -> tuple[Tensor, Any, Losses]:
            recorder.name(_batch_names(batch, state.parts.names))
            with recorder:
                loss, prediction, named_losses = predict(state.parts, state.model, state.parts.loss, batch)
            named = {"loss": loss, state.parts.names[2]: prediction}
            recorder.name({name: value for name, value in named.items() if isinstance(value, Tensor)})
            losses.append(loss)
            return loss, prediction, named_losses

        notes = (*_fast_paths(buffers.modules), *_compiled(buffers.modules))

        def finish(after: Frame) -> Trace:
            loss = losses[0] if losses else None
            traced = forward_trace(recorder, measurements, loss, state.params, after, notes)
            if loss is not None and loss is state.loss:
                self._forward = traced
            return traced.trace

        self._finish = finish
        self._loop.forward(run)

    def backward(self) -> None:
        """Run the loop's backward; raises as it does, and there is a trace all the same, with the note."""
        before, forward = self._before, self._forward if self.knows_forward else None
        graph = forward.graph if forward else AutogradGraph(self._state.loss)
        recorder = BackwardTracer(graph, MeasurementBatch(self._plans), forward.saved if forward else None)
        self._remove_hooks = recorder.remove_hooks
        notes = [] if forward or self._note is None else [self._note]
        params = self._state.params
        self._finish = lambda after: backward_trace(recorder, forward, params, before, after, notes)
        self._backward = recorder
        self._loop.backward(recorder.backward)

    def launched_grads(self) -> dict[int, Sequence[Tensor]]:
        """Return what `launch_large` gave of the gradients of the backward just recorded, by the leaf's identity."""
        recorder, self._backward = self._backward, None
        return recorder.launched_grads() if recorder is not None else {}

    def step(self) -> bool:
        """Run the loop's step; raises as it does."""
        self._finish = self._parameter_trace(Phase.STEP)
        return self._loop.step()

    def zero_grad(self) -> None:
        """Run the loop's zero_grad; raises as it does."""
        self._finish = self._parameter_trace(Phase.ZERO_GRAD)
        self._loop.zero_grad()

    def _parameter_trace(self, phase: Phase) -> Finish:
        state, before = self._state, self._rows(self._before)

        def finish(after: Frame) -> Trace:
            ops = parameter_ops(phase, before, self._rows(after))
            return Trace(phase, after.index, after.iteration, ops, optimizer=str(state.spec))

        return finish

    def raised_step(self, frame: Frame) -> Trace:
        """Return the trace of a step that raised, and has left all as it was."""
        moment = self._rows(frame)
        ops = parameter_ops(Phase.STEP, moment, moment)
        return Trace(Phase.STEP, frame.index, frame.iteration, ops, optimizer=str(self._state.spec), error=frame.error)

    def _rows(self, frame: Frame) -> ParameterRows:
        return ParameterRows(frame, self._state.group_of, self._state.optimizer.param_groups)


def forward_trace(
    recorder: ForwardTracer,
    measurements: MeasurementBatch,
    loss: Tensor | None,
    params: Mapping[str, Tensor],
    frame: Frame,
    notes: tuple[str, ...],
) -> TracedForward:
    """Return what a forward has recorded; `loss`: None where it raised. `frame`: the one that it led to."""
    graph = recorder.finish(loss)
    measurements.read()
    recorder.find_nonfinite(params)
    measurements.drop_values()
    saved = {graph.number[node]: each for node, each in recorder.saved.by_node.items() if node in graph.number}
    records = {number: [(one.role, one.record) for one in each] for number, each in saved.items()}
    changed = {number: each for number, each in saved.items() if any(one.changed_by for one in each)}
    values = {number: [one.record.value(measurements, one.role) for one in each] for number, each in changed.items()}
    hazards = {number: _hazards(params, each, values[number]) for number, each in changed.items()}
    calls, nodes = recorder.calls, graph.to_nodes(_names_by_id(params), ops=recorder.owner)
    ops = LazySequence(
        len(calls), lambda: (call.to_operation(number, measurements) for number, call in enumerate(calls))
    )
    full_nodes = LazySequence(
        len(nodes),
        lambda: (
            _with_saved(node, records.get(node.number), hazards.get(node.number, ()), measurements) for node in nodes
        ),
    )
    trace = Trace(Phase.FORWARD, frame.index, frame.iteration, ops, full_nodes, notes=(*notes, *measurements.notes()))
    return TracedForward(loss, graph, saved, trace)


def backward_trace(
    recorder: BackwardTracer,
    forward: TracedForward | None,
    params: Mapping[str, Tensor],
    before: Frame,
    after: Frame,
    notes: Sequence[str],
    saved: Mapping[int, Sequence[Value]] | None = None,
) -> Trace:
    """Return what a backward has recorded, from frame `before` to `after`.

    `forward`: None where it was not traced. `saved`: what nodes had saved then, by number, as far as that is known.
    """
    nodes: Sequence[Node]
    if forward:
        nodes = forward.trace.nodes
    else:
        plain = recorder.graph.to_nodes(_names_by_id(params))
        nodes = [
            replace(node, saved=tuple(saved[node.number])) if saved and node.number in saved else node for node in plain
        ]
    if after.error and forward:
        nodes = _with_hazards(params, nodes, forward, recorder.unfinished, before)
    whole = forward.trace if forward else None
    ops = recorder.ops(nodes, whole.ops if whole else (), before=before, after=after)
    all_notes = (*notes, *_reentrant_notes(map(node_name, recorder.graph.nodes)), *recorder.notes())
    return Trace(Phase.BACKWARD, after.index, after.iteration, ops, nodes, forward=whole, notes=all_notes)


def _with_hazards(
    params: Mapping[str, Tensor],
    nodes: Sequence[Node],
    forward: TracedForward,
    unfinished: Sequence[int],
    before: Frame,
) -> Sequence[Node]:
    """Return the nodes; those that could not run tell which of their saved tensors were changed in place since."""
    mover = before.mover if before.moved else None
    mover_name = "" if mover is None else mover.phase.value if mover.phase else str(mover)
    hazards = {
        number: _hazards(params, forward.saved.get(number, ()), nodes[number].saved or (), mover_name)
        for number in unfinished
    }
    return [replace(node, inplace_hazards=hazards.get(node.number, node.inplace_hazards)) for node in nodes]


def _hazards(
    params: Mapping[str, Tensor], saved: Sequence[SavedTensor], values: Sequence[Value], mover: str = ""
) -> tuple[InplaceHazard, ...]:
    """Return which saved tensors were changed since, by operations of the forward or else by `mover`."""
    names = {storage_address(param): name for name, param in params.items()}
    hazards = []
    for each, value in zip(saved, values, strict=False):
        version = each.version
        if version is None:
            continue
        if not value.name and value.maker is None:  # a view of a parameter
            value = replace(value, stats=replace(value.stats, name=names.get(each.storage, "")))
        changers = tuple(each.changed_by)
        hazards.append(InplaceHazard(value, version, changers, "" if changers else mover))
    return tuple(hazards)


def _names_by_id(params: Mapping[str, Tensor]) -> dict[int, str]:
    return {id(param): name for name, param in params.items()}


def _with_saved(
    node: Node,
    records: Sequence[tuple[str, TensorRecord]] | None,
    inplace_hazards: tuple[InplaceHazard, ...],
    measurements: MeasurementBatch,
) -> Node:
    """Return a node with the values that it has saved for its backward, where they are known."""
    if records is None:
        return node
    saved = tuple(record.value(measurements, role) for role, record in records)
    return replace(node, saved=saved, inplace_hazards=inplace_hazards)


def _batch_names(batch: Any, names: tuple[str, str, str]) -> Mapping[str, Tensor]:
    """Name the tensors of a batch: of a pair as the scenario does, of a dict by key, of others by place."""
    if isinstance(batch, Tensor):
        return {names[0]: batch}
    if isinstance(batch, Mapping):
        pairs = [(str(key), value) for key, value in batch.items()]
    elif isinstance(batch, (tuple, list)):
        pair = len(batch) == 2
        pairs = [(names[index] if pair else f"batch[{index}]", value) for index, value in enumerate(batch)]
    else:
        pairs = []
    return {name: value for name, value in pairs if isinstance(value, Tensor)}


def _fast_paths(modules: Iterable[nn.Module]) -> Iterator[str]:
    quick = [module for module in modules if isinstance(module, FAST_PATHS) and not module.training]
    if quick:
        yield (
            f"{type(quick[0]).__name__} in eval mode has a fast path that recording turns off: "
            "the last digits may differ from an unrecorded forward."
        )


def _compiled(modules: Iterable[nn.Module]) -> Iterator[str]:
    if any(
        isinstance(module, torch.jit.ScriptModule) or "_orig_mod" in (vars(module).get("_modules") or ())
        for module in modules
    ):
        yield "A compiled module is what its compiled code calls, often one operation: its own lines cannot be seen."


def _reentrant_notes(names: Iterator[str]) -> Iterator[str]:
    if any(name.startswith("CheckpointFunction") for name in names):
        yield "A reentrant checkpoint runs its part of the forward again in its own node, and hides what happens there."
