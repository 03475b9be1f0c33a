from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui import open_session
from autograd_tui.core.tensor_stats import TensorStats
from autograd_tui.core.trace import Value
from autograd_tui.text.numbers import terse
from autograd_tui.text.trace.tensor_words import name_of, value_words


def small(*values: float, shape: tuple[int, ...] | None = None) -> Value:
    return Value(TensorStats("", shape or (len(values),), "float32", values=values, nonfinite=0))


def half(shape: tuple[int, ...] = (8, 6), **numbers: Any) -> Value:
    return Value(TensorStats("", shape, "bfloat16", **numbers))


LARGE = Value(TensorStats("", (64, 3, 7, 7), "float32", norm=0.0123, min=-0.5, max=0.25, nonfinite=0))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (2.0, "2"),
        (2 / 3, "0.6667"),
        (-1.33333, "-1.3333"),
        (0.0123456, "0.01235"),
        (0.001, "0.001"),
        (0.00099, "9.9e-04"),
        (1e-5, "1e-05"),
        (0.0, "0"),
        (-0.0, "0"),
        (123_456.0, "1.235e+05"),
        (math.inf, "inf"),
        (math.nan, "NaN"),
    ],
)
def test_a_number_inside_arithmetic_has_no_trailing_zeros(value: float, written: str) -> None:
    assert terse(value) == written


@given(st.floats(-1e30, 1e30))
def test_a_written_number_is_within_half_a_thousandth(value: float) -> None:
    assert float(terse(value)) == pytest.approx(value, rel=6e-4, abs=1e-300)


@given(st.floats())
def test_a_written_number_is_short(value: float) -> None:
    assert len(terse(value)) <= 11


@pytest.mark.parametrize(
    ("value", "width", "written"),
    [
        (small(2, 2 / 3, -2 / 3), 30, "[2, 0.6667, -0.6667]"),
        (small(2), 30, "2"),
        (small(2, shape=()), 30, "2"),
        (small(1, 2, 3, 4, 5, 6, shape=(2, 3)), 30, "[[1, 2, 3], [4, 5, 6]]"),
        (small(1, 2, shape=(2, 1)), 30, "[[1], [2]]"),
        (small(1, 2, shape=(1, 2)), 30, "[[1, 2]]"),
        (small(1, 2, 3), 5, "(3,)"),
        (LARGE, 60, "(64, 3, 7, 7) norm 0.0123, -0.5 to 0.25"),
        (LARGE, 30, "(64, 3, 7, 7) norm 0.0123"),
        (LARGE, 14, "(64, 3, 7, 7)"),
        (Value(TensorStats("", (20,), "bool")), 30, "(20,) bool"),
        (Value(TensorStats("", (20,), "int64", norm=9.0, min=0, max=4, nonfinite=0)), 30, "(20,) int64, 0 to 4"),
        (Value(TensorStats("", (20,), "float32", norm=math.nan, nonfinite=3)), 30, "(20,) 3 NaN or infinite"),
        (Value(TensorStats("", (20,), "float32", math.nan, math.nan, math.nan, 3)), 15, "(20,) some NaN"),
        (Value(TensorStats("", (20,), "float32", math.inf, -math.inf, 1.0, 3)), 15, "(20,) some inf"),
        (None, 30, "None"),
        (half(norm=0.5, min=-1.0, max=1.0), 40, "(8, 6) bfloat16 norm 0.5, -1 to 1"),
        (half(norm=0.5, min=-1.0, max=1.0), 30, "(8, 6) bfloat16 norm 0.5"),
        (half(norm=0.5, min=-1.0, max=1.0), 20, "(8, 6) bfloat16"),
        (half(norm=0.5, min=-1.0, max=1.0), 14, "(8, 6)"),
        (half((2,), values=(1.0, 2.0)), 30, "[1, 2] bfloat16"),
        (half((2,), values=(1.0, 2.0)), 10, "[1, 2]"),
        (half((1,), values=(1.0,)), 30, "1 bfloat16"),
        (half(norm=math.inf, min=-math.inf, max=2.0, nonfinite=3), 40, "(8, 6) bfloat16 3 -inf, else up to 2"),
    ],
)
def test_a_tensor_is_written_as_fully_as_there_is_room(value: Value | None, width: int, written: str) -> None:
    assert value_words(value, width) == written


def test_a_tensor_is_called_by_its_name_or_by_the_operation_that_made_it() -> None:
    trace = open_session("linear").run("i:f").trace
    assert trace is not None
    named = [[name_of(trace, value) for value in (*op.inputs, *op.output)] for op in trace.ops]
    assert named == [
        ["w", "x", "mul 1"],
        ["mul 1", "b", "Q"],
        ["y", "Q", "sub 3"],
        ["sub 3", "pow 4"],
        ["pow 4", "loss"],
    ]


def test_a_name_with_control_characters_moves_no_cursor() -> None:
    trace = open_session("linear").run("i:f").trace
    assert trace is not None
    assert name_of(trace, Value(TensorStats("a\x1b[2Jb\n", (1,), "float32"))) == "ab"
