"""What a plot is of, how it is looked at, and the words that say so."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from autograd_tui.core.errors import UnknownCommand, clipped, unknown
from autograd_tui.core.errors import nearest as nearest_word
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch
from autograd_tui.core.history import History, Point, Series
from autograd_tui.core.tensor_stats import SAMPLE_SIZE
from autograd_tui.text.numbers import number, parse_float, percentage, rate

USUAL = {  # words for what any run has, and what they are
    "loss": "the usual one",
    "grad": "the norm of all gradients after each backward",
    "update": "what a step changed, over what there was",
    "lr": "the learning rate",
}
SMOOTHINGS = {
    "0.9": "over about ten iterations",
    "0.99": "over about a hundred iterations",
    "off": "the curve alone",
}
Kind = Literal["loss", "gradient", "value", "update", "rate", "metric"]
MAX_CURVES = 4  # that can be told apart
LETTERS = "abcd"  # of curves that are drawn at once
MIN_ITERATIONS = 4  # that a plot is zoomed in to


@dataclass(frozen=True, slots=True)
class PlotView:
    """How the plot is looked at."""

    names: tuple[str, ...] = ("loss",)  # of quantities
    first: int | None = None  # the iterations that it begins and ends with; None: where the run does
    last: int | None = None
    smoothing: float = 0.0  # how much of the average before stays in that of the next iteration, from 0 to below 1
    cursor: int | None = None  # the iteration whose values are read


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that can be plotted; several of one kind share a scale."""

    name: str
    kind: Kind
    label: str
    params: tuple[int, ...] = ()  # indices of the parameters that it is of, where it is not of the whole run
    sampled: bool = False  # whether its values are estimates

    def words(self, value: float) -> str:
        """Write a value as exactly as it is known."""
        if self.kind == "update":
            return percentage(value / 100, sampled=self.sampled) if math.isfinite(value) else number(value)
        return rate(value) if self.kind == "rate" else number(value)


def quantity(name: str, frame: Frame, metrics: Sequence[str] = ()) -> Quantity:
    """Return what a name stands for; raises UnknownCommand where the run has nothing of that name.

    "conv1.grad" is the norm of the gradients of all parameters whose names begin so, "conv1" that of their values,
    "conv1.update" what the last step changed of them. A parameter that is one number is itself, with its sign.
    """
    names, shapes = frame.params.layout.names, frame.params.layout.shapes
    if name == "update":
        return Quantity(name, "update", "update", *_with_sizes(range(len(names)), shapes))
    if name in USUAL:
        kinds: dict[str, tuple[Kind, str]] = {
            "loss": ("loss", "loss"),
            "grad": ("gradient", "|grad|"),
            "lr": ("rate", "lr" if frame.groups is None else f"lr of {frame.group_name(0)}"),
        }
        return Quantity(name, *kinds[name])
    if name in metrics:
        return Quantity(name, "metric", name)
    stem, _, end = name.rpartition(".")
    if params := _named(name, names):
        return Quantity(name, "value", name if _is_scalar(params, shapes) else f"|{name}|", params)
    if end == "grad" and (params := _named(stem, names)):
        return Quantity(name, "gradient", name if _is_scalar(params, shapes) else f"|{name}|", params)
    if end == "update" and (params := _named(stem, names)):
        return Quantity(name, "update", f"{stem} update", *_with_sizes(params, shapes))
    near = nearest_word(name, [*USUAL, *metrics, *names, *(f"{each}.grad" for each in names)])
    raise UnknownCommand(unknown(name, "plot", [near] if near else [*USUAL, *metrics, "a parameter or a layer"]))


def _is_scalar(params: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> bool:
    return len(params) == 1 and math.prod(shapes[params[0]]) == 1


def _with_sizes(params: Iterable[int], shapes: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], bool]:
    """Return some parameters, and whether what a step changed of them is known from samples alone."""
    listed = tuple(params)
    return listed, any(math.prod(shapes[index]) > SAMPLE_SIZE for index in listed)


def quantities(names: Sequence[str], frame: Frame, metrics: Sequence[str]) -> list[Quantity]:
    """Return what those of the names stand for that the run has."""
    known = []
    for name in names:
        with suppress(UnknownCommand):
            known.append(quantity(name, frame, metrics))
    return known


def _named(name: str, names: Sequence[str]) -> tuple[int, ...]:
    """Return the parameter of a name, or all of a module of that name."""
    return tuple(index for index, each in enumerate(names) if each == name or each.startswith(f"{name}."))


def series_of(what: Quantity, history: History) -> Series:
    """Return the values of a quantity; updates are in percent."""
    match what.kind:
        case "rate":
            return _learning_rates(history)
        case "value":
            return _from_path(what, history) or history.params.series(what.params)
        case "gradient" if what.params:
            return history.grads.series(what.params)
        case "update":
            updates = history.updates(what.params)
            for position, value in enumerate(updates.values):
                updates.values[position] = value * 100
            return updates
        case _:
            return history.plotted(what.name)


def _from_path(what: Quantity, history: History) -> Series | None:
    """Return a value of a model of two from the path, which has those of a free run too; None of other models."""
    path, rows = history.path, history.params.rows
    if not rows or len(path) <= len(rows) or len(what.params) != 1 or len(rows[0]) != 2:
        return None
    series = Series()
    values = path.xs if what.params == (0,) else path.ys
    for index, iteration, value in zip(path.indices, path.iterations, values, strict=True):
        series.append(index, iteration, value)
    return series


