"""A script's process as seen from outside: its start on a terminal of its own, what it prints, and its end.

Or one that runs already and has opened the screen itself.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Protocol

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import read_file
from autograd_tui.engine.script.agent_messages import SOCKET_VARIABLE

try:
    import fcntl
    import termios
except ImportError:  # Windows, where a program cannot be given a terminal of its own in this way
    pass

ENTRY_FOLDER = Path(__file__).parent / "sitecustomize"  # Python imports the file there at its start
DEFAULT_SIZE = 80, 24  # columns and rows, where the screen's own terminal does not tell
MAX_READ = 1 << 18  # bytes that are handed on at once
POLL_SECONDS = 0.1  # between two looks at whether the script has ended
LOOK_SECONDS = 0.05  # between two looks at whether it waits for what is typed; two have to find it so
DRAIN_SECONDS = 0.5  # in which what it printed last is read, while a process that it has left behind still prints
HANGUP_SECONDS = 1.0  # that it has to end in when its terminal has been closed
KILL_SECONDS = 5.0  # until the system has ended what was killed
TAIL_BYTES = 1 << 13  # of what was printed last, to be seen by who takes the terminal over
INTERRUPT = b"\x03"  # the key that is a signal where a terminal makes signals
_IUTF8 = 0x4000  # of a terminal's input modes: backspace takes a whole character; Python does not name it yet
_READ_CALLS = {"x86_64": ("0", "270"), "aarch64": ("63", "72")}  # the numbers of read and pselect6 on Linux
_RESET_SIGNALS = ("SIGINT", "SIGQUIT", "SIGHUP", "SIGPIPE", "SIGXFSZ")  # have their usual meaning in a new terminal


def script_command(words: Sequence[str]) -> list[str]:
    """Return the command that `autograd-tui script` starts: "train.py ARGS", "-m pkg.train ARGS", "-- torchrun ARGS".

    Raises Refused where no script is named.
    """
    first, *rest = words or [""]
    named = bool(rest) if first in ("--", "-m") else bool(first) and not first.startswith("-")
    if not named:
        raise Refused("give a script, -m and a module, or -- and a command: autograd-tui script train.py.")
    return rest if first == "--" else [sys.executable or "python", *words]


def script_environment(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the script's environment: the given one, with what has the agent start in each Python of the script.

    folder: that of the agent's socket.
    """
    paths = [str(ENTRY_FOLDER), environment.get("PYTHONPATH", "")]
    return {
        **environment,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),  # an empty entry would mean the working folder
        SOCKET_VARIABLE: str(folder),
    }


class TerminalLender(Protocol):
    """Lends the screen's own terminal to a script; all may be called on any thread."""

    def attach(self, process: ScriptProcess) -> None:
        """Take the process that the terminal may be lent to."""

    def lend(self) -> None:
        """Have keys go to the script."""

    def take_back(self) -> None:
        """Have keys go to the screen again."""


