"""Which checkpoint is missed least: runs of hours, on paper."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

import pytest

from autograd_tui.engine.crowd import QUICK, most_crowded

FRAMES = 100  # a second


def places(seconds: float, *, room: int, spacing: float = 0.5) -> list[int]:
    """Train for so long with room for so many checkpoints; give the frames where they lie, and the last frame."""
    at = [0]
    for here in range(int(spacing * FRAMES), int(seconds * FRAMES) + 1, int(spacing * FRAMES)):
        at.append(here)
        if len(at) > room:
            place = most_crowded(at, len(at) - 1, fixed=1, seconds=1 / FRAMES)
            assert place is not None
            at.pop(place)
    return at


def longest_gap(at: list[int]) -> float:
    return max(after - before for before, after in pairwise(at)) / FRAMES


@pytest.mark.parametrize("room", [5, 11, 40])
def test_every_gap_is_quick_as_long_as_quick_gaps_cover_the_run(room: int) -> None:
    for seconds in range(1, int(1.7 * room)):
        assert longest_gap(places(seconds, room=room)) <= QUICK


@pytest.mark.parametrize("seconds", [20, 60, 600, 3600])
def test_in_an_hour_of_resnet18_going_back_takes_at_most_three_times_as_long_as_has_passed_since(seconds: int) -> None:
    at = places(seconds, room=11)
    newest = int(seconds * FRAMES)
    for index in range(1, newest, FRAMES // 4):
        before = at[bisect_right(at, index - 1) - 1]
        assert (index - before) / FRAMES <= max(2.0, 3 * (newest - index) / FRAMES)


def test_where_training_stands_in_the_midst_its_neighbours_lie_closer() -> None:
    at = [0, *range(50_000, 100_000, 1000)]
    for moment in range(1000, 10_000, 1000):
        at.insert(bisect_right(at, moment), moment)
        place = most_crowded(at, at.index(moment), fixed=1, seconds=1.0)
        assert place is not None
        at.pop(place)
    assert sum(0 < each < 10_000 for each in at) > 3
    assert at[-1] == 99_000


def test_no_gap_is_closed_by_opening_a_larger_one() -> None:
    assert most_crowded([0, 2000, 2500, 4000, 6000], 2, fixed=1, seconds=1.0) is None


@pytest.mark.parametrize(("at", "here", "fixed"), [([0, 5], 1, 1), ([0, 5, 9], 1, 1), ([0, 4, 9], 2, 2)])
def test_the_fixed_ones_and_the_last_stay(at: list[int], here: int, fixed: int) -> None:
    assert most_crowded(at, here, fixed=fixed, seconds=1.0) is None
