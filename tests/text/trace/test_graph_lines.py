from __future__ import annotations

from dataclasses import replace

import pytest

from autograd_tui.core.trace import Trace
from autograd_tui.text.styled_text import length, plain
from autograd_tui.text.trace.graph_lines import GraphView, can_be_drawn, draw_edges, engine_order
from autograd_tui.text.trace.trace_position import TracePosition
from handmade_traces import AGAIN, line_backward, line_forward, tower


def drawn(trace: Trace, index: int, width: int = 76, height: int = 40) -> list[str]:
    return [plain(line).rstrip() for line in GraphView(trace).lines(TracePosition(trace, index), width, height)]


def test_the_line_is_drawn_whole_the_loss_above_and_the_leaves_below() -> None:
    assert drawn(line_backward(), 2, height=10) == [
        "                   value                       gradient: dloss/dvalue",
        "  1 ●   mean  loss  3.6667                      1.0000",
        "  2 ●   pow 2       9.0000   1.0000   1.0000    0.3333   0.3333   0.3333",
        "▶ 3 ●─╮ sub        -3.0000  -1.0000   1.0000   -2.0000  -0.6667   0.6667",
        "    │ ○ y           5.0000   9.0000  13.0000   requires_grad=False",
        "  4 ●─╮ add   Q     8.0000  10.0000  12.0000   ·",
        "  5 │ ◆ b           6.0000                     ·",
        "  6 ●─╮ mul         2.0000   4.0000   6.0000   ·",
        "    │ ○ x           1.0000   2.0000   3.0000   requires_grad=False",
        "  7 ◆   w           2.0000                     ·",
    ]


def test_rows_stand_in_the_order_in_which_the_engine_runs() -> None:
    trace = line_backward()
    assert list(engine_order(trace.nodes)) == [op.node for op in trace.ops]


def test_a_gradient_stands_in_its_row_from_its_operation_on() -> None:
    for index in range(7):
        shown = [row for row in drawn(line_backward(), index) if "requires" not in row and "value" not in row]
        assert sum(row.endswith("·") for row in shown) == 6 - index


def test_a_forward_fills_in_values_and_the_nodes_made() -> None:
    rows = drawn(line_forward(), 0)
    assert any("MulBackward0" in row and "2.0000   4.0000   6.0000" in row for row in rows)
    assert not any("AddBackward0" in row for row in rows)


@pytest.mark.parametrize("index", range(7))
@pytest.mark.parametrize(("width", "height"), [(76, 10), (56, 4), (40, 5), (120, 40)])
def test_the_operation_at_hand_is_in_sight_at_any_size(index: int, width: int, height: int) -> None:
    trace = line_backward()
    lines = GraphView(trace).lines(TracePosition(trace, index), width, height)
    assert len(lines) <= height
    assert [plain(line)[0] for line in lines].count("▶") == 1


@pytest.mark.parametrize("width", [40, 56, 60, 76, 120])
def test_no_row_is_longer_than_there_is_room(width: int) -> None:
    for trace in (line_backward(), line_forward()):
        lines = GraphView(trace).lines(TracePosition(trace).last(), width, 40)
        assert max(map(length, lines)) <= width


def test_a_long_name_is_cut_where_there_is_little_room_alone() -> None:
    name = "binary_cross_entropy_with_logits"
    line = line_backward()
    assert line.forward is not None
    ops = [replace(op, name=name if op.name == "mean" else op.name) for op in line.forward.ops]
    trace = replace(line, forward=replace(line.forward, ops=ops))
    assert "binary_cross_en… loss" in drawn(trace, 0)[1]
    assert f"{name} loss" in drawn(trace, 0, width=126)[1]


def test_what_was_raised_stands_last() -> None:
    trace = replace(line_backward(), error=AGAIN)
    assert drawn(trace, 6)[-1] == "! RuntimeError: Trying to backward through the graph a second time"


def test_down_goes_with_a_backward_and_up_with_a_forward() -> None:
    backward, forward = line_backward(), line_forward()
    assert GraphView(backward).moved(TracePosition(backward), 1).index == 1
    assert GraphView(forward).moved(TracePosition(forward), -1).index == 1


def test_a_large_graph_is_not_drawn() -> None:
    assert can_be_drawn(line_backward())
    assert not can_be_drawn(tower())


def drawn_rows(*below: tuple[int, ...]) -> list[str]:
    return [row for row, _ in draw_edges(below, "o" * len(below))]


def test_a_chain_is_one_lane() -> None:
    assert drawn_rows((1,), (2,), ()) == ["o", "o", "o"]


def test_a_leaf_stands_beside_the_lane_that_goes_on() -> None:
    assert drawn_rows((2, 1), (), ()) == ["o─╮", "│ o", "o"]


def test_lanes_that_lead_to_one_node_meet_there() -> None:
    assert drawn_rows((1, 2), (2,), ()) == ["o─╮", "o │", "o─╯"]


def test_a_lane_may_end_where_another_begins() -> None:
    assert drawn_rows((1, 2), (2,), (4, 3), (), ()) == ["o─╮", "o │", "o─┤", "│ o", "o"]


def test_a_line_passes_behind_a_lane() -> None:
    assert drawn_rows((1, 3), (2, 4), (), (), ()) == ["o─╮", "o─│─╮", "o │ │", "  o │", "    o"]


def test_a_lane_that_has_ended_is_free_again() -> None:
    assert drawn_rows((2, 1), (), (4, 3), (), ()) == ["o─╮", "│ o", "o─╮", "│ o", "o"]


def test_a_node_that_nothing_leads_to_has_a_lane_of_its_own() -> None:
    assert drawn_rows((2,), (), ()) == ["o", "│ o", "o"]


def test_between_two_rows_stand_the_lanes_that_go_on() -> None:
    assert draw_edges([(2, 1), (), ()], "ooo")[0] == ("o─╮", "│ │")
