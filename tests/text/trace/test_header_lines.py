from __future__ import annotations

from dataclasses import replace

import pytest

from autograd_tui.core.trace import Trace
from autograd_tui.text.styled_text import plain
from autograd_tui.text.trace.trace_position import TracePosition, header_lines
from handmade_traces import line_backward, line_step, tower, value


def header_texts(position: TracePosition, width: int = 80) -> list[str]:
    return [plain(line) for line in header_lines(position, width)]


def test_the_phase_the_iteration_and_the_frame_stand_above() -> None:
    first, _ = header_texts(TracePosition(line_backward()))
    assert first.startswith("  forward ─▶ ▌BACKWARD▐─▶  step ─▶  zero_grad ")
    assert first.rstrip().endswith("iteration 1   inside frame 2")


def test_the_operation_its_call_and_its_module_stand_below() -> None:
    position = TracePosition(tower(), 1)
    assert (
        header_texts(position, 120)[1]
        == " operation 2 of 24  ConvolutionBackward0  made by conv2d 15 of the forward  in layer4.1.conv1"
    )


def test_where_there_is_no_room_for_both_the_module_stays() -> None:
    assert (
        header_texts(TracePosition(tower(), 1), 70)[1] == " operation 2 of 24  ConvolutionBackward0  in layer4.1.conv1"
    )


def test_what_an_accumulation_fills_is_told() -> None:
    assert header_texts(TracePosition(line_backward()).last())[1].endswith("fills w.grad")


def test_what_an_accumulation_adds_to_is_told() -> None:
    trace = line_backward()
    ops = (*trace.ops[:-1], replace(trace.ops[-1], grad_before=value("", 1.0)))
    assert header_texts(TracePosition(replace(trace, ops=ops)).last())[1].endswith("adds to w.grad")


def test_a_step_counts_parameters() -> None:
    assert header_texts(TracePosition(line_step()))[1].startswith(" parameter 1 of 2  w")


@pytest.mark.parametrize("trace", [line_backward(), line_step(), tower()], ids=["line", "step", "tower"])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_row_is_longer_than_there_is_room(trace: Trace, width: int) -> None:
    assert all(
        len(row) <= max(width, 47)
        for index in range(len(trace.ops))
        for row in header_texts(TracePosition(trace, index), width)
    )


@pytest.mark.parametrize("width", [40, 46, 60, 80, 120])
@pytest.mark.parametrize("trace", [line_backward(), line_step()], ids=["backward", "step"])
def test_all_four_phases_stand_in_the_header(trace: Trace, width: int) -> None:
    first = header_texts(TracePosition(trace), width)[0].lower()
    assert all(name in first[:width] for name in ("forward", "backward", "step", "zero_grad"))
