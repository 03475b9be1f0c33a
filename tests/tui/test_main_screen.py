from __future__ import annotations

from pathlib import Path
from threading import Event
from time import sleep
from typing import Any
from unittest.mock import patch

import pytest
from textual.events import Resize
from textual.geometry import Size

from app_screen import Screen, screen
from autograd_tui.core.command import Commands, parse
from autograd_tui.core.frame import Frame
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.text import frame_summary
from autograd_tui.text.styled_text import Line
from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.layouts import Layout, layout_for
from autograd_tui.tui.main_screen import MainScreen
from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.screen_state import PATIENCE, Note
from autograd_tui.tui.session_runner import SessionRunner


async def test_space_runs_the_four_phases_in_their_turn() -> None:
    async with screen() as shown:
        await shown.press(*["space"] * 5)
        assert shown.session.commands() == "fbsz f"


async def test_each_letter_runs_its_phase() -> None:
    async with screen() as shown:
        await shown.press("f", "b", "s", "z")
        assert shown.session.commands() == "fbsz"


@pytest.mark.parametrize(("keys", "drawn"), [((), {0}), (("f",), {1})])
async def test_frame_0_is_not_drawn_where_a_key_that_was_typed_before_is_answered(
    keys: tuple[str, ...], drawn: set[int]
) -> None:
    may_open, frames = Event(), set[int]()

    def open_late(_: str | None) -> Session:
        may_open.wait(60)
        return open_session("linear")

    def status_line(frame: Frame, *arguments: Any, **options: Any) -> Line:
        frames.add(frame.index)
        return frame_summary.status_line(frame, *arguments, **options)

    app = AutogradApp(open_late, Commands(), title="linear", greeting="good morning")
    with patch("autograd_tui.tui.panels.text_panels.status_line", status_line):
        async with app.run_test(size=(120, 40)) as pilot:
            shown = Screen(app, pilot)
            await shown.until(lambda: app.main.is_attached)
            await pilot.press(*keys)
            may_open.set()
            await shown.until(lambda: bool(app.main.up_to_date and frames))
            assert frames == drawn
            assert shown.note == "good morning"


async def test_forty_quick_keys_are_forty_commands_in_order() -> None:
    async with screen() as shown:
        await shown.press(*"fbsz" * 10)
        assert shown.session.commands() == "fbsz*10"


async def test_a_letter_out_of_turn_is_refused_in_a_sentence() -> None:
    async with screen() as shown:
        await shown.press("b")
        assert shown.session.newest == 0
        assert "run forward first" in shown.note


async def test_a_capital_runs_out_of_turn_and_shows_what_pytorch_raises() -> None:
    async with screen() as shown:
        await shown.press("f", "b", "B")
        text = " ".join(shown.text("ExplanationPanel").split())
        assert "backward raised RuntimeError:" in text
        assert "Trying to backward through the graph a second time" in text


@pytest.mark.parametrize("size", [(80, 24), (60, 15)], ids=str)
async def test_what_pytorch_raises_is_shown_as_far_as_there_is_room(size: tuple[int, int]) -> None:
    async with screen(size=size) as shown:
        await shown.press("f", "b", "B")
        rows = shown.text("ExplanationPanel").rstrip().splitlines()
        assert rows[0] == "backward raised RuntimeError:"
        assert rows[1].startswith("Trying to backward through the graph a")
        assert rows[-1].endswith(" …")


async def test_a_key_that_nothing_is_bound_to_says_so_and_forgets_the_count() -> None:
    async with screen() as shown:
        for key, name in (("x", "x"), ("J", "J"), ("f5", "f5"), ("ctrl+t", "ctrl+t")):
            await shown.press("5", key)
            assert shown.note == f'"{name}" does nothing here: ? lists the keys'
        await shown.press("n")
        assert shown.session.commands() == "fbsz"
        await shown.press("question_mark", "x")
        box = shown.app.screen.query_one("#help")
        assert box.border_subtitle == '"x" does nothing here, escape closes'


async def test_n_runs_to_the_end_of_the_iteration() -> None:
    async with screen() as shown:
        await shown.press("f", "n", "n")
        assert shown.session.commands() == "fbsz*2"


async def test_n_stops_at_what_raises() -> None:
    async with screen("resnet18", image_size=32) as shown:
        await shown.press("n")
        assert shown.session.commands() == "f"
        assert "Expected more than 1 value per channel" in " ".join(shown.text("ExplanationPanel").split())


