"""Tracing a backward: every node of the autograd graph, in the order in which PyTorch's engine runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import SAMPLE_SIZE, Grads, StatsTable, without_history
from autograd_tui.core.trace import LazySequence, Node, NonFinite, Operation, Value
from autograd_tui.engine.tracing.autograd_graph import AutogradGraph, SavedTensor, is_leaf
from autograd_tui.engine.tracing.measurement_batch import MeasurementBatch, VersionedTensor
from autograd_tui.engine.tracing.nonfinite_search import first_nonfinite
from autograd_tui.engine.training.interruption import Uninterrupted
from autograd_tui.engine.training.tensor_properties import version_of

Gradients = tuple[Tensor | None, ...]
Hook = Callable[..., None]


@dataclass(slots=True)
class NodeRun:
    """One run of a graph node; gradients are rows of the measurements, None where there is no gradient."""

    node: int  # its number in the graph
    grad_in: list[int | None]
    grad_out: list[int | None] = field(default_factory=list)
    done: bool = False
    saved: list[Tensor | None] = field(default_factory=list)  # by the node, until NaN has been searched for
    not_finite: list[NonFinite] = field(default_factory=list)
    filled: int | None = None  # the row of the `.grad` that it added to, of a backward that raised afterwards


@dataclass(frozen=True, slots=True)
class GradsAround:
    """Each parameter's `.grad` before and after a backward; after one that raised, as it was before that was undone."""

    names: tuple[str, ...]
    before: Grads
    after: Grads
    table: StatsTable
    undone: bool

    def around(self, name: str | None, run: NodeRun) -> tuple[Value | None, Value | None]:
        """Return `.grad` of a parameter before and after a node has added to it."""
        if not self.undone:
            return self._of(name, self.before), self._of(name, self.after)
        filled = None if run.filled is None else replace(self.table[run.filled], name=f"{name}.grad")
        return self._of(name, self.before), None if filled is None else Value(filled, "grad")

    def _of(self, name: str | None, grads: Grads) -> Value | None:
        row = grads[self.names.index(name)] if name in self.names else None
        return None if row is None else Value(without_history(row, f"{name}.grad"), "grad")


