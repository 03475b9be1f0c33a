from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.text.trace.trace_position import RowKey, TracePosition
from handmade_traces import line_backward, tower


def test_a_walk_begins_at_the_first_operation() -> None:
    assert TracePosition(line_backward()).op.name == "MeanBackward0"


def test_next_and_back_stay_inside_the_phase() -> None:
    position = TracePosition(line_backward())
    assert position.back().index == 0
    assert position.last().next().index == position.last().index == 6


@given(st.lists(st.booleans(), max_size=30), st.integers(0, 23))
def test_the_walk_there_and_back_again_is_the_same(steps: list[bool], start: int) -> None:
    there = [TracePosition(tower(), start)]
    for on in steps:
        there.append(there[-1].next() if on else there[-1].back())
    back = there[-1]
    for on, was in zip(reversed(steps), reversed(there[:-1]), strict=True):
        again = back.back() if on else back.next()
        back = again if back.index != was.index else back  # at an end the step led nowhere
        assert (back.index, back.op) == (was.index, was.op)


def test_the_next_of_a_module_passes_by_those_of_others() -> None:
    position = TracePosition(tower()).at(1)
    assert position.op.module == "layer4.1.conv1"
    assert position.next_of_module().op.accumulates_into == "layer4.1.conv1.weight"


def test_the_next_of_a_module_stays_where_there_is_none() -> None:
    position = TracePosition(tower()).at(2)
    assert position.next_of_module().index == 2


def test_a_walk_runs_to_a_module() -> None:
    found = TracePosition(tower()).find("layer2")
    assert found is not None
    assert found.op.module == "layer2.1.relu"


def test_a_walk_runs_to_what_is_filled() -> None:
    found = TracePosition(line_backward()).find("w")
    assert found is not None
    assert found.op.accumulates_into == "w"


def test_a_search_goes_on_from_the_first_again() -> None:
    found = TracePosition(line_backward(), 5).find("pow")
    assert found is not None
    assert found.op.name == "PowBackward0"


def test_what_is_nowhere_is_not_found() -> None:
    assert TracePosition(line_backward()).find("softmax") is None


def test_a_part_opens_and_closes() -> None:
    key = RowKey("layer4", 0)
    opened = TracePosition(tower()).toggled(key)
    assert opened.toggled_keys == {key}
    assert not opened.toggled(key).toggled_keys


def test_walking_leaves_the_cursor_and_keeps_what_is_open() -> None:
    key = RowKey("layer4", 0)
    position = TracePosition(tower()).toggled(key).with_cursor(key).next()
    assert position.cursor is None
    assert position.toggled_keys == {key}
