"""The gradients of operations that move values: views, transposes, slices, concatenation, embedding."""

from __future__ import annotations

from collections.abc import Iterator

from autograd_tui.text.derivation.derivation import Derivation
from autograd_tui.text.derivation.rule_context import BackwardRule, NodeContext, formula_only, unchanged
from autograd_tui.text.derivation.small_tensor import Shape, SmallTensor, indices, permuted, scatter_add
from autograd_tui.text.numbers import parse_integers

REORDERED = "the same values in another order: the gradient is ordered back"
SELECTED = "the gradient goes back to the values that were taken, the others get 0"


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


VIEW_NODES = ("View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Alias", "Flatten", "Unflatten")
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
