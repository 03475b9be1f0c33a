"""What a rule sees of one traced operation, its tensors, settings and names, and how it puts a gradient together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autograd_tui.core.trace import Node, NonFinite, Operation, Trace, Value
from autograd_tui.text.derivation.derivation import (
    MAX_LISTED_VALUES,
    Derivation,
    product_magnitude,
    written_or_first,
    written_pairs,
    written_values,
)
from autograd_tui.text.derivation.small_tensor import Shape, SmallTensor, full, map_values
from autograd_tui.text.equation import evaluated, parenthesized, with_digits
from autograd_tui.text.numbers import parse_float, parse_integers
from autograd_tui.text.trace.tensor_words import expression, name_of, op_name, operands

LETTERS = "ABCDEFGH"  # names of what has none inside an operation


def first_value(value: Value | None) -> float | None:
    """Return the first value of a tensor of any size; None where it was not recorded."""
    if value is None:
        return None
    return value.stats.values[0] if value.stats.values else value.first


@dataclass(frozen=True, slots=True)
class RuleContext:
    """A traced operation, and the settings of the forward call that it belongs to.

    With `one_value`, `small` reduces every tensor to a single value, which is right for elementwise operations only: to
    the first value, or with `nonfinite` to the one at that index. So a rule works large tensors by one example.
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
        """Return a tensor for elementwise arithmetic; None where it is too large to have its values."""
        if not self.one_value or value is None:
            return SmallTensor.of(value)
        number = first_value(value) if self.nonfinite is None else self._number_at(self.nonfinite, value)
        return None if number is None else SmallTensor((), (number,))

    def whole(self, value: Value | None) -> SmallTensor | None:
        """Return a tensor for arithmetic that needs all its values; None where it has not all of them."""
        return None if self.one_value else SmallTensor.of(value)

    def _number_at(self, nonfinite: NonFinite, value: Value) -> float | None:
        """Return the number of a tensor, broadcast if it is smaller, at the index of a non-finite one of the result."""
        for operand, number in zip(self._operand_values, nonfinite.input_values, strict=False):
            if operand is value and number is not None:
                return number
        tensor = SmallTensor.of(value)
        return tensor.broadcast_at(nonfinite.index) if tensor else None

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
        return parse_integers(self.setting(name))


@dataclass(frozen=True, slots=True)
class CallContext(RuleContext):
    """A call of the forward."""

    def operand(self, index: int) -> SmallTensor | None:
        """Return an operand of arithmetic: a tensor, or the number among the settings."""
        if index < len(self.op.inputs):
            return self.small(self.op.inputs[index])
        numbers = [parse_float(value) for name, value in self.op.settings if name in ("self", "other", "exponent")]
        number = next(iter(numbers[index - len(self.op.inputs) :]), None)
        return None if number is None else SmallTensor((), (number,))

    def name(self, index: int = 0) -> str:
        """Return one input as a reader would write it: a name, or arithmetic of names."""
        return expression(self.trace, self.op.inputs[index]) if index < len(self.op.inputs) else "nothing"


