"""The order of phases: which one comes next, why another one is refused, and the goal at which a run of them ends."""

from __future__ import annotations

from dataclasses import dataclass

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.optimizer_spec import format_number


def next_phase(frame: Frame) -> Phase:
    """Return the phase that goes on from here, as the space key runs it."""
    if frame.graph == "alive":
        return Phase.BACKWARD
    return {"fresh": Phase.STEP, "used": Phase.ZERO_GRAD, "none": Phase.FORWARD}[frame.grads.state]


def next_command(frame: Frame) -> Command:
    """Return the command that runs the next phase."""
    return Command(next_phase(frame).value)


def refusal(frame: Frame, command: Command) -> str | None:
    """Return a sentence on why a phase is out of turn and what would follow; None where it may run.

    forward and zero_grad always may, and so may a backward that adds to gradients that are there.
    """
    if command.forced:
        return None
    if command.phase is Phase.BACKWARD and frame.graph == "none":
        if frame.loss_params is None:
            return "backward needs a loss, and there is none yet: run forward first (B tries it all the same)."
        return "this loss has no graph to go back through, so backward would raise (B shows it)."
    if command.phase is Phase.BACKWARD and frame.graph == "freed":
        return "this graph has been used and freed, so a second backward would raise (B shows it): run forward first."
    if command.phase is Phase.STEP and frame.grads.state == "none":
        return "step has no gradient to use, so nothing would move (S shows it): run backward first."
    if command.phase is Phase.STEP and frame.grads.state == "used":
        return "a step has used these gradients, so another would move twice on them (S shows it): zero_grad is next."
    return None


@dataclass(frozen=True, slots=True)
class Goal:
    """The end of an iteration or a bound of the loss, whichever comes first; without either a run never ends itself."""

    iteration: int | None = None  # the run ends where this one is done
    below: float | None = None  # or where the loss is less than this
    above: float | None = None

    @classmethod
    def from_here(cls, frame: Frame, iterations: int) -> Goal:
        """Return the end of so many iterations from a frame on, the one that has begun included."""
        return cls(_next_iteration(frame) + iterations - 1)

    def is_past(self, frame: Frame) -> bool:
        """Return whether its iteration is done: the phase that comes next belongs to a later one."""
        return self.iteration is not None and _next_iteration(frame) > self.iteration

    def reached_by(self, frame: Frame) -> bool:
        """Return whether a run ends at this frame: at the end of the iteration, or as soon as the loss is measured.

        It also ends where that is out of reach. A script's own iterations are not told by its phases.
        """
        if frame.phase is Phase.FORWARD and self.has_loss(frame.loss):
            return True
        if frame.script is not None:
            return False
        ends = frame.phase is Phase.ZERO_GRAD or (frame.phase is Phase.FORWARD and frame.graph == "none")
        return self.iteration is not None and ((ends and frame.iteration >= self.iteration) or _lacks_gradients(frame))

    def is_out_of_reach(self, frame: Frame) -> bool:
        """Return whether its iteration will not come, as when all parameters are frozen."""
        behind = self.iteration is not None and frame.iteration < self.iteration
        return behind and frame.script is None and _lacks_gradients(frame)

    def has_loss(self, loss: float | None) -> bool:
        """Return whether this loss is one to stop at; a NaN is neither below nor above anything."""
        if loss is None:
            return False
        return (self.below is not None and loss < self.below) or (self.above is not None and loss > self.above)

    @property
    def on_loss(self) -> bool:
        """Whether each loss must be looked at."""
        return self.below is not None or self.above is not None

    def __str__(self) -> str:
        ends = [] if self.iteration is None else [f"iteration {self.iteration} is done"]
        ends += [] if self.below is None else [f"the loss is below {format_number(self.below)}"]
        ends += [] if self.above is None else [f"the loss is above {format_number(self.above)}"]
        return " or ".join(ends)


def _next_iteration(frame: Frame) -> int:
    """Return the iteration that the next phase belongs to."""
    begins = next_phase(frame) is Phase.FORWARD and (frame.iteration == 0 or frame.steps > frame.loss_steps)
    return frame.iteration + begins


def _lacks_gradients(frame: Frame) -> bool:
    """Return whether forward comes next without a step, for lack of a gradient: the iteration cannot rise then."""
    return frame.phase in (Phase.FORWARD, Phase.BACKWARD) and next_phase(frame) is Phase.FORWARD
