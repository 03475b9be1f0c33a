"""The gradients of elementwise functions, reductions, losses, and of what only moves values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from autograd_tui.core.trace import Value
from autograd_tui.text.derivation.derivation import Derivation, product_magnitude, written_or_first, written_values
from autograd_tui.text.derivation.rule_context import BackwardRule, NodeContext, formula_only, unchanged
from autograd_tui.text.derivation.small_tensor import (
    MAX_SIZE,
    Shape,
    SmallTensor,
    full,
    indices,
    logarithm,
    map_values,
    permuted,
    power,
    quotient,
    scatter_add,
    sigmoid,
    sine_or_cosine,
    summed_over,
)
from autograd_tui.text.numbers import parse_integers, terse
from autograd_tui.text.trace.tensor_words import differential, inner, tight

REORDERED = "the same values in another order: the gradient is ordered back"
SELECTED = "the gradient goes back to the values that were taken, the others get 0"
VIEW_NODES = ("View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Alias", "Flatten", "Unflatten")


def derivative(of: str, by: str) -> str:
    """Write a derivative: d(w × x)/dw."""
    return f"d({of})/{differential(by)}"


def operand_names(context: NodeContext) -> tuple[str, str]:
    """Return the names of both operands, with "left" and "right" if they are the same tensor."""
    left, right = context.name(0), context.name(1)
    return (f"left {left}", f"right {right}") if left == right else (left, right)


def add_or_sub(context: NodeContext) -> list[Derivation]:
    """Derive left ± alpha × right."""
    (left, right), alpha = operand_names(context), context.number("alpha", 1.0)
    sign = "-" if context.op.name.startswith("Sub") else "+"
    by_right, formula = None, f"d/{differential(right)} = {sign}alpha"
    scale = "" if alpha is None or abs(alpha) == 1 else f"{terse(abs(alpha))} × "
    of = f"{left} {sign} {scale}{inner(right)}"
    if alpha is not None:
        by_right = -alpha if sign == "-" else alpha
        formula = f"{derivative(of, right)} = {terse(by_right)}"
    return [context.scaled(f"{derivative(of, left)} = 1", 1.0), context.scaled(formula, by_right, index=1)]


def rsub(context: NodeContext) -> list[Derivation]:
    """Derive other - alpha × self, of which self comes first."""
    (own, other), alpha = operand_names(context), context.number("alpha", 1.0)
    of = f"{inner(other)} - {inner(own)}"
    formula = f"{derivative(of, own)} = -1" if alpha in (None, 1) else f"d/{differential(own)} = {terse(-(alpha or 0))}"
    by_own = context.scaled(formula, None if alpha is None else -alpha)
    return [by_own, context.scaled(f"{derivative(of, other)} = 1", 1.0, index=1)]


def mul(context: NodeContext) -> list[Derivation]:
    """Derive left × right; dropout is a product with its mask."""
    if context.call and "dropout" in context.call.name:
        formula = "dropout: 0 for what was dropped, 1 / (1 - p) for the rest"
        return [context.times(formula, context.operand("other", 1))]
    left, right = operand_names(context)
    of = f"{inner(left)} × {inner(right)}"
    return [
        context.times(f"{derivative(of, left)} = {right}", context.operand("other", 1), shows_local=False),
        context.times(f"{derivative(of, right)} = {left}", context.operand("self", 0), index=1, shows_local=False),
    ]


def div(context: NodeContext) -> list[Derivation]:
    """Derive left / right."""
    left, right = operand_names(context)
    of, top, bottom = f"{inner(left)} / {tight(right)}", context.operand("self", 0), context.operand("other", 1)
    return [
        context.times(f"{derivative(of, left)} = 1 / {tight(right)}", map_values(lambda b: quotient(1, b), bottom)),
        context.times(
            f"{derivative(of, right)} = -{inner(left)} / {tight(right)}^2",
            map_values(lambda a, b: quotient(-a, b * b), top, bottom),
            index=1,
        ),
    ]


def unary(role: str, of: str, local: str, function: Callable[[float], float]) -> BackwardRule:
    """Return the rule of a function of one number, written as `of`, whose local derivative is written as `local`.

    `function` computes that from what the node saved under `role`. In `local`, {0} has parentheses if needed, {1} none.
    """

    def rule(context: NodeContext) -> list[Derivation]:
        name = context.name(0)
        formula = f"{derivative(of.format(name), name)} = {local.format(tight(name), name)}"
        saved = context.saved(role) or (context.call_input(0) if role == "self" else None)
        return [context.times(formula, map_values(function, context.small(saved)))]

    return rule


def neg(context: NodeContext) -> list[Derivation]:
    """Derive -x."""
    name = inner(context.name(0))
    return [context.scaled(f"{derivative(f'-{name}', name)} = -1", -1.0)]


def _silu(x: float) -> float:
    return sigmoid(x) * (1 + x * (1 - sigmoid(x)))


def _gelu(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2))) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gelu(context: NodeContext) -> list[Derivation]:
    """Derive the exact GELU; its tanh approximation gets the formula without numbers."""
    name = context.name(0)
    is_exact = context.setting("approximate") in (None, "none")
    sentence = f"Phi({name}) + {inner(name)} × phi({name}), Phi and phi of the normal distribution"
    local = map_values(_gelu, context.small(context.saved("self"))) if is_exact else None
    return [context.times(f"{derivative(f'gelu({name})', name)} = {sentence}{'' if is_exact else ', nearly'}", local)]


def leaky_relu(context: NodeContext) -> list[Derivation]:
    """Derive leaky_relu: 1 above 0, its negative slope below."""
    name = inner(context.name(0))
    slope = context.number("negative_slope", 0.01)
    values = context.small(context.saved("self"))
    local = None if slope is None else map_values(lambda x: 1.0 if x > 0 else slope, values)
    formula = f"d/{differential(name)} = 1 where {name} > 0, else {'its slope' if slope is None else slope}"
    return [context.times(formula, local)]


def hardtanh(context: NodeContext) -> list[Derivation]:
    """Derive hardtanh and relu6: 1 between two bounds."""
    name = inner(context.name(0))
    is_relu6 = context.call is not None and context.call.name.strip("_") == "relu6"
    low, high = (
        context.number("min_val", 0.0 if is_relu6 else -1.0),
        context.number("max_val", 6.0 if is_relu6 else 1.0),
    )
    if low is None or high is None:
        return [context.times(f"d/{differential(name)} = 1 between its bounds, else 0", None)]
    minimum, maximum = low, high
    local = map_values(lambda x: 1.0 if minimum < x < maximum else 0.0, context.small(context.saved("self")))
    return [context.times(f"d/{differential(name)} = 1 where {minimum:g} < {name} < {maximum:g}, else 0", local)]


def softmax(context: NodeContext) -> list[Derivation]:
    """Derive: each probability depends on all inputs of its row."""
    upstream, probabilities = context.whole_upstream, context.whole(context.saved("result"))
    sums = _row_sums(context, map_values(lambda up, p: up * p, upstream, probabilities))
    result = map_values(lambda up, p, total: p * (up - total), upstream, probabilities, sums)
    return [context.gradient(f"p = softmax({context.name(0)}): p × (upstream - sum(upstream × p))", result)]


def log_softmax(context: NodeContext) -> list[Derivation]:
    """Derive: each log probability depends on all inputs of its row."""
    upstream, log_probabilities = context.whole_upstream, context.whole(context.saved("result"))
    sums = _row_sums(context, upstream)
    result = map_values(lambda up, log_p, total: up - math.exp(log_p) * total, upstream, log_probabilities, sums)
    formula = f"p = softmax({context.name(0)}): upstream - p × sum(upstream){_closed_form(context)}"
    return [context.gradient(formula, result)]


def _row_sums(context: NodeContext, tensor: SmallTensor | None) -> SmallTensor | None:
    """Sum a tensor over the dimension of the softmax; None if that or the tensor is not known."""
    dims = context.integers("dim")
    if dims is None and tensor and context.call and context.call.name == "cross_entropy":
        dims = (1 if len(tensor.shape) > 1 else 0,)
    return None if tensor is None or dims is None else summed_over(tensor, dims)


def _closed_form(context: NodeContext) -> str:
    """Return the whole gradient's closed form if the call is a mean cross entropy and itself the loss; else ""."""
    call, target = context.call, context.op.named_input("target")
    if call is None or call.name != "cross_entropy" or target is None or call.output[0].name != "loss":
        return ""
    is_weighted = call.named_input("weight") or context.number("label_smoothing")
    has_classes = "int" in target.stats.dtype and target.stats.min is not None and target.stats.min >= 0
    has_classes = has_classes and not target.stats.range_sampled
    if is_weighted or not has_classes or context.setting("reduction") not in (None, "mean"):
        return ""
    return f", in all (p - 1)/{target.stats.size} at the target's class, p/{target.stats.size} elsewhere"


