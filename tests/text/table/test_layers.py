from __future__ import annotations

import math

import pytest
import torch

from autograd_tui.text.table.layers import MAX_PARAMETER_ROWS, Layers, ParameterColumns
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
