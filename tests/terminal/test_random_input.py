from __future__ import annotations

import sys
from pathlib import Path

import fork_server


def test_random_input_and_resizes_do_no_harm() -> None:
    script = Path(__file__).parents[1] / "support" / "random_input.py"
    played = fork_server.run([sys.executable, str(script), "--programs", "2", "--bytes", "4000"])
    assert played.returncode == 0, played.stdout + played.stderr
