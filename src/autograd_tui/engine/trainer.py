"""The trainer: runs one command on real PyTorch and gives back a frame."""

from __future__ import annotations

import gc
import weakref
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from autograd_tui.engine import checkpoint as checkpoints
from autograd_tui.engine.about import About
from autograd_tui.engine.case import Case, make_case
from autograd_tui.engine.checkpoint import Checkpoint
from autograd_tui.engine.command import Command, Phase
from autograd_tui.engine.errors import Raised, Refused
from autograd_tui.engine.exact import inspect
from autograd_tui.engine.frame import Frame, Groups
from autograd_tui.engine.groups import specs, spelled
from autograd_tui.engine.inside.recorder import PhaseRecorder
from autograd_tui.engine.inspection import Inspection
from autograd_tui.engine.loop import Loop, theirs
from autograd_tui.engine.optimizer_spec import GroupSpec
from autograd_tui.engine.proof import Held, Stopped, output_of, parameter_of, prove
from autograd_tui.engine.proof_result import Proof
from autograd_tui.engine.raised import torch_error
from autograd_tui.engine.recording import Step
from autograd_tui.engine.scenario import Parts
from autograd_tui.engine.stats import Group, StatsReader
from autograd_tui.engine.stats_table import MOST_VALUES, Grads, StatsTable
from autograd_tui.engine.trace import Trace
from autograd_tui.engine.turn import refusal

_TOP_NAMES = ("classes", "values", "targets")
Changes = dict[str, Any]  # the fields of the frame that a command changed; all others stay


@dataclass(frozen=True, slots=True)
class Stretch:
    """Iterations that ran without frames."""

    losses: array[float]  # one each
    rates: tuple[tuple[int, float], ...]  # where the scheduler changed the learning rate: after how many, to what
    raised: BaseException | None  # by the iteration that came next


