from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from time import monotonic

import pytest

import suite_options
from app_screen import Screen, screen
from autograd_tui.core.command import parse
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.replay_check import MIN_ITERATIONS
from autograd_tui.text.plot_view import PlotView
from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.requests import Train
from autograd_tui.tui.run_speed import (
    SPEEDS,
    faster,
    iterations_between_frames,
    pace_in_words,
    rising_pace,
    slower,
    speed_in_words,
)
from autograd_tui.tui.trainer_status import Update

SLOW = 1e-4  # a learning rate at which a run of the line goes on for long, and does not come to rest


async def to_frame(shown: Screen, index: int) -> None:
    await shown.until(lambda: shown.session.newest >= index)


async def test_a_run_says_how_fast_it_is_and_how_to_pause_it() -> None:
    async with screen(lr=SLOW) as shown:
        await shown.pilot.press("r")
        await to_frame(shown, 1000)
        await shown.pilot.pause()
        assert shown.note == "running at full speed: space pauses, + - change it"
        await shown.press("space")
        assert shown.note == ""
        assert set(shown.session.commands()) <= set("fbsz*0123456789")


async def test_a_count_of_iterations_runs_freely_and_says_what_will_stop_it() -> None:
    async with screen() as shown:
        await shown.pilot.press(*"90000", "n")
        await to_frame(shown, 1000)
        await shown.pilot.pause()
        assert "until iteration 90000 is done" in shown.note
        await shown.press("escape")
        await shown.press(*"40", "n")
        assert shown.session.frame.phase == "zero_grad"


async def test_a_run_until_a_loss_ends_where_it_is_measured() -> None:
    async with screen() as shown:
        shown.app.main.trainer.requests.put(Train(Goal(below=1.0)))
        await shown.settle()
        assert shown.session.frame.phase == "forward"
        assert shown.session.frame.loss is not None
        assert 0.9 < shown.session.frame.loss < 1.0
        assert "fresh" in shown.text("LossPanel")


async def test_a_slow_run_shows_every_frame_and_space_ends_it_at_once() -> None:
    async with screen() as shown:
        await shown.pilot.press(*["minus"] * 3, "r")
        assert shown.app.main.trainer.speed == 20
        await to_frame(shown, 3)
        await shown.press("space")
        stopped_at = shown.session.newest
        assert shown.session.stored(stopped_at - 1) is not None
        await shown.press("f" if shown.session.frame.graph != "alive" else "b")
        assert shown.session.newest <= stopped_at + 1


async def test_the_speed_can_be_changed_while_it_runs() -> None:
    async with screen(lr=SLOW) as shown:
        await shown.pilot.press(*["minus"] * 9, "r")
        assert shown.app.main.trainer.speed == 1
        await shown.pilot.press(*["plus"] * 9)
        await to_frame(shown, 2000)
        await shown.press("space")


async def test_the_learning_rate_can_be_changed_while_it_runs() -> None:
    async with screen(lr=SLOW) as shown:
        await shown.pilot.press("r")
        await to_frame(shown, 400)
        await shown.pilot.press("l", *"2e-4", "enter")
        await shown.until(lambda: shown.session.frame.learning_rate == 2e-4)
        index = shown.session.newest
        await to_frame(shown, index + 400)
        assert shown.app.main.trainer.status.run is not None
        await shown.press("space")
        assert "lr=0.0002 fbsz" in shown.session.commands()


async def test_what_a_key_has_written_can_be_read_while_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with screen(lr=SLOW) as shown:
        await shown.pilot.press("r")
        await to_frame(shown, 1000)
        await shown.pilot.press("e")
        seen = shown.app.main.state.latest
        await shown.until(lambda: shown.app.main.state.latest is not seen)
        await shown.pilot.pause()
        assert shown.note.startswith("written: autograd-tui_")
        await shown.pilot.press("+")
        await shown.until(lambda: shown.note.startswith("running at full speed"))


async def test_a_phase_key_ends_a_run() -> None:
    async with screen(lr=SLOW) as shown:
        await shown.pilot.press("r")
        await to_frame(shown, 400)
        await shown.press("f")
        assert shown.app.main.trainer.status.run is None
        assert shown.session.commands().endswith(" f")


async def test_looking_back_does_not_hold_a_run_up() -> None:
    async with screen(lr=SLOW) as shown:
        await shown.pilot.press("r")
        await to_frame(shown, 400)
        await shown.pilot.press("less_than_sign", "right")
        index = shown.session.newest
        await to_frame(shown, index + 400)
        assert shown.app.main.view.frame is not None
        assert 0 < shown.app.main.view.frame.index < index
        await shown.press("space", "escape")
        assert f"frame {shown.session.newest} of {shown.session.newest}" in shown.text("StatusPanel")