async def test_r_runs_until_space_pauses_it() -> None:
    async with screen() as shown:
        await shown.pilot.press("r")
        await shown.until(lambda: shown.session.newest >= 200)
        await shown.press("space")
        stopped_at = shown.session.newest
        await shown.press("f" if shown.session.frame.graph != "alive" else "b")
        assert shown.session.newest <= stopped_at + 1


async def test_arrows_look_and_leave_training_where_it_is() -> None:
    async with screen(do="fbsz") as shown:
        await shown.press("left", "left")
        assert "frame 2 of 4" in shown.text("StatusPanel")
        assert "escape returns" in shown.note
        assert shown.session.frame.index == 4
        await shown.press("escape")
        assert "frame 4 of 4" in shown.text("StatusPanel")


async def test_a_command_while_looking_back_goes_on_from_there() -> None:
    async with screen(do="fbsz") as shown:
        await shown.press("left", "left", "s")
        assert shown.session.commands() == "fbs"
        assert "frame 3 of 4" in shown.text("StatusPanel")  # it leads where it led before


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (60, 15)], ids=str)
async def test_no_panel_is_shown_before_there_is_something_in_it(size: tuple[int, int]) -> None:
    opened = Event()

    def session(name: str | None) -> Session:
        assert opened.wait(60)
        return open_session("linear")

    app = AutogradApp(session, parse("f"), title="linear")
    async with app.run_test(size=size) as pilot:
        shown = Screen(app, pilot)
        await shown.until(lambda: bool(app.screen.query(Layout)))
        await pilot.pause()
        assert not [panel for panel in app.screen.query_one(Layout).query(Panel) if panel.display]
        opened.set()
        await shown.until(lambda: app.main.view.frame is not None)
        await shown.settle()
        assert "forward made a prediction" in shown.text("ExplanationPanel")


async def test_frame_0_looked_back_at_claims_of_no_panel_that_nothing_has_come_yet() -> None:
    async with screen(do="fbsz*2 f") as shown:
        await shown.press("home")
        said = "\n".join(map(shown.text, ("ExplanationPanel", "DataPanel", "ScatterPanel", "LossPanel", "PhasesPanel")))
        assert "Frame 0: no phase has run before it." in said
        assert " yet" not in said


async def test_frame_0_shows_the_data_that_each_iteration_takes() -> None:
    async with screen() as shown:
        data, fit = shown.text("DataPanel"), shown.text("ScatterPanel")
        assert "13.0000" in data
        assert (fit.count("o") - fit.count("to"), fit.count("*")) == (3, 0)
        await shown.press("v", "f")
        assert shown.text("DataPanel").split("\n")[:2] == data.split("\n")[:2]
        await shown.press("home")
        assert (shown.text("DataPanel"), shown.text("ScatterPanel")) == (data, fit)


async def test_what_is_open_is_no_longer_said_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    say, notes = MainScreen.say, list[Note | None]()

    def noting(main: MainScreen, note: Note | None) -> None:
        say(main, note)
        if main.state.latest is not None:  # the session is shown
            notes.append(main.state.view.note)

    monkeypatch.setattr(MainScreen, "say", noting)
    monkeypatch.setattr(SessionRunner, "run_first", lambda *_: sleep(2 * PATIENCE))
    async with screen() as shown:
        assert shown.note == ""
    assert not [note for note in notes if note is not None]


@pytest.mark.parametrize(
    ("size", "panels"),
    [
        ((120, 40), ("CodePanel", "ExplanationPanel", "ParametersPanel", "DataPanel", "ScatterPanel")),
        ((80, 24), ("CodePanel", "ExplanationPanel", "ParametersPanel", "DataPanel")),
    ],
)
async def test_no_panel_moves_in_the_first_iterations(size: tuple[int, int], panels: tuple[str, ...]) -> None:
    async with screen(size=size) as shown:
        places = [shown.app.main.query_one(name).region for name in panels]
        for key in "fbszfbsznn":
            await shown.press(key)
            assert [shown.app.main.query_one(name).region for name in panels] == places, key


async def test_looking_stops_at_both_ends() -> None:
    async with screen(do="f") as shown:
        await shown.press("left", "left", "left", "right", "right")
        assert "frame 1 of 1" in shown.text("StatusPanel")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=str)
