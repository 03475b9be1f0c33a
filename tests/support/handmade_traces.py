"""Traces from plain values alone: the line's phases, and a tower of modules."""

from __future__ import annotations

import math
from dataclasses import replace

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import TorchError
from autograd_tui.core.tensor_stats import TensorStats
from autograd_tui.core.trace import Node, Operation, Source, Trace, Value

AGAIN = TorchError("RuntimeError", "Trying to backward through the graph a second time", file="", line=0)
MODEL = Source("line.py", 19, "return self.w * x + self.b")
LOSS = Source("line.py", 24, "return ((target - prediction) ** 2).mean()")


def value(name: str, *numbers: float, role: str = "", maker: int | None = None) -> Value:
    """Make a small value that holds all its numbers; one number is a scalar."""
    wild = sum(not math.isfinite(each) for each in numbers)
    shape = () if name == "loss" else (len(numbers),)
    stats = TensorStats(
        name, shape, "float32", math.hypot(*numbers), min(numbers), max(numbers), wild, values=tuple(numbers)
    )
    return Value(stats, role=role, maker=maker)


def large(norm: float, shape: tuple[int, ...] = (64, 3, 7, 7), *, name: str = "", maker: int | None = None) -> Value:
    """Make a value too large to hold its numbers."""
    wild = 0 if math.isfinite(norm) else 3
    return Value(TensorStats(name, shape, "float32", norm, -norm, norm, wild, 0.0, 1.0), maker=maker, first=0.5)


W, B = value("w", 2.0), value("b", 6.0)
X, Y = value("x", 1.0, 2.0, 3.0), value("y", 5.0, 9.0, 13.0)
PRODUCT = value("", 2.0, 4.0, 6.0, maker=0)
Q = value("Q", 8.0, 10.0, 12.0, maker=1)
DIFFERENCE = value("", -3.0, -1.0, 1.0, maker=2)
SQUARES = value("", 9.0, 1.0, 1.0, maker=3)
MEAN = value("loss", 11 / 3, maker=4)
NODES = (
    Node(0, "MeanBackward0", (1,), op=4),
    Node(1, "PowBackward0", (2,), op=3, saved=(replace(DIFFERENCE, role="self"),)),
    Node(2, "SubBackward0", (None, 3), op=2),
    Node(3, "AddBackward0", (5, 4), op=1),
    Node(4, "AccumulateGrad", (), param="b"),
    Node(5, "MulBackward0", (6, None), op=0, saved=(replace(X, role="other"),)),
    Node(6, "AccumulateGrad", (), param="w"),
)
FORWARD_OPS = (
    Operation(0, "mul", source=MODEL, inputs=(W, X), output=(PRODUCT,), nodes=(5,)),
    Operation(1, "add", source=MODEL, inputs=(PRODUCT, B), output=(Q,), nodes=(3,)),
    Operation(2, "sub", source=LOSS, inputs=(Y, Q), output=(DIFFERENCE,), nodes=(2,)),
    Operation(
        3, "pow", source=LOSS, inputs=(DIFFERENCE,), output=(SQUARES,), settings=(("exponent", "2"),), nodes=(1,)
    ),
    Operation(4, "mean", source=LOSS, inputs=(SQUARES,), output=(MEAN,), nodes=(0,)),
)
THIRDS = value("", 1 / 3, 1 / 3, 1 / 3)
SLOPES = value("", -2.0, -2 / 3, 2 / 3)
AGAINST = value("", 2.0, 2 / 3, -2 / 3)


def line_forward() -> Trace:
    """Give the line's first forward."""
    return Trace(Phase.FORWARD, index=1, iteration=1, ops=FORWARD_OPS, nodes=NODES)


def line_backward() -> Trace:
    """Give the line's first backward, in the engine's order."""
    ops = (
        _node(0, 0, value("", 1.0), THIRDS),
        _node(1, 1, THIRDS, SLOPES),
        _node(2, 2, SLOPES, None, AGAINST),
        _node(3, 3, AGAINST, AGAINST, value("", 2.0)),
        _fill(4, 4, value("", 2.0), "b"),
        _node(5, 5, AGAINST, value("", 4 / 3), None),
        _fill(6, 6, value("", 4 / 3), "w"),
    )
    return Trace(Phase.BACKWARD, index=2, iteration=1, ops=ops, nodes=NODES, forward=line_forward())


