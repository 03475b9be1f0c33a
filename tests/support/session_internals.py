"""The one place where tests reach inside a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from autograd_tui.core.command import Command
from autograd_tui.core.frame_store import FrameStore
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.replay.checkpoints import CheckpointStore
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.checkpoint import BARE_CHECKPOINT, Checkpoint
from autograd_tui.engine.training.scenario import Parts, Scenario
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.trainer import Trainer
from plain_loop import Build, Tensors, mse, named_tensors

MakeGroups = Callable[[nn.Module], Sequence[Any]]
PLENTY = 1 << 30  # bytes
FEW = 3 * BARE_CHECKPOINT  # for two checkpoints of a small model


def state_of(session: Session) -> TrainingState:
    """Give the live training state inside a session."""
    return session._trainer.state


def trainer_of(session: Session) -> Trainer:
    """Give the trainer inside a session."""
    return session._trainer


def checkpoints_of(session: Session) -> list[Checkpoint]:
    """Give the checkpoints that a session keeps of its branch."""
    return session._replayer.checkpoints._checkpoints


def tensors(session: Session) -> Tensors:
    """Give the tensors that the session trains now, the live ones."""
    state = state_of(session)
    return named_tensors(state.model, state.optimizer, state.loss, state.global_state._inside.torch[0])


def commands_between(session: Session, start: int, end: int) -> list[Command]:
    """Give the commands that led from one frame to another."""
    return list(session._replayer.log.between(start, end))


def as_scenario(build: Build, *, optimizer: str = "sgd,lr=0.01", groups: MakeGroups = lambda model: ()) -> Scenario:
    """Make a scenario of what the plain loop builds."""

    def parts(options: Any) -> Parts:
        model, batch = build(options.seed)
        return Parts(model=model, batch=batch, loss=mse, optimizer=optimizer, groups=groups(model))

    return Scenario(build.__name__, parts)


def open_with_many_checkpoints(
    scenario: str | Scenario, *, budget: int = PLENTY, max_count: int = PLENTY, frames: int = PLENTY, **options: Any
) -> Session:
    """Open a session with a checkpoint before every forward, `budget` bytes of them, and `frames` bytes of frames.

    There are never more than `max_count` checkpoints.
    """
    session = open_session(scenario, **options)
    trainer = session._trainer
    line = CheckpointStore(trainer, spacing=0, share=float("inf"), budget=budget, max_count=max_count)
    session = Session(trainer, about=session.about, checkpoints=line)
    session._timeline.frames = FrameStore(trainer.frame, budget=frames)
    return session
