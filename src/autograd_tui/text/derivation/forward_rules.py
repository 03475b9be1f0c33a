"""What forward calls compute: elementwise functions, matrix products, layers and losses."""

from __future__ import annotations

import math
from collections.abc import Callable

from autograd_tui.text.derivation.derivation import (
    FIRST_VALUE,
    MAX_LISTED_VALUES,
    MAX_PRODUCT_TERMS,
    MAX_WRITTEN_PRODUCTS,
    Derivation,
    ForwardRule,
    written_products,
    written_sum,
    written_values,
)
from autograd_tui.text.derivation.rule_context import CallContext
from autograd_tui.text.derivation.rules_elementwise import sigmoid
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
    sine_or_cosine,
    summed_over,
    transposed,
)
from autograd_tui.text.equation import exact, parenthesized
from autograd_tui.text.numbers import terse
from autograd_tui.text.trace.expression import call_expression, inner, plain_name, short_name, tight

Number = Callable[..., float]
SIGNS: dict[str, tuple[str, Number]] = {
    "add": ("+", lambda a, b: a + b),
    "sub": ("-", lambda a, b: a - b),
    "mul": ("×", lambda a, b: a * b),
    "div": ("/", quotient),
    "pow": ("^", power),
}


def operator(call: CallContext) -> Derivation:
    """Derive two operands with a sign between them: add, sub, mul, div or pow."""
    name, terms = plain_name(call.op.name), [call.operand(0), call.operand(1)]
    reverse_name = {"rsub": "sub", "rpow": "pow", "rdiv": "div", "rtruediv": "div"}.get(name)
    number_first = reverse_name or (name == "pow" and call.setting("self") is not None)
    if number_first:
        name, terms = reverse_name or name, terms[::-1]
    sign, function = SIGNS[name]
    alpha = call.number("alpha", 1.0)
    is_unsupported = call.setting("rounding_mode") is not None or alpha is None
    formula = (
        call_expression(call.trace, call.op) or sign.join(f" {inner(operand)} " for operand in call.names()).strip()
    )
    if alpha not in (None, 1.0):
        formula = f"{inner(call.names()[0])} {sign} {terse(alpha or 0)} × {inner(call.names()[-1])}"
        terms[1] = map_values(lambda b: b * (alpha or 0), terms[1])
    left, right = terms
    result = None if is_unsupported else map_values(function, left, right)
    if result is None or left is None or right is None:
        return Derivation(formula, elementwise=not is_unsupported)
    size = max(left.max_abs, right.max_abs, left.max_abs * right.max_abs if sign == "×" else 0.0)
    return Derivation(formula, result, _written(left, sign, right, result), size, elementwise=True)


def _written(left: SmallTensor, sign: str, right: SmallTensor, result: SmallTensor) -> str:
    lefts, rights = map_values(lambda a, _: a, left, right), map_values(lambda _, b: b, left, right)
    assert lefts is not None
    assert rights is not None
    if len(result.values) > MAX_LISTED_VALUES:
        return FIRST_VALUE + _pair(lefts.values[0], sign, rights.values[0])
    if len(result.values) > MAX_WRITTEN_PRODUCTS:
        return f"{written_values(lefts)} {sign} {written_values(rights)}"
    terms = [_pair(a, sign, b) for a, b in zip(lefts.values, rights.values, strict=True)]
    return terms[0] if len(terms) == 1 else f"[{', '.join(terms)}]"


def _pair(a: float, sign: str, b: float) -> str:
    if sign == "^":
        return f"{parenthesized(a)}^{parenthesized(b)}"
    return f"{exact(a)} {sign} {parenthesized(b)}"


def unary(of: str, function: Callable[[float], float]) -> ForwardRule:
    """Return the rule of a function of one number; `of` is its template: "exp({0})", or {1} for a tight operand."""

    def rule(call: CallContext) -> Derivation:
        operand = call.operand(0)
        result = map_values(function, operand)
        formula = of.format(call.name(), tight(call.name()))
        if result is None or operand is None:
            return Derivation(formula, elementwise=True)
        number = operand.values[0] if len(result.values) == 1 else None
        arithmetic = "" if number is None else of.format(exact(number), parenthesized(number))
        return Derivation(formula, result, arithmetic, operand.max_abs, elementwise=True)

    return rule


def total(call: CallContext) -> Derivation:
    """Derive a sum."""
    return _sum(call, "sum")


def mean(call: CallContext) -> Derivation:
    """Derive a mean."""
    return _sum(call, "mean")


