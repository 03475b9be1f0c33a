"""What may be asked of a session: the view that a screen draws, and the requests that only some can answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from autograd_tui.core.capabilities import READ_ONLY, Capabilities
from autograd_tui.core.command import Command
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch, FrameStore
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.history import History
from autograd_tui.core.loss_surface import LossSurface, SurfaceChoice
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.picture import Picture
from autograd_tui.core.replay_check import Divergence
from autograd_tui.core.run_config import DEFAULT_MEMORY, RunConfig
from autograd_tui.core.run_observer import Progress, ProgressCallback, RunObserver
from autograd_tui.core.script_stop import ScriptRepro
from autograd_tui.core.tensor_stats import Inspection
from autograd_tui.core.terminal_text import quoted
from autograd_tui.core.trace import Trace
from autograd_tui.core.watchpoint import FiredWatchpoint, Watchpoint

NO_REPRO = "a repro of a script is written where that is held: frames that are stored are not enough for it."
# Of what is to end: there is nothing, Python has not been reached in it yet, KeyboardInterrupt was raised in it.
Interruption = Literal["none", "sent", "raised"]


@dataclass(frozen=True, slots=True)
class DeviceLoad:
    """What is in use of the device, by all programs together; on a CPU, what this process uses of the host's memory.

    None for what could not be read.
    """

    memory: int | None = None  # bytes in use
    total: int | None = None  # bytes of the whole device
    use: float | None = None  # the share of about the last second in which it computed, 0 to 1
    temperature: int | None = None  # degrees Celsius


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What does not change while a session is open: its name, configuration and source lines."""

    title: str
    device: str
    seed: int
    config: RunConfig
    names: tuple[str, str, str] = ("inputs", "targets", "prediction")  # as the source lines call them
    class_names: tuple[str, ...] = ()
    tied: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # a parameter's other names, where it has some
    listing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by phase, and "setup"
    picture: str = ""  # the title of the picture of what is learned, if there is one

    memory: int = DEFAULT_MEMORY  # bytes for checkpoints

    @property
    def command_line(self) -> str:
        """The command line that opens it at frame 0."""
        return self.config.command_line

    def command_line_with(self, log: CommandLog) -> str:
        """Return the command line that opens it and runs commands; of a script the one that runs that anew."""
        commands = "" if self.config.script else str(log)
        return f"{self.command_line} --do {quoted(commands)}" if commands else self.command_line


class SessionView(Protocol):
    """What a screen draws: one frame of a run, its history, and the other frames that can be looked at.

    The attributes, `stored` and `nearest` may be read on any thread.
    """

    @property
    def can(self) -> Capabilities:
        """What may be asked of this session."""

    @property
    def about(self) -> SessionInfo:
        """What does not change while the session is open."""

    @property
    def frame(self) -> Frame:
        """The frame where training stands."""

    @property
    def newest(self) -> int:
        """The index of the last frame of the present branch."""

    @property
    def history(self) -> History:
        """The series that plots need, of the present branch."""

    @property
    def device_load(self) -> DeviceLoad | None:
        """What is in use of the device now; None where nothing is known. It is never waited for."""

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The runs that were rewound over, oldest first."""

    @property
    def watchpoints(self) -> tuple[Watchpoint, ...]:
        """The armed watchpoints."""

    @property
    def fired(self) -> FiredWatchpoint | None:
        """Where a watchpoint fired last."""

    @property
    def warning(self) -> str | None:
        """A sentence for the user about this session as it was opened."""

    @property
    def notice(self) -> str | None:
        """A lasting sentence about where the run comes from, unless it runs here."""

    @property
    def observer(self) -> RunObserver | None:
        """What observes everything that runs, such as a journal's writer."""

    def stored(self, index: int) -> Frame | None:
        """Return frame `index` where it is stored."""

    def nearest(self, index: int, by: int) -> int:
        """Return the index of the stored frame nearest to `index`: at or after it (`by` 1), at or before it (-1)."""

    def look(self, index: int) -> Frame:
        """Return frame `index`, recomputed where it is not stored; training stays where it is."""

    def look_alike(self, index: int, by: int) -> Frame | None:
        """Return the frame of the same phase one iteration before (`by` -1) or after (1) frame `index`, or None."""

    def refresh(self) -> bool:
        """Take in what another program has written of the run since the last call; return whether there was any."""

    def log(self) -> CommandLog:
        """Return a copy of the commands that led to `frame`."""

    def command_line(self) -> str:
        """Return the shell command that repeats the run up to `frame`."""


