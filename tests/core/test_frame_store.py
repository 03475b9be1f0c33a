from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import BARE_FRAME_BYTES, FrameStore
from handmade_frames import frame, table

FIRST = frame()


def store(length: int, *, budget: int = 10 * BARE_FRAME_BYTES) -> FrameStore:
    """Frames that all share the tables of the first."""
    made = FrameStore(FIRST, budget=budget)
    for index in range(1, length):
        made.append(shared(index))
    return made


def shared(index: int) -> Frame:
    return frame(
        index, params=FIRST.params, grads=FIRST.grads, optimizer_state=FIRST.optimizer_state, buffers=FIRST.buffers
    )


@given(st.integers(1, 40), st.integers(-3, 50))
def test_a_frame_is_given_by_its_own_index_or_not_at_all(length: int, index: int) -> None:
    made = store(length)
    found = made.get(index)
    assert (found.index if found else None) == (index if made.oldest.index <= index < length else None)


def test_frames_beyond_the_budget_are_let_go_oldest_first() -> None:
    made = store(100)
    assert 90 <= made.oldest.index < made.newest.index == 99


def test_of_many_small_frames_the_oldest_are_let_go() -> None:
    made = FrameStore(FIRST, max_frames=10)
    for index in range(1, 100):
        made.append(shared(index))
    assert (made.oldest.index, made.newest.index) == (90, 99)


def test_the_newest_frame_stays_however_small_the_budget() -> None:
    made = store(5, budget=0)
    assert (made.oldest.index, made.newest.index) == (4, 4)


def test_tables_of_their_own_cost_more_than_shared_ones() -> None:
    made = FrameStore(FIRST, budget=10 * BARE_FRAME_BYTES)
    for index in range(1, 100):
        made.append(frame(index, params=table(**{f"p{row}": [1.0] for row in range(10)})))
    assert made.newest.index - made.oldest.index < 5


@given(st.integers(1, 40), st.integers(0, 39))
def test_what_came_after_a_frame_is_forgotten(length: int, index: int) -> None:
    made = store(length)
    made.truncate_to(shared(index))
    assert made.newest.index == index
    assert made.get(index + 1) is None


def test_a_branch_from_a_frame_long_let_go_starts_with_that_frame() -> None:
    made = store(100)
    made.truncate_to(shared(3))
    made.append(shared(4))
    assert (made.oldest.index, made.newest.index) == (3, 4)


def test_forgetting_gives_the_room_back() -> None:
    made = store(8)
    for _ in range(50):
        made.truncate_to(shared(3))
        made.append(shared(4))
    assert made.oldest.index == 0
