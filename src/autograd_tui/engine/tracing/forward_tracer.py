"""Tracing a forward: every call to torch in it, its module, and the graph nodes that it created."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from autograd_tui.core.tensor_stats import StatsTable
from autograd_tui.core.trace import NonFinite, Operation, Source
from autograd_tui.engine.tracing.autograd_graph import (
    AutogradGraph,
    GraphNode,
    SavedTensors,
    is_leaf,
    node_name,
    root_node,
)
from autograd_tui.engine.tracing.call_description import CallArguments, CallSites, call_name, is_transformed
from autograd_tui.engine.tracing.tensor_registry import MeasurementBatch, TensorRecord, TensorRegistry, first_nonfinite
from autograd_tui.engine.training.tensor_properties import tensors_in, version_of


class ModulePath:
    """Follows, inside `with`, which module is called; `path` is its name in the model, "" in the model itself."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {id(module): name for name, module in model.named_modules()}
        self._stack: list[str] = []
        self._handles: list[RemovableHandle] = []

    @property
    def path(self) -> str:
        return self._stack[-1] if self._stack else ""

    def __enter__(self) -> None:
        self._handles = [
            register_module_forward_pre_hook(self._begin),
            register_module_forward_hook(self._end, always_call=True),
        ]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._stack = [], []

    def _begin(self, module: nn.Module, _: Any) -> None:
        self._stack.append(self._names.get(id(module), self.path))

    def _end(self, *_: Any) -> None:
        if self._stack:
            self._stack.pop()


_RUNNING = ("running_mean", "running_var")


@dataclass(slots=True)
class TracedCall:
    """One call to torch, until its numbers have been read."""

    name: str
    module: str
    source: Source | None
    inputs: list[tuple[str, TensorRecord]] = field(default_factory=list)
    output: list[TensorRecord] = field(default_factory=list)
    settings: tuple[tuple[str, str], ...] = ()
    nodes: list[GraphNode] = field(default_factory=list)  # until they are numbered
    node_numbers: tuple[int, ...] = ()
    dead: tuple[int, int] | None = None  # the measurement of how many units are not, and how many there are
    mutates: bool = False
    opaque: bool = False
    raised: bool = False
    not_finite: list[NonFinite] = field(default_factory=list)

    def number_nodes(self, graph: AutogradGraph) -> None:
        """Let the nodes go, and keep their numbers."""
        self.node_numbers = tuple(sorted(graph.number[node] for node in self.nodes if node in graph.number))
        self.nodes = []

    def to_operation(self, number: int, measurements: MeasurementBatch) -> Operation:
        """Return it as a plain value; call it once the measurements have been read."""
        dead = self.dead and (self.dead[1] - int(measurements.scalar(self.dead[0])), self.dead[1])
        return Operation(
            number,
            self.name,
            self.module,
            self.source,
            inputs=tuple(record.value(measurements, role) for role, record in self.inputs),
            output=tuple(record.value(measurements) for record in self.output),
            settings=self.settings,
            nodes=self.node_numbers,
            dead=dead,
            mutates=self.mutates,
            opaque=self.opaque,
            raised=self.raised,
            not_finite=tuple(self.not_finite),
        )


@dataclass(frozen=True, slots=True)
class TorchLookups:
    """What is looked up once for all forwards: argument names, source lines, attributes of graph nodes."""

    arguments: CallArguments = field(default_factory=CallArguments)
    sources: CallSites = field(default_factory=CallSites)
    saved: dict[type, list[str]] = field(default_factory=dict)


