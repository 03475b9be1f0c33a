"""What reads from a script's terminal asks for it, and what ends a script is held, each as under plain Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest

from autograd_tui.engine.script.script_process import ScriptProcess

pytestmark = pytest.mark.usefixtures("started_anew")  # none of the scripts imports PyTorch

PATIENCE = 60  # seconds; a test that waits so long has failed
AGENT = """
import os, sys, traceback
from autograd_tui.engine.script.lending import Lending, hold_exceptions
lending = Lending(lambda why: print(f"<{why}>"), lambda: print("<back>"))
lending.install()
hold_exceptions(lambda error: print("<held>" + "".join(traceback.format_exception(error)) + "</held>"))
"""


class Script:
    def __init__(self, folder: Path, code: str) -> None:
        path = folder / "train.py"
        path.write_text(code)
        self.data = b""
        self.process = ScriptProcess([str(path)], folder=folder, on_output=self._take)

    def _take(self, data: bytes) -> None:
        self.data += data

    @property
    def text(self) -> str:
        return self.data.decode().replace("\r\n", "\n")

    def wait_for(self, text: str) -> None:
        until = monotonic() + PATIENCE
        while text not in self.text:
            assert monotonic() < until, f"{text!r} is not in {self.text!r}"
            sleep(0.01)

    def type(self, keys: str) -> None:
        self.process.write(keys.encode())


@contextmanager
def script(folder: Path, code: str, agent: str = AGENT) -> Iterator[Script]:
    """Run a script behind the two lines that an agent would run."""
    started = Script(folder, f"{agent}\n{code}")
    try:
        yield started
    finally:
        started.process.close()


@pytest.fixture(autouse=True)
def _our_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(each for each in sys.path if each))
    monkeypatch.delenv("PYTHONBREAKPOINT", raising=False)
    monkeypatch.setenv("PYTHON_COLORS", "0")  # from Python 3.13 on tracebacks have colors


def test_input_has_the_terminal_while_it_reads(tmp_path: Path) -> None:
    with script(tmp_path, "print('got', input('name? '), input())") as run:
        run.wait_for("<input>\nname? ")
        assert "<back>" not in run.text
        run.type("ann\r")
        run.wait_for("<back>\n<input>\n")
        run.type("bob\r")
        assert run.process.wait(PATIENCE) == 0
        assert run.text.endswith("<back>\ngot ann bob\n")


def test_input_that_is_left_by_ctrl_c_or_ctrl_d_gives_the_terminal_back(tmp_path: Path) -> None:
    code = """
for _ in range(2):
    try:
        input("? ")
    except (KeyboardInterrupt, EOFError) as error:
        print(type(error).__name__)
"""
    with script(tmp_path, code) as run:
        run.wait_for("? ")
        run.type("\x03")
        run.wait_for("<back>\nKeyboardInterrupt\n<input>\n? ")
        run.type("\x04")
        run.wait_for("<back>\nEOFError")
        assert run.process.wait(PATIENCE) == 0


def test_input_of_what_is_no_terminal_asks_nobody(tmp_path: Path) -> None:
    code = """
import io, threading
thread = threading.Thread(target=lambda: print(sys.stdin.readline() and "no line"))
sys.stdin = io.StringIO("one\\ntwo\\n")
print("got", input())
if not os.fork():
    print("child", input())
    sys.stdout.flush()
    os._exit(0)
os.wait()
"""
    with script(tmp_path, code) as run:
        assert run.process.wait(PATIENCE) == 0
        assert "got one" in run.text
        assert "child two" in run.text
        assert "<" not in run.text


def test_all_that_reads_standard_input_or_a_password_has_the_terminal_while_it_reads(tmp_path: Path) -> None:
    code = """
import getpass, io
print("line", sys.stdin.readline(), next(iter(sys.stdin)), end="")
print("bytes", sys.stdin.buffer.raw.read(4))
print("password", getpass.getpass("secret: "))
print("rest", sys.stdin.read(), sys.stdin.readlines(), type(sys.stdin) is io.TextIOWrapper, sys.stdin)
"""
    with script(tmp_path, code) as run:
        run.wait_for("<input>\n")
        run.type("ann\r")
        run.wait_for("<back>\n<input>\n")
        run.type("bob\r")
        run.wait_for("line ann\n bob\n<input>\n")
        run.type("cat\r")
        run.wait_for("bytes b'cat\\n'\n<input>\nsecret: ")
        run.type("dog\r")
        run.wait_for("<back>\npassword dog\n<input>\n")
        run.type("eel\r\x04")
        run.wait_for("<back>\n<input>\n")
        run.type("\x04")
        assert run.process.wait(PATIENCE) == 0
        assert run.text.count("<input>") == run.text.count("<back>")
        assert run.text.endswith("True <_io.TextIOWrapper name='<stdin>' mode='r' encoding='utf-8'>\n")


def test_a_module_of_the_scripts_own_named_getpass_is_not_run_before_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "getpass.py").write_text("print('own')\ngetpass = 'mine'\n")
    with script(tmp_path, "print('first')\nimport getpass\nprint(getpass.getpass)") as run:
        assert run.process.wait(PATIENCE) == 0
        assert run.text == "first\nown\nmine\n"


def test_standard_input_left_by_ctrl_c_gives_the_terminal_back_and_shows_no_frame_of_ours(
    tmp_path: Path,
) -> None:
    code = """
