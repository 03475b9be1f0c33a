"""Names and words of others that a terminal would obey are printed so that it does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autograd_tui.core.capabilities import LIVE
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.errors import Refused
from autograd_tui.core.run_config import RunConfig
from autograd_tui.core.session_protocol import SessionInfo
from autograd_tui.core.terminal_text import print_warnings_as_lines, quoted
from autograd_tui.tui.app import _say_last
from autograd_tui.tui.captured_output import CapturedOutput
from program import Run

CLEAR, CLIPBOARD, C1, BIDI = "\x1b[2J", "\x1b]52;c;eA==\x07", "\x9b31m\x85", "\u202eevil\u2066"
HOSTILE = f"a{CLEAR}{CLIPBOARD}{C1}{BIDI}\r\x0b\x7f\u2028\nb  c'"
HIDDEN = f"my  {BIDI} model's.py"
BYTES = os.fsdecode(b"no UTF-8 \xff")
SCENARIO = f"""
import sys, warnings
import torch
from torch import nn
from autograd_tui import Parts, scenario

HOSTILE = {HOSTILE!r}

class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_parameter(HOSTILE, nn.Parameter(torch.ones(1)))
        self.stray = torch.ones(1, requires_grad=True)
        self.register_parameter("w", nn.Parameter(torch.ones(1)))

    def forward(self, x):
        warnings.warn(HOSTILE)
        if self.w < 0:
            raise type(HOSTILE, (Exception,), {{}})(HOSTILE)
        return x * getattr(self, HOSTILE) * self.w * self.stray

@scenario(HOSTILE, width="1")
def build(options):
    x = torch.ones(3)
    metrics = {{HOSTILE: lambda q, y: 1.0}}
    return Parts(model=Hidden(), batch=lambda i: (x, x), loss=nn.functional.mse_loss, metrics=metrics)
