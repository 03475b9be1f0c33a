"""The watcher: checks the watchpoints that are armed against the numbers of each new frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from autograd_tui.core.command import Phase
from autograd_tui.core.errors import Refused, clipped, first_few, nearest
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import NONFINITE_COLUMN, ROW_WIDTH, StatsTable, TensorStats
from autograd_tui.core.watchpoint import (
    GRAD_NORM,
    LOSS,
    NO_NORM,
    PARAM_NORM,
    UPDATE,
    USUAL,
    FiredWatchpoint,
    WatchedValues,
    Watchpoint,
    can_hold_of_norm,
    is_pattern,
    matching,
    parse_watchpoint,
    watched_values,
)


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
        case "bound" | "dead":
            return _outside(watchpoint, frame)
        case "zero":
            return _zero(watchpoint, frame)
        case "still":
            return _still(watchpoint, frame, memory)
        case "rises":
            return _rises(watchpoint, frame, memory)
        case _:
            return next(_nonfinite(frame), None)


def _new_values(watchpoint: Watchpoint, frame: Frame) -> Iterator[tuple[str, float]]:
    """Yield the name and the number of each thing that is compared, as far as the command has computed it."""
    watched, names = watched_values(watchpoint, frame.params.layout.names), frame.params.layout.names
    if frame.phase is Phase.FORWARD:
        if watched.kind == LOSS and frame.loss is not None:
            yield LOSS, frame.loss
        if watched.kind == "metric":
            yield from ((name, value) for name, value in frame.metrics if name == watchpoint.name)
        if watched.kind == "activations":
            modules = [name for name, _ in frame.zero_shares]
            yield from ((f"dead {modules[at]}:", frame.zero_shares[at][1]) for at in watched_calls(watchpoint, modules))
    if frame.phase is Phase.BACKWARD:
        if watched.kind == GRAD_NORM and (norm := frame.grads.norm()) is not None:
            yield GRAD_NORM, norm
        if watched.kind == "grads":
            norms = frame.grads.norms()
            yield from _known((f"{names[index]}.grad", norms[index]) for index in watched.params)
    if frame.mover is frame.command:
        if watched.kind == PARAM_NORM and (norm := frame.params.norm()) is not None:  # None: a tensor has none
            yield PARAM_NORM, norm
        if watched.kind == "params":
            norms = frame.params.norms()
            yield from _known((names[index], norms[index]) for index in watched.params)
        if watched.kind in ("update", "updates") and frame.phase is Phase.STEP:
            yield from _updates(watched, frame)


def watched_calls(watchpoint: Watchpoint, modules: Sequence[str]) -> list[int]:
    """Return the indices of the calls that are of a module named by a watchpoint; a module may be called often."""
    fitting = {modules[index] for index in matching(watchpoint.name, modules)}
    return [index for index, name in enumerate(modules) if name in fitting]


def _known(pairs: Iterable[tuple[str, float | None]]) -> Iterator[tuple[str, float]]:
    return ((name, value) for name, value in pairs if value is not None)


def _updates(watched: WatchedValues, frame: Frame) -> Iterator[tuple[str, float]]:
    """Yield what a step changed over what there was: of each watched parameter, or of all of them together."""
    moves, starts = frame.move_norms, frame.before.norms() if frame.before is not None else ()
    if moves is None or len(starts) != len(moves):
        return
    if watched.kind == "update":
        known_moves, known_starts = [each for each in moves if each is not None], [each or 0.0 for each in starts]
        if len(known_moves) == len(moves):
            yield UPDATE, relative_size(math.hypot(*known_moves), math.hypot(*known_starts))
        return
    for index in watched.params:
        move = moves[index]
        if move is not None:
            yield f"{frame.params.layout.names[index]}.update", relative_size(move, starts[index] or 0.0)


def relative_size(move: float, start: float) -> float:
    """Return how far something has moved over how large it was: infinite from zero."""
    return move / start if start else math.inf if move else 0.0


def _outside(watchpoint: Watchpoint, frame: Frame) -> str | None:
    held = [(name, value) for name, value in _new_values(watchpoint, frame) if watchpoint.holds_for(value)]
    if not held:
        return None
    (name, value), more = held[0], f", as {len(held) - 1} more" * (len(held) > 1)
    if math.isnan(value):
        return f"{name} is NaN, and {watchpoint} was asked for{more}"
    return f"{name} {value:.4g} {watchpoint.sign} {watchpoint.bound:.4g}{more}"


def _zero(watchpoint: Watchpoint, frame: Frame) -> str | None:
    names = [name for name, norm in _new_values(watchpoint, frame) if norm == 0]
    return f"{names[0]} has no value but 0{f', as {len(names) - 1} more' * (len(names) > 1)}" if names else None


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
    numbers = row.norm, row.min, row.max  # of complex values there is a norm alone
    return any(each is not None and math.isnan(each) for each in numbers)


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
    """Return the indices of the parameters to look at: the one named, else those that the optimizer is to move.

    One without values, or of a kind that has no numbers, is never still.
    """
    names, measurable = frame.params.layout.names, frame.params.layout.measurable
    watched = [index for index in watched_values(watchpoint, names).params if measurable[index]]
    if watchpoint.name in names:
        return watched
    groups = frame.groups.of if frame.groups else (0,) * len(names)
    return [index for index in watched if groups[index] is not None and index not in frame.frozen]


def is_unmoved(frame: Frame, index: int) -> bool:
    """Return whether a step has left a parameter as it was, as far as its statistics show."""
    assert frame.before is not None
    assert frame.moves is not None
    row = slice(index * ROW_WIDTH, (index + 1) * ROW_WIDTH)
    return not frame.moves[index] and frame.params.numbers[row].tobytes() == frame.before.numbers[row].tobytes()


class Watcher:
    """The watchpoints that are armed, and what they remember of this branch."""

    def __init__(self) -> None:
        self.armed: tuple[Watchpoint, ...] = ()
        self.fired: FiredWatchpoint | None = None  # the frame at which one fired last
        self._untaken: FiredWatchpoint | None = None
        self._memories: dict[Watchpoint, ConditionMemory] = {}
        self._last_index = -1  # of the frame that was checked last

    def arm(
        self, watchpoint: Watchpoint | str, frame: Frame, *, metrics: Iterable[str] = (), modules: Sequence[str] = ()
    ) -> None:
        """Arm one more watchpoint, or its spelling; raises Refused where there is nothing of that name to watch.

        frame: of a model with these parameters. metrics: their names, beside those of the frame. modules: the names of
        those whose activations can be watched.
        """
        if isinstance(watchpoint, str):
            watchpoint = parse_watchpoint(watchpoint)
        metrics = dict.fromkeys((*metrics, *(name for name, _ in frame.metrics)))
        watched, names = watched_values(watchpoint, frame.params.layout.names), frame.params.layout.names
        if watched.kind == "activations":
            if not matching(watchpoint.name, modules):
                raise Refused(_no_such_module(watchpoint.name, modules))
        elif watched.kind == "metric" and not (watchpoint.kind == "bound" and watchpoint.name in metrics):
            raise Refused(_no_such(watchpoint, names, metrics))
        elif watched.kind == "params" and watchpoint.kind == "bound" and not can_hold_of_norm(watchpoint):
            raise Refused(f'"{watchpoint}" {NO_NORM}')
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


def _no_such(watchpoint: Watchpoint, names: Sequence[str], metrics: Iterable[str]) -> str:
    """Return a sentence: the model has nothing of this name to watch, and what is most like it."""
    name, ends = watchpoint.name, {"still": (), "zero": (".grad",)}.get(watchpoint.kind, (".grad", ".update"))
    choices = [*names, *(f"{each}{end}" for end in ends for each in names)]
    kinds = "parameter"
    if watchpoint.kind == "bound":
        choices += [*USUAL, *metrics]
        kinds = "parameter or metric" if metrics else kinds
    some = [*([] if watchpoint.kind != "bound" else metrics), first_few(names)]
    has = f"this model has {', '.join(some)}"
    near = None if is_pattern(name) else nearest(name, choices)
    return f'there is no {kinds} "{clipped(name)}" to watch: {f"the nearest is {near}" if near else has}.'


def _no_such_module(name: str, modules: Sequence[str]) -> str:
    """Return a sentence: the model has no module of this name, and what is most like it."""
    if not modules:
        return "no module of this model is known, whose activation could be watched."
    near = None if is_pattern(name) else nearest(name, modules)
    has = f"this model has {first_few(modules)}"
    return f'there is no module "{clipped(name)}" to watch: {f"the nearest is {near}" if near else has}.'
