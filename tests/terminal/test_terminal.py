from __future__ import annotations

import signal
from pathlib import Path

import pytest

from pseudo_terminal import terminal
from suite_options import LONG, some

NOISY = """
import os, sys, warnings
import torch
from torch import nn
from autograd_tui import Parts, scenario

class Noisy(nn.Linear):
    def forward(self, x):
        print("printed by python\\x1b[2J\\x1b[H")
        os.write(1, b"written to descriptor one\\n")
        os.write(2, b"written to descriptor two\\n")
        os.system("echo from a child process")
        warnings.warn("a warning")
        return super().forward(x)

@scenario("noisy")
def build(options):
    print("printed while building")
    x = torch.rand(4, 2)
    return Parts(model=Noisy(2, 1), batch=lambda i: (x, x[:, :1]), loss=nn.functional.mse_loss)
"""

SLOW = """
import time
import torch
from torch import nn
from autograd_tui import Parts, scenario

class Slow(nn.Linear):
    def forward(self, x):
        time.sleep(60)
        return super().forward(x)

@scenario("slow")
def build(options):
    x = torch.rand(4, 2)
    return Parts(model=Slow(2, 1), batch=lambda i: (x, x[:, :1]), loss=nn.functional.mse_loss)
"""


@pytest.mark.parametrize("scenario", ["linear", "resnet18"])
def test_forty_keys_typed_at_once_are_forty_commands_in_order(scenario: str) -> None:
    size = ["--image-size", "64"] if scenario == "resnet18" else []
    with terminal(scenario, *size) as shown:
        shown.wait_for("space next")
        shown.type("fbsz" * 10)
        shown.wait_for("frame 40 of 40")
        shown.type("q")
        options = " --image-size 64 --weights random" if scenario == "resnet18" else ""
        assert f"autograd-tui {scenario}{options} --do 'fbsz*10'" in shown.end()
        assert shown.exit_code == 0


def test_the_screen_is_up_before_torch_is_loaded() -> None:
    with terminal(anew=True) as shown:
        shown.wait_for("loading PyTorch and linear")
        shown.wait_for("space next")
        assert "loading PyTorch and linear" in shown.text
        assert "frame" not in shown.text


def test_what_is_typed_at_the_first_paint_is_answered() -> None:
    with terminal(anew=True) as shown:
        shown.wait_for("loading PyTorch and linear")
        shown.type("q")  # while libraries are loaded in C
        assert "autograd-tui linear" in shown.end()
        assert shown.exit_code == 0
    with terminal(anew=True) as shown:
        shown.wait_for("loading PyTorch and linear")
        shown.type("fb:lr=0.5\r")
        shown.wait_for("frame 3 of 3")
        assert "SGD lr 0.5" in shown.text


def test_a_run_that_was_cut_off_is_named_at_the_start_and_again_on_leaving(tmp_path: Path) -> None:
    with terminal("linear", XDG_STATE_HOME=str(tmp_path)) as shown:
        shown.wait_for("space next")
        shown.type("fbsz" * 2)
        shown.wait_for("frame 8 of 8")
        shown.process.send_signal(signal.SIGKILL)
        shown.end()
    (journal,) = (tmp_path / "autograd-tui" / "runs").glob("*.journal")
    with terminal(XDG_STATE_HOME=str(tmp_path), width=200) as shown:
        shown.wait_for("a run of linear waits at frame 8; to go on with it: autograd-tui resume ")
        shown.type(" ")
        shown.wait_for("frame 1 of 1")
        shown.type("q")
        assert f"autograd-tui: a run of linear waits at frame 8; to go on with it: autograd-tui resume {journal}" in (
            shown.end()
        )


