"""What just happened, in words and arithmetic that hold for every optimizer."""

from __future__ import annotations

import math
import re

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame, TorchError
from autograd_tui.text.batch_table import errors_of_mean_square
from autograd_tui.text.equation import evaluated, exact
from autograd_tui.text.explain_backward import MAX_NAMED, count_parameters, explain_backward, list_names
from autograd_tui.text.explain_script import explain_script, message_lines
from autograd_tui.text.explain_step import explain_step, loss_age
from autograd_tui.text.nonfinite import nonfinite_warnings
from autograd_tui.text.numbers import number, rate
from autograd_tui.text.optimizer_words import OPTIMIZER_NAMES, is_plain_sgd, rates
from autograd_tui.text.styled_text import printable

DEVICES_HINT = "Tensors of two devices met: make new ones on the input's device (x.device), or start with --device cpu."
MEMORY_SENTENCES = 3  # of what PyTorch says where memory runs out: how much was asked for, and how much there is
CAN_STAND_ALONE = ("The loss ", "The gradients ", "It recorded ", "zero_grad ")  # beginnings of sentences
SEED_HINT = "Where chance made it raise, it would again: :seed=1 gives it other random numbers."


def explain(frame: Frame) -> list[str]:
    """Return sentences on what the frame's command did; one that starts with blanks is arithmetic."""
    if frame.script:
        return [*nonfinite_warnings(frame), *explain_script(frame, frame.script)]
    if frame.error:
        return _raised(frame, frame.error)
    return [*nonfinite_warnings(frame), *_happened(frame)]


def without_reason(sentence: str) -> str:
    """Return what a sentence says before its colon, where that can stand alone; "" elsewhere."""
    said, colon, _ = sentence.partition(": ")
    return f"{said}." if colon and said.startswith(CAN_STAND_ALONE) else ""


def _happened(frame: Frame) -> list[str]:
    if frame.command is None:
        return _first_frame(frame)
    if frame.phase is Phase.FORWARD:
        return _forward(frame)
    if frame.phase is Phase.BACKWARD:
        return explain_backward(frame)
    if frame.phase is Phase.STEP:
        return explain_step(frame)
    if frame.phase is Phase.ZERO_GRAD:
        return _zero_grad(frame)
    return _setting(frame)


def step_comment(frame: Frame, room: int) -> str:
    """Return what optimizer.step() does, as far as there is room beside it: no option is left out of what is said."""
    used = frame.step_rate if frame.phase is Phase.STEP and frame.step_rate is not None else frame.learning_rate
    name = frame.params.layout.names[0] if len(frame.params) <= MAX_NAMED else "p"
    if frame.groups:
        sentences = rates(frame, used=frame.phase is Phase.STEP)
        return next(each for each in (f"# {len(frame.learning_rates)} groups, lr {sentences}", "") if len(each) <= room)
    optimizer, *options = _optimizer_words(frame.optimizer)
    comments = [", ".join([f"# {optimizer}", *options, f"lr {rate(used)}"])]
    comments += [f"# {', '.join([*options, f'lr {rate(used)}'])}"] if options else []
    comments += [", ".join([f"# {optimizer}", *options]), ""]
    if is_plain_sgd(frame.optimizer):
        comments = [f"# {name} -= {rate(used)} * {name}.grad", *comments]
    return next(comment for comment in comments if len(comment) <= room)


def _optimizer_words(optimizer: str) -> list[str]:
    """Return the name and the options of an optimizer that a frame spells: SGD, momentum 0.9."""
    name, *options = re.split(r",(?![^(]*\))", optimizer)
    return [OPTIMIZER_NAMES.get(name, name), *(option.replace("=", " ") for option in options)]


def _first_frame(frame: Frame) -> list[str]:
    names = " and ".join(frame.params.layout.names)
    if frame.params.whole and len(frame.params) <= 2:
        return [
            "Frame 0: no phase has run before it.",
            f"Which way should {names} move, and who decides? Make a guess, then press space: it runs forward.",
        ]
    values = sum(map(math.prod, frame.params.layout.shapes))
    begin = f"{len(frame.params)} parameters with {values:,} values are as they begin."
    return ["Frame 0: no phase has run before it.", begin, "space runs forward."]


def _forward(frame: Frame) -> list[str]:
    loss = "a loss that is not one number" if frame.loss is None else f"the loss {number(frame.loss)}"
    sentences = [f"forward made a prediction and measured {loss}. {_moved_by_forward(frame)}"]
    if frame.loss is not None and (errors := errors_of_mean_square(frame)) and len(errors) <= 4:
        squares = " + ".join(exact(error * error) for error in errors)
        sentences.append(
            f"  {evaluated(f'({squares}) / {len(errors)}', [frame.loss], number(frame.loss), shown=number)}"
        )
    if frame.graph == "alive" and frame.loss is None:
        sentences.append("backward needs one number to start from, so it would raise.")
    elif frame.graph == "alive" and not math.isfinite(frame.loss or 0.0):
        sentences.append("It recorded the graph of what it computed, but a backward from such a loss is of no use.")
    elif frame.graph == "alive":
        sentences.append("It recorded the graph of what it computed: backward can now go back through it.")
    else:
        why = "every parameter is frozen" if len(frame.frozen) == len(frame.params) else "it was made without recording"
        sentences.append(f"This loss has no graph: {why}, so a backward would raise.")
    if frame.grads.state != "none":
        adds = ": a backward now adds to them" if not frame.frozen else ", and a backward adds to what is not frozen"
        sentences.append(f"The gradients are from before{adds if frame.graph == 'alive' else ''}.")
    return sentences


