"""The trainer: runs one command on real PyTorch and gives back a frame."""

from __future__ import annotations

import gc
import math
import weakref
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from torch import Tensor

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.errors import Refused, UserCodeError
from autograd_tui.core.frame import Frame
from autograd_tui.core.optimizer_spec import GroupSpec
from autograd_tui.core.phase_order import refusal
from autograd_tui.core.tensor_stats import SAMPLE_SIZE, Inspection, StatsTable
from autograd_tui.core.trace import Trace
from autograd_tui.engine.training.checkpoint import (
    Checkpoint,
    can_take_checkpoint,
    checkpoint_size,
    restore_checkpoint,
    take_checkpoint,
)
from autograd_tui.engine.training.frame_reader import Changes, FrameReader
from autograd_tui.engine.training.inspection import inspect
from autograd_tui.engine.training.loop import Tracer, TrainingLoop
from autograd_tui.engine.training.param_groups import group_specs
from autograd_tui.engine.training.scenario import Parts
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.stray_leaves import find_strays
from autograd_tui.engine.training.user_code import is_user_error, torch_error

FORWARDS_WATCHED = 3  # whether they move parameters themselves


@dataclass(frozen=True, slots=True)
class FreeRunResult:
    """Iterations that ran without frames, as many as `losses`."""

    losses: array[float]  # (iterations,)
    rates: tuple[tuple[int, float], ...]  # where the scheduler changed the learning rate: after how many, to what
    raised: BaseException | None  # by the iteration that came next


