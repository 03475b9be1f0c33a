"""Messages about what goes on: what is watched, how far a rewind has come, where training stands."""

from __future__ import annotations

from collections.abc import Sequence

from autograd_tui.core.frame_store import Branch
from autograd_tui.core.replay_check import Divergence
from autograd_tui.core.run_observer import Progress
from autograd_tui.core.watchpoint import Watchpoint
from autograd_tui.text.numbers import duration, number

BAR_LENGTH = 10  # characters of a progress bar


def watch_line(watchpoints: Sequence[Watchpoint]) -> str:
    """Return the conditions at which a run pauses, in a sentence."""
    if not watchpoints:
        return "nothing is watched: watch nonfinite pauses a run at NaN or infinity"
    return f"a run pauses at: {'; '.join(map(str, watchpoints))} (watch off ends it)"


def progress_line(progress: Progress, seconds: float = 0.0) -> str:
    """Return how far going back, a gradient check or a surface has come.

    A check first makes a copy in float64, and measures nothing until that has run: its `seconds` say that it goes on.
    """
    if progress.surface:
        share = progress.done * BAR_LENGTH // max(progress.of, 1)
        bar = "█" * share + "·" * (BAR_LENGTH - share)
        return f"measuring the loss {bar} {progress.done:,} of {progress.of:,} points, escape gives it up"
    if progress.gradient:
        so_far = [f"{progress.done:,} of {progress.of:,}"] if progress.of else []
        so_far += [duration(seconds)] if seconds >= 1 else []
        return f"checking {progress.gradient}{': ' * bool(so_far)}{', '.join(so_far)}, escape gives it up"
    frames = f"{progress.done:,} of {progress.of:,} frames"
    return f"returning: {frames}" if progress.home else f"going back: {frames}, escape gives it up"


def script_runs_line(title: str, seconds: float, printed: str = "") -> str:
    """Return that a script goes on, and since when: what it does until its next stop is not known.

    `printed` is a line that it has not ended, such as a progress bar.
    """
    so_far = f": {printed}" if printed else ""
    return f"{title} runs, {duration(seconds)} since its last frame{so_far}"


def divergence_line(difference: Divergence) -> str:
    """Return a sentence on the frame at which a re-run differs from the first time, and by how much."""
    start = f"run again, frame {difference.index} is not what it was"
    if not difference.what:
        return f"{start}: something that no checkpoint keeps has changed."
    if difference.before is None and difference.now is None:
        return f"{start}: its {difference.what} differ."
    before, now = (_exact(value) for value in (difference.before, difference.now))
    if number(difference.before) != number(difference.now):
        before, now = number(difference.before), number(difference.now)
    return f"{start}: {difference.what} {before} → {now}."


def left_branch_line(branch: Branch) -> str:
    """Return a sentence on what was left just now, and how to return to it."""
    first, last = branch.fork + 1, len(branch)
    frames = f"frame {last:,} is" if first == last else f"frames {first:,} to {last:,} are"
    return f"{frames} kept as a branch: :branch={branch.number} returns there."


def branch_line(branch: Branch) -> str:
    """Return a sentence on where a branch was left for another, how long it is, and how well it trained."""
    loss = "" if branch.loss is None else f", last loss {number(branch.loss)}"
    return f"{len(branch):,} {'frame' if len(branch) == 1 else 'frames'}, left at frame {branch.fork:,}{loss}"


def _exact(value: float | None) -> str:
    return "none" if value is None else repr(value)
