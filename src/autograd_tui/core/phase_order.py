"""The order of phases: which one comes next, and why another one is refused."""

from __future__ import annotations

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.frame import Frame


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
