from __future__ import annotations

import math
from array import array
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.command import parse_one
from autograd_tui.core.frame import TorchError
from autograd_tui.core.history import MISSING, RECENT_ROWS, History, Path, Point, Series, SizeTable
from autograd_tui.core.tensor_stats import Grads
from handmade_frames import frame, table


def series(values: list[float], *, capacity: int = 16) -> Series:
    """Append the values as one iteration after the other brings them."""
    column = Series(capacity)
    for place, value in enumerate(values):
        column.indices.append(place * 4 + 1)
        column.iterations.append(place + 1)
        column.values.append(value)
        if len(column) > capacity:
            column._thin()
    return column


values = st.lists(st.floats(allow_nan=False), min_size=1, max_size=200)


@given(values)
def test_thinning_keeps_the_least_and_the_greatest(listed: list[float]) -> None:
    column = series(listed)
    assert (min(column.values), max(column.values)) == (min(listed), max(listed))


@given(values)
def test_thinning_keeps_the_first_and_the_last(listed: list[float]) -> None:
    column = series(listed)
    assert (column.values[0], column.values[-1]) == (listed[0], listed[-1])


@given(values)
def test_a_series_never_exceeds_its_capacity(listed: list[float]) -> None:
    assert len(series(listed)) <= 16


@given(values)
def test_every_kept_point_is_a_real_one_in_its_place(listed: list[float]) -> None:
    points = series(listed).points()
    assert all(point.value == listed[point.iteration - 1] for point in points)
    assert [point.index for point in points] == sorted({point.iteration * 4 - 3 for point in points})


@given(st.lists(st.floats(allow_nan=False), min_size=20, max_size=200), st.integers(0, 19))
def test_thinning_keeps_a_nan(listed: list[float], place: int) -> None:
    listed[place] = math.nan
    assert any(map(math.isnan, series(listed).values))


@pytest.fixture(scope="module")
def long() -> Series:
    """The loss of 200,000 iterations, with one spike and one dip."""
    column = Series()
    for place in range(200_000):
        value = 1e6 if place == 77_777 else -1.0 if place == 123_456 else 1 + math.sin(place)
        column.indices.append(place)
        column.iterations.append(place + 1)
        column.values.append(value)
        if len(column) > column.capacity:
            column._thin()
    return column


def test_a_long_run_stays_within_capacity(long: Series) -> None:
    assert 1024 <= len(long) <= 4096


def test_a_long_run_keeps_its_spike_and_its_dip(long: Series) -> None:
    assert (max(long.values), min(long.values)) == (1e6, -1.0)


