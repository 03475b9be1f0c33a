from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autograd_tui.core.trace import Source
from autograd_tui.text.styled_text import Line, plain
from autograd_tui.text.trace.operation_lines import source_lines
from autograd_tui.text.trace.trace_position import TracePosition
from handmade_traces import line_backward

CODE = "class Line:\n    def forward(self, x):\n        y = self.w * x\n        return y + self.b\n\n\nline = Line()\n"


def at(source: Source | None) -> TracePosition:
    trace = line_backward()
    return TracePosition(replace(trace, ops=(replace(trace.ops[0], source=source),)))


def texts(lines: list[Line]) -> list[str]:
    return [plain(line).rstrip() for line in lines]


def test_the_line_stands_lit_among_its_neighbours(tmp_path: Path) -> None:
    file = tmp_path / "line.py"
    file.write_text(CODE)
    lines = source_lines(at(Source(str(file), 3, "y = self.w * x")), (), 60, 3)
    assert texts(lines) == ["  2  def forward(self, x):", "▶ 3      y = self.w * x", "  4      return y + self.b"]
    assert [style for _, style in lines[1]][-1] == "now"


@pytest.mark.parametrize("height", range(2, 14))
def test_every_line_of_a_file_is_in_sight(height: int, tmp_path: Path) -> None:
    file = tmp_path / f"long{height}.py"
    file.write_text("".join(f"x{number}\n" for number in range(1, 41)))
    for number in range(1, 41):
        rows = texts(source_lines(at(Source(str(file), number, f"x{number}")), (), 60, height))
        assert len(rows) == height
        assert [row for row in rows if row.startswith("▶") and row.endswith(f"  x{number}")]


def test_near_the_end_of_a_file_as_many_lines_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "end.py"
    file.write_text(CODE)
    assert len(source_lines(at(Source(str(file), 7, "line = Line()")), (), 60, 4)) == 4


def test_a_file_that_has_changed_since_shows_that_line_alone(tmp_path: Path) -> None:
    file = tmp_path / "changed.py"
    file.write_text(CODE)
    assert texts(source_lines(at(Source(str(file), 3, "y = x")), (), 60, 3)) == ["▶ 3  y = x"]


def test_a_file_that_is_not_there_shows_that_line_alone() -> None:
    assert texts(source_lines(at(Source("gone.py", 3, "y = x")), (), 60, 3)) == ["▶ 3  y = x"]


def test_in_one_row_the_file_is_named() -> None:
    assert texts(source_lines(at(Source("some/line.py", 3, "y = x")), (), 40, 1)) == [
        "▶ y = x                       line.py:3"
    ]


def test_an_operation_without_a_line_of_its_own_shows_that_of_the_phase() -> None:
    assert texts(source_lines(at(None), ("loss.backward()",), 40, 3)) == ["▶ loss.backward()"]


@pytest.mark.parametrize("height", [1, 3])
@pytest.mark.parametrize("there", [True, False])
def test_a_line_that_has_no_room_says_that_it_goes_on(height: int, there: bool, tmp_path: Path) -> None:
    code = "total = self.w * x + self.b"
    file = tmp_path / f"wide{height}{there}.py"
    if there:
        file.write_text(f"\n{code}\n\n")
    (row,) = [row for row in texts(source_lines(at(Source(str(file), 2, code)), (), 24, height)) if "total" in row]
    assert row.endswith("…")
    assert len(row) <= 24
    assert code.startswith(row.split("  ")[-1].removeprefix("▶ ").removesuffix("…"))
