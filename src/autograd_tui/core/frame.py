"""The frame: everything that may be known after one command, as plain numbers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.core.tensor_stats import Grads, StatsTable, TensorStats

if TYPE_CHECKING:
    from autograd_tui.core.trace import Trace

TOP_COUNT = 5  # largest outputs of a sample that a frame holds
MAX_TOP_SAMPLES = 16  # samples of a batch whose largest outputs it holds


ON_SEVERAL_DEVICES = ("on the same device", "either on cpu or on the same", "device type tensor to numpy")
OUT_OF_MEMORY = ("out of memory", "STATUS_ALLOC_FAILED", "not enough memory", "can't allocate memory")


@dataclass(frozen=True, slots=True)
class TorchError:
    """What PyTorch, or the user's own code, raised."""

    type: str
    message: str
    file: str  # of the innermost line outside PyTorch, as far as one is known
    line: int
    call: str = ""  # of the loop, it came from: batch, model, loss, forward, metric, optimizer, scheduler, parameter
    code: str = ""  # the user's first line on the way from that call to the error

    @property
    def is_out_of_memory(self) -> bool:
        """Whether there was no memory left, on a device or on the host: PyTorch has several ways to say so."""
        if self.type in ("OutOfMemoryError", "MemoryError"):
            return True
        return self.type == "RuntimeError" and any(words in self.message for words in OUT_OF_MEMORY)

    @property
    def is_of_several_devices(self) -> bool:
        """Whether tensors of two devices met, as where a model makes one on the CPU while it is on a card."""
        return self.type in ("RuntimeError", "TypeError") and any(words in self.message for words in ON_SEVERAL_DEVICES)

    def leaves_half_done(self, phase: Phase | None) -> bool:
        """Return whether the phase that raised it may have changed what it cannot restore itself."""
        return phase in (Phase.STEP, Phase.ZERO_GRAD) or self.call == "parameter"


@dataclass(frozen=True, slots=True)
class StrayLeaf:
    """A tensor that a gradient reached, and that is none of the model's parameters."""

    shape: tuple[int, ...]
    kind: str  # "list of modules", "list of tensors", "dict of ...", "attribute", "changed", "loss", "outside", or ""
    path: str  # of what holds it, as code would write it


