"""What is in use of the device, in the status row: the least important goes first."""

from __future__ import annotations

import pytest

from autograd_tui.core.run_config import RunConfig
from autograd_tui.core.session_protocol import DeviceLoad, SessionInfo
from autograd_tui.text.frame_summary import load_words, status_line
from autograd_tui.text.styled_text import plain, to_ascii
from handmade_frames import frame

CARD = DeviceLoad(memory=12_300_000_000, total=85_500_000_000, use=0.37, temperature=54)
ABOUT = SessionInfo("the line", "cuda:0", 0, RunConfig("linear"))


def test_a_card_is_told_with_ever_fewer_words() -> None:
    assert load_words(CARD) == ["12.3 of 85.5 GB in use, 37% busy, 54 °C", "12.3 of 85.5 GB, 37%, 54 °C", "37%, 54 °C"]


def test_a_part_of_a_card_tells_only_its_memory() -> None:
    words = load_words(DeviceLoad(memory=1_000_000_000, total=10_000_000_000))
    assert words[0] == "1.0 of 10.0 GB in use"


def test_a_cpu_tells_what_the_process_takes() -> None:
    assert load_words(DeviceLoad(memory=546_152_448)) == ["RSS 0.5 GB"]


def test_what_nobody_knows_is_not_said() -> None:
    assert load_words(None) == load_words(DeviceLoad()) == load_words(DeviceLoad(total=1)) == []


@pytest.mark.parametrize(
    ("width", "row"),
    [
        (120, " the line · SGD lr 0.1 · cuda:0 12.3 of 85.5 GB in use, 37% busy, 54 °C · seed 0"),
        (100, " the line · SGD lr 0.1 · cuda:0 12.3 of 85.5 GB, 37%, 54 °C · seed 0"),
        (80, " the line · SGD lr 0.1 · cuda:0 37%, 54 °C · seed 0"),
        (74, " the line · SGD lr 0.1 · cuda:0 37%, 54 °C"),
        (60, " the line · SGD lr 0.1 · cuda:0"),
        (55, " the line · SGD lr 0.1"),
    ],
)
def test_the_status_row_drops_it_as_it_gets_narrow(width: int, row: str) -> None:
    line = plain(status_line(frame(), ABOUT, 0, width, load=CARD))
    assert line.startswith(f"{row} ")
    assert len(line) == width


def test_in_ascii_there_is_a_form_for_a_degree() -> None:
    assert to_ascii("54 °C", 5) == "54 'C"
