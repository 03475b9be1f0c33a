"""Frames of a run on a terminal that takes its time, and on a slow line: those that would have to wait are left out."""

from __future__ import annotations

import io
from typing import Any

import pytest

from app_screen import Screen, screen
from autograd_tui.tui import session_screen

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
    monkeypatch.setattr(session_screen, "MAX_PAUSE", 1000.0)
    async with screen(lr=SLOW) as shown:
        await shown.pilot.press("r")
        before = await run_on(shown)
        await shown.until(lambda: bool((frame := shown.app.main.view.frame) and frame.index > before))
        monkeypatch.setattr(session_screen, "MAX_DRAW_SHARE", 1e-6)
        before = await run_on(shown)
        assert await run_on(shown) == before
        await shown.press("space")
        assert shown.app.main.view.frame is shown.session.frame


def test_the_writes_that_a_terminal_has_taken_are_counted_when_they_are_flushed() -> None:
    driver = pytest.importorskip("autograd_tui.tui.terminal_driver", exc_type=ImportError)
    written = io.StringIO()
    file = driver.CountedFile(written)
    file.write("a")
    file.write("b")
    assert file.arrived == 0
    file.flush()
    assert (file.arrived, written.getvalue(), file.closed) == (2, "ab", False)