def power_of_number(context: NodeContext) -> list[Derivation]:
    """Derive base^n by its base, n a number."""
    base = tight(context.name(0))
    n = 2.0 if context.call and context.call.name in ("square", "square_") else context.number("exponent")
    if n is None:
        return [context.times(f"{derivative(f'{base}^n', base)} = n × {base}^(n - 1)", None)]
    local_text = {1.0: "1", 2.0: f"2 × {base}"}.get(n, f"{terse(n)} × {base}^{terse(n - 1)}")
    values = context.operand("self", 0)
    local = map_values(lambda a: n * power(a, n - 1) if n else 0.0, values)
    by = f"2 × {written_values(values)}" if values and n == 2 else ""
    return [context.times(f"{derivative(f'{base}^{terse(n)}', base)} = {local_text}", local, calculation=by)]


def power_of_tensor(context: NodeContext) -> list[Derivation]:
    """Derive base^exponent by both."""
    base, exponent = map(tight, operand_names(context))
    of, bases, exponents = f"{base}^{exponent}", context.operand("self", 0), context.operand("exponent", 1)
    by_base = map_values(lambda a, n: n * power(a, n - 1) if n else 0.0, bases, exponents)
    by_exponent = map_values(_exponent_derivative, bases, exponents)
    return [
        context.times(f"{derivative(of, base)} = {exponent} × {base}^({exponent} - 1)", by_base),
        context.times(f"{derivative(of, exponent)} = {of} × log({base})", by_exponent, index=1),
    ]


