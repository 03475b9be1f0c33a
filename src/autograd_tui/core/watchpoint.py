"""Watchpoints: conditions at which a run pauses, each with one spelling, and the watcher that checks them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from autograd_tui.core.command import Phase
from autograd_tui.core.errors import Refused, UnknownCommand, clipped, nearest
from autograd_tui.core.frame import Frame
from autograd_tui.core.optimizer_spec import format_number, parse_number
from autograd_tui.core.tensor_stats import NONFINITE_COLUMN, ROW_WIDTH, StatsTable, TensorStats

LOSS, GRAD_NORM, PARAM_NORM = "loss", "grad_norm", "param_norm"
DEFAULT_TIMES = 5  # iterations, where none are given
MAX_QUOTED_LENGTH = 60  # characters of what is quoted in a sentence
EXAMPLES = ("nonfinite", "loss > 10", "grad_norm > 10", "w.grad < 1e-6", "w still", "loss rises 5")
_NAME = r"\w+(?:\.\w+)*"
_BOUND = re.compile(rf"({_NAME})\s*([<>])\s*(.*)")
_STILL = re.compile(rf"(?:({_NAME}) )?still(?: (\S+))?")
_RISES = re.compile(r"loss rises(?: (\S+))?")


@dataclass(frozen=True, slots=True)
class Watchpoint:
    """One condition.

    `name` is "loss", "grad_norm", "param_norm", a parameter or its "w.grad", of which norms are compared; of "still" a
    parameter, or "" for any.
    """

    kind: Literal["nonfinite", "bound", "still", "rises"]
    name: str = ""
    sign: Literal["<", ">", ""] = ""
    bound: float = 0.0
    times: int = 0  # iterations in a row

    @property
    def tensor(self) -> str | None:
        """The parameter, or "w.grad", that the model must have."""
        usual = ("",) if self.kind == "still" else ("", LOSS, GRAD_NORM, PARAM_NORM)
        return None if self.name in usual else self.name

    def holds_for(self, value: float) -> bool:
        """Return whether a value is beyond the bound; a NaN always is."""
        return math.isnan(value) or (value > self.bound if self.sign == ">" else value < self.bound)

    def __str__(self) -> str:
        match self.kind:
            case "bound":
                return f"{self.name} {self.sign} {format_number(self.bound)}"
            case "still":
                return f"{self.name} still {self.times}".lstrip()
            case "rises":
                return f"loss rises {self.times}"
            case _:
                return self.kind


def parse_watchpoint(text: str) -> Watchpoint:
    """Read "nonfinite", "grad_norm > 10", "w still 5" or "loss rises 5"; raises UnknownCommand."""
    text = " ".join(text.split())
    if text == "nonfinite":
        return Watchpoint("nonfinite")
    if match := _RISES.fullmatch(text):
        return Watchpoint("rises", LOSS, times=_times(match[1], text))
    if match := _STILL.fullmatch(text):
        return Watchpoint("still", match[1] or "", times=_times(match[2], text))
    if match := _BOUND.fullmatch(text):
        return _bounded(match[1], match[2], match[3], text)
    raise UnknownCommand(f'"{_clipped(text)}" is no watchpoint: {_meant(text)}.')


def _meant(text: str) -> str:
    """Return a sentence: which condition a text is most like, or else which there are."""
    if text.lower() in ("nan", "inf", "infinity", "infinite"):
        return "nonfinite watches for NaN and infinity"
    name, blank, _ = text.partition(" ")
    near = nearest(text, (*EXAMPLES, f"{name} still" if blank else "still"))
    return f"the nearest is {near}" if near else f"there are {', '.join(EXAMPLES)}"


def _bounded(name: str, sign: str, number: str, text: str) -> Watchpoint:
    if number.startswith("=") and parse_number(number[1:].strip()) is not None:
        likely = f"{name} {sign} {number[1:].strip()}"
        raise UnknownCommand(f'"{_clipped(text)}" is no watchpoint: the nearest is {_clipped(likely)}.')
    bound = parse_number(number)
    if bound is None or not math.isfinite(bound):
        raise UnknownCommand(f'"{_clipped(text)}" needs a number behind {sign}, as in {_clipped(name)} {sign} 10.')
    if name != LOSS and (bound < 0 or (sign == "<" and bound == 0)):
        raise UnknownCommand(f'"{_clipped(text)}" compares a norm, which is 0 or more: give a larger number.')
    return Watchpoint("bound", name, "<" if sign == "<" else ">", bound)


def _times(number: str | None, text: str) -> int:
    if number is None:
        return DEFAULT_TIMES
    if not re.fullmatch(r"[1-9]\d{0,8}", number):
        raise UnknownCommand(f'"{_clipped(text)}" needs whole iterations, 1 or more, as in loss rises 5.')
    return int(number)


def _clipped(text: str) -> str:
    return clipped(text, MAX_QUOTED_LENGTH)


@dataclass(slots=True)
class ConditionMemory:
    """What a condition over several iterations remembers."""

    iteration: int = -1
    loss: float | None = None
    rises: int = 0
    still: dict[int, int] = field(default_factory=dict)  # iterations in a row, by the parameter's index

    def count_loss(self, loss: float, iteration: int) -> int:
        """Count the loss of an iteration's first forward; return how often it has risen in a row, 0 at later ones."""
        if iteration == self.iteration:
            return 0
        has_risen = self.loss is not None and loss > self.loss
        self.loss, self.iteration = loss, iteration
        self.rises = self.rises + 1 if has_risen else 0
        return self.rises


