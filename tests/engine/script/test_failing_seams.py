"""What is said where a seam fails, which is a fault of this program's and must be no script's."""

from __future__ import annotations

from pathlib import Path
from time import monotonic, sleep

import pytest

from autograd_tui.core.errors import Refused
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.script.script_session import NeverTrained, ScriptSession

FAILS_AT_ONCE = """
import time
import torch
from autograd_tui.engine.script.script_frames import ScriptFrames

ScriptFrames.read = None
model = torch.nn.Linear(1, 1)
model(torch.ones(1)).sum().backward()
time.sleep(1)
print("after", model.weight.grad.item())
raise SystemExit(3)
"""


def test_a_script_whose_first_event_fails_in_a_seam_ends_by_itself(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(FAILS_AT_ONCE, encoding="utf-8")
    output = bytearray()
    with pytest.raises(NeverTrained, match="and could not be stepped: a seam has failed \\(TypeError") as raised:
        ScriptSession((str(script),), on_output=output.extend)
    assert raised.value.exit_code == 3
    assert bytes(output) == b"after 1.0\r\n"


LOOP = """
import os
import time
import torch

model = torch.nn.Linear(1, 1)
for number in range(4):
    if number == 2:
        {breaks}
    model(torch.ones(1)).sum().backward()
    {waits}
raise SystemExit(3)
"""
CLOSES_ALL, FAILS_LATER = "os.closerange(3, 256)", FAILS_AT_ONCE.partition("torch\n")[2].partition("model")[0].strip()


@pytest.mark.parametrize("breaks", [CLOSES_ALL, FAILS_LATER.replace("\n\n", "; ")], ids=["closes-all", "fails"])
def test_a_script_that_went_on_unseen_is_said_to_have_ended_once_it_has_and_not_behind_how_many_events(
    tmp_path: Path, breaks: str
) -> None:
    script = tmp_path / "train.py"
    script.write_text(LOOP.format(breaks=breaks, waits="time.sleep(2 * (number == 2))"), encoding="utf-8")
    session = ScriptSession((str(script),), on_output=bytearray().extend)
    try:
        with pytest.raises(Refused, match=r"train\.py goes on as under plain Python.*; frame 4 is the last one drawn"):
            list(session.run_until(Goal()))
        deadline = monotonic() + 20
        while "has ended" not in (session.notice or ""):
            assert monotonic() < deadline, session.notice
            session.refresh()
            sleep(0.01)
        assert session.notice == "train.py has ended (exit code 3); frame 4 is the last one drawn."
    finally:
        session.close(in_order=True)


def test_a_script_that_could_not_reach_the_screen_is_not_said_to_have_made_no_backward(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))"  # no socket can be opened any more
    script.write_text(
        LOOP.format(breaks="pass", waits="pass").replace("model =", f"{limit}; model ="), encoding="utf-8"
    )
    with pytest.raises(NeverTrained) as raised:
        ScriptSession((str(script),), on_output=bytearray().extend)
    assert str(raised.value) == "train.py has ended before a backward was seen (exit code 3)."