def line_step() -> Trace:
    """Give the line's first step."""
    pairs = (("w", 2.0, 4 / 3), ("b", 6.0, 2.0))
    ops = tuple(
        Operation(
            number,
            name,
            inputs=(value(name, before, role="value"), value("", grad, role="grad")),
            output=(value(name, before - 0.1 * grad, role="value"),),
            settings=(("lr", "0.1"),),
        )
        for number, (name, before, grad) in enumerate(pairs)
    )
    return Trace(Phase.STEP, index=3, iteration=1, ops=ops, optimizer="sgd,lr=0.1")


def line_zero_grad() -> Trace:
    """Give the zero_grad behind it."""
    ops = tuple(
        Operation(number, name, inputs=(value("", grad, role="grad"),))
        for number, (name, grad) in enumerate(WAS.items())
    )
    return Trace(Phase.ZERO_GRAD, index=4, iteration=1, ops=ops)


WAS = {"w": 4 / 3, "b": 2.0}


def tower(layers: int = 4, *, wild: int | None = None) -> Trace:
    """Give the backward of a tower: in each layer two blocks of a convolution and a relu; `wild` goes NaN there."""
    modules = [f"layer{layer}.{block}" for layer in range(1, layers + 1) for block in range(2)]
    calls, nodes, ops = [], [], []
    for place, module in enumerate(modules):
        conv, relu = f"{module}.conv1", f"{module}.relu"
        came = large(1.5, name="" if place else "inputs", maker=2 * place - 1 if place else None)
        calls.append(Operation(2 * place, "conv2d", conv, LOSS, (came,), (large(2.0, maker=2 * place),)))
        calls.append(
            Operation(
                2 * place + 1, "relu", relu, LOSS, (large(2.0, maker=2 * place),), (large(1.5, maker=2 * place + 1),)
            )
        )
    last = 3 * len(modules) - 1
    for place, module in enumerate(reversed(modules)):
        number, call = 3 * place, calls[2 * (len(modules) - 1 - place)]
        norm = math.nan if wild is not None and number >= wild else 0.5**place
        after = number + 3 if number + 3 <= last else None
        nodes.append(Node(number, "ReluBackward0", (number + 1,), op=call.number + 1))
        nodes.append(Node(number + 1, "ConvolutionBackward0", (after, number + 2), op=call.number))
        nodes.append(Node(number + 2, "AccumulateGrad", (), param=f"{module}.conv1.weight"))
        grad = large(norm)
        ops.append(
            Operation(number, "ReluBackward0", f"{module}.relu", LOSS, grad_in=(grad,), grad_out=(grad,), node=number)
        )
        ops.append(
            Operation(
                number + 1,
                "ConvolutionBackward0",
                f"{module}.conv1",
                LOSS,
                grad_in=(grad,),
                grad_out=(grad, grad),
                node=number + 1,
                made_by=call.number,
            )
        )
        ops.append(
            Operation(
                number + 2,
                "AccumulateGrad",
                f"{module}.conv1",
                grad_in=(grad,),
                accumulates_into=f"{module}.conv1.weight",
                grad_after=grad,
                node=number + 2,
            )
        )
    forward = Trace(Phase.FORWARD, index=1, iteration=1, ops=tuple(calls), nodes=tuple(nodes))
    return Trace(Phase.BACKWARD, index=2, iteration=1, ops=tuple(ops), nodes=tuple(nodes), forward=forward)


def _node(number: int, node: int, grad: Value, *out: Value | None) -> Operation:
    made_by = NODES[node].op
    assert made_by is not None
    call = FORWARD_OPS[made_by]
    return Operation(
        number,
        NODES[node].name,
        source=call.source,
        inputs=call.inputs,
        output=call.output,
        settings=call.settings,
        grad_in=(grad,),
        grad_out=out,
        node=node,
        made_by=made_by,
    )


def _fill(number: int, node: int, grad: Value, name: str) -> Operation:
    return Operation(number, "AccumulateGrad", grad_in=(grad,), accumulates_into=name, grad_after=grad, node=node)