class Trainer:
    """Turns commands into frames, one at a time; `frame` is the newest."""

    def __init__(self, start: Callable[[], Loop]) -> None:
        self._start = start
        self.starts = 0  # how often all has been built: an older model's checkpoints are of no use to a newer one
        self._runs: dict[str, Callable[[Command], Changes]] = {
            "forward": self._forward,
            "backward": self._backward,
            "step": self._step,
            "zero_grad": self._zero_grad,
            "lr": self._set_lr,
            "optimizer": self._set_optimizer,
            "requires_grad": self._set_requires_grad,
        }
        self._begin()

    def _begin(self) -> None:
        self.starts += 1
        self._loop = self._start()
        self._inside = PhaseRecorder(self._loop)
        self._recorded = False  # whether the phase that runs now is
        self.trace: Trace | None = None  # of the phase that was recorded last
        self._reader = StatsReader()
        self._batch_read: list[Any] = []  # the tensors of the last batch read, with their versions
        with self._loop.surroundings:
            self.frame = self._first_frame()

    @property
    def tied(self) -> dict[str, tuple[str, ...]]:
        """The other names of each parameter that has some."""
        return self._loop.tied()

    def start_over(self) -> None:
        """Go back to frame 0 by building everything anew; the old model is let go first, so that only one is held."""
        old = weakref.ref(self._loop.model)
        del self._loop, self._inside, self._reader, self._batch_read
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
        return self._inside.knows_forward

    def run(self, command: Command, *, recorded: bool = False) -> Frame:
        """Run one command; what PyTorch raises is in the frame's `error`.

        A phase may be `recorded`: `trace` then tells its operations. Raises Refused, with no frame and nothing
        changed, where the command is out of turn or impossible.
        """
        reason = refusal(self.frame, command)
        if reason:
            raise Refused(reason)
        run = self._runs.get(command.kind, self._set_value)
        self._recorded = recorded and command.phase is not None
        with self._loop.surroundings:
            self._started = perf_counter()
            self._seconds = 0.0
            try:
                changes: Changes = {"error": None} | run(command)
            except Raised as raised:
                self._clock()
                changes = {"error": torch_error(raised.error), "graph": self._loop.graph}
        index, memory = self.frame.index + 1, self._memory()
        self.frame = replace(self.frame, index=index, command=command, seconds=self._seconds, memory=memory, **changes)
        if self._recorded:
            self.trace = self._inside.take(self.frame)
        return self.frame

    def iterate(self, goes_on: Callable[[int, Tensor], bool]) -> Stretch:
        """Run whole iterations at the loop's own speed, with no frames, while `goes_on` says so: at least one.

        `goes_on` gets how many are done, and the last one's loss. What the next iteration's frames show of an earlier
        one is not true: only its last frame is. Where an iteration raises, the state is of no use any more.
        """
        losses: list[Tensor] = []
        rates: list[tuple[int, float]] = []
        raised, all_rates = None, self._learning_rates()
        self._inside.forget()
        with self._loop.surroundings:
            try:
                for loss in self._loop.iterations():
                    losses.append(loss)
                    if self._loop.scheduler is not None and all_rates != (all_rates := self._learning_rates()):
                        rates.append((len(losses), all_rates[0]))
                    if not goes_on(len(losses), loss):
                        break
            except BaseException as error:
                if not theirs(error):
                    raise
                raised = error
            else:
                self.frame = self._frame_after(len(losses))
        return Stretch(_as_doubles(losses), tuple(rates), raised)

    def _frame_after(self, iterations: int) -> Frame:
        """Make what a frame after so many iterations must hold for the next iteration to be built upon it."""
        frame = self.frame
        self._batch_read = []
        rises = frame.iteration == 0 or frame.steps > frame.loss_steps
        read = self._reader.read({"params": Group(self._loop.params), "buffers": Group(self._loop.buffers.now())})
        return replace(
            frame,
            index=frame.index + iterations * len(Phase),
            command=Command(Phase.ZERO_GRAD.value),
            params=read["params"],
            buffers=read["buffers"],
            grads=self._read_grads(),
            learning_rate=self._learning_rate(),
            groups=self._groups(),
            iteration=frame.iteration + iterations - 1 + rises,
            steps=frame.steps + iterations,
            loss_steps=frame.steps + iterations - 1,
            graph="freed",
        )

    def checkpoint(self, recycled: Checkpoint | None = None) -> Checkpoint:
        """Copy the state just before a forward; the memory of a `recycled` one is used again, and that one spoiled."""
        with self._loop.surroundings:
            return checkpoints.take(self._loop, self.frame, recycled)

    @property
    def parts(self) -> Parts:
        return self._loop.parts

    def groups(self, optimizer: str) -> tuple[GroupSpec, ...]:
        """Give the parameter groups as an optimizer of this name, such as "sgd", has them."""
        return specs(self._loop.groups, optimizer, self._loop.params)

    def checkpoint_bytes(self) -> int:
        """Count the bytes that a checkpoint would take now."""
        return checkpoints.size(self._loop)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint; the graph of that time is gone, so a forward comes next."""
        with self._loop.surroundings:
            checkpoints.put_back(self._loop, checkpoint)
            self._reader.read({"params": Group(self._loop.params)})  # what the next step's moves are counted from
        self.frame = checkpoint.frame
        self._batch_read = []
        self._inside.forget()

    def place_of(self, name: str) -> tuple[str, int]:
        """Give a parameter's first name, and its place; raises Refused where the model has none of that name."""
        self._loop.param(name)
        first = self._loop.names[name]
        return first, list(self._loop.params).index(first)

    def gradient(self, name: str) -> Tensor | None:
        """Copy what a parameter's `.grad` holds now."""
        grad = self._loop.params[name].grad
        return None if grad is None else grad.detach().clone()

    def prove_parameter(self, name: str, held: Held, *, index: int, line: bool, stopped: Stopped) -> Proof:
        """Prove a gradient held at frame `index`, from just before its forward; nothing of the loop is touched."""
        with self._loop.surroundings, self._untouched():
            return prove(name, held, parameter_of(self._loop, name, line=line), index=index, stopped=stopped)

    def prove_output(self, number: int, name: str, *, index: int, stopped: Stopped) -> Proof:
        """Prove the gradient of an operation's output, from just before its forward; nothing is touched."""
        with self._loop.surroundings, self._untouched():
            held, measured = output_of(self._loop, number, name)
            return prove(f"{name} {number + 1}", held, measured, index=index, stopped=stopped)

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """Put the random numbers back, whatever happens inside."""
        mark = self._loop.surroundings.mark_closely()
        try:
            with torch.enable_grad():
                yield
        finally:
            self._loop.surroundings.return_to(mark)

    def case(self, checkpoint: Checkpoint, steps: Sequence[Step], about: About) -> Case:
        """Tell what a script needs to repeat some steps from a checkpoint; training stays where it is."""
        with self._loop.surroundings:
            return make_case(self._loop, checkpoint, steps, about)

    def inspect(self, name: str) -> Inspection:
        """Give exact numbers of one parameter as it is now; nothing is changed.

        Raises Refused where the model has no parameter of that name.
        """
        param = self._loop.param(name)
        with self._loop.surroundings:
            return inspect(name, param, state=self._loop.optimizer.state.get(param, {}), index=self.frame.index)

    # The phases: the line of the training loop, then the numbers that it changed.

    def _forward(self, _: Command) -> Changes:
        loop, frame = self._loop, self.frame
        if self._recorded:
            self._inside.forward(frame)
        else:
            loop.forward()
            self._inside.forget()
        self._clock()
        read = self._read_forward()
        rises = frame.iteration == 0 or frame.steps > frame.loss_steps
        return read | {
            "graph": loop.graph,
            "iteration": frame.iteration + rises,
            "loss_steps": frame.steps,
            "loss_params": frame.params,
            "moved": False,
        }

    def _backward(self, _: Command) -> Changes:
        loop = self._loop
        if self._recorded:
            self._inside.backward(self.frame)
        else:
            loop.backward()
        self._clock()
        return {"graph": loop.graph, "grads": self._read_grads(), "unused": self._unused()}

    def _step(self, command: Command) -> Changes:
        loop, frame = self._loop, self.frame
        group = Group(loop.params)
        moves = self._reader.watch("params", group)
        touched = self._inside.parameters(Phase.STEP, loop.step, frame) if self._recorded else loop.step()
        self._clock()
        read = self._reader.read({"params": group, "optimizer_state": self._optimizer_state()})
        params = _shared(read["params"], frame.params)
        return {
            "params": params,
            "before": frame.params,
            "mover": command,
            "moves": moves(),
            "moved": frame.moved or touched or params is not frame.params,  # fused ones touch without a trace
            "optimizer_state": read["optimizer_state"],
            "learning_rate": self._learning_rate(),
            "step_rate": frame.learning_rate,
            "step_rates": frame.learning_rates,
            "groups": self._groups(),
            "steps": frame.steps + 1,
            "grads": replace(frame.grads, used=tuple(loop.used)),
        }

    def _zero_grad(self, _: Command) -> Changes:
        if self._recorded:
            self._inside.parameters(Phase.ZERO_GRAD, self._loop.zero_grad, self.frame)
        else:
            self._loop.zero_grad()
        self._clock()
        cleared = self.frame.grads
        changes: Changes = {"grads": self._read_grads(), "unused": frozenset()}
        return changes | ({"last_grads": cleared} if cleared.state != "none" else {})

    # The settings.

    def _set_lr(self, command: Command) -> Changes:
        self._loop.set_lr(command.value, command.group)  # type: ignore[arg-type]
        return {"learning_rate": self._learning_rate(), "groups": self._groups()}

    def _set_requires_grad(self, command: Command) -> Changes:
        self._loop.set_requires_grad(command.target, wanted=command.value is True)
        return {"frozen": self._frozen()}

    def _set_optimizer(self, command: Command) -> Changes:
        self._loop.set_optimizer(command.value)  # type: ignore[arg-type]
        read = self._reader.read({"optimizer_state": self._optimizer_state()})
        changes = {"optimizer": self._optimizer_name(), "learning_rate": self._learning_rate()}
        return read | changes | {"groups": self._groups()}

    def _set_value(self, command: Command) -> Changes:
        loop, frame = self._loop, self.frame
        loop.set_value(command.name, command.value)  # type: ignore[arg-type]
        group = Group(loop.params)
        moves = self._reader.watch("params", group)
        params = _shared(self._reader.read({"params": group})["params"], frame.params)
        return {"params": params, "before": frame.params, "mover": command, "moves": moves(), "moved": True}

    # The numbers.

    def _first_frame(self) -> Frame:
        loop = self._loop
        groups = {"params": Group(loop.params), "buffers": Group(loop.buffers.now())}
        read: Changes = {**self._reader.read(groups | {"optimizer_state": self._optimizer_state()})}
        return Frame(
            index=0,
            grads=self._read_grads(),
            optimizer=self._optimizer_name(),
            learning_rate=self._learning_rate(),
            groups=self._groups(),
            frozen=self._frozen(),
            **read,
        )

    def _read_forward(self) -> Changes:
        """Read loss, prediction, metrics and buffers; a batch that was just read is not read again."""
        loop = self._loop
        seen: dict[str, Any] = {"loss": loop.loss, "prediction": loop.prediction}
        top = _largest(loop.prediction, loop.batch[1] if loop.parts.loss else None)
        batch = dict(zip(("inputs", "targets"), loop.batch, strict=True)) if loop.parts.loss else {}
        version = [(each, each._version) for each in batch.values() if isinstance(each, Tensor)]
        fresh = len(version) != len(self._batch_read) or any(
            new is not old or now != then for (new, now), (old, then) in zip(version, self._batch_read, strict=True)
        )
        self._batch_read = version
        if fresh:
            seen |= batch
        groups = {
            "seen": Group({name: value for name, value in seen.items() if isinstance(value, Tensor)}),
            "top": Group(top),
            "metrics": Group(dict(loop.metrics)),
            "buffers": Group(loop.buffers.now()),
        }
        read = self._reader.read(groups)
        row = read["seen"].named
        loss = row("loss")
        changes = {
            "loss": loss.values[0] if loss and loss.size == 1 and loss.values else None,
            "prediction": row("prediction"),
            "top": _as_top(read["top"]),
            "metrics": tuple((each.name, each.mean) for each in read["metrics"] if each.mean is not None),
            "buffers": _shared(read["buffers"], self.frame.buffers),
            "buffers_before": self.frame.buffers,
        }
        return changes | ({"inputs": row("inputs"), "targets": row("targets")} if fresh else {})

    def _read_grads(self) -> Grads:
        loop = self._loop
        held = {name: param.grad for name, param in loop.params.items() if param.grad is not None}
        table = self._reader.read({"grads": Group(held)})["grads"]
        outside = frozenset(place for place, group in enumerate(loop.group_of) if group is None)
        return Grads(table, tuple(loop.backwards), tuple(loop.used), outside)

    def _frozen(self) -> frozenset[int]:
        params = self._loop.params.values()
        return frozenset(place for place, param in enumerate(params) if not param.requires_grad)

    def _unused(self) -> frozenset[int]:
        """Find what a backward has not reached, though nothing froze it."""
        loop = self._loop
        empty = {place for place, param in enumerate(loop.params.values()) if param.grad is None}
        return frozenset(empty - self._frozen() - loop.frozen_in_graph)

    def _groups(self) -> Groups | None:
        loop = self._loop
        groups = loop.optimizer.param_groups
        if len(groups) == 1 and None not in loop.group_of:
            return None
        spellings = tuple(spelled(loop.spec, group) for group in loop.groups)
        return Groups(loop.group_of, self._learning_rates(), spellings)

    def _optimizer_state(self) -> Group:
        """Name the optimizer's state as rows: "w.momentum_buffer"."""
        state = self._loop.optimizer.state
        rows = {
            f"{name}.{key}": torch.as_tensor(value)
            for name, param in self._loop.params.items()
            for key, value in state.get(param, {}).items()
            if value is not None
        }
        return Group(rows, exact=False)

    def _learning_rate(self) -> float:
        return self._learning_rates()[0]

    def _learning_rates(self) -> tuple[float, ...]:
        return tuple(float(group["lr"]) for group in self._loop.optimizer.param_groups)

    def _optimizer_name(self) -> str:
        return str(replace(self._loop.spec, lr=None))

    def _clock(self) -> None:
        """Stop the phase's own time, before the numbers about it are worked out."""
        if self._loop.device.type != "cpu":
            torch.accelerator.synchronize()
        self._seconds = perf_counter() - self._started

    def _memory(self) -> int | None:
        return None if self._loop.device.type == "cpu" else torch.accelerator.memory_allocated()