def _sum(call: CallContext, name: str) -> Derivation:
    operand, output = call.small(call.op.inputs[0]), call.op.output[0]
    count = max(call.op.inputs[0].stats.size // max(output.stats.size, 1), 1)
    formula = f"{name} of {call.name()}: {count} values {'added up' if name == 'sum' else 'averaged'}"
    formula += f" along dim {call.setting('dim')}" if call.setting("dim") else ""
    dims = call.integers("dim") or (
        tuple(range(len(call.op.inputs[0].stats.shape))) if not call.setting("dim") else None
    )
    if operand is None or dims is None or call.one_value or not operand.shape:
        return Derivation(formula)
    sums = summed_over(operand, dims)
    divisor = count if name == "mean" else 1
    result = map_values(lambda up: up / divisor, sums)
    arithmetic = f"({written_sum(operand)})" if name == "mean" else written_sum(operand)
    arithmetic = (
        arithmetic + f" / {count}" * (name == "mean") if len(operand.values) <= 8 and output.stats.size == 1 else ""
    )
    return Derivation(formula, result and result.reshaped(output.stats.shape), arithmetic, operand.max_abs * count)


ELEMENTWISE_RULES: dict[str, ForwardRule] = {
    **dict.fromkeys([*SIGNS, "rsub", "rpow", "rdiv", "rtruediv"], operator),
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
    "sum": total,
    "mean": mean,
}


def linear(call: CallContext) -> Derivation:
    """Derive input @ weight.T + bias."""
    names = [short_name(call.trace, value) for value in call.op.inputs]
    formula = f"{names[0]} @ {names[1]}.T" + (f" + {names[2]}" if len(names) > 2 else "")
    tensors = [call.small(value) for value in call.op.inputs]
    return _product(
        call, formula, tensors[0], transposed(tensors[1]), tensors[2] if len(tensors) > 2 else SmallTensor((), (0.0,))
    )


def matmul(call: CallContext) -> Derivation:
    """Derive left @ right."""
    left, right = (call.small(value) for value in call.op.inputs[:2])
    formula = f"{inner(call.name(0))} @ {inner(call.name(1))}"
    return _product(call, formula, left, right, SmallTensor((), (0.0,)))


def addmm(call: CallContext) -> Derivation:
    """Derive bias + left @ right."""
    bias, left, right = (call.small(value) for value in call.op.inputs[:3])
    formula = f"{inner(call.name(0))} + {inner(call.name(1))} @ {inner(call.name(2))}"
    is_unscaled = call.setting("beta") is None and call.setting("alpha") is None
    return _product(call, formula if is_unscaled else f"{formula}, scaled", left, right, bias if is_unscaled else None)


def _product(
    call: CallContext, formula: str, left: SmallTensor | None, right: SmallTensor | None, bias: SmallTensor | None
) -> Derivation:
    has_matrices = left and right and len(left.shape) == len(right.shape) >= 2
    product = matrix_product(left, right) if has_matrices and not call.one_value else None
    result = map_values(lambda a, b: a + b, product, bias)
    if result is None or left is None or right is None or bias is None:
        return Derivation(formula)
    terms = product_terms(left, right, (0,) * len(result.shape))
    text = written_products(terms)
    text += f" + {parenthesized(bias.values[0])}" if len(call.op.inputs) > 2 else ""
    prefix = "" if len(result.values) == 1 else FIRST_VALUE
    size = left.max_abs * right.max_abs * len(terms) + bias.max_abs
    return Derivation(formula, result, f"{prefix}{text}" if len(terms) <= MAX_PRODUCT_TERMS else "", size)


MATRIX_RULES: dict[str, ForwardRule] = {
    "linear": linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), matmul),
    "addmm": addmm,
}


def sentence_rule(sentence: str) -> ForwardRule:
    """Return a rule without numbers; {} in its sentence is the first input's name."""
    return lambda call: Derivation(sentence.format(call.name()))


def convolution(call: CallContext) -> Derivation:
    """Say how many products each output element sums."""
    weight = call.role("weight")
    shape = weight.stats.shape if weight else ()
    if len(shape) < 3:
        return Derivation(f"a convolution of {call.name()}")
    window = "×".join(map(str, shape[2:]))
    terms = math.prod(shape[1:])
    bias = ", plus bias" if call.role("bias") else ""
    stride = call.setting("stride")
    stride_text = f", stride {stride}" if stride else ""
    return Derivation(
        f"each output is a sum of {terms} products: a {window} window of {call.name()} × weight{bias}{stride_text}"
    )


def batch_norm(call: CallContext) -> Derivation:
    """Say whether mean and standard deviation are the batch's own or running statistics."""
    uses_batch = call.setting("training") == "True" or call.setting("use_input_stats") == "True"
    source = "of this batch" if uses_batch else "as remembered from training"
    affine = " × weight + bias" if call.role("weight") else ""
    return Derivation(f"({call.name()} - mean) / sd{affine}, mean and sd of each channel {source}")


def layer_norm(call: CallContext) -> Derivation:
    """Say what is normalized together."""
    affine = " × weight + bias" if call.role("weight") and call.role("bias") else ""
    return Derivation(f"({call.name()} - mean) / sd{affine}, mean and sd of each row's own values")


def dropout(call: CallContext) -> Derivation:
    """Say what dropout does to each value."""
    p = call.number("p", 0.5)
    if call.setting("training") == "False":
        return Derivation(f"{call.name()} as it is: dropout only works while training")
    chance = "some values" if p is None else f"each value with probability {p:g}"
    return Derivation(f"{call.name()}: {chance} put to 0, the rest divided by the probability of staying")


