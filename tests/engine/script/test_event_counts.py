"""Many events that are counted at once give what they give one by one."""

from __future__ import annotations

from array import array
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.engine.script.event_counts import CountedEvent, EventCounts, Forwards

EVENTS: list[CountedEvent] = [
    ("forward", (1, 10)),
    ("forward", (1, 90)),
    ("forward", (2, 10)),
    ("backward", 0),
    ("step", 7),
    ("step", 8),
    ("zero_grad", 7),
    ("zero_grad", 8),
]
parts = st.lists(st.sampled_from(EVENTS), max_size=9)


def one_by_one(counts: EventCounts, events: list[CountedEvent]) -> Forwards:
    """Count events without a look at how they repeat themselves."""
    forwards = array("q"), array("q")
    counts._add_each(events, forwards)
    return forwards


@given(before=parts, start=parts, part=parts, times=st.integers(0, 40), rest=parts, has_optimizer=st.booleans())
def test_events_at_once_count_as_one_by_one(
    before: list[CountedEvent],
    start: list[CountedEvent],
    part: list[CountedEvent],
    times: int,
    rest: list[CountedEvent],
    has_optimizer: bool,
) -> None:
    at_once = EventCounts(lambda: has_optimizer)
    one_by_one(at_once, before)
    each = deepcopy(at_once)
    for events in (start + part * times, part * times + rest, part * times):
        assert at_once.add(events) == one_by_one(each, events)
        each.has_optimizer = at_once.has_optimizer
        assert at_once == each


@pytest.mark.parametrize(
    ("part", "iterations"),
    [
        (EVENTS[:1] + EVENTS[3:5] + EVENTS[6:7], 1),
        (EVENTS[:1] + EVENTS[3:4], 0),  # summed for ever
        ([EVENTS[0], EVENTS[3], EVENTS[1], EVENTS[3], EVENTS[4], EVENTS[6]], 1),
        ([EVENTS[0], EVENTS[3]] * 4 + [EVENTS[4], EVENTS[6]], 1),
    ],
)
def test_equal_iterations_are_not_counted_one_by_one(
    part: list[CountedEvent], iterations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, each = EventCounts(lambda: True), EventCounts(lambda: True)
    counted = 0
    add_each = EventCounts._add_each

    def count(self: EventCounts, events: list[CountedEvent], forwards: Forwards) -> None:
        nonlocal counted
        counted += len(events)
        add_each(self, events, forwards)

    monkeypatch.setattr(EventCounts, "_add_each", count)
    counts.add(part * 500)
    assert counted <= 3 * len(part)
    add_each(each, part * 500, (array("q"), array("q")))
    each.has_optimizer = counts.has_optimizer
    assert counts == each
    assert counts.iteration == 1 + 499 * iterations
