from __future__ import annotations

import math
from dataclasses import replace
from itertools import groupby

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.text.prompt.word_table import SORT_COLUMNS as SORTABLE
from autograd_tui.text.table.layers import (
    MAX_PARAMETER_ROWS,
    Layers,
    ParameterColumns,
    TableView,
    ViewRow,
    count_rows,
    find_parameter,
    list_rows,
    move_cursor,
    row_name,
    toggle_layer,
)
from nested_models import NAMES, open_nested
from session_internals import state_of


def test_many_parameters_fold_by_the_first_part_of_their_names() -> None:
    groups = Layers.of(NAMES).groups
    assert {layer: len(places) for layer, places in groups.items()} == {"gate": 1, "stem": 1, "body": 18}


def test_a_part_that_all_names_begin_with_makes_no_layer() -> None:
    names = tuple(f"net.model.{block}.weight" for block in range(20))
    assert list(Layers.of(names).groups)[:2] == ["net.model.0", "net.model.1"]


def test_few_parameters_stand_each_for_itself() -> None:
    names = tuple(f"body.{place}" for place in range(MAX_PARAMETER_ROWS))
    layers = Layers.of(names)
    assert tuple(layers.groups) == names
    assert all(map(layers.alone, layers.groups))


def test_only_a_parameter_of_the_layers_own_name_stands_alone() -> None:
    layers = Layers.of(NAMES)
    assert [layers.alone(layer) for layer in ("stem", "body", "gate")] == [False, False, True]


@pytest.mark.parametrize("layer", ["stem", "body", "gate"])
def test_the_numbers_of_a_layer_are_those_that_torch_finds(layer: str) -> None:
    session = open_nested()
    list(session.run_all("fb"))
    params = state_of(session).params
    before = {name: param.detach().clone() for name, param in params.items()}
    session.run("s")
    columns, places = ParameterColumns.of(session.frame), Layers.of(tuple(params)).groups[layer]
    ours = [list(params)[place] for place in places]
    values = torch.cat([params[name].detach() for name in ours])
    old = torch.cat([before[name] for name in ours])
    grads = torch.cat([grad for name in ours if (grad := params[name].grad) is not None])
    assert columns.size(places) == values.numel()
    assert columns.norm(places) == pytest.approx(float(values.norm()), rel=1e-6)
    assert columns.grad(places) == pytest.approx(float(grads.norm()), rel=1e-6)
    assert columns.update(places) == pytest.approx(float((values - old).norm() / old.norm()), rel=1e-5)
    assert not columns.estimated(places)


def test_before_the_first_step_there_is_no_update() -> None:
    assert ParameterColumns.of(open_nested().frame).update([0]) is None


def test_a_move_from_zero_is_infinite_and_no_move_is_none_of_it() -> None:
    columns = ParameterColumns((1, 1), (1.0, 0.0), (None, None), (1.0, 0.0), (0.0, 0.0))
    assert columns.update([0]) == math.inf
    assert columns.update([1]) == 0.0


def test_a_layer_without_gradients_has_no_norm_of_them() -> None:
    session = open_nested(unused=["gate"])
    frame = list(session.run_all("fb"))[-1]
    columns = ParameterColumns.of(frame)
    assert columns.grad([NAMES.index("gate")]) is None
    assert columns.grad(range(len(NAMES))) == pytest.approx(frame.grads.norm())


FRAME = list(open_nested(unused=["body.3.weight"]).run_all("fbs"))[-1]
LAYERS, COLUMNS = Layers.of(NAMES), ParameterColumns.of(FRAME)
STEM, BODY, GATE = ViewRow("stem"), ViewRow("body"), ViewRow("gate", 0)

views = st.builds(
    TableView,
    cursor=st.none() | st.sampled_from([STEM, BODY, GATE, ViewRow("body", 4)]),
    opened=st.frozensets(st.sampled_from(["stem", "body", "gate", "no such layer"])),
    column=st.sampled_from(list(SORTABLE)),
)


def listed(view: TableView) -> list[ViewRow]:
    return list_rows(LAYERS, COLUMNS, view)