def power_of_scalar(context: NodeContext) -> list[Derivation]:
    """Derive number^exponent by its exponent."""
    base = context.number("other" if context.call and context.call.name == "rpow" else "self")
    exponent = tight(context.name(0))
    of = f"{'number' if base is None else terse(base)}^{exponent}"
    saved = context.small(context.saved("exponent"))
    local = map_values(lambda n: _exponent_derivative(base, n), saved) if base is not None else None
    log = "log(number)" if base is None else f"log({terse(base)})"
    return [context.times(f"{derivative(of, exponent)} = {of} × {log}", local)]


def _exponent_derivative(base: float, exponent: float) -> float:
    return 0.0 if base == 0 and exponent >= 0 else power(base, exponent) * logarithm(base)


ELEMENTWISE_RULES: dict[str, BackwardRule] = {  # by the node's name
    "AddBackward0": add_or_sub,
    "SubBackward0": add_or_sub,
    "RsubBackward0": rsub,
    "RsubBackward1": rsub,
    "MulBackward0": mul,
    "DivBackward0": div,
    "NegBackward0": neg,
    "ReciprocalBackward0": unary("result", "1 / {}", "-1 / {}^2", lambda y: -y * y),
    "ExpBackward0": unary("result", "exp({})", "exp({1})", lambda y: y),
    "LogBackward0": unary("self", "log({})", "1 / {}", lambda x: quotient(1, x)),
    "SqrtBackward0": unary("result", "sqrt({})", "1 / (2 × sqrt({1}))", lambda y: quotient(0.5, y)),
    "RsqrtBackward0": unary("result", "1 / sqrt({})", "-1/2 × {}^-1.5", lambda y: -0.5 * y * y * y),
    "AbsBackward0": unary("self", "|{}|", "its sign", lambda x: (x > 0) - (x < 0)),
    "SinBackward0": unary("self", "sin({})", "cos({1})", lambda x: sine_or_cosine(math.cos, x)),
    "CosBackward0": unary("self", "cos({})", "-sin({1})", lambda x: -sine_or_cosine(math.sin, x)),
    "ReluBackward0": unary("result", "relu({})", "1 where {} > 0, else 0", lambda y: 0.0 if y <= 0 else 1.0),
    "SigmoidBackward0": unary("result", "sigmoid({})", "y × (1 - y), y = sigmoid", lambda y: y * (1 - y)),
    "TanhBackward0": unary("result", "tanh({})", "1 - tanh({1})^2", lambda y: 1 - y * y),
    "SiluBackward0": unary("self", "silu({0})", "s × (1 + {0} × (1 - s)), s = sigmoid", _silu),
    "GeluBackward0": gelu,
    "LeakyReluBackward0": leaky_relu,
    "HardtanhBackward0": hardtanh,
    "SoftmaxBackward0": softmax,
    "LogSoftmaxBackward0": log_softmax,
    "PowBackward0": power_of_number,
    "PowBackward1": power_of_tensor,
    "PowBackward2": power_of_scalar,
}