@dataclass(frozen=True, slots=True)
class ParamGroups:
    """An optimizer's parameter groups, each with options of its own."""

    of: tuple[int | None, ...]  # each parameter's group, None where the optimizer does not hold it
    learning_rates: tuple[float, ...]  # one a group
    optimizers: tuple[str, ...]  # as a command spells it, a group's own options included, without learning rate


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Frame:
    """A picture of the training after one command; what a command leaves alone is shared with the frame before."""

    index: int  # position on this branch; 0 before the first command
    params: StatsTable
    grads: Grads
    optimizer_state: StatsTable  # rows named "parameter.key"; empty before the first step
    buffers: StatsTable
    optimizer: str  # as a command spells it, without the learning rate
    learning_rate: float
    step_rate: float | None = None  # the learning rate that the last step used
    groups: ParamGroups | None = None  # the parameter groups, where there are several or one leaves some out
    step_rates: tuple[float, ...] = ()  # those of all groups that the last step used
    frozen: frozenset[int] = frozenset()  # indices of parameters with requires_grad=False
    frozen_before: frozenset[int] = frozenset()  # those before the last command that froze or unfroze some
    unused: frozenset[int] = frozenset()  # of those that the last backward did not reach: the loss does not use them
    command: Command | None = None
    iteration: int = 0  # from 1; rises at the first forward after a step
    steps: int = 0  # completed optimizer steps
    loss: float | None = None  # None before the first forward, or where the loss is not one number
    loss_steps: int = 0  # steps when the loss was measured
    loss_params: StatsTable | None = None  # the parameters that loss and prediction were made with; None: not known
    buffers_before: StatsTable | None = None  # as they were before the forward that loss and prediction are from
    moved: bool = False  # a step or a setting has touched a parameter since
    inputs: TensorStats | None = None
    targets: TensorStats | None = None
    prediction: TensorStats | None = None
    graph: Literal["none", "alive", "freed"] = "none"
    before: StatsTable | None = None  # the parameters before the last step, setting, or forward that moved some itself
    state_before: StatsTable | None = None  # the optimizer's state before the last step, of few values; None behind it
    mover: Command | None = None  # that step, setting or forward
    moves: array[float] | None = None  # the norm of each parameter's move in it: estimated above 1,024 values; or NaN
    grads_params: StatsTable | None = None  # the parameters that all gradients were made with; None: with several
    strays: tuple[StrayLeaf, ...] | None = None  # reached by the first backward; None before it, () after any other
    added_to: Grads | None = None  # the gradients that the last backward found and added to, if any
    last_grads: Grads | None = None  # what the last zero_grad found, and cleared
    top: tuple[tuple[int, float, float | None], ...] = ()  # class, output, target: TOP_COUNT a sample
    metrics: tuple[tuple[str, float], ...] = ()
    zero_shares: tuple[tuple[str, float], ...] = ()  # of zeros in what watched modules gave: one a call, by module
    error: TorchError | None = None
    seconds: float = 0.0  # that the phase itself took, without the numbers about it; 0 where nothing was measured
    memory: int | None = None  # bytes that tensors held on an accelerator behind it; None on the CPU
    script: ScriptStop | None = None  # where the user's own script is held, if one runs
    trace: Trace | None = None  # what happened inside the phase, where it was recorded

    @property
    def loss_is_old(self) -> bool:
        """Whether loss and prediction belong to parameters that are no longer there."""
        if not self.moved:
            return False
        if self.loss_params is None:
            return self.loss is not None and self.steps > self.loss_steps
        exact = self.params.whole or self.steps == self.loss_steps  # what can be set has all its values in its row
        return not (exact and self.params == self.loss_params)

    def top_of(self, sample: int) -> tuple[tuple[int, float, float | None], ...]:
        """Return class, output and target of the largest outputs of a sample, from 0; () where they are not known."""
        return self.top[sample * TOP_COUNT : (sample + 1) * TOP_COUNT]

    @property
    def top_samples(self) -> int:
        """The number of samples, the first of the batch, whose largest outputs are known."""
        return math.ceil(len(self.top) / TOP_COUNT)

    @property
    def move_norms(self) -> Sequence[float | None] | None:
        """The norm of each parameter's last move, None where it was not measured; None before the first move."""
        layout = self.params.layout
        unknown = layout.sparse | layout.left_out()
        if self.moves is None or not unknown:
            return self.moves
        return [None if index in unknown else norm for index, norm in enumerate(self.moves)]

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The learning rate of each parameter group."""
        return self.groups.learning_rates if self.groups else (self.learning_rate,)

    def step_rate_of(self, index: int) -> float | None:
        """Return the learning rate that the last step used for one parameter."""
        group = self.groups.of[index] if self.groups else None
        return self.step_rates[group] if group is not None and self.step_rates else self.step_rate

    def optimizer_of(self, index: int) -> str:
        """Return the optimizer as a command spells it, with the options that it has for one parameter."""
        group = self.groups.of[index] if self.groups else None
        return self.groups.optimizers[group] if self.groups and group is not None else self.optimizer

    def group_name(self, group: int) -> str:
        """Return what a parameter group is called: by its optimizer, where a script has several with one group each."""
        steps = self.script.steps if self.script is not None else ()
        return steps[group][0] if len(steps) == len(self.learning_rates) > 1 else f"group {group}"

    @property
    def lacks_optimizers(self) -> bool:
        """Whether it is of a script that has had no optimizer so far: its parameters may be moved by hand."""
        return self.script is not None and not self.script.steps

    @property
    def phase(self) -> Phase | None:
        return self.command.phase if self.command else None

    def __repr__(self) -> str:
        raised = f", raised {self.error.type}" if self.error else ""
        has_none = self.loss is None and self.loss_params is None
        loss = "none yet" if has_none else f"{self.loss}{' (old)' * self.loss_is_old}"
        return f"<Frame {self.index} after {self.command}: iteration {self.iteration}, loss {loss}{raised}>"

    def same(self, other: Frame) -> bool:
        """Return whether two frames hold the same values; NaN equals NaN.

        Times, memory, traces and what is measured for a watchpoint alone are left out.
        """
        return all(
            _same(getattr(self, field.name), getattr(other, field.name))
            for field in fields(Frame)
            if field.name not in ("seconds", "memory", "zero_shares", "trace")
        )

    def plain(self) -> dict[str, Any]:
        """Return the frame as strict JSON values: NaN and infinities as strings, None for "there is none"."""
        return {
            "index": self.index,
            "command": None if self.command is None else str(self.command),
            "phase": self.phase and self.phase.value,
            "iteration": self.iteration,
            "steps": self.steps,
            "loss": plain_number(self.loss),
            "learning_rate": plain_number(self.learning_rate),
            "learning_rates": [plain_number(each) for each in self.learning_rates],
            "metrics": {name: plain_number(value) for name, value in self.metrics},
            "frozen": [self.params.layout.names[index] for index in sorted(self.frozen)],
            "params": {row.name: plain_row(row) for row in self.params},
            "grads": {
                name: row and plain_row(row) for name, row in zip(self.params.layout.names, self.grads, strict=True)
            },
            "prediction": self.prediction and plain_row(self.prediction),
            "optimizer_state": {row.name: plain_row(row) for row in self.optimizer_state},
            "error": self.error and {field.name: getattr(self.error, field.name) for field in fields(TorchError)},
            "seconds": self.seconds,
            "memory": self.memory,
            **({"trace": self.trace.plain()} if self.trace else {}),
        }


def plain_row(row: TensorStats) -> dict[str, Any]:
    """Return one row of statistics as strict JSON values."""
    left_out = ("name",) if row.stored is not None else ("name", "stored")
    pairs = ((field.name, getattr(row, field.name)) for field in fields(row) if field.name not in left_out)
    return {name: _plain(value) for name, value in pairs}


def plain_number(value: float | None) -> float | str | None:
    """Return a number as strict JSON can hold it."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return plain_number(value) if isinstance(value, float) else value


def _same(one: Any, other: Any) -> bool:
    if one is other or one == other:
        return True
    if isinstance(one, float) and isinstance(other, float):
        return math.isnan(one) and math.isnan(other)
    if isinstance(one, Command) and isinstance(other, Command):
        return str(one) == str(other)  # w=nan is w=nan
    if isinstance(one, array) and isinstance(other, array):
        return one.tobytes() == other.tobytes()
    if isinstance(one, TensorStats) and isinstance(other, TensorStats):
        return all(_same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return all(_same(a, b) for a, b in zip(one, other, strict=True))
    return False
