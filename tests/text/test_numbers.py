from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autograd_tui.text.numbers import bar, count, duration, estimate, linear_ticks, log_ticks, number, rate, tick_label
from suite_options import examples


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


def test_ticks_are_round() -> None:
    assert linear_ticks(0.31, 0.97, 4) == [0.4, 0.6, 0.8]
    assert linear_ticks(1, 27, 6) == [5, 10, 15, 20, 25]
    assert linear_ticks(-3.0, 4.0, 4) == [-2.0, 0.0, 2.0, 4.0]


def test_a_wide_log_scale_has_powers_of_ten_and_a_narrow_one_the_steps_between() -> None:
    assert log_ticks(-4.0, 0.5, 3) == [1e-4, 1e-2, 1.0]
    assert log_ticks(0.0, 0.9, 4) == [1.0, 2.0, 5.0]
    assert log_ticks(-0.5, 0.6, 14) == [0.5, 1.0, 2.0, 3.0]
    assert log_ticks(math.log10(3.1), math.log10(3.7), 3) == [3.2, 3.4, 3.6]


@pytest.mark.parametrize(("value", "text"), [(0.3, "0.3"), (2_000_000.0, "2e+6"), (1e-10, "1e-10"), (1500.0, "1500")])
def test_a_label_is_as_short_as_says_it(value: float, text: str) -> None:
    assert tick_label(value, 8) == text


@examples(200)
@given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.integers(0, 20))
def test_ticks_lie_in_their_range_ascend_and_are_no_more_than_wanted(low: float, high: float, count: int) -> None:
    ticks = linear_ticks(low, high, count)
    assert len(ticks) <= count
    assert ticks == sorted(set(ticks))
    slack = (high - low) * 1e-6
    assert all(low - slack <= tick <= high + slack for tick in ticks)


@examples(200)
@given(st.floats(-300, 300), st.floats(0, 300), st.integers(1, 20))
@example(0.0, 7.250528924177008e-16, 10)
def test_ticks_of_a_log_scale_lie_in_their_range(low: float, extent: float, count: int) -> None:
    ticks = log_ticks(low, min(low + extent, 308.0), count)
    assert ticks == sorted(set(ticks))
    assert all(low - 1e-6 <= math.log10(tick) <= low + extent + 1e-6 for tick in ticks)
