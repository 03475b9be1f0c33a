"""What a terminal may send, read without one; the same in a real terminal is in tests/terminal."""

from __future__ import annotations

import inspect
import os
import sys
from threading import Event
from types import SimpleNamespace

import pytest
from textual import events
from textual.message import Message

if sys.platform == "win32":
    pytest.skip("Windows has Textual's own driver", allow_module_level=True)

import pty

from textual.drivers.linux_driver import LinuxDriver

from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.screen_cells import ScreenCells
from autograd_tui.tui.terminal_driver import (
    LONGEST_STRING,
    MOST_MOVES,
    MOST_PASTED,
    MOST_WAITING,
    PASTE,
    PASTED,
    TerminalDriver,
    TerminalInput,
)


def names(found: list[Message]) -> list[str]:
    """Give keys by their names, and other events by their kinds."""
    return [each.key if isinstance(each, events.Key) else type(each).__name__ for each in found]


def typed(*parts: str) -> list[str]:
    """Give what is read of a text that comes in parts, and then a quiet moment."""
    reader = TerminalInput()
    return names([event for part in parts for event in reader.feed(part)] + reader.quiet())


READ = {
    "f": ["f"],
    " ": ["space"],
    "\r": ["enter"],
    "\x03": ["ctrl+c"],
    "\x1b": ["escape"],
    "\x1b\x1b": ["escape", "escape"],
    "\x1b[A": ["up"],
    "\x1bOA": ["up"],
    "\x1b[[A": ["f1"],
    "\x1b\x1b[A": ["escape", "up"],
    "\x1b[15~": ["f5"],
    "\x1bx": ["alt+x"],
    "\x1b[102;2u": ["shift+f"],
    "\x1b[102;2;70u": ["F"],
    "\x1b[97;;97u": ["a"],
    "\x1b[99;5u": ["ctrl+c"],
    "\x1b[27u": ["escape"],
    "\x1b[I\x1b[O": ["AppFocus", "AppBlur"],
    "\x1b[<0;3;4M\x1b[<0;3;4m": ["MouseDown", "MouseUp"],
    "\x1b[<65;3;4M": ["MouseScrollDown"],
    f"{PASTE}fbsz\x1b[Af{PASTED}": ["Paste"],
}
DROPPED = [
    "\x1b[97;1:3u",  # a key that is let go, in kitty's protocol
    "\x1b[:u",
    "\x1b[1114112;1u",  # behind the last code point that there is
    "\x1b[97;1;1114112u",
    "\x1b[55296;3u",  # a surrogate, which no terminal can be told
    "\x1b[97;3;55296u",
    "\x1b[99999999999999999999999u",
    f"\x1b[{'9' * 5000}u",
    f"\x1b[<{'9' * 5000};1;1M",
    "\x1b[<0;1M",
    "\x1b[<;;M",
    "\x1b[<0;-1;-1M",
    "\x1b[0;1M",
    "\x1b[M !!",
    "\x1b[?62;22c",
    "\x1b[>41;354;0c",
    "\x1b]11;rgb:0000/0000/0000\x1b\\",
    "\x1b]52;c;fbsz\x07",
    "\x1bP1$r0 q\x1b\\",
    "\x1b_Gi=1;OK\x1b\\",
    f"\x1b]{'f' * (2 * LONGEST_STRING)}",
    "\x1b[12",
    "\x1b[<0;3",
    "\x1bPfbs",
    f"{PASTE}{PASTED}",
    "\x1b[12\x1b[5",
]


@pytest.mark.parametrize("text", READ)
def test_a_key_is_read_whole_and_cut_at_any_place(text: str) -> None:
    for place in range(1, len(text) + 1):
        assert typed(text[:place], text[place:]) == READ[text]