def _shared(new: StatsTable, old: StatsTable) -> StatsTable:
    """Give the old table where nothing has changed."""
    return old if new == old else new


def _largest(prediction: Any, targets: Any) -> dict[str, Tensor]:
    """Pick the first sample's five largest of many outputs, one a class, with their targets where those fit."""
    if not isinstance(prediction, Tensor) or prediction.dim() != 2 or not prediction.is_floating_point():
        return {}
    if prediction.shape[1] <= MOST_VALUES or not prediction.shape[0]:
        return {}
    with torch.no_grad():
        values, classes = prediction[0].topk(5)
        top = {"classes": classes, "values": values}
        if isinstance(targets, Tensor) and targets.shape == prediction.shape and not targets.is_complex():
            top["targets"] = targets[0].index_select(0, classes)
    return top


def _as_top(read: StatsTable) -> tuple[tuple[int, float, float | None], ...]:
    """Arrange what `_largest` picked as rows: class, output, target."""
    classes, values, targets = (row.values if (row := read.named(name)) else None for name in _TOP_NAMES)
    if not classes or not values:
        return ()
    wanted = targets or (None,) * len(classes)
    return tuple((int(place), value, target) for place, value, target in zip(classes, values, wanted, strict=True))


def _as_doubles(losses: list[Tensor]) -> array[float]:
    """Bring losses of one element each to the host, all at once."""
    return array("d", torch.cat([loss.reshape(1) for loss in losses]).tolist() if losses else [])