def _moved_by_forward(frame: Frame) -> str:
    """Return a sentence on which parameters the code of the forward has moved, if any."""
    if frame.mover is not frame.command or not frame.move_norms:
        return "No parameter has moved."
    norms = zip(frame.params.layout.names, frame.move_norms, strict=True)
    names = [name for name, norm in norms if norm is not None and norm > 0]
    what = (f"{len(names)} parameters" if len(names) > MAX_NAMED else list_names(names)) if names else "parameters"
    return f"Its own code has changed {what}: no step did that."


def _zero_grad(frame: Frame) -> list[str]:
    found, kept = (sum(map(bool, grads.backwards)) if grads else 0 for grads in (frame.last_grads, frame.grads))
    each = "each .grad that the optimizer holds" if kept else "each .grad"
    sentences = [f"zero_grad had nothing to clear: {each} was None already."]
    if found > kept:
        sentences = [
            f"zero_grad cleared the gradients: {each} is None again, so the next backward starts from nothing."
        ]
    if kept:
        still = "still has a gradient" if kept == 1 else "still have a gradient"
        sentences.append(f"Outside the optimizer {count_parameters(kept)} {still}: a backward adds to it.")
    memory = ", and so does what the optimizer remembers" if frame.optimizer_state else ""
    return [*sentences, f"The parameters stay as they are{memory}."]


def _setting(frame: Frame) -> list[str]:
    assert frame.command is not None
    if frame.command.group is not None:
        now = rate(frame.learning_rates[frame.command.group])
        return [f"The learning rate of {frame.group_name(frame.command.group)} is {now} from the next step on."]
    if frame.command.kind == "requires_grad":
        return _frozen(frame, wanted=frame.command.value is True)
    if frame.command.name == "lr":
        return [f"The learning rate is {rate(frame.learning_rate)} from the next step on. Nothing else has changed."]
    if frame.command.name == "seed":
        return [f"Random numbers begin anew from seed {frame.command.value}. Nothing else has changed."]
    if frame.command.name == "optimizer":
        return [f"The optimizer is {frame.optimizer} now, with empty state and lr {rates(frame)}."]
    return [f"You set {frame.command}: no gradient had a say in it.", *loss_age(frame)]


def _frozen(frame: Frame, *, wanted: bool) -> list[str]:
    assert frame.command is not None
    what = frame.command.target or "every parameter"
    changed = frame.frozen ^ frame.frozen_before
    if not changed and wanted:
        never = f"{frame.command.target} was not frozen" if frame.command.target else "No parameter was frozen"
        return [f"{never}: nothing has changed."]
    if not changed:
        return [f"{what} was frozen already: nothing has changed."]
    if wanted:
        names = frame.params.layout.names
        what = frame.command.target or list_names([names[index] for index in sorted(changed)])
        verb = "is" if frame.command.target or len(changed) == 1 else "are"
        return [
            f"{what} {verb} frozen no longer: from the next forward on, its graph leads there where the loss uses it."
        ]
    sentences = [f"{what} is frozen: no backward gives it a gradient from now on."]
    if any(frame.grads.backwards[index] for index in changed - frame.grads.outside):
        sentences.append("A gradient that is there already stays, and a step would still use it: zero_grad clears it.")
    return sentences


def _raised(frame: Frame, error: TorchError) -> list[str]:
    where = f" ({error.file.rpartition('/')[2]}, line {error.line})" if error.line else ""
    name = frame.phase.value if frame.phase else str(frame.command)
    unchanged = "Parameters, gradients, buffers and random numbers are as before it."
    if error.is_out_of_memory:
        told = ". ".join(error.message.strip().split(". ")[:MEMORY_SENTENCES]).rstrip(".")
        hint = _memory_hint(frame.phase)
        return [f"{name} raised {error.type}{where}: {hint}", unchanged, *[f"{printable(told)}."] * bool(told)]
    may_be_chance = frame.phase is Phase.FORWARD and not error.is_of_several_devices
    return [
        f"{name} raised {error.type}{where}:",
        *message_lines(error),
        *[DEVICES_HINT] * error.is_of_several_devices,
        unchanged,
        *[SEED_HINT] * may_be_chance,
    ]


def _memory_hint(phase: Phase | None) -> str:
    """Return what to do where there was no memory left: a batch takes none of a step's."""
    depends_on_batch = phase in (Phase.FORWARD, Phase.BACKWARD)
    return f"there was too little memory left for it{', a smaller batch needs less' * depends_on_batch}."
