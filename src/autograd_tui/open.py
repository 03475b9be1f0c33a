"""Open a session: from a scenario's name and options to a trainer that is ready for its first command."""

from __future__ import annotations

import shlex
from typing import Any

import torch

from autograd_tui.engine.about import About
from autograd_tui.engine.errors import Refused
from autograd_tui.engine.loop import Loop
from autograd_tui.engine.optimizer_spec import OptimizerSpec, format_number
from autograd_tui.engine.optimizers import Decay, override
from autograd_tui.engine.options import FLAGS, Options
from autograd_tui.engine.scenario import Parts, Scenario
from autograd_tui.engine.session import Session
from autograd_tui.engine.surroundings import Surroundings
from autograd_tui.engine.trainer import Trainer
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
    **options: Any,
) -> Session:
    """Open a training session at frame 0, as the command line's options of the same names do.

    scenario: "linear", "resnet18", "my_model.py", "my_model.py:name", or what @scenario made.
    optimizer: "adam", or with options "sgd,momentum=0.9"; the scenario's own by default.
    decay: "plateau[:factor[:patience]]". options: the scenario's own, such as batch_size; None leaves the default.
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
    plateau = Decay(decay) if decay is not None else None
    surroundings = Surroundings()
    with surroundings:
        found = find(scenario) if isinstance(scenario, str) else scenario
        chosen = choose_device(device or found.defaults.get("device"))
        surroundings.follow(chosen)
        torch.manual_seed(seed)
        parts = _build(found, found.options(seed, given, device=chosen))
        spec = override(OptimizerSpec.parse(parts.optimizer), optimizer, lr, rates)
        loop = Loop(parts, spec, device=chosen, decay=plateau, surroundings=surroundings)
    flags: dict[str, Any] = {
        "seed": seed or None,
        "device": device,
        "threads": threads,
        "optimizer": optimizer,
        "lr": lr,
    }
    flags |= {**rates, **{name: value for name, value in given.items() if name in FLAGS}, "decay": decay}
    flags["option"] = [f"{name}={value}" for name, value in given.items() if name not in FLAGS]
    name = scenario if isinstance(scenario, str) else found.title
    about = About(
        found.title,
        chosen,
        seed,
        _command_line(name, flags),
        parts.names,
        parts.class_names,
        tied=loop.tied(),
        listing=_listing(parts, plateau),
    )
    return Session(Trainer(loop), about=about)


def choose_device(asked: str | None) -> str:
    """Give the device that is asked for, else the accelerator where there is one, else "cpu"."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if asked is None:
        return "cpu" if accelerator is None else accelerator.type
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise Refused(f'"{asked}" is no device: use cpu, or cuda, cuda:1, mps, xpu where there is one.') from None
    if device.type != "cpu" and (accelerator is None or accelerator.type != device.type):
        here = "cpu" if accelerator is None else f"cpu and {accelerator.type}"
        raise Refused(f"there is no {device.type} device here: this machine has {here}.")
    if device.type != "cpu" and (device.index or 0) >= torch.accelerator.device_count():
        raise Refused(f"there is no {asked}: this machine has {torch.accelerator.device_count()} of them.")
    return str(device)


def _build(scenario: Scenario, options: Options) -> Parts:
    """Call the scenario's own code."""
    try:
        parts = scenario.build(options)
    except Refused:
        raise
    except (Exception, SystemExit) as error:
        raise Refused(f'"{scenario.title}" could not be built: {type(error).__name__}: {error}') from error
    if not isinstance(parts, Parts):
        raise Refused(f'"{scenario.title}" must return Parts(...), not {type(parts).__name__}.')
    return parts


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


def _command_line(name: str, flags: dict[str, Any]) -> str:
    words = ["autograd-tui", name]
    for flag, value in flags.items():
        for each in value if isinstance(value, list) else [] if value is None else [value]:
            words += ["--" + flag.replace("_", "-"), format_number(each) if isinstance(each, float) else str(each)]
    return shlex.join(words)
