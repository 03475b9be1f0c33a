"""The watcher tests armed watchpoints against the numbers that are new in each frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from autograd_tui.core.command import Phase
from autograd_tui.core.errors import Refused, clipped, nearest
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import NONFINITE_COLUMN, ROW_WIDTH, StatsTable, TensorStats
from autograd_tui.core.watchpoint import GRAD_NORM, LOSS, PARAM_NORM, Watchpoint, parse_watchpoint


@dataclass(slots=True)
class ConditionMemory:
    """What a condition over several iterations remembers."""

    iteration: int = -1
    loss: float | None = None
    rises: int = 0
    still: dict[int, int] = field(default_factory=dict)  # iterations in a row, by the parameter's place


def check(watchpoint: Watchpoint, frame: Frame, memory: ConditionMemory) -> str | None:
    """Say what holds, one sentence; None where the condition does not. `memory` is that of this watchpoint."""
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
    """Tell whether the command of a frame has made this number anew."""
    if name == LOSS:
        return frame.phase is Phase.FORWARD
    if name == GRAD_NORM or _is_grad(name, frame):
        return frame.phase is Phase.BACKWARD
    return frame.mover is frame.command


def _is_grad(name: str, frame: Frame) -> bool:
    return name not in (LOSS, GRAD_NORM, PARAM_NORM, *frame.params.layout.names)


def _value(name: str, frame: Frame) -> float | None:
    """Give the number that is compared; None where there is none."""
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
    """Say which of the new numbers are not finite, the nearest to the loss first.

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
    """Name the first tensor that is not finite; as many infinities as `before`, and no NaN, are nothing new."""
    known = before.numbers if before is not None and before.layout == table.layout else None
    places = [place for place, many in enumerate(table.numbers[NONFINITE_COLUMN::ROW_WIDTH]) if many]
    if known is not None:
        places = [
            place
            for place in places
            if _has_nan(table[place])
            or table.numbers[place * ROW_WIDTH + NONFINITE_COLUMN] > known[place * ROW_WIDTH + NONFINITE_COLUMN]
        ]
    if places:
        row: TensorStats = table[places[0]]
        yield _counted(f"{row.name}{ending}", row) + f", as has {len(places) - 1} more" * (len(places) > 1)


def _counted(name: str, row: TensorStats) -> str:
    return f"{name} has {row.nonfinite or 0:,} of {row.size:,} values that are NaN or infinite"


def _rises(watchpoint: Watchpoint, frame: Frame, memory: ConditionMemory) -> str | None:
    """Count the iterations in which the loss was greater than in the one before."""
    if frame.phase is not Phase.FORWARD or frame.loss is None or frame.iteration == memory.iteration:
        return None
    before, memory.loss, memory.iteration = memory.loss, frame.loss, frame.iteration
    memory.rises = memory.rises + 1 if before is not None and frame.loss > before else 0
    if not memory.rises or memory.rises % watchpoint.times:
        return None
    return f"the loss has risen {memory.rises} times in a row, to {frame.loss:.4g}"


def _still(watchpoint: Watchpoint, frame: Frame, memory: ConditionMemory) -> str | None:
    """Count the steps that have left a parameter as it was."""
    if frame.phase is not Phase.STEP or frame.before is None or frame.moves is None:
        return None
    for place in _trained(watchpoint, frame):
        memory.still[place] = memory.still.get(place, 0) + 1 if _has_rested(frame, place) else 0
    found = [place for place, count in memory.still.items() if count and count % watchpoint.times == 0]
    if not found:
        return None
    more = f", as {len(found) - 1} more" * (len(found) > 1)
    return f"{frame.params.layout.names[found[0]]} has not changed for {memory.still[found[0]]} iterations{more}"


def _trained(watchpoint: Watchpoint, frame: Frame) -> list[int]:
    """Give the places of what is looked at: the one named, else all that the optimizer is to move."""
    names = frame.params.layout.names
    if watchpoint.name:
        return [names.index(watchpoint.name)]
    held = frame.groups.of if frame.groups else (0,) * len(names)
    return [place for place in range(len(names)) if held[place] is not None and place not in frame.frozen]


def _has_rested(frame: Frame, place: int) -> bool:
    """Tell whether a step has left a parameter alone, as far as its numbers tell."""
    assert frame.before is not None
    assert frame.moves is not None
    row = slice(place * ROW_WIDTH, (place + 1) * ROW_WIDTH)
    return not frame.moves[place] and frame.params.numbers[row].tobytes() == frame.before.numbers[row].tobytes()


@dataclass(frozen=True, slots=True)
class FiredWatchpoint:
    """A frame at which conditions hold; `said` is one sentence about all of them."""

    index: int
    iteration: int
    said: str

    def __str__(self) -> str:
        return f"frame {self.index}: {self.said}"


class Watcher:
    """The watchpoints that are armed, and what they have seen of this branch."""

    def __init__(self) -> None:
        self.armed: tuple[Watchpoint, ...] = ()
        self.fired: FiredWatchpoint | None = None  # the frame at which one fired last
        self._unsaid: FiredWatchpoint | None = None
        self._memories: dict[Watchpoint, ConditionMemory] = {}
        self._seen = -1  # the frame looked at last

    def arm(self, watchpoint: Watchpoint | str, frame: Frame) -> None:
        """Look out for one more, be it in words; raises Refused where `frame`, of the model, has no such parameter."""
        if isinstance(watchpoint, str):
            watchpoint = parse_watchpoint(watchpoint)
        names, name = frame.params.layout.names, watchpoint.tensor
        param = name if name is None or watchpoint.kind == "still" or name in names else name.removesuffix(".grad")
        if param is not None and param not in names:
            raise Refused(_no_such(watchpoint, names))
        if watchpoint not in self.armed:
            self.armed += (watchpoint,)

    def disarm(self) -> None:
        """Look out for nothing any more."""
        self.armed, self._memories = (), {}

    def see(self, frame: Frame) -> None:
        """Look at the frame that has just been made: whether anything holds of the numbers that are new in it."""
        if frame.index != self._seen + 1:  # training has gone back, or on without frames
            self._memories = {}
        self._seen = frame.index
        if not self.armed or frame.error or frame.command is None:
            return
        memories = [(each, self._memories.setdefault(each, ConditionMemory())) for each in self.armed]
        said = [holds for watchpoint, memory in memories if (holds := check(watchpoint, frame, memory))]
        if said:
            self.fired = self._unsaid = FiredWatchpoint(frame.index, frame.iteration, "; ".join(said))

    def fired_at(self, frame: Frame) -> bool:
        """Tell whether one fired at this frame."""
        return self.fired is not None and self.fired.index == frame.index

    def take_fired(self) -> FiredWatchpoint | None:
        """Tell, once, where one has fired since this was asked last."""
        fired, self._unsaid = self._unsaid, None
        return fired

    def truncate_after(self, index: int) -> None:
        """Forget what fired at a later frame: another command has been run from frame `index`."""
        if self.fired is not None and self.fired.index > index:
            self.fired = None


def _no_such(watchpoint: Watchpoint, names: Sequence[str]) -> str:
    """Say that a model has nothing of this name to watch, and what is most like it."""
    more = () if watchpoint.kind == "still" else (LOSS, GRAD_NORM, PARAM_NORM, *(f"{name}.grad" for name in names))
    near = nearest(watchpoint.name, (*names, *more))
    has = f"this model has {', '.join(names[:4])}{', ...' * (len(names) > 4)}"
    rest = f"the nearest is {near}" if near else has
    return f'there is no parameter "{clipped(watchpoint.name)}" to watch: {rest}.'
