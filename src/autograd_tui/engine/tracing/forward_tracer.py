"""Tracing a forward: every call to torch in it, its module, and the graph nodes that it created."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._guards import CompileContext
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
)
from autograd_tui.engine.tracing.call_description import CallArguments, CallSites, call_name, is_transformed, may_write
from autograd_tui.engine.tracing.measurement_batch import MeasurementBatch
from autograd_tui.engine.tracing.nonfinite_search import first_nonfinite
from autograd_tui.engine.tracing.tensor_registry import TensorRecord, TensorRegistry
from autograd_tui.engine.training.interruption import Uninterrupted
from autograd_tui.engine.training.tensor_properties import tensors_in, version_of


class ModulePath:
    """Follows, inside `with`, which module is called; `path` is its name in the model, "" in the model itself."""

    def __init__(self, names: Mapping[int, str]) -> None:
        """`names`: of all modules, by their ids."""
        self._names = names
        self._stack: list[str] = []
        self._handles: list[RemovableHandle] = []

    @property
    def path(self) -> str:
        return self._stack[-1] if self._stack else ""

    def __enter__(self) -> None:
        with Uninterrupted():
            self._handles = [
                register_module_forward_pre_hook(self.begin),
                register_module_forward_hook(self._end, always_call=True),
            ]

    def __exit__(self, *_: object) -> None:
        self.remove_hooks()

    def remove_hooks(self) -> None:
        """Follow no calls any more."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._stack = [], []

    def begin(self, module: nn.Module, _: Any = None) -> None:
        """Enter a call of a module."""
        self._stack.append(self._names.get(id(module), self.path))

    def _end(self, *_: Any) -> None:
        if self._stack:
            self._stack.pop()


def module_names(model: nn.Module) -> dict[int, str]:
    """Return the names of a model's modules by their ids, "" for the model itself."""
    return {id(module): name for name, module in model.named_modules()}


_RUNNING = frozenset(("running_mean", "running_var"))


