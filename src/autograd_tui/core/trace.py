"""A trace: the operations of one phase, in order, as plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import TorchError, plain_row
from autograd_tui.core.tensor_stats import TensorStats


@dataclass(frozen=True, slots=True)
class Source:
    """A line of the scenario's or the model's code."""

    file: str
    line: int
    text: str  # without indentation; "" where the file cannot be read


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor as it was at one moment."""

    stats: TensorStats  # its `name`: what the tensor is called ("w", "x", "fc.weight"), "" where it has no name
    role: str = ""  # as the operation calls it: "input", "weight", "exponent", "momentum_buffer", "grad"
    maker: int | None = None  # the operation of the forward trace that made it
    first: float | None = None  # its first value, of a tensor too large to show them all
    version: int = 0  # how often it had been changed in place

    @property
    def name(self) -> str:
        return self.stats.name

    @property
    def nonfinite(self) -> int:
        """The number of values that are NaN or infinite."""
        return self.stats.nonfinite or 0


@dataclass(frozen=True, slots=True)
class NonFinite:
    """The first NaN, or else the first infinity, in a result of an operation, and how many there are."""

    output: int  # which of `Op.output`, of a backward of `Op.grad_out`
    index: tuple[int, ...]  # in that result
    value: float
    nans: int
    infinities: int
    input_values: tuple[float | None, ...]  # there in each of `Op.inputs`, or of `Op.grad_in` and what the node saved


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation of a phase.

    Of a forward: a call, from `inputs` to `output`. Of a backward: a node of the graph, from `grad_in`, the gradient of
    the loss by its output, to `grad_out`, those by its inputs in order; `inputs` and `output` are those of the call
    that created it. Of a step: one parameter, `inputs` before it and `output` after it: the value, the gradient
    ("grad") and the optimizer's state, by role. Of zero_grad: one parameter's gradient before and after, if any.
    """

    number: int  # its index in the trace
    name: str  # as torch calls it: "conv2d", "MulBackward0", "AccumulateGrad"; in a step, the parameter's name
    module: str = ""  # the path of the module that called it, "" in the model itself and outside
    source: Source | None = None
    inputs: tuple[Value, ...] = ()
    output: tuple[Value, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()  # arguments that are no tensors, as written: ("stride", "(2, 2)")
    grad_in: tuple[Value | None, ...] = ()
    grad_out: tuple[Value | None, ...] = ()
    accumulates_into: str | None = None  # the parameter whose .grad it fills or adds to
    grad_before: Value | None = None  # what that .grad held before it; None for None
    grad_after: Value | None = None
    node: int | None = None  # of a backward: its node in `Trace.nodes`
    nodes: tuple[int, ...] = ()  # of a forward: the nodes that it created
    made_by: int | None = None  # of a backward: the operation of `Trace.forward` that created its node
    dead: tuple[int, int] | None = None  # of a relu: units that are 0 for the whole batch, and how many there are
    mutates: bool = False  # it changed its first input in place
    opaque: bool = False  # known by what came out of it alone: a custom Function, a view made anew
    raised: bool = False  # so that nothing came out of it
    not_finite: tuple[NonFinite, ...] = ()  # the first value that is not, of each result that has one

    @property
    def is_accumulation(self) -> bool:
        """Whether a node fills or adds to a leaf's `.grad`; the leaf need not be a parameter."""
        return self.accumulates_into is not None or self.name.endswith("AccumulateGrad")

    def named_input(self, role: str) -> Value | None:
        """Return the first input with a role; None where there is none."""
        return next((value for value in self.inputs if value.role == role), None)

    def named_output(self, role: str) -> Value | None:
        """Return the first output with a role; None where there is none."""
        return next((value for value in self.output if value.role == role), None)

    def plain(self) -> dict[str, Any]:
        """Return the operation as strict JSON values."""
        return {
            "name": self.name,
            "module": self.module,
            "source": self.source and {"file": self.source.file, "line": self.source.line, "text": self.source.text},
            "inputs": _plain(self.inputs),
            "output": _plain(self.output),
            "settings": dict(self.settings),
            "grad_in": _plain(self.grad_in),
            "grad_out": _plain(self.grad_out),
            "accumulates_into": self.accumulates_into,
        }


@dataclass(frozen=True, slots=True, eq=False)
class InplaceHazard:
    """A tensor that a node keeps, changed in place since: PyTorch refuses to run the node."""

    value: Value  # as it was kept
    version: int  # what its changes in place were counted to at last
    changed_by: tuple[int, ...] = ()  # operations of the forward
    command: str = ""  # the command that changed it after the forward: "step", "w=3"


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A node of the autograd graph, `grad_fn` of some tensor."""

    number: int  # its index in `Trace.nodes`
    name: str  # "MulBackward0"
    next: tuple[int | None, ...]  # the nodes that its gradients go to; None where autograd follows nothing
    param: str | None = None  # of an AccumulateGrad: whose `.grad`; "" for a leaf that is no parameter
    op: int | None = None  # the operation of the forward trace that created it
    saved: tuple[Value, ...] | None = None  # what it keeps for its backward, by role; None where that is not known
    inplace_hazards: tuple[InplaceHazard, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One phase, recorded."""

    phase: Phase
    index: int  # of the frame that it led to
    iteration: int
    ops: Sequence[Operation]  # in the order in which they ran
    nodes: Sequence[Node] = ()  # the graph, from the loss down: no node stands before one that leads to it
    forward: Trace | None = None  # of a backward: the forward that made its graph
    optimizer: str = ""  # of a step: as a command spells it, with the learning rate
    notes: tuple[str, ...] = ()  # what could not be seen, and what recording itself changed: one sentence each
    error: TorchError | None = None  # what the phase raised after its last operation

    @property
    def forward_ops(self) -> Sequence[Operation]:
        """The calls of the forward: this trace's own, or of a backward those that made its graph."""
        return (self.forward or self).ops

    @property
    def is_by_parameter(self) -> bool:
        """Whether each operation is a parameter, as in a step and in zero_grad."""
        return self.phase in (Phase.STEP, Phase.ZERO_GRAD)

    def node_of(self, op: Operation) -> Node | None:
        """Return the node that an operation of a backward is; None where that is not known."""
        return self.nodes[op.node] if op.node is not None else None

    def built(self) -> Trace:
        """Return itself once all operations and nodes are built, so that reading them takes no time."""
        for row in (self.ops, self.nodes):
            tuple(row)
        if self.forward is not None:
            self.forward.built()
        return self

    def plain(self) -> dict[str, Any]:
        """Return the trace as strict JSON values."""
        ops = [op.plain() for op in self.ops]
        return {"phase": self.phase.value, "ops": ops, **({"notes": list(self.notes)} if self.notes else {})}


def _plain(values: tuple[Value | None, ...]) -> list[dict[str, Any] | None]:
    return [
        None if value is None else {"name": value.name, "role": value.role, **plain_row(value.stats)}
        for value in values
    ]


Thing = TypeVar("Thing")


class LazySequence(Sequence[Thing], Generic[Thing]):
    """Holds what things are made of, and once one is asked for, the things.

    `make` gives the same each time: two threads may ask at once.
    """

    def __init__(self, count: int, make: Callable[[], Iterable[Thing]]) -> None:
        self._count = count
        self._make: Callable[[], Iterable[Thing]] | None = make
        self._made: tuple[Thing, ...] = ()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        make = self._make
        if make is not None:
            self._made = tuple(make())
            self._make = None
        return self._made[index]
