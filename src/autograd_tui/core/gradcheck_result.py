"""The result of a gradient check: autograd's gradient beside finite differences, as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["agrees", "wrong", "differs", "kink"]


@dataclass(frozen=True, slots=True)
class GradCheck:
    """One gradient, computed in three ways, or four: element by element, or along random directions of length 1.

    `verdict`: "wrong" where autograd itself, in float64, is not what the differences are, "differs" where only the
    run's gradient is not, "kink" where the loss has no slope.
    """

    index: int  # of the frame whose gradient it is
    name: str  # of the parameter, or the operation whose output it is of
    shape: tuple[int, ...]
    kind: Literal["elements", "directions"]
    held: tuple[float, ...]  # what the run holds, in its own dtype
    numeric: tuple[float, ...]  # finite differences in float64
    exact: tuple[float, ...]  # autograd in float64
    closed: tuple[float, ...] | None  # the formula, where there is one
    verdict: Verdict
    step: float  # of the differences
    dtype: str = "float32"  # the run's
    coarsest: str = "float32"  # on the run's way, by a cast or autocast
    backwards: int = 1  # that are summed in it
    kinks: int = 0  # elements or directions in which the loss has no slope
    held_still: tuple[str, ...] = ()  # the lines at which gradients are cut off, "detach (line 18)"
    casts: tuple[str, ...] = ()  # the calls that asked for less than float64, "float (line 18)"
    autocast: bool = False  # whether the forward asks for it
    of_script: bool = False  # whether a script's own code made the forwards, in copies of its process
    scale: float = 1.0  # that GradScaler has multiplied the loss by, and so the gradient

    @property
    def error(self) -> float:
        """The largest distance of autograd in float64 from the differences, where there is a slope."""
        return _largest(self.numeric, self.exact)

    @property
    def relative_error(self) -> float:
        """The same, as a share of the largest difference."""
        return _share(self.error, self.numeric, self.exact)

    @property
    def held_error(self) -> float:
        """The largest distance of the run's gradient from the differences."""
        return _largest(self.numeric, self.held)

    @property
    def relative_held_error(self) -> float:
        """The same, as a share of the largest difference."""
        return _share(self.held_error, self.numeric, self.exact)


def _largest(some: Sequence[float], others: Sequence[float]) -> float:
    return max((abs(a - b) for a, b in zip(some, others, strict=True)), default=0.0)


def _share(error: float, numeric: Sequence[float], exact: Sequence[float]) -> float:
    size = max((abs(each) for each in (*numeric, *exact)), default=0.0)
    return error / size if size else error