async def test_frames_that_a_run_left_out_are_made_when_looked_at() -> None:
    async with screen() as shown:
        await shown.press(*"500", "n")
        assert shown.session.stored(1001) is None
        await shown.press(*["left"] * 3)
        assert "frame 1997 of 2000" in shown.text("StatusPanel")
        await shown.press("comma")
        assert "frame 1993 of 2000" in shown.text("StatusPanel")
        assert "forward" in shown.text("ExplanationPanel")


async def test_many_iterations_in_words_run_freely() -> None:
    async with screen(do="fbsz*3000 lr=0.01 fb") as shown:
        assert shown.session.commands() == "fbsz*3000 lr=0.01 fb"
        assert shown.session.stored(5000) is None


def test_speeds_go_up_and_down_a_ladder_with_full_speed_on_top() -> None:
    assert [slower(speed) for speed in SPEEDS[1:]] == list(SPEEDS[:-1])
    assert [faster(speed) for speed in SPEEDS[:-1]] == list(SPEEDS[1:])
    assert (slower(1), faster(None)) == (1, None)


@pytest.mark.parametrize(
    ("speed", "words"), [(1, "1 command a second"), (50, "50 commands a second"), (None, "full speed")]
)
def test_a_speed_is_said_in_words(speed: float | None, words: str) -> None:
    assert speed_in_words(speed) == words


async def test_a_run_that_cannot_get_to_its_end_says_why() -> None:
    async with screen(do="fbsz requires_grad=False") as shown:
        await shown.press(*"50", "n")
        assert shown.note == "the run ends here: no parameter gets a gradient, so there is no further iteration."
        assert str(shown.session.frame.command) == "f"


async def test_whatever_ends_a_run_the_plot_is_of_the_frame_that_is_shown() -> None:
    chance = Random(0)
    async with screen(lr=0.001) as shown:
        main, panel = shown.app.main, shown.app.main.query_one(LossPanel)
        for time in range(200 if suite_options.LONG else 40):
            main.state.change(plot=PlotView((("loss", "grad")[time % 2],)))
            main.draw()
            kind, frame = chance.choice(["count", "loss", "words", "stop", "look"]), shown.session.frame
            goals = {
                "count": Goal.from_here(frame, chance.randrange(2, 30)),
                "loss": Goal(below=frame.loss and frame.loss * chance.uniform(0.9, 1), iteration=frame.iteration + 30),
                "words": parse(f"fbsz*{chance.randrange(1, 30)}"),
            }
            main.ask(main.state.train(goals.get(kind, Goal())))  # type: ignore[arg-type]
            for _ in range(chance.randrange(40)):
                await asyncio.sleep(0)
            if kind == "look":
                main.action_look(-1)
            if kind not in goals:
                main.trainer.stop()
            while not main.trainer.status.idle:
                await asyncio.sleep(0.001)
            await shown.pilot.pause()
            main.action_look_at(-1)
            assert main.view.frame is shown.session.frame
            assert main.view.history == shown.session.history
            (name,) = main.view.plot.names
            newest = main.view.history.plotted(name).at(main.view.frame.index)
            assert newest or time < 3
            assert name == "grad" or newest is None or newest.iteration == main.view.frame.iteration
            if newest is None:
                continue  # there may be no plot yet
            await shown.pilot.pause()
            drawn = shown.text("LossPanel")
            assert "◆" in drawn, f"{kind}, {time}: {drawn}"
            panel._plots = None, []
            panel.redraw()
            assert shown.text("LossPanel") == drawn, f"{kind}, {time}"


async def test_a_run_that_has_ended_is_not_said_to_go_on() -> None:
    async with screen(lr=SLOW) as shown:
        trainer = shown.app.main.trainer
        heard: list[tuple[bool, float, float]] = []  # whether the run goes on, since when what runs has run, and when
        hear = trainer.publisher._updated

        def hearing(update: Update) -> None:
            heard.append((update.goes_on, trainer.status.since, monotonic()))
            hear(update)

        trainer.publisher._updated = hearing
        await shown.pilot.press("r")
        await to_frame(shown, 1000)
        await shown.press("space")
        last_of_the_run = max(told for goes_on, _, told in heard if goes_on)
        goes_on, since, _ = heard[-1]
        assert not goes_on
        assert since > last_of_the_run


def test_a_pace_begins_at_ten_iterations_a_second_and_is_in_the_thousands_after_fifteen_seconds() -> None:
    seconds, iteration, paces = 0.0, 0, [rising_pace(0)]
    while seconds < 15:
        pace = rising_pace(iteration)
        seconds += iterations_between_frames(pace) / pace
        iteration += iterations_between_frames(pace)
        paces.append(rising_pace(iteration))
        assert paces[-1] < paces[-2] * 1.15  # smoothly
    assert paces[0] == 10
    assert 3_000 < paces[-1] < 30_000
    assert iterations_between_frames(10) == 1


