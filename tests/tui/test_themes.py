from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.color import BLACK, WHITE, Color

from autograd_tui.tui.themes import contrast, legible

colors = st.builds(Color, *[st.integers(0, 255)] * 3)


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ("#000000", "#ffffff", 21.0),
        ("#777777", "#ffffff", 4.48),
        ("#ff0000", "#ffffff", 4.0),
        ("#123456", "#123456", 1),
    ],
)
def test_the_contrast_is_that_of_wcag(one: str, other: str, ratio: float) -> None:
    assert contrast(Color.parse(one), Color.parse(other)) == pytest.approx(ratio, abs=0.005)
    assert contrast(Color.parse(other), Color.parse(one)) == pytest.approx(ratio, abs=0.005)


@given(colors, colors)
def test_any_colour_can_be_read_on_any_ground(color: Color, ground: Color) -> None:
    assert contrast(legible(color, [ground], 4.5), ground) >= 4.5  # black or white always reaches 4.58


@given(colors, colors)
def test_a_colour_that_can_be_read_is_left_as_it_is(color: Color, ground: Color) -> None:
    if contrast(color, ground) >= 4.5:
        assert legible(color, [ground], 4.5) == color


def test_where_nothing_reaches_the_contrast_the_best_is_given() -> None:
    assert legible(Color.parse("#808080"), [BLACK, WHITE], 4.5) in (BLACK, WHITE)
