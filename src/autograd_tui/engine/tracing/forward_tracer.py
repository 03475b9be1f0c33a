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
from autograd_tui.engine.tracing.autograd_graph import AutogradGraph, GraphNode, is_leaf, name_of, root_of
from autograd_tui.engine.tracing.call_arguments import CallArguments, tensors_in
from autograd_tui.engine.tracing.call_site import CallSites
from autograd_tui.engine.tracing.saved_tensors import SavedTensors
from autograd_tui.engine.tracing.tensor_registry import (
    MeasurementBatch,
    TensorRecord,
    TensorRegistry,
    first_not_finite,
    version_of,
)


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
_NO_OPERATIONS = ("requires_grad_", "retain_grad", "register_hook", "__repr__", "__set__", "__deepcopy__")


@dataclass(slots=True)
class Call:
    """An operation, until its numbers have been read."""

    name: str
    module: str
    source: Source | None
    inputs: list[tuple[str, TensorRegistry]] = field(default_factory=list)
    output: list[TensorRegistry] = field(default_factory=list)
    settings: tuple[tuple[str, str], ...] = ()
    nodes: list[GraphNode] = field(default_factory=list)  # until they are numbered
    numbers: tuple[int, ...] = ()
    dead: tuple[int, int] | None = None  # the measurement of how many units are not, and how many there are
    mutates: bool = False
    opaque: bool = False
    raised: bool = False
    not_finite: list[NonFinite] = field(default_factory=list)

    def number_nodes(self, graph: AutogradGraph) -> None:
        """Let the nodes go, and keep their numbers."""
        self.numbers = tuple(sorted(graph.number[node] for node in self.nodes if node in graph.number))
        self.nodes = []

    def plain(self, number: int, moments: MeasurementBatch) -> Operation:
        """Give it as a plain value."""
        dead = self.dead and (self.dead[1] - int(moments.single(self.dead[0])), self.dead[1])
        return Operation(
            number,
            self.name,
            self.module,
            self.source,
            inputs=tuple(seen.value(moments, role) for role, seen in self.inputs),
            output=tuple(seen.value(moments) for seen in self.output),
            settings=self.settings,
            nodes=self.numbers,
            dead=dead,
            mutates=self.mutates,
            opaque=self.opaque,
            raised=self.raised,
            not_finite=tuple(self.not_finite),
        )


@dataclass(frozen=True, slots=True)
class Lookups:
    """What is looked up but once, for many forwards: names of arguments, lines of code, attributes of nodes."""

    arguments: CallArguments = field(default_factory=CallArguments)
    sources: CallSites = field(default_factory=CallSites)
    saved: dict[type, list[str]] = field(default_factory=dict)