"""


def assert_harmless(text: str) -> None:
    assert all(line.isprintable() for line in text.split("\n")), text


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a scenario whose file, title, parameter, metric, option and errors have hostile names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    name = HOSTILE + ".py"
    (tmp_path / name).write_text(SCENARIO, encoding="utf-8")
    return name


@pytest.fixture
def journal(scenario: str, run: Run, tmp_path: Path) -> Path:
    """Run it under a name that a journal can hold; then have that say hostile things, under a hostile name."""
    (tmp_path / scenario).rename(tmp_path / HIDDEN)
    assert run(HIDDEN, "--headless", "--do", "fbsz", "--option", f"width={BIDI}").code == 0
    (path,) = (tmp_path / "state").rglob("*.journal")
    first, *rest = path.read_text().splitlines(keepends=True)
    header = json.loads(first)
    header["versions"]["torch"] = HOSTILE
    hostile = path.with_name(f"{HOSTILE}.journal")
    path.unlink()
    hostile.write_text("".join([json.dumps(header) + "\n", *rest]))
    return hostile


WORDS = [
    ["--headless", "--do", "fbsz w=-1 f"],
    ["--headless", "--do", "i:f i:b s w=-1 F", "--watch", "w > 0"],
    ["--headless", "--do", "fb", "--json"],
    ["--headless", "--do", "f", "--option", f"{HOSTILE}=1"],
]


@pytest.mark.parametrize("words", WORDS, ids=lambda words: words[2])
@pytest.mark.filterwarnings("ignore")
def test_a_run_of_hostile_names_prints_none_of_them_raw(scenario: str, run: Run, words: list[str]) -> None:
    done = run(scenario, *words)
    assert "evil" in done.text
    assert_harmless(done.text)


def test_lines_of_json_hold_no_control_character_of_any_kind(scenario: str, run: Run) -> None:
    done = run(scenario, "--headless", "--do", "f", "--json")
    (line,) = done.out
    assert line.isascii()
    assert HOSTILE in json.loads(line)["params"]


@pytest.mark.filterwarnings("ignore")
def test_a_hostile_journal_is_listed_run_and_deleted_in_harmless_words(journal: Path, run: Run, tmp_path: Path) -> None:
    table = tmp_path / f"{HOSTILE}.csv"
    commands: list[list[str]] = [
        ["sessions"],
        ["resume", str(journal)],
        ["resume", str(journal), "--scenario", HIDDEN, "--headless", "--do", "f"],
        ["replay", str(journal), "--scenario", HIDDEN, "--headless", "--check"],
        ["export", str(journal), "--scenario", HIDDEN, "--to", str(table)],
        ["export", str(journal), "--scenario", HIDDEN, "--to", str(table)],
        ["follow", str(journal)],
        [HIDDEN, "--headless", "--do", "f", "--journal", str(journal)],
        ["sessions", "--delete", str(journal)],
    ]
    said = [run(*words) for words in commands]
    for done in said:
        assert_harmless(done.text)
    print([(d.code, d.text) for d in said])
    assert [done.code for done in said] == [0, 2, 0, 0, 0, 2, 2, 2, 0]
    assert quoted(HIDDEN) in said[1].text
    assert table.exists()


ARGUMENTS = [
    [HOSTILE],
    [BYTES],
    [f"--{HOSTILE}"],
    *(["--headless", flag, HOSTILE] for flag in ("--lr", "--data", "--option", "--do", "--device", "--optimizer")),
    *(["--headless", "--do", "f", flag, HOSTILE] for flag in ("--watch", "--memory", "--state", "--decay", "--theme")),
    *([command, HOSTILE] for command in ("resume", "follow", "replay", "export")),
    *([command, f"--{HOSTILE}"] for command in ("resume", "follow", "replay", "export", "sessions")),
    ["sessions", "--delete", HOSTILE, BYTES],
]


@pytest.mark.parametrize("words", ARGUMENTS, ids=lambda words: " ".join(words)[:20].encode("unicode_escape").decode())
def test_hostile_arguments_are_refused_in_harmless_words(
    run: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert (done.code, len(done.err)) == (2, 1)
    assert_harmless(done.text)


def test_a_bug_of_ours_is_shown_as_python_would_and_harmless(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(words: list[str]) -> int:
        raise RuntimeError(HOSTILE)

    monkeypatch.setitem(__import__("autograd_tui.cli.program").cli.program.RUN_COMMANDS, "sessions", broken)
    done = run("sessions")
    assert (done.code, done.err[0]) == (1, "Traceback (most recent call last):")
    assert_harmless(done.text)


@pytest.mark.parametrize("failure", [None, Refused(HOSTILE), RuntimeError(HOSTILE)], ids=type)
def test_what_is_said_on_leaving_the_screen_is_harmless(
    failure: BaseException | None, capfd: pytest.CaptureFixture[str]
) -> None:
    about = SessionInfo(HOSTILE, "cpu", 0, RunConfig(HOSTILE, own={"width": HOSTILE}))
    runner = SimpleNamespace(unkept=[HOSTILE], earlier_command_lines=[about.command_line_with(CommandLog())])
    main = SimpleNamespace(
        trainer=SimpleNamespace(runner=runner, can=LIVE), last_command_line=lambda: about.command_line
    )
    app: Any = SimpleNamespace(failure=failure, main=main)
    output = CapturedOutput()
    output.take_in(HOSTILE.encode("utf-8", "replace") + b"\n")
    _say_last(app, output, HOSTILE)
    captured = capfd.readouterr()
    assert "evil" in captured.err
    assert_harmless(captured.out + captured.err)
    assert captured.out == ("" if failure else f"{about.command_line}\n" * 2)


def test_a_warning_is_shown_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    print_warnings_as_lines()
    said = warnings.formatwarning(UserWarning(HOSTILE), UserWarning, f"{HOSTILE}.py", 3, f"warn({HOSTILE})")
    assert said.count("UserWarning: ") == 1
    assert_harmless(said)


SHELLS = [shell for shell in ("bash", "zsh", "ksh") if shutil.which(shell)]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "word", ["plain", "a b", "it's", HOSTILE, BYTES, "\\n", "\\\x1b'\"$(x)`x`1", "a   b", "é\x9b7"]
)
def test_a_word_for_the_shell_is_that_word_and_printable(shell: str, word: str) -> None:
    written = quoted(word)
    assert written.isprintable()
    done = subprocess.run([shell, "-c", f"printf %s {written}"], capture_output=True, check=True)
    assert os.fsdecode(done.stdout) == word
