"""A backward, recorded: every node of the graph, in the order in which the engine runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import SAMPLE, Grads, StatsTable, without_history
from autograd_tui.core.trace import LazySequence, Node, NonFinite, Operation, Value
from autograd_tui.engine.tracing.autograd_graph import AutogradGraph, is_leaf
from autograd_tui.engine.tracing.saved_tensors import SavedTensor
from autograd_tui.engine.tracing.tensor_registry import MeasurementBatch, first_not_finite, version_of

Gradients = tuple[Tensor | None, ...]


@dataclass(slots=True)
class Ran:
    """A node that has run: the measurements of the gradients that came to it, and of those it gave on."""

    node: int
    grad_in: list[int | None]
    grad_out: list[int | None] = field(default_factory=list)
    done: bool = False
    kept: list[Tensor | None] = field(default_factory=list)  # by the node, as long as that may be looked at
    not_finite: list[NonFinite] = field(default_factory=list)
    filled: int | None = None  # the measurement of the `.grad` that it filled, of a backward that raised afterwards


@dataclass(frozen=True, slots=True)
class Accumulated:
    """What each parameter's `.grad` held before a backward, and after it: of one that raised, before it was undone."""

    names: tuple[str, ...]
    before: Grads
    after: Grads
    table: StatsTable
    undone: bool

    def around(self, name: str | None, ran: Ran) -> tuple[Value | None, Value | None]:
        """Give both of what a node has filled."""
        if not self.undone:
            return self._of(name, self.before), self._of(name, self.after)
        filled = None if ran.filled is None else replace(self.table[ran.filled], name=f"{name}.grad")
        return self._of(name, self.before), None if filled is None else Value(filled, "grad")

    def _of(self, name: str | None, grads: Grads) -> Value | None:
        row = grads[self.names.index(name)] if name in self.names else None
        return None if row is None else Value(without_history(row, f"{name}.grad"), "grad")


