"""The counts of a script's events: iterations, steps, backwards, and how many are summed in each gradient."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from autograd_tui.engine.training.tensor_properties import version_of

MIN_REPEATS = 5  # of the same events, from which on they are counted together
Place = tuple[int, int]  # of a forward: what tells one line of the script from another
Forwards = tuple["array[int]", "array[int]"]  # the index of each, and its iteration
CountedEvent = tuple[str, Any]  # its name, with the place of a forward, or the id of an optimizer or module
TOTALS = (
    "index",
    "iteration",
    "steps",
    "step_events",
    "backwards",
    "held_backwards",
    "forward_index",
    "forward_steps",
    "forward_step_events",
)
MAX_TRIES = 16  # to find how events repeat themselves
Seen = tuple[int, int] | None  # which gradient a parameter has, and how often that was changed in place


@dataclass(slots=True)
class EventCounts:
    """What is counted at each event, whether it has a frame or not. The keys are ids of optimizers and modules."""

    has_optimizer: Callable[[], bool]  # where the script has none, it moves the parameters by hand
    are_in_other_loops: Callable[[Place, Place], bool] = lambda one, other: False
    index: int = 0  # events so far
    iteration: int = 0  # from 1 at the first forward on
    first_index: int = 0  # of the event that the iteration began with
    length: int | None = None  # events of the iteration before; None before there was a whole one
    steps: int = 0  # of all optimizers, without those that were skipped
    step_events: int = 0  # with them
    step_counts: dict[int, int] = field(default_factory=dict)  # completed, by the optimizer's id
    backwards: int = 0  # since the script began
    held_backwards: int = 0  # since the last step or zero_grad
    cleared: dict[int, int] = field(default_factory=dict)  # backwards by the last zero_grad
    used: dict[int, int] = field(default_factory=dict)  # backwards by the last step
    last_skipped: int = 0  # the number of the step event that was skipped last
    forward_index: int = 0  # of the last forward
    forward_steps: int = 0  # before it
    forward_step_events: int = 0
    places: dict[Place, None] = field(default_factory=dict)  # of this iteration's forwards, in order
    places_before: tuple[Place, ...] = ()  # of the iteration before
    last_place: Place | None = None  # of the newest forward
    ends_alike: bool = True  # whether the last forward of each whole iteration was made at the same place
    _has_stepped: bool = False  # since this iteration began
    _has_cleared: bool = False

    def add_forward(self, place: Place, *, inside_step: bool = False) -> None:
        """Count a forward; it begins an iteration where its line has made one since that began, behind a step.

        So does the first one of a loop behind another loop.
        """
        self.index += 1
        self.forward_index = self.index
        self.forward_steps, self.forward_step_events = self.steps, self.step_events
        if self.iteration == 0 or (self._comes_again(place) and self._is_over(inside_step)):
            if self.iteration:
                self.length = self.index - self.first_index
                self.ends_alike = self.ends_alike and (
                    not self.places_before or self.places_before[-1] == next(reversed(self.places))
                )
                self.places_before = tuple(self.places)
            self.iteration += 1
            self.first_index = self.index
            self.places.clear()
            self._has_stepped = self._has_cleared = False
        self.places.pop(place, None)  # so that the newest one stands last
        self.places[place] = None
        self.last_place = place

    def _comes_again(self, place: Place) -> bool:
        """Return whether a forward is no further one of the same pass through a loop."""
        return place in self.places or (
            self.last_place is not None and self._has_stepped and self.are_in_other_loops(self.last_place, place)
        )

    def _is_over(self, inside_step: bool) -> bool:
        """Return whether the next forward from a line that had one begins an iteration."""
        if self._has_stepped or (self._has_cleared and not inside_step):
            return True
        if self.has_optimizer():
            return False
        self.held_backwards = 0  # since somebody moves the parameters by hand
        return True

    def add_backward(self) -> None:
        """Count a backward; its event is counted by `index` alone."""
        self.backwards += 1
        self.held_backwards += 1

    def add_step(self, key: int) -> None:
        """Count a step that was not skipped."""
        self.steps += 1
        self.step_counts[key] = self.step_counts.get(key, 0) + 1
        self.used[key] = self.backwards
        self.step_events += 1
        self._has_stepped = True

    def add_skipped_step(self) -> None:
        """Count a step that was left out; its event is counted by `index` alone."""
        self.step_events += 1
        self._has_stepped = True
        self.last_skipped = self.step_events

    def add_step_in_backward(self, key: int) -> None:
        """Count a step that a hook takes while a backward runs: it is no event."""
        self.steps += 1
        self.step_events += 1
        self.step_counts[key] = self.step_counts.get(key, 0) + 1
        self._has_stepped = True

    def add_zero_grad(self, key: int) -> None:
        """Count a zero_grad; its event is counted by `index` alone."""
        if self.backwards > self.cleared.get(key, 0):
            self._has_cleared = True
        self.cleared[key] = self.backwards
        self.held_backwards = 0

    def forget(self, key: int) -> None:
        """Forget an object whose id another one has now."""
        for counts in (self.step_counts, self.cleared, self.used):
            counts.pop(key, None)

    # Many at once.

    def add(self, events: list[CountedEvent]) -> Forwards:
        """Count events in order, and return the forwards among them.

        Where they repeat themselves, and leave everything as it was but for what grows, most of them are not counted
        one by one.
        """
        forwards = array("q"), array("q")
        length = _period(events)
        if length and len(events) >= MIN_REPEATS * length:
            part = events[:length]
            self._add_each(part, forwards)
            state, totals, known = self._state(part), self._totals(), len(forwards[0])
            self._add_each(part, forwards)
            events = events[2 * length :]
            if self._state(part) == state:  # so all further parts add what this one has added
                added = [after - before for after, before in zip(self._totals(), totals, strict=True)]
                times = len(events) // length - 1
                self._repeat(part, added, times)
                for column, growth in zip(forwards, added, strict=False):  # `index` and `iteration` stand first
                    column.extend(_repeated(column[known:], growth, times))
                events = events[times * length :]
        self._add_each(events, forwards)
        return forwards

    def _add_each(self, events: list[CountedEvent], forwards: Forwards) -> None:
        for name, key in events:
            if name == "forward":
                self.add_forward(key)
                forwards[0].append(self.index)
                forwards[1].append(self.iteration)
                continue
            self.index += 1
            if name == "backward":
                self.add_backward()
            elif name == "step":
                self.add_step(key)
                self.held_backwards = 0
            else:
                self.add_zero_grad(key)

    def _state(self, part: list[CountedEvent]) -> object:
        """Return what decides how the events of `part` are counted next."""
        cleared = [self.backwards - self.cleared[key] for name, key in part if name == "zero_grad"]
        steps = self.step_events - self.forward_step_events
        return tuple(self.places), self._has_stepped, self._has_cleared, steps, cleared

    def _totals(self) -> tuple[int, ...]:
        return tuple(getattr(self, each) for each in TOTALS)

    def _repeat(self, part: list[CountedEvent], added: list[int], times: int) -> None:
        """Count the events of `part` so many times more; `added`: to the totals, each time."""
        growth = {name: each * times for name, each in zip(TOTALS, added, strict=True)}
        for name, each in growth.items():
            setattr(self, name, getattr(self, name) + each)
        if growth["iteration"]:
            self.first_index += growth["index"]
        for name, key in part:
            if name == "step":
                self.step_counts[key] += times
        for key in {key for name, key in part if name == "step"}:
            self.used[key] += growth["backwards"]
        for key in {key for name, key in part if name == "zero_grad"}:
            self.cleared[key] += growth["backwards"]


def _repeated(numbers: array[int], growth: int, times: int) -> array[int]:
    """Return the numbers so many times, each time larger by `growth`."""
    count = len(numbers)
    repeated = array("q", bytes(numbers.itemsize * count * times))
    for place, number in enumerate(numbers):
        grown = range(number + growth, number + growth * (times + 1), growth) if growth else [number] * times
        repeated[place::count] = array("q", grown)
    return repeated


def _period(events: list[CountedEvent]) -> int:
    """Return after how many events they repeat themselves, from the first to the last; 0 where they do not."""
    tries = MAX_TRIES
    for length in range(1, len(events) // 2 + 1):
        if events[-1 - length] == events[-1]:
            if events[length:] == events[:-length]:
                return length
            tries -= 1
            if not tries:
                break
    return 0


class GradHistory:
    """Follows the gradients of parameters, by their ids, from one event to the next."""

    def __init__(self) -> None:
        self.backwards: dict[int, int] = {}  # summed in each gradient; 0 where there is none
        self.used: dict[int, bool] = {}
        self._seen: dict[int, Seen] = {}  # as of the last event

    def restart(self, params: Iterable[Tensor], owners: Mapping[int, Iterable[int]], counts: EventCounts) -> None:
        """Begin behind events that were counted alone.

        `owners`: the ids of the optimizers and models that have each parameter. A gradient may have fewer backwards in
        it than there were since it was cleared, where some of them did not reach it.
        """
        self.backwards, self.used, self._seen = {}, {}, {}
        self.add(params, owners, counts)

    def add(self, params: Iterable[Tensor], owners: Mapping[int, Iterable[int]], counts: EventCounts) -> None:
        """Begin to follow more parameters."""
        for param in params:
            of = owners.get(id(param), ())
            cleared = max((counts.cleared.get(each, 0) for each in of), default=0)
            used = max((counts.used.get(each, 0) for each in of), default=0)
            summed = counts.backwards - cleared
            self.backwards[id(param)] = max(summed, 1) if param.grad is not None else 0
            self.used[id(param)] = param.grad is not None and used == counts.backwards > 0
            self._seen[id(param)] = _seen(param)

    def note(self, params: Iterable[Tensor]) -> None:
        """Take the gradients as they are for those of the last event."""
        self._seen = {id(param): _seen(param) for param in params}

    def changed(self, param: Tensor) -> bool:
        """Return whether a parameter's gradient is another one, or another value, than at the last event."""
        return self._seen.get(id(param)) != _seen(param)

    def was_written(self, param: Tensor) -> bool:
        """Return whether a parameter has the same gradient as at the last event, with other values."""
        before, now = self._seen.get(id(param)), _seen(param)
        return before is not None and now is not None and before[0] == now[0] and before != now

    def count_backward(self, params: Iterable[Tensor], before: Mapping[int, Seen]) -> None:
        """Count a backward for the gradients that are not what they were before it."""
        for param in params:
            seen = _seen(param)
            if seen is not None and seen != before.get(id(param)):
                self.backwards[id(param)] = self.backwards.get(id(param), 0) + 1
                self.used[id(param)] = False

    def count_step(self, param_ids: Iterable[int]) -> None:
        """Take note that a step has used these gradients."""
        for each in param_ids:
            self.used[each] = self.backwards.get(each, 0) > 0

    def clear(self, param: Tensor) -> None:
        """Take note that a parameter has no gradient, or one of zeros alone."""
        self.backwards[id(param)], self.used[id(param)] = 0, False


def seen_grads(params: Iterable[Tensor]) -> dict[int, Seen]:
    """Return which gradients parameters have, by their ids."""
    return {id(param): _seen(param) for param in params}


def _seen(param: Tensor) -> Seen:
    grad = param.grad
    return None if grad is None else (id(grad), version_of(grad))