@pytest.mark.parametrize(
    ("pace", "words"),
    [(3, "10"), (10, "10"), (19.9, "10"), (55, "50"), (100, "100"), (2_400, "2,000"), (99_000, "50,000")],
)
def test_a_pace_is_said_in_steps(pace: float, words: str) -> None:
    assert pace_in_words(pace) == f"about {words} iterations a second"


async def test_the_first_run_begins_so_slowly_that_one_sees_it_and_goes_to_full_speed_with_plus() -> None:
    async with screen(begins_slowly=True, lr=0.001) as shown:
        began = monotonic()
        await shown.pilot.press("r")
        await to_frame(shown, 12)
        await shown.pilot.pause()
        assert shown.note == "running at about 10 iterations a second, rising: + full speed, space pauses"
        assert shown.session.frame.iteration <= 12 * (monotonic() - began) + 3
        await shown.pilot.press("plus")
        await to_frame(shown, 2000)
        await shown.pilot.pause()
        assert shown.note == "running at full speed: space pauses, + - change it"
        await shown.press("space")
        assert shown.app.main.trainer.status.run is None


async def test_a_pause_is_answered_while_a_slow_run_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autograd_tui.tui.session_runner.rising_pace", lambda iteration: 0.01)
    async with screen(begins_slowly=True) as shown:
        for keys in ("rr", "r ", "rf"):
            newest, began = shown.session.newest, monotonic()
            await shown.pilot.press(keys[0])
            await to_frame(shown, newest + 4)
            await shown.press("space" if keys[1] == " " else keys[1])
            assert monotonic() - began < 20  # and not the hundred seconds between two iterations
            assert shown.app.main.trainer.status.run is None
            assert shown.app.main.trainer.status.pace is None
        assert shown.session.frame.phase == "forward"


async def test_a_setting_changes_a_slow_run_and_lets_it_go_on() -> None:
    async with screen(begins_slowly=True) as shown:
        await shown.pilot.press("r")
        await to_frame(shown, 8)
        await shown.pilot.press("l", *"0.05", "enter")
        await shown.until(lambda: shown.session.frame.learning_rate == 0.05)
        await to_frame(shown, shown.session.newest + 5)
        assert "rising" in shown.note
        await shown.press("space")


async def test_minus_slows_a_run_down_whose_pace_rises() -> None:
    async with screen(begins_slowly=True) as shown:
        await shown.pilot.press("r")
        await to_frame(shown, 4)
        await shown.pilot.press("minus")
        assert shown.app.main.trainer.speed == 20  # commands a second: less than the 40 and more of the pace
        await shown.press("space")


async def test_a_run_with_an_end_is_at_full_speed() -> None:
    async with screen(begins_slowly=True) as shown:
        began = monotonic()
        await shown.press(*"200", "n")
        assert shown.session.frame.iteration == 200
        shown.app.main.trainer.requests.put(Train(Goal(below=1e-3)))
        await shown.settle()
        assert monotonic() - began < 10  # at ten a second it would be 20 and more


async def test_a_run_that_cannot_keep_its_pace_goes_on_at_full_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autograd_tui.tui.session_runner.rising_pace", lambda iteration: 1e6)
    async with screen(begins_slowly=True, lr=0.001) as shown:
        await shown.pilot.press("r")
        await shown.until(lambda: shown.app.main.trainer.status.run is not None)
        await shown.until(lambda: "full speed: space" in shown.note)
        await shown.press("space")


async def test_a_run_in_which_nothing_changes_any_more_says_so_and_ends() -> None:
    async with screen() as shown:
        await shown.press("r")
        await shown.until(lambda: shown.app.main.trainer.status.idle)
        await shown.settle()
        assert shown.note.startswith("the run ends here: in the last ")
        assert shown.note.endswith("what a step would move is too little for their digits to hold.")
        assert 587 + MIN_ITERATIONS <= shown.session.frame.iteration < 30_000  # the plain loop rests behind its 587th
        ended = shown.session.frame.iteration
        await shown.press(*"200", "n")  # what was asked for by its number is done all the same
        assert shown.session.frame.iteration == ended + 200


async def test_a_run_for_a_loss_that_will_not_come_ends() -> None:
    async with screen(lr=0) as shown:
        shown.app.main.trainer.requests.put(Train(Goal(below=1.0)))
        await shown.settle()
        assert shown.note.endswith("has changed by a bit: the learning rate is 0.")
