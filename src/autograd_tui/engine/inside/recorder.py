"""Recording: one phase of the loop runs as always, and leaves a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.engine.inside.backward import BackwardRecorder
from autograd_tui.engine.inside.forward import ForwardRecorder, Lookups
from autograd_tui.engine.inside.graph import Graph, name_of
from autograd_tui.engine.inside.moments import Moments, Ways
from autograd_tui.engine.inside.parameters import Moment, parameter_ops
from autograd_tui.engine.inside.saved import Kept, memory_of
from autograd_tui.engine.inside.seen import Seen
from autograd_tui.engine.training.buffers import Buffers
from autograd_tui.engine.training.loop import Loop
from autograd_tui.engine.training.predict import Losses
from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.later import Later
from autograd_tui.engine.values.trace import Node, Overwritten, Trace, Value

_FAST_PATHS = (nn.TransformerEncoderLayer, nn.TransformerEncoder, nn.MultiheadAttention)
Finish = Callable[[Frame], Trace]  # makes the trace, given the frame that the phase led to


@dataclass(frozen=True, slots=True)
class RecordedForward:
    """The forward that made the live graph."""

    loss: Tensor
    graph: Graph
    kept: Mapping[int, Sequence[Kept]]  # by node
    trace: Trace


class PhaseRecorder:
    """Records phases of a loop; a backward knows the operations of the forward before it, if that was recorded."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._ways = Ways()
        self._lookups = Lookups()
        self._forward: RecordedForward | None = None
        self._finish: Finish | None = None

    @property
    def knows_forward(self) -> bool:
        """Whether the forward that the loss is from was recorded."""
        return self._forward is not None and self._forward.loss is self._loop.loss

    @property
    def leaves_no_trace(self) -> bool:
        """Whether recording changes nothing in how this model is run."""
        return not any((*_fast_paths(self._loop.model), *_compiled(self._loop.model)))

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
        loop, moments = self._loop, Moments(self._ways)
        recorder = ForwardRecorder(loop.model, moments, self._lookups)
        recorder.name(loop.params, frame.params)
        recorder.name(Buffers.of(loop.model).tensors())
        made: list[Tensor] = []

        def predict(batch: Any) -> tuple[Tensor, Any, Losses]:
            recorder.name(_batch_names(batch, loop.parts.names))
            with recorder:
                loss, prediction, losses = loop.predict(batch)
            named = {"loss": loss, loop.parts.names[2]: prediction}
            recorder.name({name: value for name, value in named.items() if isinstance(value, Tensor)})
            made.append(loss)
            return loss, prediction, losses

        self._finish = lambda after: self._forward_trace(recorder, moments, made, after)
        loop.forward(predict)

    def backward(self, frame: Frame, *, note: str | None = None) -> None:
        """Run the loop's backward; raises as it does, and there is a trace all the same, with a note."""
        forward = self._forward if self.knows_forward else None
        graph = forward.graph if forward else Graph(self._loop.loss)
        recorder = BackwardRecorder(graph, Moments(self._ways), forward.kept if forward else None)
        notes = [] if forward or note is None else [note]
        self._finish = lambda after: self._backward_trace(recorder, forward, frame, after, notes)
        self._loop.backward(recorder.backward)

    def parameters(self, phase: Phase, run: Callable[[], Any], frame: Frame) -> Any:
        """Run the loop's step or zero_grad."""
        loop, before = self._loop, Moment(self._loop, frame)

        def finish(after: Frame) -> Trace:
            ops = parameter_ops(phase, before, Moment(loop, after))
            return Trace(phase, after.index, after.iteration, ops, optimizer=str(loop.spec))

        self._finish = finish
        return run()

    def raised_step(self, frame: Frame) -> Trace:
        """Tell of a step that raised, and has left all as it was."""
        moment = Moment(self._loop, frame)
        ops = parameter_ops(Phase.STEP, moment, moment)
        return Trace(Phase.STEP, frame.index, frame.iteration, ops, optimizer=str(self._loop.spec), error=frame.error)

    def _forward_trace(self, recorder: ForwardRecorder, moments: Moments, made: list[Tensor], frame: Frame) -> Trace:
        loss = made[0] if made else None
        graph = recorder.finish(loss)
        moments.read()
        recorder.look_for_not_finite(self._loop.params)
        moments.forget()
        kept = {graph.number[node]: each for node, each in recorder.saved.by_node.items() if node in graph.number}
        calls, saved = recorder.calls, {number: [(one.role, one.seen) for one in each] for number, each in kept.items()}
        marred = {number: each for number, each in kept.items() if any(one.changed_by for one in each)}
        values = {number: [one.seen.value(moments, one.role) for one in each] for number, each in marred.items()}
        spoilt = {number: self._overwritten(each, values[number]) for number, each in marred.items()}
        bare = graph.plain(self._param_names(), ops=recorder.owner)
        ops = Later(len(calls), lambda: (call.plain(number, moments) for number, call in enumerate(calls)))
        nodes = Later(
            len(bare),
            lambda: (_with_saved(node, saved.get(node.number), spoilt.get(node.number, ()), moments) for node in bare),
        )
        notes = (*_fast_paths(self._loop.model), *_compiled(self._loop.model))
        trace = Trace(Phase.FORWARD, frame.index, frame.iteration, ops, nodes, notes=notes)
        if loss is not None and loss is self._loop.loss:
            self._forward = RecordedForward(loss, graph, kept, trace)
        return trace

    def _backward_trace(
        self,
        recorder: BackwardRecorder,
        forward: RecordedForward | None,
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
        self, nodes: Sequence[Node], forward: RecordedForward, unfinished: Sequence[int], before: Frame
    ) -> Sequence[Node]:
        """Tell of the nodes that could not run which of the tensors that they keep were changed since."""
        mover = before.mover if before.moved else None
        said = "" if mover is None else mover.phase.value if mover.phase else str(mover)
        told = {
            number: self._overwritten(forward.kept.get(number, ()), nodes[number].saved or (), said)
            for number in unfinished
        }
        return [replace(node, overwritten=told.get(node.number, node.overwritten)) for node in nodes]

    def _overwritten(self, kept: Sequence[Kept], values: Sequence[Value], mover: str = "") -> tuple[Overwritten, ...]:
        """Give what has been changed since a node kept it, by operations of the forward or else by `mover`."""
        names = {memory_of(param): name for name, param in self._loop.params.items()}
        found = []
        for each, value in zip(kept, values, strict=False):
            version = each.version
            if version is None:
                continue
            if not value.name and value.maker is None:  # a view of a parameter
                value = replace(value, stats=replace(value.stats, name=names.get(each.memory, "")))
            by = tuple(each.changed_by)
            found.append(Overwritten(value, version, by, "" if by else mover))
        return tuple(found)

    def _param_names(self) -> dict[int, str]:
        return {id(param): name for name, param in self._loop.params.items()}


def _with_saved(
    node: Node, saved: Sequence[tuple[str, Seen]] | None, overwritten: tuple[Overwritten, ...], moments: Moments
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
