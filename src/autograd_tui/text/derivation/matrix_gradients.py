"""The gradients of matrix products and attention."""

from __future__ import annotations

from autograd_tui.text.derivation.derivation import (
    FIRST_VALUE,
    MAX_PRODUCT_TERMS,
    Derivation,
    product_magnitude,
    written_products,
)
from autograd_tui.text.derivation.rule_context import BackwardRule, NodeContext
from autograd_tui.text.derivation.small_tensor import SmallTensor, matrix_product, product_terms, transposed
from autograd_tui.text.trace.expression import differential, inner, short_name


def addmm(context: NodeContext) -> list[Derivation]:
    """Derive bias + left @ right, as linear does with right = weight.T."""
    beta = context.number("beta", 1.0)
    alpha = context.number("alpha", 1.0)
    bias = inner(_linear_names(context)[2] or context.name(0))
    is_unscaled = beta == alpha == 1.0
    formula = f"d(product + {bias})/{differential(bias)} = 1" if is_unscaled else f"d/{differential(bias)} = beta"
    bias_gradient = context.scaled(formula, beta)
    return [bias_gradient, *_product(context, 1, ("mat1", "mat2"), is_unscaled=is_unscaled)]


def mm(context: NodeContext) -> list[Derivation]:
    """Derive left @ right."""
    return _product(context, 0, ("self", "mat2"))


def baddbmm(context: NodeContext) -> list[Derivation]:
    """Derive bias + left @ right, of batches of matrices."""
    is_unscaled = context.setting("beta") is None and context.setting("alpha") is None
    formula = f"d/{differential(context.name(0))} = {'1' if is_unscaled else 'beta'}"
    bias_gradient = context.scaled(formula, 1.0 if is_unscaled else None)
    return [bias_gradient, *_product(context, 1, ("batch1", "batch2"), is_unscaled=is_unscaled)]


def _product(context: NodeContext, index: int, roles: tuple[str, str], *, is_unscaled: bool = True) -> list[Derivation]:
    """Derive left @ right, whose gradients go to `index` and the one after it."""
    left, right = (context.whole(context.saved(role)) for role in roles)
    names = _linear_names(context)
    left_name = inner(names[0] or context.name(index))
    right_name = f"{names[1]}.T" if names[1] else inner(context.name(index + 1))
    right_transpose = names[1] or f"{right_name}.T"  # the transpose of a transpose is the weight itself
    up, alpha = context.whole_upstream if is_unscaled else None, "" if is_unscaled else "alpha × "
    product = f"{left_name} @ {right_name}: {alpha}"
    by_left, by_right = f"{product}upstream @ {right_transpose}", f"{product}{left_name}.T @ upstream"
    return [
        _product_gradient(context, index, by_left, up, transposed(right)),
        _product_gradient(context, index + 1, by_right, transposed(left), up),
    ]


def _product_gradient(
    context: NodeContext, index: int, formula: str, left: SmallTensor | None, right: SmallTensor | None
) -> Derivation:
    result = matrix_product(left, right)
    if result is None or left is None or right is None:
        return Derivation(formula, index=index)
    terms = product_terms(left, right, (0,) * len(result.shape))
    text = written_products(terms)
    prefix = "" if len(result.values) == 1 else FIRST_VALUE
    arithmetic = f"{prefix}{text}" if len(terms) <= MAX_PRODUCT_TERMS else ""
    return context.gradient(formula, result, index=index, arithmetic=arithmetic, largest=product_magnitude(left, right))


def _linear_names(context: NodeContext) -> tuple[str, str, str]:
    """Return the names of a linear layer's input, weight and bias; three "" for other calls."""
    call = context.call
    if call is None or call.name != "linear" or len(call.inputs) < 2:
        return "", "", ""
    names = [short_name(context.trace, value) for value in call.inputs]
    return names[0], names[1], (*names, "")[2]


def transpose(context: NodeContext) -> list[Derivation]:
    """Derive a transpose: the gradient is transposed back."""
    formula = "a transpose: the gradient is turned back, upstream.T"
    return [context.gradient(formula, transposed(context.whole_upstream))]


def mv(context: NodeContext) -> list[Derivation]:
    """Derive matrix @ vector."""
    matrix, vector = context.whole(context.saved("self")), context.whole(context.saved("vec"))
    left, right, up = inner(context.name(0)), inner(context.name(1)), context.whole_upstream
    column = up.reshaped((*up.shape, 1)) if up else None
    row = vector.reshaped((1, *vector.shape)) if vector else None
    by_vector = matrix_product(transposed(matrix), column)
    by_vector = by_vector.reshaped(by_vector.shape[:1]) if by_vector else None
    largest = product_magnitude(column, matrix) if column and matrix else 0.0
    return [
        _product_gradient(context, 0, f"{left} @ {right}: upstream × each value of {right}", column, row),
        context.gradient(f"{left} @ {right}: {left}.T @ upstream", by_vector, index=1, largest=largest),
    ]


def dot(context: NodeContext) -> list[Derivation]:
    """Derive the sum of products of two vectors."""
    left, right, of = context.name(0), context.name(1), "d(sum of products)"
    by_left, by_right = context.operand("tensor", 1), context.operand("self", 0)
    return [
        context.times(f"{of}/{differential(left)} = {right}", by_left, shows_local=False),
        context.times(f"{of}/{differential(right)} = {left}", by_right, index=1, shows_local=False),
    ]


ATTENTION_WEIGHTS = "P = softmax(query @ key.T × scale)"
SCORE_GRADIENT = "D = P × (upstream @ value.T - its mean by P)"


def attention(context: NodeContext) -> list[Derivation]:
    """Write the gradients of query, key and value as matrix formulas, without numbers: heads are too large."""
    return [
        context.gradient(f"query, with {ATTENTION_WEIGHTS}, {SCORE_GRADIENT}: D @ key × scale"),
        context.gradient("key: D.T @ query × scale", index=1),
        context.gradient("value: P.T @ upstream", index=2),
    ]


MATRIX_RULES: dict[str, BackwardRule] = {  # by the node's name
    "AddmmBackward0": addmm,
    "MmBackward0": mm,
    "BmmBackward0": mm,
    "BaddbmmBackward0": baddbmm,
    "MvBackward0": mv,
    "DotBackward0": dot,
    "TBackward0": transpose,
    **dict.fromkeys(
        (
            "ScaledDotProductFlashAttentionForCpuBackward0",
            "ScaledDotProductFlashAttentionBackward0",
            "ScaledDotProductEfficientAttentionBackward0",
            "ScaledDotProductCudnnAttentionBackward0",
        ),
        attention,
    ),
}