def mse(call: CallContext) -> Derivation:
    """Derive the squared errors and their mean or sum."""
    prediction, target = call.role("input"), call.role("target")
    squares = map_values(lambda a, b: (a - b) ** 2, call.small(prediction), call.small(target))
    reduction = call.setting("reduction") or "mean"
    formula = f"({call.name(0)} - {call.name(1)})^2"
    if reduction == "none":
        return Derivation(formula, squares)
    return _reduced(call, f"{reduction} of {formula}", squares, mean=reduction == "mean", known=reduction != "mean")


def _reduced(
    call: CallContext, formula: str, terms: SmallTensor | None, *, mean: bool, known: bool = True
) -> Derivation:
    if terms is None or call.one_value or not (mean or known):
        return Derivation(formula)
    total = exact_sum(terms.values) / (len(terms.values) if mean else 1)
    return Derivation(formula, SmallTensor((), (total,)), magnitude=terms.max_abs * len(terms.values))


def softmax(call: CallContext) -> Derivation:
    """Derive softmax along its dimension."""
    return Derivation(
        f"exp({call.name()}) / the sum of exp along dim {call.setting('dim')}", _probabilities(call, math.exp)
    )


def log_softmax(call: CallContext) -> Derivation:
    """Derive log_softmax along its dimension."""
    formula = f"{call.name()} - log of the sum of exp along dim {call.setting('dim')}"
    return Derivation(formula, _probabilities(call, lambda x: x))


def _probabilities(call: CallContext, top: Callable[[float], float]) -> SmallTensor | None:
    values, dims = call.small(call.op.inputs[0]), call.integers("dim")
    if values is None or dims is None or call.one_value:
        return None
    exps = map_values(math.exp, values)
    sums = summed_over(exps, dims) if exps else None
    if top is math.exp:
        return map_values(lambda x, total: math.exp(x) / total, values, sums)
    return map_values(lambda x, total: x - math.log(total), values, sums)


def cross_entropy(call: CallContext) -> Derivation:
    """Say what is averaged."""
    reduction = call.setting("reduction") or "mean"
    prefix = "" if reduction == "none" else f"{reduction} over the targets of "
    return Derivation(f"{prefix}-log(p of the target's class), p = softmax({call.name()})")


def binary_cross_entropy(call: CallContext) -> Derivation:
    """Say what is averaged."""
    prefix = "" if (reduction := call.setting("reduction") or "mean") == "none" else f"{reduction} of "
    target = call.name(1)
    return Derivation(f"{prefix}-({target} × log p + (1 - {target}) × log(1 - p)), p = sigmoid({call.name()})")


def nll(call: CallContext) -> Derivation:
    """Say what is averaged."""
    reduction = call.setting("reduction") or "mean"
    prefix = "" if reduction == "none" else f"{reduction} over the targets of "
    return Derivation(f"{prefix}-{call.name()} at the target's class")


MAX_POOLED = "the greatest value of each window of {}"
RESHAPED = "the values of {}, in another shape"
REORDERED = "the values of {}, in another order"
TAKEN = "a part of {}"
LAYER_RULES: dict[str, ForwardRule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "dropout": dropout,
    "mse_loss": mse,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "cross_entropy": cross_entropy,
    "nll_loss": nll,
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool2d"), sentence_rule(MAX_POOLED)),
    **dict.fromkeys(
        ("avg_pool1d", "avg_pool2d", "adaptive_avg_pool2d"), sentence_rule("the mean of each window of {}")
    ),
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze"), sentence_rule(RESHAPED)),
    **dict.fromkeys(("transpose", "permute", "t", "movedim", "swapaxes"), sentence_rule(REORDERED)),
    **dict.fromkeys(("select", "getitem", "narrow", "chunk", "split", "unbind"), sentence_rule(TAKEN)),
    "expand": sentence_rule("{} stretched: the same values again and again, none copied"),
    "cat": sentence_rule("{} and more, joined end to end"),
    "stack": sentence_rule("{} and more, one above the other"),
    "clone": sentence_rule("a copy of {}"),
    "detach": sentence_rule("{} cut off from its graph: no gradient goes back from here"),
    "contiguous": sentence_rule("{}, laid out row by row in memory"),
    "embedding": sentence_rule("for each of {}: the row of that number in the weight"),
    "binary_cross_entropy_with_logits": binary_cross_entropy,
    "leaky_relu": sentence_rule("{0} where it is above 0, else a slope × {0}"),
    "hardtanh": sentence_rule("{}, cut off at its bounds"),
    "relu6": sentence_rule("{}, cut off below 0 and above 6"),
    "multi_head_attention_forward": sentence_rule(
        "attention of {}, head by head: softmax(query @ key.T / sqrt(size)) @ value"
    ),
    "gelu": sentence_rule("{0} × the share of a normal distribution below {0}"),
    "lstm": sentence_rule("a whole LSTM over {}: PyTorch does all its steps in one call"),
    "scaled_dot_product_attention": sentence_rule("softmax(query @ key.T / sqrt(size)) @ value, in one call"),
}
