"""What the model has printed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from rich.cells import cell_len, chop_cells

from autograd_tui.text.styled_text import Line, wrapped
from autograd_tui.tui.captured_output import headline, newest_message
from autograd_tui.tui.panels.panel import Panel


class ConsolePanel(Panel):
    """The last lines, the newest at the bottom; of one that is longer than the panel its beginning."""

    DRAWN_FROM = ("printed",)

    def lines(self, width: int, height: int) -> list[Line]:
        """Draw as many as fit, whether or not there is a frame."""
        printed = self.view.printed
        begins = newest_message(printed)
        newest = list(islice(_rows(printed[begins:], width), height + 1))
        if len(newest) <= height:
            return [*_rows(printed[max(begins - height, 0) : begins], width), *newest][-height:]
        first = list(islice(_rows([headline(printed[begins]), *printed[begins + 1 :]], width - 2), height + 1))
        return first if len(first) <= height else [*first[: height - 1], [*first[height - 1], (" …", "")]]


def _rows(lines: Iterable[str], width: int) -> Iterator[Line]:
    for line in lines:
        if cell_len(line) == len(line):
            yield from wrapped(line, width) or [[]]
        else:  # characters that take two cells, or none
            yield from ([(row, "")] for row in chop_cells(line, width))
