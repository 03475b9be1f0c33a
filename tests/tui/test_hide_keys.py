from __future__ import annotations

import re

import pytest

from app_screen import screen
from autograd_tui.tui import session_runner
from autograd_tui.tui.trainer_status import Status


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_the_veil_shows_the_prediction_first_and_then_the_loss(size: tuple[int, int]) -> None:
    async with screen(size=size) as shown:
        await shown.press("v", "space")
        assert shown.session.commands() == "f"
        assert "space: show" in shown.text("PhasesPanel")
        assert "What does it predict?" in shown.text("ExplanationPanel")
        everything = shown.text("DataPanel") + shown.text("PhasesPanel") + shown.text("LossPanel")
        assert "▒▒▒▒" in everything
        assert "8.0000" not in everything
        assert "3.6667" not in everything
        assert "5.0000" in shown.text("DataPanel")
        await shown.press("space")
        assert "8.0000" in shown.text("DataPanel")
        assert "3.6667" not in shown.text("DataPanel") + shown.text("PhasesPanel") + shown.text("LossPanel")
        await shown.press("space")
        assert "3.6667" in shown.text("LossPanel")
        assert shown.session.commands() == "f"
        await shown.press("space")
        assert shown.session.commands() == "fb"
        assert "Which sign" in shown.text("ExplanationPanel")


async def test_no_watchpoint_that_fires_tells_what_the_veil_hides() -> None:
    async with screen(do="fbsz") as shown:
        shown.app.main.prompt_actions.run("watch loss>1")
        await shown.press("v", "space")
        assert shown.app.main.view.hidden is not None
        assert shown.note == "frame 5, where what is watched holds: space shows the numbers"
        assert "3.318" not in shown.note


@pytest.mark.parametrize("words", ["watch loss<3.2", "run loss<3.2", "fbsz*2 f"])
async def test_a_frame_at_which_a_run_ends_is_never_shown_without_its_veil(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_runner, "SAMPLE_SECONDS", -1.0)  # each frame of a run is shown
    async with screen() as shown:
        uncovered = []

        def note_numbers() -> None:
            view = shown.app.main.view
            if view.frame is not None and view.frame.loss is not None and view.frame.loss < 3.2 and view.hidden is None:
                uncovered.append(view.frame.index)

        shown.app.main.watch(shown.app.main, "view", note_numbers)
        shown.app.main.trainer.set_speed(50.0)  # and drawn
        await shown.press("v")
        shown.app.main.prompt_actions.run(words)
        await shown.settle()
        if words.startswith("watch"):
            await shown.press("r")
        assert shown.session.frame.loss is not None
        assert shown.session.frame.loss < 3.2
        assert shown.app.main.view.hidden is not None
        assert uncovered == []


@pytest.mark.parametrize(
    ("do", "panel", "hidden"), [("f", "ParametersPanel", "1.3333"), ("fb", "ParametersPanel", "1.8667")]
)
async def test_the_veil_hides_what_a_phase_brings(do: str, panel: str, hidden: str) -> None:
    async with screen(do=do) as shown:
        await shown.press("v", "space")
        assert hidden not in shown.text(panel) + shown.text("PhasesPanel") + shown.text("ExplanationPanel")
        await shown.press("space")
        assert hidden in shown.text(panel)


@pytest.mark.parametrize("size", [(120, 40), (100, 30), (80, 24), (60, 15)], ids=str)
async def test_the_veil_leaves_the_gradients_that_a_step_has_used(size: tuple[int, int]) -> None:
    async with screen(do="fb", size=size) as shown:
        await shown.press("v", "space")
        heading, w, b = shown.text("ParametersPanel").splitlines()[:3]
        assert "this step    .grad  used" in heading
        assert "+1.3333" in w
        assert "+2.0000" in b
        assert "▒▒▒▒▒▒" in w
        assert "1.8667" not in w
        if "lowest" in heading:  # known from the start
            assert w.split()[-1] == "4.0000"
            assert "█▶" in w
        assert "▒" not in heading


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (60, 15)], ids=str)
async def test_no_cover_tells_the_sign_of_a_gradient_or_its_size(size: tuple[int, int]) -> None:
    async with screen(do="fbsz f", size=size) as shown:  # the gradients of w and b have different signs then
        await shown.press("v", "b")
        w, b = shown.text("ParametersPanel").splitlines()[1:3]
        assert [place.span() for place in re.finditer("▒+", w)] == [place.span() for place in re.finditer("▒+", b)]
        assert not set(w + b) & set("◀█▶")
        await shown.press("space")
        assert "◀" in shown.text("ParametersPanel")


@pytest.mark.parametrize("do", ["f", "fb"])
async def test_the_veil_hides_the_numbers_of_a_large_model(do: str) -> None:
    async with screen("resnet18", do=do) as shown:
        await shown.press("v", "space")
        assert "▒" in shown.text("TablePanel")
        await shown.press("space")
        assert "▒" not in shown.text("TablePanel")


async def test_the_veil_hides_what_a_forward_has_counted() -> None:
    async with screen("resnet18") as shown:
        await shown.press("v", "space")
        assert "num_batches_tracked  0 → ▒" in shown.text("BuffersPanel")
        await shown.press("space")
        assert "num_batches_tracked  0 → 1" in shown.text("BuffersPanel")


async def test_on_a_small_screen_the_question_about_the_loss_shows_the_prediction() -> None:
    async with screen(size=(60, 15)) as shown:
        await shown.press("v", "space")
        assert "8, 10, 12" not in shown.text("ExplanationPanel")
        await shown.press("space")
        assert "How far off is the prediction 8, 10, 12," in shown.text("ExplanationPanel")
        assert "3.6667" not in shown.text("ExplanationPanel") + shown.text("PhasesPanel")


async def test_v_takes_the_veil_away_and_shows_all() -> None:
    async with screen() as shown:
        await shown.press("v", "space", "v")
        assert "3.6667" in shown.text("LossPanel")
        await shown.press("space", "space")
        assert shown.session.commands() == "fbs"


async def test_what_is_on_the_screen_already_stays_when_the_veil_is_drawn() -> None:
    async with screen(do="f") as shown:
        await shown.press("v")
        assert "3.6667" in shown.text("LossPanel")
        assert "the veil is drawn" in shown.note


async def test_an_older_frame_has_no_veil_and_the_newest_still_has_it() -> None:
    async with screen(do="fb") as shown:
        await shown.press("v", "space", "left")
        assert "+1.3333" in shown.text("ParametersPanel")
        await shown.press("escape")
        assert "▒" in shown.text("ParametersPanel")


async def test_an_error_is_not_hidden() -> None:
    async with screen(do="fb") as shown:
        await shown.press("v", "B")
        assert "second time" in " ".join(shown.text("ExplanationPanel").split())


async def test_a_run_is_not_stopped_by_questions() -> None:
    async with screen() as shown:
        await shown.press("v", "4", "n")
        assert "▒" not in shown.text("ParametersPanel") + shown.text("DataPanel")


async def test_a_space_while_pytorch_is_loaded_is_run_under_the_veil_too() -> None:
    async with screen() as shown:
        await shown.press("v")
        main = shown.app.main
        main.trainer.publisher.status, main.state.latest = (
            Status("loading", 0.0),
            None,
        )  # as before the session is there
        await shown.press("space")
        assert shown.session.commands() == "f"