class ScriptProcess:
    """A command that runs on a terminal of its own, which it leads a session on, as in a new terminal window.

    A thread reads what it prints. When this program ends, in whatever way, that terminal is closed: the script and
    the processes that it has started on it get SIGHUP.
    """

    ends_with_screen = True
    # Called on a thread, with True where the script begins to wait for keys, with False where it no longer does.
    on_reading: Callable[[bool], None] | None = None

    def __init__(
        self,
        words: Sequence[str],
        *,
        folder: Path,
        on_output: Callable[[bytes], None],
        size: tuple[int, int] | None = None,
    ) -> None:
        """Start the script that `words` name, as behind `autograd-tui script`; raises Refused where it cannot be.

        folder: of the agent's socket. on_output: called on a thread, with all that the script prints in its order.
        size: columns and rows of its terminal, by default those of ours.
        """
        if not hasattr(os, "posix_spawn") or not hasattr(os, "openpty"):
            raise Refused("a script can be held on Linux and macOS alone.")
        self.command = script_command(words)
        master, slave = os.openpty()
        self._prepare(words, master, on_output)
        try:
            self.resize(*(size or _own_size()))
            _erase_whole_characters(slave)
            self._terminal = os.ttyname(slave)
            self.pid = self._start(self._terminal, script_environment(folder, os.environ))
        except BaseException:
            for each in (self._master, self._wakes, self._wake):
                os.close(each)
            raise
        finally:
            os.close(slave)
        self._begin_to_read()

    def _prepare(self, words: Sequence[str], master: int, on_output: Callable[[bytes], None]) -> None:
        self.title = " ".join(words[1:2] if words[0] == "--" else words[: 1 + (words[0] == "-m")])
        self.on_output = on_output
        self.exit_code: int | None = None  # as a shell gives it: 128 and the signal that ended it; None while it runs
        self._master = master
        os.set_blocking(master, False)
        self._wakes, self._wake = os.pipe()
        self._state = threading.Lock()  # held while the process is waited for or signalled, and the master is closed
        self._closing = False
        self._output = threading.Lock()  # held while what is printed is handed on
        self._viewer: Callable[[bytes], None] | None = None
        self._tail = b""  # printed last, and seen by no viewer
        self._at_line_start = True
        self._terminal = ""  # its name
        self._looks, self._next_look = 0, 0.0  # in a row that have found it waiting for keys; when the next one is due
        self._ended = threading.Event()  # also all that it printed has been handed on

    def _begin_to_read(self) -> None:
        threading.Thread(target=self._read, name="script output", daemon=True).start()

    def _start(self, terminal: str, environment: Mapping[str, str]) -> int:
        """Start the command; the leader of a new session opens the terminal, which so becomes the session's own."""
        opened = (os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0)
        copies = [(os.POSIX_SPAWN_DUP2, 0, descriptor) for descriptor in (1, 2)]
        signals = [getattr(signal, name) for name in _RESET_SIGNALS if hasattr(signal, name)]
        try:
            return os.posix_spawnp(
                self.command[0],
                self.command,
                environment,
                file_actions=[opened, *copies],
                setsid=True,
                setsigmask=[],
                setsigdef=signals,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise Refused(f"{self.command[0]} cannot be started: {reason.lower()}.") from None

    # Its terminal.

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of its terminal; the script gets SIGWINCH."""
        with self._state, suppress(OSError):
            if self._master >= 0:
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize_to_own(self) -> None:
        """Set the size of its terminal to that of ours."""
        self.resize(*_own_size())

    def show(self, viewer: Callable[[bytes], None] | None) -> bytes:
        """Hand on to `viewer` too what is printed from now on; return what was printed last, and seen by none."""
        with self._output:
            self._viewer = viewer
            tail, self._tail = self._tail, b""
            return tail

    def announce(self, sentence: str) -> None:
        """Hand on a line of ours, among what is printed before and behind it."""
        self._hand_on(b"\r\n" * (not self._at_line_start) + sentence.encode() + b"\r\n")

    def write(self, keys: bytes) -> int:
        """Type keys on its terminal; return how many bytes of them it has taken, which it may do with none now."""
        with self._state:
            if self._master < 0:
                return len(keys)
            try:
                return os.write(self._master, keys)
            except BlockingIOError:
                return 0
            except OSError:  # it has no terminal any more
                return len(keys)

    def interrupt(self) -> None:
        """Do what ctrl+c on its terminal does: SIGINT to all processes of the foreground there."""
        with self._state:
            if self.exit_code is not None or self._master < 0:
                return
            with suppress(OSError, termios.error):
                modes = termios.tcgetattr(self._master)
                key = modes[6][termios.VINTR]
                makes_signals = modes[3] & termios.ISIG and key != b"\0"
                if makes_signals and os.write(self._master, key):
                    return
            with suppress(OSError):
                os.killpg(_foreground_group(self._master) or self.pid, signal.SIGINT)

    # Its end.

    @property
    def was_closed(self) -> bool:
        """Whether it was ended by `close`, and not by itself."""
        return self._closing

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait, at most so long, until the script has ended and what it printed was handed on; return its exit code."""
        self._ended.wait(seconds)
        return self.exit_code if self._ended.is_set() else None

    def terminate(self) -> None:
        """Ask it to end, by SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and all processes that it has started, by SIGKILL."""
        _kill(self._processes())

    def close(self) -> int | None:
        """End it in order: close its terminal, give it a moment, then kill what is left; return its exit code."""
        processes = self._processes()
        self._closing = True
        with suppress(OSError):
            os.write(self._wake, b"\0")
        self._ended.wait(HANGUP_SECONDS)
        _kill(processes | self._processes())
        self._ended.wait(KILL_SECONDS)
        return self.exit_code

    def _signal(self, number: int) -> None:
        with self._state, suppress(OSError):
            if self.exit_code is None:
                os.kill(self.pid, number)

    def _processes(self) -> dict[int, str]:
        """Return all processes of the script, with the time of their start; none where it has been waited for."""
        with self._state:
            return {} if self.exit_code is not None else _session_and_descendants(self.pid)

    def _poll(self) -> bool:
        with self._state:
            if self.exit_code is None:
                try:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:  # somebody else has waited for it
                    self.exit_code = 0
                else:
                    if pid:
                        code = os.waitstatus_to_exitcode(status)
                        self.exit_code = code if code >= 0 else 128 - code
            return self.exit_code is not None

    # On the reading thread.

    def _read(self) -> None:
        """Hand on what is printed, until the script has ended; then, or when it is asked for, close the terminal."""
        drained = float("inf")  # when reading ends, of a script that has ended
        try:
            while not self._closing and monotonic() < drained:
                pause = POLL_SECONDS if self.on_reading is None else LOOK_SECONDS
                ready, _, _ = select.select([self._master, self._wakes], [], [], pause)
                data = self._take() if self._master in ready else b""
                if data:
                    self._hand_on(data)
                self._look_whether_it_reads()
                if self._poll():
                    drained = min(drained, monotonic() + DRAIN_SECONDS)
                    if not data:
                        break
                elif data is None:  # nobody has the terminal open, for now or for ever
                    select.select([self._wakes], [], [], POLL_SECONDS / 10)
        finally:
            with self._state:
                master, self._master = self._master, -1
                os.close(master)
            while not self._poll():
                select.select([], [], [], POLL_SECONDS / 10)
            self._ended.set()

    def _look_whether_it_reads(self) -> None:
        """Say where it begins to wait for what is typed, by whatever call, and where it no longer does."""
        if self.on_reading is None or monotonic() < self._next_look:
            return
        self._next_look = monotonic() + LOOK_SECONDS
        before, reads = self._looks, _reads_from(self._terminal, _foreground_group(self._master) or self.pid)
        self._looks = min(before + 1, 2) if reads else 0
        if (before == 2) != (self._looks == 2):
            self.on_reading(reads)

    def _hand_on(self, data: bytes) -> None:
        with self._output:
            self._at_line_start = data.endswith(b"\n")
            self.on_output(data)
            if self._viewer is not None:
                self._viewer(data)
            else:
                self._tail = (self._tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]

    def _take(self) -> bytes | None:
        """Read what there is, up to MAX_READ bytes; None where no process has the terminal open."""
        pieces: list[bytes] = []
        room = MAX_READ
        while room > 0:
            try:
                piece = os.read(self._master, room)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            if not piece:
                return b"".join(pieces) or None
            pieces.append(piece)
            room -= len(piece)
        return b"".join(pieces)


def _own_size() -> tuple[int, int]:
    """Return the columns and rows of the terminal that this program has."""
    for stream in (sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError, AttributeError):
            columns, rows = os.get_terminal_size(stream.fileno())  # type: ignore[union-attr]
            if columns and rows:
                return columns, rows
    return DEFAULT_SIZE


def _erase_whole_characters(terminal: int) -> None:
    with suppress(termios.error):
        modes = termios.tcgetattr(terminal)
        modes[0] |= _IUTF8
        termios.tcsetattr(terminal, termios.TCSANOW, modes)


def _foreground_group(terminal: int) -> int | None:
    with suppress(OSError):
        group = os.tcgetpgrp(terminal)
        return group if group > 1 else None
    return None


def _reads_from(terminal: str, pid: int) -> bool:
    """Return whether a process's main thread waits for what is typed on a terminal; False where Linux does not tell."""
    with suppress(OSError, LookupError, ValueError, AttributeError):
        read, select_call = _READ_CALLS[os.uname().machine]
        number, *arguments = read_file(f"/proc/{pid}/syscall").decode().split()
        waits_without_end = number == select_call and arguments[0] == "0x1" and arguments[4] == "0x0"
        if number == read or waits_without_end:  # as Python's readline does, for 0 alone
            descriptor = int(arguments[0], 16) if number == read else 0
            return os.readlink(f"/proc/{pid}/fd/{descriptor}") in (terminal, "/dev/tty")
    return False


def _session_and_descendants(leader: int) -> dict[int, str]:
    """Return the processes of a leader's session and all that descend from it, each with the time of its start.

    Where the system does not list processes as Linux does, only the leader, with no time.
    """
    listed = {pid: stat for pid in _listed_processes() if (stat := _process_stat(pid))}
    if leader not in listed:
        return {leader: ""}
    found = {leader} | {pid for pid, (_, session, _) in listed.items() if session == leader}
    grows = True
    while grows:
        more = {pid for pid, (parent, _, _) in listed.items() if parent in found} - found
        found |= more
        grows = bool(more)
    return {pid: listed[pid][2] for pid in found}


def _listed_processes() -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return []


def _process_stat(pid: int) -> tuple[int, int, str] | None:
    """Return a process's parent, its session and the time of its start; None where there is none."""
    try:
        fields = read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()  # a name may hold spaces and brackets
        return int(fields[1]), int(fields[3]), fields[19].decode()
    except (OSError, ValueError, IndexError):
        return None


def resident_bytes(pid: int) -> int | None:
    """Return how much memory a process has; None where there is none, and on systems that cannot say it."""
    try:
        return int(read_file(f"/proc/{pid}/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _kill(processes: Mapping[int, str]) -> None:
    """Kill those processes that are still there, and no later ones with the same number.

    Of one that is named without the time of its start, its group.
    """
    for pid, start in processes.items():
        with suppress(OSError):
            if not start:
                os.killpg(pid, signal.SIGKILL)
            elif (stat := _process_stat(pid)) and stat[2] == start:
                os.kill(pid, signal.SIGKILL)


class AttachedScript(ScriptProcess):
    """The process that has started this one; it goes on when the screen is left, and is never ended from here."""

    ends_with_screen = False

    def __init__(self, words: Sequence[str], *, terminal: int, on_output: Callable[[bytes], None]) -> None:
        """`terminal`: the screen's end of the pseudo terminal that the script reads from and prints to."""
        self.pid = os.getppid()
        self._prepare(words, terminal, on_output)
        self.resize_to_own()
        self._begin_to_read()

    def write(self, keys: bytes) -> int:
        """Type keys there; ctrl+c is a signal, which that terminal itself does not make: it is nobody's own."""
        if INTERRUPT in keys and self._makes_signals():
            before, _, after = keys.partition(INTERRUPT)
            taken = super().write(before) if before else 0
            if taken < len(before):
                return taken
            self.interrupt()
            return taken + 1 + (self.write(after) if after else 0)
        return super().write(keys)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the script."""
        if self.exit_code is None and os.getppid() == self.pid:
            with suppress(OSError):
                os.kill(self.pid, signal.SIGINT)

    def terminate(self) -> None:
        """Leave it alone."""

    def _makes_signals(self) -> bool:
        with self._state, suppress(OSError, termios.error):
            return self._master >= 0 and bool(termios.tcgetattr(self._master)[3] & termios.ISIG)
        return False

    def _processes(self) -> dict[int, str]:
        return {}  # none is to be killed

    def _poll(self) -> bool:
        """Return whether it has ended, or is left."""
        if self.exit_code is None and (self._closing or os.getppid() != self.pid):
            self.exit_code = 0
        return self.exit_code is not None