async def test_the_learning_rate_from_which_on_the_line_diverges_is_never_cut_off(size: tuple[int, int]) -> None:
    async with screen("linear", size=size, lr=0.19) as shown:
        for keys in ("30n", "f", "n"):
            await shown.press(*keys)
            assert "Above lr 0.1803 this loss diverges" in shown.text("ExplanationPanel")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=str)
async def test_why_w_goes_down_is_said_whole_with_what_has_not_moved(size: tuple[int, int]) -> None:
    async with screen("linear", size=size) as shown:
        await shown.press("f", "b")
        said = " ".join(shown.text("ExplanationPanel").split())
        assert "the gradient sends w down, though 4 is best in the end." in said
        assert "No parameter has moved: step does that." in said


@pytest.mark.parametrize("size", [(80, 24), (60, 15)], ids=str)
@pytest.mark.parametrize("scenario", ["linear", "spiral", "resnet18"])
async def test_what_a_step_moved_is_said_together_with_what_moved_it(scenario: str, size: tuple[int, int]) -> None:
    async with screen(scenario, size=size, do="fbs") as shown:
        rows = shown.text("ExplanationPanel").splitlines()
        assert rows[0].startswith("step moved each parameter by learning rate ×")
        introduced = next(index for index, row in enumerate(rows) if row.endswith(":")) + 1
        assert rows[introduced].startswith("  ")
        assert rows[-1]  # of what else is to be said, at least the beginning


async def test_a_colon_takes_commands_in_words() -> None:
    async with screen() as shown:
        await shown.press("colon", *"lr=0.5", "space", *"fbs", "enter")
        assert shown.session.commands() == "lr=0.5 fbs"
        assert "w  2.0000 - 0.5 × 1.33333 = 1.3333" in shown.text("ExplanationPanel")


async def test_words_without_meaning_get_a_sentence_and_stay_to_be_mended() -> None:
    async with screen() as shown:
        await shown.press("colon", *"lr", "enter")
        assert '"lr" needs a value, as in lr=0.01.' in shown.note
        await shown.press(*"=1", "enter")
        assert shown.session.commands() == "lr=1"


async def test_keys_typed_into_the_prompt_run_nothing() -> None:
    async with screen() as shown:
        await shown.press("colon", *"fb", "left", "escape", "f")
        assert shown.session.commands() == "f"


async def test_the_question_mark_lists_every_key_and_escape_closes_it() -> None:
    async with screen() as shown:
        await shown.press("question_mark")
        assert shown.app.screen is not shown.app.main
        await shown.press("escape")
        assert shown.app.screen is shown.app.main


async def test_q_quits_at_the_top() -> None:
    async with screen() as shown:
        await shown.press("q")
        assert not shown.app.is_running
        assert shown.app.return_code == 0


async def test_q_leaves_looking_back_first() -> None:
    async with screen(do="f") as shown:
        await shown.press("left", "q")
        assert shown.app.is_running


async def test_ctrl_c_twice_quits_as_interrupted() -> None:
    async with screen() as shown:
        await shown.press("ctrl+c")
        assert "once more quits" in shown.note
        await shown.press("ctrl+c")
        assert shown.app.return_code == 130


async def test_ctrl_q_does_nothing() -> None:
    async with screen() as shown:
        await shown.press("ctrl+q")
        assert shown.app.is_running


async def test_a_held_key_lets_eight_wait_at_most() -> None:
    async with screen("resnet18") as shown:
        await shown.pilot.press(*["f"] * 30)
        assert shown.app.main.trainer.status.waiting <= 8
        await shown.settle()
        assert shown.session.newest >= 8


async def test_a_scenario_that_cannot_be_opened_closes_the_screen_with_its_sentence() -> None:
    async with screen("no_such_thing") as shown:
        assert shown.app.return_code == 2
        assert 'no scenario "no_such_thing"' in str(shown.app.failure)


@pytest.mark.parametrize("scenario", ["linear", "resnet18"])
async def test_every_size_shows_a_whole_cycle(scenario: str) -> None:
    sizes = [(20, 4), (40, 10), (60, 15), (80, 24), (100, 30), (120, 40)]
    async with screen(scenario, size=sizes[0]) as shown:
        for count, size in enumerate(sizes, 1):
            await shown.resize(*size)
            await shown.press("f", "b", "s", "z")
            assert shown.session.commands() == f"fbsz*{count}".removesuffix("*1"), size


