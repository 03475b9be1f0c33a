from __future__ import annotations

import pytest

from autograd_tui import open_session
from autograd_tui.core.frame import Frame
from autograd_tui.text.batch_table import batch_lines
from autograd_tui.text.hidden_results import cover_hidden, hide_results, visible_part
from autograd_tui.text.styled_text import plain


def frame_after(words: str, scenario: str = "linear") -> Frame:
    *_, frame = open_session(scenario).run_all(words)
    return frame


def shown(words: str, stage: int) -> str:
    session = open_session()
    *_, frame = session.run_all(words)
    lines = batch_lines(frame, session.about, 100)
    return "\n".join(
        plain(line) for line in cover_hidden(lines, batch_lines(visible_part(frame, stage), session.about, 100))
    )


def test_the_data_stay_to_be_seen_while_the_prediction_is_hidden() -> None:
    text = shown("f", 0)
    assert "1.0000    2.0000    3.0000" in text
    assert "5.0000    9.0000   13.0000" in text
    assert "8.0000" not in text
    assert "▒▒▒▒▒▒" in text


def test_the_prediction_comes_before_the_loss() -> None:
    text = shown("f", 1)
    assert "8.0000   10.0000   12.0000" in text
    assert "3.6667" not in text
    assert "squared" in text


@pytest.mark.parametrize(("words", "stages"), [("f", 2), ("fb", 1), ("fbs", 1), ("fbsz", 0), ("fbB", 0), ("lr=1", 0)])
def test_each_phase_with_numbers_of_its_own_asks_before_it_shows_them(words: str, stages: int) -> None:
    frame = frame_after(words)
    assert [hide_results(frame, stage) is not None for stage in range(3)] == [stage < stages for stage in range(3)]


@pytest.mark.parametrize("scenario", ["linear", "resnet18"])
@pytest.mark.parametrize(("words", "field"), [("f", "loss"), ("fb", "grads"), ("fbs", "params")])
def test_what_is_hidden_is_not_in_the_frame_at_all(scenario: str, words: str, field: str) -> None:
    frame = frame_after(words, scenario)
    hidden = visible_part(frame, 0)
    if field == "loss":
        assert hidden.loss != hidden.loss
    else:
        norm = getattr(hidden, field).norm()
        assert norm != norm
        assert [row and row.shape for row in getattr(hidden, field)] == [
            row and row.shape for row in getattr(frame, field)
        ]


def test_a_covered_number_does_not_tell_how_long_its_bar_is() -> None:
    covered = cover_hidden([[("w  +1.3333  ", ""), ("████", "up")]], [[("w  NaN  ", ""), ("?", "up")]])
    assert plain(covered[0]) == "w  ▒▒▒▒▒▒▒      "
