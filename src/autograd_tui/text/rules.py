"""How each optimizer moves a parameter, in words that hold for it."""

from __future__ import annotations

from autograd_tui.engine.optimizer_spec import OptimizerSpec

PARTS = {
    "adam": "its averaged gradient, scaled by the root of its averaged square",
    "adamw": "its averaged gradient, scaled by the root of its averaged square, and shrank it by its weight decay",
    "nadam": "its averaged gradient with a look ahead, scaled by the root of its averaged square",
    "radam": "its averaged gradient, scaled by the root of its averaged square once that is known well enough",
    "adamax": "its averaged gradient, scaled by its largest recent gradient",
    "rmsprop": "its gradient, scaled by the root of its averaged square",
    "adagrad": "its gradient, scaled by the root of the sum of all its squares so far",
    "adadelta": "its gradient, scaled by how far it has moved lately",
    "rprop": "the sign of its gradient alone, by a step size of its own",
    "asgd": "its gradient, with a rate that falls over time",
    "adafactor": "its gradient, scaled by row and column averages of its square",
    "muon": "its averaged gradient, made orthogonal",
}


def is_plain_sgd(optimizer: str) -> bool:
    """Tell whether a step is learning rate x gradient, and nothing else."""
    return optimizer == "sgd"


def rule(optimizer: str) -> str:
    """Say what moved each parameter: optimizer is a frame's, as in "sgd,momentum=0.9"."""
    spec = OptimizerSpec.parse(optimizer)
    options = dict(spec.options)
    if is_plain_sgd(optimizer):
        return "learning rate x its gradient, downhill"
    momentum = options.get("momentum")
    if spec.name == "sgd" and momentum:
        damping = f"(1 - {options['dampening']}) grad" if options.get("dampening") else "grad"
        look_ahead = ", with Nesterov's look ahead" if options.get("nesterov") else ""
        said = f"its velocity, v = {momentum} v + {damping}{look_ahead}"
    elif spec.name == "sgd":
        said = "learning rate x its gradient"
    elif spec.name == "rmsprop" and momentum:
        said = "its velocity, fed with gradients that are scaled by the root of their averaged square"
    else:
        said = PARTS.get(spec.name, f"the rule of {spec.name}")
    if options.get("weight_decay") and spec.name != "adamw":
        said += f", weight decay {options['weight_decay']} included"
    return said + ", uphill on purpose" * bool(options.get("maximize"))