def reason_to_fire(watchpoint: Watchpoint, frame: Frame, memory: ConditionMemory) -> str | None:
    """Return a sentence on what holds; None where the condition does not. `memory` is that of this watchpoint."""
    match watchpoint.kind:
        case "bound":
            return _outside(watchpoint, frame)
        case "still":
            return _still(watchpoint, frame, memory)
        case "rises":
            return _rises(watchpoint, frame, memory)
        case _:
            return next(_nonfinite(frame), None)


def _is_new(name: str, frame: Frame) -> bool:
    """Return whether the command of a frame has computed this number."""
    if name == LOSS:
        return frame.phase is Phase.FORWARD
    if name == GRAD_NORM or _is_grad(name, frame):
        return frame.phase is Phase.BACKWARD
    return frame.mover is frame.command


def _is_grad(name: str, frame: Frame) -> bool:
    return name not in (LOSS, GRAD_NORM, PARAM_NORM, *frame.params.layout.names)


def _value(name: str, frame: Frame) -> float | None:
    """Return the number that is compared; None where there is none."""
    if name == LOSS:
        return frame.loss
    if name == GRAD_NORM:
        return frame.grads.norm()
    if name == PARAM_NORM:
        return frame.params.norm()  # None where it would leave a tensor out
    if _is_grad(name, frame):
        grad = frame.grads[frame.params.layout.names.index(name.removesuffix(".grad"))]
        return grad.norm if grad else None
    row = frame.params.named(name)
    return row.norm if row else None


def _outside(watchpoint: Watchpoint, frame: Frame) -> str | None:
    value = _value(watchpoint.name, frame) if _is_new(watchpoint.name, frame) else None
    if value is None or not watchpoint.holds_for(value):
        return None
    if math.isnan(value):
        return f"{watchpoint.name} is NaN, and {watchpoint} was asked for"
    return f"{watchpoint.name} {value:.4g} {watchpoint.sign} {watchpoint.bound:.4g}"


