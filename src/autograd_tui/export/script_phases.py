"""The lines of a script for each command: what it does, and what is put back where it raised."""

from __future__ import annotations

import builtins
import keyword
from dataclasses import dataclass
from typing import Literal

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.core.run_config import RunConfig
from autograd_tui.export.script_model import OptimizerLines, ScenarioLines, literal
from autograd_tui.export.template import fill_section
from autograd_tui.text.styled_text import printable


@dataclass(slots=True)
class RunProgress:
    """How far a run has come, as far as it shows in the commands alone."""

    iteration: int = 0
    steps: int = 0
    loss_steps: int = 0
    graph: Literal["none", "alive", "freed"] = "none"
    grads: Literal["none", "fresh", "used"] = "none"
    has_loss: bool = False

    @property
    def next_iteration(self) -> int:
        """The iteration that a forward from here belongs to."""
        return self.iteration + (self.iteration == 0 or self.steps > self.loss_steps)

    def advance(self, command: Command, raised: str | None) -> None:
        """Go on by one command."""
        phase = command.phase
        if phase is Phase.BACKWARD and self.graph == "alive":
            self.graph = "freed"  # also where it raises
        if raised or phase is None:
            return
        if phase is Phase.FORWARD:
            self.iteration, self.loss_steps = self.next_iteration, self.steps
            self.graph, self.has_loss = "alive", True
        elif phase is Phase.BACKWARD:
            self.grads = "fresh"
        elif phase is Phase.STEP:
            self.steps += 1
            self.grads = "none" if self.grads == "none" else "used"
        else:
            self.grads = "none"


def phase_comment(phase: Phase, progress: RunProgress) -> str:
    """Return a comment on what a phase does after what has been run."""
    if phase is Phase.FORWARD:
        twice = "the graph of the one before goes unused" if progress.graph == "alive" else ""
        return f"forward: {twice or 'predict, and measure the loss'}"
    if phase is Phase.BACKWARD:
        adds = "there was no zero_grad, so it adds to the gradients"
        return f"backward: {'compute the gradients' if progress.grads == 'none' else adds}"
    if phase is Phase.STEP:
        moves = {"none": "there are no gradients, so nothing moves", "fresh": "move the parameters by their gradients"}
        return f"step: {moves.get(progress.grads, 'once more on gradients that a step has used already')}"
    return f"zero_grad: {'there is no gradient to clear' if progress.grads == 'none' else 'clear the gradients'}"


def phase_lines(
    command: Command, raised: str | None, scenario: ScenarioLines, *, comment_text: str, scheduled: bool
) -> list[str]:
    """Return the lines of a phase. `scheduled`: a scheduler sees the loss in a step."""
    phase = command.phase
    assert phase is not None
    scheduler_step = ["scheduler.step(loss.detach())"] * scheduled
    lines = {
        Phase.FORWARD: list(scenario.forward),
        Phase.BACKWARD: ["loss.backward()"],
        Phase.STEP: ["optimizer.step()", *scheduler_step],
        Phase.ZERO_GRAD: ["optimizer.zero_grad()"],
    }[phase]
    if raised is None:
        lines[-1 if phase is Phase.FORWARD else 0] += f"  # {comment_text}"
        return lines + ["i += 1"] * (phase is Phase.FORWARD and not scenario.has_fixed_batch)
    section = _section_that_raises(phase, raised, is_user_model=scenario.is_user_model)
    fields = {"phase_lines": lines, "scheduler_step": scheduler_step, "exception": exception_name(raised)}
    return [f"# {phase.value}: it raises, and leaves everything as it was", *fill_section("phases", section, **fields)]


def _section_that_raises(phase: Phase, raised: str, *, is_user_model: bool) -> str:
    if phase is Phase.STEP:
        return "step that raises"
    if phase is Phase.FORWARD or (phase is Phase.BACKWARD and raised != "NameError"):
        return f"{phase.value}{' of a user model' * is_user_model} that raises"
    return "phase that raises and changes nothing"


def global_state_lines(config: RunConfig) -> list[str]:
    """Return what marks random numbers, and where a loader stands, for phases that raise."""
    follow = [] if config.device == "cpu" else [f"around.add_device({config.device!r})"]
    return fill_section("phases", "global state", follow_device=follow)


def comment(text: str) -> str:
    """Return a comment of one line, whatever there is in the text."""
    return printable(f"# {' '.join(text.split())}")


def exception_name(raised: str) -> str:
    """Return the class that an except line names: PyTorch's and a user's own have one above them that Python knows."""
    builtin = getattr(builtins, raised, None)
    return raised if isinstance(builtin, type) and issubclass(builtin, BaseException) else "Exception"


def setting_lines(command: Command, scenario: ScenarioLines, optimizer: OptimizerLines) -> list[str]:
    """Return the lines of a setting."""
    if command.group is not None:
        return [f'optimizer.param_groups[{command.group}]["lr"] = {literal(command.value)}']
    if command.name == "lr":
        return ["for group in optimizer.param_groups:", f'    group["lr"] = {literal(command.value)}']
    if command.name == "seed":
        of_host = [f"random.seed({command.value})", f"numpy.random.seed({command.value} % 2**32)"]
        return [f"torch.manual_seed({command.value})", *of_host * scenario.is_user_model]
    if isinstance(command.value, OptimizerSpec):
        return optimizer.change(command.value)
    if command.kind == "requires_grad":
        if not command.target:
            return [f"model.requires_grad_({command.value})"]
        return fill_section("script", "freeze", prefix=repr(f"{command.target}."), value=command.value)
    name, bracket, indices = command.name.partition("[")
    parts = name.split(".")
    plain = all(part.isascii() and part.isidentifier() and not keyword.iskeyword(part) for part in parts)
    target = f"model.{name}" if plain else f"model.get_parameter({name!r})"
    index, value = indices.rstrip("]").replace(",", ", "), literal(command.value)
    sets = f"{target}[{index}] = {value}" if bracket else f"{target}.fill_({value})"
    return ["with torch.no_grad():", f"    {sets}"]
