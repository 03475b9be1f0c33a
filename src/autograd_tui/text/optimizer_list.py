"""The optimizers that the prompt offers, and their usual options."""

from __future__ import annotations

from autograd_tui.text.word_list import RATES, Candidate, listed

OPTIMIZERS = {  # all of torch.optim that can be stepped, in the order in which people look for them
    "sgd": "its gradient; with momentum, a velocity",
    "adam": "averaged gradient over its usual size",
    "adamw": "adam, with weight decay kept apart",
    "rmsprop": "gradient over its usual size",
    "nadam": "adam with a look ahead",
    "radam": "adam, more careful in its first steps",
    "adamax": "averaged gradient over its largest size",
    "adagrad": "gradient over the size of all so far",
    "adadelta": "gradient, scaled by how far it moved lately",
    "adafactor": "gradient over its size by row and column",
    "rprop": "the sign of the gradient alone",
    "asgd": "gradient, at a rate that falls over time",
    "muon": "for matrices alone: made orthogonal",
    "sparseadam": "adam for sparse gradients alone",
}
DECAY = {"weight_decay=1e-4": "draw parameters to zero a little"}
BETAS = {"betas=(0.9,0.999)": "how long the two averages last"}
OPTIONS = {  # the usual ones, with the values that are usual
    "sgd": {
        "momentum=0.9": "keep nine tenths of the velocity",
        "nesterov=true": "look ahead along the velocity",
        **DECAY,
    },
    "adam": {**BETAS, "amsgrad=true": "never forget the largest size", **DECAY},
    "adamw": {**BETAS, "weight_decay=0.01": "draw parameters to zero, its default"},
    "rmsprop": {"alpha=0.99": "how long the average lasts", "momentum=0.9": "a velocity too", **DECAY},
    "nadam": BETAS | DECAY,
    "radam": BETAS | DECAY,
    "adamax": BETAS | DECAY,
    "adagrad": {"lr_decay=0.01": "lower the rate with each step", **DECAY},
    "adadelta": {"rho=0.9": "how long the averages last", **DECAY},
    "adafactor": DECAY,
    "rprop": {"etas=(0.5,1.2)": "factors for a turn, and for going on"},
    "asgd": {"t0=1000": "average from this step on", **DECAY},
    "muon": {"momentum=0.95": "its default", **DECAY},
    "sparseadam": BETAS,
}


def optimizer_candidates(word: str) -> list[Candidate]:
    """Give what may stand in the place of "optimizer=...": names, or options that it has not set yet."""
    stem = _stem(word)
    if not stem:
        return listed(OPTIMIZERS, "optimizer=")
    name, *options = stem.removeprefix("optimizer=").split(",")
    taken = {option.partition("=")[0] for option in options}
    return [each for each in listed(_options(name.lower()), stem) if _fits(each.label.partition("=")[0], taken)]


def _stem(word: str) -> str:
    """Give the part up to the comma behind which an option is being typed; a comma in brackets is none."""
    outside = word[: word.rindex("(")] if word.count("(") > word.count(")") else word
    return word[: outside.rfind(",") + 1]


def _options(name: str) -> dict[str, str]:
    return {f"lr={rate}": line for rate, line in RATES.items()} | OPTIONS[name] if name in OPTIONS else {}


def _fits(option: str, taken: set[str]) -> bool:
    return option not in taken and (option != "nesterov" or "momentum" in taken)
