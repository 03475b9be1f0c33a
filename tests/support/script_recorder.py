"""Runs a small script in this process with seams, and an agent that records every frame and never holds."""

from __future__ import annotations

import hashlib
import linecache
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.frame import Frame
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.engine.script.loop_phases import Phases
from autograd_tui.engine.script.seams import Seams, install

SCRIPTS = Path(__file__).parent / "scripts"
LETTERS = {
    "zero_grad": "Z",
    "forward": "F",
    "backward": "B",
    "clip": "C",
    "unscale": "U",
    "step": "S",
    "scheduler": "L",
    "grad": "G",
}


class RecordingAgent:
    """Takes a frame of each event, or of those that `wants` says."""

    def __init__(self, wants: Callable[[Phases, str], bool] = lambda phases, name: True) -> None:
        self.frames: list[Frame] = []
        self.events: list[tuple[str, int, int, int]] = []  # name, index, iteration, steps
        self.reasons: list[str] = []
        self._wants = wants

    def lets_pass(self, phases: Phases, name: str) -> bool:
        self.events.append((name, phases.counts.index, phases.counts.iteration, phases.counts.steps))
        return not self._wants(phases, name)

    def stop(self, frame: Frame) -> None:
        self.frames.append(frame)

    def give_up(self, reason: str) -> None:
        self.reasons.append(reason)

    @property
    def letters(self) -> str:
        """The events in order: "ZFBS"."""
        return "".join(LETTERS[name] for name, *_ in self.events)

    def by_iteration(self) -> list[str]:
        """The events of each iteration, those before the first forward first."""
        letters: dict[int, str] = {}
        for name, _, iteration, _ in self.events:
            letters[iteration] = letters.get(iteration, "") + LETTERS[name]
        return [letters[each] for each in sorted(letters)]


def stops(agent: RecordingAgent) -> list[ScriptStop]:
    """Return where each frame was made."""
    return [frame.script for frame in agent.frames if frame.script is not None]


@contextmanager
def seams_on(agent: Any, *, frames: bool = True) -> Iterator[Seams]:
    phases = Phases(agent)
    seams = install(phases)
    phases.frames = frames
    try:
        yield seams
    finally:
        seams.uninstall()


def run_script(text: str, folder: Path, name: str = "train.py") -> dict[str, Any]:
    """Run a script as Python does, and return its variables."""
    path = folder / name
    path.write_text(textwrap.dedent(text))
    linecache.checkcache(str(path))
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    before = sys.modules["__main__"]
    sys.modules["__main__"] = module
    sys.path.insert(0, str(SCRIPTS))
    try:
        exec(compile(path.read_text(), str(path), "exec"), vars(module))
    finally:
        sys.modules["__main__"] = before
        sys.path.remove(str(SCRIPTS))
    return vars(module)


def fingerprint(variables: dict[str, Any]) -> str:
    """Return SHA-256 over all parameters, gradients, optimizer states and the random state that a script has left."""
    digest = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
    for name in sorted(variables):
        _add(digest, variables[name])
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(
            value.detach().contiguous().view(torch.uint8).numpy().tobytes()
            if value.dim()
            else repr(value.item()).encode()
        )
        if value.is_leaf and value.grad is not None:
            _add(digest, value.grad)
    elif isinstance(value, (torch.nn.Module, torch.optim.Optimizer)):
        _add(digest, value.state_dict())
        if isinstance(value, torch.nn.Module):
            _add(digest, [each.grad for each in value.parameters()])
    elif isinstance(value, dict):
        for key in value:
            digest.update(repr(key).encode())
            _add(digest, value[key])
    elif isinstance(value, (list, tuple)):
        for each in value:
            _add(digest, each)
    elif isinstance(value, (int, float, str)):
        digest.update(repr(value).encode())


def script_text(name: str) -> str:
    """Return one of the scripts in `scripts`."""
    return (SCRIPTS / f"{name}.py").read_text()


def recorded(text: str, folder: Path, *, frames: bool = True, **options: Any) -> tuple[RecordingAgent, dict[str, Any]]:
    """Run a script with seams, from seed 0; return the agent and the script's variables.

    `frames`: whether all that frames need is followed from the first event on.
    """
    agent = RecordingAgent(**options)
    torch.manual_seed(0)
    with seams_on(agent, frames=frames):
        variables = run_script(text, folder)
    assert not agent.reasons, agent.reasons
    return agent, variables


def ends_the_same(text: str, folder: Path) -> bool:
    """Return whether a script leaves the same bits with every frame taken, in a free run, and without seams."""
    prints = []
    for options in (None, {}, {"wants": lambda phases, name: False}):
        torch.manual_seed(0)
        if options is None:
            variables = run_script(text, folder)
            prints.append(fingerprint(variables))
            continue
        agent = RecordingAgent(**options)
        with seams_on(agent, frames=options == {}):
            variables = run_script(text, folder)
            prints.append(fingerprint(variables))
        assert not agent.reasons, agent.reasons
    return len(set(prints)) == 1
