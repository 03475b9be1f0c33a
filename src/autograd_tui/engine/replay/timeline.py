"""The timeline of a run: its frames, traces and history, and the branches that were left."""

from __future__ import annotations

from autograd_tui.core.command import Command
from autograd_tui.core.command_log import Track
from autograd_tui.core.divergence import Divergence, ReplayChecker, RerunChecker
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch, Branches, FrameStore
from autograd_tui.core.history import History
from autograd_tui.core.session_view import RunObserver
from autograd_tui.core.trace import Trace
from autograd_tui.core.watcher import Watcher
from autograd_tui.engine.replay.replayer import Replayer
from autograd_tui.engine.replay.trace_cache import TraceCache
from autograd_tui.engine.training.checkpoint import Checkpoint
from autograd_tui.engine.training.trainer import Trainer


class Reporter:
    """Tells what ran and where training went; after what ran it offers the newest checkpoint."""

    def __init__(self, way: Replayer) -> None:
        self.recorder: RunObserver | None = None
        self._way = way

    def ran(self, command: Command, frame: Frame, history: History) -> None:
        """Tell of one command that has led to a frame."""
        if self.recorder is not None:
            self.recorder.ran(str(command), frame)
            self._offer_checkpoint(self.recorder, history)

    def ran_freely(self, start: Frame, frame: Frame, history: History) -> None:
        """Tell of what ran without frames, from one to another."""
        if self.recorder is not None and frame.index > start.index:
            commands = self._way.commands.stretches(start.index, frame.index)
            self.recorder.ran_freely(commands, start.index, frame)
            self._offer_checkpoint(self.recorder, history)

    def finished_run(self) -> None:
        """Tell that such a run has ended."""
        if self.recorder is not None:
            self.recorder.finish_run()

    def went_back(self, frame: Frame) -> None:
        """Tell that training stands at an earlier, or later, frame of its branch."""
        if self.recorder is not None:
            self.recorder.went_back(frame)

    def left(self, branch: Branch) -> None:
        """Tell that what was ahead has become a branch."""
        if self.recorder is not None:
            self.recorder.left_branch(branch.number, branch.loss)

    def took(self, number: int, frame: Frame) -> None:
        """Tell that training stands at the end of a branch."""
        if self.recorder is not None:
            self.recorder.took_branch(number, frame)

    def close(self, *, in_order: bool) -> None:
        """Let the recorder end."""
        if self.recorder is not None:
            self.recorder.close(in_order=in_order)

    def _offer_checkpoint(self, recorder: RunObserver, history: History) -> None:
        newest = self._way.checkpoints.newest
        if newest is not None and newest.frame.index:
            recorder.keep(newest, history)