@pytest.mark.parametrize("size", [(120, 40), (100, 30), (80, 24), (60, 15), (40, 10)])
async def test_a_terminal_of_every_size_opens(size: tuple[int, int]) -> None:
    async with screen(size=size) as shown:
        await shown.press("space")
        assert shown.session.commands() == "f"


async def test_resizing_while_running_changes_the_layout() -> None:
    async with screen(do="fb") as shown:
        assert "loss.backward()" in shown.text("CodePanel")
        await shown.resize(80, 24)
        assert shown.text("CodePanel").startswith("▶ loss.backward()")


@pytest.mark.parametrize("scenario", ["linear", "resnet18"])
async def test_there_is_one_layout_at_a_time(scenario: str) -> None:
    async with screen(scenario, do="f") as shown:
        for size, name in [
            ((120, 40), "WideLayout FoldedLayout"),
            ((80, 24), "NarrowLayout NarrowFoldedLayout"),
            ((60, 15), "SmallLayout"),
        ]:
            await shown.resize(*size)
            (layout,) = shown.app.main.query(Layout)
            assert type(layout).__name__ in name


async def test_keys_typed_while_the_layout_changes_all_run() -> None:
    async with screen() as shown:
        for size in [(80, 24), (60, 15), (120, 40)]:
            shown.app.post_message(Resize(Size(*size), Size(*size)))
            await shown.press(*"fbsz")
            assert isinstance(shown.app.main.layout_shown, layout_for(Size(*size), None))
        assert shown.session.commands() == "fbsz*3"


async def test_another_layout_shows_what_the_one_before_did() -> None:
    async with screen(do="fbsz*3 fb") as shown:
        await shown.press("left", "down", "y")
        await shown.resize(80, 24)
        assert "frame 13 of 14" in shown.text("StatusPanel")
        assert "▶ w" in shown.text("ParametersPanel")
        assert shown.app.main.query_one(LossPanel).border_title == "Loss   log scale   y linear"


async def test_what_a_model_prints_is_noted_and_kept() -> None:
    async with screen() as shown:
        shown.app.main.output.take_in(b"hello from the model\n")
        await shown.until(lambda: shown.note == "1 line printed, :console shows it: hello from the model")


async def test_a_warning_that_a_model_raises_shows_its_first_line() -> None:
    async with screen() as shown:
        tail = "  return F.mse_loss(input, target)\n"
        shown.app.main.output.take_in(f"/a/loss.py:610: UserWarning: sizes differ{', and so on' * 20}\n{tail}".encode())
        await shown.until(lambda: "2 lines printed, :console shows them: UserWarning: sizes differ" in shown.note)
        await shown.settle()
        rows = shown.text("ConsolePanel").splitlines()
        assert rows[0].startswith("UserWarning: sizes differ")
        assert rows[-1].endswith("…")


async def test_a_count_repeats_the_next_key() -> None:
    async with screen() as shown:
        await shown.press("1", "2")
        assert shown.note == "12_"
        await shown.press("n", "2", "space")
        assert shown.session.commands() == "fbsz*12 fb"


async def test_escape_forgets_a_count() -> None:
    async with screen() as shown:
        await shown.press("5", "escape", "f")
        assert shown.session.commands() == "f"


async def test_u_undoes_and_at_brings_back() -> None:
    async with screen(do="fbs") as shown:
        await shown.press("u", "2", "u")
        assert shown.session.frame.index == 0
        assert "gone back to frame 0" in shown.note
        await shown.press("g", "3", "enter")
        assert shown.session.frame.index == 3


async def test_commas_and_stops_look_at_the_same_phase_of_other_iterations() -> None:
    async with screen(do="fbsz*3 fbs") as shown:
        await shown.press("comma", "comma")
        assert "frame 7 of 15" in shown.text("StatusPanel")
        await shown.press("full_stop")
        assert "frame 11 of 15" in shown.text("StatusPanel")
        await shown.press("less_than_sign", "comma")
        assert "no such frame before" in shown.note


@pytest.mark.parametrize(("first", "newest"), [("less_than_sign", "greater_than_sign"), ("home", "end")])
async def test_the_ends_can_be_looked_at(first: str, newest: str) -> None:
    async with screen(do="fbsz*3") as shown:
        await shown.press(first)
        assert "frame 0 of 12" in shown.text("StatusPanel")
        await shown.press(newest)
        assert "frame 12 of 12" in shown.text("StatusPanel")


