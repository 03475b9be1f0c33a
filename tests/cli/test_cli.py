from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autograd_tui import __version__
from autograd_tui.cli import main
from autograd_tui.core.command import parse
from fork_server import PipedProcess
from program import Done, Run

NOISY = """
import os
import torch
from torch import nn
from autograd_tui import Parts, scenario

print("imported")

class Noisy(nn.Linear):
    def forward(self, x):
        print("in python")
        os.write(1, b"below python\\n")
        return super().forward(x)

@scenario("noisy")
def build(options):
    return Parts(model=Noisy(1, 1), batch=lambda i: (torch.ones(1, 1), torch.ones(1, 1)), loss=nn.functional.mse_loss)
"""
PROGRAM = [sys.executable, "-m", "autograd_tui"]
STREAM = ["linear", "--headless", "--json", "--do", "-"]


def commands(done: Done) -> list[str]:
    return [json.loads(line)["command"] for line in done.out]


def test_what_do_says_is_run(run: Run) -> None:
    done = run("linear", "--headless", "--json", "--do", "fbsz lr=0.5")
    assert (done.code, commands(done), done.err) == (0, ["f", "b", "s", "z", "lr=0.5"], [])


@pytest.mark.parametrize("source", ["--do", "stdin"])
@pytest.mark.parametrize(
    ("words", "start"),
    [
        ("fbsz run", '"run" is for the screen, where it is typed after a colon: use f b s z'),
        ("theme light", '"theme" is for the screen, where it is typed after a colon: use f b s z'),
        ("rum", '"rum" is not a command: use f b s z'),
    ],
)
def test_words_for_the_screen_are_refused_as_such(run: Run, words: str, start: str, source: str) -> None:
    done = run(*STREAM, stdin=words) if source == "stdin" else run("linear", "--headless", "--do", words)
    assert done.code
    assert start in done.err[-1]


def test_repeat_runs_it_again(run: Run) -> None:
    done = run("linear", "--headless", "--json", "--do", "f b", "--repeat", "3")
    assert (done.code, commands(done)) == (0, ["f", "b"] * 3)


def test_the_line_is_the_default(run: Run) -> None:
    assert '"w"' in run("--headless", "--json", "--do", "f").out[0]


def test_without_json_there_is_a_table(run: Run) -> None:
    done = run("linear", "--headless", "--do", "fb")
    assert [line.split()[:2] for line in done.out] == [["frame", "command"], ["1", "f"], ["2", "b"]]


def test_without_commands_headless_asks_for_some(run: Run) -> None:
    done = run("linear", "--headless")
    assert done.code == 2
    assert "--headless needs commands" in done.err[0]


def test_options_reach_the_session(run: Run) -> None:
    done = run("linear", "--headless", "--json", "--do", "f", "--lr", "0.5", "--batch-size", "2", "--optimizer", "adam")
    frame = json.loads(done.out[0])
    assert (frame["learning_rate"], frame["prediction"]["shape"]) == (0.5, [2])


def test_commands_come_from_stdin(run: Run) -> None:
    done = run(*STREAM, stdin="fb\n\n  s z\nf")
    assert (done.code, commands(done)) == (0, ["f", "b", "s", "z", "f"])


@pytest.mark.parametrize(
    ("stdin", "code", "lines"),
    [("", 0, 0), ("x\n", 2, 0), ("f\nx\n", 1, 1), ("b\n", 1, 0), ("fb x\n", 2, 0), (b"f\n\xff\n", 2, 0)],
)
def test_a_stream_that_is_not_understood_stops_there(run: Run, stdin: str | bytes, code: int, lines: int) -> None:
    done = run(*STREAM, stdin=stdin)
    assert (done.code, len(done.out), len(done.err)) == (code, lines, min(code, 1))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--headless", "--do", "x"],
        ["--headless", "--do", "f b=x"],
        ["--headless", "--repeat", "0"],
        ["--headless", "--do", "f", "--repeat", "9" * 13],
        ["--headless", "--do", "-", "--repeat", "2"],
        ["--headless", "--lr", "fast"],
        ["--headless", "--lr", "-1"],
        ["--headless", "--seed", "1.5"],
        ["--headless", "--data", "stale"],
        ["--headless", "--no-such-option"],
        ["--headless", "one", "two"],
        ["--headless", "unknown"],
        ["--headless", "missing.py"],
        ["--headless", "--image-size", "8"],
        ["--headless", "--optimizer", "adem"],
        ["--headless", "--device", "toaster"],
        ["--headless", "--threads", "0"],
        ["--headless", "--memory", "much"],
        ["--headless", "--threads", "9" * 12],
        ["--headless", "--decay", "x"],
        ["--json"],
        ["--do", "-"],
        [],  # stdin is no terminal here
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_one_sentence_before_the_first_command(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.code, done.out, len(done.err)) == (2, [], 1)
    assert done.err[0].startswith("autograd-tui: ")