def _learning_rates(history: History) -> Series:
    """Return the learning rate as steps: the one before stands up to each change, the last up to the last loss."""
    series = Series()
    before: Point | None = None
    for point in history.learning_rate.points():
        if before is not None and point.iteration > before.iteration:
            series.append(point.index, point.iteration, before.value)
        series.append(point.index, point.iteration, point.value)
        before = point
    if before is not None and history.loss and history.loss.iterations[-1] > before.iteration:
        series.append(max(history.loss.indices[-1], before.index), history.loss.iterations[-1], before.value)
    return series


def kinds_apart(quantities: Sequence[Quantity]) -> list[list[Quantity]]:
    """Return the quantities of each kind together: one scale serves them. Metrics have one each."""
    groups: dict[str, list[Quantity]] = {}
    for each in quantities:
        groups.setdefault(each.name if each.kind == "metric" else each.kind, []).append(each)
    return list(groups.values())


def smoothed(series: Series, smoothing: float) -> Series:
    """Return an exponential moving average over iterations, without the bias of its beginning.

    What is not finite is left out. Of a thinned series it is that of the points that are kept.
    """
    averages = Series(max(series.capacity, len(series) + 1), series.bucket)
    total = weight = 0.0
    before: int | None = None
    for point in series.points():
        if not math.isfinite(point.value):
            continue
        kept = smoothing ** (1 if before is None else max(point.iteration - before, 1))
        total, weight, before = kept * total + (1 - kept) * point.value, kept * weight + (1 - kept), point.iteration
        averages.append(point.index, point.iteration, total / weight)
    return averages


def absolute(series: Series) -> Series:
    """Return the sizes of values that have signs, for a log scale."""
    sizes = series.copy()
    for position, value in enumerate(sizes.values):
        sizes.values[position] = abs(value)
    return sizes


def nearest(series: Series, iteration: int) -> Point | None:
    """Return the last point up to an iteration, or the first one after it; None of an empty series."""
    position = max(bisect_right(series.iterations, iteration) - 1, 0)
    return Point(series.indices[position], series.iterations[position], series.values[position]) if series else None


def zoomed(view: PlotView, *, inwards: bool, whole: tuple[int, int], middle: int) -> PlotView:
    """Return the view of half as many iterations around one of them, or of twice as many up to all there are."""
    first = whole[0] if view.first is None else view.first
    last = whole[1] if view.last is None else view.last
    width = max((last - first) // 2, MIN_ITERATIONS) if inwards else (last - first) * 2 + 1
    if width >= whole[1] - whole[0]:
        return replace(view, first=None, last=None)
    start = min(max(middle - width // 2, whole[0]), whole[1] - width)
    return replace(view, first=start, last=start + width)


def parse_plot(text: str, view: PlotView, frame: Frame, metrics: Sequence[str] = ()) -> PlotView:
    """Return the view that words behind "plot" ask for: names, 100-200, all, smooth 0.9; raises UnknownCommand."""
    words, names = iter(text.split()), []
    for word in words:
        if word == "smooth" and word not in metrics:
            view = replace(view, smoothing=_smoothing(next(words, "")))
        elif word == "all" and word not in metrics:
            view = replace(view, first=None, last=None)
        elif re.fullmatch(r"\d+-\d*|-\d+", word):
            view = _in_range(word, view)
        else:
            names.append(quantity(word, frame, metrics).name)
    if len(names) > MAX_CURVES:
        raise UnknownCommand(f"{len(names)} curves at once are too many: {MAX_CURVES} can be told apart.")
    names = list(dict.fromkeys(names))
    return replace(view, names=tuple(names), cursor=None) if names else replace(view, cursor=None)


def _smoothing(text: str) -> float:
    value = 0.0 if text == "off" else parse_float(text)
    if value is None or not 0 <= value < 1:
        argument = f'"{clipped(text)}"' if text else "nothing"
        raise UnknownCommand(f"smooth takes a number from 0 to below 1, as in smooth 0.9, or off, not {argument}.")
    return value


def _in_range(word: str, view: PlotView) -> PlotView:
    first, last = (int(end[:18]) if end else None for end in word.split("-"))
    if last is not None and (first or 0) >= last:
        raise UnknownCommand(f'"{clipped(word)}" is no range of iterations: the first comes before the last.')
    return replace(view, first=first, last=last)


def plot_words(frame: Frame | None, begun: str = "") -> Iterator[tuple[str, str]]:
    """Yield what completion offers behind "plot", each with what it is; parameters that begin with what is typed."""
    yield from USUAL.items()
    yield from ((name, f"a metric, now {number(value)}") for name, value in (frame.metrics if frame else ()))
    yield "smooth 0.9", "a moving average beside the curve; smooth off"
    yield "100-200", "from one iteration to another; all for all"
    names = frame.params.layout.names if frame else ()
    begins = [name for name in names if name.startswith(begun) or begun.startswith(name)]
    for name in dict.fromkeys(_modules(begins)):
        yield f"{name}.grad", f"the norm of the gradient of {name}"
        yield name, f"the norm of {name}"
        yield f"{name}.update", f"what a step changed of {name}"


def _modules(names: Sequence[str]) -> Iterator[str]:
    """Yield the modules that hold parameters, and the parameters."""
    for name in names:
        parts = name.split(".")
        yield from (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))


def branch_label(branch: Branch, history: History) -> str:
    """Return what differs in a branch from the present run: "lr 0.19", "w=3", or else its number."""
    if branch.history is not None:
        theirs, ours = branch.history.learning_rate.values[-1:], history.learning_rate.values[-1:]
        if theirs != ours:
            return f"lr {rate(theirs[0])}"
    command = branch.log.leading_to(branch.fork + 1)
    return str(command) if command is not None and command.phase is None else f"branch {branch.number}"