@pytest.mark.parametrize("text", [each for each in DROPPED if not each.endswith(("3", "s", "12", "[5", "f"))])
def test_what_cannot_be_read_is_dropped_and_the_next_key_is_heard(text: str) -> None:
    for place in {1, 2, 3, len(text) // 2, len(text) - 1}:
        assert typed(text[:place], text[place:] + "f") == ["f"]


@pytest.mark.parametrize("text", DROPPED)
def test_a_sequence_that_never_ends_is_dropped_at_a_quiet_moment(text: str) -> None:
    reader = TerminalInput()
    assert names(reader.feed(text) + reader.quiet()) == []
    assert names(reader.feed("f")) == ["f"]


def test_a_sequence_that_an_escape_breaks_off_is_dropped() -> None:
    assert typed("\x1b[12\x1b[A") == ["up"]
    assert typed("\x1b]11;rgb\x1b[A") == ["up"]
    assert typed("\x1b[12\rf") == ["enter", "f"]


def test_a_paste_is_cut_to_a_bound_and_its_end_is_found_behind_it() -> None:
    reader = TerminalInput()
    found = reader.feed(PASTE) + [event for _ in range(50) for event in reader.feed("x" * 1000)]
    found += reader.feed(PASTED[:3]) + reader.quiet() + reader.feed(PASTED[3:] + "f")
    assert names(found) == ["Paste", "f"]
    paste = found[0]
    assert isinstance(paste, events.Paste)
    assert paste.text == "x" * (MOST_PASTED + 1)


@pytest.mark.parametrize(("key", "name"), [("\x03", "ctrl+c"), ("\x1b", "escape"), ("\x1b[99;5u", "ctrl+c")])
def test_a_paste_without_an_end_is_left_by_a_key_typed_by_hand(key: str, name: str) -> None:
    reader = TerminalInput()
    assert names(reader.feed(f"{PASTE}fb") + reader.quiet() + reader.feed("sz") + reader.quiet()) == []
    assert names(reader.feed(key) + reader.quiet() + reader.feed("f")) == ["Paste", name, "f"]


class Counted(TerminalDriver):
    """A driver without a terminal or an app, that keeps what it hands on."""

    def __init__(self) -> None:
        self._cells = ScreenCells()
        self.handed_on: list[str] = []
        self.said: list[int] = []
        self._posted, self._dropped = 0, None
        self._app = SimpleNamespace(
            taken=0, leave=None, keys=[], say_dropped=None, call_later=lambda say, count: self.said.append(count)
        )  # type: ignore[assignment]
        self.cursor_origin = None
        self._down_buttons = []
        self._last_move_event = None

    def send_message(self, message: Message) -> None:
        self.handed_on += names([message])


def key(name: str) -> events.Key:
    return events.Key(name, name)


def test_keys_that_come_too_fast_are_taken_up_to_a_bound_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Message, "set_sender", lambda message, sender: message)
    driver = Counted()
    for _ in range(MOST_WAITING + 3):
        driver.process_message(key("f"))
    assert driver.handed_on == ["f"] * MOST_WAITING
    driver._app.taken = MOST_WAITING
    driver.process_message(key("q"))  # what comes behind a gap may mean anything
    driver.process_message(key("ctrl+c"))
    assert driver.handed_on[MOST_WAITING:] == ["ctrl+c"]
    driver._tell()
    driver.process_message(key("b"))
    driver._tell()
    assert driver.handed_on[MOST_WAITING:] == ["ctrl+c", "b"]
    assert driver.said == [4]


def test_moves_of_the_mouse_leave_room_for_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Message, "set_sender", lambda message, sender: message)
    driver = Counted()
    for _ in range(2 * MOST_WAITING):
        driver.process_message(TerminalInput().feed("\x1b[<35;3;4M")[0])
    driver.process_message(key("f"))
    assert driver.handed_on == ["MouseMove"] * MOST_MOVES + ["f"]
    driver._tell()
    assert driver.said == []


def test_sizes_that_come_among_the_keys_are_dropped() -> None:
    driver = Counted()
    for event in TerminalInput().feed("\x1b[48;9999;9999;1;1t\x1b[?2048;2$y"):
        driver.process_message(event)
    assert driver.handed_on == []


def test_a_terminal_that_has_gone_away_is_left_and_read_no_more() -> None:
    ours, theirs = pty.openpty()
    driver = Counted()
    driver.fileno, driver.exit_event = theirs, Event()
    os.close(ours)
    try:
        driver.run_input_thread()
    finally:
        os.close(theirs)
    assert driver.said == [129]  # the exit code with which the app is asked to leave


SIZES = {(120, 40): (120, 40), (0, 0): (80, 24), (5000, 2000): (1000, 400), (1, 1): (1, 1), (0, 30): (80, 30)}


@pytest.mark.parametrize(("true", "taken"), SIZES.items())
@pytest.mark.parametrize("columns", ["9999", "0", "-3", "wide"])
def test_the_size_is_the_terminals_own_and_within_bounds(
    true: tuple[int, int], taken: tuple[int, int], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import termios

    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", columns)
    ours, theirs = pty.openpty()
    driver = Counted()
    driver.fileno = theirs
    try:
        termios.tcsetwinsize(theirs, true[::-1])
        assert driver._cells.changes(shown := "\x1b[1;1Ha row") == shown
        assert driver._get_terminal_size() == taken
        assert driver._cells.changes(shown) == shown, "a terminal of another size may show other cells"
    finally:
        os.close(ours)
        os.close(theirs)
    assert driver._get_terminal_size() == (80, 24), "where there is no terminal"


OUR_OWN = ("_read", "_takes", "_tell", "_take_terminal_again", "forget_cells", "lend", "take_back")


def test_textual_has_all_that_the_driver_takes_the_place_of() -> None:
    for name, method in vars(TerminalDriver).items():
        if inspect.isfunction(method) and name not in OUR_OWN:
            theirs = inspect.signature(getattr(LinuxDriver, name)).parameters
            assert list(inspect.signature(method).parameters) == list(theirs), name
    assert {"fileno", "exit_event", "attrs_before"} <= set(LinuxDriver.__init__.__code__.co_names)
    assert "run_input_thread" in LinuxDriver._run_input_thread.__code__.co_names


def test_the_app_takes_the_tolerant_driver_in_the_place_of_textuals_own_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    app = AutogradApp(lambda name: pytest.fail("not opened"), (), title="linear")  # type: ignore[arg-type]
    assert app.driver_class is TerminalDriver
    monkeypatch.setattr(sys, "platform", "win32")
    assert app.get_driver_class() is LinuxDriver