@pytest.mark.parametrize(("word", "nearest"), [("scirpt", "script"), ("session", "sessions"), ("resum", "resume")])
def test_a_command_with_a_slip_of_the_pen_is_named(run: Run, word: str, nearest: str) -> None:
    done = run(word, "train.py")
    assert (done.code, done.err) == (2, [f'autograd-tui: there is no command "{word}": the nearest is {nearest}.'])


@pytest.mark.parametrize(("commands", "code"), [("fb", 0), ("fbB", 0), ("fbb", 1), ("@3", 1)])
def test_the_exit_code_is_that_of_the_run(run: Run, commands: str, code: int) -> None:
    assert run("--headless", "--do", commands).code == code


@pytest.mark.parametrize(("arguments", "code"), [(["--headless", "--do", "-"], 0), ([], 2)])
def test_a_closed_stdin_holds_no_commands(
    arguments: list[str], code: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(arguments) == code


def test_a_closed_stdout_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["--headless", "--do", "f"]) == 2


def test_an_unforced_command_that_raises_stops_the_run(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "raises_in_forward.py"
    path.write_text(
        NOISY.replace('print("in python")', 'raise ValueError("mine")').replace('print("imported")', ""),
        encoding="utf-8",
    )
    done = run(str(path), "--headless", "--json", "--do", "f F")
    assert (done.code, len(done.out)) == (1, 1)
    assert done.err[-1] == "autograd-tui: f raised ValueError: mine (raises_in_forward.py, line 11)"


@pytest.mark.parametrize(("option", "text"), [("--version", __version__), ("--help", "usage: autograd-tui")])
def test_asking_about_the_program_is_no_error(option: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([option])
    assert not caught.value.code
    assert text in capsys.readouterr().out


def test_commands_stream_in_and_frames_out_until_a_signal(tmp_path: Path) -> None:
    path = tmp_path / "noisy.py"
    path.write_text(NOISY, encoding="utf-8")
    pipe, line = subprocess.PIPE, [*PROGRAM, str(path), *STREAM[1:]]
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as program:
        assert program.stdin
        assert program.stdout
        for word in ("f", "b"):
            program.stdin.write(word + "\n")
            program.stdin.flush()
            assert json.loads(program.stdout.readline())["command"] == word
        program.send_signal(signal.SIGTERM)
        out, err = program.communicate()
    assert (program.returncode, out) == (-signal.SIGTERM, "")  # which shells show as 143
    assert "below python" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_what_holds_the_interpreters_lock_for_ever(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import re; print('begins', flush=True); re.match('(a+)+$', 'a' * 99 + 'b')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    line = [*PROGRAM, "linear", "--headless", "--do", "f"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}) as program:
        assert program.stderr
        assert program.stderr.readline() == "begins\n"
        program.send_signal(number)
        assert program.wait(60) == -number


def test_ctrl_c_ends_the_program_with_its_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> Iterator[str]:
        yield "f\n"
        raise KeyboardInterrupt

    monkeypatch.setattr(
        "autograd_tui.cli.running._read_commands", lambda _: (each for line in interrupted() for each in parse(line))
    )
    done = run(*STREAM)
    assert (done.code, len(done.out), done.err) == (130, 1, [])


def test_a_reader_that_leaves_is_no_error() -> None:
    line = [*PROGRAM, "linear", "--headless", "--json", "--do", "fbsz*2000"]
    with PipedProcess(line) as program:
        assert json.loads(program.stdout.readline())["index"] == 1
        program.stdout.close()
        assert (program.stderr.read(), program.wait()) == ("", 0)


WIDE = """
import torch
from torch import nn
from autograd_tui import Parts, scenario

@scenario("wide", width=8)
def build(options):
    batch = torch.ones(1, 2), torch.ones(1, options.width)
    return Parts(model=nn.Linear(2, options.width), batch=lambda i: batch, loss=nn.functional.mse_loss)
"""


def test_a_scenarios_own_option_is_given_by_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "wide.py").write_text(WIDE)
    done = run(str(tmp_path / "wide.py"), "--option", "width=3", "--headless", "--json", "--do", "f")
    assert json.loads(done.out[0])["params"]["bias"]["shape"] == [3]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("width", "--option width is not understood: use --option NAME=VALUE, such as --option width=8."),
        ("=3", "--option =3 is not understood: use --option NAME=VALUE, such as --option width=8."),
        ("batch_size=3", "--option batch_size=3: batch_size has a flag of its own, --batch-size."),
        ("scenario=3", "--option scenario=3: the scenario stands by itself, as in autograd-tui my_model.py."),
    ],
)
def test_an_own_option_without_name_or_value_is_refused(run: Run, word: str, sentence: str) -> None:
    done = run("linear", "--option", word, "--headless", "--do", "f")
    assert (done.code, done.err) == (2, [f"autograd-tui: {sentence}"])