class Trainer:
    """Turns commands into frames, one at a time; `frame` is the newest."""

    def __init__(self, build: Callable[[], TrainingState], trace: Callable[[TrainingLoop], Tracer]) -> None:
        """Build the state; `build` is called again to go back to frame 0, and `trace` makes the tracer of a loop."""
        self._build, self._trace = build, trace
        self._forward_moves = False  # whether a forward has moved parameters itself
        self._forwards_asked = 0
        self.differed = False  # whether a frame that was made again was not what it had been
        self.starts = 0  # how often all has been built: an older model's checkpoints are of no use to a newer one
        self._settings: dict[str, Callable[[Command], Changes]] = {
            "lr": self._set_lr,
            "optimizer": self._set_optimizer,
            "requires_grad": self._set_requires_grad,
            "seed": self._set_seed,
        }
        self._begin()

    def _begin(self) -> None:
        self.starts += 1
        self._state = self._build()
        self._loop = TrainingLoop(self._state)
        self._tracer = self._trace(self._loop)
        self.trace: Trace | None = None  # of the phase that was recorded last
        self._reader = FrameReader(self._state)
        with self._state.global_state:
            self.frame = self._reader.first_frame()

    @property
    def tied(self) -> dict[str, tuple[str, ...]]:
        """The other names of each parameter that has some."""
        return self._state.tied_names()

    def start_over(self) -> None:
        """Go back to frame 0 by building everything anew; the old model is let go first, so that only one is held."""
        old = weakref.ref(self._state.model)
        del self._state, self._loop, self._tracer, self._reader
        if old() is not None:
            gc.unfreeze()  # a program around us may have frozen it
            gc.collect()  # a model of the user's may refer to itself
        try:
            self._begin()
        except Refused as error:
            raise RuntimeError(f"the scenario could be built once, but not again: {error}") from error

    @property
    def knows_forward(self) -> bool:
        """Whether the forward that made the loss was recorded."""
        return self._tracer.knows_forward

    @property
    def doubt(self) -> str | None:
        """Say why a forward that runs again may give other numbers; None where nothing speaks for it."""
        if self.differed:
            return "run again, it gave other numbers than the first time"
        unrestorable = self._state.unrestorable or self._state.python_state().unrestorable
        return f"it uses {unrestorable[0]}, which cannot be put back" if unrestorable else None

    def run(self, command: Command, *, recorded: bool = False) -> Frame:
        """Run one command; what PyTorch raises is in the frame's `error`.

        A phase may be `recorded`: `trace` then tells its operations. Raises Refused, with no frame and nothing
        changed, where the command is out of turn or impossible.
        """
        reason = refusal(self.frame, command)
        if reason:
            raise Refused(reason)
        recorded = command.phase is not None and (recorded or self._can_be_recorded_only_now(command.phase))
        loop = self._tracer if recorded else self._loop
        changes: Changes
        with self._state.global_state:
            if recorded:
                note = self._missing_forward_note() if command.phase is Phase.BACKWARD else None
                self._tracer.begin(self.frame, note=note)
            self._started, self._seconds = perf_counter(), 0.0
            try:
                match command.phase:
                    case Phase.FORWARD:
                        loop.forward()
                        if not recorded:
                            self._tracer.forget()
                        changes = self._forward_changes(command)
                    case Phase.BACKWARD:
                        loop.backward()
                        changes = self._backward_changes()
                    case Phase.STEP:
                        moves = self._reader.watch_params()
                        changes = self._step_changes(command, moves, touched=loop.step())
                    case Phase.ZERO_GRAD:
                        loop.zero_grad()
                        changes = self._zero_grad_changes()
                    case None:
                        changes = self._settings.get(command.kind, self._set_value)(command)
                changes = {"error": None} | changes
            except UserCodeError as raised:
                self._clock()
                changes = {"error": torch_error(raised.error), "graph": self._state.graph}
        index, memory = self.frame.index + 1, self._memory()
        seconds = 0.0 if recorded else self._seconds  # recording takes a time of its own
        self.frame = replace(self.frame, index=index, command=command, seconds=seconds, memory=memory, **changes)
        self.trace = self._tracer.take(self.frame) if recorded else None
        return self.frame

    def _can_be_recorded_only_now(self, phase: Phase) -> bool:
        """Return whether a phase is a forward that may not repeat, where recording changes nothing in how it runs."""
        may_differ = self.differed or bool(self._state.unrestorable)
        return phase is Phase.FORWARD and may_differ and self._tracer.leaves_no_trace

    def iterate(self, goes_on: Callable[[int, Tensor], bool]) -> FreeRunResult:
        """Run whole iterations at the loop's own speed, with no frames, while `goes_on` says so: at least one.

        `goes_on` gets how many are done, and the last one's loss. What the next iteration's frames show of an earlier
        one is not true: only its last frame is. Where an iteration raises, the state is of no use any more.
        """
        losses: list[Tensor] = []
        rates: list[tuple[int, float]] = []
        raised, all_rates = None, self._reader.learning_rates()
        self._tracer.forget()
        with self._state.global_state:
            try:
                for loss in self._loop.iterations():
                    losses.append(loss)
                    if self._state.scheduler is not None and all_rates != (all_rates := self._reader.learning_rates()):
                        rates.append((len(losses), all_rates[0]))
                    if not goes_on(len(losses), loss):
                        break
                self._state.check_parameters()
                self._state.check_buffers()
                self._state.check_optimizer()
            except BaseException as error:
                if not is_user_error(error):
                    raise
                raised = error
            else:
                self.frame = self._frame_after(len(losses))
        return FreeRunResult(_as_doubles(losses), tuple(rates), raised)

    def _frame_after(self, iterations: int) -> Frame:
        """Return the frame after so many iterations, with all that the frames of the next iteration build upon."""
        frame = self.frame
        rises = frame.iteration == 0 or frame.steps > frame.loss_steps
        return replace(
            frame,
            index=frame.index + iterations * len(Phase),
            command=Command(Phase.ZERO_GRAD.value),
            iteration=frame.iteration + iterations - 1 + rises,
            steps=frame.steps + iterations,
            loss_steps=frame.steps + iterations - 1,
            graph="freed",
            seconds=0.0,
            memory=self._memory(),
            **self._reader.after_many(),
        )

    def checkpoint(self, recycled: Checkpoint | None = None) -> Checkpoint:
        """Copy the state just before a forward; the memory of a `recycled` one is used again, and that one spoiled."""
        with self._state.global_state:
            return take_checkpoint(self._state, self.frame, recycled)

    def trace_of_raised_step(self) -> Trace:
        """Give the trace of the step that led to the frame, and raised, without running it."""
        return self._tracer.raised_step(self.frame)

    def can_be_kept(self) -> bool:
        """Tell whether a checkpoint is enough to go on from here: not where the model holds on to an old graph."""
        return can_take_checkpoint(self._state)

    @property
    def parts(self) -> Parts:
        return self._state.parts

    def groups(self, optimizer: str) -> tuple[GroupSpec, ...]:
        """Give the parameter groups as an optimizer of this name, such as "sgd", has them."""
        return group_specs(self._state.groups, optimizer, self._state.params)

    def checkpoint_bytes(self) -> int:
        """Count the bytes that a checkpoint would take now."""
        return checkpoint_size(self._state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint; the graph of that time is gone, so a forward comes next."""
        with self._state.global_state:
            restore_checkpoint(self._state, checkpoint)
            self._reader.begin_anew()
        self.frame = checkpoint.frame
        self._tracer.forget()

    @contextmanager
    def borrow_state(self) -> Iterator[TrainingState]:
        """Yield the state, to be looked at and copied; what a forward may change is put back, whatever happens."""
        with self._state.global_state, torch.enable_grad():
            self._state.global_state.exact_snapshot()
            before = self._state.snapshot()
            try:
                yield self._state
            finally:
                before.restore()

    def inspect(self, name: str) -> Inspection:
        """Give exact numbers of one parameter as it is now; nothing is changed.

        Raises Refused where the model has no parameter of that name.
        """
        param = self._state.param(name)
        with self._state.global_state:
            return inspect(name, param, state=self._state.optimizer.state.get(param, {}), index=self.frame.index)

    # What a phase has changed of the frame before it.

    def _forward_changes(self, command: Command) -> Changes:
        self._clock()
        frame = self.frame
        rises = frame.iteration == 0 or frame.steps > frame.loss_steps
        moved = self._moved_by_forward(command)
        with torch._C.DisableTorchFunctionSubclass():  # of classes of tensors that may do anything
            read = self._reader.forward(frame)
        return read | {
            "graph": self._state.graph,
            "iteration": frame.iteration + rises,
            "loss_steps": frame.steps,
            "loss_params": moved.get("params", frame.params),
            "moved": False,
            **moved,
        }

    def _moved_by_forward(self, command: Command) -> Changes:
        """Read the parameters that a forward itself has moved, as one does that averages a teacher's.

        Only the first forwards are asked, and all of a loop in which one of them did: a reading costs time.
        """
        frame = self.frame
        if not self._forward_moves and frame.steps >= FORWARDS_WATCHED and self._forwards_asked >= FORWARDS_WATCHED:
            return {}
        self._forwards_asked += 1
        moves = self._reader.watch_params()
        read = self._reader.params(frame, optimizer_state=False)
        if read["params"] is frame.params:
            return {}
        self._forward_moves = True
        return {**read, "before": frame.params, "mover": command, "moves": moves()}

    def _backward_changes(self) -> Changes:
        self._clock()
        before = self.frame.grads
        return {
            "graph": self._state.graph,
            "grads": self._reader.grads(),
            "grads_params": self._made_with(),
            "added_to": before if any(before.backwards) else None,
            "strays": find_strays(self._state) if self.frame.strays is None else (),
            "unused": self._reader.unused(),
        }

    def _made_with(self) -> StatsTable | None:
        """Find the parameters that this backward's gradients belong to, and so do those that it added to, if any."""
        frame = self.frame
        added = frame.grads.state != "none" and frame.grads_params != frame.loss_params
        return None if added else frame.loss_params

    def _step_changes(self, command: Command, moves: Callable[[], array[float]], *, touched: bool) -> Changes:
        self._clock()
        frame = self.frame
        read = self._reader.params(frame, optimizer_state=True)
        ways = moves()
        # A sample may miss it. Fused ones touch without a trace, and with a learning rate of 0 nothing moves.
        touched = touched and (any(ways) or any(math.prod(shape) > SAMPLE_SIZE for shape in frame.params.layout.shapes))
        return {
            **read,
            **self._reader.rates(),
            "before": frame.params,
            "mover": command,
            "moves": ways,
            "moved": frame.moved or read["params"] is not frame.params or (touched and any(frame.learning_rates)),
            "step_rate": frame.learning_rate,
            "step_rates": frame.learning_rates,
            "steps": frame.steps + 1,
            "grads": replace(frame.grads, used=tuple(self._state.used)),
        }

    def _zero_grad_changes(self) -> Changes:
        self._clock()
        cleared = self.frame.grads
        return {"grads": self._reader.grads(), "unused": frozenset(), "last_grads": cleared}

    def _missing_forward_note(self) -> str | None:
        """Return why a backward is shown without the forward that made its graph, if it was not recorded."""
        doubt = self.doubt
        return (
            doubt
            and f"The forward was not recorded and does not run again for it, since {doubt}: its lines are missing."
        )

    # The settings.

    def _set_lr(self, command: Command) -> Changes:
        self._state.set_lr(command.value, command.group)  # type: ignore[arg-type]
        return self._reader.rates()

    def _set_requires_grad(self, command: Command) -> Changes:
        self._state.set_requires_grad(command.target, wanted=command.value is True)
        return {"frozen": self._reader.frozen(), "frozen_before": self.frame.frozen}

    def _set_optimizer(self, command: Command) -> Changes:
        self._state.set_optimizer(command.value)  # type: ignore[arg-type]
        return self._reader.optimizer()

    def _set_seed(self, command: Command) -> Changes:
        self._state.global_state.seed(command.value)  # type: ignore[arg-type]
        return {}

    def _set_value(self, command: Command) -> Changes:
        frame = self.frame
        moves = self._reader.watch_params()
        self._state.set_value(command.name, command.value)  # type: ignore[arg-type]
        read = self._reader.params(frame, optimizer_state=False)
        return {**read, "before": frame.params, "mover": command, "moves": moves(), "moved": True}

    def _clock(self) -> None:
        """Stop the phase's own time, before the numbers about it are worked out."""
        if self._state.device.type != "cpu":
            torch.accelerator.synchronize()
        self._seconds = perf_counter() - self._started

    def _memory(self) -> int | None:
        """Count the bytes that tensors hold on an accelerator; None where nobody counts them, as on the CPU."""
        if self._state.device.type == "cpu":
            return None
        try:
            return torch.accelerator.memory_allocated()
        except RuntimeError:  # on MPS, before PyTorch could tell
            return None


def _as_doubles(losses: list[Tensor]) -> array[float]:
    """Bring losses of one element each to the host, all at once."""
    return array("d", torch.cat([loss.reshape(1) for loss in losses]).tolist() if losses else [])