def view(context: NodeContext) -> list[Derivation]:
    """Reshape the gradient to the shape of the input."""
    up, shape = context.whole_upstream, context.input_shape
    result = up.reshaped(shape) if up and shape is not None else None
    return [context.gradient("the same values in another shape: the gradient gets the old shape back", result)]


def transpose(context: NodeContext) -> list[Derivation]:
    """Swap the two dimensions back."""
    first, second, up = context.integers("dim0"), context.integers("dim1"), context.whole_upstream
    if not (context.is_whole_call and up and first and second):
        return [context.gradient(REORDERED)]
    order = list(range(len(up.shape)))
    order[first[0]], order[second[0]] = order[second[0]], order[first[0]]
    return [context.gradient(REORDERED, permuted(up, order))]


def permute(context: NodeContext) -> list[Derivation]:
    """Order the dimensions back, which the call was given as one tuple or as separate arguments."""
    settings, up = context.call.settings if context.call else (), context.whole_upstream
    dims = [dim for _, text in settings for dim in parse_integers(text) or ()]
    if not (context.is_whole_call and up) or len(set(dims)) != len(up.shape):
        return [context.gradient(REORDERED)]
    positive_dims = [dim % len(dims) for dim in dims]
    return [context.gradient(REORDERED, permuted(up, [positive_dims.index(dim) for dim in range(len(dims))]))]


def select(context: NodeContext) -> list[Derivation]:
    """Put the gradient back at the index along one dimension."""
    is_getitem = context.call is not None and context.call.name == "getitem"
    dim = (0,) if is_getitem else context.integers("dim")
    position = context.integers("key" if is_getitem else "index")
    up, shape = context.whole_upstream, context.input_shape
    if not (context.is_whole_call and up and shape is not None and dim and position and len(position) == 1):
        return [context.gradient(SELECTED)]
    axis = dim[0] % len(shape)
    moved = (((*at[:axis], position[0] % shape[axis], *at[axis:]), up.at(at)) for at in indices(up.shape))
    return [context.gradient(SELECTED, scatter_add(shape, moved))]


def cat(context: NodeContext) -> list[Derivation]:
    """Cut the gradient where the inputs were joined."""
    dim = (0,) if context.setting("dim") is None else context.integers("dim")
    up, shapes = context.whole_upstream, [value.stats.shape for value in context.op.inputs]
    results: list[SmallTensor | None] = [None] * len(context.op.grad_out)
    if up and dim and context.is_whole_call and len(shapes) == len(results) and all(shapes):
        start = 0
        for index, shape in enumerate(shapes):
            results[index] = _slice(up, shape, dim[0] % len(up.shape), start)
            start += shape[dim[0]]
    formula = "joined: each gets its own part of the gradient"
    return [context.gradient(formula, result, index=index) for index, result in enumerate(results)]


def _slice(up: SmallTensor, shape: Shape, axis: int, start: int) -> SmallTensor:
    moved = ((*at[:axis], at[axis] + start, *at[axis + 1 :]) for at in indices(shape))
    return SmallTensor(shape, tuple(up.at(at) for at in moved))


def stack(context: NodeContext) -> list[Derivation]:
    """Write which slice each stacked input gets, without numbers."""
    formula = "stacked: each gets its own slice of the gradient"
    return [context.gradient(formula, index=index) for index in range(len(context.op.grad_out))]


