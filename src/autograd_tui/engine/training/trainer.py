"""The trainer: runs one command on real PyTorch and gives back a frame."""

from __future__ import annotations

import gc
import math
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.errors import Refused, UserCodeError
from autograd_tui.core.frame import Frame
from autograd_tui.core.phase_order import refusal
from autograd_tui.core.tensor_stats import SAMPLE_SIZE, Inspection, StatsTable
from autograd_tui.core.trace import Trace
from autograd_tui.engine.training.checkpoint import (
    Checkpoint,
    restore_checkpoint,
    take_checkpoint,
)
from autograd_tui.engine.training.frame_reader import Changes, FrameReader, find_strays
from autograd_tui.engine.training.inspection import inspect
from autograd_tui.engine.training.interruption import Interrupt, interruptible
from autograd_tui.engine.training.loop import PhaseWatch, Tracer, TrainingLoop
from autograd_tui.engine.training.optimizers import import_compiler
from autograd_tui.engine.training.phase_tests import ZeroShares
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.user_code import is_out_of_memory, is_user_error, let_go_of_tensors, torch_error

MAX_WAY_POINTS, FIRST_WAY_POINTS = 64, 16  # of iterations without frames, and of the first of them, which are all kept
WATCHED_FORWARDS = 3  # at the beginning: whether they move parameters themselves


@dataclass(frozen=True, slots=True)
class FreeRunResult:
    """The result of iterations that ran without frames, as many as `losses`."""

    losses: array[float]  # (iterations,)
    rates: tuple[tuple[int, float], ...]  # where the scheduler changed the learning rate: after how many, to what
    way: tuple[tuple[int, float, float], ...]  # of two parameter values: after how many iterations, and the values
    raised: BaseException | None  # by the iteration that came next; Interrupt where that was to end


