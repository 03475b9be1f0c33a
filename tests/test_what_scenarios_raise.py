"""What a user's code may raise and do, and what the command line says of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile import PLACES, SCENARIO, line_of, write
from program import Run


@pytest.fixture(autouse=True)
def modules_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    sys.modules.pop("my_model", None)


RAISES = {
    "raise ValueError('mine')": "ValueError: mine",
    "raise Bad('mine')": "Bad: mine",
    "raise GeneratorExit": "GeneratorExit",
    "raise StopIteration": "StopIteration",
    "raise MemoryError": "MemoryError",
    "raise Exception": "Exception",
    "raise ExceptionGroup('several', [ValueError('x')])": "ExceptionGroup: several (1 sub-exception)",
    "sys.exit(3)": "SystemExit: 3",
    "raise ValueError('one\\x1b[2J\\ntwo\\x07')": "ValueError: one two",
    "raise Mute": "Mute: (its message cannot be shown: RuntimeError)",
    "endless()": "RecursionError: maximum recursion depth exceeded",
    "input()": "EOFError: EOF when reading a line",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("code", RAISES)
def test_what_a_scenario_raises_is_one_sentence_with_its_file_and_line(
    run: Run, tmp_path: Path, code: str, place: str
) -> None:
    done = run(write(tmp_path, code, place), "--headless", "--json", "--do", "f")
    early = place in ("top", "build")
    assert (done.code, len(done.out), len(done.err)) == (2 if early else 1, 0 if early else 1, 1)
    begin = {"top": "my_model.py could not be read: ", "build": '"mine" could not be built: '}.get(place, "f raised ")
    assert done.err[0].startswith(f"autograd-tui: {begin}{RAISES[code]}")
    line = SCENARIO.split("\n").index("    endless()") + 1 if code == "endless()" else line_of(place)
    assert done.err[0].endswith(f" (my_model.py, line {line})")


@pytest.mark.parametrize("place", PLACES)
def test_a_message_longer_than_anyone_reads_is_shortened(run: Run, tmp_path: Path, place: str) -> None:
    done = run(write(tmp_path, "raise Long", place), "--headless", "--json", "--do", "f")
    assert len(done.err) == 1
    assert len(done.err[0]) < 1100
    assert sum(map(len, done.out)) < 20_000


def test_a_model_that_cannot_be_moved_could_not_be_built(run: Run, tmp_path: Path) -> None:
    code = "Model.train = lambda self, mode=True: 1 / 0"
    done = run(write(tmp_path, code, "build"), "--headless", "--do", "f")
    assert (done.code, len(done.err)) == (2, 1)
    assert done.err[0].startswith('autograd-tui: "mine" could not be built: ZeroDivisionError')


def test_input_takes_no_commands_from_a_stream(run: Run, tmp_path: Path) -> None:
    done = run(write(tmp_path, "input()", "forward"), "--headless", "--json", "--do", "-", stdin="f\nf\n")
    assert (done.code, len(done.out)) == (1, 1)
    assert "EOFError" in done.err[0]
