"""What forward calls compute: elementwise functions, matrix products, layers and losses."""

from __future__ import annotations

import math
from collections.abc import Callable

from autograd_tui.text.derivation.derivation import (
    FIRST_VALUE,
    MAX_LISTED_VALUES,
    MAX_PRODUCT_TERMS,
    Derivation,
    written_pairs,
    written_products,
    written_sum,
)
from autograd_tui.text.derivation.rule_context import CallContext, ForwardRule
from autograd_tui.text.derivation.small_tensor import (
    SmallTensor,
    exact_sum,
    exponential,
    logarithm,
    map_values,
    matrix_product,
    power,
    product_terms,
    quotient,
    root,
    sigmoid,
    sine_or_cosine,
    summed_over,
    transposed,
)
from autograd_tui.text.equation import exact, parenthesized
from autograd_tui.text.numbers import terse
from autograd_tui.text.trace.tensor_words import (
    REVERSED,
    SIGNS,
    call_expression,
    inner,
    operands,
    plain_name,
    short_name,
    tight,
)

BINARY_FUNCTIONS: dict[str, Callable[[float, float], float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": quotient,
    "pow": power,
}


def binary(call: CallContext) -> Derivation:
    """Derive two operands with a sign between them: add, sub, mul, div or pow."""
    name, terms = plain_name(call.op.name), [call.operand(0), call.operand(1)]
    if name in REVERSED or (name == "pow" and call.setting("self") is not None):
        name, terms = REVERSED.get(name, name), terms[::-1]
    sign, alpha = SIGNS[name], call.number("alpha", 1.0)
    is_unsupported = call.setting("rounding_mode") is not None or alpha is None
    names = [inner(operand) for operand in operands(call.trace, call.op)]
    formula = call_expression(call.trace, call.op) or f" {sign} ".join(names)
    if alpha not in (None, 1.0):
        formula = f"{names[0]} {sign} {terse(alpha or 0)} × {names[-1]}"
        terms[1] = map_values(lambda b: b * (alpha or 0), terms[1])
    left, right = terms
    result = None if is_unsupported else map_values(BINARY_FUNCTIONS[name], left, right)
    if result is None or left is None or right is None:
        return Derivation(formula, elementwise=not is_unsupported)
    magnitude = max(left.max_abs, right.max_abs, left.max_abs * right.max_abs if sign == "×" else 0.0)
    return Derivation(formula, result, written_pairs(left, sign, right), magnitude, elementwise=True)


def unary(template: str, function: Callable[[float], float]) -> ForwardRule:
    """Return the rule of a function of one number, written as "exp({0})", with {1} for an operand in parentheses."""

    def rule(call: CallContext) -> Derivation:
        operand = call.operand(0)
        result = map_values(function, operand)
        formula = template.format(call.name(), tight(call.name()))
        if result is None or operand is None:
            return Derivation(formula, elementwise=True)
        number = operand.values[0] if len(result.values) == 1 else None
        arithmetic = "" if number is None else template.format(exact(number), parenthesized(number))
        return Derivation(formula, result, arithmetic, operand.max_abs, elementwise=True)

    return rule


def sum_or_mean(call: CallContext) -> Derivation:
    """Derive a sum or a mean, over all dimensions or some."""
    is_mean, values, output = plain_name(call.op.name) == "mean", call.op.inputs[0].stats, call.op.output[0].stats
    operand, dim = call.whole(call.op.inputs[0]), call.setting("dim")
    count = max(values.size // max(output.size, 1), 1)
    formula = f"{'mean' if is_mean else 'sum'} of {call.name()}: {count} values {'averaged' if is_mean else 'added up'}"
    formula += f" along dim {dim}" if dim else ""
    dims = call.integers("dim") or (None if dim else tuple(range(len(values.shape))))
    if operand is None or dims is None or not operand.shape:
        return Derivation(formula)
    result = map_values(lambda total: total / (count if is_mean else 1), summed_over(operand, dims))
    arithmetic = f"({written_sum(operand)}) / {count}" if is_mean else written_sum(operand)
    is_written = len(operand.values) <= MAX_LISTED_VALUES and output.size == 1
    magnitude = operand.max_abs * count
    return Derivation(formula, result and result.reshaped(output.shape), arithmetic if is_written else "", magnitude)


def linear(call: CallContext) -> Derivation:
    """Derive input @ weight.T + bias."""
    names = [short_name(call.trace, value) for value in call.op.inputs]
    formula = f"{names[0]} @ {names[1]}.T" + (f" + {names[2]}" if len(names) > 2 else "")
    tensors = [call.whole(value) for value in call.op.inputs]
    bias = tensors[2] if len(tensors) > 2 else SmallTensor((), (0.0,))
    return _product(call, formula, tensors[0], transposed(tensors[1]), bias)


def matmul(call: CallContext) -> Derivation:
    """Derive left @ right."""
    left, right = (call.whole(value) for value in call.op.inputs[:2])
    return _product(call, f"{inner(call.name(0))} @ {inner(call.name(1))}", left, right, SmallTensor((), (0.0,)))


def addmm(call: CallContext) -> Derivation:
    """Derive bias + left @ right."""
    bias, left, right = (call.whole(value) for value in call.op.inputs[:3])
    formula = f"{inner(call.name(0))} + {inner(call.name(1))} @ {inner(call.name(2))}"
    is_unscaled = call.setting("beta") is None and call.setting("alpha") is None
    return _product(call, formula if is_unscaled else f"{formula}, scaled", left, right, bias if is_unscaled else None)


def _product(
    call: CallContext, formula: str, left: SmallTensor | None, right: SmallTensor | None, bias: SmallTensor | None
) -> Derivation:
    """Derive left @ right + bias, of matrices or batches of equal size."""
    has_matrices = left and right and len(left.shape) == len(right.shape) >= 2
    result = map_values(lambda a, b: a + b, matrix_product(left, right) if has_matrices else None, bias)
    if result is None or left is None or right is None or bias is None:
        return Derivation(formula)
    terms = product_terms(left, right, (0,) * len(result.shape))
    text = written_products(terms) + (f" + {parenthesized(bias.values[0])}" if len(call.op.inputs) > 2 else "")
    prefix = "" if len(result.values) == 1 else FIRST_VALUE
    magnitude = left.max_abs * right.max_abs * len(terms) + bias.max_abs
    return Derivation(formula, result, f"{prefix}{text}" if len(terms) <= MAX_PRODUCT_TERMS else "", magnitude)


def convolution(call: CallContext) -> Derivation:
    """Write how many products each output element sums."""
    weight = call.op.named_input("weight")
    shape = weight.stats.shape if weight else ()
    if len(shape) < 3:
        return Derivation(f"a convolution of {call.name()}")
    products = f"{math.prod(shape[1:])} products: a {'×'.join(map(str, shape[2:]))} window of {call.name()} × weight"
    bias = ", plus bias" if call.op.named_input("bias") else ""
    stride = f", stride {call.setting('stride')}" if call.setting("stride") else ""
    return Derivation(f"each output is a sum of {products}{bias}{stride}")


def batch_norm(call: CallContext) -> Derivation:
    """Write whether mean and standard deviation are the batch's own or running statistics."""
    uses_batch = call.setting("training") == "True" or call.setting("use_input_stats") == "True"
    source = "of this batch" if uses_batch else "as remembered from training"
    affine = " × weight + bias" if call.op.named_input("weight") else ""
    return Derivation(f"({call.name()} - mean) / sd{affine}, mean and sd of each channel {source}")


def layer_norm(call: CallContext) -> Derivation:
    """Write what is normalized together."""
    affine = " × weight + bias" if call.op.named_input("weight") and call.op.named_input("bias") else ""
    return Derivation(f"({call.name()} - mean) / sd{affine}, mean and sd of each row's own values")


def dropout(call: CallContext) -> Derivation:
    """Write what dropout does to each value."""
    p = call.number("p", 0.5)
    if call.setting("training") == "False":
        return Derivation(f"{call.name()} as it is: dropout only works while training")
    chance = "some values" if p is None else f"each value with probability {p:g}"
    return Derivation(f"{call.name()}: {chance} put to 0, the rest divided by the probability of staying")


def softmax(call: CallContext) -> Derivation:
    """Derive softmax or log_softmax along a dimension."""
    is_log, name, dim = "log" in call.op.name, call.name(), call.setting("dim")
    of = f"of exp along dim {dim}"
    formula = f"{name} - log of the sum {of}" if is_log else f"exp({name}) / the sum {of}"
    values, dims = call.whole(call.op.inputs[0]), call.integers("dim")
    exps = map_values(math.exp, values)
    sums = summed_over(exps, dims) if exps and dims is not None else None
    if is_log:
        return Derivation(formula, map_values(lambda x, total: x - math.log(total), values, sums))
    return Derivation(formula, map_values(lambda x, total: math.exp(x) / total, values, sums))


def mse(call: CallContext) -> Derivation:
    """Derive the squared errors and their mean or sum."""
    prediction, target = call.op.named_input("input"), call.op.named_input("target")
    squares = map_values(lambda a, b: (a - b) ** 2, call.small(prediction), call.small(target))
    reduction, formula = _reduction(call), f"({call.name(0)} - {call.name(1)})^2"
    if reduction == "none":
        return Derivation(formula, squares)
    if squares is None or call.one_value:
        return Derivation(f"{reduction} of {formula}")
    count = len(squares.values)
    total = exact_sum(squares.values) / (count if reduction == "mean" else 1)
    return Derivation(f"{reduction} of {formula}", SmallTensor((), (total,)), magnitude=squares.max_abs * count)


def _reduction(call: CallContext) -> str:
    return call.setting("reduction") or "mean"


def _over(call: CallContext, what: str) -> str:
    """Return the beginning of a loss's formula, "mean over the targets of "; "" where nothing is reduced."""
    return "" if _reduction(call) == "none" else f"{_reduction(call)} {what} "


def cross_entropy(call: CallContext) -> Derivation:
    """Write what is averaged."""
    targets = _over(call, "over the targets of")
    return Derivation(f"{targets}-log(p of the target's class), p = softmax({call.name()})")


def nll(call: CallContext) -> Derivation:
    """Write what is averaged."""
    return Derivation(f"{_over(call, 'over the targets of')}-{call.name()} at the target's class")


def binary_cross_entropy(call: CallContext) -> Derivation:
    """Write what is averaged."""
    target = call.name(1)
    terms = f"-({target} × log p + (1 - {target}) × log(1 - p))"
    return Derivation(f"{_over(call, 'of')}{terms}, p = sigmoid({call.name()})")


def sentence_rule(sentence: str) -> ForwardRule:
    """Return a rule without numbers; {0} in its sentence is the first input's name."""
    return lambda call: Derivation(sentence.format(call.name()))


SENTENCES = {  # of calls that are described, not worked
    **dict.fromkeys(
        ("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool2d"), "the greatest value of each window of {0}"
    ),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "adaptive_avg_pool2d"), "the mean of each window of {0}"),
    **dict.fromkeys(
        ("view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze"), "the values of {0}, in another shape"
    ),
    **dict.fromkeys(("transpose", "permute", "t", "movedim", "swapaxes"), "the values of {0}, in another order"),
    **dict.fromkeys(("select", "getitem", "narrow", "chunk", "split", "unbind"), "a part of {0}"),
    "expand": "{0} stretched: the same values again and again, none copied",
    "cat": "{0} and more, joined end to end",
    "stack": "{0} and more, one above the other",
    "clone": "a copy of {0}",
    "detach": "{0} cut off from its graph: no gradient goes back from here",
    "contiguous": "{0}, laid out row by row in memory",
    "embedding": "for each of {0}: the row of that number in the weight",
    "leaky_relu": "{0} where it is above 0, else a slope × {0}",
    "hardtanh": "{0}, cut off at its bounds",
    "relu6": "{0}, cut off below 0 and above 6",
    "gelu": "{0} × the share of a normal distribution below {0}",
    "lstm": "a whole LSTM over {0}: PyTorch does all its steps in one call",
    "multi_head_attention_forward": "attention of {0}, head by head: softmax(query @ key.T / sqrt(size)) @ value",
    "scaled_dot_product_attention": "softmax(query @ key.T / sqrt(size)) @ value, in one call",
}
FORWARD_RULES: dict[str, ForwardRule] = {  # by the function's name
    **dict.fromkeys((*BINARY_FUNCTIONS, *REVERSED), binary),
    "neg": unary("-{1}", lambda x: -x),
    "square": unary("{1}^2", lambda x: x * x),
    "exp": unary("exp({0})", exponential),
    "log": unary("log({0})", logarithm),
    "sqrt": unary("sqrt({0})", root),
    "rsqrt": unary("1 / sqrt({0})", lambda x: quotient(1, root(x))),
    "sin": unary("sin({0})", lambda x: sine_or_cosine(math.sin, x)),
    "cos": unary("cos({0})", lambda x: sine_or_cosine(math.cos, x)),
    "abs": unary("|{0}|", abs),
    "relu": unary("max(0, {0})", lambda x: 0.0 if x <= 0 else x),
    "sigmoid": unary("1 / (1 + exp(-{1}))", sigmoid),
    "tanh": unary("tanh({0})", math.tanh),
    "silu": unary("{1} × sigmoid({0})", lambda x: x * sigmoid(x)),
    **dict.fromkeys(("sum", "mean"), sum_or_mean),
    "linear": linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), matmul),
    "addmm": addmm,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "dropout": dropout,
    **dict.fromkeys(("softmax", "log_softmax"), softmax),
    "mse_loss": mse,
    "cross_entropy": cross_entropy,
    "nll_loss": nll,
    "binary_cross_entropy_with_logits": binary_cross_entropy,
    **{name: sentence_rule(sentence) for name, sentence in SENTENCES.items()},
}
