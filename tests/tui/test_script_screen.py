from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app_screen import running
from autograd_tui.core.capabilities import SCRIPTED
from autograd_tui.core.command import Command, parse
from autograd_tui.core.frame import Frame
from autograd_tui.core.session_protocol import DeviceLoad
from autograd_tui.core.trace import Trace
from autograd_tui.core.watchpoint import FiredWatchpoint
from autograd_tui.text.batch_table import batch_lines
from autograd_tui.text.styled_text import plain
from autograd_tui.tui.app import AutogradApp, _leads_run
from autograd_tui.tui.lent_terminal import LentTerminal
from autograd_tui.tui.panels.footer import KeysPanel
from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.panels.text_panels import wrapped_sentences
from autograd_tui.tui.panels.trace_panels import SourcePanel
from handmade_scripts import ABOUT, SCENES, HeldScript, gan
from handmade_session import TracedSession
from handmade_traces import line_backward, line_forward

SIZES = [(200, 60), (120, 40), (80, 24), (60, 15)]


def script_app(scene: str | list[Frame]) -> AutogradApp:
    session = HeldScript(SCENES[scene]() if isinstance(scene, str) else scene)
    return AutogradApp(lambda _: session, parse(""), title="train.py", can=SCRIPTED)


@pytest.mark.parametrize("size", SIZES)
async def test_a_script_is_seen_at_its_line_with_the_present_call_marked(size: tuple[int, int]) -> None:
    async with running(script_app("accumulated"), size) as shown:
        await shown.press(*["space"] * 10)
        phases = shown.text("PhasesPanel")
        assert "CLIP▐" in phases
        assert "norm 3.2173 of 1" in phases
        order = [phases.lower().index(kind) for kind in ("forward", "backward", "unscale", "clip", "step", "zero_grad")]
        assert order == sorted(order)
        assert "space: zero_grad" not in phases
        assert re.search(r"▶  8 +torch.nn.utils.clip_grad_norm_", shown.text("CodePanel"))
        keys = shown.text("KeysPanel")
        assert "f b s z run to" in keys
        assert "veil" not in keys
        assert "optimizer" not in keys


async def test_a_script_that_is_taken_back_is_said_to_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    busy: list[str | None] = []
    run = HeldScript.run

    def run_noted(session: HeldScript, command: Command) -> Frame:
        busy.append(shown.app.main.trainer.status.busy)
        return session.frame if command.goes_back else run(session, command)

    monkeypatch.setattr(HeldScript, "run", run_noted)
    async with running(script_app("gan"), (120, 40)) as shown:
        await shown.press("space", "u")
    assert busy == ["the script runs", "going back"]


async def test_the_variable_of_the_optimizer_is_named_where_there_is_room() -> None:
    async with running(script_app("gan"), (120, 40)) as shown:
        await shown.press(*["space"] * 10)
        assert "▌optimizerG.STEP▐" in shown.text("PhasesPanel")
        assert "space: next stop" in shown.text("PhasesPanel")
        await shown.press("left")
        assert "▌errG.BACKWARD▐" in shown.text("PhasesPanel")
        await shown.press("left")
        assert "▌FORWARD▐" in shown.text("PhasesPanel")
        assert "errG is 0.8312" in shown.text("ExplanationPanel")


async def test_of_several_losses_it_is_said_which_one_is_drawn_and_which_one_the_number_is() -> None:
    several: dict[str, Any] = {
        "has_several_losses": True,
        "loss_call": "errD_fake.backward",
        "last_loss_call": "errG.backward",
    }
    frames = [replace(each, script=replace(each.script, **several)) for each in gan() if each.script is not None]
    async with running(script_app(frames), (120, 40)) as shown:
        await shown.press(*["space"] * 5)
        assert str(shown.app.main.query_one(LossPanel).border_title).startswith("Loss errG")
        assert "errD_fake 0.6544  fresh" in shown.text("LossPanel")


REFUSED = {
    "B": "none can be forced",
    "o": "made its optimizers itself",
    "v": "the veil is for models that are trained here",
    ":optimizer=adam": "made its optimizers itself",
    ":seed=1": "draws its random numbers itself",
    ":0.weight.requires_grad=False": "freezes its parameters itself",
    ":model spiral": "this screen leads one script",
    ":fB": "none can be forced",
    ":export run.py": "a script is its own file already",
}