async def test_l_asks_for_a_learning_rate_and_says_what_is_usual() -> None:
    async with screen() as shown:
        await shown.press("l")
        assert "1e-3  the usual one to begin with" in shown.text("CompletionList")
        await shown.press(*"1e-3", "enter")
        assert shown.session.commands() == "lr=0.001"


async def test_o_starts_another_optimizer() -> None:
    async with screen() as shown:
        await shown.press("o", *"adam", "enter")
        assert "Adam lr 0.1" in shown.text("StatusPanel")


async def test_y_draws_the_loss_on_a_log_scale() -> None:
    async with screen(do="fbsz*9") as shown:
        await shown.press("y")
        assert shown.app.main.query("LossPanel").first().border_title == "Loss   log scale   y linear"


async def test_a_change_of_learning_rate_is_marked_under_the_plot() -> None:
    async with screen(do="fbsz*9 lr=0.01 fbsz*3") as shown:
        assert shown.app.main.query("LossPanel").first().border_title == "Loss   ▲ lr changed   y log"
        assert shown.text("LossPanel").splitlines()[-1].count("▲") == 1


async def test_e_writes_a_picture_and_the_line_that_repeats_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with screen(do="fbs") as shown:
        await shown.press("e")
    assert [path.read_text().startswith("<svg") for path in tmp_path.glob("*.svg")] == [True]
    assert [path.read_text() for path in tmp_path.glob("*.txt")] == ["autograd-tui linear --do fbs\n"]


async def test_two_quick_spaces_are_two_phases_even_while_the_first_runs() -> None:
    async with screen("resnet18") as shown:
        await shown.press("space", "space")
        assert shown.session.commands() == "fb"


async def test_words_may_ask_for_more_than_may_wait_of_one_key() -> None:
    async with screen() as shown:
        await shown.press("colon", *"f*30", "enter")
        assert shown.session.newest == 30


async def test_keys_typed_right_behind_enter_are_keys_again() -> None:
    async with screen() as shown:
        await shown.press("colon", *"lr=0.5", "enter", "f", "b")
        assert shown.session.commands() == "lr=0.5 fb"


async def test_arrows_in_the_prompt_move_its_cursor() -> None:
    async with screen(do="f") as shown:
        await shown.press("colon", *"r=0.5", *["left"] * 5, "l", "enter")
        assert shown.session.commands() == "f lr=0.5"
        assert "frame 2 of 2" in shown.text("StatusPanel")


async def test_metrics_stand_beside_the_loss(tmp_path: Path) -> None:
    source = """
import torch
from torch import nn
from autograd_tui import Parts, scenario

@scenario("measured")
def build(options):
    x = torch.ones(4, 2)
    error = lambda prediction, target: (prediction - target).abs().mean()
    model = nn.Linear(2, 1)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    return Parts(model=model, batch=lambda i: (x, x[:, :1]), loss=nn.functional.mse_loss, metrics={"mae": error})
"""
    (tmp_path / "measured.py").write_text(source)
    async with screen(str(tmp_path / "measured.py"), do="f") as shown:
        assert "1.0000  fresh   mae 1.0000" in shown.text("LossPanel")


async def test_a_move_is_never_rounded_to_nothing_where_room_is_short() -> None:
    async with screen(do="lr=0.01 fbs", size=(80, 24)) as shown:
        assert "|move| 0.0240" in shown.text("PhasesPanel")


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (60, 15)], ids=str)
async def test_an_error_has_signs_besides_its_colour(size: tuple[int, int]) -> None:
    async with screen(do="fbB", size=size) as shown:
        assert "raised" in shown.text("PhasesPanel")
        assert "! loss.backward()" in shown.text("CodePanel")


async def test_an_old_prediction_is_called_old_over_its_points() -> None:
    async with screen(do="fb") as shown:
        fit = shown.app.main.query_one("ScatterPanel")
        assert "old" not in str(fit.border_title)
        await shown.press("s")
        assert "* prediction, old" in str(fit.border_title)


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (60, 15)])
async def test_what_zero_grad_took_away_is_shown_with_all_its_digits(size: tuple[int, int]) -> None:
    async with screen(do="fbsz", size=size) as shown:
        rows = shown.text("ParametersPanel").splitlines()[1:]
        assert [row.partition("was ")[2].split()[0] for row in rows] == ["+1.3333", "+2.0000"]
