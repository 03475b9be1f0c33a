"""What terminals send that is no key: pastes, reports, keys without a use."""

from __future__ import annotations

import re

from pseudo_terminal import QUICK_LOAD_SECONDS, QUICK_LOOKS, Terminal, terminal

PASTE = "\x1b[200~{}\x1b[201~"  # as terminals mark it since Textual asks for that
LINES = "fbsz\nlr=0.5\nfb\n"


def command_line(shown: Terminal) -> str:
    """Leave, and give the line that says what has been run."""
    shown.type("\x1b")  # the prompt, where it is open
    shown.wait_until_quiet(2.5 * QUICK_LOAD_SECONDS)
    shown.type("q")
    said = shown.end()
    assert shown.exit_code == 0
    return said[said.index("autograd-tui ") :].rstrip()


def test_lines_pasted_into_the_screen_run_nothing() -> None:
    with terminal("linear", program=QUICK_LOOKS) as shown:
        shown.wait_for("frame 0 of 0")
        shown.type(PASTE.format(LINES) + "f")
        shown.wait_for("frame 1 of 1")
        assert command_line(shown) == "autograd-tui linear --do f"


def test_of_lines_pasted_into_the_prompt_the_first_waits_for_enter() -> None:
    with terminal("linear", program=QUICK_LOOKS) as shown:
        shown.wait_for("frame 0 of 0")
        shown.type(":" + PASTE.format(LINES))
        shown.wait_for(":fbsz")
        assert "frame 0 of 0" in shown.text
        assert ":fbszlr" not in shown.text
        shown.type("\r")
        shown.wait_for("frame 4 of 4")
        assert command_line(shown) == "autograd-tui linear --do fbsz"


REPORTS = {
    "focus goes": "\x1b[O",
    "focus comes": "\x1b[I",
    "focus goes and comes": "\x1b[O\x1b[I" * 5,
    "a mode is known": "\x1b[?2026;2$y",
    "where the cursor is": "\x1b[24;80R",
    "F20": "\x1b[34~",
    "alt and F4": "\x1b[1;3S",
    "a super key and end": "\x1b[1;9F",
    "kitty's key for media": "\x1b[57428u",
    "kitty's left control": "\x1b[57442;5u",
    "a key that is let go": "\x1b[97;1:3u",
    "a code point that there is not": "\x1b[1114112;1u",
    "a surrogate": "\x1b[97;3;55296u",
    "bytes that are no UTF-8": "\udcff\udced\udca0\udc80",
    "half a character": "\udce2\udc82",
    "a size that cannot be": "\x1b[48;9999;9999;1;1t",
    "a colour": "\x1b]11;rgb:ffff/ffff/ffff\x1b\\",
    "what it is": "\x1b[?62;22c",
    "a click on nothing": "\x1b[<0;99999;99999M",
}


def test_reports_and_keys_without_a_use_run_nothing_and_the_next_key_is_heard() -> None:
    # The size is that of another terminal, and left alone.
    with terminal("linear", program=QUICK_LOOKS, COLUMNS="9999", LINES="9999") as shown:
        shown.wait_for("frame 0 of 0")
        for place, (name, sent) in enumerate(REPORTS.items(), start=1):
            shown.type(sent + "F")
            shown.wait(lambda count=place: f" frame {count} of {count}\n" in shown.text, f"a frame after {name}")  # type: ignore[misc]
        assert command_line(shown) == f"autograd-tui linear --do 'F*{len(REPORTS)}'"


def test_of_keys_that_come_faster_than_they_can_run_a_part_is_run_and_the_rest_is_counted() -> None:
    with terminal("linear", program=QUICK_LOOKS) as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("fz" * 8000)  # of which each can run, whatever was dropped before it
        shown.wait_for("came faster than they could run, and were dropped")

        def counts() -> list[int]:
            found = re.search(r"([\d,]+) keys came faster", shown.text), re.search(r"frame (\d+) of", shown.text)
            return [int(each[1].replace(",", "")) if each else 0 for each in found]

        shown.wait(lambda: sum(counts()) == 16_000, "the count of all keys")  # some may come when others have been told
        assert min(counts()) > 0
        shown.type("?")
        shown.wait_for("the keys that matter")