class InteractiveSession(SessionView, Protocol):
    """A session that is asked for more than a view; one that cannot do it raises Refused."""

    def run(self, command: Command) -> Frame:
        """Run one command and return the frame that it leads to."""

    def repeats(self, command: Command) -> bool:
        """Return whether the command was run from here before, with the frame that it led to still ahead."""

    def next_command(self) -> Command:
        """Return the phase that comes next."""

    def end_of(self, iterations: int) -> Goal:
        """Return the goal so many iterations from here, counting the one that has begun."""

    def run_until(self, goal: Goal) -> Iterator[Frame]:
        """Run phase by phase until `goal`, a watchpoint or an error, yielding each frame."""

    def run_free(self, goal: Goal, stopped: Callable[[], bool], *, every: float) -> Iterator[Frame]:
        """Run whole iterations at the loop's own speed, yielding a frame about every so many seconds."""

    def rewind(self, index: int) -> Frame:
        """Move training to frame `index`."""

    def arm(self, watchpoint: Watchpoint | str) -> None:
        """Pause runs where a condition holds."""

    def disarm(self) -> None:
        """Disarm all watchpoints."""

    def take_fired(self) -> FiredWatchpoint | None:
        """Return, once, the watchpoint that has fired since the last call."""

    def take_divergence(self) -> Divergence | None:
        """Return, once, where the last replay computed another frame than there had been."""

    def trace(self, index: int) -> Trace:
        """Return what happened inside the phase that led to frame `index`."""

    def inspect(self, name: str) -> Inspection:
        """Return exact statistics of a parameter where training stands."""

    def check_gradient(self, index: int, what: str | int, *, stopped: Callable[[], bool]) -> GradCheck:
        """Compare a gradient at frame `index` with finite differences."""

    def choose_surface(self, choice: SurfaceChoice) -> None:
        """Choose the surface that `surface` measures."""

    def give_up_surface(self) -> str | None:
        """Measure no further what was chosen; return a sentence about it, None where nothing was being measured."""

    @property
    def surface_so_far(self) -> LossSurface | None:
        """What is measured of the surface, with where training stands on it."""

    def surface(self, *, stopped: Callable[[], bool], watch: Callable[[Progress], None]) -> LossSurface | None:
        """Measure the surface until `stopped`, and return what there is of it; None where there is none."""

    def pictures(self, *, stopped: Callable[[], bool]) -> tuple[Picture, ...]:
        """Return the last pictures of what the model has learned, one of the present frame unless `stopped` held."""

    def import_part(self) -> bool:
        """Import a part of what later commands need and is not imported yet; return whether there was one."""

    def watch(self, watch: ProgressCallback, stopped: Callable[[], bool] = bool) -> None:
        """Report the progress of replays to a callback, which may cancel them; `stopped` ends what runs elsewhere."""

    def interrupt(self, thread: int, *, begin: bool) -> Interruption:
        """Have KeyboardInterrupt raised in the user's code that runs on a thread; any thread may call it, repeatedly.

        What was asked for is then refused, with all as it was before. Return how far that has come; not `begin`: of
        what was to end already.
        """

    def close(self, *, in_order: bool) -> None:
        """End the session; where not `in_order`, its journal waits to be resumed."""


OpenSession = Callable[[str | None], InteractiveSession]  # by a scenario's name; None for the command line's


