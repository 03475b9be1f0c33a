"""Snapshots of a script: forked processes that wait, each of which can be the script once more from there on."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any

import torch

from autograd_tui.core.command import Command
from autograd_tui.core.files import read_file
from autograd_tui.engine.script.agent_messages import Return, Snapshot

if TYPE_CHECKING:
    from autograd_tui.core.frame import Frame
    from autograd_tui.engine.script.agent import Agent
    from autograd_tui.engine.script.loop_phases import Phases

MAX_TIME_SHARE = 0.01  # of a free run's time that forks may cost
COPY_SECONDS = 1.2e-9  # a byte that is written behind a fork: its page is copied
BASE_BYTES = 4 << 20  # of a snapshot of the smallest script: its page table, and what Python writes
OMP_PAUSE_HARD = 2
FRAME_EVENTS = 16  # of the way back to a stop that have frames, at least
FRAME_ITERATIONS = 3
HARMLESS_THREADS = ("tqdm_monitor", "TMonitor")


class Snapshots:
    """Forks the snapshots of one script; a process that was a snapshot goes on with what it has here."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.is_copy = False  # whether this process was forked from the script that was started
        self.count = 0  # that were forked
        self._iteration = -1  # of the last one
        self.due = 0.0  # when a free run may fork again, by `monotonic`
        self._told: str | None = None  # why none could be forked
        self._outputs: tuple[int, int] | None = None  # copies of 1 and 2, while those are muted

    @property
    def are_muted(self) -> bool:
        """Whether what the script prints goes nowhere."""
        return self._outputs is not None

    def take_at_stop(self, phases: Phases) -> Return | None:
        """Fork one where the script is about to be held, once an iteration; see `take`."""
        if self._agent.seams is None or self._iteration == phases.counts.iteration:
            return None
        return self.take(phases, is_whole=True)

    def take_in_run(self, phases: Phases) -> Return | None:
        """Fork one at the start of an iteration of a free run, so seldom that it costs little; see `take`."""
        if self._agent.seams is None or monotonic() < self.due:
            return None
        return self.take(phases, is_whole=False)

    def take(self, phases: Phases, *, is_whole: bool) -> Return | None:
        """Fork a snapshot. Return None, and the order to go back in a process that was one and is the script now.

        is_whole: whether the frame of the present event has been made, so that the snapshot has it.
        """
        reason = why_not()
        started = monotonic()
        if reason is None:
            try:
                order = self._fork_and_wait(phases, is_whole=is_whole)
            except OSError as error:
                reason = f"no process can be forked ({error.strerror or error})"
            else:
                if order is not None:
                    return order
                self.count += 1
                self._iteration, self._told = phases.counts.iteration, None
                written = COPY_SECONDS * state_bytes(phases)
                self.due = monotonic() + (monotonic() - started + written) / MAX_TIME_SHARE
                return None
        self.due = monotonic() + 1.0
        if reason != self._told:
            self._told = reason
            self._agent.say_no_snapshot(reason)
        return None

    def _fork_and_wait(self, phases: Phases, *, is_whole: bool) -> Return | None:
        parent = os.getpid()
        made = Snapshot(
            phases.counts.index, phases.counts.iteration, is_whole, phases.counts.length or 0, state_bytes(phases)
        )
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        if not _fork(self._agent.seams):
            return None
        # A snapshot: it answers no signal, and ends when its connection does.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with suppress(OSError):
                os.setpgid(0, 0)  # what is typed on the terminal is for the process that runs
            connection = self._agent.reconnect(parent, made)
            while True:
                order = connection.recv() if connection is not None else None
                if not isinstance(order, Return):
                    os._exit(0)
                snapshot = os.getpid()
                if _fork(self._agent.seams):
                    break
        except BaseException:
            os._exit(0)
        # The script once more, in a process of its own; the snapshot waits on.
        self.is_copy, self._iteration = True, made.iteration
        phases.passed = None
        with suppress(OSError):
            os.setpgid(0, 0)
        self.mute()
        self._agent.reconnect(snapshot, None)
        take_terminal()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return order

    # What the script prints while it catches up.

    def mute(self) -> None:
        """Send what goes to 1 and 2 nowhere, until they are unmuted."""
        if self._outputs is not None:
            return
        null = os.open(os.devnull, os.O_WRONLY)
        self._outputs = os.dup(1), os.dup(2)
        for output in (1, 2):
            os.dup2(null, output)
        os.close(null)

    def unmute(self) -> None:
        """Let 1 and 2 be what they were."""
        if self._outputs is None:
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        for output, saved in zip((1, 2), self._outputs, strict=True):
            os.dup2(saved, output)
            os.close(saved)
        self._outputs = None


