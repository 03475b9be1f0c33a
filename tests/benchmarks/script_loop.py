"""A script as the benchmarks run it: `script_loop.py NAME TURNS LOCK [ITERATIONS]`, the last of one turn.

It prints the processor's seconds of each turn.
Two of them that are given the same lock take turns: what else the machine does is felt by both.
"""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Callable, Iterator
from time import process_time, sleep
from typing import Any

import torch
from torch import nn

Loop = Callable[[int], None]  # runs so many iterations
TURN_SECONDS = 1.0


def line() -> Loop:
    """Return the smallest loop there is."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    x, y = torch.ones(4, 1), torch.ones(4, 1)

    def run(iterations: int) -> None:
        for _ in range(iterations):
            loss = (model(x) - y).pow(2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return run


def mlp() -> Loop:
    """Return a loop of a few layers and Adam."""
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    loss_fn = nn.CrossEntropyLoss()
    x, y = torch.randn(64, 64), torch.randint(0, 10, (64,))

    def run(iterations: int) -> None:
        for _ in range(iterations):
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()

    return run


def digits() -> Loop:
    """Return a loop over batches of images, each of which a module normalizes, and a small convolutional network."""
    from torchvision.transforms import Normalize

    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    images, labels = torch.rand(640, 1, 28, 28), torch.randint(0, 10, (640,))
    normalize = Normalize((0.1307,), (0.3081,))

    class Images(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> Any:
            return normalize(images[index]), labels[index]

    loader = torch.utils.data.DataLoader(Images(), batch_size=64, shuffle=True)

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    batches = endless()

    def run(iterations: int) -> None:
        for _ in range(iterations):
            x, y = next(batches)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()

    return run


LOOPS = {"line": (line, 13_000), "mlp": (mlp, 1_300), "digits": (digits, 120)}  # and iterations, of a second or so


def main(name: str, turns: str, lock: str, of_turn: str | None = None) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    make, iterations = LOOPS[name]
    iterations = int(of_turn or iterations)
    loop = make()
    loop(iterations // 10)
    with open(lock) as held:
        for _ in range(int(turns)):
            fcntl.flock(held, fcntl.LOCK_EX)
            begun = process_time()
            loop(iterations)
            seconds = process_time() - begun
            fcntl.flock(held, fcntl.LOCK_UN)
            print(f"turn {seconds / iterations!r}", flush=True)
            sleep(0.01)  # for the other one to take the lock


if __name__ == "__main__":
    main(*sys.argv[1:])