def embedding(context: NodeContext) -> list[Derivation]:
    """Add each gradient to the row that was looked up."""
    up, rows, shape = context.whole_upstream, context.whole(context.saved("indices")), context.input_shape
    padding = context.integers("padding_idx")
    is_plain = all(context.setting(name) in (None, "False") for name in ("scale_grad_by_freq", "sparse"))
    result = None
    if up and rows and shape is not None and is_plain and (padding is None or padding[0] >= 0):
        result = scatter_add(shape, _row_gradients(up, rows, padding[0] if padding else -1))
    formula = "each row adds up the gradients of the places where it was looked up, the other rows get 0"
    return [context.gradient(formula, result)]


def _row_gradients(up: SmallTensor, row_numbers: SmallTensor, padding_index: int) -> Iterator[tuple[Shape, float]]:
    for at in indices(up.shape):
        row = int(row_numbers.at(at[:-1]))
        if row != padding_index:
            yield (row, at[-1]), up.at(at)


SHAPE_RULES: dict[str, BackwardRule] = {  # by the node's name
    **{f"{name}Backward{number}": view for name in VIEW_NODES for number in range(3)},
    "CloneBackward0": unchanged("a copy: d(copy)/d(original) = 1"),
    "ToCopyBackward0": unchanged("another dtype: the gradient is put back into the old one"),
    "ExpandBackward0": unchanged("d(copy)/d(original) = 1 in each copy"),
    "TransposeBackward0": transpose,
    "PermuteBackward0": permute,
    "SelectBackward0": select,
    **dict.fromkeys(("SliceBackward0", "IndexBackward0", "GatherBackward0"), formula_only(SELECTED)),
    **dict.fromkeys(
        ("SplitBackward0", "SplitWithSizesBackward0", "UnbindBackward0"),
        formula_only("the gradients of the pieces are put together again"),
    ),
    "CatBackward0": cat,
    "StackBackward0": stack,
    "EmbeddingBackward0": embedding,
}


def sum_or_mean(context: NodeContext) -> list[Derivation]:
    """Derive a sum or a mean: each value gets the gradient of its sum, or an equal share of its mean's."""
    is_mean, each = context.op.name.startswith("Mean"), f"each of {context.name(0)}"
    shape, count = context.input_shape, _values_per_result(context) if is_mean else 1
    formula = (
        f"d(mean)/d({each}) = 1/{count}" if is_mean else f"d(sum)/d({each}) = 1: each gets the gradient of its sum"
    )
    upstream = _keepdim_upstream(context, context.upstream, shape) if context.upstream and shape is not None else None
    if upstream is None or shape is None or math.prod(shape) > MAX_SIZE:
        return [Derivation(formula)]
    if len(upstream.values) > 1:
        upstream = map_values(lambda up, _: up, upstream, full(shape)) or upstream
    result = map_values(lambda up, _: up / count, upstream, full(shape))
    arithmetic = f"{written_or_first(upstream)} × 1/{count}" if count > 1 else ""
    return [Derivation(formula, result, arithmetic, product_magnitude(upstream, full((), 1.0)))]


def _values_per_result(context: NodeContext) -> int:
    """Return how many input elements went into each output element."""
    upstream, shape = context.upstream_value, context.input_shape
    return math.prod(shape) // upstream.stats.size if shape is not None and upstream and upstream.stats.size else 1


def _keepdim_upstream(context: NodeContext, upstream: SmallTensor, shape: Shape) -> SmallTensor | None:
    """Return the upstream in the shape that `keepdim=True` would have given it; None if the shape is not known."""
    if len(upstream.values) == 1:
        return SmallTensor((), upstream.values)
    dims = context.integers("dim")
    if dims is None:
        return upstream if len(upstream.shape) == len(shape) else None
    summed_dims = {dim % len(shape) for dim in dims}
    keepdim_shape = tuple(1 if dim in summed_dims else size for dim, size in enumerate(shape))
    return upstream.reshaped(keepdim_shape) if math.prod(keepdim_shape) == len(upstream.values) else None


def _divisor(context: NodeContext, value: Value | None) -> tuple[float | None, str]:
    """Return what the reduction divides by, as a number (None if not known) and as formulas write it."""
    reduction = context.setting("reduction") or "mean"
    if reduction in ("sum", "none"):
        return 1.0, ""
    if reduction != "mean" or value is None:
        return None, " / n"
    return float(value.stats.size), f" / {value.stats.size}"


