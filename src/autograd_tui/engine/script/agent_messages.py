"""What goes between the agent in a script's process and the session that leads it, pickled over one socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from autograd_tui.core.command import Command
from autograd_tui.core.history import Series
from autograd_tui.core.loss_surface import LossSurface
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.run_observer import Progress
from autograd_tui.core.trace import Trace
from autograd_tui.core.watchpoint import FiredWatchpoint, Watchpoint

SOCKET_VARIABLE = "AUTOGRAD_TUI_SCRIPT"  # in the script's environment: the folder of the socket and the pause byte
SOCKET_NAME, PAUSE_NAME = "socket", "pause"  # in that folder
PAUSE_BYTES = 1  # of the pause file: not 0 where the script is to be held at its next stop

# From the agent.


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a forked process is that waits: the script, held at one of its events."""

    index: int
    iteration: int
    is_whole: bool  # whether it has the frame of that event; else it can make that of an iteration later
    length: int  # events of the iteration before, 0 where that is not known
    bytes: int  # of memory that it will have for itself, about


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of each process that attaches, sent when `import torch` has ended there."""

    pid: int
    parent: int | None  # of a snapshot: the process that it was forked from
    rank: int | None  # under torchrun
    file: str  # of the script
    arguments: tuple[str, ...]
    versions: Mapping[str, str]  # by package
    snapshot: Snapshot | None = None  # what a snapshot holds; None of a process that runs


@dataclass(frozen=True, slots=True)
class NoSnapshot:
    """No snapshot can be taken for now. `reason` is a clause."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """A frame of the script; `held`: it waits there for an order that names it."""

    line: str  # of a FrameEncoder that began with this process's Hello
    held: bool
    ends_iteration: bool = False  # whether the iteration before had no more events than this one has by now
    losses: Series = field(default_factory=Series)  # of the iterations since the Stop before
    fired: FiredWatchpoint | None = None
    trace: Trace | None = None  # of the phase that led here, where it was to be recorded
    unrecorded: str | None = None  # a sentence that says why it was not


@dataclass(frozen=True, slots=True)
class Ended:
    """The script's process comes to its end."""

    index: int  # of its last event
    losses: Series = field(default_factory=Series)  # of the iterations since the last Stop
    held: bool = False  # whether it waits, so that the script can be taken back, until it is detached
    raised: bool = False  # whether an exception that nobody caught has ended it


@dataclass(frozen=True, slots=True)
class SeamsOff:
    """A seam has failed and all are off: the script goes on as under plain Python. `reason` is a clause."""

    reason: str


@dataclass(frozen=True, slots=True)
class SurfaceSoFar:
    """What is measured of a surface."""

    surface: LossSurface | None
    progress: Progress  # in its present grid
    is_complete: bool = False  # at least coarsely


@dataclass(frozen=True, slots=True)
class Answer:
    """What an Ask came to: a value, or a sentence that says why not. A Progress may come before it."""

    value: Any = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class WantsTerminal:
    """The script reads from its terminal: keys go there until TerminalBack."""

    why: Literal["input", "breakpoint"]


@dataclass(frozen=True, slots=True)
class TerminalBack:
    """The script reads no more."""


# To the agent.


@dataclass(frozen=True, slots=True)
class GoOn:
    """Let the script go on from the stop that is named; one that names another stop is ignored."""

    stop: int
    goal: Goal | None = None  # where a free run ends, with frames for one iteration now and then; None: the next stop
    every: float = 0.25  # seconds between those iterations
    watchpoints: tuple[Watchpoint, ...] = ()
    record: bool = False  # with the recorders on, up to the next stop
    muted: bool = False  # what it prints up to there has been seen before


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask something of the held script; it answers with an Answer, and stays held."""

    stop: int
    what: Literal["set", "inspect", "modules", "check_gradient", "surface", "latest_forward", "repro"]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class GradientOrder:
    """What gradient is to be checked: of a parameter, behind the backward that follows a forward."""

    name: str
    forward: int  # the index of its event
    loss: float | None  # that it had; None where that is not known
    index: int  # of the frame that was looked at


@dataclass(frozen=True, slots=True)
class SurfaceOrder:
    """Of what forward the loss is to be measured around its parameters, and over what."""

    values: tuple[str, str] | None  # None: the plane of the step that follows it, and a random direction
    forward: int  # the index of its event
    loss: float | None  # that it had; None where that is not known
    step: int  # the index of the step's event; 0 where values are given
    iteration: int


@dataclass(frozen=True, slots=True)
class Detach:
    """Let the script go on without seams."""


@dataclass(frozen=True, slots=True)
class Return:
    """Make a snapshot the present process again, and run it on to a stop, muted."""

    to: int
    settings: tuple[tuple[int, Command], ...] = ()  # what the user has set since, each with the frame that it led to
