from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.frame import Frame
from autograd_tui.text.prompt.word_table import SORT_COLUMNS
from autograd_tui.text.styled_text import Line, length, plain
from autograd_tui.text.table.layers import Layers, ParameterColumns, TableView, ViewRow, list_rows
from autograd_tui.text.table.table_rows import TableRows, shorten_name, shorten_names
from nested_models import NAMES, open_nested
from session_internals import state_of

OPEN = TableView(cursor=ViewRow("body", 3), opened=frozenset(["body"]))


def styled(frame: Frame, view: TableView = OPEN, *, width: int = 63) -> list[Line]:
    """Give the heading, the rows and the total."""
    layers, columns = Layers.of(frame.params.layout.names), ParameterColumns.of(frame)
    table, listed = TableRows(frame, layers, columns), list_rows(layers, columns, view)
    shape = table.shape(view, listed, width)
    lines = [table.heading(shape), *(table.row(shape, row) for row in listed), table.total(shape)]
    assert all(length(line) <= width for line in lines) or width < 30
    return lines


def drawn(frame: Frame, view: TableView = OPEN, *, width: int = 63) -> list[str]:
    """Give their text."""
    return [plain(line) for line in styled(frame, view, width=width)]


def after(commands: str, *, unused: Sequence[str] = ()) -> Frame:
    return [open_nested(unused=unused).frame, *open_nested(unused=unused).run_all(commands)][-1]


def row_of(lines: list[str], name: str) -> str:
    return next(line for line in lines if name in line)


def test_nan_is_an_error_in_style_and_nothing_else_is() -> None:
    spans = [span for line in styled(after("stem.weight[0]=nan fbs"), width=100) for span in line]
    assert any("NaN" in text for text, _ in spans)
    assert all((text.strip() == "NaN") == (style == "error") for text, style in spans)


def test_the_cursor_and_opened_layers_are_marked_by_signs() -> None:
    lines = drawn(after("fb"))
    assert row_of(lines, "body").startswith("  ▾ body"[1:])
    assert row_of(lines, ".0.bias").startswith("▶   .0.bias")


@pytest.mark.parametrize("width", [-1, 0, 1, 2, 3, 4, 5])
def test_where_there_is_no_room_rows_are_drawn_without_names(width: int) -> None:
    assert len(drawn(after("fb"), width=width)) == len(drawn(after("fb")))


def test_names_inside_a_layer_are_shortened_by_its_own() -> None:
    assert [line.split()[0] for line in drawn(after("fb"))[4:6]] == [".0.weight", "▶"]


def test_the_numbers_are_those_of_torch() -> None:
    session = open_nested()
    before = {name: param.detach().clone() for name, param in state_of(session).params.items()}
    frame = list(session.run_all("fbs"))[-1]
    param = state_of(session).params["stem.weight"]
    assert param.grad is not None
    moved = (param.detach() - before["stem.weight"]).norm() / before["stem.weight"].norm()
    cells = row_of(drawn(frame, TableView()), "stem").split()
    assert f"{float(param.grad.norm()):.4f}" in cells
    assert f"{float(moved) * 100:.4f}%" in cells


def test_what_matters_least_goes_first_where_room_is_short() -> None:
    headings = [drawn(after("fb"), width=width)[0].split() for width in (90, 63, 45, 36)]
    assert headings[0] == [
        *["layer", "tensors", "values", "|grad|", "per", "value", "1e0", "log", "1e1", "its", "spread", "update"],
    ]
    assert headings[1] == ["layer", "|grad|", "per", "value", "1e0", "log", "1e1", "update"]
    assert headings[2] == ["layer", "|grad|", "per", "value", "update"]
    assert headings[3] == ["layer", "|grad|", "update"]


def test_the_column_that_is_sorted_by_is_marked_and_never_goes() -> None:
    heading = drawn(after("fb"), replace(OPEN, column="tensors"), width=44)[0]
    assert "▼ tensors" in heading
    assert "▲ layer" in drawn(after("fb"), replace(OPEN, column="name"))[0]


@pytest.mark.parametrize(("commands", "grad"), [("f", "None"), ("fbsz", "None")])
def test_a_layer_without_gradients_says_none(commands: str, grad: str) -> None:
    assert grad in row_of(drawn(after(commands), TableView()), "stem").split()


def test_bars_have_a_scale_only_where_there_is_something_to_measure() -> None:
    none, some = (drawn(after(commands), width=100) for commands in ("f", "fb"))
    assert re.search(r"1e-?\d+ +log +1e-?\d+", some[0])
    assert "log" not in none[0]
    assert len(none[0]) == len(some[0])  # its columns stay where they are


def test_gradients_of_several_ages_get_a_column_that_says_which() -> None:
    lines = drawn(after("fbs", unused=["gate", "body.0.bias"]))
    assert ".grad is" in lines[0]
    assert "None" in row_of(lines, "gate")
    assert "unused by loss" in row_of(lines, "gate")
    assert "mixed" in row_of(lines, "▾ body")
    assert "used" in row_of(lines, "stem")
    assert ".grad is" not in drawn(after("fbs"))[0]


def test_what_you_set_is_not_called_an_update() -> None:
    heading, *_ = drawn(after("fb gate[0]=3"))
    assert "you set" in heading
    assert "update" not in heading


def test_an_update_of_an_earlier_step_says_so_and_is_dim() -> None:
    assert "update" in drawn(after("fbs"), width=100)[0]
    later = styled(after("fbszfb"), width=100)
    assert plain(later[0]).rstrip().endswith("last step")
    assert {line[-1][1] for line in later[1:]} == {"dim"}
    assert "update" in drawn(after("fb"), width=100)[0]


def test_a_layer_that_was_not_moved_has_moved_by_none_of_it() -> None:
    lines = drawn(after("fb gate[0]=3"), TableView())
    assert row_of(lines, "stem").endswith(" 0.0000%")


def test_before_the_first_step_nothing_is_said_of_moves() -> None:
    assert row_of(drawn(after("fb")), "stem").endswith(" -")


@pytest.mark.parametrize("width", [60, 63, 90])
def test_names_of_300_characters_keep_their_ends(width: int) -> None:
    names = [f"body.{'x' * 300}{place}" for place in range(20)]
    frame = list(open_nested([*names, "stem"]).run_all("fb"))[-1]
    lines = drawn(frame, TableView(opened=frozenset(["body"])), width=width)
    assert lines[-2].split()[0].endswith("xx19")


@given(st.text("abc", max_size=20), st.integers(0, 25))
def test_a_shortened_name_fits(name: str, width: int) -> None:
    assert len(shorten_name(name, width)) <= width


@given(st.integers(20, 130), st.sampled_from(list(SORT_COLUMNS)), st.booleans())
def test_rows_of_any_width_are_drawn(width: int, column: str, opened: bool) -> None:
    view = TableView(opened=frozenset(["body"]) if opened else frozenset(), column=column)
    assert len(drawn(FRAME, view, width=width)) == (23 if opened else 5)


FRAME = after("fbsfb", unused=["gate"])
assert FRAME.params.layout.names == NAMES


@pytest.mark.parametrize("width", range(6, 20))
def test_names_without_room_can_still_be_told_apart(width: int) -> None:
    of_a_gan = [f"net{net}.{layer}.{kind}" for net in "DG" for layer in (0, 2) for kind in ("weight", "bias")]
    tables = ["token_embedding_table", "position_embedding_table", "transformer_encoder"]
    for names in (tables, of_a_gan):
        short = shorten_names(names, width)
        assert all(len(each) <= width for each in short)
        if width >= 8 or names is tables:
            assert len(set(short)) == len(names)
