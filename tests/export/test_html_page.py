"""The page is one file that needs no other, reads without JavaScript, and keeps what matters of a long run."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from autograd_tui.core.command_log import CommandLog
from autograd_tui.engine.open_session import open_session
from autograd_tui.export.formats import export_file
from autograd_tui.export.html_page import sample_frames, sampling_note
from autograd_tui.text.explain import explain


class Reader(HTMLParser):
    """Takes a page apart: its text outside scripts and styles, its script data, what it refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.data, self.links = "", "", list[str]()
        self._inside: list[str] = []
        self._is_data = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag in ("script", "style"):
            self._inside.append(tag)
            self._is_data = ("id", "run") in attrs

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text += data
        elif self._is_data:
            self.data += data


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "run.html"
    session = open_session("linear")
    list(session.run_all("fbBs"))
    export_file(path, session.about.config, session.log(), lambda: open_session("linear"))
    return path.read_text(encoding="utf-8")


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def run(page: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read(page).data)
    return found


def test_it_asks_for_nothing_outside_itself(page: str) -> None:
    assert read(page).links == []
    assert not re.search(r"https?:|url\(|@import|fetch\(", page)


def test_every_screen_and_its_sentences_are_there(page: str) -> None:
    session = open_session("linear")
    frames = [session.frame, *session.run_all("fbBs")]
    found = run(page)
    assert [each["index"] for each in found["frames"]] == [0, 1, 2, 3, 4]
    assert [each["said"] for each in found["frames"]] == [explain(frame) for frame in frames]
    assert len(found["wide"]) == len(found["narrow"]) == 5


@pytest.mark.parametrize(("name", "columns"), [("wide", 120), ("narrow", 60)])
def test_every_row_of_a_screen_fills_its_columns(name: str, columns: int, page: str) -> None:
    found = run(page)
    rows = {row for screen in found[name] for row in screen}
    assert {len(read(found["rows"][row]).text) for row in rows} == {columns}


def test_a_screen_shows_its_frame(page: str) -> None:
    found = run(page)
    screen = "\n".join(read(found["rows"][row]).text for row in found["wide"][4])
    assert "frame 4 of 4" in screen
    assert "w  2.0000 → 1.8667  ▼ -0.1333" in screen


def test_without_javascript_the_first_screen_can_be_read(page: str) -> None:
    text = read(page).text
    assert text.count("Which way should w and b move") == 3  # both screens, and the sentence below
    assert "the others need JavaScript" in text


def test_a_long_run_keeps_its_ends_errors_and_settings() -> None:
    session = open_session("linear")
    list(session.run_all("fbsz*100 fbB lr=0.5 sz fbsz*100"))
    log = session.log()
    kept = sample_frames(log, limit=60)
    assert len(kept) == 60
    assert {*range(20), 403, 404, *range(len(log) - 7, len(log) + 1)} <= set(kept)


def test_it_says_what_is_left_out() -> None:
    session = open_session("linear")
    list(session.run_all("fbsz*100"))
    log = session.log()
    assert sampling_note(log, sample_frames(log)).startswith("300 of 401 screens are kept")
    assert sampling_note(CommandLog(), sample_frames(CommandLog())) == ""


def test_what_a_model_says_is_no_markup(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "import torch\nfrom torch import nn\nfrom autograd_tui import Options, Parts, scenario\n\n"
        "def refuse(model, batch):\n    raise ValueError('</script><img src=x>')\n\n"
        "@scenario('<i>own</i>')\ndef build(options):\n"
        "    return Parts(model=nn.Linear(1, 1), batch=lambda i: None, forward=refuse)\n"
    )
    session = open_session(str(own))
    list(session.run_all("f"))
    path = tmp_path / "run.html"
    export_file(path, session.about.config, session.log(), lambda: open_session(str(own)))
    reader = read(path.read_text(encoding="utf-8"))
    assert reader.links == []
    assert "</script><img src=x>" in json.loads(reader.data)["frames"][1]["said"]
