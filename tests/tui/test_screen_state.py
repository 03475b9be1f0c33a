"""What the main screen remembers and shows, asked without Textual."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import run
from time import monotonic

import pytest
from rich.cells import cell_len

from autograd_tui.core.capabilities import READ_ONLY
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.run_observer import Problem, Progress
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.core.tensor_stats import Inspection
from autograd_tui.text.styled_text import plain
from autograd_tui.tui.captured_output import CapturedOutput
from autograd_tui.tui.panels.text_panels import note_lines
from autograd_tui.tui.requests import Export, Inspect, Look, Request, Train
from autograd_tui.tui.screen_state import PATIENCE, Note, ScreenState
from autograd_tui.tui.trainer_status import Status, Update
from handmade_frames import frame, table
from picture_frames import LINE

IDLE = Status(None, 0.0)


def update(
    shown: Frame, request: Request | None = None, *, goes_on: bool = False, refused: str | None = None
) -> Update:
    """Make what the trainer thread sends of a run whose newest frame is `shown`."""
    history = History()
    history.append(shown)
    return Update(shown, history, shown.index, CommandLog(), goes_on=goes_on, request=request, refused=refused)


def opened(*frames: Frame) -> ScreenState:
    """Make a state that has got each of the frames as the latest one."""
    first, *rest = frames
    state = ScreenState()
    state.open(LINE, update(first))
    state.take(update(first))
    for each in rest:
        state.take(update(each))
    return state


def noted(state: ScreenState, status: Status = IDLE, output: CapturedOutput | None = None) -> str:
    """Return the note of the mode that the screen is in."""
    state.say(None, status, output or CapturedOutput())
    return state.view.note.text if state.view.note else ""


def test_the_state_of_the_screen_needs_neither_textual_nor_torch() -> None:
    code = (
        "import sys, autograd_tui.tui.screen_state; "
        "print([name for name in ('textual', 'torch') if name in sys.modules])"
    )
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_count_is_taken_once() -> None:
    state = ScreenState()
    state.count = "50"
    assert (state.take_count(), state.take_count()) == (50, 1)


def test_a_command_runs_from_the_frame_that_is_looked_at_and_leaves_it() -> None:
    first, second = frame(1, "f"), frame(2, "b")
    state = opened(first, second)
    state.show_frame(first)
    state.traced, state.interrupted, state.count = 1, True, "3"
    request = state.train("next", pauses=True)
    assert (request.start, request.times, request.pauses) == (1, 3, True)
    assert (state.looking, state.traced, state.interrupted) == (None, None, False)


def test_a_key_goes_on_from_where_training_stands_or_what_a_pending_look_will_show() -> None:
    state = opened(frame(1, "f"))
    assert state.start == "here"
    state.pending_looks = (Look("here", -1),)
    assert state.start == "looked at"


def test_a_run_is_in_sight_once_it_has_been_shown_for_a_moment() -> None:
    state = ScreenState()
    noted(state, Status("the run goes on", monotonic(), run="", run_since=monotonic()))
    assert not state.run_in_sight
    noted(state, Status("the run goes on", monotonic(), run="", run_since=monotonic() - 2 * PATIENCE))
    assert state.run_in_sight


def test_another_session_takes_all_that_was_of_the_one_before() -> None:
    state = opened(frame(1, "f"), frame(2, "b"))
    state.select_row(1)
    state.show_frame(frame(1, "f"))
    state.pending_looks = (Look(0),)
    begins = frame()
    state.open(LINE, update(begins))
    assert (state.latest, state.view.frame, state.looking, state.pending_looks) == (begins, begins, None, ())
    assert state.view.table.cursor is None


def test_an_update_shows_the_latest_frame_unless_another_is_looked_at() -> None:
    first, second, third = frame(1, "f"), frame(2, "b"), frame(3, "s")
    state = opened(first, second)
    assert state.view.frame is second
    state.show_frame(first)
    state.take(update(third))
    assert (state.view.frame, state.latest, state.view.newest) == (first, third, 3)
    state.show_frame(third)
    assert (state.view.frame, state.looking) == (third, None)


def test_the_answer_of_a_look_shows_its_frame_where_it_was_asked_for_since_the_last_command() -> None:
    first, second = frame(1, "f"), frame(2, "b")
    state = opened(first, second)
    given_up, wanted = Look(0, frame=frame()), Look(1, frame=first)
    state.pending_looks = (wanted,)
    state.take(update(second, given_up))
    assert (state.view.frame, state.pending_looks) == (second, (wanted,))
    state.take(update(second, wanted))
    assert (state.view.frame, state.looking, state.pending_looks) == (first, 1, ())


def test_a_look_that_was_refused_shows_what_was_shown() -> None:
    state = opened(frame(1, "f"))
    refused = Look(7)
    state.pending_looks = (refused,)
    state.take(update(frame(1, "f"), refused, refused="there is no frame 7"))
    assert (state.looking, state.pending_looks) == (None, ())


def test_exact_numbers_are_shown_until_the_next_update() -> None:
    state = opened(frame(1, "f"))
    inspection = Inspection("w", 1, table(w=[2.0])[0], None)
    state.take(update(frame(1, "f"), Inspect("w", inspection=inspection)))
    assert state.view.inspection is inspection
    state.take(update(frame(2, "b")))
    assert state.view.inspection is None


def test_the_note_of_an_update_is_a_refusal_then_an_answer_then_once_the_greeting() -> None:
    state, here = ScreenState(), frame()
    state.greeting = "welcome"
    assert state.update_note(replace(update(here), warning="gone back")) == Note("gone back", "warn")
    assert state.update_note(update(here)) == Note("welcome", "accent")
    assert state.update_note(update(here)) is None
    answered = Train("next", sentence="left as branch 1")
    assert state.update_note(update(here, answered)) == Note("left as branch 1", "accent")
    assert state.update_note(update(here, answered, refused="out of turn")) == Note("out of turn", "warn")
    warned = replace(update(here, answered), warning="paused at w > 1.")
    assert state.update_note(warned) == Note("paused at w > 1. left as branch 1", "warn")


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_a_note_that_stays_takes_one_row(width: int) -> None:
    state, busy = opened(frame(), frame(1, "f")), Status("the run goes on", monotonic(), run="the loss is below 0.001")
    output = CapturedOutput()
    notes = []
    for status in (busy, replace(busy, pace=10.0, watched=True), replace(busy, updated=monotonic() - 60, since=0)):
        state.say(None, status, output)
        notes.append(state.view.note)
    state.toggle_veil()
    state.say(None, IDLE, output)
    notes.append(state.view.note)
    state.toggle_veil()
    output.take_in(b"a long line that a model prints, over and over again, " * 4 + b"\n")
    state.change(printed=output.last(10))
    state.say(None, IDLE, output)
    notes.append(state.view.note)
    state.take(replace(update(frame()), newest=5000))
    state.say(None, IDLE, output)
    notes.append(state.view.note)
    assert "back" in str(notes[-1])
    for note in notes:
        assert note is not None
        (row,) = note_lines(note, width)
        assert cell_len(plain(row)) <= width


def test_a_run_that_is_not_kept_is_marked() -> None:
    state = opened(frame())
    state.take(replace(update(frame(1, "f")), problem=Problem("not kept", "the disk is full.")))
    assert state.view.unkept == "not kept"


def test_a_run_plots_again_only_after_a_while_and_its_end_at_once() -> None:
    state = opened(frame())
    plotted = update(frame(1, "f"), goes_on=True)
    state.take(plotted)
    state.take(update(frame(5, "f"), goes_on=True))
    before = state.view.history
    state.take(update(frame(9, "f"), goes_on=True))
    assert state.view.history is before
    last = update(frame(12, "z"))
    state.take(last)
    assert state.view.history is last.history


def test_the_veil_hides_what_comes_and_lifts_stage_by_stage() -> None:
    state = opened(frame())
    state.toggle_veil()
    assert state.view.hidden is None  # what is on the screen stays
    state.take(update(frame(1, "f", loss=5.0)))
    assert state.view.hidden is not None
    state.lift_veil()
    assert state.view.hidden is not None
    state.lift_veil()
    assert state.view.hidden is None
    state.take(update(frame(2, "b")))
    state.show_frame(frame(1, "f", loss=5.0))
    assert state.view.hidden is None  # of another frame than the latest
    state.show_frame(frame(2, "b"))
    assert state.view.hidden is not None
    state.toggle_veil()
    assert state.view.hidden is None


def test_a_run_is_not_veiled_while_it_goes_on() -> None:
    state = opened(frame())
    state.toggle_veil()
    state.take(update(frame(1, "f", loss=5.0), goes_on=True))
    assert state.view.hidden is None


def test_training_has_gone_back_where_later_frames_are_left() -> None:
    state = opened(frame(1, "f"))
    assert not state.gone_back
    state.take(replace(update(frame(1, "f")), newest=4))
    assert state.gone_back
    assert noted(state) == "gone back to frame 1: the later ones stay until a command runs"


def test_of_a_script_that_has_gone_back_it_is_said_what_it_does_again() -> None:
    state, stop = opened(frame(1, "f")), ScriptStop("loss.backward", "train.py", 9)
    muted = replace(frame(1, "f"), script=replace(stop, output_muted=True))
    state.take(replace(update(muted), newest=4))
    assert noted(state) == "gone back to frame 1: on the way files are written again, prints are not"
    state.take(replace(update(replace(frame(2, "b"), script=stop)), newest=4))
    assert noted(state) == "frame 2 has come again, and what the script prints and writes comes again too"


def test_the_table_is_searched_from_the_cursor_on_and_again_for_the_same() -> None:
    state = opened(frame(params=table(**{"body.weight": [1.0], "body.bias": [2.0], "head.weight": [3.0]})))
    state.find_parameter("weight")
    first = state.view.table.cursor
    state.find_parameter("")
    assert first != state.view.table.cursor
    state.find_parameter("")
    assert first == state.view.table.cursor
    with pytest.raises(Refused, match='no parameter has "tail" in its name'):
        state.find_parameter("tail")


def test_nothing_is_searched_for_without_a_name_or_a_frame() -> None:
    with pytest.raises(Refused, match="a part of a parameter's name"):
        opened(frame()).find_parameter("")
    with pytest.raises(Refused, match="a part of a parameter's name"):
        ScreenState().find_parameter("w")


def test_the_cursor_stays_within_the_table() -> None:
    state = opened(frame(params=table(w=[1.0], b=[2.0])))
    state.select_row(1)
    first = state.view.table.cursor
    state.select_row(7)
    last = state.view.table.cursor
    state.select_row(-7)
    assert first != last
    assert state.view.table.cursor == first


def test_a_table_of_few_rows_is_not_sorted() -> None:
    with pytest.raises(Refused, match="a table of 1 rows stays in the model's order"):
        opened(frame()).sort_table("grad")


def test_of_several_modes_the_note_is_about_the_one_that_a_key_acts_on() -> None:
    state = opened(frame(1, "f"), frame(2, "b"))
    state.change(printed=("epoch 1",))
    output = CapturedOutput()
    output.take_in(b"epoch 1\n")
    running = Status("the run goes on", monotonic(), run="", updated=monotonic())
    assert noted(state, output=output) == "1 line printed, :console shows it: epoch 1"
    assert noted(state, replace(IDLE, notice="a replay")) == "a replay"
    assert noted(state, running) == "running at full speed: space pauses, + - change it"
    state.show_frame(frame(1, "f"))
    assert noted(state, running) == "frame 1 of 2: a command goes on from here, escape returns"
    assert noted(state, replace(running, can=READ_ONLY)) == "frame 1 of 2: escape returns"
    state.count = "50"
    assert noted(state, running) == "50_"
    state.dropped_keys = Note("1 key was dropped", "warn")
    assert noted(state, running) == "1 key was dropped"


def test_the_note_of_a_run_says_until_when_how_fast_and_what_waits() -> None:
    run_to = Status("the run goes on", monotonic(), run=str(Goal(9)), updated=monotonic(), speed=5.0, watched=True)
    state = opened(frame())
    assert noted(state, replace(run_to, waiting=2)) == (
        "running at 5 commands a second, watched until iteration 9 is done, 2 commands wait: "
        "space pauses, + - change it"
    )
    silent = replace(run_to, since=monotonic() - 10, updated=monotonic() - 10)
    assert re.fullmatch(r"this iteration has run for 10\.\d s: space pauses behind it", noted(state, silent))
    paused = replace(silent, stops=True)
    assert re.fullmatch(r"this iteration has run for 10\.\d s: the run pauses behind it", noted(state, paused))


def test_what_takes_long_is_said_after_a_moment_and_how_far_it_is() -> None:
    state, output = opened(frame(1, "f")), CapturedOutput()
    now = Status("forward runs", monotonic())
    assert state.waiting_note(now, output) is None
    long_ago = replace(now, since=monotonic() - 3)
    assert noted(state, long_ago).startswith("forward runs: 3")
    assert state.is_patient
    output.take_in(b"downloading 40 %")
    assert noted(state, long_ago, output).startswith("downloading 40 % so far: 3")
    state.show_frame(frame(0))
    back = replace(long_ago, progress=Progress(3, 10))
    assert "3" in noted(state, back)
    assert "10" in noted(state, back)
    state.say(Note("written: run.py"), IDLE, output)
    assert not state.is_patient


def test_an_answer_of_any_request_with_a_sentence_is_said() -> None:
    export = Export(Path("run.py"), sentence="written: run.py")
    assert ScreenState().update_note(update(frame(), export)) == Note("written: run.py", "accent")