class BackwardTracer:
    """Runs a backward with hooks on all nodes of its graph, and takes them away again."""

    def __init__(
        self,
        graph: AutogradGraph,
        measurements: MeasurementBatch,
        saved: Mapping[int, Sequence[SavedTensor]] | None = None,
    ) -> None:
        """`saved`: the tensors that nodes hold for their backward, by node number; none where no forward was traced."""
        self.graph = graph
        self._saved = saved or {}
        self._runs: list[NodeRun] = []
        self._running: dict[int, NodeRun] = {}  # by node; on several devices some run at once
        self._measurements = measurements
        self._handles: list[RemovableHandle] = []
        self._has_one_source = [count == 1 for count in graph.in_degrees()]
        self._handed_on: dict[int, tuple[int, int, int, int]] = {}  # by node: see `_measured`
        # Of each leaf's node the row of the gradient that came to it, and the gradient; None where nobody asks for it.
        self._arrived: dict[int, tuple[int, VersionedTensor]] | None = None

    def backward(self, loss: Tensor) -> None:
        """Run `loss.backward()`; gradients are to the bit those of a backward that is not traced."""
        self._arrived = {}
        try:
            self.add_hooks()
            loss.backward()  # type: ignore[no-untyped-call]
        except BaseException:
            self._measure_filled()
            raise
        finally:
            self.remove_hooks()

    def add_hooks(self, wrap: Callable[[Hook], Hook] = lambda hook: hook) -> None:
        """Hook all nodes; `wrap` makes of each hook the one that is registered."""
        with Uninterrupted():
            for number, node in enumerate(self.graph.nodes):
                self._handles.append(node.register_prehook(wrap(self._before(number))))
                self._handles.append(node.register_hook(wrap(self._after(number))))

    def remove_hooks(self) -> None:
        """Take the hooks away: a leaf's node outlives its graph, and would run them in the next one."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def launched_grads(self) -> dict[int, Sequence[Tensor]]:
        """Return, once, what `launch_large` gave of gradients that `.grad` holds as they came, by leaf identity."""
        arrived, self._arrived = self._arrived or {}, None
        launched = {}
        for number, (row, versioned) in arrived.items():
            leaf, gradient = self.graph.nodes[number].variable, versioned.tensor
            if gradient is not None and leaf.grad is not None and _are_same(leaf.grad, gradient):
                launched[id(leaf)] = self._measurements.launched(row)
        return launched

    def notes(self) -> tuple[str, ...]:
        """Return, after `ops`, what must be said about the numbers."""
        return self._measurements.notes()

    @property
    def unfinished(self) -> list[int]:
        """The nodes that began to run and did not end."""
        return [each.node for each in self._runs if not each.done]

    def _measure_filled(self) -> None:
        """Measure what `.grad` holds where this backward has come to it, before that is undone."""
        for each in self._runs:
            node = self.graph.nodes[each.node]
            if each.done and is_leaf(node) and node.variable.grad is not None:
                each.filled = self._measurements.measure(node.variable.grad)

    def ops(
        self, nodes: Sequence[Node], calls: Sequence[Operation], *, before: Frame, after: Frame
    ) -> LazySequence[Operation]:
        """Return an operation for each node run; `calls`: those of the forward, () where it was not traced."""
        self._measurements.read()
        self._find_nonfinite()
        runs, measurements, names = self._runs, self._measurements, before.params.layout.names

        def all_ops() -> Iterator[Operation]:
            table = measurements.table
            grads = GradsAround(names, before.grads, after.grads, table, undone=after.error is not None)
            return (_op(number, each, nodes[each.node], calls, table, grads) for number, each in enumerate(runs))

        return LazySequence(len(runs), all_ops)

    def _find_nonfinite(self) -> None:
        """Find NaN and infinity in the small gradients that were measured; then let the saved tensors go."""
        for each in self._runs:
            for index, row in enumerate(each.grad_out if self._measurements.keeps_values else ()):
                is_nonfinite = row is not None and self._measurements.not_finite(row)
                result = self._measurements.values(row) if row is not None and is_nonfinite else None
                if result is not None:
                    inputs = [None if row is None else self._measurements.values(row) for row in each.grad_in]
                    each.not_finite += first_nonfinite(result, [*inputs, *each.saved], output=index)
            each.saved = []
        self._measurements.drop_values()

    def _before(self, number: int) -> Callable[[Gradients], None]:
        node, arrived = self.graph.nodes[number], self._arrived
        # What a hook behind the node may do with `.grad` is not followed.
        follows = is_leaf(node) and not node.variable._post_accumulate_grad_hooks

        def hook(gradients: Gradients) -> None:
            run = NodeRun(number, [self._measured(number, index, each) for index, each in enumerate(gradients)])
            self._runs.append(run)
            self._running[number] = run
            if arrived is None or not follows:
                return
            gradient, row = gradients[0], run.grad_in[0]
            if gradient is not None and gradient.is_cpu and row is not None and self._measurements.launched(row):
                arrived[number] = row, VersionedTensor(gradient.detach())

        return hook

    def _after(self, number: int) -> Callable[[Gradients, Gradients], None]:
        following, saved = self.graph.edges[number], self._saved.get(number, ())

        def hook(gradients: Gradients, upstream: Gradients) -> None:
            run, measurements = self._running[number], self._measurements
            run.done = True
            held: list[Tensor | None] | None = None  # what the node has saved, and lets go behind its hooks
            for index, gradient in enumerate(gradients):
                if gradient is None:
                    run.grad_out.append(None)
                    continue
                row = measurements.measure(gradient)
                run.grad_out.append(row)
                is_large = measurements.may_be_nonfinite(row)
                if saved and held is None and (is_large or measurements.may_be_small_nonfinite(row)):
                    held = [each.tensor for each in saved]
                if is_large:
                    given = [*zip(run.grad_in, upstream, strict=False), *((None, each) for each in held or ())]
                    measurements.search_nonfinite(row, gradient, given, output=index, found=run.not_finite)
                to, entry = following[index] if index < len(following) else (None, 0)
                if to is not None and self._has_one_source[to]:
                    self._handed_on[to] = entry, row, _address(gradient), version_of(gradient)
            run.saved = [each if each is not None and each.numel() <= SAMPLE_SIZE else None for each in held or ()]

        return hook

    def _measured(self, number: int, index: int, gradient: Tensor | None) -> int | None:
        """Return the row of a gradient that comes to a node, which may have been measured as another node's output."""
        if gradient is None:
            return None
        entry, row, address, version = self._handed_on.get(number, (-1, -1, -1, -1))
        same = entry == index and address == _address(gradient) and version == version_of(gradient)
        return row if same else self._measurements.measure(gradient)


def _are_same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same values, since they have the same memory."""
    return (one.data_ptr(), one.shape, one.stride(), one.dtype) == (
        other.data_ptr(),
        other.shape,
        other.stride(),
        other.dtype,
    )


def _address(tensor: Tensor) -> int:
    return tensor.data_ptr() if tensor.layout is torch.strided else -id(tensor)


def _op(
    number: int, run: NodeRun, node: Node, calls: Sequence[Operation], table: StatsTable, grads: GradsAround
) -> Operation:
    call = calls[node.op] if node.op is not None and calls else None
    around = (
        replace(call, nodes=(), dead=None, mutates=False, opaque=False, not_finite=())
        if call
        else Operation(number, "")
    )
    grad_before, grad_after = grads.around(node.param, run)
    return replace(
        around,
        number=number,
        name=node.name,
        module=call.module if call else (node.param or "").rpartition(".")[0],
        grad_in=_values(run.grad_in, table),
        grad_out=_values(run.grad_out, table),
        accumulates_into=node.param or None,
        grad_before=grad_before,
        grad_after=grad_after,
        raised=not run.done,
        not_finite=tuple(run.not_finite),
        node=run.node,
        made_by=node.op,
    )


def _values(rows: Sequence[int | None], table: StatsTable) -> tuple[Value | None, ...]:
    return tuple(None if row is None else Value(table[row], "grad", first=table.first(row)) for row in rows)
