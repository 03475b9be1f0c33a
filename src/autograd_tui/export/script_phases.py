"""The lines of a script for each command: what it does, and what is put back where it raised."""

from __future__ import annotations

import builtins
import keyword

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.command_log import Step
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.core.run_config import RunConfig
from autograd_tui.export.loop_finder import LoopProgress
from autograd_tui.export.script_model import OptimizerLines, ScenarioLines, literal
from autograd_tui.text.styled_text import printable

PRINT_ERROR = '    print(f"{type(error).__name__}: {error}")'
KEEP_GRADS = "grads = [None if param.grad is None else param.grad.clone() for param in model.parameters()]"
RESTORE_GRADS = ("    for param, grad in zip(model.parameters(), grads):", "        param.grad = grad")
KEEP_BUFFERS = "buffers = [buffer.clone() for buffer in model.buffers()]"
RESTORE_BUFFERS = (
    "    for buffer, kept in zip(model.buffers(), buffers):",
    "        buffer.data.copy_(kept)",
)
BUFFER_FUNCTIONS = (  # where a forward may put other tensors in their places
    "",
    "",
    "def kept_buffers():",
    '    """Copy buffers and attributes: a forward that raises may have changed some of them already."""',
    "    held = [(module, dict(module._buffers), dict(vars(module))) for module in model.modules()]",
    "    return [(module, buffers, copy.deepcopy(buffers), attributes) for module, buffers, attributes in held]",
    "",
    "",
    "def put_back(kept):",
    '    """Hold the same buffers and attributes as before, with the same values."""',
    "    for module, buffers, copies, attributes in kept:",
    "        vars(module).clear()",
    "        vars(module).update(attributes)",
    "        module._buffers.clear()",
    "        module._buffers.update(buffers)",
    "        for name, buffer in buffers.items():",
    "            if buffer is not None and 0 not in buffer.stride():",
    "                buffer.data.copy_(copies[name])",
)


KEEP_STATE = "kept = around.mark()"
RESTORE_STATE = "    around.return_to(kept)"


def state_keeper_lines(config: RunConfig) -> list[str]:
    """Write what marks random numbers, and where a loader stands, for phases that raise."""
    follow = [f"around.follow({config.device!r})"] * (config.device != "cpu")
    return ["", "around = GlobalState()", *follow, "around.__enter__()  # its marks take in a loader that is used"]


def phase_comment(phase: Phase, progress: LoopProgress) -> str:
    """Say what a phase does where it stands."""
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


def phase_lines(step: Step, scenario: ScenarioLines, *, comment_text: str, scheduled: bool) -> list[str]:
    """Write a phase. `scheduled`: a scheduler sees the loss in a step."""
    phase = step.command.phase
    assert phase is not None
    lines = {
        Phase.FORWARD: list(scenario.forward),
        Phase.BACKWARD: ["loss.backward()"],
        Phase.STEP: ["optimizer.step()"] + ["scheduler.step(loss.detach())"] * scheduled,
        Phase.ZERO_GRAD: ["optimizer.zero_grad()"],
    }[phase]
    counted = ["i += 1"] if phase is Phase.FORWARD and not scenario.has_fixed_batch else []
    if step.raised is None:
        at = -1 if phase is Phase.FORWARD else 0
        lines[at] += f"  # {comment_text}"
        return lines + counted
    before, after = _keep_and_restore(phase, step.raised, scenario)
    if phase is Phase.STEP:
        lines[0] = "tried.step()"
    tried = ["try:", *(f"    {line}" for line in lines), f"except {exception_name(step.raised)} as error:", PRINT_ERROR]
    return [f"# {phase.value}: it raises, and leaves everything as it was", *before, *tried, *after]


def _keep_and_restore(phase: Phase, raised: str, scenario: ScenarioLines) -> tuple[list[str], list[str]]:
    """Write what is kept before a phase that raises, and how it is put back."""
    if phase is Phase.FORWARD and scenario.is_user_model:
        return ["buffers = kept_buffers()", KEEP_STATE], ["    put_back(buffers)", RESTORE_STATE]
    if phase is Phase.FORWARD:
        return [KEEP_BUFFERS], list(RESTORE_BUFFERS)
    if phase is Phase.BACKWARD and raised != "NameError":
        theirs = int(scenario.is_user_model)
        return [KEEP_GRADS, *[KEEP_STATE] * theirs], [*RESTORE_GRADS, *[RESTORE_STATE] * theirs]
    if phase is Phase.STEP:
        return [
            "tried = copy.deepcopy(optimizer)  # and its parameters: what a step half does cannot be undone",
            "for ours, copied in zip(optimizer.param_groups, tried.param_groups):",
            '    for param, other in zip(ours["params"], copied["params"]):',
            "        other.grad = None if param.grad is None else param.grad.clone()",
        ], []
    return [], []


def comment(text: str) -> str:
    """Write a comment of one line, whatever there is in the text."""
    return printable(f"# {' '.join(text.split())}")


def exception_name(raised: str) -> str:
    """Give the class that an except line names: PyTorch's and a user's own have one above them that Python knows."""
    builtin = getattr(builtins, raised, None)
    return raised if isinstance(builtin, type) and issubclass(builtin, BaseException) else "Exception"


def setting_lines(command: Command, scenario: ScenarioLines, optimizer: OptimizerLines) -> list[str]:
    """Write a setting."""
    if command.group is not None:
        return [f'optimizer.param_groups[{command.group}]["lr"] = {literal(command.value)}']
    if command.name == "lr":
        return ["for group in optimizer.param_groups:", f'    group["lr"] = {literal(command.value)}']
    if command.name == "seed":
        foreign = [f"random.seed({command.value})", f"numpy.random.seed({command.value} % 2**32)"]
        return [f"torch.manual_seed({command.value})", *foreign * scenario.is_user_model]
    if isinstance(command.value, OptimizerSpec):
        return optimizer.change(command.value)
    if command.kind == "requires_grad":
        if not command.target:
            return [f"model.requires_grad_({command.value})"]
        inside = f'    if f"{{name}}.".startswith({command.target + "."!r}):'
        return [
            "for name, param in model.named_parameters():",
            inside,
            f"        param.requires_grad_({command.value})",
        ]
    name, bracket, indices = command.name.partition("[")
    parts = name.split(".")
    plain = all(part.isascii() and part.isidentifier() and not keyword.iskeyword(part) for part in parts)
    target = f"model.{name}" if plain else f"model.get_parameter({name!r})"
    where, value = indices.rstrip("]").replace(",", ", "), literal(command.value)
    sets = f"{target}[{where}] = {value}" if bracket else f"{target}.fill_({value})"
    return ["with torch.no_grad():", f"    {sets}"]
