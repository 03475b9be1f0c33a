"""A script's process: what it finds on its terminal, what comes from it, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

import pytest

from autograd_tui.core.errors import Refused
from autograd_tui.engine.script.script_process import ScriptProcess, script_command, script_environment
from autograd_tui.tui.captured_output import CapturedOutput
from forked_scripts import scripts_anew

PATIENCE = 60  # seconds; a test that waits so long has failed


@pytest.fixture(autouse=True, scope="module")
def all_anew() -> Iterator[None]:
    with scripts_anew():  # none of them imports PyTorch
        yield


class Printed:
    """Takes in what a script prints."""

    def __init__(self) -> None:
        self.data = b""

    def __call__(self, data: bytes) -> None:
        self.data += data

    def wait_for(self, text: str) -> None:
        wait(lambda: text.encode() in self.data, f"{text!r} in {self.data!r}")


def wait(condition: Callable[[], bool], what: str) -> None:
    until = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < until, f"{what} did not come"
        sleep(0.01)


def is_alive(pid: int) -> bool:
    """Return whether a process runs: one that has ended, and that nobody has waited for, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@contextmanager
def started(folder: Path, code: str, *arguments: str) -> Iterator[tuple[ScriptProcess, Printed]]:
    """Start a script of this code, and end it after the test."""
    path = folder / "train.py"
    path.write_text(code)
    printed = Printed()
    process = ScriptProcess([str(path), *arguments], folder=folder, on_output=printed, size=(97, 31))
    try:
        yield process, printed
    finally:
        process.close()


ABOUT = """
import json, os, shutil, sys, termios
facts = {
    "argv": sys.argv, "name": __name__, "file": __file__, "package": __package__, "spec": str(__spec__),
    "flags": list(sys.flags), "folder": os.getcwd(), "path": sys.path[0],
    "tty": [os.isatty(n) for n in (0, 1, 2)], "buffering": sys.stdout.line_buffering or sys.stdout.write_through,
    "size": list(os.get_terminal_size()), "leader": os.getsid(0) == os.getpid(),
    "foreground": os.tcgetpgrp(0) == os.getpgrp(), "tty name": os.ttyname(0) == os.ttyname(2),
    "controlling": os.isatty(os.open("/dev/tty", os.O_RDWR)), "encoding": sys.stdout.encoding,
    "open": sorted(int(n) for n in os.listdir("/proc/self/fd")),
}
print(json.dumps(facts) + "|")
"""


@pytest.fixture(scope="module")
def about(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    with started(tmp_path_factory.mktemp("about"), ABOUT, "--lr", "0.1", "-v") as (process, printed):
        assert process.wait(PATIENCE) == 0
    text = printed.data.decode().replace("\r\n", "")
    found: dict[str, object] = json.loads(text[: text.index("|")])
    return found


def test_a_script_is_started_as_by_plain_python(about: dict[str, object]) -> None:
    path = str(about["file"])
    assert about["argv"] == [path, "--lr", "0.1", "-v"]
    assert path.endswith("train.py")
    assert (about["name"], about["package"], about["spec"]) == ("__main__", None, "None")
    assert about["path"] == os.path.dirname(path)
    assert about["folder"] == os.getcwd()


def test_a_script_has_a_terminal_of_its_own(about: dict[str, object]) -> None:
    assert about["tty"] == [True] * 3
    assert about["size"] == [97, 31]
    assert about["buffering"]
    assert all(about[each] for each in ("leader", "foreground", "tty name", "controlling"))


def test_a_script_inherits_no_descriptor_of_ours(about: dict[str, object]) -> None:
    outside = [each for each in map(int, os.listdir("/proc/self/fd")) if each > 2 and inherited(each)]
    own = 5  # the three, /dev/tty, and the folder that is listed
    assert len(about["open"]) <= own + len(outside)  # type: ignore[arg-type]


def inherited(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False


def test_the_environment_leads_python_to_the_agent_and_keeps_what_was_there(tmp_path: Path) -> None:
    made = script_environment(tmp_path, {"PYTHONPATH": f"a{os.pathsep}b", "HOME": "h"})
    entry, *rest = made["PYTHONPATH"].split(os.pathsep)
    assert entry.endswith(os.path.join("engine", "script", "sitecustomize"))
    assert rest == ["a", "b"]
    assert made["HOME"] == "h"
    assert made["AUTOGRAD_TUI_SCRIPT"] == str(tmp_path)
    assert script_environment(tmp_path, {"PYTHONPATH": ""})["PYTHONPATH"] == entry


def test_the_words_name_a_script_a_module_or_a_command() -> None:
    assert script_command(["train.py", "-m", "x"]) == [sys.executable, "train.py", "-m", "x"]
    assert script_command(["-m", "pkg.train", "--lr", "1"]) == [sys.executable, "-m", "pkg.train", "--lr", "1"]
    assert script_command(["--", "torchrun", "train.py"]) == ["torchrun", "train.py"]


@pytest.mark.parametrize("words", [[], [""], ["-m"], ["--"], ["--lr"]])
def test_words_that_name_no_script_are_refused(words: list[str]) -> None:
    with pytest.raises(Refused, match="give a script"):
        script_command(words)


def test_a_command_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no-such-command cannot be started: no such file"):
        ScriptProcess(["--", "no-such-command"], folder=tmp_path, on_output=lambda _: None)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise SystemExit(7)", 7),
        ("1 / 0", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 139),
        ("import os; os.close(0); os.close(1); os.close(2); os._exit(5)", 5),
    ],
)
def test_the_exit_code_is_that_of_a_shell(tmp_path: Path, code: str, expected: int) -> None:
    with started(tmp_path, code) as (process, _):
        assert process.wait(PATIENCE) == expected
        assert not is_alive(process.pid)