def _nonfinite(frame: Frame) -> Iterator[str]:
    """Yield sentences on which of the new numbers are not finite, the nearest to the loss first.

    Infinities in a prediction of which the loss is finite, or in what stayed as it was, are a mask.
    """
    if frame.phase is Phase.FORWARD:
        if frame.loss is not None and not math.isfinite(frame.loss):
            yield f"the loss is {'NaN' if math.isnan(frame.loss) else frame.loss}"
        if frame.prediction is not None and frame.prediction.nonfinite and _has_nan(frame.prediction):
            yield _counted("the prediction", frame.prediction)
        yield from _first_of(frame.buffers, "", frame.buffers_before)
    if frame.phase is Phase.BACKWARD:
        yield from _first_of(frame.grads.table, ".grad")
    if frame.mover is frame.command:
        yield from _first_of(frame.params, "", frame.before)
        yield from _first_of(frame.optimizer_state, "")


def _has_nan(row: TensorStats) -> bool:
    return any(end is not None and math.isnan(end) for end in (row.min, row.max))


def _first_of(table: StatsTable, ending: str, before: StatsTable | None = None) -> Iterator[str]:
    """Yield a sentence on the first tensor that is not finite: with a NaN, or more infinities than `before`."""
    counts = table.numbers[NONFINITE_COLUMN::ROW_WIDTH]
    indices = [index for index, count in enumerate(counts) if count]
    if before is not None and before.layout == table.layout:
        counts_before = before.numbers[NONFINITE_COLUMN::ROW_WIDTH]
        indices = [index for index in indices if counts[index] > counts_before[index] or _has_nan(table[index])]
    if indices:
        row: TensorStats = table[indices[0]]
        yield _counted(f"{row.name}{ending}", row) + f", as has {len(indices) - 1} more" * (len(indices) > 1)


def _counted(name: str, row: TensorStats) -> str:
    return f"{name} has {row.nonfinite or 0:,} of {row.size:,} values that are NaN or infinite"


def _rises(watchpoint: Watchpoint, frame: Frame, memory: ConditionMemory) -> str | None:
    """Count the iterations in which the loss was greater than before; return a sentence where they are enough."""
    if frame.phase is not Phase.FORWARD or frame.loss is None:
        return None
    rises = memory.count_loss(frame.loss, frame.iteration)
    if not rises or rises % watchpoint.times:
        return None
    return f"the loss has risen {rises} times in a row, to {frame.loss:.4g}"


def _still(watchpoint: Watchpoint, frame: Frame, memory: ConditionMemory) -> str | None:
    """Count the steps that have left a parameter as it was; return a sentence where they are enough."""
    if frame.phase is not Phase.STEP or frame.before is None or frame.moves is None:
        return None
    for index in watched_for_stillness(watchpoint, frame):
        memory.still[index] = memory.still.get(index, 0) + 1 if is_unmoved(frame, index) else 0
    indices = [index for index, count in memory.still.items() if count and count % watchpoint.times == 0]
    if not indices:
        return None
    more = f", as {len(indices) - 1} more" * (len(indices) > 1)
    return f"{frame.params.layout.names[indices[0]]} has not changed for {memory.still[indices[0]]} iterations{more}"


def watched_for_stillness(watchpoint: Watchpoint, frame: Frame) -> list[int]:
    """Return the indices of the parameters to look at: the one named, else all that the optimizer is to move."""
    names = frame.params.layout.names
    if watchpoint.name:
        return [names.index(watchpoint.name)]
    groups = frame.groups.of if frame.groups else (0,) * len(names)
    return [index for index in range(len(names)) if groups[index] is not None and index not in frame.frozen]


def is_unmoved(frame: Frame, index: int) -> bool:
    """Return whether a step has left a parameter as it was, as far as its statistics show."""
    assert frame.before is not None
    assert frame.moves is not None
    row = slice(index * ROW_WIDTH, (index + 1) * ROW_WIDTH)
    return not frame.moves[index] and frame.params.numbers[row].tobytes() == frame.before.numbers[row].tobytes()


@dataclass(frozen=True, slots=True)
class FiredWatchpoint:
    """A frame at which conditions hold; `reason` is one sentence about all of them."""

    index: int
    iteration: int
    reason: str

    def __str__(self) -> str:
        return f"frame {self.index}: {self.reason}"


