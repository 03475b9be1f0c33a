"""Forward operations of layers and losses, in a sentence, and in numbers for small losses."""

from __future__ import annotations

import math
from collections.abc import Callable

from autograd_tui.text.inside.forward.called import Called, Computed, ForwardRule
from autograd_tui.text.inside.small import Small, each, exact_sum, summed_over


def said(sentence: str) -> ForwardRule:
    """Make the rule that says one sentence; {} is the first input's name."""
    return lambda call: Computed(sentence.format(call.name()))


def convolution(call: Called) -> Computed:
    """Say how many products each output is a sum of."""
    weight = call.role("weight")
    shape = weight.stats.shape if weight else ()
    if len(shape) < 3:
        return Computed(f"a convolution of {call.name()}")
    window = "×".join(map(str, shape[2:]))
    met = math.prod(shape[1:])
    bias = ", plus bias" if call.role("bias") else ""
    step = call.words("stride")
    steps = f", stride {step}" if step else ""
    return Computed(f"each output is a sum of {met} products: a {window} window of {call.name()} × weight{bias}{steps}")


def batch_norm(call: Called) -> Computed:
    """Say whose mean and deviation it takes."""
    own = call.words("training") == "True" or call.words("use_input_stats") == "True"
    whose = "of this batch" if own else "as remembered from training"
    tail = " × weight + bias" if call.role("weight") else ""
    return Computed(f"({call.name()} - mean) / sd{tail}, mean and sd of each channel {whose}")


def layer_norm(call: Called) -> Computed:
    """Say what is normalized together."""
    tail = " × weight + bias" if call.role("weight") and call.role("bias") else ""
    return Computed(f"({call.name()} - mean) / sd{tail}, mean and sd of each row's own values")


def dropout(call: Called) -> Computed:
    """Say what becomes of each value."""
    p = call.number("p", 0.5)
    if call.words("training") == "False":
        return Computed(f"{call.name()} as it is: dropout only works while training")
    chance = "some values" if p is None else f"each value with probability {p:g}"
    return Computed(f"{call.name()}: {chance} put to 0, the rest divided by the probability of staying")


def mse(call: Called) -> Computed:
    """Work the mean of the squared errors."""
    made, wanted = call.role("input"), call.role("target")
    squares = each(lambda a, b: (a - b) ** 2, call.small(made), call.small(wanted))
    reduction = call.words("reduction") or "mean"
    formula = f"({call.name(0)} - {call.name(1)})^2"
    if reduction == "none":
        return Computed(formula, squares)
    return _reduced(call, f"{reduction} of {formula}", squares, mean=reduction == "mean", known=reduction != "mean")


def _reduced(call: Called, formula: str, terms: Small | None, *, mean: bool, known: bool = True) -> Computed:
    if terms is None or call.first or not (mean or known):
        return Computed(formula)
    total = exact_sum(terms.values) / (len(terms.values) if mean else 1)
    return Computed(formula, Small((), (total,)), size=terms.largest * len(terms.values))


def softmax(call: Called) -> Computed:
    """Work probabilities."""
    return Computed(
        f"exp({call.name()}) / the sum of exp along dim {call.words('dim')}", _probabilities(call, math.exp)
    )


def log_softmax(call: Called) -> Computed:
    """Work their logarithms."""
    formula = f"{call.name()} - log of the sum of exp along dim {call.words('dim')}"
    return Computed(formula, _probabilities(call, lambda x: x))


def _probabilities(call: Called, top: Callable[[float], float]) -> Small | None:
    values, dims = call.small(call.op.inputs[0]), call.whole("dim")
    if values is None or dims is None or call.first:
        return None
    exps = each(math.exp, values)
    sums = summed_over(exps, dims) if exps else None
    if top is math.exp:
        return each(lambda x, total: math.exp(x) / total, values, sums)
    return each(lambda x, total: x - math.log(total), values, sums)


def cross_entropy(call: Called) -> Computed:
    """Say what is averaged."""
    reduction = call.words("reduction") or "mean"
    of = "" if reduction == "none" else f"{reduction} over the targets of "
    return Computed(f"{of}-log(p of the target's class), p = softmax({call.name()})")


def binary(call: Called) -> Computed:
    """Say what is averaged."""
    of = "" if (reduction := call.words("reduction") or "mean") == "none" else f"{reduction} of "
    wanted = call.name(1)
    return Computed(f"{of}-({wanted} × log p + (1 - {wanted}) × log(1 - p)), p = sigmoid({call.name()})")


def nll(call: Called) -> Computed:
    """Say what is averaged."""
    reduction = call.words("reduction") or "mean"
    of = "" if reduction == "none" else f"{reduction} over the targets of "
    return Computed(f"{of}-{call.name()} at the target's class")


GREATEST = "the greatest value of each window of {}"
RESHAPED = "the values of {}, in another shape"
REORDERED = "the values of {}, in another order"
TAKEN = "a part of {}"
FORWARD: dict[str, ForwardRule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "dropout": dropout,
    "mse_loss": mse,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "cross_entropy": cross_entropy,
    "nll_loss": nll,
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool2d"), said(GREATEST)),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "adaptive_avg_pool2d"), said("the mean of each window of {}")),
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze"), said(RESHAPED)),
    **dict.fromkeys(("transpose", "permute", "t", "movedim", "swapaxes"), said(REORDERED)),
    **dict.fromkeys(("select", "getitem", "narrow", "chunk", "split", "unbind"), said(TAKEN)),
    "expand": said("{} stretched: the same values again and again, none copied"),
    "cat": said("{} and more, joined end to end"),
    "stack": said("{} and more, one above the other"),
    "clone": said("a copy of {}"),
    "detach": said("{} cut off from its graph: no gradient goes back from here"),
    "contiguous": said("{}, laid out row by row in memory"),
    "embedding": said("for each of {}: the row of that number in the weight"),
    "binary_cross_entropy_with_logits": binary,
    "leaky_relu": said("{0} where it is above 0, else a slope × {0}"),
    "hardtanh": said("{}, cut off at its bounds"),
    "relu6": said("{}, cut off below 0 and above 6"),
    "multi_head_attention_forward": said("attention of {}, head by head: softmax(query @ key.T / sqrt(size)) @ value"),
    "gelu": said("{0} × the share of a normal distribution below {0}"),
    "lstm": said("a whole LSTM over {}: PyTorch does all its steps in one call"),
    "scaled_dot_product_attention": said("softmax(query @ key.T / sqrt(size)) @ value, in one call"),
}
