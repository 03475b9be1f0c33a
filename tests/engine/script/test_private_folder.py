"""The folder in which a screen and its script meet."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from autograd_tui.engine.script import script_session
from autograd_tui.engine.script.agent_messages import PAUSE_NAME


def test_what_a_killed_screen_has_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, live, other = (script_session._private_folder() for _ in range(3))
    pause = script_session._new_pause_byte(left / PAUSE_NAME)
    script_session._listen(left).close()
    pause.close()  # as when its screen is killed
    kept = script_session._new_pause_byte(live / PAUSE_NAME)
    listening = script_session._listen(live)
    (other / "notes").touch()
    script_session._private_folder()
    assert (left.exists(), live.exists(), other.exists()) == (False, True, True)
    listening.close()
    kept.close()
