"""What is said where a seam fails, which is a fault of this program's and must be no script's."""

from __future__ import annotations

from pathlib import Path

import pytest

from autograd_tui.engine.script.script_session import NeverTrained, ScriptSession

FAILS_AT_ONCE = """
import torch
from autograd_tui.engine.script.script_frames import ScriptFrames

ScriptFrames.read = None
model = torch.nn.Linear(1, 1)
model(torch.ones(1)).sum().backward()
"""


def test_a_seam_that_fails_at_the_first_event_is_told(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(FAILS_AT_ONCE, encoding="utf-8")
    with pytest.raises(NeverTrained, match="A seam has failed \\(TypeError"):
        ScriptSession((str(script),), on_output=lambda data: None)
