"""Watchpoints are armed at the prompt, and the screen says where they fire."""

from __future__ import annotations

from pathlib import Path

import pytest

from app_screen import Screen, screen
from autograd_tui.core.command import Phase
from autograd_tui.tui.trace_screen import TraceScreen


async def say(shown: Screen, words: str) -> None:
    shown.app.main.prompt_actions.run(words)
    await shown.settle()


async def test_a_run_pauses_where_a_watchpoint_fires_and_says_so() -> None:
    async with screen() as shown:
        await say(shown, "watch loss < 3")
        await shown.press("r")
        frame = shown.session.frame
        assert frame.loss is not None
        assert (
            shown.note == f"paused at frame {frame.index}: loss {frame.loss:.4g} < 3; i looks inside, e writes a repro"
        )


async def test_it_is_armed_while_a_run_goes_on() -> None:
    async with screen() as shown:
        shown.app.main.prompt_actions.run("run")
        shown.app.main.prompt_actions.run("watch loss < 1e9")
        await shown.settle()
        assert shown.note.startswith(f"paused at frame {shown.session.frame.index}: loss ")


async def test_many_iterations_in_words_pause_too() -> None:
    async with screen() as shown:
        await say(shown, "watch grad_norm > 2")
        await say(shown, "fbsz*100")
        assert shown.session.frame.index == 2
        assert shown.note == "paused at frame 2: grad_norm 2.404 > 2; i looks inside, e writes a repro"


async def test_a_single_phase_says_that_one_fires() -> None:
    async with screen() as shown:
        await say(shown, "watch grad_norm > 2")
        await shown.press("f", "b")
        assert shown.note == "frame 2: grad_norm 2.404 > 2; i looks inside, e writes a repro"
        await shown.press("s")
        assert shown.note == ""


async def test_what_is_armed_is_listed_and_disarmed() -> None:
    async with screen() as shown:
        await say(shown, "watch")
        assert shown.note == "nothing is watched: watch nonfinite pauses a run at NaN or infinity"
        await say(shown, "watch nonfinite")
        await say(shown, "watch w>3")
        assert shown.note == "a run pauses at: nonfinite; w > 3 (watch off ends it)"
        await say(shown, "watch off")
        assert shown.session.watchpoints == ()


async def test_what_cannot_be_watched_is_said() -> None:
    async with screen() as shown:
        await say(shown, "watch v > 3")
        assert shown.note == 'there is no parameter "v" to watch: this model has w, b.'
        await say(shown, "watch everything")
        assert shown.note.startswith('"everything" is no watchpoint: there are nonfinite,')


async def test_the_prompt_offers_conditions() -> None:
    async with screen() as shown:
        offered = [each.word for each in shown.app.main.prompt_actions.offer("watch ")[1]]
        assert {"nonfinite", "off", "w>", "b.grad>"} <= set(offered)


async def test_at_the_frame_where_it_fired_e_writes_a_repro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with screen() as shown:
        await say(shown, "watch grad_norm > 2")
        await shown.press("r", "e")
        assert shown.note == "written: repro-2.pt; repro-2.py repeats it"
        await shown.press("s", "e")
        assert sorted(path.suffix for path in tmp_path.iterdir()) == [".pt", ".py", ".svg", ".txt"]


async def test_each_e_there_writes_a_repro_of_its_own_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "repro-2-3.py").write_text("mine")
    async with screen() as shown:
        await say(shown, "watch grad_norm > 2")
        await shown.press("r", "e", "e")
        assert shown.note == "written: repro-2-2.pt; repro-2-2.py repeats it"
        await shown.press("e")
        assert shown.note == "written: repro-2-4.pt; repro-2-4.py repeats it"
        assert (tmp_path / "repro-2-3.py").read_text() == "mine"


async def test_a_repro_of_a_given_name_goes_over_no_script(tmp_path: Path) -> None:
    (tmp_path / "fault.py").write_text("mine")
    async with screen(do="f") as shown:
        await say(shown, f"export {tmp_path / 'fault.pt'}")
        assert shown.note == f"{tmp_path / 'fault.py'} exists: give another name."


async def test_i_looks_inside_the_phase_of_the_fault_and_the_next_i_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with screen(do="fbsz w=3e38") as shown:
        await say(shown, "watch nonfinite")
        await shown.press("r")
        assert shown.session.frame.index == 6
        await shown.press("i")
        assert shown.session.newest == 6
        inside = shown.app.screen
        assert isinstance(inside, TraceScreen)
        assert inside.trace_position is not None
        assert (inside.trace_position.trace.phase, inside.trace_position.op.name) == (Phase.FORWARD, "mul")
        await shown.press("e", "i")
        assert (tmp_path / "repro-6.pt").exists()
        await shown.press("i")
        assert shown.session.newest == 7
