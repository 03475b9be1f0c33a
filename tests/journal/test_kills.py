"""A run that is killed at a random moment has lost at most its last command."""

from __future__ import annotations

import sys
from pathlib import Path

import fork_server

KILLS = Path(__file__).parents[1] / "support" / "kills.py"


def test_runs_that_are_killed_in_twelve_ways_have_kept_what_they_ran() -> None:
    """In a process of its own: one whose copies are killed must have no threads."""
    done = fork_server.run([sys.executable, str(KILLS), "12"])
    assert done.stdout.startswith("12 runs killed, 0 not kept as promised"), done.stdout + done.stderr
    assert done.returncode == 0
