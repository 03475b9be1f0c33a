"""What is said inside a phase that raised is true."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from autograd_tui import Session
from autograd_tui.core.trace import Trace
from autograd_tui.text.derivation.chain_rule import chain_rule_lines
from autograd_tui.text.trace.grad_lines import grad_lines
from autograd_tui.text.trace.health import health_lines
from autograd_tui.text.trace.operation_lines import operation_lines, trace_lines
from autograd_tui.text.trace.trace_position import TracePosition
from traced_functions import open_made, text

A, B = torch.linspace(-1, 1, 6).reshape(2, 3), torch.tensor([2.0, 0.5, -1.0])
VERSIONS = "one of the variables needed for gradient computation has been modified by an inplace operation"


def line_of(word: str) -> int:
    """Give the number of the line of this file that ends with a remark."""
    with open(__file__, encoding="utf-8") as file:
        return next(number for number, line in enumerate(file, 1) if line.rstrip().endswith(f"# {word}"))


def a_column(a: Tensor, b: Tensor) -> Tensor:
    hidden = torch.sigmoid(a)
    hidden[:, 0] += 1.0  # a column
    return hidden * b


def a_view(a: Tensor, b: Tensor) -> Tensor:
    hidden = torch.sigmoid(a)
    hidden.view(-1).mul_(2)  # a view
    return hidden * b


def cut_off(a: Tensor, b: Tensor) -> Tensor:
    hidden = torch.sigmoid(a)
    hidden.detach().mul_(2)  # cut off
    return hidden * b


def two_lines(a: Tensor, b: Tensor) -> Tensor:
    hidden = torch.sigmoid(a)
    hidden.mul_(2)  # the first
    hidden.add_(1)  # the second
    return hidden * b


def a_parameter(a: Tensor, b: Tensor) -> Tensor:
    product = a * b
    with torch.no_grad():
        b.mul_(0.5)  # a parameter
    return product


def raised(function: object, commands: str) -> Trace:
    """Run commands, the last of which is recorded and raises."""
    session: Session = open_made(function, {"a": A.clone(), "b": B.clone()})  # type: ignore[arg-type]
    *before, last = commands.split()
    for command in before:
        session.run(command)
    frame = session.run(last)
    assert frame.error is not None
    assert frame.trace is not None
    return frame.trace


def at_end(trace: Trace) -> str:
    """Give all that is said where the walk opens."""
    op = trace.ops[-1]
    panels = (chain_rule_lines(trace, op, 200), operation_lines(trace, op, 200), health_lines(trace, 200))
    return "\n".join(map(text, panels))


@pytest.mark.parametrize(
    ("function", "template"),
    [
        (a_column, "sigmoid 1 was kept at version 0; add_ 3 (line {a column}) changed it: version 2."),
        (a_view, "sigmoid 1 was kept at version 0; mul_ 3 (line {a view}) changed it: version 1."),
        (cut_off, "sigmoid 1 was kept at version 0; mul_ 3 (line {cut off}) changed it: version 1."),
        (
            two_lines,
            "sigmoid 1 was kept at version 0; "
            "mul_ 2 (line {the first}), add_ 3 (line {the second}) changed it: version 2.",
        ),
        (a_parameter, "b was kept at version 0; mul_ 2 (line {a parameter}) changed it: version 1."),
    ],
    ids=lambda case: getattr(case, "__name__", None),
)
def test_the_line_that_changed_what_a_node_had_kept_is_named(function: object, template: str) -> None:
    words = ("a column", "a view", "cut off", "the first", "the second", "a parameter")
    sentence = template.format(**{word: line_of(word) for word in words})
    trace = raised(function, "i:f i:b")
    assert trace.error is not None
    assert VERSIONS in trace.error.message
    assert trace.forward is not None
    assert at_end(trace).count(sentence) == 2  # beside the operation, and among what is wrong
    assert f"{sentence} " in text(health_lines(trace.forward, 200))
    assert "kept, not freed: it could not run" in at_end(trace)
    assert "freed now" not in at_end(trace)


@pytest.mark.parametrize(
    ("commands", "who"), [("f b f S i:b", "step"), ("f b=3 i:b", "b[0]=3"), ("i:f b[1]=3 i:b", "b[1]=3")]
)
def test_what_changed_a_parameter_between_forward_and_backward_is_named(commands: str, who: str) -> None:
    trace = raised(lambda a, b: (a * b).exp(), commands.replace("b=3", "b[0]=3"))
    assert f"; {who} changed it after the forward: version" in at_end(trace)
    assert "b was kept at version" in at_end(trace)


def test_a_second_backward_fails_since_the_first_one_has_freed_what_it_needs() -> None:
    trace = raised(lambda a, b: a * b, "i:f i:b i:B")
    assert "What it had saved was freed by the backward before: that is why this one fails." in at_end(trace)
    assert "kept, freed by the backward before" in at_end(trace)


def test_a_backward_that_raises_for_another_reason_is_not_said_to_lack_what_was_freed() -> None:
    def hooked(a: Tensor, b: Tensor) -> Tensor:
        hidden = a.exp()
        hidden.register_hook(lambda _: 1 / 0)
        return hidden * b

    assert "freed now" not in at_end(raised(hooked, "f i:b")).splitlines()[-1]


def test_what_a_backward_had_filled_before_it_raised_is_shown_and_said_to_be_taken_back() -> None:
    trace = raised(a_column, "f i:b")
    hidden = torch.sigmoid(A)
    hidden[:, 0] += 1.0
    weights = torch.linspace(-1.0, 2.0, 6).reshape(2, 3)
    expected = (hidden * weights).sum(0)
    (filled,) = (op for op in trace.ops if op.accumulates_into == "b")
    assert filled.grad_before is None
    assert filled.grad_after is not None
    assert filled.grad_after.stats.values == pytest.approx(expected.tolist(), rel=1e-6)
    (row,) = text(grad_lines(TracePosition(trace).last(), 60, 5)).splitlines()
    assert row.strip().startswith("b  None → [")
    assert row.endswith(", then taken back")
    assert "it is None again" in text(chain_rule_lines(trace, filled, 200))
    assert any("b.grad  None -> [" in line and line.endswith(", then taken back") for line in trace_lines(trace))


def test_a_grad_that_was_taken_back_is_never_shown_as_if_it_stood() -> None:
    trace = raised(a_column, "f i:b")
    for width in range(16, 60):
        (row,) = text(grad_lines(TracePosition(trace).last(), width, 5)).splitlines()
        assert len(row) <= width
        assert row.endswith("taken back")


def test_the_operation_that_raised_in_a_forward_is_where_the_walk_ends() -> None:
    def misfit(a: Tensor, b: Tensor) -> Tensor:
        return torch.sigmoid(a) @ b.reshape(1, 3)  # misfit

    trace = raised(misfit, "i:f")
    op = trace.ops[-1]
    assert (op.name, op.raised, [value.stats.shape for value in op.inputs]) == ("matmul", True, [(2, 3), (1, 3)])
    assert op.source is not None
    assert op.source.line == line_of("misfit")
    assert "matmul raised: nothing came out of it." in at_end(trace)
    assert trace_lines(trace)[-1].endswith("-> raised")


def test_a_change_in_place_of_a_parameter_that_needs_gradients_names_that_operation() -> None:
    trace = raised(lambda a, b: a.mul_(2) * b, "i:f")
    assert "leaf Variable" in (trace.error.message if trace.error else "")
    assert "mul_ raised: nothing came out of it." in at_end(trace)


def test_an_operation_that_raised_and_was_caught_is_said_to_be_gone_on_without() -> None:
    def tried(a: Tensor, b: Tensor) -> Tensor:
        try:
            return a @ b.reshape(1, 3)
        except RuntimeError:
            return a * b

    trace = open_made(tried, {"a": A.clone(), "b": B.clone()}).run("i:f").trace
    assert trace is not None
    (op,) = (op for op in trace.ops if op.raised)
    assert "The forward went on without it." in text(chain_rule_lines(trace, op, 200))


class Refusing(torch.autograd.Function):
    """A function whose backward raises."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        return a * 2

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise ValueError("mine")


def test_the_line_of_a_custom_function_is_not_known_and_none_is_named_for_it() -> None:
    def custom(a: Tensor, b: Tensor) -> Tensor:
        doubled = Refusing.apply(a)
        return doubled * b

    trace = raised(custom, "i:f i:b")
    op = trace.ops[-1]
    assert (op.name, op.raised, op.source) == ("RefusingBackward", True, None)
    assert "kept" not in at_end(trace)