class Watcher:
    """The watchpoints that are armed, and what they remember of this branch."""

    def __init__(self) -> None:
        self.armed: tuple[Watchpoint, ...] = ()
        self.fired: FiredWatchpoint | None = None  # the frame at which one fired last
        self._untaken: FiredWatchpoint | None = None
        self._memories: dict[Watchpoint, ConditionMemory] = {}
        self._last_index = -1  # of the frame that was checked last

    def arm(self, watchpoint: Watchpoint | str, frame: Frame) -> None:
        """Arm one more watchpoint, or its spelling; raises Refused where the model of `frame` has no such parameter."""
        if isinstance(watchpoint, str):
            watchpoint = parse_watchpoint(watchpoint)
        names, name = frame.params.layout.names, watchpoint.tensor
        param = name if name is None or watchpoint.kind == "still" or name in names else name.removesuffix(".grad")
        if param is not None and param not in names:
            raise Refused(_no_such(watchpoint, names))
        if watchpoint not in self.armed:
            self.armed += (watchpoint,)

    def disarm(self) -> None:
        """Disarm all."""
        self.armed, self._memories = (), {}

    def check(self, frame: Frame) -> None:
        """Check the conditions against the numbers that are new in a frame that has just been made."""
        reasons = self.reasons(frame)
        if reasons:
            self.fired = self._untaken = FiredWatchpoint(frame.index, frame.iteration, "; ".join(reasons))

    def reasons(self, frame: Frame) -> list[str]:
        """Count what is new in a frame that has just been made, and return a sentence on each condition that holds."""
        if frame.index != self._last_index + 1:  # training has gone back, or on without frames
            self._memories = {}
        self._last_index = frame.index
        if not self.armed or frame.error or frame.command is None:
            return []
        memories = [(each, self._memories.setdefault(each, ConditionMemory())) for each in self.armed]
        return [reason for watchpoint, memory in memories if (reason := reason_to_fire(watchpoint, frame, memory))]

    def memory(self, watchpoint: Watchpoint) -> ConditionMemory:
        """Return what an armed watchpoint remembers, for one who counts events of which no frames are made."""
        return self._memories.setdefault(watchpoint, ConditionMemory())

    def go_on_behind(self, index: int) -> None:
        """Keep what is remembered, though no frames up to `index` were checked: somebody has counted those events."""
        self._last_index = index

    def copy_memories(self, index: int) -> dict[Watchpoint, ConditionMemory]:
        """Return copies of what is remembered at frame `index`: nothing where other frames were checked last."""
        if index != self._last_index:
            return {}
        return {each: replace(memory, still=dict(memory.still)) for each, memory in self._memories.items()}

    def restore_memories(self, memories: dict[Watchpoint, ConditionMemory], index: int) -> None:
        """Remember what `copy_memories` returned at frame `index`, from which training goes on."""
        self._memories = memories
        self._last_index = index

    def fired_at(self, frame: Frame) -> bool:
        """Return whether one fired at this frame."""
        return self.fired is not None and self.fired.index == frame.index

    def take_fired(self) -> FiredWatchpoint | None:
        """Return, once, where one has fired since the last call."""
        fired, self._untaken = self._untaken, None
        return fired

    def truncate_after(self, index: int) -> None:
        """Forget what fired at a later frame: another command has been run from frame `index`."""
        if self.fired is not None and self.fired.index > index:
            self.fired = None


def _no_such(watchpoint: Watchpoint, names: Sequence[str]) -> str:
    """Return a sentence: the model has nothing of this name to watch, and what is most like it."""
    more = () if watchpoint.kind == "still" else (LOSS, GRAD_NORM, PARAM_NORM, *(f"{name}.grad" for name in names))
    near = nearest(watchpoint.name, (*names, *more))
    has = f"this model has {', '.join(names[:4])}{', ...' * (len(names) > 4)}"
    rest = f"the nearest is {near}" if near else has
    return f'there is no parameter "{clipped(watchpoint.name)}" to watch: {rest}.'
