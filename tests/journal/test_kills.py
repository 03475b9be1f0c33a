"""A run that is killed at a random moment has lost at most its last command."""

from __future__ import annotations

from kills import kill


def test_runs_that_are_killed_have_kept_what_they_ran() -> None:
    assert kill(10, seed=1) == []
