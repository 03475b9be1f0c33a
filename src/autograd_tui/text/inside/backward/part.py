"""The gradient of one input of a node, worked out by a rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autograd_tui.text.equation import enclosed, exact, with_digits, worked
from autograd_tui.text.inside.backward.scene import Scene
from autograd_tui.text.inside.small import Small, broadcast, each, filled

MOST_PAIRS = 4  # products that are written one by one
MOST_LISTED = 8  # values above which only the first is worked


@dataclass(frozen=True, slots=True)
class Part:
    """One downstream gradient: in a formula, and in numbers where they are all known."""

    place: int  # which input of the node
    formula: str  # "d(w × x)/dw = x"
    result: Small | None = None  # upstream x local, before what was stretched is summed
    worked: str = ""  # the arithmetic of `result`, its numbers in full, "" where there is nothing to show
    local: str = ""  # the local derivative in numbers, where the formula does not show them
    size: float = 0.0  # of the largest number that entered: rounding is judged by it
    by_value: bool = False  # value by value, so that it can be shown with the first values alone
    unchanged: bool = False


Rule = Callable[[Scene], Sequence[Part]]


def times(scene: Scene, place: int, formula: str, local: Small | None, *, by: str | None = None) -> Part:
    """Multiply the upstream with the local derivative, value by value.

    `by`: how that was worked out, "" where it is only to be shown; None where the formula names it.
    """
    upstream = scene.upstream
    result = each(lambda up, by: up * by, upstream, local)
    if upstream is None or local is None or result is None:
        return Part(place, formula, by_value=True)
    shown = "" if by is None or len(result.values) > MOST_LISTED else f"local: {_local(by, local)}"
    return Part(place, formula, result, products(upstream, local), shown, size(upstream, local), by_value=True)


def _local(by: str, local: Small) -> str:
    text = with_digits(listed(local))
    return worked(by, local.values, text) if by else text


def scaled(scene: Scene, place: int, formula: str, by: float | None, *, words: str = "") -> Part:
    """Multiply the upstream with one number; 1 hands it on as it is."""
    upstream = scene.upstream
    result = each(lambda up: up * (by or 0.0), upstream) if by is not None else None
    if upstream is None or by is None or result is None:
        return Part(place, formula, by_value=True)
    few = len(upstream.values) <= MOST_LISTED
    up = listed(upstream) if few else f"first value: {exact(upstream.values[0])}"
    product = "" if by == 1 else f"{up} × {words or enclosed(by)}"
    scale = size(upstream, filled((), by))
    return Part(place, formula, result, product, "", scale, by_value=True, unchanged=by == 1)


def whole(
    scene: Scene, place: int, formula: str, result: Small | None, *, worked: str = "", largest: float = 0
) -> Part:
    """Take a gradient that is not made value by value."""
    upstream = scene.upstream
    return Part(place, formula, result, worked, "", max(largest, upstream.largest if upstream else 0.0))


def size(upstream: Small, local: Small) -> float:
    """Give the size of the largest number in a product, by which rounding is judged."""
    return upstream.largest * max(local.largest, 1.0)


def listed(tensor: Small) -> str:
    """Write values in full in one row, whatever their shape."""
    written = ", ".join(map(exact, tensor.values))
    return written if len(tensor.values) == 1 else f"[{written}]"


def products(upstream: Small, local: Small) -> str:
    """Write a product value by value where they are few: [2 × 1, 3 × 2]; else list by list, of many the first."""
    shape = broadcast(upstream.shape, local.shape)
    both = each(lambda up, _: up, upstream, local), each(lambda _, by: by, upstream, local)
    if both[0] is None or both[1] is None or len(both[0].values) > MOST_LISTED:
        ups, bys = upstream.values, local.values
        return f"first value: {exact(ups[0])} × {enclosed(bys[0])}"
    if len(both[0].values) > MOST_PAIRS:
        return f"{listed(both[0])} × {listed(both[1])}"
    terms = [f"{exact(up)} × {enclosed(by)}" for up, by in zip(both[0].values, both[1].values, strict=True)]
    return terms[0] if not shape or len(terms) == 1 else f"[{', '.join(terms)}]"


def added_products(pairs: Sequence[tuple[float, float]]) -> str:
    """Write a sum of products with its signs: 2 × 3 - 1 × (-4)."""
    signed = [f"{'-' if a < 0 else '+'} {exact(abs(a))} × {enclosed(b)}" for a, b in pairs]
    return re.sub("^- ", "-", " ".join(signed).removeprefix("+ "))
