"""A process that has imported PyTorch, Textual and the program, and forks what would import them anew otherwise.

A program that is started takes three seconds of CPU until it stands, one that is forked a tenth of that. What runs in
a fork sees its own arguments, folder, environment, streams and terminal, and ends as an interpreter ends; signals,
children, the watchdog and limits are its own. Not seen there: what Python and C read while they start (PYTHONPATH and
its like, the locale, flags), and whatever happens before PyTorch is loaded. Tests of those ask for `anew=True`, and
so do a few of each kind, which keep the start itself tested.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import traceback
import types
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from time import monotonic
from typing import NamedTuple, NoReturn, Self

READ_AT_THE_START = ("PYTHON", "LC_", "LANG", "OMP_", "MKL_", "LD_")  # how names of variables begin
LOOK = 0.01  # seconds between two looks whether a fork has ended
SECONDS = 300  # a program that takes longer has failed


# For tests: what they start, and how it ended.


class Process:
    """A process started by the server, in a fork of it, or anew where that is asked for."""

    def __init__(
        self,
        words: Sequence[str],
        streams: Sequence[int],
        *,
        folder: str | os.PathLike[str] | None = None,
        environment: dict[str, str] | None = None,
        terminal: bool = False,
        anew: bool = False,
    ) -> None:
        """Start a command line; `streams` are its three descriptors, `terminal`: the first controls it."""
        request = {
            "words": list(map(str, words)),
            "folder": str(folder or os.getcwd()),
            "environment": dict(os.environ if environment is None else environment),
            "terminal": terminal,
            "anew": anew or words[0] != sys.executable,
        }
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(_server(), [b"x"], [*streams, theirs.fileno()])
            ours.sendall(json.dumps(request).encode() + b"\n")
            self._answers = os.fdopen(ours.detach(), "rb", buffering=0)
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None  # as that of subprocess: -15 where SIGTERM ended it

    def wait(self, seconds: float = SECONDS) -> int | None:
        """Return how it ended, once it has, or None where that takes longer."""
        if self.returncode is None and select.select([self._answers], [], [], seconds)[0]:
            self.returncode = int(self._answers.readline())
            self._answers.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.wait(0) is None:
            os.kill(self.pid, number)


class PipedProcess(Process):
    """One whose streams are pipes to and from here."""

    def __init__(self, words: Sequence[str]) -> None:
        theirs_in, stdin = os.pipe()
        stdout, theirs_out = os.pipe()
        stderr, theirs_err = os.pipe()
        super().__init__(words, [theirs_in, theirs_out, theirs_err])
        for each in (theirs_in, theirs_out, theirs_err):
            os.close(each)
        self.stdin, self.stdout, self.stderr = os.fdopen(stdin, "w"), os.fdopen(stdout), os.fdopen(stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for file in (self.stdin, self.stdout, self.stderr):
            file.close()
        if self.wait(5.0) is None:
            self.send_signal(signal.SIGKILL)
            self.wait()


def run(
    words: Sequence[str],
    *,
    input: str = "",
    folder: str | os.PathLike[str] | None = None,
    environment: dict[str, str] | None = None,
    anew: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end, and take in all that it and its children write."""
    pipes = {os.pipe(): bytearray() for _ in range(2)}
    with tempfile.TemporaryFile() as stdin:
        stdin.write(input.encode())
        stdin.seek(0)
        streams = [stdin.fileno(), *(writing for _, writing in pipes)]
        process = Process(words, streams, folder=folder, environment=environment, anew=anew)
    written = {reading: data for (reading, _), data in pipes.items()}
    for _, writing in pipes:
        os.close(writing)
    open_ones, until = set(written), monotonic() + SECONDS
    while open_ones and monotonic() < until:
        for reading in select.select(list(open_ones), [], [], 1.0)[0]:
            if data := os.read(reading, 1 << 16):
                written[reading] += data
            else:
                open_ones.remove(reading)
    for reading in written:
        os.close(reading)
    code = None if open_ones else process.wait()
    if code is None:
        process.send_signal(signal.SIGKILL)
        raise TimeoutError(f"{words} takes too long")
    out, err = (data.decode() for data in written.values())
    return subprocess.CompletedProcess(words, code, out, err)


