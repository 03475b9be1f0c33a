"""What stepping costs: a stepped iteration with all of its frames, beside the plain loop, in turns in one run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from torchvision.models import resnet18

from autograd_tui import open_session

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd,momentum=0.9": lambda params: torch.optim.SGD(params, lr=1e-2, momentum=0.9),
    "adam": lambda params: torch.optim.Adam(params, lr=1e-2),
}


def plain_phases(optimizer: str) -> dict[str, Callable[[], Tensor | None]]:
    """Build the loop that anyone would write, and give its lines by letter; forward gives the loss."""
    torch.manual_seed(0)
    model = resnet18()
    data, labels = torch.rand(1, 3, 64, 64), torch.rand(1, 1000)
    made = OPTIMIZERS[optimizer](model.parameters())
    losses: list[Tensor] = []

    def forward() -> Tensor:
        losses[:] = [((labels - model(data)) ** 2).mean()]
        return losses[0]

    def backward() -> None:
        losses[0].backward()

    return {"f": forward, "b": backward, "s": made.step, "z": made.zero_grad}


def plain_iteration(optimizer: str) -> Callable[[], Tensor]:
    """Give one turn of that loop."""
    phases = plain_phases(optimizer)

    def iterate() -> Tensor:
        loss = phases["f"]()
        for letter in "bsz":
            phases[letter]()
        assert loss is not None
        return loss

    return iterate


def measure(optimizer: str, iterations: int) -> None:
    """Print the median ratio, and hold the losses equal all the while."""
    iterate, session = plain_iteration(optimizer), open_session("resnet18", optimizer=optimizer, lr=1e-2)
    ratios, plain_times, shares = [], [], {letter: [] for letter in "fbsz"}  # type: ignore[var-annotated]
    for turn in range(iterations + 3):
        started = perf_counter()
        loss = iterate()
        between = perf_counter()
        for letter in "fbsz":
            before = perf_counter()
            frame = session.run(letter)
            shares[letter].append(perf_counter() - before - frame.seconds)
        ended = perf_counter()
        assert loss.item() == frame.loss
        if turn >= 3:
            plain_times.append(between - started)
            ratios.append((ended - between) / (between - started))
    shared = ", ".join(f"{letter} {median(times) * 1000:.2f}" for letter, times in shares.items())
    print(f"resnet18, {optimizer}: stepped / plain = {median(ratios):.3f}   (median of {iterations} pairs; plain")
    print(f"  {median(plain_times) * 1000:.1f} ms an iteration; ms for frames and checkpoints: {shared})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=60)
    for name in OPTIMIZERS:
        measure(name, parser.parse_args().iterations)
