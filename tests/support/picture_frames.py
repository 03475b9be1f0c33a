"""Frames for pictures, from plain values alone: the line, and a model of 62 parameters in 7 layers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autograd_tui.core.command import parse_one
from autograd_tui.core.frame import Frame, TorchError
from autograd_tui.core.loss_surface import COLUMNS, ROWS, LossSurface, Quadratic
from autograd_tui.core.picture import Picture, Plane
from autograd_tui.core.run_config import RunConfig
from autograd_tui.core.session_protocol import SessionInfo
from autograd_tui.core.tensor_stats import (
    HISTOGRAM_BINS,
    MAX_LISTED_VALUES,
    ROW_WIDTH,
    SAMPLE_SIZE,
    Grads,
    StatsLayout,
    StatsTable,
    TensorStats,
)

BELL = (0, 1, 9, 28, 66, 118, 171, 199, 187, 124, 71, 32, 13, 4, 0, 1)  # 1,024 values
LINE = SessionInfo(
    "the line",
    "cpu",
    seed=0,
    config=RunConfig("linear"),
    names=("x", "y", "Q"),
    listing={
        "setup": ("w, b = tensor([2.]), tensor([6.])  # requires_grad", "x = tensor([1., 2., 3.]);  y = 4 * x + 1"),
        "forward": ("Q = w * x + b", "loss = mse(Q, y)  # ((y - Q)**2).mean()"),
        "backward": ("loss.backward()",),
        "step": ("optimizer.step()",),
        "zero_grad": ("optimizer.zero_grad()",),
    },
)
LAYERS = SessionInfo(
    "resnet18",
    "cuda:0",
    seed=0,
    config=RunConfig("resnet18"),
    names=("data", "labels", "prediction"),
    listing={
        **LINE.listing,
        "setup": ("model = resnet18()", "data = rand(1,3,64,64);  labels = rand(1,1000)"),
        "forward": ("prediction = model(data)", "loss = mse(prediction, labels)"),
    },
)
AGAIN = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already "
    "been freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad()."
)


def line_frames() -> list[Frame]:
    """Give the line at its beginning, after forward, backward and step."""
    start = Frame(0, table(_small("w", 2.0), _small("b", 6.0)), no_grads(2), table(), table(), "sgd", learning_rate=0.1)
    forward = replace(
        _after(start, "f"),
        iteration=1,
        loss=11 / 3,
        loss_params=start.params,
        inputs=_small("inputs", 1.0, 2.0, 3.0),
        targets=_small("targets", 5.0, 9.0, 13.0),
        prediction=_small("prediction", 8.0, 10.0, 12.0),
        graph="alive",
    )
    grads = Grads(table(_small("w", 4 / 3), _small("b", 2.0)), (1, 1), (False, False))
    backward = replace(_after(forward, "b"), grads=grads, grads_params=start.params, graph="freed")
    moved = table(_small("w", 2.0 - 0.1 * 4 / 3), _small("b", 5.8))
    return [start, forward, backward, _stepped(backward, moved, moves=(0.1 * 4 / 3, 0.2))]


def line_surface() -> LossSurface:
    """Give the line's loss over w and b, by its formula."""
    across = [1.5 + 3 * column / (COLUMNS - 1) for column in range(COLUMNS)]
    up = [-0.5 + 8 * row / (ROWS - 1) for row in range(ROWS)]
    losses = array("d", (sum((w * x + b - 4 * x - 1) ** 2 for x in (1, 2, 3)) / 3 for b in up for w in across))
    lowest = Quadratic(4.0, 1.0, 0.0, 28 / 3, 4.0, 2.0, exact=True)
    return LossSurface(("w", "b"), (1.5, 4.5), (-0.5, 7.5), losses, lowest)


def picture_of(frame: Frame, **what: Any) -> Picture:
    """Give a picture of a frame's model: rows, texts, points, a plane or a problem."""
    return Picture(frame.index, frame.steps, frame.params, frame.buffers, **what)


SIDES = Plane(
    [[1 / (1 + math.exp(4 * (row - 8 * math.sin(column / 8)) / 8)) for column in range(48)] for row in range(-16, 16)],
    x=(-3, 3),
    y=(-2, 2),
    points={
        "below": [(-2.0, -1.5), (0.0, -0.75), (1.5, 0.25), (-1.0, -1.25)],
        "above": [(-2.0, 0.75), (0.5, 1.5), (2.0, 1.75), (1.25, -1.0)],
    },
)
WAVES: Mapping[str, Sequence[tuple[float, float]]] = {
    "truth": [(at, math.sin(at / 4)) for at in range(40)],
    "predicted": [(at, math.sin(at / 4) + 0.1) for at in range(24)],
    "continued": [(at, math.sin(at / 3.8)) for at in range(24, 40)],
}
TEXTS = {"truth": "the ball lies high upon the hill, and does not know", "written": "the ball lids hith upon the hell"}


