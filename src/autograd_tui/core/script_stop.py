"""Where a script of the user's own is held, and a forward of it that runs by itself, in the script's own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScriptStop:
    """The call that a script has made last, the line that made it, and what is known of the loop around it."""

    call: str  # as the line names the objects: "loss.backward", "optimizerG.step", "clip_grad_norm_"
    file: str  # of the line, as a traceback names it; "" where no line of the user's is on the stack
    line: int
    function: str = "<module>"
    first_line: int = 1  # the number of the first of `source`
    source: tuple[str, ...] = ()  # lines around the call, without their ends
    library: tuple[str, int] | None = None  # file and line in a library that made the call, where one did
    inside: tuple[str, ...] = ()  # the calls that it was made inside of, outermost first: ("optimizer.step",)
    device: str = "cpu"  # of the parameters: "cuda:0", or "cpu, cuda:0" where some are elsewhere
    models: tuple[str, ...] = ()  # variables of the models that took part in the loss
    optimizer: str = ""  # variable of the optimizer that stepped, cleared, or was scheduled
    steps: tuple[tuple[str, int], ...] = ()  # completed steps of each optimizer, by its variable
    backwards: int = 0  # since the last step or zero_grad, this one included
    skipped: bool = False  # whether GradScaler left the step out, for gradients that are not finite
    scaled_loss: float | None = None  # what backward started from, where the loss was scaled
    norm: float | None = None  # of all gradients before they were clipped
    max_norm: float | None = None  # that they were clipped to
    rates_before: tuple[float, ...] = ()  # of each group, before a scheduler stepped
    moved_by_hand: tuple[str, ...] = ()  # parameters that changed since the stop before, by no optimizer's step
    cleared_by_hand: tuple[str, ...] = ()  # parameters whose gradients went since the stop before, by no zero_grad
    has_several_losses: bool = False  # whether an iteration calls backward in several lines
    loss_call: str = ""  # where it does: the call of the newest loss, "errG.backward"
    last_loss_call: str = ""  # the call that is the last one of each iteration, where that is always the same
    at_end: bool = False  # whether this was read at the script's end, after a free run, and not at once
    output_muted: bool = False  # whether the script has come here a second time, without printing again


@dataclass(frozen=True, slots=True)
class ScriptRepro:
    """What a script needs besides the file of tensors beside it. Each line is Python, without indentation around it."""

    frame: int  # that the forward led to
    iteration: int
    loss: str  # as Python writes the number: "0.6931471824645996", "nan"
    python: str  # the interpreter that has run the script
    versions: Mapping[str, str]  # by package
    future: tuple[str, ...]  # imports from __future__, of the script's own
    imports: tuple[str, ...]
    folders: Mapping[str, list[str]]  # that modules of the user's own are imported from, with their names
    definitions: tuple[str, ...]  # of the script's own: classes, functions, constants
    names: tuple[str, ...]  # of what the file of tensors holds, each a variable
    settings: tuple[str, ...]
    calls: tuple[str, ...]  # that make the loss, from the model's on
    result: str  # the variable of the loss
    parameters: tuple[str, ...]  # expressions, each an item of a dict of the parameters by name
    notes: tuple[str, ...] = ()  # sentences on what it leaves out
