"""What a run goes on until."""

from __future__ import annotations

from dataclasses import dataclass

from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.optimizer_spec import format_number
from autograd_tui.engine.values.turn import next_phase


@dataclass(frozen=True, slots=True)
class Goal:
    """The end of an iteration, a loss, whichever comes first; with neither, a run goes on until it is stopped."""

    iteration: int | None = None  # is done
    below: float | None = None  # the loss is less than this
    above: float | None = None

    @classmethod
    def from_here(cls, frame: Frame, iterations: int) -> Goal:
        """Give the end of so many iterations from a frame on, the one that has begun included."""
        return cls(_coming_iteration(frame) + iterations - 1)

    def is_past(self, frame: Frame) -> bool:
        """Tell whether its iteration is done: the phase that comes next belongs to a later one."""
        return self.iteration is not None and _coming_iteration(frame) > self.iteration

    def reached_by(self, frame: Frame) -> bool:
        """Tell whether a run ends at this frame: at the end of the iteration, or as soon as the loss is measured.

        It also ends where that is out of reach.
        """
        if frame.phase is Phase.FORWARD and self.has_loss(frame.loss):
            return True
        ends = frame.phase is Phase.ZERO_GRAD or (frame.phase is Phase.FORWARD and frame.graph == "none")
        return self.iteration is not None and ((ends and frame.iteration >= self.iteration) or _stands_still(frame))

    def is_out_of_reach(self, frame: Frame) -> bool:
        """Tell whether its iteration will not come, as when all parameters are frozen."""
        return self.iteration is not None and frame.iteration < self.iteration and _stands_still(frame)

    def has_loss(self, loss: float | None) -> bool:
        """Tell whether this loss is one to stop at; a NaN is neither below nor above anything."""
        if loss is None:
            return False
        return (self.below is not None and loss < self.below) or (self.above is not None and loss > self.above)

    @property
    def on_loss(self) -> bool:
        """Whether each loss must be looked at."""
        return self.below is not None or self.above is not None

    def __str__(self) -> str:
        said = [] if self.iteration is None else [f"iteration {self.iteration} is done"]
        said += [] if self.below is None else [f"the loss is below {format_number(self.below)}"]
        said += [] if self.above is None else [f"the loss is above {format_number(self.above)}"]
        return " or ".join(said)


def _coming_iteration(frame: Frame) -> int:
    """Give the iteration that the next phase belongs to."""
    begins = next_phase(frame) is Phase.FORWARD and (frame.iteration == 0 or frame.steps > frame.loss_steps)
    return frame.iteration + begins


def _stands_still(frame: Frame) -> bool:
    """Tell whether forward comes next without a step, for lack of a gradient; the iteration cannot rise then."""
    return frame.phase in (Phase.FORWARD, Phase.BACKWARD) and next_phase(frame) is Phase.FORWARD
