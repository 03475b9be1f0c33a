"""Which checkpoint is missed least: runs of a minute and of a day, on paper."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise

import pytest

from autograd_tui.engine.replay.checkpoints import MIN_FOR_RECENT, QUICK_GAP, index_to_evict, min_spacing

FRAMES = 20  # a second
SPACING = 0.5  # seconds, as long as there is room


def training(seconds: float, *, room: int) -> Iterator[list[int]]:
    """Train for so long with room for so many checkpoints; give the frames where they lie, and the newest frame."""
    at, now = [0], 0.0
    while now < seconds:
        now += max(1 / FRAMES, now / 1000)
        here = int(now * FRAMES)
        wanted = max(SPACING, min_spacing(now, room) if len(at) == room else 0.0)
        if here - at[-1] >= wanted * FRAMES:
            at.append(here)
        if len(at) > room:
            place = index_to_evict(at, len(at) - 1, fixed=1, seconds=1 / FRAMES)
            assert place is not None
            at.pop(place)
        yield [*at, here]


def after(seconds: float, *, room: int) -> list[int]:
    *_, at = training(seconds, room=room)
    return at


def widest(at: list[int]) -> float:
    """Give the longest way to any frame, in seconds of training."""
    return max(later - before for before, later in pairwise(at)) / FRAMES


def way_to(at: list[int], index: int) -> float:
    return (index - at[bisect_right(at, index) - 1]) / FRAMES


@pytest.mark.parametrize("room", [3, 5, 11, 40])
def test_every_gap_is_quick_as_long_as_quick_gaps_cover_the_run(room: int) -> None:
    assert all(widest(at) <= QUICK_GAP for at in training(room * QUICK_GAP / 2, room=room))


@pytest.mark.parametrize("room", [3, 4, 5, 6, 8, 10, 11, 12, 16, 20, 50])
def test_however_long_a_run_gets_its_widest_gap_is_at_most_twice_that_of_even_ones(room: int) -> None:
    for at in training(100_000.0, room=room):
        even = at[-1] / FRAMES / room
        assert widest(at) <= max(QUICK_GAP, 2.3 * even if 10 <= room < 20 else 2.0 * even) + 1 / FRAMES


@pytest.mark.parametrize("room", [3, 4])
def test_with_few_checkpoints_it_is_at_most_1_75_times_that_of_even_ones(room: int) -> None:
    assert all(widest(at) <= max(QUICK_GAP, 1.75 * at[-1] / FRAMES / room) for at in training(3600.0, room=room))


@pytest.mark.parametrize("room", [MIN_FOR_RECENT, 8, 11, 50])
@pytest.mark.parametrize("seconds", [60, 600, 3600])
def test_the_newest_checkpoint_is_a_quick_gap_ago_at_most(seconds: int, room: int) -> None:
    at = after(seconds, room=room)
    assert at[-1] - at[-2] <= (QUICK_GAP + max(1 / FRAMES, seconds / 1000)) * FRAMES


@pytest.mark.parametrize(("room", "times", "more"), [(11, 12, 30), (50, 3, 4), (100, 1, 4)])
def test_in_a_run_of_an_hour_the_ways_to_what_has_just_run_are_shorter(room: int, times: int, more: int) -> None:
    at = after(3600, room=room)
    for index in range(at[-1]):
        assert way_to(at, index) <= times * ((at[-1] - index) / FRAMES + more)


def test_none_is_taken_closer_than_they_stay_apart() -> None:
    assert min_spacing(10.0, 11) == 0.0  # quick gaps cover it
    assert min_spacing(43.0, 11) == QUICK_GAP  # a run of 43 seconds, whose gaps grow to some 5
    assert min_spacing(3600.0, 3) > 1000


def test_where_training_stands_in_the_midst_its_neighbours_lie_closer() -> None:
    at = [0, *range(50_000, 100_000, 1000)]
    for moment in range(1000, 10_000, 1000):
        at.insert(bisect_right(at, moment), moment)
        place = index_to_evict(at, at.index(moment), fixed=1, seconds=1.0)
        assert place is not None
        at.pop(place)
    assert sum(0 < each < 10_000 for each in at) > 3
    assert at[-1] == 99_000


def test_no_gap_is_closed_by_opening_a_larger_one() -> None:
    assert index_to_evict([0, 2000, 2500, 4000, 6000], 2, fixed=1, seconds=1.0) is None


@pytest.mark.parametrize(("at", "here", "fixed"), [([0, 5], 1, 1), ([0, 5, 9], 1, 1), ([0, 4, 9], 2, 2)])
def test_the_fixed_ones_and_the_last_stay(at: list[int], here: int, fixed: int) -> None:
    assert index_to_evict(at, here, fixed=fixed, seconds=1.0) is None
