"""What a user's code may do to the terminal and to the program's way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile_scenarios import write
from pseudo_terminal import terminal
from suite_options import some

THREAD = "threading.Thread(target=lambda: time.sleep(1000)).start()"


@pytest.mark.parametrize("code", some(["raise Bad('mine')", THREAD, "input()", "os.close(1)", "sys.stdout = None"], 3))
def test_the_screen_lives_and_q_leaves_whatever_a_forward_does(tmp_path: Path, code: str) -> None:
    with terminal(write(tmp_path, code, "forward")) as shown:
        shown.wait_for("mine · SGD")
        shown.type("f")
        shown.wait_for("frame 1 of 1")
        shown.type("q")
        assert "Traceback" not in shown.end()
        assert shown.exit_code == 0


@pytest.mark.parametrize(("keys", "code"), [("q", 0), ("\x03", 130)])
def test_a_build_that_takes_long_is_said_and_can_be_left_at_once(tmp_path: Path, keys: str, code: int) -> None:
    with terminal(write(tmp_path, "time.sleep(1000)", "build")) as shown:
        shown.wait_for("loading PyTorch and")
        shown.type(keys)
        assert "\x1b[?1049l" in shown.end()
        assert shown.exit_code == code
