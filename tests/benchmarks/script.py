"""What stepping a script costs it: free runs beside plain Python in turns, and the time from a key to a frame."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from torch import nn
from torchvision.transforms import Normalize

from autograd_tui.core.phase_order import Goal
from autograd_tui.core.watchpoint import Watchpoint, parse_watchpoint
from autograd_tui.engine.script.agent import Agent
from autograd_tui.engine.script.agent_messages import GoOn, Stop
from autograd_tui.engine.script.loop_phases import Phases
from autograd_tui.engine.script.script_session import ScriptSession
from autograd_tui.engine.script.seams import Seams

Loop = Callable[[int], None]  # runs so many iterations
WATCHED = ("nonfinite", "grad_norm > 1e6")
KEYS = """
import torch
from torch import nn
model = nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
x, y = torch.ones(4, 1), torch.ones(4, 1)
while True:
    loss = (model(x) - y).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""


class FreeAgent(Agent):
    """Lets everything go on freely, and sends its messages nowhere."""

    def __init__(self, armed: tuple[Watchpoint, ...]) -> None:
        super().__init__(Path())
        self._connection: Any = self
        self._armed = armed
        self.frames = 0

    def send(self, message: Any) -> None:
        self.frames += isinstance(message, Stop)

    def poll(self, timeout: float | None) -> bool:
        return True

    def give_up(self, reason: str) -> None:
        raise AssertionError(reason)

    def recv(self) -> GoOn:
        return GoOn(self.phases.index, Goal(), 0.5, self._armed)  # twice the usual, as half of the time goes by plainly


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


LOOPS = {"line": (line, 300), "mlp": (mlp, 60), "digits": (digits, 10)}


def ratios(name: str, pairs: int, armed: tuple[Watchpoint, ...]) -> tuple[list[float], float, int]:
    """Return, for each pair of turns, the time of the free one over that of the plain one; plain seconds; frames."""
    make, iterations = LOOPS[name]
    torch.manual_seed(0)
    loop = make()
    loop(iterations)
    agent = FreeAgent(armed)
    agent.phases = Phases(agent)
    seams = Seams(agent.phases)
    found, plain = [], []
    for pair in range(pairs):
        times = {}
        for free in (True, False) if pair % 2 else (False, True):
            if free:
                seams.install()
                seams.turn_on()
            begun = process_time()  # of the processor alone: others may run beside this
            loop(iterations)
            times[free] = process_time() - begun
            if free:
                seams.uninstall()
        found.append(times[True] / times[False])
        plain.append(times[False] / iterations)
    return found[len(found) // 10 :], median(plain), agent.frames


def key_times(keys: int) -> list[float]:
    """Return the seconds from each key's order to the decoded frame."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.py"
        path.write_text(KEYS)
        session = ScriptSession((str(path),), on_output=lambda data: None)
        times = []
        for _ in range(keys):
            begun = perf_counter()
            session.run(session.next_command())
            times.append(perf_counter() - begun)
        session.close(in_order=True)
    return times[keys // 10 :]


def spread(values: list[float]) -> str:
    """Write a median, and between what the middle half lies."""
    ordered = sorted(values)
    return f"{median(ordered):.3f} ({ordered[len(ordered) // 4]:.3f} to {ordered[len(ordered) * 3 // 4]:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loops", nargs="*", default=list(LOOPS), help=f"of {', '.join(LOOPS)}")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--keys", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.loops:
        for what, conditions in (("free", ()), ("watched", WATCHED)):
            found, plain, frames = ratios(name, options.pairs, tuple(map(parse_watchpoint, conditions)))
            print(
                f"{name}, {what}: {spread(found)} of plain Python's {plain * 1e6:,.0f} us; {frames} frames", flush=True
            )
    times = [each * 1000 for each in key_times(options.keys)]
    print(f"key to frame: {spread(times)} ms", flush=True)


if __name__ == "__main__":
    main()
