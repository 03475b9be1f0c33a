"""The local derivatives of operations that move values: views, transposes, slices, concatenation, embedding."""

from __future__ import annotations

from collections.abc import Iterator

from autograd_tui.text.derivation.derivation import BackwardRule, Derivation, gradient, scaled
from autograd_tui.text.derivation.rule_context import NodeContext, parse_ints
from autograd_tui.text.derivation.small_tensor import Shape, SmallTensor, indices, permuted, scatter_add

REORDERED = "the same values in another order: the gradient is ordered back"
SELECTED = "the gradient goes back to the values that were taken, the others get 0"


def view(context: NodeContext) -> list[Derivation]:
    """Reshape the gradient to the shape of the input."""
    up, input_gradient = context.upstream, context.op.grad_out[0] if context.op.grad_out else None
    result = up.reshaped(input_gradient.stats.shape) if up and input_gradient and not context.one_value else None
    return [gradient(context, 0, "the same values in another shape: the gradient gets the old shape back", result)]


def clone(context: NodeContext) -> list[Derivation]:
    """Pass the gradient of a copy on unchanged."""
    return [scaled(context, 0, "a copy: d(copy)/d(original) = 1", 1.0)]


def to_copy(context: NodeContext) -> list[Derivation]:
    """Pass the gradient on, converted back to the input's dtype."""
    return [scaled(context, 0, "another dtype: the gradient is put back into the old one", 1.0)]


def expand(context: NodeContext) -> list[Derivation]:
    """Pass the gradient of each copy on; `downstream_lines` sums them over what was expanded."""
    return [scaled(context, 0, "d(copy)/d(original) = 1 in each copy", 1.0)]


def transpose(context: NodeContext) -> list[Derivation]:
    """Swap the two dimensions back."""
    dims = context.integers("dim0"), context.integers("dim1")
    up = context.upstream
    if not (context.is_whole_call and up and dims[0] and dims[1]) or context.one_value:
        return [gradient(context, 0, REORDERED)]
    order = list(range(len(up.shape)))
    first, second = dims[0][0], dims[1][0]
    order[first], order[second] = order[second], order[first]
    return [gradient(context, 0, REORDERED, permuted(up, order))]


def permute(context: NodeContext) -> list[Derivation]:
    """Order the dimensions back."""
    dims, up = _permute_dims(context), context.upstream
    if not (context.is_whole_call and up) or context.one_value or len(set(dims)) != len(up.shape):
        return [gradient(context, 0, REORDERED)]
    positive_dims = [dim % len(dims) for dim in dims]
    return [gradient(context, 0, REORDERED, permuted(up, [positive_dims.index(dim) for dim in range(len(dims))]))]


def _permute_dims(context: NodeContext) -> tuple[int, ...]:
    """Return the dimensions of a permute, which are one tuple or separate arguments."""
    settings = context.call.settings if context.call else ()
    return tuple(number for _, text in settings for number in parse_ints(text) or ())


def select(context: NodeContext) -> list[Derivation]:
    """Put the gradient back where the index was, along one dimension."""
    is_getitem = context.call is not None and context.call.name == "getitem"
    dim = (0,) if is_getitem else context.integers("dim")
    index = context.integers("key" if is_getitem else "index")
    up, input_gradient = context.upstream, context.op.grad_out[0] if context.op.grad_out else None
    if not (context.is_whole_call and up and input_gradient and dim and index and len(index) == 1) or context.one_value:
        return [gradient(context, 0, SELECTED)]
    shape = input_gradient.stats.shape
    axis = dim[0] % len(shape)
    position = index[0] % shape[axis]
    moved = (((*at[:axis], position, *at[axis:]), up.at(at)) for at in indices(up.shape))
    return [gradient(context, 0, SELECTED, scatter_add(shape, moved))]


def take(context: NodeContext) -> list[Derivation]:
    """Say where the gradient of a part goes, without numbers."""
    return [gradient(context, 0, SELECTED)]


def split(context: NodeContext) -> list[Derivation]:
    """Say that the gradients of several outputs are joined, without numbers."""
    return [gradient(context, 0, "the gradients of the pieces are put together again")]


def cat(context: NodeContext) -> list[Derivation]:
    """Cut the gradient where the inputs were joined."""
    dim = (0,) if context.setting("dim") is None else context.integers("dim")
    up, shapes, derivations = context.upstream, [value.stats.shape for value in context.op.inputs], []
    has_numbers = (
        up
        and dim
        and context.is_whole_call
        and not context.one_value
        and len(shapes) == len(context.op.grad_out)
        and all(shapes)
    )
    for index, shape in enumerate(
        shapes[: len(context.op.grad_out)] if has_numbers else [()] * len(context.op.grad_out)
    ):
        result = None
        if has_numbers and up and dim:
            start = sum(earlier[dim[0]] for earlier in shapes[:index])
            result = _slice(up, shape, dim[0] % len(up.shape), start)
        derivations.append(gradient(context, index, "joined: each gets its own part of the gradient", result))
    return derivations


def _slice(up: SmallTensor, shape: Shape, axis: int, start: int) -> SmallTensor:
    moved = ((*at[:axis], at[axis] + start, *at[axis + 1 :]) for at in indices(shape))
    return SmallTensor(shape, tuple(up.at(at) for at in moved))


def stack(context: NodeContext) -> list[Derivation]:
    """Say which slice each stacked input gets, without numbers."""
    formula = "stacked: each gets its own slice of the gradient"
    return [gradient(context, index, formula) for index in range(len(context.op.grad_out))]


def embedding(context: NodeContext) -> list[Derivation]:
    """Add each gradient to the row that was looked up."""
    up, rows = context.upstream, SmallTensor.of(context.saved("indices"))
    below = context.op.grad_out[0] if context.op.grad_out else None
    skipped = context.integers("padding_idx")
    plain = context.setting("scale_grad_by_freq") in (None, "False") and context.setting("sparse") in (None, "False")
    result = None
    if up and rows and below and plain and not context.one_value and (skipped is None or skipped[0] >= 0):
        result = scatter_add(below.stats.shape, _row_gradients(up, rows, skipped[0] if skipped else -1))
    formula = "each row adds up the gradients of the places where it was looked up, the other rows get 0"
    return [gradient(context, 0, formula, result)]


def _row_gradients(up: SmallTensor, row_numbers: SmallTensor, padding_index: int) -> Iterator[tuple[Shape, float]]:
    for at in indices(up.shape):
        row = int(row_numbers.at(at[:-1]))
        if row != padding_index:
            yield (row, at[-1]), up.at(at)


VIEW_NODES = ("View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Alias", "Flatten", "Unflatten")
SHAPE_RULES: dict[str, BackwardRule] = {
    **{f"{name}Backward{number}": view for name in VIEW_NODES for number in range(3)},
    "CloneBackward0": clone,
    "ToCopyBackward0": to_copy,
    "ExpandBackward0": expand,
    "TransposeBackward0": transpose,
    "PermuteBackward0": permute,
    "SelectBackward0": select,
    "SliceBackward0": take,
    "IndexBackward0": take,
    "GatherBackward0": take,
    "SplitBackward0": split,
    "SplitWithSizesBackward0": split,
    "UnbindBackward0": split,
    "CatBackward0": cat,
    "StackBackward0": stack,
    "EmbeddingBackward0": embedding,
}
