"""What runs are watched for, in words."""

from __future__ import annotations

from collections.abc import Sequence

from autograd_tui.engine.values.watchpoint import Watchpoint


def watched_line(watchpoints: Sequence[Watchpoint]) -> str:
    """Say at which conditions a run pauses."""
    if not watchpoints:
        return "nothing is watched: watch nonfinite pauses a run at NaN or infinity"
    return f"a run pauses at: {'; '.join(map(str, watchpoints))} (watch off ends it)"