class BackwardTracer:
    """Runs a backward with hooks on all nodes of its graph, and takes them away again."""

    def __init__(
        self, graph: AutogradGraph, moments: MeasurementBatch, kept: Mapping[int, Sequence[SavedTensor]] | None = None
    ) -> None:
        """Prepare; kept: what nodes are known to keep, by their numbers."""
        self.graph = graph
        self._kept = kept or {}
        self._ran: list[Ran] = []
        self._running: dict[int, Ran] = {}  # by node; on several devices some run at once
        self._moments = moments
        self._alone = [count == 1 for count in graph.feeders()]
        self._given: dict[int, tuple[int, int, int, int]] = {}  # to a node by the only one that feeds it: see `_known`

    def backward(self, loss: Tensor) -> None:
        """Run it; gradients are bitwise those of an unrecorded one."""
        handles: list[RemovableHandle] = []
        try:
            for number, node in enumerate(self.graph.nodes):
                handles.append(node.register_prehook(self._before(number)))
                handles.append(node.register_hook(self._after(number)))
            loss.backward()  # type: ignore[no-untyped-call]
        except BaseException:
            self._see_filled()
            raise
        finally:
            for handle in handles:  # a leaf's node outlives its graph, and would run them in the next one
                handle.remove()

    @property
    def unfinished(self) -> list[int]:
        """The nodes that began to run and did not end."""
        return [each.node for each in self._ran if not each.done]

    def _see_filled(self) -> None:
        """Measure what `.grad` holds where this backward has come to it, before that is undone."""
        for each in self._ran:
            node = self.graph.nodes[each.node]
            if each.done and is_leaf(node) and node.variable.grad is not None:
                each.filled = self._moments.see(node.variable.grad)

    def ops(
        self, nodes: Sequence[Node], calls: Sequence[Operation], *, before: Frame, after: Frame
    ) -> LazySequence[Operation]:
        """Give what ran as plain values; calls: the operations of the forward, as far as it was recorded."""
        self._moments.read()
        self._look_for_not_finite()
        ran, table, names = self._ran, self._moments.table, before.params.layout.names
        grads = Accumulated(names, before.grads, after.grads, table, undone=after.error is not None)
        return LazySequence(
            len(ran),
            lambda: (_op(number, each, nodes[each.node], calls, table, grads) for number, each in enumerate(ran)),
        )

    def _look_for_not_finite(self) -> None:
        """Look, among what has been read, for what is not finite in small gradients; then let go of what nodes kept."""
        for each in self._ran:
            for place, row in enumerate(each.grad_out if self._moments.keeps_values else ()):
                made = self._moments.values(row) if row is not None and self._moments.not_finite(row) else None
                if made is not None:
                    given = [None if known is None else self._moments.values(known) for known in each.grad_in]
                    each.not_finite += first_not_finite(made, [*given, *each.kept], output=place)
            each.kept = []
        self._moments.forget()

    def _before(self, number: int) -> Callable[[Gradients], None]:
        kept = self._kept.get(number, ())

        def see(gradients: Gradients) -> None:
            seen = [self._known(number, place, each) for place, each in enumerate(gradients)]
            self._ran.append(Ran(number, seen, kept=[each.tensor for each in kept]))
            self._running[number] = self._ran[-1]

        return see

    def _after(self, number: int) -> Callable[[Gradients, Gradients], None]:
        following = self.graph.nodes[number].next_functions

        def see(gradients: Gradients, upstream: Gradients) -> None:
            ran = self._running[number]
            ran.done = True
            for place, gradient in enumerate(gradients):
                seen = None if gradient is None else self._moments.see(gradient)
                ran.grad_out.append(seen)
                came = (each for each in ran.grad_in if each is not None)
                if gradient is not None and seen is not None and self._moments.is_newly_wild(seen, came):
                    ran.not_finite += first_not_finite(gradient, [*upstream, *ran.kept], output=place)
                target, entry = following[place] if place < len(following) else (None, 0)
                to = None if target is None else self.graph.number.get(target)
                if gradient is not None and seen is not None and to is not None and self._alone[to]:
                    self._given[to] = entry, seen, _address(gradient), version_of(gradient)
            ran.kept = [each if each is not None and each.numel() <= SAMPLE else None for each in ran.kept]

        return see

    def _known(self, number: int, place: int, gradient: Tensor | None) -> int | None:
        """Measure a gradient that comes to a node, unless it is the one that was measured when it was given on."""
        if gradient is None:
            return None
        entry, seen, address, version = self._given.get(number, (-1, -1, -1, -1))
        same = entry == place and address == _address(gradient) and version == version_of(gradient)
        return seen if same else self._moments.see(gradient)


def _address(tensor: Tensor) -> int:
    return tensor.data_ptr() if tensor.layout is torch.strided else -id(tensor)


def _op(
    number: int, ran: Ran, node: Node, calls: Sequence[Operation], table: StatsTable, grads: Accumulated
) -> Operation:
    call = calls[node.op] if node.op is not None and calls else None
    around = (
        replace(call, nodes=(), dead=None, mutates=False, opaque=False, not_finite=())
        if call
        else Operation(number, "")
    )
    grad_before, grad_after = grads.around(node.param, ran)
    return replace(
        around,
        number=number,
        name=node.name,
        module=call.module if call else (node.param or "").rpartition(".")[0],
        grad_in=_values(ran.grad_in, table),
        grad_out=_values(ran.grad_out, table),
        accumulates_into=node.param or None,
        grad_before=grad_before,
        grad_after=grad_after,
        raised=not ran.done,
        not_finite=tuple(ran.not_finite),
        node=ran.node,
        made_by=node.op,
    )


def _values(seen: Sequence[int | None], table: StatsTable) -> tuple[Value | None, ...]:
    return tuple(None if row is None else Value(table[row], "grad", first=table.first(row)) for row in seen)
