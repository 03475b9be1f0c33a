"""Forked copies of a script's process that run on with its own code for a while, and say what came of it."""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import os
import pickle
import signal
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from autograd_tui.core.errors import Refused
from autograd_tui.core.run_observer import Progress
from autograd_tui.engine.script.agent_messages import SurfaceSoFar
from autograd_tui.engine.script.snapshot import forking
from autograd_tui.engine.training.user_code import in_words

if TYPE_CHECKING:
    from autograd_tui.engine.script.seams import Seams

POLL_SECONDS = 0.05  # between two looks at whether an answer is still wanted
_DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


class RunsOn(BaseException):
    """Raised in a copy, to leave our own functions: the script's code goes on there."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a copy has no answer, in a sentence."""

    sentence: str
    other_operations: bool = False  # whether it ran others than were recorded


class Answers:
    """A copy's end of the pipe to the process that it was forked from."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def are_wanted(self) -> bool:
        """Whether the other process still reads."""
        return not self._connection.poll(0)  # it sends nothing: what can be read is its end

    def tell(self, message: Any) -> None:
        """Send a message; this process ends where nobody reads it."""
        try:
            # Not Connection.send: with PyTorch's own reductions that would share memory in place of sending it.
            self._connection.send_bytes(pickle.dumps(message))
        except BaseException:
            os._exit(1)

    def end(self, answer: Any) -> NoReturn:
        """Send the last message, and end this process, with nothing of the script's run."""
        self.tell(answer)
        os._exit(0)

    def fail(self, sentence: str) -> NoReturn:
        """End this process without an answer."""
        self.end(Failure(sentence))


class ForkedCopy:
    """A copy, as the process sees it that has forked it."""

    def __init__(self, pid: int, connection: Connection) -> None:
        self._pid, self._connection = pid, connection

    def answer(
        self,
        is_wanted: Callable[[], bool],
        *,
        seconds: float | None = None,
        on_progress: Callable[[Any], object] | None = None,
    ) -> Any:
        """Return what the copy has to say, which may be a Failure; it has ended then.

        Raises Refused where it says nothing in so many seconds, ends without a word, or is not wanted any more.
        """
        deadline = None if seconds is None else monotonic() + seconds
        try:
            while True:
                if self._connection.poll(POLL_SECONDS):
                    message = pickle.loads(self._connection.recv_bytes())
                    if not isinstance(message, (Progress, SurfaceSoFar)):
                        return message
                    if on_progress is not None:
                        on_progress(message)
                if not is_wanted():
                    raise Refused("what was to be measured was given up.")
                if deadline is not None and monotonic() > deadline:
                    raise Refused(f"the forward, made again, did not come to its backward within {seconds:.0f} s.")
        except (EOFError, OSError):
            raise Refused("the script has ended before its backward, where the forward was made again.") from None
        finally:
            self._end()

    def _end(self) -> None:
        self._connection.close()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # where the script ignores SIGCHLD
            os.waitpid(self._pid, 0)


def fork_copy(seams: Seams) -> ForkedCopy | Answers:
    """Fork a copy, and return it; return what it answers through in the copy itself, which then has to go on.

    The copy ends with this process at the latest. It answers no signal, prints nothing, and adds nothing to files that
    are open.
    """
    ours, theirs = Pipe()
    parent = os.getpid()
    with forking(seams):
        pid = os.fork()
    if pid:
        theirs.close()
        return ForkedCopy(pid, ours)
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        ours.close()
        _leave_files_alone()
        answers = Answers(theirs)
        _end_early(answers)
    except BaseException:
        os._exit(1)
    return answers


def _leave_files_alone() -> None:
    """Send what goes to 0, 1, 2 and to open files that are written to nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            descriptor = int(name)
            mode = os.fstat(descriptor).st_mode
            is_written = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
            if descriptor <= 2 or (is_written and (stat.S_ISREG(mode) or stat.S_ISFIFO(mode))):
                os.dup2(null, descriptor, inheritable=descriptor <= 2)
    os.close(null)


def _end_early(answers: Answers) -> None:
    """Have an exception that nobody catches, and Python's own end, end the copy alone: nothing is cleaned up."""

    def excepthook(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
        answers.end(failure_of(error))

    sys.excepthook = excepthook
    atexit.register(os._exit, 1)  # it runs before all others


def failure_of(error: BaseException) -> Failure:
    """Return what an exception means that the script's forward has raised."""
    with torch._C.DisableTorchFunction():
        other_operations = type(error).__name__ == "OperationsDiffer"
        if isinstance(error, Refused):
            return Failure(str(error), other_operations)
        return Failure(f"the forward raises where it is made again: {in_words(error)}.")