class Timeline:
    """Holds the present branch's frames, history and traces, and goes along its way back.

    To look at a frame leaves training where it is. To go back moves training; what was ahead stays until a command
    has run from there: then it is left as a branch, with its track and its history, and can be taken again.
    """

    def __init__(self, trainer: Trainer, way: Replayer, *, watching: Watcher, reporter: Reporter) -> None:
        self._trainer, self._way = trainer, way
        self._watching, self._reporter = watching, reporter
        self.history = History()
        self.history.append(trainer.frame)
        self.frames = FrameStore(trainer.frame)
        self._made_again: dict[int, Frame] = {}  # for the last look, by index
        self.traces = TraceCache(trainer, way)
        self.branches = Branches()

    @property
    def newest(self) -> int:
        """The index of the last frame: greater than the one where training stands after going back."""
        return len(self._way.commands)

    def append(self, command: Command, frame: Frame) -> None:
        """Add the frame that a command has led to."""
        self._way.append(command, frame)
        if frame.error and frame.error.leaves_half_done(frame.phase):
            self._way.undo_half_a_phase(frame)
        self.frames.append(frame)
        self.history.append(frame)

    # Looking: training stays where it is.

    def stored(self, index: int) -> Frame | None:
        """Give a frame without touching the engine, as any thread may; None where only `look` can make it again."""
        return self.frames.get(index) or self._made_again.get(index)

    def look(self, index: int) -> Frame:
        """Give frame `index`, made again where it is not stored."""
        self.check(index)
        stored = self.stored(index)
        if stored is not None:
            return stored
        self._way.check_repeats(f"frame {index} is kept no longer")
        found = self._way.visit(index, self.comparison())
        self._made_again = {frame.index: frame for frame in found}
        return found[-1]

    def look_alike(self, index: int, by: int) -> Frame | None:
        """Give the frame of the same phase one iteration before (`by` -1) or after (1) frame `index`, or None."""
        here, place = self.look(index), index + by
        while 0 < place <= self.newest:
            (command,) = self._way.commands.between(place - 1, place)
            if command.phase is here.phase and (found := self.look(place)).iteration != here.iteration:
                return found
            place += by
        return None

    def trace(self, index: int) -> Trace:
        """Tell what happened inside the phase that led to frame `index`, which runs again where it was not recorded."""
        self.check(index)
        return self.traces.of(index, self.comparison())

    def check(self, index: int) -> None:
        """Raise Refused where the branch has no frame `index`."""
        if not 0 <= index <= self.newest:
            raise Refused(f"there is no frame {index}: the newest is frame {self.newest}.")

    def comparison(self) -> ReplayChecker:
        """Give what holds frames that are made again against those that there were."""
        return ReplayChecker(self.stored, self.history)

    # Going back, and leaving what is ahead.

    def go_back(self, command: Command) -> Frame:
        """Do as "undo", "@40" or "branch=1" says."""
        if command.name == "undo":
            if self._trainer.frame.index == 0:
                raise Refused("there is nothing to undo: this is frame 0.")
            return self.rewind(self._trainer.frame.index - 1)
        assert isinstance(command.value, int)
        return self.rewind(command.value) if command.name == "@" else self.take_branch(command.value)

    def rewind(self, index: int) -> Frame:
        """Return to frame `index`; later frames stay."""
        self.check(index)
        here = self._trainer.frame.index
        self._way.travel(index, self.comparison())
        if index != here:
            self._reporter.went_back(self._trainer.frame)
        return self._trainer.frame

    def leave_after(self, frame: Frame) -> None:
        """Leave what is ahead of `frame`, from which another command has run."""
        if self.newest == frame.index:
            return
        self._leave(self._way.track.copy(), self.history.copy(), fork=frame.index)
        self._way.forget_after(frame.index)
        self.history.forget_after(frame.index)
        self.frames.forget_after(frame)
        self._forget_after(frame.index)

    def take_branch(self, number: int) -> Frame:
        """Return to the end of a branch, the present one from now on; what is left for it becomes a branch itself."""
        branch = self.branches.get(number)
        shared = self._way.commands.shared_with(branch.track.commands)
        left = self._way.track
        known, history = self._known_of(branch, shared)
        found = self._way.turn_into(branch.track.copy(), known, skipping=branch.history is not None)
        if known.first is None and branch.ends_as is not None and not branch.ends_as(self._trainer.frame):
            known.first = Divergence(self._trainer.frame.index, "numbers")
            self._way.note(known)
        self.branches.remove(branch)
        self._leave(left, self.history, fork=shared)
        self._reporter.took(number, self._trainer.frame)
        self.history = history
        self.frames.drop_after(shared)  # those of the branch that was left, in whose places none may come
        for frame in [*found, self._trainer.frame]:
            if frame.index >= shared:
                self.frames.forget_after(frame)
        self._forget_after(shared)
        return self._trainer.frame

    def _forget_after(self, index: int) -> None:
        """Forget what is known of later frames than `index` beside the frames themselves."""
        self.traces.forget_after(index)
        self._watching.forget_after(index)
        self._made_again = {}

    def _leave(self, track: Track, history: History, *, fork: int) -> None:
        if left := self.branches.leave(track, history, fork=fork):
            self._reporter.left(left)

    def _known_of(self, branch: Branch, shared: int) -> tuple[ReplayChecker, History]:
        """Give what is known of a branch, and its history, which fills on the way where another program ran it."""

        def stored(index: int) -> Frame | None:
            return self.stored(index) if index <= shared else None

        if branch.history is not None:
            return ReplayChecker(stored, branch.history), branch.history.copy()
        history = self.history.copy()
        history.forget_after(shared)
        return RerunChecker(stored, history, after=shared), history

    def take_up(self, checkpoint: Checkpoint, track: Track, history: History) -> None:
        """Stand at the end of a track that another program ran, whose last state is a checkpoint."""
        self._way.take_up(track, checkpoint)
        self.frames, self._made_again, self.history = FrameStore(self._trainer.frame), {}, history