async def test_what_a_script_cannot_do_is_refused_with_the_reason_and_offered_nowhere() -> None:
    async with running(script_app("simple"), (120, 40)) as shown:
        for keys, reason in REFUSED.items():
            await shown.press("colon" if keys.startswith(":") else keys)
            if keys.startswith(":"):
                shown.app.main.prompt.open(keys[1:])
                await shown.press("enter")
            assert reason in shown.note
            assert shown.app.main.view.frame is not None
            assert shown.app.main.view.frame.index == 0
            await shown.press("escape")
            offered = [each.word for each in shown.app.main.prompt_actions.offer(keys.lstrip(":")[:6])[1]]
            assert not keys.startswith(":") or keys[1:] not in offered
        words = [each.word for each in shown.app.main.prompt_actions.offer("")[1]]
        assert {"lr=", "run ", "watch ", "export ", "inside", "@0"} <= set(words)
        assert not {"optimizer=", "seed=", "veil", "model ", "B", "fbsz"} & set(words)
        assert [each.line for each in shown.app.main.prompt_actions.offer("b")[1][:1]] == [
            "run on to the next backward"
        ]


async def test_help_says_what_the_keys_do_with_a_script() -> None:
    async with running(script_app("simple"), (120, 60)) as shown:
        await shown.press("question_mark")
        page = "\n".join(strip.text for strip in shown.app.screen._compositor.render_strips())
        assert "run on to its next forward, backward, step, zero_grad" in page
        assert "capitals insist" not in page
        assert "veil" not in page
        await shown.press("question_mark")
        page = "\n".join(strip.text for strip in shown.app.screen._compositor.render_strips())
        assert "run on to the script's next step" in page
        assert "hide new numbers" not in page
        await shown.press("question_mark")
        page = "\n".join(strip.text for strip in shown.app.screen._compositor.render_strips())
        assert "run on to the next forward" in page
        assert "optimizer=NAME" not in page
        assert "--do" not in page


async def test_a_stop_looked_back_at_promises_no_way_back() -> None:
    async with running(script_app("gan"), (120, 40)) as shown:
        await shown.press("space", "space", "left")
        assert shown.note == "frame 1 of 2: escape returns"


async def test_a_script_that_has_ended_is_said_to_have_with_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    session = HeldScript(SCENES["simple"]())
    app = AutogradApp(lambda _: session, parse(""), title="train.py", can=SCRIPTED)
    async with running(app, (120, 40)) as shown:
        await shown.press("space")
        session.end("train.py has ended after 9 events (exit code 1).")
        app.main.state.change(printed=("epoch 1", "RuntimeError: shapes", ""))
        await shown.press("r")
        assert shown.note == "train.py has ended after 9 events (exit code 1)."
        await shown.press("left", "escape")
        assert shown.note == "train.py has ended after 9 events (exit code 1). Its last line: RuntimeError: shapes"
        assert "it has ended" in shown.text("PhasesPanel")
        assert "space:" not in shown.text("PhasesPanel")
        session.can = replace(SCRIPTED, ended=True)  # with snapshots that it may be taken back to
        await shown.press("left", "escape")
        assert "it has ended" in shown.text("PhasesPanel")
        monkeypatch.setattr(LentTerminal, "has_script", True)
        await shown.press("ctrl+c")
        assert shown.note == "ctrl+c once more quits"


async def test_e_writes_a_repro_of_a_script_where_a_watchpoint_has_fired_and_a_picture_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    session, asked = HeldScript(SCENES["simple"](), at=1), list[object]()
    session.fired = FiredWatchpoint(session.frame.index, 1, "the loss is NaN")

    def export(path: Path, *_: object, numbered: bool, **__: object) -> str:
        asked.extend((path, numbered))
        return f"written: {path}"

    app = AutogradApp(lambda _: session, parse(""), title="train.py", can=SCRIPTED, exporter=export)
    async with running(app, (120, 40)) as shown:
        await shown.press("e")
        assert shown.note == f"written: repro-{session.frame.index}.pt"
        assert asked == [Path(f"repro-{session.frame.index}.pt"), True]
        await shown.press("space", "e")
        assert shown.note.startswith("written: autograd-tui_")
        assert ":export run.html gives a page" in shown.note
    assert sorted(each.suffix for each in tmp_path.iterdir()) == [".svg", ".txt"]


