"""The command `script` ends with the script's own exit code, where that has ended by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autograd_tui.cli import script_command
from autograd_tui.core.errors import Refused
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.session_protocol import InteractiveSession
from autograd_tui.engine.script import script_session
from autograd_tui.tui import app
from autograd_tui.tui.lent_terminal import LentTerminal

TRAINS = """
import sys, torch
weight = torch.ones(1, requires_grad=True)
for _ in range(2):
    weight.square().sum().backward()
sys.exit(5)
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Give what runs a script's code as the command does, with what a user would do in place of a screen."""
    monkeypatch.setattr(script_command, "check_terminal", lambda: None)

    def run(code: str, use: Callable[[InteractiveSession], int]) -> int:
        (tmp_path / "train.py").write_text(code)

        def on_screen(open_session: Callable[[None], InteractiveSession], *_: Any, **__: Any) -> int:
            try:
                session = open_session(None)
            except Refused:
                return 2
            left = use(session)
            session.close(in_order=left == 0)
            return left

        monkeypatch.setattr(app, "run_on_screen", on_screen)
        return script_command.script(["--no-journal", str(tmp_path / "train.py")])

    return run


def to_its_end(session: InteractiveSession) -> int:
    with pytest.raises(Refused, match="has ended after 4 events"):
        list(session.run_until(Goal()))
    return 0


def test_a_script_that_never_trains_ends_the_program_with_its_code(command: Callable[..., int]) -> None:
    assert command("raise SystemExit(4)", lambda session: 0) == 4
    assert command("pass", lambda session: 0) == 0


def test_a_script_that_has_ended_gives_its_exit_code(command: Callable[..., int]) -> None:
    assert command(TRAINS, to_its_end) == 5
    assert command(TRAINS, lambda session: 0) == 0  # it was left while it was held
    assert command(TRAINS, lambda session: to_its_end(session) or 1) == 1  # a bug of ours is no end of the script's


def test_a_script_that_is_left_before_it_has_trained_gives_no_exit_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(script_command, "check_terminal", lambda: None)

    def on_screen(open_session: Callable[[None], InteractiveSession], *_: Any, lent: LentTerminal, **__: Any) -> int:
        threading.Timer(0.2, lent.close).start()  # as `q` does
        with pytest.raises(script_session.NeverTrained):
            open_session(None)
        return 0

    monkeypatch.setattr(app, "run_on_screen", on_screen)
    assert script_command.script(["--no-journal", str(tmp_path / "train.py")]) == 0


def test_without_a_terminal_no_option_is_named_that_a_script_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("pass")
    with pytest.raises(Refused, match=r"^this is no terminal, so there is no screen\.$"):
        script_command.script([str(tmp_path / "train.py")])


def test_what_python_would_not_run_is_refused_before_a_screen_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for each in ("train.py", "notes.ipynb"):
        (tmp_path / each).write_text("pass")
    (tmp_path / "package.py").mkdir()
    refusals = {
        "": "no script is named",
        "trian.py": 'there is no file "trian.py": the nearest is train.py.',
        "train": 'there is no file "train": the nearest is train.py.',
        "elsewhere/": 'there is no file "elsewhere/".',
        "notes.ipynb": '"notes.ipynb" is a notebook: jupyter nbconvert --to script notes.ipynb makes a script of it.',
        "package.py": '"package.py" is a folder without a __main__.py, which Python would run: name a file in it.',
    }
    for words, sentence in refusals.items():
        with pytest.raises(Refused) as error:
            script_command.script(words.split())
        assert str(error.value).startswith(sentence)


def test_a_session_that_never_came_about_says_so(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("raise SystemExit(4)")
    with pytest.raises(
        script_session.NeverTrained, match=r"train\.py has ended before a backward was seen \(exit code 4\)"
    ):
        script_session.ScriptSession((str(tmp_path / "train.py"),), on_output=lambda _: None)