class ForwardTracer(TorchFunctionMode):
    """Records what runs inside `with`; nothing of it stays behind.

    torch tells a mode of the outermost calls alone, so an operation owns all nodes between its output and its inputs.
    """

    def __init__(self, model: nn.Module, moments: MeasurementBatch, known: Lookups) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.owner: dict[GraphNode, int] = {}
        self.sight = TensorRecord(moments)
        self.saved = SavedTensors(self.sight, known.saved)
        self._moments, self._modules = moments, ModulePath(model)
        self._arguments, self._sources = known.arguments, known.sources

    def name(self, tensors: Mapping[str, Tensor], known: StatsTable | None = None) -> None:
        """Call tensors by names; `known`: numbers about them as they are now."""
        self.sight.name(tensors, known)

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
        """Run one call to torch, and take it down."""
        kwargs = kwargs or {}
        name = call_name(func)
        if name is None or is_transformed():
            return func(*args, **kwargs)
        given, settings = self._arguments.of(func, name, args, kwargs)
        unchanged = [(tensor, version_of(tensor)) for _, tensor in given]
        attribute = getattr(func, "__name__", "") == "__get__"
        inputs = None if attribute else self._meet(given)
        try:
            result = func(*args, **kwargs)
        except Exception:
            if inputs is not None:
                source = self._sources.line_of(sys._getframe(1))
                self.calls.append(Call(name, self._modules.path, source, inputs, settings=settings, raised=True))
            raise
        outputs = list(tensors_in(result))
        changed = [tensor for tensor, version in unchanged if version_of(tensor) != version]
        new = [tensor for tensor in outputs if all(tensor is not one for one, _ in unchanged)]
        if attribute and not any(tensor.grad_fn is not None for tensor in new):
            return result
        if new or changed:
            source = self._sources.line_of(sys._getframe(1))
            call = Call(name, self._modules.path, source, inputs or self._meet(given), settings=settings)
            call.mutates = bool(given) and any(tensor is given[0][1] for tensor in changed)
            self.saved.changed(changed, len(self.calls))
            self._made(call, outputs or changed[:1], [tensor for _, tensor in given])
        return result

    def finish(self, loss: Tensor | None) -> AutogradGraph:
        """Give the graph of the forward, an empty one where it made none."""
        if loss is not None:
            self._notice(loss)
        graph = AutogradGraph(loss)
        for call in self.calls:
            call.number_nodes(graph)
        return graph

    def look_for_not_finite(self, params: Mapping[str, Tensor]) -> None:
        """Look, among what has been read, for what is not finite in the small tensors that calls have made."""
        for call in self.calls if self._moments.keeps_values else ():
            for place in (place for place, each in enumerate(call.output) if self._is_small_and_wild(each)):
                given = [self._still_known(each, params) for _, each in call.inputs]
                made = self._moments.values(call.output[place].row)
                call.not_finite += [] if made is None else first_not_finite(made, given, output=place)

    def _is_small_and_wild(self, seen: TensorRegistry) -> bool:
        return seen.known is None and self._moments.not_finite(seen.row)

    def _still_known(self, seen: TensorRegistry, params: Mapping[str, Tensor]) -> Tensor | None:
        if seen.known is None:
            return self._moments.values(seen.row)
        param = params.get(seen.name)
        return param if param is not None and version_of(param) == seen.version else None

    def _meet(self, given: list[tuple[str, Tensor]]) -> list[tuple[str, TensorRegistry]]:
        """Measure what a call is given, before it may change it."""
        for _, tensor in given:
            self._notice(tensor)
        return [(role, self.sight.meet(tensor)) for role, tensor in given]

    def _notice(self, tensor: Tensor) -> None:
        """Take down what has made a tensor without a call that torch tells of: a custom Function, a view made anew.

        It was made before the line that runs now, and which line that was is not known.
        """
        node = root_of(tensor) if tensor.grad_fn is not None else None
        if node is None or node in self.owner:
            return
        call = Call(re.sub(r"Backward\d*$", "", name_of(node)), self._modules.path, None, opaque=True)
        self._made(call, [tensor])

    def _made(self, call: Call, outputs: list[Tensor], inputs: Sequence[Tensor] = ()) -> None:
        """Take down a call with what came out of it."""
        number = len(self.calls)
        self.calls.append(call)
        for tensor in outputs:
            self._own(tensor, call, number)
        call.output = [self.sight.meet(tensor, maker=number) for tensor in outputs]
        rows = [each.row for _, each in call.inputs if each.known is None]
        for place, each in enumerate(call.output):
            if each.known is None and self._moments.is_newly_wild(each.row, rows):
                call.not_finite += first_not_finite(outputs[place], _unchanged(call, inputs), output=place)
        seen = [*call.output, *self._left(call, inputs)]
        self.saved.read(call.nodes, list(zip((*outputs, *inputs), seen, strict=True)))
        if call.name in ("relu", "relu_") and outputs[0].dim() > 1 and outputs[0].numel():
            call.dead = self._moments.note(_live_units(outputs[0])), outputs[0].shape[1]

    def _left(self, call: Call, inputs: Sequence[Tensor]) -> Iterator[TensorRegistry]:
        """Give what a call was given as it left it: a norm that trains changes its buffers, which no version counts."""
        for (role, seen), tensor in zip(call.inputs, inputs, strict=False):
            yield self.sight.renew(tensor) if role in _RUNNING and _trains(call) else seen

    def _own(self, tensor: Tensor, call: Call, number: int) -> None:
        stack = [tensor.grad_fn]
        while stack:
            node: GraphNode = stack.pop()
            if node is not None and node not in self.owner and not is_leaf(node):
                self.owner[node] = number
                call.nodes.append(node)
                stack += [each for each, _ in node.next_functions]


def call_name(func: Callable[..., Any]) -> str | None:
    """Name a call as torch does, "mul", "pow" for "**"; None for what is none, or says nothing of what it does."""
    name = getattr(func, "__name__", None)
    if name is None or name in _NO_OPERATIONS:
        return None
    if name == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", None)
    return str(name).removeprefix("__").removesuffix("__")


def _unchanged(call: Call, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """Give what a call was given; None for what has been changed in place since."""
    pairs = zip(inputs, call.inputs, strict=False)
    return [tensor if version_of(tensor) == seen.version else None for tensor, (_, seen) in pairs]


def _trains(call: Call) -> bool:
    settings = dict(call.settings)
    return "True" in (settings.get("training"), settings.get("use_input_stats"))


def is_transformed() -> bool:
    """Tell whether a call is part of torch.func's transforms, whose tensors cannot be looked at."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _live_units(output: Tensor) -> Tensor:
    """Count the units, along dimension 1, that are not 0 for the whole batch; output: that of a relu, so never below 0.

    NaN is not 0. The greatest of each is found far sooner than all are compared with 0.
    """
    return torch.count_nonzero(output.detach().amax([place for place in range(output.dim()) if place != 1]))