def test_a_long_run_is_as_dense_at_its_beginning_as_later(long: Series) -> None:
    points = [point.iteration for point in long.points()]
    gaps = [after - before for before, after in pairwise(points)]
    assert max(gaps[: len(gaps) // 2]) <= 2 * long.bucket


@given(st.lists(st.integers(1, 9), max_size=6))
def test_points_that_come_at_once_are_those_that_come_one_by_one_until_they_are_thinned(counts: list[int]) -> None:
    many, single, values = Series(capacity=16), Series(capacity=16), array("d", [0.5, 3.0, -1.0, math.inf, 2.0] * 4)
    for count in counts:
        start = 0 if not single else single.iterations[-1]
        if start + count > single.capacity + 1:
            break
        many.extend_evenly(values[start : start + count], index=4 * start + 1, iteration=start + 1, spacing=4)
        for iteration in range(start, start + count):
            single.append(4 * iteration + 1, iteration + 1, values[iteration])
    assert many == single


def test_many_forwards_of_one_iteration_stay_within_capacity() -> None:
    column = Series(16)
    for place in range(1000):
        column.append(place, 1, float(place % 7))
    assert len(column) <= 16


@given(values, st.integers(0, 800))
def test_forgetting_drops_what_later_frames_brought(listed: list[float], index: int) -> None:
    column = series(listed)
    kept = [point for point in column.points() if point.index <= index]
    column.truncate_after(index)
    assert column.points() == kept


def test_a_copy_does_not_follow_its_original() -> None:
    column = series([1.0, 2.0])
    copied = column.copy()
    column.append(9, 3, 3.0)
    assert copied.points() == series([1.0, 2.0]).points()


@pytest.mark.parametrize(
    ("before", "now", "share"), [(10, 10, 0.0), (51, 101, 0.5), (101, 51, 1.0), (0, 5, 1.0), (0, 0, 0.0)]
)
def test_what_has_come_since_is_a_share_of_all_iterations(before: int, now: int, share: float) -> None:
    assert series([1.0] * now).share_since(series([1.0] * before)) == share


def history(*frames: object) -> History:
    made = History()
    for each in frames:
        made.append(each)  # type: ignore[arg-type]
    return made


def test_the_loss_is_taken_from_forwards_alone() -> None:
    made = history(frame(), frame(1, "f", loss=3.0, iteration=1), frame(2, "b", loss=3.0, iteration=1))
    assert [(point.index, point.value) for point in made.loss.points()] == [(1, 3.0)]


def test_a_loss_that_is_no_number_brings_no_point() -> None:
    assert len(history(frame(1, "f", loss=None)).loss) == 0


def test_the_gradient_norm_is_taken_from_backwards_alone() -> None:
    grads = Grads(table(w=[-5.0]), (1,), (False,))
    made = history(frame(), frame(2, "b", grads=grads), frame(3, "s", grads=grads))
    assert [(point.index, point.value) for point in made.grad_norm.points()] == [(2, 5.0)]


@pytest.mark.parametrize("command", ["F", "B"])
def test_a_phase_that_raised_brings_no_point(command: str) -> None:
    grads = Grads(table(w=[-5.0]), (1,), (False,))
    made = history(frame(1, command, loss=1.0, grads=grads, error=TorchError("E", "m", "", 0)))
    assert (len(made.loss), len(made.grad_norm)) == (0, 0)


def test_the_learning_rate_has_a_point_where_it_changes() -> None:
    made = history(frame(), frame(1, "f"), frame(2, "lr=0.5", learning_rate=0.5), frame(3, "f", learning_rate=0.5))
    assert [(point.index, point.value) for point in made.learning_rate.points()] == [(0, 0.1), (2, 0.5)]


def test_forgetting_a_change_of_the_learning_rate_makes_the_same_one_new() -> None:
    made = history(frame(), frame(1, "lr=0.5", learning_rate=0.5))
    made.truncate_after(0)
    made.append(frame(1, "lr=0.5", learning_rate=0.5))
    assert [point.index for point in made.learning_rate.points()] == [0, 1]


def test_a_copied_history_does_not_follow_its_original() -> None:
    made = history(frame())
    copied = made.copy()
    made.append(frame(1, "f", loss=1.0))
    assert (len(made.loss), len(copied.loss)) == (1, 0)


def test_a_path_that_is_too_long_keeps_its_shape_and_its_ends() -> None:
    path = Path(capacity=64)
    spiral = [(0.99**each * math.cos(each / 9), 0.99**each * math.sin(each / 9)) for each in range(1000)]
    path.extend([(each, each, *point) for each, point in enumerate(spiral)])
    path.extend([(1000 + each, 1000 + each, *spiral[-1 - each % 2]) for each in range(1000)])  # it trembles at its end
    assert len(path) <= 64
    assert path.points()[0] == spiral[0]
    assert list(path.indices) == sorted(path.indices)
    assert path.indices[-1] == 1999
    for point in spiral[:200]:
        assert min(math.dist(point, kept) for kept in path.points()) < 0.6


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=60))
def test_a_path_takes_any_numbers(points: list[tuple[float, float]]) -> None:
    path = Path(capacity=8)
    for each, point in enumerate(points):
        path.extend([(each, each, *point)])
    assert len(path) <= 8
    assert not points or str(path.points()[0]) == str(points[0])