@dataclass(slots=True)
class BegunCall:
    """What was known of a call before it ran."""

    name: str
    arguments: list[tuple[str, Tensor]]
    settings: tuple[tuple[str, str], ...]
    versions: list[int]  # of the arguments
    is_attribute: bool
    inputs: list[tuple[str, TensorRecord]] | None  # None of an attribute, which are measured once it is worth it


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

    def __init__(self, names: Mapping[int, str], measurements: MeasurementBatch, lookups: TorchLookups) -> None:
        """`names`: of the modules, by their ids."""
        super().__init__()
        self.calls: list[TracedCall] = []
        self.owner: dict[GraphNode, int] = {}
        self.registry = TensorRegistry(measurements)
        self.saved = SavedTensors(self.registry, lookups.saved)
        self._measurements, self.modules = measurements, ModulePath(names)
        self._arguments, self._sources = lookups.arguments, lookups.sources

    def name(self, tensors: Mapping[str, Tensor], table: StatsTable | None = None) -> None:
        """Call tensors by names; `table`: rows about them as they are now, by name."""
        self.registry.name(tensors, table)

    def __enter__(self) -> ForwardTracer:
        self.modules.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.modules.__exit__(*error)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run one call to torch, and record it."""
        kwargs = kwargs or {}
        if torch.compiler.is_compiling() or CompileContext.try_get() is not None:
            return func(*args, **kwargs)  # a compiler tries calls out on fake tensors, and would compile this one
        name = call_name(func)
        if name is None or is_transformed():
            return func(*args, **kwargs)
        begun = self.begin_call(name, func, args, kwargs)
        if begun is None:
            return func(*args, **kwargs)
        try:
            result = func(*args, **kwargs)
        except Exception:
            self.end_raised(begun, sys._getframe(1))
            raise
        self.end_call(begun, result, sys._getframe(1))
        return result

    def begin_call(self, name: str, func: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> BegunCall | None:
        """Look at a call of a name before it runs; None for one that is not recorded."""
        arguments, settings = self._arguments.of(func, name, args, kwargs)
        versions = [version_of(tensor) for _, tensor in arguments]
        is_attribute = getattr(func, "__name__", "") == "__get__"
        inputs = None if is_attribute else self._record_inputs(arguments)
        if self._measurements.holds_tensors:
            changing = arguments if may_write(func, kwargs, settings) else _running_statistics(arguments, settings)
            self._measurements.copy_held(tensor for _, tensor in changing)
        return BegunCall(name, arguments, settings, versions, is_attribute, inputs)

    def end_raised(self, begun: BegunCall, frame: FrameType | None) -> None:
        """Record a call that has raised; `frame`: where it was made."""
        if begun.inputs is not None:
            source = self._sources.source_of(frame)
            path = self.modules.path
            self.calls.append(TracedCall(begun.name, path, source, begun.inputs, settings=begun.settings, raised=True))

    def end_call(self, begun: BegunCall, result: Any, frame: FrameType | None) -> None:
        """Record a call that has returned; `frame`: where it was made."""
        tensors = [tensor for _, tensor in begun.arguments]
        outputs = [result] if isinstance(result, Tensor) else list(tensors_in(result))
        changed = [each for each, version in zip(tensors, begun.versions, strict=True) if version_of(each) != version]
        given = set(map(id, tensors))
        new = [tensor for tensor in outputs if id(tensor) not in given]
        if begun.is_attribute and not any(tensor.grad_fn is not None for tensor in new):
            return
        if new or changed:
            inputs = begun.inputs or self._record_inputs(begun.arguments)
            source = self._sources.source_of(frame)
            call = TracedCall(begun.name, self.modules.path, source, inputs, settings=begun.settings)
            if changed:
                call.mutates = changed[0] is tensors[0]
                self.saved.note_changes(changed, len(self.calls))
            self._record_call(call, outputs or changed[:1], tensors)

    def finish(self, loss: Tensor | None) -> AutogradGraph:
        """Return the graph of the forward, an empty one where it made none."""
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
            if tensor.grad_fn is not None:
                self._record_hidden_call(tensor)
        return [(role, self.registry.record(tensor)) for role, tensor in arguments]

    def _record_hidden_call(self, tensor: Tensor) -> None:
        """Record as a call what has made a tensor unseen by torch functions: a custom Function, a view made anew.

        It was made before the line that runs now, and which line that was is not known.
        """
        node = tensor.grad_fn
        if node is None or node in self.owner:
            return
        call = TracedCall(re.sub(r"Backward\d*$", "", node_name(node)), self.modules.path, None, opaque=True)
        self._record_call(call, [tensor])

    def _record_call(self, call: TracedCall, outputs: list[Tensor], inputs: Sequence[Tensor] = ()) -> None:
        """Record a call and its outputs."""
        number = len(self.calls)
        self.calls.append(call)
        for tensor in outputs:
            self._claim_nodes(tensor, call, number)
        call.output = [self.registry.record(tensor, maker=number) for tensor in outputs]
        for index, each in enumerate(call.output):
            if each.table is None and self._measurements.may_be_nonfinite(each.row):
                given = _unchanged(call, inputs)
                self._measurements.search_nonfinite(
                    each.row, outputs[index], given, output=index, found=call.not_finite
                )
        records = [*call.output, *self._records_afterwards(call, inputs)]
        if call.nodes:
            self.saved.read_nodes(call.nodes, list(zip((*outputs, *inputs), records, strict=True)))
        if call.name in ("relu", "relu_") and outputs[0].dim() > 1 and outputs[0].numel():
            call.dead = self._measurements.measure_scalar(_live_units(outputs[0])), outputs[0].shape[1]

    def _records_afterwards(self, call: TracedCall, inputs: Sequence[Tensor]) -> list[TensorRecord]:
        """Return the call's inputs as it left them: a norm that trains changes buffers without counting a version."""
        pairs = list(zip(call.inputs, inputs, strict=False))
        if _RUNNING.isdisjoint(dict(call.inputs)) or not _trains(call.settings):
            return [record for (_, record), _ in pairs]
        return [self.registry.record_again(each) if role in _RUNNING else record for (role, record), each in pairs]

    def _claim_nodes(self, tensor: Tensor, call: TracedCall, number: int) -> None:
        stack = [tensor.grad_fn]
        while stack:
            node: GraphNode = stack.pop()
            if node is not None and node not in self.owner and not is_leaf(node):
                self.owner[node] = number
                call.nodes.append(node)
                stack += [each for each, _ in node.next_functions]


def _unchanged(call: TracedCall, inputs: Sequence[Tensor]) -> list[tuple[int | None, Tensor | None]]:
    """Return what a call was given, with the measurement's number; None for what has been changed in place since."""
    pairs = [(tensor, record) for tensor, (_, record) in zip(inputs, call.inputs, strict=False)]
    return [
        (record.row if record.table is None else None, tensor if version_of(tensor) == record.version else None)
        for tensor, record in pairs
    ]


def _trains(settings: Sequence[tuple[str, str]]) -> bool:
    return any(name in ("training", "use_input_stats") and value == "True" for name, value in settings)


def _running_statistics(
    arguments: Sequence[tuple[str, Tensor]], settings: Sequence[tuple[str, str]]
) -> list[tuple[str, Tensor]]:
    """Return the arguments of a norm that trains which it changes without counting a version."""
    return [(role, tensor) for role, tensor in arguments if role in _RUNNING and _trains(settings)]


def _live_units(output: Tensor) -> Tensor:
    """Count the units, along dimension 1, that are not 0 for the whole batch; output: that of a relu, so never below 0.

    NaN is not 0. The greatest of each is found far sooner than all are compared with 0.
    """
    return torch.count_nonzero(output.detach().amax([index for index in range(output.dim()) if index != 1]))
