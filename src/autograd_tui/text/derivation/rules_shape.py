"""The chain rule of what moves values about and changes none: views, transposes, parts, joins, rows."""

from __future__ import annotations

from collections.abc import Iterator

from autograd_tui.text.derivation.input_gradient import InputGradient, Rule, scaled, whole
from autograd_tui.text.derivation.node_context import NodeContext, parsed_whole
from autograd_tui.text.derivation.small_tensor import Shape, SmallTensor, collected, permuted, places

REORDERED = "the same values in another order: the gradient is ordered back"
CHOSEN = "the gradient goes back to the values that were taken, the others get 0"


def view(scene: NodeContext) -> list[InputGradient]:
    """Give the gradient the shape that the input had."""
    up, below = scene.upstream, scene.op.grad_out[0] if scene.op.grad_out else None
    result = up.reshaped(below.stats.shape) if up and below and not scene.first else None
    return [whole(scene, 0, "the same values in another shape: the gradient gets the old shape back", result)]


def same(scene: NodeContext) -> list[InputGradient]:
    """Hand on what comes to a copy."""
    return [scaled(scene, 0, "a copy: d(copy)/d(original) = 1", 1.0)]


def cast(scene: NodeContext) -> list[InputGradient]:
    """Hand on what comes to a copy in another dtype."""
    return [scaled(scene, 0, "another dtype: the gradient is put back into the old one", 1.0)]


def expand(scene: NodeContext) -> list[InputGradient]:
    """Stretch: what was repeated gets the sum; the sum itself is taken where the part is shown."""
    return [scaled(scene, 0, "d(copy)/d(original) = 1 in each copy", 1.0)]


def transpose(scene: NodeContext) -> list[InputGradient]:
    """Swap the two dimensions back."""
    dims = parsed_whole(scene.words("dim0")), parsed_whole(scene.words("dim1"))
    up = scene.upstream
    if not (scene.alone and up and dims[0] and dims[1]) or scene.first:
        return [whole(scene, 0, REORDERED, None)]
    order = list(range(len(up.shape)))
    one, other = dims[0][0], dims[1][0]
    order[one], order[other] = order[other], order[one]
    return [whole(scene, 0, REORDERED, permuted(up, order))]


def permute(scene: NodeContext) -> list[InputGradient]:
    """Order the dimensions back."""
    dims, up = _order(scene), scene.upstream
    if not (scene.alone and up) or scene.first or len(set(dims)) != len(up.shape):
        return [whole(scene, 0, REORDERED, None)]
    ahead = [dim % len(dims) for dim in dims]
    return [whole(scene, 0, REORDERED, permuted(up, [ahead.index(dim) for dim in range(len(dims))]))]


def _order(scene: NodeContext) -> tuple[int, ...]:
    """Read the dimensions of a permute, given as one tuple or one by one."""
    given = scene.call.settings if scene.call else ()
    return tuple(number for _, written in given for number in parsed_whole(written) or ())


def select(scene: NodeContext) -> list[InputGradient]:
    """Put the gradient back where the index was, along one dimension."""
    plain = scene.call is not None and scene.call.name == "getitem"
    dim = (0,) if plain else parsed_whole(scene.words("dim"))
    index = parsed_whole(scene.words("key" if plain else "index"))
    up, below = scene.upstream, scene.op.grad_out[0] if scene.op.grad_out else None
    if not (scene.alone and up and below and dim and index and len(index) == 1) or scene.first:
        return [whole(scene, 0, CHOSEN, None)]
    shape = below.stats.shape
    side = dim[0] % len(shape)
    here = index[0] % shape[side]
    moved = (((*at[:side], here, *at[side:]), up.at(at)) for at in places(up.shape))
    return [whole(scene, 0, CHOSEN, collected(shape, moved))]


def chosen(scene: NodeContext) -> list[InputGradient]:
    """Say where the gradient of a part goes."""
    return [whole(scene, 0, CHOSEN, None)]


def several(scene: NodeContext) -> list[InputGradient]:
    """Say what becomes of the gradients of several parts."""
    return [whole(scene, 0, "the gradients of the pieces are put together again", None)]


def cat(scene: NodeContext) -> list[InputGradient]:
    """Cut the gradient where the inputs were joined."""
    dim = (0,) if scene.words("dim") is None else parsed_whole(scene.words("dim"))
    up, sizes, parts = scene.upstream, [value.stats.shape for value in scene.op.inputs], []
    known = up and dim and scene.alone and not scene.first and len(sizes) == len(scene.op.grad_out) and all(sizes)
    for place, shape in enumerate(sizes[: len(scene.op.grad_out)] if known else [()] * len(scene.op.grad_out)):
        result = None
        if known and up and dim:
            start = sum(each[dim[0]] for each in sizes[:place])
            result = _cut(up, shape, dim[0] % len(up.shape), start)
        parts.append(whole(scene, place, "joined: each gets its own part of the gradient", result))
    return parts


def _cut(up: SmallTensor, shape: Shape, side: int, start: int) -> SmallTensor:
    moved = ((*at[:side], at[side] + start, *at[side + 1 :]) for at in places(shape))
    return SmallTensor(shape, tuple(up.at(at) for at in moved))


def stack(scene: NodeContext) -> list[InputGradient]:
    """Say what each of the stacked gets."""
    said = "stacked: each gets its own slice of the gradient"
    return [whole(scene, place, said, None) for place in range(len(scene.op.grad_out))]


def embedding(scene: NodeContext) -> list[InputGradient]:
    """Add each gradient to the row that was looked up."""
    up, rows = scene.upstream, SmallTensor.of(scene.saved("indices"))
    below = scene.op.grad_out[0] if scene.op.grad_out else None
    skipped = parsed_whole(scene.words("padding_idx"))
    plain = scene.words("scale_grad_by_freq") in (None, "False") and scene.words("sparse") in (None, "False")
    result = None
    if up and rows and below and plain and not scene.first and (skipped is None or skipped[0] >= 0):
        result = collected(below.stats.shape, _looked_up(up, rows, skipped[0] if skipped else -1))
    said = "each row adds up the gradients of the places where it was looked up, the other rows get 0"
    return [whole(scene, 0, said, result)]


def _looked_up(up: SmallTensor, rows: SmallTensor, skipped: int) -> Iterator[tuple[Shape, float]]:
    for at in places(up.shape):
        row = int(rows.at(at[:-1]))
        if row != skipped:
            yield (row, at[-1]), up.at(at)


VIEWS = ("View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Alias", "Flatten", "Unflatten")
SHAPE_RULES: dict[str, Rule] = {
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
