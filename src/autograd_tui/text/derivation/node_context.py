"""What a rule of the chain rule sees of one backward operation."""

from __future__ import annotations

from dataclasses import dataclass

from autograd_tui.core.trace import Node, NonFinite, Operation, Trace, Value
from autograd_tui.text.derivation.small_tensor import SmallTensor
from autograd_tui.text.trace.expression import expression, operands
from autograd_tui.text.trace.first_nonfinite import at_place
from autograd_tui.text.trace.tensor_words import name_of, op_name

LETTERS = "ABCDEFGH"  # names of what has none inside an operation


def parsed(written: str | None) -> float | None:
    """Read a number among the settings; None where it is something else."""
    try:
        return float({"True": "1", "False": "0"}.get(written or "", written or ""))
    except ValueError:
        return None


def parsed_whole(written: str | None) -> tuple[int, ...] | None:
    """Read whole numbers among the settings: 1, (0, 1) or [0, 1]; None for None and anything else."""
    try:
        return tuple(int(word) for word in (written or "").strip("()[], ").split(","))
    except ValueError:
        return None


def setting(call: Operation, name: str) -> str | None:
    """Give a setting as it was written, text without its quotes; None where it was not given."""
    written = dict(call.settings).get(name)
    return written.strip("'\"") if written else written


@dataclass(frozen=True, slots=True)
class NodeContext:
    """A node of the graph as it runs.

    `first`: of every tensor only one value is looked at, which is right for arithmetic value by value: the first one,
    or the one `at`.
    """

    trace: Trace
    op: Operation
    first: bool = False
    at: NonFinite | None = None

    @property
    def node(self) -> Node | None:
        return self.trace.nodes[self.op.node] if self.op.node is not None else None

    @property
    def call(self) -> Operation | None:
        """Give the forward operation that created the node."""
        forward = self.trace.forward
        return forward.ops[self.op.made_by] if forward and self.op.made_by is not None else None

    @property
    def alone(self) -> bool:
        """Whether the node is all that its operation left, and their inputs are the same in number and order."""
        call, node = self.call, self.node
        if call is None or node is None or call.opaque or len(call.nodes) != 1:
            return False
        return all(after is None or self._leads_to(after, place) for place, after in enumerate(node.next))

    def _leads_to(self, after: int, place: int) -> bool:
        """Tell whether a node is where the gradient by one argument of the operation goes."""
        if place >= len(self.op.inputs):
            return False
        node, value = self.trace.nodes[after], self.op.inputs[place]
        return node.param in ("", value.name) if node.param is not None else node.op == value.maker

    @property
    def upstream(self) -> SmallTensor | None:
        return self.small(self.op.grad_in[0] if self.op.grad_in else None)

    def saved(self, role: str) -> Value | None:
        """Find what the node saved under a role of its own: "self", "other", "result"."""
        kept = (self.node and self.node.saved) or ()
        return next((value for value in kept if value.role in (role, f"_saved_{role}")), None)

    def factor(self, role: str, place: int) -> SmallTensor | None:
        """Take one operand's values: as saved, else as the operation was called with, a number among its settings."""
        found = self.saved(role) or self.given(place)
        number = self.number(role)
        return self.small(found) if found else SmallTensor((), (number,)) if number is not None else None

    def given(self, place: int) -> Value | None:
        """Give one tensor that the operation was called with."""
        return self.op.inputs[place] if self.alone and place < len(self.op.inputs) else None

    def number(self, name: str) -> float | None:
        return parsed(self.words(name))

    def words(self, name: str) -> str | None:
        """Give a setting of the operation as it was written."""
        return setting(self.call, name) if self.call else None

    def small(self, value: Value | None) -> SmallTensor | None:
        """Take a tensor's values; with `first`, the first alone."""
        if not self.first or value is None:
            return SmallTensor.of(value)
        if self.at is not None:
            return at_place(self.at, (*self.op.grad_in, *((self.node and self.node.saved) or ())), value)
        values = value.stats.values or ((value.first,) if value.first is not None else ())
        return SmallTensor((), values[:1]) if values else None

    def name(self, place: int) -> str:
        """Name one input of the node."""
        if self.alone and self.call and len(terms := operands(self.trace, self.call)) > place:
            return terms[place]
        node = self.node
        after = node.next[place] if node and place < len(node.next) else None
        made = self._made_before(after) if after is not None else ""
        return made if made and " of " not in made else LETTERS[place % len(LETTERS)]

    def target(self, place: int) -> str:
        """Name in full where a gradient goes."""
        value = self.given(place)
        if value is not None:
            return name_of(self.trace, value) if value.name else expression(self.trace, value)
        after = self.node.next[place] if self.node and place < len(self.node.next) else None
        if after is not None:
            return self._made_before(after)
        if self.call and self.call.name == "linear" and self.op.name == "AddmmBackward0" and place == 1:
            return expression(self.trace, self.op.inputs[0])  # of bias, input and weight.T
        terms = operands(self.trace, self.call) if self.alone and self.call else []
        return terms[place] if place < len(terms) else f"input {place + 1}"

    def _made_before(self, number: int) -> str:
        node = self.trace.nodes[number]
        if node.param is not None:
            return node.param or "a leaf"
        forward = self.trace.forward
        if forward is None or node.op is None:
            return node.name
        call = forward.ops[node.op]
        if call.nodes and number == min(call.nodes) and len(call.output) == 1:
            return expression(self.trace, call.output[0])
        return f"{node.name} of {op_name(self.trace, node.op)}"
