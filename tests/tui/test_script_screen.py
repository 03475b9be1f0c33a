from __future__ import annotations

import re

import pytest

from app_screen import running
from autograd_tui.core.command import parse
from autograd_tui.core.session_protocol import SCRIPTED
from autograd_tui.tui.app import AutogradApp
from handmade_scripts import SCENES, HeldScript

SIZES = [(200, 60), (120, 40), (80, 24), (60, 15)]


def script_app(scene: str) -> AutogradApp:
    session = HeldScript(SCENES[scene]())
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


async def test_the_variable_of_the_optimizer_is_named_where_there_is_room() -> None:
    async with running(script_app("gan"), (120, 40)) as shown:
        await shown.press(*["space"] * 10)
        assert "▌optimizerG.STEP▐" in shown.text("PhasesPanel")
        assert "space: next stop" in shown.text("PhasesPanel")
        await shown.press("left", "left")
        assert "▌errG.FORWARD▐" in shown.text("PhasesPanel")
        assert "errG is 0.8312" in shown.text("ExplanationPanel")
