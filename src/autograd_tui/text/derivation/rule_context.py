"""What a rule sees of one traced operation: its tensors, its settings and their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autograd_tui.core.trace import Node, NonFinite, Operation, Trace, Value
from autograd_tui.text.derivation.small_tensor import SmallTensor
from autograd_tui.text.trace.expression import expression, operands
from autograd_tui.text.trace.first_nonfinite import element_at_first
from autograd_tui.text.trace.tensor_words import name_of, op_name

LETTERS = "ABCDEFGH"  # names of what has none inside an operation


def parse_float(written: str | None) -> float | None:
    """Read a number or a truth value among the settings; None for anything else."""
    try:
        return float({"True": "1", "False": "0"}.get(written or "", written or ""))
    except ValueError:
        return None


def parse_ints(written: str | None) -> tuple[int, ...] | None:
    """Read integers among the settings, written as 1, (0, 1) or [0, 1]; None for anything else."""
    try:
        return tuple(int(word) for word in (written or "").strip("()[], ").split(","))
    except ValueError:
        return None


def first_value(value: Value | None) -> float | None:
    """Return the first value of a tensor of any size; None where it was not recorded."""
    if value is None:
        return None
    return value.stats.values[0] if value.stats.values else value.first


@dataclass(frozen=True, slots=True)
class RuleContext:
    """A traced operation, and the settings of the forward call that it belongs to.

    With `one_value`, every tensor is reduced to a single value, which is right for elementwise operations only: to the
    first value, or with `nonfinite` to the one at that index. So a rule works large tensors by one example.
    """

    trace: Trace
    op: Operation
    one_value: bool = False
    nonfinite: NonFinite | None = None

    @property
    def call(self) -> Operation | None:
        """The forward call that the settings are of."""
        return self.op

    @property
    def _operand_values(self) -> Sequence[Value | None]:
        """The tensors of the operation, in the order in which `NonFinite.input_values` has their values."""
        return self.op.inputs

    def small(self, value: Value | None) -> SmallTensor | None:
        """Return a tensor's values; None where it is too large to have them."""
        if not self.one_value or value is None:
            return SmallTensor.of(value)
        if self.nonfinite is not None:
            return element_at_first(self.nonfinite, self._operand_values, value)
        number = first_value(value)
        return SmallTensor((), (number,)) if number is not None else None

    def setting(self, name: str) -> str | None:
        """Return a setting of the call as it was written, text without its quotes; None where there is none."""
        written = dict(self.call.settings).get(name) if self.call else None
        return written.strip("'\"") if written else written

    def number(self, name: str, default: float | None = None) -> float | None:
        """Return a setting as a number, `default` where the call has no such setting; None where it is no number."""
        written = self.setting(name)
        return default if written is None else parse_float(written)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Return a setting as integers; None where it is anything else."""
        return parse_ints(self.setting(name))


@dataclass(frozen=True, slots=True)
class CallContext(RuleContext):
    """A call of the forward."""

    def role(self, *roles: str) -> Value | None:
        """Find an input by what torch calls it."""
        return next((value for role in roles for value in self.op.inputs if value.role == role), None)

    def operand(self, index: int) -> SmallTensor | None:
        """Return an operand of arithmetic: a tensor, or the number among the settings."""
        if index < len(self.op.inputs):
            return self.small(self.op.inputs[index])
        numbers = [parse_float(value) for name, value in self.op.settings if name in ("self", "other", "exponent")]
        number = next(iter(numbers[index - len(self.op.inputs) :]), None)
        return None if number is None else SmallTensor((), (number,))

    def names(self) -> list[str]:
        return operands(self.trace, self.op)

    def name(self, index: int = 0) -> str:
        """Name one input, as a reader would write it."""
        return expression(self.trace, self.op.inputs[index]) if index < len(self.op.inputs) else "nothing"


@dataclass(frozen=True, slots=True)
class NodeContext(RuleContext):
    """A node of the autograd graph as its backward runs."""

    @property
    def node(self) -> Node | None:
        return self.trace.nodes[self.op.node] if self.op.node is not None else None

    @property
    def call(self) -> Operation | None:
        """The forward call that created the node."""
        forward = self.trace.forward
        return forward.ops[self.op.made_by] if forward and self.op.made_by is not None else None

    @property
    def _operand_values(self) -> Sequence[Value | None]:
        return (*self.op.grad_in, *self.saved_values)

    @property
    def saved_values(self) -> tuple[Value, ...]:
        """The tensors that the node saved for its backward."""
        return tuple((self.node and self.node.saved) or ())

    @property
    def is_whole_call(self) -> bool:
        """Whether the node alone stands for its call, with the same inputs in the same order."""
        call, node = self.call, self.node
        if call is None or node is None or call.opaque or len(call.nodes) != 1:
            return False
        return all(after is None or self._leads_to(after, index) for index, after in enumerate(node.next))

    def _leads_to(self, after: int, index: int) -> bool:
        """Tell whether the gradient by one argument of the call goes to node `after`."""
        if index >= len(self.op.inputs):
            return False
        node, value = self.trace.nodes[after], self.op.inputs[index]
        return node.param in ("", value.name) if node.param is not None else node.op == value.maker

    @property
    def upstream(self) -> SmallTensor | None:
        return self.small(self.op.grad_in[0] if self.op.grad_in else None)

    def saved(self, role: str) -> Value | None:
        """Find what the node saved under a role of its own: "self", "other", "result"."""
        return next((value for value in self.saved_values if value.role in (role, f"_saved_{role}")), None)

    def operand(self, role: str, index: int) -> SmallTensor | None:
        """Return an operand's values: as saved, else as the call was given it, a tensor or a number."""
        value, number = self.saved(role) or self.call_input(index), self.number(role)
        return self.small(value) if value else SmallTensor((), (number,)) if number is not None else None

    def call_input(self, index: int) -> Value | None:
        """Return a tensor that the call was given; None where the node does not stand for all of its call."""
        return self.op.inputs[index] if self.is_whole_call and index < len(self.op.inputs) else None

    def name(self, index: int) -> str:
        """Name one input of the node."""
        if self.is_whole_call and self.call and len(terms := operands(self.trace, self.call)) > index:
            return terms[index]
        node = self.node
        after = node.next[index] if node and index < len(node.next) else None
        made = self._node_name(after) if after is not None else ""
        return made if made and " of " not in made else LETTERS[index % len(LETTERS)]

    def target(self, index: int) -> str:
        """Name in full where a gradient goes."""
        value = self.call_input(index)
        if value is not None:
            return name_of(self.trace, value) if value.name else expression(self.trace, value)
        after = self.node.next[index] if self.node and index < len(self.node.next) else None
        if after is not None:
            return self._node_name(after)
        if self.call and self.call.name == "linear" and self.op.name == "AddmmBackward0" and index == 1:
            return expression(self.trace, self.op.inputs[0])  # of bias, input and weight.T
        terms = operands(self.trace, self.call) if self.is_whole_call and self.call else []
        return terms[index] if index < len(terms) else f"input {index + 1}"

    def _node_name(self, number: int) -> str:
        """Name what a node of the graph stands for: a leaf, a call's result, or a part of a call."""
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