def test_closed_layers_are_a_row_each_and_a_parameter_alone_is_itself() -> None:
    assert listed(TableView()) == [GATE, STEM, BODY]


def test_an_opened_layer_has_its_parameters_below_it() -> None:
    found = listed(toggle_layer(TableView(), "body"))
    assert found == [GATE, STEM, BODY, *(ViewRow("body", place) for place in range(2, 20))]
    assert row_name(LAYERS, found[3]) == "body.0.weight"


def test_opening_twice_closes() -> None:
    assert toggle_layer(toggle_layer(TableView(), "body"), "body") == TableView()


@given(views)
def test_rows_are_counted_without_making_them(view: TableView) -> None:
    assert count_rows(LAYERS, view) == len(listed(view))


@given(views)
def test_sorting_keeps_every_row_and_every_parameter_in_its_layer(view: TableView) -> None:
    found = listed(view)
    assert len(list(groupby(row.layer for row in found))) == 3
    assert sorted(found, key=str) == sorted(listed(replace(view, column="model")), key=str)


@pytest.mark.parametrize("column", ["values", "params", "grad", "update"])
def test_numbers_are_sorted_from_the_largest_and_none_comes_last(column: str) -> None:
    inside = listed(TableView(opened=frozenset(["body"]), column=column))
    measure = {"values": COLUMNS.size, "params": COLUMNS.norm, "grad": COLUMNS.grad, "update": COLUMNS.update}[column]
    numbers = [measure([row.parameter]) for row in inside if row.layer == "body" and row.parameter is not None]
    known = [number for number in numbers if number is not None]
    assert known == sorted(known, reverse=True)
    assert numbers[: len(known)] == known


def test_names_are_sorted_by_the_alphabet() -> None:
    assert listed(TableView(column="name")) == [BODY, GATE, STEM]


def test_nan_is_sorted_first_as_what_is_most_worth_seeing() -> None:
    columns = replace(COLUMNS, norms=(*COLUMNS.norms[:-1], float("nan")))
    assert list_rows(LAYERS, columns, TableView(column="params"))[0] == BODY


@given(views, st.integers(-30, 30))
def test_the_cursor_stays_among_the_rows(view: TableView, by: int) -> None:
    assert move_cursor(view, listed(view), by).cursor in listed(view)


def test_the_first_key_puts_the_cursor_at_an_end() -> None:
    assert move_cursor(TableView(), listed(TableView()), 1).cursor == GATE
    assert move_cursor(TableView(), listed(TableView()), -1).cursor == BODY


def test_a_name_is_found_in_a_closed_layer_which_opens() -> None:
    view = find_parameter(LAYERS, COLUMNS, TableView(), "3.WEI")
    assert view is not None
    assert (view.cursor, view.opened, view.search) == (ViewRow("body", 8), {"body"}, "3.WEI")


def test_the_same_search_goes_on_and_begins_anew_at_the_end() -> None:
    view, seen = TableView(), []
    for _ in range(11):
        again = find_parameter(LAYERS, COLUMNS, view, "weight")
        assert again is not None
        view = again
        assert view.cursor is not None
        seen.append(row_name(LAYERS, view.cursor))
    assert seen == [name for name in NAMES if "weight" in name] + ["stem.weight"]


def test_a_whole_name_is_found_before_names_that_hold_it() -> None:
    names = ("a.conv", *(f"a.{place}" for place in range(12)), "conv")
    view = find_parameter(
        Layers.of(names), ParameterColumns((1,) * 14, (1.0,) * 14, (None,) * 14, None, ()), TableView(), "conv"
    )
    assert view is not None
    assert view.cursor == ViewRow("conv", 13)


def test_what_is_in_no_name_is_not_found() -> None:
    assert find_parameter(LAYERS, COLUMNS, TableView(), "gate.weight") is None


@given(views, st.sampled_from(["weight", "8", "gate", "b"]))
def test_what_is_found_is_shown(view: TableView, text: str) -> None:
    again = find_parameter(LAYERS, COLUMNS, view, text)
    assert again is not None
    assert again.cursor in listed(again)
