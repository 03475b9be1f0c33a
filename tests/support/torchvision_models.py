"""Open torchvision's classification models as strangers, and compare one iteration of each with the plain loop.

Run it by hand: `python tests/support/torchvision_models.py [--most N]`; on two cores it takes an hour or so and several
GB.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.scenario import Options, Parts, Scenario
from plain_loop import Tensors, copied, differing, mse, named_tensors
from session_internals import state_of, tensors

CLASSES, LEARNING_RATE = 10, 0.01
SIZES = {"alexnet": 64, "googlenet": 64, "inception_v3": 80, "maxvit_t": 224, "vit_h_14": 28}  # in place of 32 pixels


def make(name: str) -> nn.Module:
    """Build the model with random weights and few classes, as a script would."""
    from torchvision import models

    options: dict[str, Any] = {"weights": None, "num_classes": CLASSES}
    if name.startswith("vit_"):
        options["image_size"] = size_for(name)
    if name in ("inception_v3", "googlenet"):
        options["init_weights"] = True
    return models.get_model(name, **options)


def size_for(name: str) -> int:
    """Give a small height and width in pixels that the model takes."""
    return SIZES.get(name, 32)


def data_for(name: str) -> tuple[Tensor, Tensor]:
    """Draw two images and their labels."""
    size = size_for(name)
    return torch.rand(2, 3, size, size), torch.rand(2, CLASSES)


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Sum the losses of all outputs: in training, Inception and GoogLeNet give those of their side branches too."""
    result = model(batch[0])
    outputs = [result] if isinstance(result, Tensor) else [each for each in result if each is not None]
    loss = torch.stack([mse(each, batch[1]) for each in outputs]).sum()
    return loss, outputs[0]


def stranger(name: str) -> Scenario:
    """Make a scenario of a model that knows nothing of us."""

    def build(options: Options) -> Parts:
        model = make(name)
        batch = data_for(name)
        optimizer = f"sgd,lr={LEARNING_RATE},momentum=0.9"
        return Parts(model=model, batch=lambda i: batch, forward=loss_of, optimizer=optimizer)

    return Scenario(name, build)


def plainly(name: str) -> Tensors:
    """Run one iteration of the plain loop, and give every tensor before its zero_grad."""
    torch.manual_seed(0)
    model = make(name)
    batch = data_for(name)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    loss, _ = loss_of(model, batch)
    loss.backward()
    optimizer.step()
    return copied(named_tensors(model, optimizer, loss, torch.get_rng_state()))


def in_steps(name: str) -> Tensors:
    """Run the same through a session."""
    session = open_session(stranger(name), device="cpu")
    for frame in session.run_all("fbs"):
        if frame.error:
            raise RuntimeError(f"{frame.error.type}: {frame.error.message}")
    found = copied(tensors(session))
    session.run("z")
    assert all(param.grad is None for param in state_of(session).params.values())
    return found


def compare(name: str) -> str:
    """Say how the stepped run and the plain loop differ: "" where they do not."""
    try:
        expected = plainly(name)
    except Exception as error:
        return f"the plain loop raises {type(error).__name__}: {str(error).splitlines()[0]}"
    try:
        wrong = differing(in_steps(name), expected)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return f"{len(wrong)} tensors differ, {wrong[0]} first" if wrong else ""


def table(names: Sequence[str], write: Callable[[str], None]) -> int:
    """Write a line for each model, and give how many are not equal."""
    failed = 0
    for name in names:
        started = perf_counter()
        reason = compare(name)
        gc.collect()
        failed += bool(reason)
        write(f"{name:<20} {size_for(name):>4} px {perf_counter() - started:>7.1f} s  {reason or 'equal to the bit'}")
    write(f"{len(names) - failed} of {len(names)} equal the plain loop to the bit")
    return failed


def main() -> int:
    from torchvision import models

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, metavar="N", help="stop after so many models")
    parser.add_argument("names", nargs="*", help="these alone")
    options = parser.parse_args()
    names = options.names or models.list_models(module=models)[: options.most]
    return min(table(names, lambda line: print(line, flush=True)), 1)


if __name__ == "__main__":
    raise SystemExit(main())
