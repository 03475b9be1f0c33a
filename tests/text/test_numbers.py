from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autograd_tui.text.numbers import bar, count, duration, estimate, number, rate


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (3.666667, "3.6667"),
        (0.0, "0.0000"),
        (0.001, "0.0010"),
        (0.0000123, "1.230e-05"),
        (99_998.0, "99998.0000"),
        (1_179_000.0, "1.179e+06"),
        (-0.5, "-0.5000"),
        (math.nan, "NaN"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (None, "-"),
    ],
)
def test_a_number_has_four_decimals_or_four_digits(value: float | None, written: str) -> None:
    assert number(value) == written


@given(st.floats(allow_nan=False))
@example(-0.0)
def test_a_signed_number_has_exactly_one_sign(value: float) -> None:
    written = number(value, signed=True)
    assert written[0] in "+-"
    assert written[1] not in "+-"


@given(st.floats())
def test_a_number_is_at_most_eleven_letters_long(value: float) -> None:
    assert len(number(value, signed=True)) <= 11


@given(st.floats(-1e308, 1e308))
def test_a_written_number_is_near_the_number(value: float) -> None:
    assert math.isclose(float(number(value)), value, rel_tol=0.05)


@pytest.mark.parametrize(("value", "written"), [(0, "0"), (999, "999"), (1_179_648, "1 179 648")])
def test_a_count_is_grouped(value: int, written: str) -> None:
    assert count(value) == written


@pytest.mark.parametrize(
    ("value", "written"), [(0.1, "0.1"), (0.001, "0.001"), (1e-5, "1e-05"), (0.0, "0"), (3.0, "3")]
)
def test_a_learning_rate_is_written_as_people_say_it(value: float, written: str) -> None:
    assert rate(value) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "0 µs"),
        (0.0003, "0.3 ms"),
        (0.00996, "10 ms"),
        (0.045, "45 ms"),
        (0.00004213, "42 µs"),
        (0.0000996, "0.1 ms"),
        (0.0996, "0.1 s"),
        (2.1, "2.1 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (185.0, "3 min 5 s"),
        (119.7, "2 min 0 s"),
    ],
)
def test_a_time_has_the_unit_that_fits(seconds: float, written: str) -> None:
    assert duration(seconds) == written


@given(st.floats(), st.integers(1, 80))
def test_a_bar_is_never_wider_than_its_room(share: float, width: int) -> None:
    assert len(bar(share, width)) <= width


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(0.0, ""), (-1.0, ""), (0.001, "▏"), (0.5, "██"), (0.625, "██▌"), (1.0, "████"), (7.0, "████"), (math.nan, "?")],
)
def test_a_bar_is_drawn_in_eighths(share: float, drawn: str) -> None:
    assert bar(share, 4) == drawn


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (2.6565, "~2.7"),
        (0.0167, "~0.017"),
        (0.0996, "~0.10"),
        (-12.34, "~-12"),
        (123.4, "~120"),
        (99.6, "~100"),
        (94_600.0, "~95000"),
        (123_456.0, "~1.2e+05"),
        (0.00123, "~0.0012"),
        (0.000123, "~1.2e-04"),
        (0.0, "~0"),
        (math.nan, "NaN"),
        (math.inf, "inf"),
    ],
)
def test_an_estimate_has_two_digits(value: float, written: str) -> None:
    assert estimate(value) == written
