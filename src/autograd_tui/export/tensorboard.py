"""Frames as TensorBoard's event files, written by PyTorch's own writer."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from autograd_tui.core.command import Phase
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import Series
from autograd_tui.core.tensor_stats import TensorStats
from autograd_tui.text.styled_text import one_line

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def write_events(folder: Path, frames: Iterable[Frame], *, losses: Series | None = None) -> None:
    """Write into a folder: scalars and histograms by iteration, as each phase brings them.

    losses: of all iterations, where not each has a frame.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise Refused("TensorBoard's files need its package: pip install tensorboard.") from None
    with _print_errors_once(), SummaryWriter(str(folder)) as writer:
        for point in losses.points() if losses is not None else ():
            writer.add_scalar("loss", point.value, point.iteration)
        for frame in frames:
            if not frame.error:
                _add(writer, frame, with_loss=losses is None)


@contextmanager
def _print_errors_once() -> Iterator[None]:
    """Keep TensorBoard's own thread from printing what it could not write: its writer raises that here too."""
    before = threading.excepthook

    def print_of_others(raised: threading.ExceptHookArgs) -> None:
        if not type(raised.thread).__module__.startswith("tensorboard."):
            before(raised)

    threading.excepthook = print_of_others
    try:
        yield
    finally:
        threading.excepthook = before


def _add(writer: SummaryWriter, frame: Frame, *, with_loss: bool) -> None:
    at = frame.iteration
    if frame.phase is Phase.FORWARD:
        scalars = {"loss": frame.loss, "learning rate": frame.learning_rate, **dict(frame.metrics)}
        for name, value in scalars.items():
            if value is not None and (with_loss or name != "loss"):
                writer.add_scalar(one_line(name), value, at)
    if frame.phase is Phase.BACKWARD and (norm := frame.grads.norm()) is not None:
        writer.add_scalar("gradient norm", norm, at)
        for grad in frame.grads:
            _add_histogram(writer, "gradient", grad, at)
    if frame.index == 0 or frame.phase is Phase.STEP or (frame.command and frame.phase is None):
        for row in frame.params:
            _add_histogram(writer, "parameter", row, at)


def _add_histogram(writer: SummaryWriter, kind: str, row: TensorStats | None, at: int) -> None:
    """Add what is known of a tensor's values: up to 16 of them, or 16 bins from the least to the greatest.

    Of more than 1,024 values these are a sample's, and it counts as many.
    """
    if row is None or row.nonfinite or not row.size:
        return
    tag = one_line(f"{kind}/{row.name}")
    if row.values is not None:
        import numpy as np

        writer.add_histogram(tag, np.array(row.values), at)
        return
    if row.histogram is None or row.min is None or row.max is None or row.mean is None or row.std is None:
        return
    count, width = sum(row.histogram), (row.max - row.min) / len(row.histogram)
    writer.add_histogram_raw(
        tag,
        min=row.min,
        max=row.max,
        num=count,
        sum=row.mean * count,
        sum_squares=(row.std**2 + row.mean**2) * count,
        bucket_limits=[row.min + width * (index + 1) for index in range(len(row.histogram))],
        bucket_counts=list(row.histogram),
        global_step=at,
    )
