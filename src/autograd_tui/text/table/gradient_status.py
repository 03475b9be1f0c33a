"""What has become of gradients: None, fresh, used, sums of several backwards, or left from before."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import NONFINITE_COLUMN, ROW_WIDTH, Grads, GradStats, StatsTable
from autograd_tui.text.numbers import at_least, number

UNSEEN = "from before"  # of a backward that a script had made before its first event was seen
FULL_WORDS = {
    "used": "used by step, not cleared",
    "before the move": "fresh, but from before the parameters moved",
    UNSEEN: "there before the first backward that was seen",
}


def main_number(grad: GradStats) -> float | None:
    """Return the value of a gradient that has one, else its norm; None where it has none."""
    return grad.values[0] if grad.size == 1 and grad.values else grad.norm


def main_words(grad: GradStats) -> str:
    """Write the value of a gradient that has one, with its sign, else its norm."""
    return number(main_number(grad), signed=grad.size == 1 and grad.values is not None)


def largest_number(frame: Frame) -> float:
    """Return the greatest size of the finite numbers that stand for gradients; 0 where there are none."""
    numbers = (main_number(grad) for grad in frame.grads if grad is not None)
    return max((abs(each) for each in numbers if each is not None and math.isfinite(each)), default=0.0)


def norm_over(table: StatsTable) -> str:
    """Write the norm over all tensors of a table, as at least what it is where some have none."""
    return at_least(table.least_norm(), partly=bool(table.layout.left_out()))


def gradient_status(frame: Frame, index: int) -> str:
    """Return in a word or two what has become of a parameter's gradient."""
    return _status(frame, index, old=frame.loss_is_old)


def gradient_statuses(frame: Frame) -> list[str]:
    """Return it for every parameter, in the model's order; what is alike in all that matters is looked at once."""
    indices, old = range(len(frame.grads)), frame.loss_is_old
    outside = _kept_outside(frame)
    marks = ([index in marked for index in indices] for marked in (frame.frozen, frame.unused, outside))
    left = (_is_of_an_earlier_forward(frame, index) for index in indices)
    kinds = list(zip(frame.grads.backwards, frame.grads.used, *marks, left, strict=True))
    words = {kind: _status(frame, index, old=old) for kind, index in dict(zip(kinds, indices, strict=True)).items()}
    return [words[kind] for kind in kinds]


def _status(frame: Frame, index: int, *, old: bool) -> str:
    backwards, used = frame.grads.backwards[index], frame.grads.used[index]
    if not backwards:
        return "frozen" if index in frame.frozen else "unused by loss" if index in frame.unused else "None"
    if _is_unseen(frame):
        return UNSEEN
    summed = f"sum of {backwards}" if backwards > 1 else ""
    if index in _kept_outside(frame):
        return f"{summed or 'kept'}, no step's"
    if used:
        return f"{summed}, used" if summed else "used"
    if old:
        return summed or "before the move"
    earlier = _is_of_an_earlier_forward(frame, index) and frame.script is None  # a script may add up several
    return summed or ("unused" if earlier else "fresh")


def full_status(frame: Frame, grad: GradStats, index: int) -> str:
    """Return in a few words what has become of one gradient."""
    if index in _kept_outside(frame):
        summed = f"sum of {grad.backwards} backwards, " if grad.backwards > 1 else ""
        return f"{summed}not held by the optimizer"
    if _is_unseen(frame):
        return FULL_WORDS[UNSEEN]
    summed = f"sum of {grad.backwards} backwards" if grad.backwards > 1 else ""
    if grad.used:
        return f"{summed}, used" if summed else FULL_WORDS["used"]
    if frame.loss_is_old and frame.mover is not None:
        mover = f"the last {frame.mover.phase.value}" if frame.mover.phase else str(frame.mover)
        return f"{summed or 'fresh'}, but from before {mover}"
    if frame.script is not None:
        return summed or ("fresh, of an earlier backward" if _is_of_an_earlier_forward(frame, index) else "fresh")
    return summed or ("unused, from before this forward" if _is_of_an_earlier_forward(frame, index) else "fresh")


def _kept_outside(frame: Frame) -> frozenset[int]:
    """Return the parameters that an optimizer leaves out; none where there is no optimizer at all."""
    return frozenset() if frame.lacks_optimizers else frame.grads.outside


def _is_unseen(frame: Frame) -> bool:
    """Return whether no backward of a script has been seen, so that nobody knows what made its gradients."""
    return frame.script is not None and not frame.iteration


def _is_of_an_earlier_forward(frame: Frame, index: int) -> bool:
    """Return whether no backward of the latest forward has made, or added to, a gradient that is there."""
    before = frame.added_to.backwards[index] if frame.added_to else 0
    return frame.graph == "alive" or 0 < before == frame.grads.backwards[index]


def status_counts(frame: Frame, indices: Sequence[int] | None = None) -> str:
    """Return what has become of the gradients of some parameters, or of all."""
    ages = gradient_statuses(frame)
    counted = Counter(ages if indices is None else [ages[index] for index in indices])
    only = next(iter(counted)) if len(counted) == 1 else None
    return FULL_WORDS.get(only, only) if only else ", ".join(f"{count} {word}" for word, count in counted.items())


def largest_gradient(grads: Grads, indices: Sequence[int] | None = None) -> GradStats | None:
    """Return the gradient with the greatest norm, of some or of all; one that is NaN or infinite counts as greatest.

    None where there is none, or it cannot be known, since one of them has no norm.
    """
    norms = grads.norms()
    every = range(len(norms)) if indices is None else indices
    if grads.left_out(every):
        return None
    known = [(index, norm) for index in every if (norm := norms[index]) is not None]
    most = max(known, key=lambda each: (not math.isfinite(each[1]), each[1]), default=None)
    return grads[most[0]] if most else None


def gradient_summary(frame: Frame) -> list[str]:
    """Return what is true of all gradients, in parts, the first of which matters most."""
    words = status_counts(frame)
    if not any(frame.grads.backwards):
        last = frame.last_grads
        return [words, f"|grad| was {norm_over(last.table)}"] if last and any(last.backwards) else [words]
    nonfinite = sum(1 for count in frame.grads.table.numbers[NONFINITE_COLUMN::ROW_WIDTH] if count)
    unknown = len(frame.grads.table.layout.left_out())
    health = f"{nonfinite} hold NaN or infinity" if nonfinite else "the others finite" if unknown else "all finite"
    return [words, *[f"{unknown} not measured"] * bool(unknown), health]