@cache
def _server() -> socket.socket:
    """Start the server, one for all tests of this process, which it does not outlive."""
    ours, theirs = socket.socketpair()
    environment = {name: value for name, value in os.environ.items() if name not in ("LC_CTYPE", "LANG")}
    server = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())],
        env=environment | {"LC_ALL": "C.UTF-8"},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
    )
    theirs.close()

    def leave() -> None:
        ours.close()
        server.wait()

    atexit.register(leave)
    return ours


# The server.


class _Start(NamedTuple):
    words: list[str]
    folder: str
    environment: dict[str, str]
    terminal: bool
    anew: bool


def _serve(control: socket.socket) -> _Start:
    """Fork for each request, and say how each fork ends; return in the forks."""
    answers: dict[int, socket.socket] = {}  # of forks that run
    while True:
        while answers and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with answers.pop(ended[0]) as answer, suppress(OSError):  # where nobody asks any more
                answer.sendall(f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())
        if not select.select([control], [], [], LOOK if answers else None)[0]:
            continue
        _, descriptors, _, _ = socket.recv_fds(control, 1, 4)
        if not descriptors:
            os._exit(0)
        answer = socket.socket(fileno=descriptors.pop())
        with answer.makefile() as file:
            start = _Start(**json.loads(file.readline()))
        if not (child := os.fork()):
            for connection in (control, answer, *answers.values()):
                connection.close()
            _take(descriptors, start)
            return start
        for each in descriptors:
            os.close(each)
        answers[child] = answer
        answer.sendall(f"{child}\n".encode())


def _take(streams: list[int], start: _Start) -> None:
    """Be a process of its own, with what it was given."""
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    if start.terminal:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.environ.clear()
    os.environ.update(start.environment)
    os.chdir(start.folder)


def _run(words: list[str]) -> None:
    """Do what an interpreter does with such a command line, with streams of its own."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, name)
        file = os.fdopen(number, "w" if number else "r", encoding=before.encoding, errors=before.errors, closefd=False)
        file.reconfigure(line_buffering=number == 2 or file.isatty())
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)
    sys.modules["numpy"].random.seed()  # Python's own random numbers are drawn anew in a fork by themselves
    words = words[1:]
    while words[0] == "-W":
        warnings.simplefilter(words[1])  # type: ignore[arg-type]
        words = words[2:]
    if words[0] == "-m":
        sys.path[0], sys.argv = os.getcwd(), words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.path[0], sys.argv = "", ["-c", *words[2:]]
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), vars(module))
    else:
        sys.path[0], sys.argv = os.path.dirname(os.path.abspath(words[0])), words
        runpy.run_path(words[0], run_name="__main__")


def _import_all() -> None:
    """Import what programs and scripts do, sooner or later; no thread may have been started by that."""
    import torch
    import torchvision  # noqa: F401

    import autograd_tui

    for each in pkgutil.walk_packages(autograd_tui.__path__, "autograd_tui."):
        if not each.name.endswith("__main__"):
            importlib.import_module(each.name)
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()


def _end(words: list[str]) -> NoReturn:
    """Run a command line, and end as an interpreter does, but for what it takes down piece by piece."""
    code: object = 0
    try:
        _run(words)
    except SystemExit as error:
        code = error.code or 0
    except BaseException as error:
        traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        code = 120
    os._exit(code & 0xFF)


def _main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    _import_all()
    start = _serve(control)
    if start.anew:
        os.execvpe(start.words[0], start.words, start.environment)
    _end(start.words)


if __name__ == "__main__":
    _main()
