"""A process that has imported PyTorch, Textual and the program, and forks what would import them anew otherwise.

A program that is started takes three seconds of CPU until it stands, one that is forked a tenth of that. What runs in
a fork sees its own arguments, folder, environment, streams and terminal, and ends as an interpreter ends; signals,
children, the watchdog and limits are its own. Not seen there: what Python and C read while they start (PYTHONPATH and
its like, the locale, flags), and whatever happens before PyTorch is loaded. Tests of those ask for `anew=True`, and
so do a few of each kind, which keep the start itself tested.

A script of a user that a session leads is forked too (`start_script`): it finds the modules that it imports at hand,
and the agent enters it at its `import torch`, by the same `sitecustomize` as in a new Python. So is one that a fork
with a screen leads: it has such a server of its own.
"""

from __future__ import annotations

import atexit
import builtins
import ctypes
import fcntl
import gc
import importlib
import io
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
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.machinery import ModuleSpec, SourceFileLoader
from time import monotonic, sleep
from types import ModuleType, TracebackType
from typing import NamedTuple, NoReturn, Self

READ_AT_THE_START = ("PYTHON", "LC_", "LANG", "OMP_", "MKL_", "LD_")  # how names of variables begin
LOOK = 0.01  # seconds between two looks whether a fork has ended
SECONDS = 300  # a program that takes longer has failed
ROOM_FOR_WORDS = 4000  # bytes: what the system lists as the command line of a fork
SET_CHILD_SUBREAPER = 36  # of Linux's prctl: a descendant that loses its parent becomes a child of the calling process


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
        start = _Start(
            list(map(str, words)),
            str(folder or os.getcwd()),
            dict(os.environ if environment is None else environment),
            terminal,
            anew=anew or words[0] != sys.executable,
        )
        self._answers = _ask(start, streams)
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None  # as that of subprocess: -15 where SIGTERM ended it

    def wait(self, seconds: float = SECONDS) -> int | None:
        """Return how it ended, once it has, or None where that takes longer."""
        if self.returncode is None and select.select([self._answers], [], [], seconds)[0]:
            self.returncode = int(self._answers.readline())
            self._answers.close()
        return self.returncode

    def poll(self) -> int | None:
        return self.wait(0)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

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


def start_script(words: Sequence[str], terminal: str, environment: Mapping[str, str]) -> int | None:
    """Fork a script that becomes a child of this process, leads a session on a terminal, and is led by its agent.

    words: the command line. terminal: its file. Return its process, or None where it is no plain file for this
    interpreter, or its environment holds what an interpreter reads when it starts: it has to be started anew.
    """
    _, *paths = environment["PYTHONPATH"].split(os.pathsep)  # that of the agent's entry comes first
    seen, first = {**environment, "PYTHONPATH": os.pathsep.join(paths)}, first_environment()
    differs = any(
        seen.get(name, "") != first.get(name, "") for name in {*seen, *first} if name.startswith(READ_AT_THE_START)
    )
    if differs or words[0] != sys.executable or words[1].startswith("-") or not sys.platform.startswith("linux"):
        return None
    opened = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
    try:
        with _adopting():
            start = _Start(list(words), os.getcwd(), dict(environment), terminal=True, is_script=True)
            with _ask(start, [opened] * 3) as answers:
                return int(answers.readline())
    finally:
        os.close(opened)


def fork_scripts() -> None:
    """Have sessions of this process lead forked scripts from now on, where they can be forked."""
    from autograd_tui.engine.script.script_process import ScriptProcess

    start_anew = ScriptProcess._start

    def start(process: ScriptProcess, terminal: str, environment: Mapping[str, str]) -> int:
        forked = start_script(process.command, terminal, environment)
        return forked or start_anew(process, terminal, environment)

    first_environment()
    ScriptProcess._start = start  # type: ignore[assignment, method-assign]


@contextmanager
def _adopting() -> Iterator[None]:
    """Let a process inside the block whose parent has ended, and which descends from this one, become its child."""
    prctl = ctypes.CDLL(None).prctl
    prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _ask(start: _Start, streams: Sequence[int]) -> io.FileIO:
    """Ask the server to start something; return what its answers come from, a line each: the process, and its end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(_own_server or _server(), [b"x"], [*streams, theirs.fileno()])
        ours.sendall(json.dumps(start._asdict()).encode() + b"\n")
        return io.FileIO(ours.detach(), "r")


@cache
def first_environment() -> dict[str, str]:
    """Return the environment as it was when this was called first, which the server starts with."""
    return dict(os.environ)


@cache
def _server() -> socket.socket:
    """Start the server, one for all tests of this process, which it does not outlive."""
    ours, theirs = socket.socketpair()
    environment = {name: value for name, value in first_environment().items() if name not in ("LC_CTYPE", "LANG")}
    server = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno()), ROOM_FOR_WORDS * "."],
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

_own_threads = 1  # of PyTorch, where a script does not set how many
_own_server: socket.socket | None = None  # of a fork that leads scripts


class _Start(NamedTuple):
    words: list[str]
    folder: str
    environment: dict[str, str]
    terminal: bool
    anew: bool = False
    is_script: bool = False  # of a user, with the agent in it: becomes a child of who asks for it


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
        child = _fork_twice() if start.is_script else os.fork()
        if not child:
            for connection in (control, answer, *answers.values()):
                connection.close()
            if start.words[1:4] == ["-m", "autograd_tui", "script"] and not start.anew:
                _get_a_server(descriptors)
            _take(descriptors, start)
            return start
        for each in descriptors:
            os.close(each)
        with suppress(OSError):
            answer.sendall(f"{child}\n".encode())
        if start.is_script:
            answer.close()
        else:
            answers[child] = answer


def _get_a_server(streams: Sequence[int]) -> None:
    """Fork a server as long as this fork is as its own server made it, and have that fork the scripts."""
    global _own_server
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        _own_server = ours
        fork_scripts()
        return
    ours.close()
    for each in streams:
        os.close(each)
    _run_to_end(_serve(theirs))


def _fork_twice() -> int:
    """Fork a process that is no child of this one; return it, once that is so, and 0 in it."""
    reading, writing = os.pipe()
    if middle := os.fork():
        os.close(writing)
        with os.fdopen(reading) as file:
            child = int(file.read())
        os.waitpid(middle, 0)
        return child
    middle = os.getpid()
    if child := os.fork():
        os.write(writing, str(child).encode())
        os._exit(0)
    os.close(reading)
    os.close(writing)
    while os.getppid() == middle:
        sleep(0.0005)
    return 0


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
    _be_listed_as(start.words)
    # PyTorch's pool of threads is made anew at its first use in a fork; where two threads do that at once, it aborts.
    sys.modules["torch"].set_num_threads(_own_threads if start.is_script else 1)


def _be_listed_as(words: list[str]) -> None:
    """Have the system list this process with a command line, as far as there is room."""
    with suppress(OSError, IndexError):
        with open("/proc/self/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        first, last = int(fields[45]), int(fields[46])
        listed = b"".join(os.fsencode(word) + b"\0" for word in words)[: last - first - 1]
        ctypes.memmove(first, listed.ljust(last - first, b"\0"), last - first)


def _open_streams() -> None:
    """Open streams as an interpreter has them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, name)
        file = os.fdopen(number, "w" if number else "r", encoding=before.encoding, errors=before.errors, closefd=False)
        file.reconfigure(line_buffering=number == 2 or file.isatty())
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)
    sys.modules["numpy"].random.seed()  # Python's own random numbers are drawn anew in a fork by themselves