def test_what_a_model_prints_never_tears_the_screen(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    with terminal(str(tmp_path / "noisy.py")) as shown:
        shown.wait_for("noisy · SGD")
        shown.type("f")
        shown.wait_for("frame 1 of 1")
        shown.type("bs")
        shown.wait_for("frame 3 of 3")
        lines = shown.text.split("\n")
        assert lines[0].startswith(" noisy · SGD lr 0.01")
        assert lines[-1].startswith(" space next")
        printed = [line for line in lines[:-2] if "descriptor" in line or "from a child process" in line]
        assert all(line.startswith("│ ") for line in printed), printed  # in the panel of what is printed


def test_do_opens_the_screen_at_that_point() -> None:
    with terminal("linear", "--do", "fbsz*3 lr=0.01 fb") as shown:
        shown.wait_for("frame 15 of 15")
        assert "SGD lr 0.01" in shown.text


def test_a_long_phase_shows_that_it_runs_and_q_leaves_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    with terminal(str(tmp_path / "slow.py")) as shown:
        shown.wait_for("slow · SGD")
        shown.type("f")
        shown.wait_for("forward runs: 1.")
        shown.type("q")
        assert f"autograd-tui {tmp_path}/slow.py" in shown.end()
        assert shown.exit_code == 0


@pytest.mark.parametrize(("sent", "code"), some([(signal.SIGHUP, 129), (signal.SIGTERM, 143)], 1))
def test_a_signal_closes_the_screen_in_order(sent: signal.Signals, code: int) -> None:
    with terminal("linear", "--do", "fb") as shown:
        shown.wait_for("frame 2 of 2")
        shown.process.send_signal(sent)
        assert "--do fb" in shown.end()
        assert shown.exit_code == code


def test_ctrl_c_twice_leaves_with_130() -> None:
    with terminal("linear") as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("\x03")
        shown.wait_for("once more quits")
        shown.type("\x03")
        shown.end()
        assert shown.exit_code == 130


def test_a_scenario_that_does_not_exist_is_one_sentence_on_the_terminal() -> None:
    with terminal("no_such_thing") as shown:
        said = shown.end()
        assert 'autograd-tui: there is no scenario "no_such_thing"' in said
        assert "Traceback" not in said
        assert shown.exit_code == 2


def test_nothing_is_written_while_nothing_happens() -> None:
    with terminal("linear", "--do", "fb") as shown:
        shown.wait_for("frame 2 of 2")
        shown.wait_until_quiet()
        assert not shown.read(5.0 if LONG else 1.5)
        shown.type(":")
        shown.wait_for("tab takes")
        shown.wait_until_quiet()
        assert not shown.read(3.0 if LONG else 1.0), "while the prompt waits"


@pytest.mark.parametrize("keys", some(["fbs", "fbszf:", "fbs?\x1b", "30nu", "fb\x1b[D", "fbia"], 2))
def test_the_changes_add_up_to_what_a_repaint_shows(keys: str) -> None:
    with terminal("linear", "--do", "fbsz") as shown:
        shown.wait_for("frame 4 of 4")
        shown.wait_until_quiet()
        shown.type(keys)
        shown.wait_until_quiet()
        cells = {row: dict(shown.screen.buffer[row]) for row in range(shown.screen.lines)}
        shown.screen.erase_in_display(2)
        shown.process.send_signal(signal.SIGCONT)  # on which all is written again
        shown.wait_until_quiet()
        assert {row: dict(shown.screen.buffer[row]) for row in range(shown.screen.lines)} == cells


def test_leaving_gives_the_terminal_back_as_it_was() -> None:
    with terminal("linear") as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("q")
        said = shown.end()
        assert "\x1b[?1049l" in said
        assert "\x1b[?25h" in said
        assert said.rstrip().endswith("autograd-tui linear")


def test_words_typed_in_one_burst_with_keys_around_them_all_arrive() -> None:
    with terminal("linear") as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("f:lr=0.5\rb:w=3\rs")
        shown.wait_for("frame 5 of 5")
        shown.type("q")
        assert "--do 'f lr=0.5 b w=3 s'" in shown.end()


def test_words_completed_in_one_burst_with_keys_around_them_all_arrive() -> None:
    with terminal("linear") as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("foad\t\rbl\x1b[B\x1b[B\rs")
        shown.wait_for("frame 5 of 5")
        shown.type("q")
        assert "--do 'f optimizer=adam b lr=0.001 s'" in shown.end()


def test_a_run_that_is_not_kept_is_marked_and_said_again_on_leaving(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with terminal("linear", "--journal", str(tmp_path / "file" / "mine"), width=60, height=15) as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("fb")
        shown.wait_for("frame 2 of 2")
        assert "not kept  the line" in shown.text
        shown.type("q")
        assert "cannot be written (Not a directory): this run is not kept." in shown.end()
