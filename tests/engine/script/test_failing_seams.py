"""What is said where a seam fails, which is a fault of this program's and must be no script's."""

from __future__ import annotations

from pathlib import Path

import pytest

from autograd_tui.engine.script.script_session import NeverTrained, ScriptSession

FAILS_AT_ONCE = """
import time
import torch
from autograd_tui.engine.script.script_frames import ScriptFrames

ScriptFrames.read = None
model = torch.nn.Linear(1, 1)
model(torch.ones(1)).sum().backward()
time.sleep(2)
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