def error_frame() -> Frame:
    """Give the line after a second backward, which PyTorch refuses."""
    return replace(_after(line_frames()[2], "B"), error=TorchError("RuntimeError", AGAIN, file="", line=0))


def layers_frames() -> list[Frame]:
    """Give a model that is shown by layers, after forward, backward and a step with momentum."""
    names = list(_names())
    rows = [described(*each, norm=0.05 * math.sqrt(math.prod(each[1]))) for each in names]
    slopes = [described(*each, norm=0.8 / (1 + 0.15 * place)) for place, each in enumerate(names)]
    velocities = [replace(row, name=f"{row.name}.momentum_buffer") for row in slopes]
    forward = Frame(
        1,
        table(*rows),
        no_grads(len(names)),
        optimizer_state=table(),
        buffers=table(),
        optimizer="sgd,momentum=0.9",
        learning_rate=0.01,
        command=parse_one("f"),
        iteration=1,
        loss=0.8550,
        loss_params=table(*rows),
        inputs=described("inputs", (1, 3, 64, 64), norm=64.0),
        targets=described("targets", (1, 1000), norm=18.3),
        prediction=described("prediction", (1, 1000), norm=23.4),
        graph="alive",
        top=((486, 2.1234, 0.7695), (525, 1.9636, 0.8512), (663, 1.9608, 0.4120)),
    )
    grads = Grads(table(*slopes), (1,) * len(names), (False,) * len(names))
    backward = replace(_after(forward, "b"), grads=grads, grads_params=forward.params, graph="freed")
    moved = table(*(described(row.name, row.shape, norm=row.norm * 1.0001) for row in rows))  # type: ignore[operator]
    step = _stepped(backward, moved, moves=[0.01 * row.norm for row in slopes])  # type: ignore[operator]
    return [forward, backward, replace(step, optimizer_state=table(*velocities))]


def _after(frame: Frame, command: str) -> Frame:
    return replace(frame, index=frame.index + 1, command=parse_one(command))


def _stepped(frame: Frame, params: StatsTable, *, moves: Sequence[float]) -> Frame:
    after = _after(frame, "s")
    return replace(
        after,
        params=params,
        before=frame.params,
        grads=replace(frame.grads, used=(True,) * len(params)),
        steps=1,
        step_rate=frame.learning_rate,
        mover=after.command,
        moved=True,
        moves=array("d", moves),
    )


def _names() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Give the names and shapes of resnet18's parameters."""
    yield "conv1.weight", (64, 3, 7, 7)
    yield from _norm("bn1", 64)
    before = 64
    for layer, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            inside = f"layer{layer}.{block}"
            yield f"{inside}.conv1.weight", (width, before, 3, 3)
            yield from _norm(f"{inside}.bn1", width)
            yield f"{inside}.conv2.weight", (width, width, 3, 3)
            yield from _norm(f"{inside}.bn2", width)
            if before != width:
                yield f"{inside}.downsample.0.weight", (width, before, 1, 1)
                yield from _norm(f"{inside}.downsample.1", width)
            before = width
    yield "fc.weight", (1000, 512)
    yield "fc.bias", (1000,)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _small(name: str, *values: float) -> TensorStats:
    """Describe a tensor whose values are all known."""
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    norm = math.sqrt(sum(value**2 for value in values))
    return TensorStats(name, (len(values),), "float32", norm, min(values), max(values), 0, mean, spread, values)


def described(name: str, shape: tuple[int, ...], *, norm: float) -> TensorStats:
    """Describe a tensor of many values by its norm."""
    size = math.prod(shape)
    spread = norm / math.sqrt(size)
    return TensorStats(
        name, shape, "float32", norm, -3.5 * spread, 3.5 * spread, 0, 0.0, spread, None, BELL, size > SAMPLE_SIZE
    )


def table(*rows: TensorStats) -> StatsTable:
    """Keep rows as the engine keeps them."""
    numbers = array("d")
    for row in rows:
        kept = row.values if row.values is not None else row.histogram or (0,) * HISTOGRAM_BINS
        numbers.extend((row.norm, row.min, row.max, row.nonfinite, row.mean, row.std, *kept))  # type: ignore[arg-type]
        numbers.extend([0.0] * (MAX_LISTED_VALUES - len(kept)) + [row.min or 0.0])
    assert len(numbers) == ROW_WIDTH * len(rows)
    layout = StatsLayout(
        tuple(row.name for row in rows),
        tuple(row.shape for row in rows),
        tuple(row.dtype for row in rows),
        (True,) * len(rows),
    )
    return StatsTable(layout, numbers)


def no_grads(count: int) -> Grads:
    return Grads(table(), (0,) * count, (False,) * count)
