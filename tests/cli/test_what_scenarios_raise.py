"""What a user's code may raise and do, and what the command line says of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import autograd_tui
from autograd_tui.core import frame
from autograd_tui.core.run_config import BUILT_IN
from autograd_tui.engine.training.user_code import torch_error
from hostile_scenarios import PLACES, SCENARIO, line_of, write
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
    code = "Model.to = lambda self, device: 1 / 0"
    done = run(write(tmp_path, code, "build"), "--headless", "--do", "f")
    assert (done.code, len(done.err)) == (2, 1)
    assert done.err[0].startswith('autograd-tui: "mine" could not be built: ZeroDivisionError')


def test_input_takes_no_commands_from_a_stream(run: Run, tmp_path: Path) -> None:
    done = run(write(tmp_path, "input()", "forward"), "--headless", "--json", "--do", "-", stdin="f\nf\n")
    assert (done.code, len(done.out)) == (1, 1)
    assert "EOFError" in done.err[0]


PACKAGE = Path(autograd_tui.__file__).parent


def raised_in(*files: Path | str) -> str:
    """Give the file that is named where functions of these files call each other, and the last one raises."""
    names: dict[str, Any] = {"inner": partial(int, "no number")}
    for file in reversed(files):
        exec(compile("def outer(inner=inner):\n    inner()", str(file), "exec"), names)
        names["inner"] = names["outer"]
    with pytest.raises(ValueError, match="no number") as raised:
        names["inner"]()
    inside = raised.tb.tb_next  # of what was called, not of this file
    return torch_error(raised.value.with_traceback(inside)).file


def test_no_file_of_ours_is_ever_named() -> None:
    shipped = {PACKAGE / "scenarios" / f"{name}.py" for name in BUILT_IN}
    for path in set(PACKAGE.rglob("*.py")) - shipped:
        assert raised_in("my_model.py", path) == "my_model.py"
        assert raised_in(path) == ""


@pytest.mark.parametrize(
    ("module", "named"), [(frame, __file__), (torch, __file__), (sys.modules[__name__], "<string>")]
)
def test_what_dataclasses_generate_is_of_the_module_that_it_is_for(module: ModuleType, named: str) -> None:
    generated = eval(compile("lambda: 1 / 0", "<string>", "eval"), vars(module))
    with pytest.raises(ZeroDivisionError) as raised:
        generated()
    assert torch_error(raised.value).file == named


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_model_that_comes_with_the_program_is_named_as_a_library_is(name: str) -> None:
    shipped = PACKAGE / "scenarios" / f"{name}.py"
    assert raised_in("my_model.py", shipped) == "my_model.py"
    assert raised_in(PACKAGE / "open.py", shipped) == str(shipped)


def test_a_call_that_does_not_fit_is_not_blamed_on_our_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "my_model.py"
    path.write_text("from autograd_tui import scenario\n@scenario('mine')\ndef build():\n    pass\n")
    done = run(str(path), "--headless", "--do", "f")
    assert done.err == [
        'autograd-tui: "mine" could not be built: TypeError: build() takes 0 positional arguments but 1 was given'
    ]