class ReadOnlySession:
    """Base of sessions that only show a run: every request to compute or change something is refused."""

    can = READ_ONLY
    about: SessionInfo
    history: History
    newest: int
    observer: RunObserver | None = None
    fired: FiredWatchpoint | None = None
    warning: str | None = None
    device_load: DeviceLoad | None = None
    branches: tuple[Branch, ...] = ()
    watchpoints: tuple[Watchpoint, ...] = ()

    @property
    def frame(self) -> Frame:
        """The frame that is shown."""
        raise NotImplementedError

    @property
    def notice(self) -> str | None:
        """None, unless a subclass has something to say."""
        return None

    def stored(self, index: int) -> Frame | None:
        """Return the frame that is shown, if that is `index`."""
        return self.frame if index == self.frame.index else None

    def nearest(self, index: int, by: int) -> int:
        """Return the index of the only frame."""
        return self.frame.index

    def look(self, index: int) -> Frame:
        return self.frame

    def look_alike(self, index: int, by: int) -> Frame | None:
        """Return None: there is no other frame."""
        return None

    def refresh(self) -> bool:
        """Return False: nothing new comes."""
        return False

    def log(self) -> CommandLog:
        """Return no commands: the run is shown, and not repeated from here."""
        return CommandLog()

    def command_line(self) -> str:
        """Return the shell command that opens the run at frame 0."""
        return self.about.command_line

    def end_of(self, iterations: int) -> Goal:
        """Return the goal so many iterations from the frame that is shown."""
        return Goal.from_here(self.frame, iterations)

    def refuse(self, *_: Any, **__: Any) -> Any:
        """Refuse, whatever is asked."""
        raise Refused(self.can.refusal)

    run = repeats = next_command = run_until = run_free = rewind = arm = disarm = trace = inspect = check_gradient = (
        refuse
    )
    choose_surface = refuse
    surface_so_far: LossSurface | None = None

    def take_fired(self) -> FiredWatchpoint | None:
        """Return None: nothing runs."""
        return None

    def take_divergence(self) -> Divergence | None:
        """Return None: nothing is replayed."""
        return None

    def give_up_surface(self) -> str | None:
        """Return None: nothing is measured."""
        return None

    def surface(self, *, stopped: Callable[[], bool], watch: Callable[[Progress], None]) -> LossSurface | None:
        """Return None: there is no model here to measure."""
        return None

    def pictures(self, *, stopped: Callable[[], bool]) -> tuple[Picture, ...]:
        """Return none: there is no model here to show."""
        return ()

    def import_part(self) -> bool:
        """Return False: nothing is run here."""
        return False

    def watch(self, watch: ProgressCallback, stopped: Callable[[], bool] = bool) -> None:
        """Ignore the callbacks: nothing takes long."""

    def interrupt(self, thread: int, *, begin: bool) -> Interruption:
        """Return "none": none of the user's code runs here."""
        return "none"

    def close(self, *, in_order: bool) -> None:
        """Do nothing: whoever leads the run keeps it."""


class StoredFramesSession(ReadOnlySession):
    """Base of sessions whose frames come from another process, and of which only the stored ones can be looked at."""

    _frames: FrameStore | None = None  # None before the first frame

    @property
    def _store(self) -> FrameStore:
        assert self._frames is not None
        return self._frames

    def stored(self, index: int) -> Frame | None:
        """Return a frame that has come and is still stored; None where it is not."""
        return self.frame if index == self.frame.index else self._store.get(index)

    def stored_frames(self) -> list[Frame]:
        """Return the frames that have come and are still stored, oldest first."""
        return self._store.frames()

    def write_repro(self, path: Path) -> ScriptRepro:
        """Write the tensors of the last forward into a new file, and return the script beside it; raises Refused."""
        raise Refused(NO_REPRO)

    def nearest(self, index: int, by: int) -> int:
        """Return the index of the stored frame nearest to `index`, at or after it (`by` 1) or at or before it (-1)."""
        return self._store.nearest(index, by)

    def look(self, index: int) -> Frame:
        """Return frame `index`, or the nearest before it that is stored."""
        frame = self.stored(index) or self._store.get(self.nearest(index, -1))
        assert frame is not None
        return frame

    def look_alike(self, index: int, by: int) -> Frame | None:
        """Return the nearest frame after the same call in another iteration, before (`by` -1) or after (1)."""
        here, current = self.look(index), index
        while (further := self.nearest(current + by, by)) != current and (further - current) * by > 0:
            current = further
            frame = self.look(current)
            if _is_same_call(frame, here) and frame.iteration != here.iteration:
                return frame
        return None


def _is_same_call(one: Frame, other: Frame) -> bool:
    """Return whether the same phase, or call of a script, led to both frames."""
    if one.script is None:
        return one.phase is other.phase
    return one.command is not None and other.command is not None and one.command.name == other.command.name