try:
    sys.stdin.readline()
except KeyboardInterrupt:
    traceback.print_exc()
"""
    with script(tmp_path, code) as run:
        run.wait_for("<input>\n")
        run.type("\x03")
        run.wait_for("<back>\nTraceback")
        assert run.process.wait(PATIENCE) == 0
        assert "lending.py" not in run.text


@pytest.mark.parametrize("call", ["breakpoint()", "import pdb; pdb.set_trace()", "import pdb; pdb.Pdb().set_trace()"])
def test_pdb_has_the_terminal_from_its_first_prompt_until_the_script_goes_on(tmp_path: Path, call: str) -> None:
    code = f"""
def train():
    x = 1
    {call}
    x = 2
    x = 3
    return x
print("returned", train())
print("over", input("? "))
"""
    with script(tmp_path, code) as run:
        run.wait_for("(Pdb) ")
        assert "-> x = 2" in run.text or "-> breakpoint()" in run.text
        assert "lending" not in run.text
        for command, answer in [("n", "-> x = 3"), ("p input()", "")]:
            run.type(f"{command}\r")
            run.wait_for(answer)
        run.type("inner\r")
        run.wait_for("'inner'")
        assert run.text.count("<breakpoint>") == 1
        assert "<input>" not in run.text
        assert "<back>" not in run.text
        run.type("c\r")
        run.wait_for("<back>\nreturned 3\n<input>\n? ")
        run.type("end\r")
        assert run.process.wait(PATIENCE) == 0
        assert run.text.endswith("<back>\nover end\n")


def test_pdb_that_is_left_by_q_is_not_held(tmp_path: Path) -> None:
    with script(tmp_path, "breakpoint()\nx = 1") as run:
        run.wait_for("(Pdb) ")
        run.type("q\r")
        assert run.process.wait(PATIENCE) == 1
        assert "<back>" in run.text
        assert "<held>" not in run.text
        assert run.text.endswith("bdb.BdbQuit\n")


def test_another_debugger_than_pdb_has_the_terminal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text("""
import bdb, sys
class Own(bdb.Bdb):
    def user_line(self, frame):
        print("stands at", frame.f_lineno - 9)
        self.set_continue()
def set_trace():
    Own().set_trace(sys._getframe(1))
""")
    monkeypatch.setenv("PYTHONBREAKPOINT", "own.set_trace")
    with script(tmp_path, "print('before')\nbreakpoint()\nprint('after')") as run:
        assert run.process.wait(PATIENCE) == 0
        assert "before\n<breakpoint>\nstands at " in run.text
        assert run.text.endswith("<back>\nafter\n")


FAILING = """
def step():
    {line}
def train():
    try:
        {{}}["x"]
    except KeyError:
        step()
train()
"""


def test_an_exception_is_held_and_then_ends_the_script_as_under_plain_python(tmp_path: Path) -> None:
    code = FAILING.format(line="raise ValueError('batch 3')")
    with script(tmp_path, code, agent="\n" * AGENT.count("\n")) as plain:
        assert plain.process.wait(PATIENCE) == 1
    with script(tmp_path, code) as run:
        assert run.process.wait(PATIENCE) == 1
    held, _, printed = run.text.removeprefix("<held>").partition("</held>\n")
    assert plain.text.startswith("Traceback")
    assert held == printed == plain.text


@pytest.mark.parametrize(
    ("line", "code"),
    [("raise SystemExit(4)", 4), ("raise KeyboardInterrupt", 130), ("raise SystemExit('why')", 1)],
)
def test_what_ends_a_script_on_purpose_is_not_held(tmp_path: Path, line: str, code: int) -> None:
    with script(tmp_path, FAILING.format(line=line)) as run:
        assert run.process.wait(PATIENCE) == code
        assert "<held>" not in run.text


def test_our_frames_are_left_out_of_what_is_printed(tmp_path: Path) -> None:
    code = """
from autograd_tui.engine.script import lending
lending.leave_our_frames_out(None)
"""
    with script(tmp_path, code) as run:
        assert run.process.wait(PATIENCE) == 1
        printed = run.text.partition("</held>")[2]
        assert "AttributeError" in printed
        assert "lending.py" not in printed


def test_a_fault_of_who_holds_leaves_the_end_as_it_is(tmp_path: Path) -> None:
    agent = f"{AGENT}\nhold_exceptions(lambda error: 1 / 0)"
    with script(tmp_path, FAILING.format(line="raise ValueError('mine')"), agent=agent) as run:
        assert run.process.wait(PATIENCE) == 1
        assert run.text.endswith("ValueError: mine\n")
        assert "ZeroDivisionError" not in run.text
