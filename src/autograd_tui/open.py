"""Open a session: from a scenario's name and options to a trainer that is ready for its first command."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch

from autograd_tui import __version__
from autograd_tui.engine.line.checkpoint_line import CheckpointLine
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.loop import Loop, theirs
from autograd_tui.engine.training.optimizers import override
from autograd_tui.engine.training.options import Options
from autograd_tui.engine.training.raised import in_words
from autograd_tui.engine.training.scenario import Parts, Scenario
from autograd_tui.engine.training.start import Start
from autograd_tui.engine.training.state import State
from autograd_tui.engine.training.surroundings import ForeignRandom, Surroundings
from autograd_tui.engine.training.trainer import Trainer
from autograd_tui.engine.values.about import About
from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.memory import BUDGET, read_size
from autograd_tui.engine.values.opening import Opening, sha256
from autograd_tui.engine.values.optimizer_spec import Decay, OptimizerSpec
from autograd_tui.engine.values.process import OneProcess
from autograd_tui.scenarios.find import find

MOST_THREADS = 1024


def open_session(
    scenario: str | Scenario = "linear",
    *,
    seed: int = 0,
    device: str | None = None,
    threads: int | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    decay: str | None = None,
    memory: str | int = "1GiB",
    state: str | None = None,
    **options: Any,
) -> Session:
    """Open a training session at frame 0, as the command line's options of the same names do.

    scenario: "linear", "resnet18" and so on, "my_model.py", "my_model.py:name", or what @scenario made.
    optimizer: "adam", or with options "sgd,momentum=0.9"; the scenario's own by default.
    decay: "plateau[:factor[:patience[:min_lr]]]".
    memory: for the checkpoints that make going back quick: "500MB", or bytes.
    state: a file with what the model, and the optimizer, begin with; an lr given here holds nevertheless.
    options: the scenario's own, such as batch_size; None leaves the default.
    Raises Refused, in one sentence, where something has no meaning here.
    """
    given = {name: value for name, value in options.items() if value is not None}
    both = {"momentum": momentum, "weight_decay": weight_decay}
    rates = {name: value for name, value in both.items() if value is not None}
    if not 0 <= seed < 1 << 40:
        raise Refused(f"--seed must be a whole number from 0 up to {(1 << 40) - 1}, not {seed}.")
    if threads is not None:
        if not 1 <= threads <= MOST_THREADS:
            raise Refused(f"--threads must lie between 1 and {MOST_THREADS}, not {threads}.")
        torch.set_num_threads(threads)
    budget = memory if isinstance(memory, int) else read_size(memory)
    plateau = Decay.parse(decay) if decay is not None else None
    asked_for = rates if lr is None else {"lr": lr, **rates}
    begin = State(state, asked_for) if state is not None else None
    surroundings = Surroundings()
    with surroundings:
        torch.manual_seed(seed)  # for what a file does before, or without, a build
        ForeignRandom.seed(seed)  # before the import, since a file may seed them itself
        found = find(scenario) if isinstance(scenario, str) else scenario
        chosen = choose_device(found.defaults.get("device") if device is None else device)

    def build(surroundings: Surroundings) -> Loop:
        surroundings.follow(chosen)
        torch.manual_seed(seed)
        parts = _build(found, found.options(seed, given, device=chosen))
        spec = override(OptimizerSpec.parse(parts.optimizer), optimizer, lr, rates)
        with _built(found.title):  # the model's own `to` and `train` are called
            loop = Loop(parts, spec, device=chosen, decay=plateau, surroundings=surroundings)
        if begin is not None:
            begin.put_into(loop)
        return loop

    trainer = Trainer(Start(build, surroundings))
    parts = trainer.parts
    asked = {"seed": seed or None, "device": device, "threads": threads, "optimizer": optimizer, "lr": lr}
    asked |= {
        **rates,
        "decay": None if plateau is None else str(plateau),
        "memory": None if budget == BUDGET else memory,
        "state": state,
    }
    name = scenario if isinstance(scenario, str) else found.title
    opening = Opening(
        name,
        {option: value for option, value in asked.items() if value is not None},
        {**given, **parts.settled},
        device=chosen,
        threads=torch.get_num_threads(),
        versions=_versions(),
        sha256=sha256(name),
    )
    about = About(
        found.title,
        chosen,
        seed,
        opening,
        parts.names,
        parts.class_names,
        tied=trainer.tied,
        listing=_listing(parts, plateau),
        memory=budget,
    )
    return Session(trainer, about=about, checkpoints=CheckpointLine(trainer, budget=budget))


def choose_device(asked: str | None) -> str:
    """Give the device that is asked for, else the accelerator where there is one, else "cpu"."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if asked is None:
        return "cpu" if accelerator is None else accelerator.type
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise Refused(f'"{asked}" is no device: use cpu, or cuda, cuda:1, mps, xpu where there is one.') from None
    if device.type == "cpu" and device.index:
        raise Refused(f"there is no {asked}: all of the CPU is one device, cpu.")
    if device.type != "cpu" and (accelerator is None or accelerator.type != device.type):
        here = "cpu" if accelerator is None else f"cpu and {accelerator.type}"
        raise Refused(f"there is no {device.type} device here: this machine has {here}.")
    if device.type != "cpu" and (device.index or 0) >= torch.accelerator.device_count():
        raise Refused(f"there is no {asked}: this machine has {torch.accelerator.device_count()} of them.")
    return str(device)


def _build(scenario: Scenario, options: Options) -> Parts:
    """Call the scenario's own code."""
    with _built(scenario.title):
        parts = scenario.build(options)
    if not isinstance(parts, Parts):
        raise Refused(f'"{scenario.title}" must return Parts(...), not {type(parts).__name__}.')
    return parts


@contextmanager
def _built(title: str) -> Iterator[None]:
    """Run other people's code: what it raises is refused in one sentence."""
    try:
        with OneProcess():
            yield
    except Refused:
        raise
    except BaseException as error:
        if not theirs(error):
            raise
        raise Refused(f'"{title}" could not be built: {in_words(error)}') from error


def _listing(parts: Parts, decay: Decay | None) -> dict[str, tuple[str, ...]]:
    """Give the source lines of each phase: the scenario's own, else what any loop would say."""
    predicts = "prediction = model(inputs)\nloss = loss_function(prediction, targets)"
    lines = {
        "setup": "",
        "forward": predicts if parts.loss else "loss = forward(model, batch)",
        "backward": "loss.backward()",
        "step": "optimizer.step()",
        "zero_grad": "optimizer.zero_grad()",
    }
    lines |= parts.listing
    if decay:
        lines["step"] += "\n" + decay.line
    return {phase: tuple(source.splitlines()) for phase, source in lines.items()}


def _versions() -> dict[str, str]:
    """Say what the numbers depend on; torchvision is asked without importing it."""
    return {
        "autograd-tui": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
    }
