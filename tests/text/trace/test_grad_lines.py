from __future__ import annotations

from dataclasses import replace

import pytest

from autograd_tui.core.trace import Trace
from autograd_tui.text.styled_text import length, plain
from autograd_tui.text.trace.grad_lines import grad_lines, grad_summary
from autograd_tui.text.trace.trace_position import TracePosition
from handmade_traces import line_backward, line_forward, line_step, line_zero_grad, tower, value


def grad_texts(trace: Trace, index: int, width: int = 40, height: int = 8) -> list[str]:
    return [plain(line).rstrip() for line in grad_lines(TracePosition(trace, index), width, height)]


def test_before_its_operation_a_grad_says_when_it_will_be_filled() -> None:
    assert grad_texts(line_backward(), 0) == ["  b  None, until operation 5", "  w  None, until operation 7"]


def test_at_its_operation_a_grad_is_filled() -> None:
    assert grad_texts(line_backward(), 4) == ["▶ b  None → 2", "  w  None, until operation 7"]


def test_what_was_there_is_told_beside_the_sum() -> None:
    trace = line_backward()
    filled = replace(trace.ops[-1], grad_before=value("", 1.0), grad_after=value("", 7 / 3))
    assert grad_texts(replace(trace, ops=(*trace.ops[:-1], filled)), 6)[1] == "▶ w  1 → 2.3333"


def test_a_step_uses_them_one_after_the_other() -> None:
    assert grad_texts(line_step(), 0) == ["▶ w  1.3333  used", "  b  2"]


def test_a_zero_grad_clears_them() -> None:
    assert grad_texts(line_zero_grad(), 1) == ["  w  1.3333 → None", "▶ b  2 → None"]


def test_a_forward_fills_none() -> None:
    assert grad_texts(line_forward(), 4) == []
    assert grad_summary(TracePosition(line_forward())) == ""


def test_they_are_counted() -> None:
    assert grad_summary(TracePosition(tower(), 8)) == "3 of 8 filled"


@pytest.mark.parametrize("height", [2, 3, 5, 9])
def test_the_one_at_hand_is_in_sight(height: int) -> None:
    trace = tower()
    for op in trace.ops:
        rows = grad_texts(trace, op.number, height=height)
        assert len(rows) <= height
        assert any(row.startswith("▶") for row in rows) == (op.accumulates_into is not None)


@pytest.mark.parametrize("width", [30, 36, 40, 60])
def test_no_row_is_longer_than_there_is_room(width: int) -> None:
    for trace in (tower(), line_backward(), line_step()):
        for index in range(len(trace.ops)):
            assert max(map(length, grad_lines(TracePosition(trace, index), width, 8))) <= width