class _Way:
    """Notes where two parameter values stand, every so many iterations; nothing for a model that has others."""

    def __init__(self, params: Iterable[Tensor]) -> None:
        self._params = list(params)
        ordinary = all(type(each) is nn.Parameter and each.layout is torch.strided for each in self._params)
        self._follows = ordinary and sum(each.numel() for each in self._params) == 2
        self._are_numbers = all(each.numel() == 1 and each.is_cpu for each in self._params)  # read at the least cost
        self._points: list[tuple[int, Any]] = []  # after how many iterations, and both values, on their device
        self._stride = 1
        self.next_turn = 1 if self._follows else 0  # after how many iterations `note` is to be called; 0: never

    def note(self, done: int) -> None:
        """Note the values after so many iterations, when it is their turn."""
        self._points.append((done, self._now()))
        if len(self._points) > MAX_WAY_POINTS:  # every second goes
            self._stride *= 2
            self._points = [point for point in self._points if self._has_turn(point[0])]
        self.next_turn = done + 1 if done < FIRST_WAY_POINTS else (done // self._stride + 1) * self._stride

    def _now(self) -> Any:
        if self._are_numbers:
            return [each.item() for each in self._params]
        return torch.cat([each.detach().reshape(-1) for each in self._params])

    def _has_turn(self, done: int) -> bool:
        return done <= FIRST_WAY_POINTS or done % self._stride == 0

    def points(self, done: int, *, ended: bool = True) -> tuple[tuple[int, float, float], ...]:
        """Return those of so many iterations, with one copy to the host; () if a parameter was resized.

        `ended`: whether the last one is where the parameters stand now, which is then among them.
        """
        self._points = [point for point in self._points if point[0] <= done]
        if ended and self._follows and self._points and self._points[-1][0] != done:
            self._points.append((done, self._now()))
        values = [each for _, each in self._points]
        if not self._are_numbers:
            if not values or any(each.numel() != 2 for each in values):
                return ()
            values = torch.stack(values).tolist()
        if any(isinstance(x, complex) or isinstance(y, complex) for x, y in values):
            return ()
        return tuple((done, x, y) for (done, _), (x, y) in zip(self._points, values, strict=True))


@contextmanager
def _paused_collector() -> Iterator[None]:
    """Keep the garbage collector from running: what recording makes by the thousand is not garbage yet."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Trainer:
    """Turns commands into frames, one at a time; `frame` is the newest."""

    def __init__(
        self,
        build: Callable[[], TrainingState],
        trace: Callable[[TrainingLoop], Tracer],
        *,
        sampled_range: bool = True,
    ) -> None:
        """Build the state; `build` is called again to return to frame 0, and `trace` makes the tracer of a loop.

        `sampled_range`: whether minima and maxima of large tensors are estimated, as `TensorGroup` has it.
        """
        self._build, self._trace, self._sampled_range = build, trace, sampled_range
        self._forward_moves = False  # whether a forward has moved parameters itself
        self._forwards_watched = 0
        self.watched_modules: tuple[str, ...] = ()  # whose share of zeros is measured: names, or patterns
        self.diverged = False  # whether a frame that was computed again differed from the first time
        self.builds = 0  # how often all was built: an older model's checkpoints are of no use to a newer one
        self._has_begun_copies = False  # on an accelerator, for a checkpoint or from one
        self._begin()

    def _begin(self) -> None:
        self.builds += 1
        self.state = self._build()
        self._loop = TrainingLoop(self.state)
        self.tracer = self._trace(self._loop)
        self.trace: Trace | None = None  # of the phase that was recorded last
        self._reader = FrameReader(self.state, sampled_range=self._sampled_range)
        with self.state.global_state:
            self.frame = self._reader.first_frame()

    def rebuild(self) -> None:
        """Return to frame 0 by building everything anew; the old model is freed first, so that there is only one."""
        old = weakref.ref(self.state.model)
        del self.state, self._loop, self.tracer, self._reader
        if old() is not None:
            gc.collect()  # a model of the user's may refer to itself
        if old() is not None and gc.get_freeze_count():
            gc.unfreeze()  # a program around us has frozen it, and much else that stays
            gc.collect()
            gc.freeze()
        try:
            self._begin()
        except Refused as error:
            raise RuntimeError(f"the scenario could be built once, but not again: {error}") from error

    @property
    def unrepeatable_reason(self) -> str | None:
        """Why a forward that runs again may give other numbers; None where it should not."""
        if self.diverged:
            return "run again, it gave other numbers than the first time"
        unrestorable = self.state.unrestorable or self.state.python_state().unrestorable
        return f"it uses {unrestorable[0]}, which cannot be put back" if unrestorable else None

    def run(self, command: Command, *, recorded: bool = False) -> Frame:
        """Run one command and return its frame; what PyTorch raises is in the frame's `error`.

        A phase may be `recorded`: `trace` then holds its operations. Raises Refused, with no frame and nothing
        changed, where the command is out of turn or impossible. Raises Interrupt, with no frame, where `interrupt` has
        ended it: a backward may then have lost its graph, and a step be half done.
        """
        reason = refusal(self.frame, command)
        if reason:
            raise Refused(reason)
        recorded = command.phase is not None and (recorded or self._can_be_recorded_only_now(command.phase))
        loop = self.tracer if recorded else self._loop
        if recorded or command.phase in (Phase.STEP, Phase.ZERO_GRAD):  # or it would be part of what is measured
            import_compiler()
        changes: Changes
        with _paused_collector() if recorded else nullcontext(), self.state.global_state:
            if recorded:
                note = self._missing_forward_note() if command.phase is Phase.BACKWARD else None
                self.tracer.begin(self.frame, note=note)
            if self._has_begun_copies and self.state.accelerator:
                self.state.accelerator.synchronize()  # they are no part of the phase's time
            self._has_begun_copies = False
            self._started, self._seconds = perf_counter(), 0.0
            try:
                match command.phase:
                    case Phase.FORWARD:
                        activations = ZeroShares(self.state.model, self.watched_modules)
                        activations.attach()
                        try:
                            loop.forward()
                        finally:
                            activations.detach()
                        if not recorded:
                            self.tracer.forget()
                        shares = tuple((name, zeros.item() / size) for name, zeros, size in activations.take())
                        changes = {**self._forward_changes(command), "zero_shares": shares}
                    case Phase.BACKWARD:
                        loop.backward()
                        changes = self._backward_changes(self.tracer.launched_grads() if recorded else {})
                    case Phase.STEP:
                        moves, state = self._reader.watch_params(), self._reader.small_optimizer_state()
                        changes = self._step_changes(command, moves, touched=loop.step()) | {"state_before": state}
                    case Phase.ZERO_GRAD:
                        loop.zero_grad()
                        changes = self._zero_grad_changes()
                    case None:
                        changes = self._set(command)
                changes = {"error": None} | changes
            except UserCodeError as raised:
                self._clock()
                error = torch_error(raised.error)
                changes = {"error": error, "graph": self.state.graph}
                if error.is_out_of_memory:
                    let_go_of_tensors(raised)
            except Interrupt:
                self.tracer.abandon()
                raise
        index, memory = self.frame.index + 1, self._memory()
        seconds = 0.0 if recorded else self._seconds  # recording takes a time of its own
        self.frame = replace(self.frame, index=index, command=command, seconds=seconds, memory=memory, **changes)
        self.trace = self._take_trace() if recorded else None
        if self.frame.error is not None and self.frame.error.is_out_of_memory:
            self.release_memory()
        return self.frame

    def _take_trace(self) -> Trace | None:
        """Return what was recorded; None where there is no memory left to measure it."""
        try:
            with _paused_collector():
                trace = self.tracer.take(self.frame)
                if trace is not None and self.frame.error is not None and self.frame.error.is_out_of_memory:
                    tuple(trace.ops)  # whose numbers do not wait: the copies that they are computed from take memory
            return trace
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            let_go_of_tensors(error)
        self.tracer.forget()
        self.release_memory()
        return None

    def _can_be_recorded_only_now(self, phase: Phase) -> bool:
        """Return whether a phase is a forward that may not repeat, where recording changes nothing in how it runs."""
        may_differ = self.diverged or bool(self.state.unrestorable)
        return phase is Phase.FORWARD and may_differ and self.tracer.leaves_no_trace

    @property
    def may_forward_move(self) -> bool:
        """Whether a forward may move parameters itself: one has, or too few were watched to say."""
        return self._forward_moves or self.frame.steps < WATCHED_FORWARDS or self._forwards_watched < WATCHED_FORWARDS

    def iterate(self, goes_on: Callable[[int, float | Tensor], int], watch: PhaseWatch | None = None) -> FreeRunResult:
        """Run whole iterations at the loop's own speed, with no frames, while `goes_on` says so: at least one.

        `goes_on` gets how many are done, and the last one's loss, on an accelerator as a tensor; it returns how many
        more may run before it is asked again, 0 to end. `watch` looks at each phase. What the next iteration's frames
        show of an earlier one is not true: only its last frame is. Where an iteration raises, the state is of no use
        any more.
        """
        on_host = self.state.device.type == "cpu"  # where reading a loss waits for nothing
        values, losses = array("d"), list[Tensor]()  # the losses there, or on an accelerator the tensors
        rates: list[tuple[int, float]] = []
        import_compiler()
        raised = None
        way = _Way(self.state.params.values())
        self.tracer.forget()

        def run() -> None:
            done, asks_at, all_rates, decays = 0, 1, self._reader.learning_rates(), self.state.scheduler is not None
            value: Any  # a number, or on an accelerator a tensor
            for loss in self._loop.iterations(watch):
                if on_host:
                    value = loss.tolist() if type(loss) is Tensor else None  # does not go through the dispatcher
                    if type(value) is not float:  # of another class, or with dimensions
                        value = loss.item()
                    values.append(value)
                else:
                    value = loss.detach()
                    losses.append(value)
                del loss  # or its graph would live on through the next iteration
                done += 1  # noqa: SIM113 - enumerate would hold the loss too
                if done == way.next_turn:
                    way.note(done)
                if decays and all_rates != (all_rates := self._reader.learning_rates()):
                    rates.append((done, all_rates[0]))
                if done == asks_at:
                    asks_at += goes_on(done, value)
                    if asks_at == done:
                        break
            self.state.check_parameters()
            self.state.check_buffers()
            self.state.check_optimizer()

        with self.state.global_state:
            try:
                interruptible(run)
            except BaseException as error:
                if not (isinstance(error, Interrupt) or is_user_error(error)):
                    raise
                raised = error
                let_go_of_tensors(error)
            else:
                self.frame = self._frame_after(len(values) or len(losses))
        is_interrupted = isinstance(raised, Interrupt)
        if is_interrupted:  # what was noted behind the last iteration may be less than all
            values, losses = values[:-1], losses[:-1]
        done = len(values) or len(losses)
        return FreeRunResult(
            values or _as_doubles(losses),
            tuple(each for each in rates if each[0] <= done),
            way.points(done, ended=raised is None),
            raised,
        )

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

    def checkpoint(self, recycled: Checkpoint | None = None, *, on_device: bool = False) -> Checkpoint:
        """Return a checkpoint of the state just before a forward; a `recycled` one gives its memory and is spoiled.

        `on_device`: on the accelerator, where that has room for it; otherwise on the host.
        """
        with self.state.global_state:
            self._has_begun_copies = True
            return take_checkpoint(self.state, self.frame, recycled, on_device=on_device)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Return to a checkpoint, which has no graph: a forward must come next."""
        with self.state.global_state:
            self._has_begun_copies = True
            restore_checkpoint(self.state, checkpoint)
            self._reader.reset()
        self.frame = checkpoint.frame
        self.tracer.forget()

    @contextmanager
    def borrow_state(self) -> Iterator[TrainingState]:
        """Yield the state, to be read, copied and run forward; what a forward may change is restored afterwards."""
        with self.state.global_state, torch.enable_grad():
            self.state.global_state.exact_snapshot()
            before = self.state.snapshot()
            try:
                yield self.state
            finally:
                before.restore()

    def inspect(self, name: str) -> Inspection:
        """Return exact statistics of a parameter as it is now; raises Refused where there is none of that name."""
        param = self.state.param(name)
        with self.state.global_state:
            return inspect(name, param, state=self.state.optimizer.state.get(param, {}), index=self.frame.index)

    # What a phase has changed of the frame before it.

    def _forward_changes(self, command: Command) -> Changes:
        self._clock()
        frame = self.frame
        rises = frame.iteration == 0 or frame.steps > frame.loss_steps
        moved = self._moved_by_forward(command)
        with torch._C.DisableTorchFunctionSubclass():  # of classes of tensors that may do anything
            read = self._reader.forward(frame)
        return read | {
            "graph": self.state.graph,
            "iteration": frame.iteration + rises,
            "loss_steps": frame.steps,
            "loss_params": moved.get("params", frame.params),
            "moved": False,
            **moved,
        }

    def _moved_by_forward(self, command: Command) -> Changes:
        """Return the changes where a forward itself has moved parameters, as one does that averages a teacher's.

        Only the first forwards are watched, and all of a loop in which one of them did: reading costs time.
        """
        frame = self.frame
        if not self.may_forward_move:
            return {}
        self._forwards_watched += 1
        moves = self._reader.watch_params()
        read = self._reader.params(frame, optimizer_state=False)
        if read["params"] is frame.params:
            return {}
        self._forward_moves = True
        return {**read, "before": frame.params, "mover": command, "moves": moves()}

    def _backward_changes(self, launched: Mapping[int, Sequence[Tensor]]) -> Changes:
        self._clock()
        before = self.frame.grads
        return {
            "graph": self.state.graph,
            "grads": self._reader.grads(launched),
            "grads_params": self._grads_params(),
            "added_to": before if any(before.backwards) else None,
            "strays": find_strays(self.state) if self.frame.strays is None else (),
            "unused": self._reader.unused(),
        }

    def _grads_params(self) -> StatsTable | None:
        """Return the parameters at which all gradients were computed; None where they are from different ones."""
        frame = self.frame
        differ = frame.grads.state != "none" and frame.grads_params != frame.loss_params
        return None if differ else frame.loss_params

    def _step_changes(self, command: Command, moves: Callable[[], array[float]], *, touched: bool) -> Changes:
        self._clock()
        frame = self.frame
        read = self._reader.params(frame, optimizer_state=True)
        distances = moves()
        # A sample may miss a move. Fused optimizers touch without a trace, and with a learning rate of 0 nothing moves.
        touched = touched and (
            any(distances) or any(math.prod(shape) > SAMPLE_SIZE for shape in frame.params.layout.shapes)
        )
        return {
            **read,
            **self._reader.rates(),
            "before": frame.params,
            "mover": command,
            "moves": distances,
            "moved": frame.moved or read["params"] is not frame.params or (touched and any(frame.learning_rates)),
            "step_rate": frame.learning_rate,
            "step_rates": frame.learning_rates,
            "steps": frame.steps + 1,
            "grads": replace(frame.grads, used=tuple(self.state.used)),
        }

    def _zero_grad_changes(self) -> Changes:
        self._clock()
        cleared = self.frame.grads
        return {"grads": self._reader.grads(), "unused": frozenset(), "last_grads": cleared, "state_before": None}

    def _missing_forward_note(self) -> str | None:
        """Return why a backward is shown without the forward that made its graph, if it was not recorded."""
        if reason := self.unrepeatable_reason:
            return f"The forward was not recorded and does not run again for it, since {reason}: its lines are missing."
        return None

    def _set(self, command: Command) -> Changes:
        """Carry out a setting; a command of any other kind sets a value of a parameter."""
        state, reader, value = self.state, self._reader, command.value
        match command.kind:
            case "lr":
                state.set_lr(value, command.group)  # type: ignore[arg-type]
                return reader.rates()
            case "requires_grad":
                state.set_requires_grad(command.target, wanted=value is True)
                return {"frozen": reader.frozen(), "frozen_before": self.frame.frozen}
            case "optimizer":
                state.set_optimizer(value)  # type: ignore[arg-type]
                return reader.optimizer()
            case "seed":
                state.global_state.seed(value)  # type: ignore[arg-type]
                return {}
        moves = reader.watch_params()
        state.set_value(command.name, value)  # type: ignore[arg-type]
        read = reader.params(self.frame, optimizer_state=False)
        return {**read, "before": self.frame.params, "mover": command, "moves": moves(), "moved": True}

    def _clock(self) -> None:
        """Stop the phase's own time, before its numbers are read."""
        if self.state.accelerator:
            self.state.accelerator.synchronize()
        self._seconds = perf_counter() - max(self._started, self.state.code_started)

    def release_memory(self) -> None:
        """Give back what is left of something that ran out of memory, so that something smaller finds room."""
        gc.collect()  # what refers to itself, as a module's hook may
        if self.state.accelerator:
            self.state.accelerator.empty_cache()

    def _memory(self) -> int | None:
        """Return the bytes of all tensors on an accelerator; None where they are not counted, as on the CPU."""
        return self.state.accelerator.memory_allocated() if self.state.accelerator else None


def _as_doubles(losses: list[Tensor]) -> array[float]:
    """Return losses of one element each as doubles, with one copy to the host."""
    return array("d", torch.cat([loss.reshape(1) for loss in losses]).tolist() if losses else [])
