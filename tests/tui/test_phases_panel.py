"""The strip of phases: beside its numbers, what the phase took."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from autograd_tui.core.command import Phase
from autograd_tui.engine.open_session import open_session
from autograd_tui.text.styled_text import plain
from autograd_tui.tui.panels.phases import PhasesPanel, key_number
from autograd_tui.tui.screen_state import View
from picture_frames import LINE, line_frames


def second_row(seconds: float, memory: int | None, width: int) -> str:
    panel = PhasesPanel()
    panel.view = View(about=LINE)
    lines = panel.draw(replace(line_frames()[3], seconds=seconds, memory=memory), width, 2)
    assert all(len(plain(line).rstrip()) <= width for line in lines)
    return plain(lines[1])


@pytest.mark.parametrize(
    ("seconds", "memory", "width", "end"),
    [
        (0.0123, None, 120, "took 12 ms "),
        (0.0123, 310_400_000, 120, "took 12 ms, 310 MB held "),
        (0.0123, 310_400_000, 70, "took 12 ms "),
        (0.0123, 310_400_000, 60, "|move| 0.2404"),
        (0.0, 310_400_000, 120, "310 MB held "),
        (0.0, None, 120, "b -0.2000"),
    ],
)
def test_what_a_phase_took_stands_where_there_is_room(seconds: float, memory: int | None, width: int, end: str) -> None:
    row = second_row(seconds, memory, width)
    assert row.endswith(end) or row.rstrip().endswith(end)
    assert ("took" in row) == ("took" in end)


def test_a_phase_has_a_time_and_what_measured_none_has_none() -> None:
    session = open_session("linear")
    frames = {words: session.run(words) for words in ("f", "b", "s", "z", "lr=0.5", "i:f")}
    assert {words for words, frame in frames.items() if frame.seconds > 0} == {"f", "b", "s", "z"}
    assert all(frame.plain()["memory"] is None for frame in frames.values())  # on the CPU nobody counts


@pytest.mark.parametrize(
    ("do", "width", "written", "style"),
    [
        ("fbszf", 120, "loss 3.3185 ▼9.5%", ""),
        ("fbszf", 80, "loss 3.3185 ▼", ""),
        ("lr=0.3 fbszf", 120, "loss 4.0000 ▲9.1%", "error"),
        ("f", 120, "loss 3.6667", ""),
        ("fbszfb", 120, "loss 3.3185", "dim"),
    ],
)
def test_a_loss_just_measured_says_whether_it_fell(do: str, width: int, written: str, style: str) -> None:
    session = open_session("linear")
    *_, frame = session.run_all(do)
    panel = PhasesPanel()
    panel.set_reactive(PhasesPanel.view, View(about=LINE, frame=frame, newest_history=session.history))
    spans = panel.draw(frame, width, 2)[1]
    text, found = spans[1]
    assert (text.strip(), found) == (written, style)


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("width", [40, 44, 48, 59, 60])
def test_a_narrow_strip_has_all_four_phases_and_no_number_that_is_cut(index: int, width: int) -> None:
    frame, panel = line_frames()[index], PhasesPanel()
    panel.view = View(about=LINE)
    names, numbers = (plain(line).rstrip() for line in panel.draw(frame, width, 2))
    assert len(names) <= width
    assert len(numbers) <= width
    assert re.findall(r"[a-z_]+", names.lower())[:4] == [phase.value for phase in Phase]
    if frame.phase and width < 60:
        assert key_number(frame, frame.phase, 18) in numbers
