from __future__ import annotations

import math
from dataclasses import replace

import pytest

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Trace
from autograd_tui.text.styled_text import length, plain
from autograd_tui.text.trace.module_tree import ModuleTree, ModuleTreeView
from autograd_tui.text.trace.trace_position import TracePosition
from handmade_traces import AGAIN, large, line_step, line_zero_grad, tower


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


def drawn(trace: Trace, index: int, width: int = 76, height: int = 14) -> list[str]:
    return [
        plain(line).rstrip()
        for line in ModuleTreeView(ModuleTree(trace)).lines(TracePosition(trace, index), width, height)
    ]


def test_modules_are_folded_but_the_way_to_the_operation_at_hand() -> None:
    labels = [row[:34].rstrip() for row in drawn(tower(), 7)[1:]]
    assert labels == [
        "  ▸ layer4  6 operations",
        "  ▾ layer3  6 operations",
        "    ▾ layer3.1  3 operations",
        "        relu ReluBackward0",
        "      ▾ layer3.1.conv1  2 operatio",
        "▶         ConvolutionBackward0",
        "          → weight.grad",
        "    ▸ layer3.0  3 operations",
        "  ▸ layer2  6 operations",
        "  ▸ layer1  6 operations",
    ]


def test_bars_are_on_a_log_scale() -> None:
    bars = [row.count("█") for row in drawn(tower(), 23) if "▸" in row or "▾" in row]
    assert bars[0] > bars[1] > bars[2]
    assert abs((bars[0] - bars[1]) - (bars[1] - bars[2])) <= 1


def test_what_is_ahead_has_no_number() -> None:
    assert drawn(tower(), 7)[-1].endswith("·")


def test_nan_is_written_and_draws_no_bar() -> None:
    (row,) = [row for row in drawn(tower(wild=9), 10) if row.startswith("▶")]
    assert row.endswith("NaN")


def test_a_step_tells_what_it_made_of_each_parameter() -> None:
    assert drawn(line_step(), 1)[2].endswith("6 → 5.8")


def test_a_zero_grad_tells_what_it_cleared() -> None:
    assert drawn(line_zero_grad(), 0)[1].endswith("1.3333 → None")


def in_bfloat16(trace: Trace) -> Trace:
    """Give the same with gradients of another dtype."""
    first = trace.ops[0].grad_in[0]
    assert first is not None
    half = replace(first, stats=replace(first.stats, dtype="bfloat16"))
    return replace(trace, ops=[replace(op, grad_in=(half,) * len(op.grad_in)) for op in trace.ops])


def test_a_dtype_other_than_float32_stands_behind_the_norm() -> None:
    (row,) = [row for row in drawn(in_bfloat16(tower()), 10) if row.startswith("▶")]
    assert row.endswith("bfloat16")
    assert not any("float" in row for row in drawn(tower(), 10))


def test_an_infinity_that_is_no_trouble_is_not_lit_as_one() -> None:
    def styles(trace: Trace) -> set[str]:
        lines = ModuleTreeView(ModuleTree(trace)).lines(TracePosition(trace, 9), 76, 40)
        return {style for line in lines for text, style in line if text.strip() in ("NaN", "inf")}

    assert styles(tower(wild=9)) == {"error"}
    mask = replace(large(math.inf), stats=replace(large(math.inf).stats, min=-math.inf, max=1.0))
    ops = [*tower().ops]
    ops[9] = replace(ops[9], output=(mask,), settings=(("value", "-inf"),), grad_in=(), grad_out=())
    forward = replace(tower(), phase=Phase.FORWARD, ops=ops)
    assert styles(forward) == {"strong", ""}  # where the walk is, and in the row of its module


def test_what_was_raised_stands_last() -> None:
    assert drawn(replace(tower(), error=AGAIN), 23)[-1].startswith("! RuntimeError: Trying to backward")


@pytest.mark.parametrize("width", [40, 56, 60, 76, 120])
def test_no_row_is_longer_than_there_is_room(width: int) -> None:
    for trace in (tower(), line_step(), line_zero_grad(), in_bfloat16(tower())):
        for index in range(len(trace.ops)):
            lines = ModuleTreeView(ModuleTree(trace)).lines(TracePosition(trace, index), width, 14)
            assert max(map(length, lines)) <= width


def test_a_row_whose_name_is_cut_keeps_its_mark_and_the_end_of_its_name() -> None:
    trace = tower(2)
    lines = ModuleTreeView(ModuleTree(trace)).lines(TracePosition(trace), 44, 40)
    rows = ["".join(text for text, _ in line) for line in lines]
    assert [row[2:26].rstrip() for row in rows[1:7]] == [
        "▾ layer2  6 operations",
        "  ▾ layer2.1",
        "      …lu ReluBackward0",
        "    ▾ layer2.1.conv1",
        "        …utionBackward0",
        "        → weight.grad",
    ]


def test_arrows_choose_rows_and_enter_opens_or_runs_to_them() -> None:
    lines = ModuleTreeView(ModuleTree(tower()))
    position = TracePosition(lines.tree.trace)
    lines.lines(position, 76, 14)
    below = lines.moved(position, 2)
    assert below.cursor is not None
    assert below.cursor.path == "layer4.0"
    opened = lines.opened(below)
    assert opened is not None
    ran = lines.opened(lines.moved(opened, 1))
    assert ran is not None
    assert ran.index == 3