def mse(context: NodeContext) -> list[Derivation]:
    """Derive the mean squared error by prediction and target."""
    prediction, target = context.saved("self"), context.saved("target")
    names, (count, divisor_text) = (context.name(0), context.name(1)), _divisor(context, prediction)
    values = context.small(prediction), context.small(target)
    error = map_values(lambda a, b: 2 * (a - b) / count, *values) if count else None
    return [
        context.times(f"dloss/{differential(names[0])} = 2 × ({names[0]} - {names[1]}){divisor_text}", error),
        context.times(
            f"dloss/{differential(names[1])} = -2 × ({names[0]} - {names[1]}){divisor_text}",
            map_values(lambda e: -e, error),
            index=1,
        ),
    ]


def binary_cross_entropy(context: NodeContext) -> list[Derivation]:
    """Derive binary_cross_entropy_with_logits by its logits."""
    prediction, target = context.saved("self"), context.saved("target")
    is_weighted = bool(context.saved("weight") or context.saved("pos_weight"))
    names, (count, divisor_text) = (context.name(0), context.name(1)), _divisor(context, prediction)
    values = context.small(prediction), context.small(target)
    local = map_values(lambda x, y: (sigmoid(x) - y) / count, *values) if count and not is_weighted else None
    formula = f"dloss/{differential(names[0])} = (sigmoid({names[0]}) - {names[1]}){divisor_text}"
    return [context.times(formula + ", weighted" * is_weighted, local)]


def nll(context: NodeContext) -> list[Derivation]:
    """Derive the negative log likelihood by the log probabilities."""
    weight, reduction = context.saved("weight"), context.setting("reduction") or "mean"
    share = {"mean": f"-1/{_target_count(context)}", "sum": "-1", "none": "-1"}.get(reduction, "-1 × a share")
    formula = f"dloss/d(log p) = {share}{', by class weight,' * bool(weight)} at each target's class, 0 elsewhere"
    upstream = context.upstream
    if reduction == "none" and upstream and len(upstream.values) > 1:  # one a target: not yet beside the classes
        return [Derivation(formula)]
    log_probabilities, target = context.whole(context.saved("self")), context.whole(context.saved("target"))
    if log_probabilities is None or target is None or weight:
        return [context.times(formula, None)]
    return [context.times(formula, _nll_derivative(context, log_probabilities, target, reduction))]


def _target_count(context: NodeContext) -> str:
    """Return the number of targets as formulas write it: n if some may have a negative, ignored class."""
    target = context.saved("target")
    all_count = target is not None and target.stats.min is not None and target.stats.min >= 0
    all_count = all_count and target is not None and not target.stats.range_sampled
    return str(target.stats.size) if target and all_count else "n"


def _nll_derivative(
    context: NodeContext, log_probabilities: SmallTensor, target: SmallTensor, reduction: str
) -> SmallTensor | None:
    """Return the local derivative: a share of -1 at each target's class; None for an unknown reduction."""
    if reduction not in ("mean", "sum", "none"):
        return None
    ignore_index = context.number("ignore_index", -100.0)
    targets = [number for number in target.values if number != ignore_index]
    share = -1 / len(targets) if reduction == "mean" and targets else -1.0
    class_dim = 1 if len(log_probabilities.shape) > 1 else 0  # the dimension of the classes

    def derivative(index: Shape) -> float:
        target_class = target.at((*index[:class_dim], *index[class_dim + 1 :]))
        return share if index[class_dim] == target_class != ignore_index else 0.0

    return SmallTensor(log_probabilities.shape, tuple(derivative(index) for index in indices(log_probabilities.shape)))


LOSS_RULES: dict[str, BackwardRule] = {  # by the node's name
    **dict.fromkeys(("SumBackward0", "SumBackward1", "MeanBackward0", "MeanBackward1"), sum_or_mean),
    "MseLossBackward0": mse,
    "NllLossBackward0": nll,
    "NllLoss2DBackward0": nll,
    "BinaryCrossEntropyWithLogitsBackward0": binary_cross_entropy,
}
