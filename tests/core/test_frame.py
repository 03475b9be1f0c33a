from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.frame import TorchError, plain_number
from autograd_tui.core.tensor_stats import Grads
from handmade_frames import frame, table

KEYS = """
index command phase iteration steps loss learning_rate learning_rates metrics frozen params grads prediction
optimizer_state error seconds memory
"""
ERROR = TorchError("RuntimeError", "no\nway", "model.py", 3)


def strict(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


@given(st.floats(), st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_a_plain_frame_is_strict_json(loss: float, values: list[float]) -> None:
    rows = table(w=values)
    made = frame(loss=loss, params=rows, grads=Grads(rows, (2,), (True,)), prediction=rows[0])
    assert list(strict(made.plain())) == KEYS.split()


def test_an_empty_frame_is_strict_json_too() -> None:
    plain = strict(frame().plain())
    assert (plain["command"], plain["phase"], plain["loss"], plain["error"]) == (None,) * 4


@pytest.mark.parametrize(
    ("value", "plain"),
    [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity"), (None, None), (0.5, 0.5)],
)
def test_what_json_has_no_number_for_is_a_word(value: float | None, plain: object) -> None:
    assert plain_number(value) == plain


def test_a_plain_frame_names_its_command_and_phase() -> None:
    plain = frame(1, "B").plain()
    assert (plain["command"], plain["phase"]) == ("B", "backward")


def test_a_plain_setting_has_no_phase() -> None:
    plain = frame(1, "lr=0.50").plain()
    assert (plain["command"], plain["phase"]) == ("lr=0.5", None)


def test_a_plain_error_has_all_its_parts() -> None:
    error = frame(1, "B", error=ERROR).plain()["error"]
    expected = {"type": "RuntimeError", "message": "no\nway", "file": "model.py", "line": 3, "call": "", "code": ""}
    assert error == expected


def test_plain_gradients_say_what_has_become_of_them() -> None:
    grads = Grads(table(w=[1.0]), (2, 0), (True, False))
    plain = frame(params=table(w=[1.0], b=[1.0]), grads=grads).plain()["grads"]
    assert (plain["w"]["backwards"], plain["w"]["used"], plain["b"]) == (2, True, None)


def test_a_plain_row_has_numbers_and_no_name() -> None:
    row = strict(frame().plain())["params"]["w"]
    assert row == {
        "shape": [1],
        "dtype": "float32",
        "norm": 2.0,
        "min": 2.0,
        "max": 2.0,
        "nonfinite": 0,
        "mean": 2.0,
        "std": 0.0,
        "values": [2.0],
        "histogram": None,
        "sampled": False,
        "range_sampled": False,
    }


@given(st.floats(), st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_a_frame_made_twice_is_the_same(loss: float, values: list[float]) -> None:
    def make() -> Any:
        rows = table(w=values)
        return frame(1, "w=nan", loss=float(str(loss)), params=rows, prediction=rows[0], metrics=(("m", float("nan")),))

    assert make().same(make())


@pytest.mark.parametrize(
    "change",
    [
        {"index": 2},
        {"loss": 1.0},
        {"loss": math.nan},
        {"learning_rate": 0.2},
        {"graph": "alive"},
        {"error": ERROR},
        {"params": table(w=[2.5])},
        {"grads": Grads(table(w=[1.0]), (1,), (False,))},
        {"prediction": table(w=[1.0])[0]},
        {"metrics": (("accuracy", 1.0),)},
        {"before": table(w=[1.0])},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_change_makes_a_frame_another(change: dict[str, Any]) -> None:
    one = frame(1, "f", loss=0.5)
    assert not one.same(replace(one, **change))


def test_another_command_makes_a_frame_another() -> None:
    assert not frame(1, "f").same(frame(1, "F"))


def test_time_and_memory_do_not_count() -> None:
    one = frame(1, "f")
    assert one.same(replace(one, seconds=9.0, memory=1))


@pytest.mark.parametrize("rows", [1, 1000])
def test_a_frame_prints_in_one_short_line(rows: int) -> None:
    made = frame(3, "b", params=table(**{f"p{row}": [1.0] for row in range(rows)}), error=ERROR, loss=0.5)
    assert len(repr(made)) < 100
    assert "\n" not in repr(made)


def test_a_loss_is_old_once_its_parameters_have_moved() -> None:
    assert frame(loss=1.0, moved=True, loss_params=table(w=[1.0])).loss_is_old


@pytest.mark.parametrize("changes", [{"moved": False}, {"loss_params": None}, {"loss_params": table(w=[2.0])}])
def test_a_loss_is_not_old_while_its_parameters_stand(changes: dict[str, Any]) -> None:
    assert not frame(**({"loss": 1.0, "moved": True, "loss_params": table(w=[1.0])} | changes)).loss_is_old  # type: ignore[arg-type]
