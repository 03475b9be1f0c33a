"""Keys typed faster than they are answered: each means what it would if the one before had been waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from textual import events

from app_screen import Screen, screen
from autograd_tui.core.command import parse
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.frame_store import Branches
from autograd_tui.core.history import History
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.replay.timeline import Timeline
from autograd_tui.engine.session import Session
from autograd_tui.tui import requests, session_screen
from autograd_tui.tui.requests import Look, RequestQueue, Train
from autograd_tui.tui.trace_screen import TraceScreen
from autograd_tui.tui.trainer_thread import GRACE_SECONDS

NAMES = {
    ",": "comma",
    ".": "full_stop",
    ">": "greater_than_sign",
    "<": "less_than_sign",
    " ": "space",
    ":": "colon",
    "←": "left",
    "→": "right",
    "⏎": "enter",
    "⎋": "escape",
    "?": "question_mark",
    "/": "slash",
}

# What is typed at once from frame 0 on, then the commands that have run, and the frame looked at.
TYPED = {
    "fbsu": ("fb", None),
    "fbszfb2u": ("fbsz", None),
    "fbs←s": ("fbs", None),
    "fbs2←": ("fbs", 1),
    "fb←←→b": ("fb", None),
    "fbszfb,": ("fbsz fb", 2),
    "fbszfb,s": ("fbs", None),
    "fbszfb,.←": ("fbsz fb", 5),
    "fbszuu>": ("fb", 4),
    "fbszuu>z": ("fbszz", None),
    "fb<f": ("f", None),
    "fbs←u": ("f", None),
    "fbs←:lr=0.5⏎": ("fb lr=0.5", None),
    "3n2 ": ("fbsz*3 fb", None),
    "3n2nf": ("fbsz*5 f", None),
    "3n←": ("fbsz*3", 11),
    "f3n:lr=0.5⏎u": ("fbsz*3", None),
    "u": ("", None),
    "z,2←,": ("z", 0),
    "fb←iif": ("f*2", None),
    "fii ": ("fbs", None),
}


async def type_at_once(shown: Screen, keys: str) -> None:
    """Have keys come one right behind the other, as a paste or a slow line brings them."""
    for key in keys:
        name = NAMES.get(key, key)
        shown.app.post_message(events.Key(name, None if key in "←→⏎⎋" else key))
    await shown.settle()
    await shown.settle()


async def test_keys_typed_at_once_do_what_the_same_keys_do_one_by_one() -> None:
    async with screen() as shown:
        main = shown.app.main
        for keys, (commands, looking) in TYPED.items():
            main.prompt_actions.run("model linear")
            await shown.settle()
            await type_at_once(shown, keys)
            assert (shown.session.commands(), main.state.looking) == (commands, looking), keys
            assert main.state.pending_looks == ()
            assert main.view.frame is not None
            assert main.view.frame.index == (shown.session.frame.index if looking is None else looking), keys


# Typed into screens that are not there yet.
INTO_SCREENS = [
    "i" + 7 * " " + "i ",
    "fi→→/loss⏎p→f",
    "bi  f",  # refused, so that nothing is entered
    "i:lr=0.5⏎f",
    "i?? →",
    "??q?qf",
    "i?⎋⎋f",
    ":inside⏎ ",
]


async def where_it_stands(shown: Screen) -> tuple[str, str, object]:
    """Say what has run, which screen is on top, and where the walk on it is."""
    await shown.until(lambda: shown.app.main.up_to_date and not shown.app.keys)
    await shown.settle()
    top = shown.app.screen
    walk = top.trace_position.index if isinstance(top, TraceScreen) and top.trace_position else None
    return shown.session.commands(), type(top).__name__, walk


async def test_keys_typed_into_a_screen_that_is_not_there_yet_mean_what_they_do_one_by_one() -> None:
    async with screen() as shown:
        main = shown.app.main

        async def from_the_start() -> None:
            while shown.app.screen is not main:
                await shown.press("escape")
            main.prompt_actions.run("model linear")
            await shown.settle()

        for keys in INTO_SCREENS:
            await from_the_start()
            await type_at_once(shown, keys)
            at_once = await where_it_stands(shown)
            await from_the_start()
            for key in keys:
                await type_at_once(shown, key)
                one_by_one = await where_it_stands(shown)
            assert at_once == one_by_one, keys
        await from_the_start()
        await type_at_once(shown, "i" + 20 * " ")  # which lead out, and then run as many as may wait of one key
        commands, top, _ = await where_it_stands(shown)
        assert commands.startswith("fbsz*")
        assert top == "MainScreen"


async def test_keys_have_their_turn_between_the_parts_that_are_imported_behind_frame_0(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits, parts = threading.Event(), list[str]()

    def import_part(session: Session) -> bool:
        waits.wait(30)
        parts.append(session.commands())
        return len(parts) < 4

    monkeypatch.setattr(Session, "import_part", import_part)
    async with screen() as shown:
        assert shown.app.main.trainer.status.idle  # nothing that is asked for runs
        shown.app.post_message(events.Key("f", "f"))
        await shown.until(lambda: len(shown.app.main.trainer.requests) == 1)
        waits.set()
        await shown.settle()
        await shown.until(lambda: len(parts) == 4)
        assert parts == ["", "f", "f", "f"]
        await shown.press("b")
        assert len(parts) == 4  # all is imported


async def test_who_quits_while_a_part_is_imported_leaves_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, closed = threading.Event(), list[bool]()

    def import_part(session: Session) -> bool:
        begun.set()
        sleep(2 * GRACE_SECONDS)
        return False

    monkeypatch.setattr(Session, "import_part", import_part)
    monkeypatch.setattr(Session, "close", lambda session, *, in_order: closed.append(in_order))
    async with screen() as shown:
        await shown.until(begun.is_set)
        await shown.pilot.press("q")
    shown.app.main.trainer.leave(in_order=True)
    assert closed == [True]


async def test_space_behind_r_pauses_the_run_however_fast_it_comes() -> None:
    async with screen() as shown:
        await type_at_once(shown, "r ")
        assert shown.app.main.trainer.status.run is None
        stopped = shown.session.frame.index
        await shown.press("space")
        assert shown.session.frame.index == stopped + 1


async def test_a_picture_asked_for_behind_a_phase_is_of_that_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with screen() as shown:
        await type_at_once(shown, "fbes")
        assert [path.read_text() for path in tmp_path.glob("*.txt")] == ["autograd-tui linear --do fb\n"]
        assert shown.note == ""  # of the phase behind it
        await type_at_once(shown, "ze")
        assert shown.note.startswith("written: ")
        picture = min(tmp_path.glob("*.svg"))
        assert "frame&#160;2&#160;of&#160;2" in picture.read_text()


async def test_spaces_under_the_veil_show_one_thing_each() -> None:
    async with screen() as shown:
        await type_at_once(shown, "v  ")
        assert shown.session.commands() == "f"
        assert "8.0000" in shown.text("DataPanel")
        assert "3.6667" not in shown.text("DataPanel")
        await type_at_once(shown, "  ")
        assert shown.session.commands() == "fb"


async def test_what_goes_on_changing_is_read_by_the_thread_that_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    readers: dict[str, set[str]] = {}
    left: list[object] = []  # the logs of branches, which change no more
    leave = Branches.leave

    def leaving(branches: Branches, log: CommandLog, *arguments: Any, **named: Any) -> object:
        left.append(log)
        return leave(branches, log, *arguments, **named)

    def noting(kind: type, name: str) -> Callable[..., object]:
        read = getattr(kind, name)

        def reading(*arguments: object) -> object:
            if not any(arguments[0] is log for log in left):
                readers.setdefault(f"{kind.__name__}.{name}", set()).add(threading.current_thread().name)
            return read(*arguments)

        return reading

    for kind, name in [(History, "copy"), (CommandLog, "copy"), (CommandLog, "between"), (Timeline, "look")]:
        monkeypatch.setattr(kind, name, noting(kind, name))
    monkeypatch.setattr(Branches, "leave", leaving)
    async with screen(do="fbsz*20") as shown:
        shown.app.main.ask(shown.app.main.state.train(Goal(iteration=60)))
        await type_at_once(shown, ",,:w=3⏎<u:branch=1⏎")
        assert "fbsz*60" in shown.app.main.command_line()
    assert list(readers.values()) == [{"trainer"}] * 4


def test_a_thousand_requests_wait_at_most() -> None:
    queue = RequestQueue()
    assert all(queue.put(Look("here", index)) for index in range(1_000))
    assert not queue.put(Look("newest"))


def test_what_was_typed_before_a_run_was_seen_waits_for_its_end() -> None:
    queue = RequestQueue()
    queue.put(Train("next", pauses=True))
    assert not queue.interrupts(endless=False)
    assert queue.interrupts(endless=True)


def test_what_was_typed_in_sight_of_a_run_has_its_turn_in_it() -> None:
    queue = RequestQueue()
    queue.put(Look("here", -1, in_sight=True))
    queue.put(Train(parse("f")[0], in_sight=True))
    assert queue.interrupts(endless=False)
    assert queue.next_beside_a_run() == Look("here", -1, in_sight=True)
    assert queue.next_beside_a_run() is None
    assert len(queue) == 1


def test_a_key_that_pauses_a_run_does_nothing_more() -> None:
    queue = RequestQueue()
    queue.put(Train("next", pauses=True, in_sight=True))
    assert queue.next_beside_a_run() is None
    assert len(queue) == 0


async def test_keys_of_the_same_burst_leave_the_note_of_those_that_were_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, came = [100.0], [100.0]
    monkeypatch.setattr("autograd_tui.tui.app.monotonic", lambda: now[0])
    monkeypatch.setattr(events.Key, "time", property(lambda key: came[0], lambda key, time: None), raising=False)
    async with screen() as shown:
        shown.app.say_dropped(5)
        now[0] += 2  # a key waits for so long behind those that were not dropped
        await shown.press("f")
        assert shown.note == "5 keys came faster than they could run, and were dropped"
        shown.app.say_dropped(3)
        await shown.press("b")
        assert shown.note == "8 keys came faster than they could run, and were dropped"
        came[0] += 4
        await shown.press("s")
        assert "dropped" not in shown.note
        shown.app.say_dropped(1)
        assert shown.note == "1 key came faster than it could run, and was dropped"


async def test_keys_for_which_no_room_is_left_are_counted_with_those_that_were_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with screen() as shown:
        shown.app.say_dropped(5)
        for module in (requests, session_screen):
            monkeypatch.setattr(module, "MAX_WAITING", 0)
        await shown.press("f", "b")
        assert shown.note == "7 keys came faster than they could run, and were dropped"
        assert shown.session.frame.index == 0
