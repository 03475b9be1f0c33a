"""What stepping costs: stepped iterations, checkpoints and journal included, beside the plain loop, in turns."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from figures import Figure
from torch import Tensor
from torchvision.models import resnet18

from autograd_tui import open_session
from autograd_tui.journal.writer import JournalWriter

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd,momentum=0.9": lambda params: torch.optim.SGD(params, lr=1e-2, momentum=0.9),
    "adam": lambda params: torch.optim.Adam(params, lr=1e-2),
}
GOALS = {"sgd,momentum=0.9": 1.15, "adam": 1.12}
LARGE_BATCH, LARGE_SIZE, LARGE_GOAL = 8, 96, 1.05
WARM_UP = 3  # iterations that do not count


def plain_phases(optimizer: str, *, batch: int = 1, size: int = 64) -> dict[str, Callable[[], Tensor | None]]:
    """Build the loop that anyone would write, and give its lines by letter; forward gives the loss."""
    torch.manual_seed(0)
    model = resnet18()
    data, labels = torch.rand(batch, 3, size, size), torch.rand(batch, 1000)
    made = OPTIMIZERS[optimizer](model.parameters())
    losses: list[Tensor] = []

    def forward() -> Tensor:
        losses[:] = [((labels - model(data)) ** 2).mean()]
        return losses[0]

    def backward() -> None:
        losses[0].backward()

    return {"f": forward, "b": backward, "s": made.step, "z": made.zero_grad}


def plain_iteration(optimizer: str, *, batch: int = 1, size: int = 64) -> Callable[[], Tensor]:
    """Give one turn of that loop."""
    phases = plain_phases(optimizer, batch=batch, size=size)

    def iterate() -> Tensor:
        loss = phases["f"]()
        for letter in "bsz":
            phases[letter]()
        assert loss is not None
        return loss

    return iterate


def measure(optimizer: str, iterations: int, *, batch: int = 1, size: int = 64) -> tuple[list[float], str]:
    """Return stepped over plain of each iteration, and a sentence on where the time goes; the losses are equal."""
    iterate = plain_iteration(optimizer, batch=batch, size=size)
    session = open_session("resnet18", optimizer=optimizer, lr=1e-2, batch_size=batch, image_size=size)
    ratios, plain_times, shares = [], [], {letter: [] for letter in "fbsz"}  # type: ignore[var-annotated]
    with TemporaryDirectory() as folder:
        session.observer = JournalWriter(Path(folder) / "journal", session.about, private=True)
        for turn in range(iterations + WARM_UP):
            started = perf_counter()
            loss = iterate()
            between = perf_counter()
            for letter in "fbsz":
                before = perf_counter()
                frame = session.run(letter)
                shares[letter].append(perf_counter() - before - frame.seconds)
            ended = perf_counter()
            assert loss.item() == frame.loss
            if turn >= WARM_UP:
                plain_times.append(between - started)
                ratios.append((ended - between) / (between - started))
        session.close(in_order=True)
    shared = ", ".join(f"{letter} {median(times) * 1000:.2f}" for letter, times in shares.items())
    return ratios, f"plain {median(plain_times) * 1000:.1f} ms an iteration; ms for frames and checkpoints: {shared}"


def figures(iterations: int) -> list[Figure]:
    """Measure each optimizer, and a larger batch; print where the time goes."""
    measured = []
    for optimizer, goal in GOALS.items():
        ratios, times = measure(optimizer, iterations)
        measured.append(Figure(f"resnet18, {optimizer}: stepped / plain", ratios, at_most=goal))
        print(f"  resnet18, {optimizer}: {times}", flush=True)
    ratios, times = measure("sgd,momentum=0.9", max(iterations // 3, 1), batch=LARGE_BATCH, size=LARGE_SIZE)
    large = f"resnet18, {LARGE_BATCH} images of {LARGE_SIZE} x {LARGE_SIZE}"
    print(f"  {large}: {times}", flush=True)
    return [*measured, Figure(f"{large}: stepped / plain", ratios, at_most=LARGE_GOAL)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=60)
    for figure in figures(parser.parse_args().iterations):
        print(figure.row())