async def test_inside_a_call_whose_lines_are_not_known_the_script_is_shown() -> None:
    trace = line_backward()
    trace = replace(trace, ops=tuple(replace(op, source=None) for op in trace.ops))
    session = TracedSession(ABOUT, [replace(gan()[9], index=trace.index)], trace)
    app = AutogradApp(lambda _: session, parse(""), title="train.py")
    async with running(app, (120, 40)) as shown:
        await shown.press("i")
        assert shown.app.main.trace_screen is not None
        (panel,) = shown.app.main.trace_screen.query(SourcePanel)
        assert panel.border_title == "Source   train.py, line 15"
        assert any("▶ 15 errG.backward()" in plain(line) for line in panel.lines(50, 9))


@pytest.mark.parametrize(("trace", "checks"), [(line_forward(), False), (line_backward(), True)])
async def test_a_check_is_offered_where_a_script_can_make_one(trace: Trace, checks: bool) -> None:
    session = TracedSession(ABOUT, [replace(gan()[9], index=trace.index)], trace)
    session.can = SCRIPTED
    async with running(AutogradApp(lambda _: session, parse(""), title="train.py", can=SCRIPTED), (120, 40)) as shown:
        await shown.press("i")
        inside = shown.app.main.trace_screen
        assert inside is not None
        keys = [key for key, *_ in inside.query_one(KeysPanel).fitting(120)]
        assert ("p" in keys) is checks
        assert {"space", "n", "i"} <= set(keys)


async def test_the_memory_of_the_scripts_process_is_in_the_first_row() -> None:
    session = HeldScript(SCENES["simple"](), 3)
    session.device_load = DeviceLoad(2_345_000_000)
    app = AutogradApp(lambda _: session, parse(""), title="train.py", can=SCRIPTED)
    async with running(app, (120, 40)) as shown:
        await shown.press("space")
        assert " · cpu RSS 2.3 GB " in shown.text("StatusPanel")
        session.device_load = DeviceLoad(2_460_000_000)
        await shown.until(lambda: " · cpu RSS 2.5 GB " in shown.text("StatusPanel"))


async def test_what_a_free_run_has_left_unknown_is_not_said_to_come_yet() -> None:
    unknown: dict[str, Any] = dict.fromkeys(("loss", "loss_params", "prediction", "inputs", "targets"))
    frames = SCENES["simple"]()
    frames[6:] = [replace(each, **unknown, top=()) for each in frames[6:]]
    session = HeldScript(frames, 3)
    app = AutogradApp(lambda _: session, parse(""), title="train.py", can=SCRIPTED)
    async with running(app, (200, 60)) as shown:
        await shown.press("space", "space", "space")
        assert session.frame.index == 6
        assert "not known at this stop" in shown.text("LossPanel")
    assert plain(batch_lines(session.frame, ABOUT, 60)[0]) == "not known at this stop"


async def test_what_a_sentence_says_of_a_long_name_is_not_left_out() -> None:
    name = "transformer_encoder.layers.0.linear2.weight"
    sentences = [(f"  most:  {name}, 2.0421% of it", "strong"), (f"  largest: {name}.grad, 0.5229", "strong")]
    rows = [plain(line) for line in wrapped_sentences(sentences, 46)]
    assert len(rows) == 2
    assert rows[0].endswith("0.linear2.weight, 2.0421% of it")
    assert rows[1].endswith(".weight.grad, 0.5229")


async def test_a_script_that_is_left_before_its_first_frame_has_no_line_that_repeats_it() -> None:
    async with running(script_app("simple"), (80, 24)) as shown:
        assert _leads_run(shown.app)
        shown.app.main.state.view = replace(shown.app.main.state.view, about=None)
        assert not _leads_run(shown.app)
