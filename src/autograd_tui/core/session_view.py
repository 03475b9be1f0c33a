"""What others may ask of a session: the view that a screen draws, its observer, how far a run goes, its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from autograd_tui.core.command import Phase
from autograd_tui.core.command_log import CommandLog, Pattern
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch
from autograd_tui.core.history import History
from autograd_tui.core.optimizer_spec import format_number
from autograd_tui.core.phase_order import next_phase
from autograd_tui.core.printing import quoted
from autograd_tui.core.run_config import BUDGET, RunConfig
from autograd_tui.core.watchpoint import Watchpoint

if TYPE_CHECKING:
    from autograd_tui.engine.training.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session's name, place and source lines."""

    title: str
    device: str
    seed: int
    opening: RunConfig
    names: tuple[str, str, str] = ("inputs", "targets", "prediction")  # as the source lines call them
    class_names: tuple[str, ...] = ()
    tied: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # a parameter's other names, where it has some
    listing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by phase, and "setup"

    memory: int = BUDGET  # bytes for checkpoints

    @property
    def command_line(self) -> str:
        """Give the command line that opens it at frame 0."""
        return self.opening.command_line

    def repeated(self, log: CommandLog) -> str:
        """Give the command line that opens it and runs commands."""
        commands = str(log)
        return f"{self.command_line} --do {quoted(commands)}" if commands else self.command_line


@dataclass(frozen=True, slots=True)
class Problem:
    """What of a run is not kept."""

    mark: str  # in a word or two: "not kept"
    sentence: str


class RunObserver(Protocol):
    """Is told of everything that ran; it never raises, and never holds training up for long."""

    def ran(self, command: str, frame: Frame) -> None:
        """Take down one command that has led to a frame."""

    def ran_freely(self, commands: Iterable[tuple[Pattern, int]], start: int, frame: Frame) -> None:
        """Take down what ran without frames, from frame `start` to another."""

    def finish_run(self) -> None:
        """Take down that such a run has ended."""

    def went_back(self, frame: Frame) -> None:
        """Take down that training stands at an earlier frame of its branch again."""

    def left_branch(self, number: int, loss: float | None) -> None:
        """Take down that the present run is about to be left, by which number it can be had, and its last loss."""

    def took_branch(self, number: int, frame: Frame) -> None:
        """Take down that training stands at the end of a run that had been left."""

    def keep(self, checkpoint: Checkpoint, history: History) -> None:
        """Keep the newest checkpoint on disk, where the last one there is long ago; its tensors are soon used anew."""

    def drew(self, frame: Frame, newest: int, history: History) -> None:
        """Take down that a screen shows a frame, and which one is the newest."""

    def rest(self) -> None:
        """Take down that nothing follows for now."""

    def close(self, *, in_order: bool) -> None:
        """Take down what is left, and whether the run was left in order, and end."""

    @property
    def problem(self) -> Problem | None:
        """What is not kept, for as long as that is so."""

    def take_problem(self) -> str | None:
        """Give a sentence, once, where that is another than when this was asked last."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The end of an iteration, a loss, whichever comes first; with neither, a run goes on until it is stopped."""

    iteration: int | None = None  # is done
    below: float | None = None  # the loss is less than this
    above: float | None = None

    @classmethod
    def from_here(cls, frame: Frame, iterations: int) -> Goal:
        """Give the end of so many iterations from a frame on, the one that has begun included."""
        return cls(_coming_iteration(frame) + iterations - 1)

    def is_past(self, frame: Frame) -> bool:
        """Tell whether its iteration is done: the phase that comes next belongs to a later one."""
        return self.iteration is not None and _coming_iteration(frame) > self.iteration

    def reached_by(self, frame: Frame) -> bool:
        """Tell whether a run ends at this frame: at the end of the iteration, or as soon as the loss is measured.

        It also ends where that is out of reach.
        """
        if frame.phase is Phase.FORWARD and self.has_loss(frame.loss):
            return True
        ends = frame.phase is Phase.ZERO_GRAD or (frame.phase is Phase.FORWARD and frame.graph == "none")
        return self.iteration is not None and ((ends and frame.iteration >= self.iteration) or _stands_still(frame))

    def is_out_of_reach(self, frame: Frame) -> bool:
        """Tell whether its iteration will not come, as when all parameters are frozen."""
        return self.iteration is not None and frame.iteration < self.iteration and _stands_still(frame)

    def has_loss(self, loss: float | None) -> bool:
        """Tell whether this loss is one to stop at; a NaN is neither below nor above anything."""
        if loss is None:
            return False
        return (self.below is not None and loss < self.below) or (self.above is not None and loss > self.above)

    @property
    def on_loss(self) -> bool:
        """Whether each loss must be looked at."""
        return self.below is not None or self.above is not None

    def __str__(self) -> str:
        said = [] if self.iteration is None else [f"iteration {self.iteration} is done"]
        said += [] if self.below is None else [f"the loss is below {format_number(self.below)}"]
        said += [] if self.above is None else [f"the loss is above {format_number(self.above)}"]
        return " or ".join(said)


def _coming_iteration(frame: Frame) -> int:
    """Give the iteration that the next phase belongs to."""
    begins = next_phase(frame) is Phase.FORWARD and (frame.iteration == 0 or frame.steps > frame.loss_steps)
    return frame.iteration + begins


def _stands_still(frame: Frame) -> bool:
    """Tell whether forward comes next without a step, for lack of a gradient; the iteration cannot rise then."""
    return frame.phase in (Phase.FORWARD, Phase.BACKWARD) and next_phase(frame) is Phase.FORWARD


@dataclass(frozen=True, slots=True)
class Progress:
    """Frames that have been made again on the way to another one, of how many; of a `proof` the slopes measured."""

    done: int
    of: int  # of a proof 0 until it is known
    home: bool = False  # on the way to where training stood, which is not given up
    proof: str = ""  # of what gradient


Watch = Callable[[Progress], bool]  # is told of each frame, iteration or forward on the way; False gives it up


class Cancelled(Refused):
    """Say that going back was given up, and that all is as it was."""


def unwatched(progress: Progress) -> bool:
    """Go on, whatever it takes."""
    return True


class SessionView:
    """Stands at a frame; who inherits from it says which frames there are."""

    recorder = None
    fired = None
    warning = None
    branches: tuple[Branch, ...] = ()
    watchpoints: tuple[Watchpoint, ...] = ()
    about: SessionInfo
    history: History
    newest: int

    @property
    def frame(self) -> Frame:
        """The frame where it stands."""
        raise NotImplementedError

    def take_difference(self) -> None:
        """Find none: nothing is run again here."""

    def watch(self, watch: Watch) -> None:
        """Tell nothing: no way back is ever long."""

    def close(self, *, in_order: bool) -> None:
        """Keep nothing."""

    def log(self) -> CommandLog:
        """Give no commands: the run is shown, and not repeated from here."""
        return CommandLog()

    def command_line(self) -> str:
        """Give the command line that opens the run at frame 0."""
        return self.about.command_line