def test_sizes_are_values_of_scalars_and_norms_of_others_as_pytorch_gives_them() -> None:
    grads = Grads(table(w=[-2.0], layer=[3.0, 4.0]), (1, 1, 0), (False,) * 3)
    params = table(w=[5.0], layer=[6.0, 8.0], frozen=[1.0])
    made = history(frame(params=params), frame(1, "b", params=params, grads=grads, iteration=1))
    assert made.grads.sizes([0]) == [-2.0]
    assert made.grads.sizes([1]) == [torch.tensor([3.0, 4.0]).norm().item()]
    assert made.grads.sizes([2]) == [MISSING]
    assert made.grads.sizes([0, 1, 2]) == pytest.approx([torch.tensor([-2.0, 3.0, 4.0]).norm().item()])
    assert len(made.grads.series([2])) == 0
    assert made.params.series([0]).points() == [Point(0, 0, 5.0)]


def test_an_update_is_what_a_step_moved_over_the_norm_before_it() -> None:
    step = parse_one("s")
    before, after = table(a=[3.0], b=[0.0, 4.0]), table(a=[3.0], b=[0.0, 3.0])
    moved = {"before": before, "mover": step, "moves": array("d", [0.0, 1.0])}
    made = history(frame(params=before), frame(3, "s", params=after, iteration=1, **moved))
    assert made.updates([0, 1]).values.tolist() == [1 / 5]
    assert made.updates([1]).values.tolist() == [1 / 4]
    assert made.params.sizes([0, 1]) == [5.0, math.hypot(3.0, 3.0)]


def test_a_step_from_zero_has_no_update() -> None:
    moved = {"before": table(w=[0.0]), "mover": parse_one("s"), "moves": array("d", [1.0])}
    assert len(history(frame(3, "s", **moved)).updates([0])) == 0


def test_sizes_of_many_parameters_over_a_long_run_take_no_more_than_a_few_megabytes() -> None:
    sizes = SizeTable()
    row = array("d", [1.0]) * 2000
    for iteration in range(1, 20_000):
        sizes.append(iteration * 4, iteration, row)
    assert len(sizes) <= 2 * RECENT_ROWS
    assert sizes.iterations[0] == 1
    assert list(sizes.iterations[-RECENT_ROWS:]) == list(range(20_000 - RECENT_ROWS, 20_000))
    spaces = [later - earlier for earlier, later in pairwise(sizes.iterations[1:-RECENT_ROWS]) if later > earlier + 1]
    assert set(spaces[:-1]) == {sizes.spacing}  # the older ones stand evenly


def test_sizes_of_one_iteration_run_again_and_again_are_thinned_too() -> None:
    sizes = SizeTable()
    for index in range(5000):
        sizes.append(index, 1, array("d", [1.0]))
    assert len(sizes) <= 1024


def test_a_truncated_history_knows_nothing_of_later_frames() -> None:
    grads = Grads(table(w=[1.0]), (1,), (False,))
    made = history(frame(), frame(2, "b", grads=grads), frame(6, "b", grads=grads))
    kept = made.copy()
    kept.truncate_after(3)
    assert (len(kept.grads), len(kept.grads.iterations), len(made.grads)) == (1, 1, 2)


def test_of_several_points_in_an_iteration_the_last_can_be_taken() -> None:
    series = Series()
    for index, (iteration, value) in enumerate([(1, 0.5), (1, 0.7), (2, 0.4), (3, 0.3), (3, 0.6)]):
        series.append(index, iteration, value)
    assert [(point.index, point.value) for point in series.last_of_iterations().points()] == [
        (1, 0.7),
        (2, 0.4),
        (4, 0.6),
    ]
    series.append(5, 4, 0.9)
    assert list(series.last_of_iterations(whole=True).values) == [0.7, 0.4, 0.6]  # the newest is not over
    series.append(6, 4, 0.8)
    assert list(series.last_of_iterations(whole=True).values) == [0.7, 0.4, 0.6, 0.8]


def test_the_sizes_of_a_long_run_are_as_dense_at_its_beginning_as_later() -> None:
    sizes = SizeTable()
    for iteration in range(20_000):
        sizes.append(4 * iteration + 2, iteration, array("d", [float(iteration)]))
    gaps = [after - before for before, after in pairwise(sizes.iterations)]
    assert len(sizes) > 300
    assert max(gaps) <= sizes.spacing <= 64
