from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_random_input_and_resizes_do_no_harm() -> None:
    script = Path(__file__).parents[1] / "support" / "random_input.py"
    played = subprocess.run(
        [sys.executable, str(script), "--programs", "2", "--bytes", "4000"], capture_output=True, text=True
    )
    assert played.returncode == 0, played.stdout + played.stderr
