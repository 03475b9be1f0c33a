from __future__ import annotations

import pytest

from autograd_tui.text.trace.module_tree import ModuleTree
from autograd_tui.text.trace.trace_position import TracePosition
from handmade_traces import line_step, tower


def names(position: TracePosition, room: int) -> list[str]:
    """Return the rows: the name of a module, or the index of an operation."""
    rows = ModuleTree(position.trace).rows(position, room)
    return [str(row.key.first_index) if row.key.is_operation else row.key.path for row in rows]


def test_a_tree_that_fits_stands_open() -> None:
    assert len(names(TracePosition(tower(2)), 40)) == 2 + 4 + 4 + 4 + 8


def test_without_room_only_the_way_to_the_operation_at_hand_is_open() -> None:
    assert names(TracePosition(tower(), 7), 9) == [
        "layer4",
        "layer3",
        "layer3.1",
        "6",
        "layer3.1.conv1",
        "7",
        "8",
        "layer3.0",
        "layer2",
        "layer1",
    ]


@pytest.mark.parametrize("room", [5, 12, 20, 30, 60])
def test_the_operation_at_hand_always_has_a_row(room: int) -> None:
    trace = tower()
    tree = ModuleTree(trace)
    for index in range(len(trace.ops)):
        assert [
            row for row in tree.rows(TracePosition(trace, index), room) if row.key.is_operation and index in row.ops
        ]


@pytest.mark.parametrize("room", [12, 20, 30, 60])
def test_the_tree_fits_wherever_the_walk_is(room: int) -> None:
    trace = tower()
    tree = ModuleTree(trace)
    assert all(len(tree.rows(TracePosition(trace, index), room)) <= room for index in range(len(trace.ops)))


def test_an_opened_part_shows_what_is_inside() -> None:
    position = TracePosition(tower())
    rows = ModuleTree(position.trace).rows(position, 12)
    layer2 = next(row.key for row in rows if row.key.path == "layer2")
    assert "layer2.0" in names(position.toggled(layer2), 12)


def test_a_step_has_a_row_for_each_parameter() -> None:
    assert names(TracePosition(line_step()), 10) == ["0", "1"]