def test_what_is_printed_last_comes_before_the_end(tmp_path: Path) -> None:
    with started(tmp_path, "import sys; sys.stdout.write('x' * 300_000 + 'last')") as (process, printed):
        assert process.wait(PATIENCE) == 0
        assert len(printed.data) == 300_004
        assert printed.data.endswith(b"last")


def test_a_bar_is_the_unfinished_line(tmp_path: Path) -> None:
    output = CapturedOutput()
    code = "input()\nfor i in range(3): print(f'\\rstep {i}', end='', flush=True)\ninput()"
    with started(tmp_path, code) as (process, _):
        process.on_output = output.take_in  # before it prints
        process.write(b"\r")
        wait(lambda: output.unfinished(0.0) == "step 2", "the bar")


def test_a_line_of_ours_stands_between_what_is_printed(tmp_path: Path) -> None:
    code = "print('step 0', end='', flush=True)\ninput()\nprint('step 1', flush=True)\ninput()"
    with started(tmp_path, code) as (process, printed):
        printed.wait_for("step 0")
        process.announce("[back]")
        process.write(b"\r")
        printed.wait_for("step 1\r\n")
        process.announce("[again]")
    assert printed.data.decode().split("\r\n") == ["step 0", "[back]", "", "step 1", "[again]", ""]


LONG = """
line = b"0123456789" * 10 + b"\\n"
import os
for _ in range(1_000):
    block = line * 1_000
    while block:
        block = block[os.write(1, block):]
"""


def test_a_hundred_megabytes_are_taken_in_and_not_kept(tmp_path: Path) -> None:
    output = CapturedOutput()
    path = tmp_path / "train.py"
    path.write_text(LONG)
    process = ScriptProcess([str(path)], folder=tmp_path, on_output=output.take_in)
    try:
        assert process.wait(PATIENCE) == 0
    finally:
        process.close()
    assert output.count == 1_000_000
    assert output.last(1) == ("0123456789" * 10,)
    assert len(output.lines) <= 2_000


INTERRUPTED = """
import time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted here", flush=True)
raise SystemExit(3)
"""


def test_interrupt_raises_keyboard_interrupt_at_the_line(tmp_path: Path) -> None:
    with started(tmp_path, INTERRUPTED) as (process, printed):
        printed.wait_for("ready")
        process.interrupt()
        assert process.wait(PATIENCE) == 3
    assert b"interrupted here" in printed.data


def test_interrupt_reaches_a_script_that_reads_single_keys(tmp_path: Path) -> None:
    with started(tmp_path, "import tty; tty.setraw(0)" + INTERRUPTED) as (process, printed):
        printed.wait_for("ready")
        process.interrupt()
        assert process.wait(PATIENCE) == 3


def test_a_resize_reaches_the_script(tmp_path: Path) -> None:
    code = """
import os, signal
signal.signal(signal.SIGWINCH, lambda *_: print("now", tuple(os.get_terminal_size()), flush=True))
print("ready", flush=True)
while True: signal.pause()
"""
    with started(tmp_path, code) as (process, printed):
        printed.wait_for("ready")
        process.resize(40, 10)
        printed.wait_for("now (40, 10)")


def test_keys_reach_the_script(tmp_path: Path) -> None:
    with started(tmp_path, "print('got', repr(input('name? ')))") as (process, printed):
        printed.wait_for("name? ")
        assert process.write("aé\x7fb\r".encode()) == 6  # backspace takes the whole é
        assert process.wait(PATIENCE) == 0
        assert b"got 'ab'" in printed.data


def test_keys_that_nobody_reads_block_nobody(tmp_path: Path) -> None:
    with started(tmp_path, "import tty, time; tty.setraw(0); print('ready', flush=True); time.sleep(60)") as both:
        process, printed = both
        printed.wait_for("ready")
        taken = sum(process.write(b"x" * 1000) for _ in range(100))
        assert 0 < taken < 100_000
        process.interrupt()


def test_terminate_lets_a_handler_of_the_script_run(tmp_path: Path) -> None:
    code = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
