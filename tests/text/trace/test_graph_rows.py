from __future__ import annotations

from autograd_tui.text.trace.graph_lines import draw_edges


def drawn(*below: tuple[int, ...]) -> list[str]:
    return [row for row, _ in draw_edges(below, "o" * len(below))]


def test_a_chain_is_one_lane() -> None:
    assert drawn((1,), (2,), ()) == ["o", "o", "o"]


def test_a_leaf_stands_beside_the_lane_that_goes_on() -> None:
    assert drawn((2, 1), (), ()) == ["o─╮", "│ o", "o"]


def test_lanes_that_lead_to_one_node_meet_there() -> None:
    assert drawn((1, 2), (2,), ()) == ["o─╮", "o │", "o─╯"]


def test_a_lane_may_end_where_another_begins() -> None:
    assert drawn((1, 2), (2,), (4, 3), (), ()) == ["o─╮", "o │", "o─┤", "│ o", "o"]


def test_a_line_passes_behind_a_lane() -> None:
    assert drawn((1, 3), (2, 4), (), (), ()) == ["o─╮", "o─│─╮", "o │ │", "  o │", "    o"]


def test_a_lane_that_has_ended_is_free_again() -> None:
    assert drawn((2, 1), (), (4, 3), (), ()) == ["o─╮", "│ o", "o─╮", "│ o", "o"]


def test_a_node_that_nothing_leads_to_has_a_lane_of_its_own() -> None:
    assert drawn((2,), (), ()) == ["o", "│ o", "o"]


def test_between_two_rows_stand_the_lanes_that_go_on() -> None:
    assert draw_edges([(2, 1), (), ()], "ooo")[0] == ("o─╮", "│ │")
