"""NaN and infinity are red, named, and come with what to press."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app_screen import screen
from autograd_tui import Frame, Session, open_session
from autograd_tui.core.command import Phase
from autograd_tui.text.batch_table import batch_lines
from autograd_tui.text.explain import explain
from autograd_tui.text.nonfinite import nonfinite_warnings
from autograd_tui.text.styled_text import Line, plain
from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.parameters import ParametersPanel
from autograd_tui.tui.panels.phases import PhasesPanel, key_number
from autograd_tui.tui.screen_state import View
from screen_cells import words

LOUD = ("w=nan fbs", "w=inf fbs", "w=1e30 fbs", "w=-1e38 b=1e38 fbsz f")


def frames(words: str) -> tuple[Session, list[Frame]]:
    session = open_session()
    return session, list(session.run_all(words))


def drawn(panel: Panel, frame: Frame, width: int = 100) -> list[Line]:
    panel.set_reactive(Panel.view, View(frame=frame))
    return panel.draw(frame, width, 10)


def wrong(lines: list[Line]) -> list[str]:
    """Give what shows NaN or infinity and is no error in its style."""
    spans = [span for line in lines for span in line]
    return [text for text, style in spans if any(each in text.split() for each in BAD) and style != "error"]


BAD = ("NaN", "+NaN", "inf", "+inf", "-inf")


@pytest.mark.parametrize("words", LOUD)
def test_no_panel_shows_nan_or_infinity_in_a_style_of_what_is_well(words: str) -> None:
    session, made = frames(words)
    for frame in made:
        lines = [line for each in (PhasesPanel, ParametersPanel, LossPanel) for line in drawn(each(), frame)]
        lines += drawn(ParametersPanel(), frame, 44)
        lines += batch_lines(frame, session.about, 100)
        assert not wrong(lines)


@pytest.mark.parametrize("words", LOUD)
def test_a_loss_that_is_no_number_is_named_and_its_backward_is_not_recommended(words: str) -> None:
    _, made = frames(words)
    forward = next(frame for frame in reversed(made) if frame.phase is Phase.FORWARD)
    said = explain(forward)
    assert said[0].startswith(("The loss is NaN, not a number.", "The loss is infinite (inf)."))
    assert "can now go back through it" not in " ".join(said)
    number, age = drawn(LossPanel(), forward)[0][:2]
    assert number[1] == age[1] == "error"
    assert age[0].strip() in ("fresh, not a number", "fresh, not finite")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("w=nan f", "The loss is NaN, not a number. w holds NaN: u undoes one command a press"),
        ("w=nan fbs", "w and b hold NaN: u undoes one command a press, g goes back further."),
        ("w=nan f w=1", "When it was measured, w holds NaN: forward measures it anew."),
        ("w=1e30 f", "The loss is infinite (inf). All parameters were finite"),
        ("w=1e30 f", "u, then i, leads inside this forward, to where it began."),
        ("w=3e38 fb", "w.grad and b.grad hold infinity: a step would put that into the parameters. u, then i"),
    ],
)
def test_the_first_sentence_says_what_is_wrong_and_which_key_helps(words: str, sentence: str) -> None:
    _, made = frames(words)
    assert sentence in " ".join(nonfinite_warnings(made[-1]))


def test_what_is_finite_raises_no_alarm_nor_does_a_frozen_mask_of_infinities() -> None:
    _, (*_, frame) = frames("fbs")
    assert nonfinite_warnings(frame) == []
    session = open_session()
    *_, frame = session.run_all("f b=inf b.requires_grad=False")
    assert nonfinite_warnings(frame) == []
    assert nonfinite_warnings(replace(frame, loss=float("nan"))) != []


@pytest.mark.parametrize(
    ("words", "phase", "shown"),
    [
        ("w=nan fb", Phase.BACKWARD, "dw NaN db NaN"),
        ("w=4 b=1.000001 fb", Phase.BACKWARD, None),
        ("lr=1e-7 fbs", Phase.STEP, None),
        ("fb", Phase.BACKWARD, "dw +1.3333 db +2.0000"),
    ],
)
def test_the_strip_and_the_panels_write_a_number_alike(words: str, phase: Phase, shown: str | None) -> None:
    _, made = frames(words)
    written = key_number(made[-1], phase, 40)
    assert "+nan" not in written
    panel = ParametersPanel()
    in_panel = [plain(line) for line in drawn(panel, made[-1])]
    for token in written.split()[1::2]:
        assert any(token in line.split() for line in in_panel), (written, in_panel)
    assert shown is None or written == shown


def test_where_there_is_no_room_the_strip_has_fewer_digits_but_never_0() -> None:
    _, made = frames("w=4 b=1.000001 fb")
    for room in range(40):
        text = key_number(made[-1], Phase.BACKWARD, room)
        assert text.startswith("|grad|") or all(float(each) for each in text.split()[1::2])


def test_a_parameter_that_became_nan_is_not_said_to_have_stayed() -> None:
    _, made = frames("w=nan b=2 fbs")
    heading, _, b = map(plain, drawn(ParametersPanel(), made[-1]))
    assert "! NaN" in b
    assert "this step" in heading


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light"])
async def test_it_is_red_on_the_screen(theme: str) -> None:
    async with screen(do="w=nan f", theme=theme) as shown:
        text = "".join(cell.character for cell in words(shown.app))
        place = text.index("ThelossisNaN")
        color: Any = words(shown.app)[place].style.color
        red, green, blue = color.get_truecolor()
        assert red > 1.4 * green
        assert red > 1.4 * blue


@pytest.mark.parametrize("width", [44, 60, 100])
def test_a_blank_stands_before_the_longest_gradient(width: int) -> None:
    _, made = frames("w=4 b=1.000001 fbszfbs")
    _, *rows = [plain(line) for line in drawn(ParametersPanel(), made[-1], width)]
    assert ["-1.907e-06" in rows[0].split(), "-6.358e-07" in rows[1].split()] == [True, True]
    assert max(map(len, rows)) <= width
