"""The folder in which a screen and its script meet."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from autograd_tui.engine.script import agent_client
from autograd_tui.engine.script.agent_messages import PAUSE_NAME

KILLED = """
import os, sys
from pathlib import Path
from autograd_tui.engine.script import agent_client

folder = Path(sys.argv[1])
kept = agent_client._new_pause_byte(folder / agent_client.PAUSE_NAME), agent_client._listen(folder)
os._exit(0)
"""


def test_what_a_killed_screen_has_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, live, other = (agent_client._private_folder() for _ in range(3))
    subprocess.run([sys.executable, "-c", KILLED, str(left)], check=True)
    kept = agent_client._new_pause_byte(live / PAUSE_NAME)
    listening = agent_client._listen(live)
    (other / "notes").touch()
    last = agent_client._private_folder()
    assert (left.exists(), live.exists(), other.exists()) == (False, True, True)
    listening.close()
    kept.close()
    for each in (live, other, last):
        shutil.rmtree(each)
