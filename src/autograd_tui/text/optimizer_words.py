"""Optimizers in words: their names in torch.optim, their learning rates, and how each moves a parameter."""

from __future__ import annotations

from autograd_tui.core.frame import Frame
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.text.numbers import rate

MAX_LISTED_RATES = 3  # of parameter groups; of more, the lowest and the highest are written
OPTIMIZER_NAMES = {  # as torch.optim spells them
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "sparseadam": "SparseAdam",
    "nadam": "NAdam",
    "radam": "RAdam",
    "adamax": "Adamax",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "rprop": "Rprop",
    "asgd": "ASGD",
    "adafactor": "Adafactor",
    "muon": "Muon",
}
UPDATE_DESCRIPTIONS = {
    "adam": "learning rate × its averaged gradient, scaled by the root of its averaged square",
    "sparseadam": "learning rate × its averaged gradient, scaled by the root of its averaged square, where one came",
    "adamw": "learning rate × its averaged gradient, scaled by the root of its averaged square, after weight decay",
    "nadam": "learning rate × its averaged gradient with a look ahead, scaled by the root of its averaged square",
    "radam": "learning rate × its averaged gradient, scaled by the root of its averaged square once that is known",
    "adamax": "learning rate × its averaged gradient, scaled by its largest recent gradient",
    "rmsprop": "learning rate × its gradient, scaled by the root of its averaged square",
    "adagrad": "learning rate × its gradient, scaled by the root of the sum of all its squares so far",
    "adadelta": "learning rate × its gradient, scaled by how far it has moved lately",
    "rprop": "the sign of its gradient alone, by a step size of its own",
    "asgd": "its gradient, with a rate that falls over time",
    "adafactor": "its gradient, scaled by row and column averages of its square",
    "muon": "its averaged gradient, made orthogonal",
}


def rates(frame: Frame, *, used: bool = False) -> str:
    """Write the learning rate of each parameter group; or those that the last step used."""
    listed = frame.step_rates if used and frame.step_rates else frame.learning_rates
    if len(listed) <= MAX_LISTED_RATES:
        return " / ".join(map(rate, listed))
    return f"{rate(min(listed))} to {rate(max(listed))}, {len(listed)} groups"


def is_plain_sgd(optimizer: str) -> bool:
    """Return whether a step is learning rate × gradient, and nothing else."""
    return optimizer == "sgd"


def has_velocity(optimizer: str) -> bool:
    """Return whether a step is learning rate × velocity: SGD with momentum, without Nesterov's look ahead."""
    spec = OptimizerSpec.parse(optimizer)
    options = dict(spec.options)
    odd = options.get("nesterov") or options.get("maximize")
    return spec.name == "sgd" and bool(options.get("momentum")) and not odd


def goes_uphill(optimizer: str) -> bool:
    """Return whether a step is to raise the loss."""
    return bool(dict(OptimizerSpec.parse(optimizer).options).get("maximize"))


def describe_update(optimizer: str) -> str:
    """Return what moves each parameter, as the end of a sentence; `optimizer` as a frame spells it: "sgd,lr=0.1"."""
    spec = OptimizerSpec.parse(optimizer)
    options = dict(spec.options)
    momentum = options.get("momentum")
    if spec.name == "sgd" and momentum:
        damping = f"(1 - {options['dampening']}) grad" if options.get("dampening") else "grad"
        look_ahead = ", with Nesterov's look ahead" if options.get("nesterov") else ""
        text = f"learning rate × its velocity, v = {momentum} v + {damping}{look_ahead}"
    elif spec.name == "sgd":
        text = "learning rate × its gradient"
    elif spec.name == "rmsprop" and momentum:
        text = "learning rate × its velocity, fed with gradients scaled by the root of their averaged square"
    else:
        text = UPDATE_DESCRIPTIONS.get(spec.name, f"the rule of {spec.name}")
    if options.get("weight_decay") and spec.name != "adamw":
        text += f", weight decay {options['weight_decay']} included"
    return text + ", uphill on purpose" * bool(options.get("maximize"))
