"""A minimal reproducible iteration: its state just before the forward, in plain values that a script can load."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.command import Phase
from autograd_tui.core.command_log import RanCommand
from autograd_tui.core.errors import Refused
from autograd_tui.core.replay_check import ReplayChecker
from autograd_tui.core.run_observer import Interrupted
from autograd_tui.core.session_protocol import SessionInfo
from autograd_tui.core.watchpoint import FiredWatchpoint
from autograd_tui.engine.replay.replayer import Replayer
from autograd_tui.engine.training.checkpoint import Checkpoint
from autograd_tui.engine.training.global_state import GlobalSnapshot, HostRng
from autograd_tui.engine.training.interruption import Interrupt, interruptible
from autograd_tui.engine.training.optimizers import optimizer_classes
from autograd_tui.engine.training.python_state import to_plain_data
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.tensor_properties import MAX_MEASURED_VALUES
from autograd_tui.engine.training.trainer import Trainer
from autograd_tui.engine.training.user_code import ForkGuard, in_words, is_user_error, place_of

MAX_NESTING = 100  # lists and dicts within each other, in a batch
Repro = dict[str, Any]  # what torch.load reads with weights_only=True


def latest_repro(
    trainer: Trainer, replayer: Replayer, checker: ReplayChecker, *, about: SessionInfo, fired: FiredWatchpoint | None
) -> Repro:
    """Return the iteration up to where training stands, with the state before it; training stays where it is.

    checker: compares what is recomputed on the way. fired: the last watchpoint that did. Raises Refused where there
    has been no forward.
    """
    here = trainer.frame
    forward = replayer.latest_forward(here.index)
    if not forward:
        raise Refused("there is no iteration to write yet: run forward first.")
    checkpoint = replayer.state_at(forward - 1, checker)
    commands = list(replayer.log.with_errors(forward - 1, here.index))
    fault = fired.reason if fired is not None and forward <= fired.index <= here.index else ""
    with trainer.borrow_state() as state:
        repro = _repro_at(state, checkpoint, commands, about)
    return repro | {"iteration": here.iteration, "end": here.index, "fault": fault}


def _repro_at(
    state: TrainingState, checkpoint: Checkpoint, commands: Sequence[RanCommand], about: SessionInfo
) -> Repro:
    """Return commands with the state of a checkpoint before them; call it inside the loop's global_state.

    The tensors are copies on the host, the checkpoint's own where it lies there.
    """
    checkpoint = checkpoint.on_host()
    forwards = sum(command.phase is Phase.FORWARD for command, _ in commands)
    batches, begin = _batches(state, checkpoint, min(forwards, 2))  # one that raises does not count
    return {
        "scenario": about.config.scenario,
        "options": dict(about.config.own),
        "seed": about.seed,
        "device": about.device,
        "threads": about.config.threads,
        "versions": {name: str(version) for name, version in about.config.versions.items()},
        "frame": checkpoint.frame.index,
        "steps": [(str(command), raised) for command, raised in commands],
        "params": checkpoint.params,
        "buffers": checkpoint.buffers,
        "attributes": _attributes(state, checkpoint),
        "grads": checkpoint.grads,
        "requires_grad": dict(zip(checkpoint.params, checkpoint.requires_grad, strict=True)),
        "optimizer": _optimizer(state, checkpoint),
        "scheduler": checkpoint.scheduler,
        "rng": _random_states(begin),
        "forwards": checkpoint.forwards,
        "batches": batches,
        "generators": [_tensors(states) for _, (_, states) in begin.rewindables],
    }


def _attributes(state: TrainingState, checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """Return the plain attributes of modules that have changed since the start: modes, hidden states, counters.

    Raises Refused where one of them is nothing that a script could load.
    """
    names, attributes = {module: name for name, module in state.model.named_modules()}, dict[str, dict[str, Any]]()
    loaders = (getattr(each, "generators", ()) for each, _ in checkpoint.mark.rewindables)
    # Generators of loaders stand in the repro by themselves.
    loader_generators = {id(each) for generators in loaders for each in generators}
    for module, name, value in checkpoint.python.changes_since(state.initial_python):
        try:
            if module is None:
                if all(id(getattr(each, "value", None)) in loader_generators for each in value):
                    continue
                raise TypeError("none of a module's own")
            if module not in names:
                raise TypeError("of a module that is not in the model now")
            attributes.setdefault(names[module], {})[name] = to_plain_data(value)
        except TypeError as error:
            raise Refused(f"no repro can hold what the model remembers in {name}: it is {error}.") from None
    return attributes


def _optimizer(state: TrainingState, checkpoint: Checkpoint) -> dict[str, Any]:
    names = {id(param): name for name, param in state.params.items()}
    return {
        "class": optimizer_classes()[checkpoint.optimizer.name].__name__,
        "words": str(checkpoint.optimizer),
        "params": [[names[id(param)] for param in group["params"]] for group in state.groups],
        "groups": checkpoint.groups,
        "state": checkpoint.state,
    }


def _random_states(snapshot: GlobalSnapshot) -> dict[str, Any]:
    """Return the random states; Python's and NumPy's as plain numbers."""
    states, on_device, *_ = snapshot.torch
    host_rng: HostRng = snapshot.host_rng
    version, numbers, gauss = host_rng.python
    numpy = host_rng.numpy
    return {
        "torch": states,
        "device": on_device,
        "python": [version, list(numbers), gauss],
        "numpy": numpy
        and [
            numpy["bit_generator"],
            torch.from_numpy(numpy["state"]["key"].astype("int64")),
            numpy["state"]["pos"],
            numpy["has_gauss"],
            numpy["gauss"],
        ],
    }


def _batches(state: TrainingState, checkpoint: Checkpoint, count: int) -> tuple[list[Any] | None, GlobalSnapshot]:
    """Draw the batches of so many forwards, and return them with the random states just after the first one.

    A later batch that comes out of the loop's random numbers is None, for the script to draw; where batches are not
    plain there are none, and the states are those before them. Raises Refused where a script could not draw those.
    """
    global_state = state.global_state
    here = global_state.exact_snapshot()
    global_state.restore(checkpoint.mark)
    snapshots, batches = [global_state.exact_snapshot()], []
    for index in range(count):
        batches.append(_batch(state, checkpoint.forwards + index))
        snapshots.append(global_state.exact_snapshot())
    global_state.restore(here)
    moves = _loader_positions(snapshots[0]) != _loader_positions(snapshots[-1])
    if all(map(_is_plain, batches)):
        draws = [not (a.same(b) and a.host_rng.same(b.host_rng)) for a, b in pairwise(snapshots)]
        are_stored = [index == 0 or moves or not is_drawn for index, is_drawn in enumerate(draws)]
        stored = [_on_host(batch) if stores else None for batch, stores in zip(batches, are_stored, strict=True)]
        return stored, snapshots[1]
    if moves:
        raise Refused("the loader's batches are no plain tensors, which a repro could keep: it cannot be written.")
    return None, snapshots[0]


def _batch(state: TrainingState, number: int) -> Any:
    """Draw a batch; raises Refused where the scenario's own code raises."""
    try:
        with ForkGuard():
            return interruptible(lambda: state.parts.batch(number))
    except Interrupt as error:
        raise Interrupted(f"the batches of the repro were interrupted{place_of(error)}: nothing is written.") from error
    except BaseException as error:
        if not is_user_error(error):
            raise
        raise Refused(f"a repro holds its batches, and one cannot be had: {in_words(error)}.") from error


def _tensors(states: Sequence[Any]) -> list[Tensor] | None:
    """Return the states of a loader's generators, where they are PyTorch's, which a model may draw from too."""
    return list(states) if states and all(isinstance(state, Tensor) for state in states) else None


def _loader_positions(snapshot: GlobalSnapshot) -> list[Any]:
    return [(position.epoch, position.index) for _, (position, _) in snapshot.rewindables]


def _is_plain(value: Any, depth: int = MAX_NESTING) -> bool:
    """Return whether torch.load reads a value back without running any code; one that holds itself it does not."""
    if type(value) in (dict, list, tuple) and not depth:
        return False
    if type(value) is dict:
        return all(isinstance(key, (str, int)) and _is_plain(each, depth - 1) for key, each in value.items())
    if type(value) in (list, tuple):
        return all(_is_plain(each, depth - 1) for each in value)
    if type(value) is Tensor:
        return not value.is_meta and value.numel() < MAX_MEASURED_VALUES
    return value is None or type(value) in (bool, int, float, str)


def _on_host(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _on_host(each) for key, each in value.items()}
    return type(value)(map(_on_host, value)) if isinstance(value, (list, tuple)) else value
