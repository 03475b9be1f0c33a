"""What a script prints whose import of PyTorch ends by an exception: what it prints under plain Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autograd_tui.engine.script.script_process import script_environment

RAISES = "def load():\n    raise ImportError('no library')\n\n\nload()\n"
IS_INTERRUPTED_LATER = "def __getattr__(name):\n    raise KeyboardInterrupt\n"  # where the agent is imported


@pytest.mark.parametrize("torch", [RAISES, RAISES.replace("ImportError", "KeyboardInterrupt"), IS_INTERRUPTED_LATER])
def test_an_import_that_ends_by_an_exception_shows_no_frame_of_ours(tmp_path: Path, torch: str) -> None:
    (tmp_path / "torch.py").write_text(torch)
    (tmp_path / "train.py").write_text("import torch\n")

    def errors(environment: dict[str, str]) -> str:
        words = [sys.executable, "train.py"]
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False).stderr

    shown = errors(script_environment(tmp_path, os.environ))
    if torch is IS_INTERRUPTED_LATER:
        lines = shown.splitlines()
        assert (lines[0], lines[-1]) == ("Traceback (most recent call last):", "KeyboardInterrupt")
        assert "autograd_tui" not in shown
        assert "train.py" in shown
    else:
        assert shown == errors(dict(os.environ))