def _run(words: list[str]) -> None:
    """Do what an interpreter does with such a command line."""
    _open_streams()
    words = words[1:]
    while words[0] == "-W":
        warnings.simplefilter(words[1])  # type: ignore[arg-type]
        words = words[2:]
    if words[0] == "-m":
        sys.path[0], sys.argv = os.getcwd(), words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.path[0], sys.argv = "", ["-c", *words[2:]]
        module = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), vars(module))
    else:
        sys.path[0], sys.argv = os.path.dirname(os.path.abspath(words[0])), words
        runpy.run_path(words[0], run_name="__main__")


class _Imported:
    """Finds torch, where a script imports it, as the module that the server has imported."""

    def __init__(self) -> None:
        self._torch = sys.modules.pop("torch")

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        return ModuleSpec("torch", self, origin=self._torch.__file__, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self._spec = self._torch.__spec__
        return self._torch

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


def _run_script(words: list[str]) -> None:
    """Do what an interpreter does with a file that has the agent's `sitecustomize` first in its PYTHONPATH."""
    _open_streams()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    sys.meta_path.insert(0, _Imported())
    sys.path[0] = os.environ["PYTHONPATH"].split(os.pathsep)[0]
    sys.modules.pop("sitecustomize", None)
    importlib.import_module("sitecustomize")
    file = words[1]
    sys.argv, sys.orig_argv = words[1:], words
    sys.path.insert(0, os.path.dirname(os.path.realpath(file)))
    module = sys.modules["__main__"] = ModuleType("__main__")
    vars(module).update(__file__=file, __builtins__=builtins, __loader__=SourceFileLoader("__main__", file))
    with open(file, "rb") as opened:
        code = compile(opened.read(), file, "exec")
    exec(code, vars(module))


def _import_all() -> None:
    """Import what programs and scripts do, sooner or later; no thread may have been started by that."""
    import torch
    import torchvision  # noqa: F401

    import autograd_tui

    for each in pkgutil.walk_packages(autograd_tui.__path__, "autograd_tui."):
        if not each.name.endswith("__main__"):
            importlib.import_module(each.name)
    global _own_threads
    _own_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()


def _run_to_end(start: _Start) -> NoReturn:
    """Run a command line, and end as an interpreter does, but for what it takes down piece by piece."""
    global _ending
    code: object = 0
    is_interrupted = False
    try:
        if start.is_script:
            _run_script(start.words)
        else:
            _run(start.words)
    except SystemExit as error:
        code = error.code or 0
    except BaseException as error:
        code, is_interrupted = 1, isinstance(error, KeyboardInterrupt)
        with suppress(OSError, ValueError):
            sys.stdout.flush()  # as an interpreter does before it prints a traceback
        if start.is_script:
            trace = _without_this_file(error)
            sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
            if sys.version_info >= (3, 12):
                sys.last_exc = error
            sys.excepthook(type(error), error, trace)
        else:
            traceback.print_exc()
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    _ending = _Ending(code, is_interrupted)
    sys.exit()  # the interpreter waits for threads, and calls what is registered: ours last


class _Ending(NamedTuple):
    code: int
    is_interrupted: bool


_ending: _Ending | None = None  # of a fork that has done what it was to do


def _leave() -> None:
    """End a fork, behind all else that was registered with `atexit`."""
    if _ending is None:
        return
    code = _ending.code
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        code = 120
    if _ending.is_interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


def _without_this_file(error: BaseException) -> TracebackType | None:
    """Have the traceback of an exception begin in the script."""
    while (trace := error.__traceback__) is not None and trace.tb_frame.f_code.co_filename == __file__:
        error.__traceback__ = trace.tb_next
    return trace


def _main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    first_environment()
    atexit.register(_leave)
    _import_all()
    start = _serve(control)
    if start.anew:
        os.execvpe(start.words[0], start.words, start.environment)
    _run_to_end(start)


if __name__ == "__main__":
    _main()
