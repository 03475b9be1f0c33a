"""The chain rule of what moves values about and changes none: views, transposes, parts, joins, rows."""

from __future__ import annotations

from collections.abc import Iterator

from autograd_tui.text.derivation.derivation import BackwardRule, Derivation, gradient, scaled
from autograd_tui.text.derivation.rule_context import NodeContext, parse_ints
from autograd_tui.text.derivation.small_tensor import Shape, SmallTensor, indices, permuted, scatter_add

REORDERED = "the same values in another order: the gradient is ordered back"
CHOSEN = "the gradient goes back to the values that were taken, the others get 0"


def view(context: NodeContext) -> list[Derivation]:
    """Give the gradient the shape that the input had."""
    up, below = context.upstream, context.op.grad_out[0] if context.op.grad_out else None
    result = up.reshaped(below.stats.shape) if up and below and not context.one_value else None
    return [gradient(context, 0, "the same values in another shape: the gradient gets the old shape back", result)]


def same(context: NodeContext) -> list[Derivation]:
    """Hand on what comes to a copy."""
    return [scaled(context, 0, "a copy: d(copy)/d(original) = 1", 1.0)]


def cast(context: NodeContext) -> list[Derivation]:
    """Hand on what comes to a copy in another dtype."""
    return [scaled(context, 0, "another dtype: the gradient is put back into the old one", 1.0)]


def expand(context: NodeContext) -> list[Derivation]:
    """Stretch: what was repeated gets the sum; the sum itself is taken where the part is shown."""
    return [scaled(context, 0, "d(copy)/d(original) = 1 in each copy", 1.0)]


def transpose(context: NodeContext) -> list[Derivation]:
    """Swap the two dimensions back."""
    dims = context.integers("dim0"), context.integers("dim1")
    up = context.upstream
    if not (context.is_whole_call and up and dims[0] and dims[1]) or context.one_value:
        return [gradient(context, 0, REORDERED)]
    order = list(range(len(up.shape)))
    one, other = dims[0][0], dims[1][0]
    order[one], order[other] = order[other], order[one]
    return [gradient(context, 0, REORDERED, permuted(up, order))]


def permute(context: NodeContext) -> list[Derivation]:
    """Order the dimensions back."""
    dims, up = _order(context), context.upstream
    if not (context.is_whole_call and up) or context.one_value or len(set(dims)) != len(up.shape):
        return [gradient(context, 0, REORDERED)]
    ahead = [dim % len(dims) for dim in dims]
    return [gradient(context, 0, REORDERED, permuted(up, [ahead.index(dim) for dim in range(len(dims))]))]


def _order(context: NodeContext) -> tuple[int, ...]:
    """Read the dimensions of a permute, given as one tuple or one by one."""
    given = context.call.settings if context.call else ()
    return tuple(number for _, written in given for number in parse_ints(written) or ())


def select(context: NodeContext) -> list[Derivation]:
    """Put the gradient back where the index was, along one dimension."""
    plain = context.call is not None and context.call.name == "getitem"
    dim = (0,) if plain else context.integers("dim")
    index = context.integers("key" if plain else "index")
    up, below = context.upstream, context.op.grad_out[0] if context.op.grad_out else None
    if not (context.is_whole_call and up and below and dim and index and len(index) == 1) or context.one_value:
        return [gradient(context, 0, CHOSEN)]
    shape = below.stats.shape
    side = dim[0] % len(shape)
    here = index[0] % shape[side]
    moved = (((*at[:side], here, *at[side:]), up.at(at)) for at in indices(up.shape))
    return [gradient(context, 0, CHOSEN, scatter_add(shape, moved))]


def chosen(context: NodeContext) -> list[Derivation]:
    """Say where the gradient of a part goes."""
    return [gradient(context, 0, CHOSEN)]


def several(context: NodeContext) -> list[Derivation]:
    """Say what becomes of the gradients of several parts."""
    return [gradient(context, 0, "the gradients of the pieces are put together again")]


def cat(context: NodeContext) -> list[Derivation]:
    """Cut the gradient where the inputs were joined."""
    dim = (0,) if context.setting("dim") is None else context.integers("dim")
    up, sizes, parts = context.upstream, [value.stats.shape for value in context.op.inputs], []
    known = (
        up
        and dim
        and context.is_whole_call
        and not context.one_value
        and len(sizes) == len(context.op.grad_out)
        and all(sizes)
    )
    for index, shape in enumerate(sizes[: len(context.op.grad_out)] if known else [()] * len(context.op.grad_out)):
        result = None
        if known and up and dim:
            start = sum(each[dim[0]] for each in sizes[:index])
            result = _cut(up, shape, dim[0] % len(up.shape), start)
        parts.append(gradient(context, index, "joined: each gets its own part of the gradient", result))
    return parts


def _cut(up: SmallTensor, shape: Shape, side: int, start: int) -> SmallTensor:
    moved = ((*at[:side], at[side] + start, *at[side + 1 :]) for at in indices(shape))
    return SmallTensor(shape, tuple(up.at(at) for at in moved))


def stack(context: NodeContext) -> list[Derivation]:
    """Say what each of the stacked gets."""
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
        result = scatter_add(below.stats.shape, _looked_up(up, rows, skipped[0] if skipped else -1))
    formula = "each row adds up the gradients of the places where it was looked up, the other rows get 0"
    return [gradient(context, 0, formula, result)]


def _looked_up(up: SmallTensor, rows: SmallTensor, skipped: int) -> Iterator[tuple[Shape, float]]:
    for at in indices(up.shape):
        row = int(rows.at(at[:-1]))
        if row != skipped:
            yield (row, at[-1]), up.at(at)


VIEWS = ("View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Alias", "Flatten", "Unflatten")
SHAPE_RULES: dict[str, BackwardRule] = {
    **{f"{name}Backward{number}": view for name in VIEWS for number in range(3)},
    "CloneBackward0": same,
    "ToCopyBackward0": cast,
    "ExpandBackward0": expand,
    "TransposeBackward0": transpose,
    "PermuteBackward0": permute,
    "SelectBackward0": select,
    "SliceBackward0": chosen,
    "IndexBackward0": chosen,
    "GatherBackward0": chosen,
    "SplitBackward0": several,
    "SplitWithSizesBackward0": several,
    "UnbindBackward0": several,
    "CatBackward0": cat,
    "StackBackward0": stack,
    "EmbeddingBackward0": embedding,
}