@dataclass(frozen=True, slots=True)
class NodeContext(RuleContext):
    """A node of the autograd graph as its backward runs."""

    @property
    def node(self) -> Node | None:
        return self.trace.node_of(self.op)

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
        """Return whether the gradient by one argument of the call goes to node `after`."""
        if index >= len(self.op.inputs):
            return False
        node, value = self.trace.nodes[after], self.op.inputs[index]
        return node.param in ("", value.name) if node.param is not None else node.op == value.maker

    @property
    def upstream_value(self) -> Value | None:
        """The gradient of the loss by the node's first output, as it was recorded."""
        return self.op.grad_in[0] if self.op.grad_in else None

    @property
    def upstream(self) -> SmallTensor | None:
        """The same for elementwise arithmetic."""
        return self.small(self.upstream_value)

    @property
    def whole_upstream(self) -> SmallTensor | None:
        return None if self.one_value else self.upstream

    @property
    def input_shape(self) -> Shape | None:
        """The shape of the node's first input, as its gradient has it; None where it has no gradient."""
        gradient = self.op.grad_out[0] if self.op.grad_out else None
        return gradient.stats.shape if gradient else None

    def saved(self, role: str) -> Value | None:
        """Return the tensor that the node saved under a role: "self", "other", "result"; None where there is none."""
        return next((value for value in self.saved_values if value.role in (role, f"_saved_{role}")), None)

    def operand(self, role: str, index: int) -> SmallTensor | None:
        """Return an operand's values: as saved, else as the call was given it, a tensor or a number."""
        value, number = self.saved(role) or self.call_input(index), self.number(role)
        return self.small(value) if value else SmallTensor((), (number,)) if number is not None else None

    def call_input(self, index: int) -> Value | None:
        """Return a tensor that the call was given; None where the node does not stand for all of its call."""
        return self.op.inputs[index] if self.is_whole_call and index < len(self.op.inputs) else None

    def name(self, index: int) -> str:
        """Return the name of one input of the node; a letter where it has none."""
        if self.is_whole_call and self.call and len(terms := operands(self.trace, self.call)) > index:
            return terms[index]
        node = self.node
        after = node.next[index] if node and index < len(node.next) else None
        made = self._node_name(after) if after is not None else ""
        return made if made and " of " not in made else LETTERS[index % len(LETTERS)]

    def target(self, index: int) -> str:
        """Return the full name of what a gradient goes to."""
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
        """Return the name of what a node of the graph stands for: a leaf, a call's result, or a part of a call."""
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

    # A rule returns a Derivation for each input that gets a gradient, made by one of these.

    def times(
        self,
        formula: str,
        local: SmallTensor | None,
        *,
        index: int = 0,
        calculation: str = "",
        shows_local: bool = True,
    ) -> Derivation:
        """Return upstream × local derivative, value by value, as the gradient of input `index`.

        `calculation` of the local derivative; without `shows_local`, the formula names the tensor that it is.
        """
        upstream = self.upstream
        result = map_values(lambda up, by: up * by, upstream, local)
        if upstream is None or local is None or result is None:
            return Derivation(formula, elementwise=True, index=index)
        text = ""
        if shows_local and len(result.values) <= MAX_LISTED_VALUES:
            text = with_digits(written_values(local))
            text = f"local: {evaluated(calculation, local.values, text) if calculation else text}"
        arithmetic, magnitude = written_pairs(upstream, "×", local), product_magnitude(upstream, local)
        return Derivation(formula, result, arithmetic, magnitude, elementwise=True, index=index, local=text)

    def scaled(self, formula: str, factor: float | None, *, index: int = 0) -> Derivation:
        """Return upstream × one number as the gradient of input `index`; None is a number that is not known."""
        upstream = self.upstream
        if upstream is None or factor is None:
            return Derivation(formula, elementwise=True, index=index)
        result = SmallTensor(upstream.shape, tuple(up * factor for up in upstream.values))
        arithmetic = "" if factor == 1 else f"{written_or_first(upstream)} × {parenthesized(factor)}"
        magnitude = product_magnitude(upstream, full((), factor))
        return Derivation(formula, result, arithmetic, magnitude, elementwise=True, index=index, unchanged=factor == 1)

    def gradient(
        self,
        formula: str,
        result: SmallTensor | None = None,
        *,
        index: int = 0,
        arithmetic: str = "",
        largest: float = 0.0,
    ) -> Derivation:
        """Return a gradient of input `index` that is not worked value by value; `largest`: number that entered."""
        upstream = self.upstream
        return Derivation(formula, result, arithmetic, max(largest, upstream.max_abs if upstream else 0.0), index=index)


ForwardRule = Callable[[CallContext], Derivation]
BackwardRule = Callable[[NodeContext], Sequence[Derivation]]


def formula_only(formula: str) -> BackwardRule:
    """Return a rule of one input that has no numbers."""
    return lambda context: [context.gradient(formula)]


def unchanged(formula: str) -> BackwardRule:
    """Return a rule of one input that gets the upstream as it is; what broadcasting stretched is summed later."""
    return lambda context: [context.scaled(formula, 1.0)]
