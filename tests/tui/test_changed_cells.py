"""Which part of a row a panel repaints."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from autograd_tui.tui.panels.panel import changed_span, common_prefix

LOOKS = (Style(), Style(bold=True))
PIECES = st.lists(st.tuples(st.text("ab", min_size=1, max_size=4), st.sampled_from(LOOKS)), min_size=1, max_size=5)


@given(st.text("ab", max_size=12), st.text("ab", max_size=12))
def test_the_common_beginning_is_the_longest(one: str, other: str) -> None:
    count = common_prefix(one, other)
    assert one[:count] == other[:count]
    assert count in (len(one), len(other)) or one[count] != other[count]


@given(PIECES, PIECES)
def test_a_row_is_repainted_from_its_first_to_its_last_changed_cell(
    old: list[tuple[str, Style]], new: list[tuple[str, Style]]
) -> None:
    cells = [[(character, style) for text, style in pieces for character in text] for pieces in (old, new)]
    width = min(map(len, cells))
    rows = [Strip(Segment.simplify(Segment(*cell) for cell in each[:width]), width) for each in cells]
    differ = [column for column in range(width) if cells[0][column] != cells[1][column]]
    span = changed_span(rows[0], rows[1], 7)
    if not differ:
        assert span is None
    else:
        assert span is not None
        assert (span.x, span.right, span.y, span.height) == (differ[0], differ[-1] + 1, 7, 1)
