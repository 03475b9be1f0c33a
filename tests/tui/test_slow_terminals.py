"""Frames of a run on a terminal that takes its time, and on a slow line: those that would have to wait are left out."""

from __future__ import annotations

import io
from typing import Any

import pytest

from app_screen import Screen, screen
from autograd_tui.tui import session_screen
from autograd_tui.tui.session_screen import DrawingBudget, Spent

SLOW = 1e-4  # a learning rate at which a run of the line goes on for long, and does not come to rest


async def run_on(shown: Screen) -> int:
    """Let the run go on for thousands of frames; return the index of the frame on the screen."""
    newest = shown.session.newest
    await shown.until(lambda: shown.session.newest > newest + 4000)
    await shown.pilot.pause()
    frame = shown.app.main.view.frame
    assert frame is not None
    return frame.index


async def test_a_run_draws_no_frame_while_the_terminal_is_behind_and_the_newest_one_then() -> None:
    async with screen(lr=SLOW) as shown:
        driver: Any = shown.app._driver
        await shown.pilot.press("r")
        await run_on(shown)
        driver.is_behind = True
        before = await run_on(shown)
        assert await run_on(shown) == before
        driver.is_behind = False
        behind = shown.session.newest
        await shown.until(lambda: bool(shown.app.main.view.frame and shown.app.main.view.frame.index >= behind))
        driver.is_behind = True
        await shown.press("space")  # a key is answered on any terminal
        assert shown.app.main.view.frame is shown.session.frame


async def test_after_a_frame_of_many_bytes_a_run_draws_none_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_screen, "MAX_PAUSE", 1000.0)
    async with screen(lr=SLOW) as shown:
        driver: Any = shown.app._driver
        driver.bytes_sent = 0
        await shown.pilot.press("r")
        await run_on(shown)
        driver.bytes_sent = 900 * session_screen.MAX_BYTES_PER_SECOND
        before = await run_on(shown)
        assert await run_on(shown) == before
        await shown.press("space")
        assert shown.app.main.view.frame is shown.session.frame


async def test_a_run_at_full_speed_is_drawn_no_more_often_than_drawing_may_hold_it_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with screen(lr=SLOW) as shown:
        await shown.pilot.press("r")
        before = await run_on(shown)
        await shown.until(lambda: bool((frame := shown.app.main.view.frame) and frame.index > before))
        monkeypatch.setattr(session_screen, "MAX_PAUSE", 1000.0)
        monkeypatch.setattr(session_screen, "MAX_DRAW_SHARE", 1e-6)
        before = await run_on(shown)
        assert await run_on(shown) == before
        await shown.press("space")
        assert shown.app.main.view.frame is shown.session.frame


@pytest.mark.parametrize("sizes", [[600], [1300, 1300, 1300, 7000], [5000, 3000], [7900], [20_000]])
@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_no_second_of_a_run_takes_more_bytes_than_it_may(sizes: list[int], delay: float) -> None:
    budget, sent, written = DrawingBudget(), 0, list[tuple[float, int]]()  # when, and how many
    now = 0.0
    while now < 60:
        now += 0.05
        sent = sum(size for moment, size in written if moment + delay <= now)
        spent = Spent(now, sent, 0.0)
        if budget.pause(spent, paced=True) <= 0:
            budget.add(spent)
            written.append((now, sizes[len(written) % len(sizes)]))
    seconds = [[size for moment, size in written if 0 <= moment - start < 1 - 1e-9] for start, _ in written[4:]]
    assert all(len(each) == 1 or sum(each) <= session_screen.MAX_BYTES_PER_SECOND for each in seconds)
    assert len(written) > (100 if sizes == [600] else 55)


def test_a_run_without_a_pace_of_its_own_is_held_up_by_drawing_no_more_than_a_share_of_its_time() -> None:
    budget = DrawingBudget()
    budget.add(Spent(10.0, 0, 5.0))
    now = Spent(10.1, 500, 5.01)
    assert budget.pause(now, paced=False) == pytest.approx(0.01 / session_screen.MAX_DRAW_SHARE - 0.1)
    assert budget.pause(now, paced=True) <= 0
    assert budget.pause(Spent(10.1, 500, 9.0), paced=False) == pytest.approx(session_screen.MAX_PAUSE - 0.1)
    budget.clear()
    assert budget.pause(now, paced=False) <= 0


def test_the_writes_that_a_terminal_has_taken_are_counted_when_they_are_flushed() -> None:
    driver = pytest.importorskip("autograd_tui.tui.terminal_driver", exc_type=ImportError)
    written = io.StringIO()
    file = driver.CountedFile(written)
    file.write("a")
    file.write("b")
    assert file.arrived == 0
    file.flush()
    assert (file.arrived, written.getvalue(), file.closed) == (2, "ab", False)