print("ready", flush=True)
while True: signal.pause()
"""
    with started(tmp_path, code) as (process, printed):
        printed.wait_for("ready")
        process.terminate()
        assert process.wait(PATIENCE) == 9


CHILDREN = """
import os, signal, subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGHUP, signal.SIG_IGN); print('up', flush=True); time.sleep(120)"
pids = [os.getpid()]
for apart in (False, True):  # as workers are, as the ranks of torchrun are
    child = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=apart, stdout=subprocess.PIPE)
    child.stdout.readline()
    pids.append(child.pid)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
print("pids", *pids, "all", flush=True)
time.sleep(120)
"""


@pytest.mark.parametrize("way", ["close", "kill"])
def test_no_process_is_left_behind(tmp_path: Path, way: str) -> None:
    with started(tmp_path, CHILDREN) as (process, printed):
        printed.wait_for("all")
        pids = [int(each) for each in printed.data.decode().partition("pids")[2].split() if each.isdigit()]
        assert len(pids) == 3
        assert all(map(is_alive, pids))
        getattr(process, way)()
        assert process.wait(PATIENCE) == 137
        wait(lambda: not any(map(is_alive, pids)), "the end of all")


def test_close_hangs_up_first(tmp_path: Path) -> None:
    code = """
import signal, sys, time
def leave(*_):
    open("left", "w").close()
    sys.exit(4)
signal.signal(signal.SIGHUP, leave)
print("ready", flush=True)
while True: signal.pause()
"""
    with started(tmp_path, f"import os; os.chdir({str(tmp_path)!r})" + code) as (process, printed):
        printed.wait_for("ready")
        assert process.close() == 4
        assert (tmp_path / "left").exists()
        assert process.close() == 4  # a second time nothing happens
        process.kill()
        process.interrupt()
        process.resize(1, 1)
        assert process.write(b"x") == 1


SCREEN = """
import sys
from pathlib import Path
from time import sleep
from autograd_tui.engine.script.script_process import ScriptProcess
folder = Path(sys.argv[1])
process = ScriptProcess([str(folder / "train.py")], folder=folder, on_output=lambda data: None)
print(process.pid, flush=True)
sleep(120)
"""


def test_a_screen_that_is_killed_takes_its_script_along(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import os, time\nif not os.fork(): time.sleep(120)\nopen('child', 'w').close()\ntime.sleep(120)"
    )
    screen = subprocess.Popen(
        [sys.executable, "-c", SCREEN, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert screen.stdout is not None
        with screen.stdout:
            script = int(screen.stdout.readline())
        wait((tmp_path / "child").exists, "the script's child")
        members = [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if session_of(pid) == script]
        assert len(members) == 2
    finally:
        screen.send_signal(signal.SIGKILL)
        screen.wait()
    wait(lambda: not any(map(is_alive, members)), "the end of the script and its child")


def session_of(pid: int) -> int:
    with suppress(OSError):
        return os.getsid(pid)
    return 0


def test_a_script_that_is_killed_has_ended(tmp_path: Path) -> None:
    with started(tmp_path, "print('ready', flush=True); import time; time.sleep(60)") as (process, printed):
        printed.wait_for("ready")
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(PATIENCE) == 137


def test_a_process_that_the_script_leaves_behind_holds_nobody_up(tmp_path: Path) -> None:
    code = """
import os, signal, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
if not os.fork():
    while True: print("on and on", flush=True)
time.sleep(0.2)
os._exit(6)
"""
    with started(tmp_path, code) as (process, _):
        assert process.wait(PATIENCE) == 6


@pytest.mark.skipif(not Path("/proc/self/syscall").exists(), reason="Linux tells which call a process waits in")
@pytest.mark.parametrize(
    "reads",
    [
        "input()",
        "import readline; input()",
        "os.read(0, 100)",
        "import getpass; getpass.getpass('')",
        "open('/dev/tty').readline()",
    ],
)
def test_it_is_told_where_it_waits_for_what_is_typed_and_where_it_no_longer_does(tmp_path: Path, reads: str) -> None:
    code = f"import os, time\nprint('begins')\ntime.sleep(0.3)\n{reads}\nprint('goes on')\ntime.sleep(60)\n"
    told: list[bool] = []
    with started(tmp_path, code) as (process, printed):
        process.on_reading = told.append
        printed.wait_for("begins")
        assert told == []
        wait(lambda: told == [True], "that it waits")
        process.write(b"ann\n")
        printed.wait_for("goes on")
        wait(lambda: told == [True, False], "that it no longer waits")


def test_a_script_that_looks_now_and_then_whether_a_key_was_pressed_waits_for_none(tmp_path: Path) -> None:
    code = """
import select, sys, threading, time
threading.Thread(target=sys.stdin.readline, daemon=True).start()
for _ in range(10):
    select.select([0], [], [], 0.1)
print("done")
time.sleep(60)
"""
    told: list[bool] = []
    with started(tmp_path, code) as (process, printed):
        process.on_reading = told.append
        printed.wait_for("done")
        assert told == []