class CatchUp:
    """The run of a former snapshot to a stop where the script has been before; it sends frames of the last part."""

    shows, counts_all = True, False

    def __init__(self, agent: Agent, order: Return) -> None:
        self._agent, self.to = agent, order.to
        self._settings = list(order.settings)
        first = min([order.to, *(index for index, _ in order.settings)])
        self._frames_from = first - max(FRAME_ITERATIONS * (agent.phases.counts.length or 0), FRAME_EVENTS)

    def lets_pass(self, phases: Phases, name: str) -> bool:
        """Return whether the event needs no frame."""
        if phases.counts.index >= self._frames_from:
            phases.frames = True
        return phases.counts.index < self._frames_from and not self._agent.is_paused

    def ends_at(self, frame: Frame, *, ends_iteration: bool) -> bool:
        """Return whether the run ends at a frame."""
        return self._agent.is_paused or frame.index >= self.to

    def go_on(self, phases: Phases) -> None:
        """Do nothing: there are frames until the end."""

    def settings_at(self, index: int) -> list[Command]:
        """Return, once, what was set at the stop of frame `index`, in order."""
        found: list[Command] = []
        while self._settings and self._settings[0][0] == index + 1 + len(found):
            found.append(self._settings.pop(0)[1])
        return found


def why_not() -> str | None:
    """Return what is in the way of a fork that goes on as the script does, None where nothing is."""
    if not sys.platform.startswith("linux"):
        return "going back needs Linux"
    own = threading.current_thread()
    names = [
        each.name
        for each in threading.enumerate()
        if each is not own and each.name not in HARMLESS_THREADS and type(each).__name__ not in HARMLESS_THREADS
    ]
    if names:
        return f"it has other threads ({_some(names)}), which no copy of it would have"
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        return "the process that started it waits for its end, which no copy of it may put off"
    workers = multiprocessing.active_children() if multiprocessing is not None else []
    if workers:
        return f"it has worker processes ({_some([each.name for each in workers])}), which no copy of it would have"
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return "it is one of the processes of torch.distributed, and the others cannot be taken back"
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return "it uses CUDA, which does not work in a copy of a process"
    if any(name.startswith("pt_autograd") for name in _native_threads()):
        return "PyTorch runs backward in threads for a device, which no copy of it would have"
    return None


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _native_threads() -> list[str]:
    """Return the names of this process's threads, as the system has them."""
    names = []
    with suppress(OSError):
        for task in os.listdir("/proc/self/task"):
            with suppress(OSError):
                names.append(read_file(f"/proc/self/task/{task}/comm").decode(errors="replace").strip())
    return names


def state_bytes(phases: Phases) -> int:
    """Return about how many bytes an iteration writes, which a snapshot then has for itself."""
    total = BASE_BYTES
    for param in phases.registry.params().values():
        total += param.nbytes * (1 + (param.grad is not None))
    for optimizer in phases.registry.optimizers:
        for state in dict.values(optimizer.state):
            total += sum(each.nbytes for each in state.values() if isinstance(each, torch.Tensor))
    return total


def _fork(seams: Any) -> bool:
    """Fork a process that is nobody's child, with the same random numbers; return whether this is that process.

    The script's own `os.wait` and its handler of SIGCHLD never hear of it.
    """
    with children_unheard(), forking(seams):
        child = os.fork()
        if child == 0:
            try:
                if os.fork():
                    os._exit(0)
            except BaseException:
                os._exit(1)
        else:
            with suppress(ChildProcessError):  # where the script ignores SIGCHLD
                _, status = os.waitpid(child, 0)
                if status:
                    raise OSError(0, "the second fork failed")
        return child == 0


@contextmanager
def forking(seams: Any) -> Iterator[None]:
    """Have `os.fork` inside the block make a process that goes on as this one does: its seams, its random numbers."""
    _stop_openmp_threads()
    state = random.getstate()  # which Python seeds anew in each fork
    seams.stays_on_in_forks = True
    ignored = ("ignore", None, DeprecationWarning, None, 0)
    warnings.filters.insert(0, ignored)  # type: ignore[attr-defined]  # not simplefilter: warnings would come twice
    parent = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != parent:
            random.setstate(state)
        warnings.filters.remove(ignored)  # type: ignore[attr-defined]
        seams.stays_on_in_forks = False


@contextmanager
def children_unheard() -> Iterator[None]:
    """Have the script's handler of SIGCHLD hear of none of our children, which end inside the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    was_pending = signal.SIGCHLD in signal.sigpending()
    parent = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == parent and not was_pending and signal.SIGCHLD in signal.sigpending():
            signal.sigtimedwait({signal.SIGCHLD}, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take_terminal() -> None:
    """Have what is typed on the terminal, and its ctrl+c, come to this process's group."""
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            if os.tcgetpgrp(terminal) != os.getpgrp():
                os.tcsetpgrp(terminal, os.getpgrp())
        finally:
            os.close(terminal)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop_openmp_threads() -> None:
    """End the threads of each OpenMP that is loaded: in a fork without them the first parallel operation hangs."""
    for pause in _openmp_pauses():
        pause(OMP_PAUSE_HARD)


@cache
def _openmp_pauses() -> list[Callable[[int], int]]:
    lines = os.fsdecode(read_file("/proc/self/maps")).splitlines()
    files = {line.split(maxsplit=5)[5] for line in lines if "/" in line}
    names = ("libgomp", "libomp", "libiomp")
    libraries = [ctypes.CDLL(each) for each in sorted(files) if os.path.basename(each).startswith(names)]
    return [each.omp_pause_resource_all for each in libraries if hasattr(each, "omp_pause_resource_all")]