class ForwardTracer(TorchFunctionMode):
    """Records what runs inside `with`; nothing of it stays behind.

    torch tells a mode of the outermost calls alone, so an operation owns all nodes between its output and its inputs.
    """

    def __init__(self, model: nn.Module, measurements: MeasurementBatch, lookups: TorchLookups) -> None:
        super().__init__()
        self.calls: list[TracedCall] = []
        self.owner: dict[GraphNode, int] = {}
        self.registry = TensorRegistry(measurements)
        self.saved = SavedTensors(self.registry, lookups.saved)
        self._measurements, self._modules = measurements, ModulePath(model)
        self._arguments, self._sources = lookups.arguments, lookups.sources

    def name(self, tensors: Mapping[str, Tensor], table: StatsTable | None = None) -> None:
        """Call tensors by names; `table`: rows about them as they are now, by name."""
        self.registry.name(tensors, table)

    def __enter__(self) -> ForwardTracer:
        self._modules.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._modules.__exit__(*error)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run one call to torch, and record it."""
        kwargs = kwargs or {}
        name = call_name(func)
        if name is None or is_transformed():
            return func(*args, **kwargs)
        arguments, settings = self._arguments.of(func, name, args, kwargs)
        unchanged = [(tensor, version_of(tensor)) for _, tensor in arguments]
        attribute = getattr(func, "__name__", "") == "__get__"
        inputs = None if attribute else self._record_inputs(arguments)
        try:
            result = func(*args, **kwargs)
        except Exception:
            if inputs is not None:
                source = self._sources.source_of(sys._getframe(1))
                self.calls.append(TracedCall(name, self._modules.path, source, inputs, settings=settings, raised=True))
            raise
        outputs = list(tensors_in(result))
        changed = [tensor for tensor, version in unchanged if version_of(tensor) != version]
        new = [tensor for tensor in outputs if all(tensor is not one for one, _ in unchanged)]
        if attribute and not any(tensor.grad_fn is not None for tensor in new):
            return result
        if new or changed:
            source = self._sources.source_of(sys._getframe(1))
            call = TracedCall(
                name, self._modules.path, source, inputs or self._record_inputs(arguments), settings=settings
            )
            call.mutates = bool(arguments) and any(tensor is arguments[0][1] for tensor in changed)
            self.saved.note_changes(changed, len(self.calls))
            self._record_call(call, outputs or changed[:1], [tensor for _, tensor in arguments])
        return result

    def finish(self, loss: Tensor | None) -> AutogradGraph:
        """Give the graph of the forward, an empty one where it made none."""
        if loss is not None:
            self._record_hidden_call(loss)
        graph = AutogradGraph(loss)
        for call in self.calls:
            call.number_nodes(graph)
        return graph

    def find_nonfinite(self, params: Mapping[str, Tensor]) -> None:
        """Find NaN and infinity in the small tensors that calls have returned; call it once they have been read."""
        for call in self.calls if self._measurements.keeps_values else ():
            for index in (index for index, each in enumerate(call.output) if self._is_small_nonfinite(each)):
                inputs = [self._unchanged_values(each, params) for _, each in call.inputs]
                result = self._measurements.values(call.output[index].row)
                call.not_finite += [] if result is None else first_nonfinite(result, inputs, output=index)

    def _is_small_nonfinite(self, record: TensorRecord) -> bool:
        return record.table is None and self._measurements.not_finite(record.row)

    def _unchanged_values(self, record: TensorRecord, params: Mapping[str, Tensor]) -> Tensor | None:
        if record.table is None:
            return self._measurements.values(record.row)
        param = params.get(record.name)
        return param if param is not None and version_of(param) == record.version else None

    def _record_inputs(self, arguments: list[tuple[str, Tensor]]) -> list[tuple[str, TensorRecord]]:
        """Measure what a call is given, before it may change it."""
        for _, tensor in arguments:
            self._record_hidden_call(tensor)
        return [(role, self.registry.record(tensor)) for role, tensor in arguments]

    def _record_hidden_call(self, tensor: Tensor) -> None:
        """Record as a call what has made a tensor unseen by torch functions: a custom Function, a view made anew.

        It was made before the line that runs now, and which line that was is not known.
        """
        node = root_node(tensor) if tensor.grad_fn is not None else None
        if node is None or node in self.owner:
            return
        call = TracedCall(re.sub(r"Backward\d*$", "", node_name(node)), self._modules.path, None, opaque=True)
        self._record_call(call, [tensor])

    def _record_call(self, call: TracedCall, outputs: list[Tensor], inputs: Sequence[Tensor] = ()) -> None:
        """Record a call and its outputs."""
        number = len(self.calls)
        self.calls.append(call)
        for tensor in outputs:
            self._claim_nodes(tensor, call, number)
        call.output = [self.registry.record(tensor, maker=number) for tensor in outputs]
        rows = [each.row for _, each in call.inputs if each.table is None]
        for index, each in enumerate(call.output):
            if each.table is None and self._measurements.is_newly_nonfinite(each.row, rows):
                call.not_finite += first_nonfinite(outputs[index], _unchanged(call, inputs), output=index)
        records = [*call.output, *self._records_afterwards(call, inputs)]
        self.saved.read_nodes(call.nodes, list(zip((*outputs, *inputs), records, strict=True)))
        if call.name in ("relu", "relu_") and outputs[0].dim() > 1 and outputs[0].numel():
            call.dead = self._measurements.measure_scalar(_live_units(outputs[0])), outputs[0].shape[1]

    def _records_afterwards(self, call: TracedCall, inputs: Sequence[Tensor]) -> Iterator[TensorRecord]:
        """Yield the call's inputs as it left them: a norm that trains changes buffers without counting a version."""
        for (role, record), tensor in zip(call.inputs, inputs, strict=False):
            yield self.registry.record_again(tensor) if role in _RUNNING and _trains(call) else record

    def _claim_nodes(self, tensor: Tensor, call: TracedCall, number: int) -> None:
        stack = [tensor.grad_fn]
        while stack:
            node: GraphNode = stack.pop()
            if node is not None and node not in self.owner and not is_leaf(node):
                self.owner[node] = number
                call.nodes.append(node)
                stack += [each for each, _ in node.next_functions]


def _unchanged(call: TracedCall, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """Give what a call was given; None for what has been changed in place since."""
    pairs = zip(inputs, call.inputs, strict=False)
    return [tensor if version_of(tensor) == record.version else None for tensor, (_, record) in pairs]


def _trains(call: TracedCall) -> bool:
    settings = dict(call.settings)
    return "True" in (settings.get("training"), settings.get("use_input_stats"))


def _live_units(output: Tensor) -> Tensor:
    """Count the units, along dimension 1, that are not 0 for the whole batch; output: that of a relu, so never below 0.

    NaN is not 0. The greatest of each is found far sooner than all are compared with 0.
    """
    return torch.count_nonzero(output.detach().amax([index for index in range(output.dim()) if index != 1]))
