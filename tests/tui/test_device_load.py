"""What is in use of the device, in the first row: read while nothing else happens, and drawn where it has changed."""

from __future__ import annotations

import pytest

from app_screen import screen
from autograd_tui.core.session_protocol import DeviceLoad
from autograd_tui.engine.session import Session
from autograd_tui.tui import trainer_thread


async def test_it_is_shown_without_a_key_and_leaves_the_note_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now: list[DeviceLoad | None] = [None]
    monkeypatch.setattr(trainer_thread, "LOAD_SECONDS", 0.02)
    monkeypatch.setattr(Session, "device_load", property(lambda session: now[0]))
    async with screen() as shown:
        await shown.press("f")
        assert " the line · SGD lr 0.1 · cpu · seed 0 " in shown.text("StatusPanel")
        now[0] = DeviceLoad(2_000_000_000, 8_000_000_000, 0.5, 60)
        await shown.press("s")  # which is refused
        note = shown.text("NotePanel")
        assert "backward first" in note
        assert " · cpu 2.0 of 8.0 GB in use, 50% busy, 60 °C · seed 0 " in shown.text("StatusPanel")
        now[0] = DeviceLoad(3_000_000_000, 8_000_000_000)
        await shown.until(lambda: " · cpu 3.0 of 8.0 GB in use · seed 0 " in shown.text("StatusPanel"))
        assert shown.text("NotePanel") == note
