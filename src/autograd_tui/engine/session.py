"""The session: a training run that goes on one command at a time, and back to any frame, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

from autograd_tui.core.capabilities import LIVE
from autograd_tui.core.command import Command, parse, parse_one
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch, Branches
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.history import History
from autograd_tui.core.loss_surface import LossSurface, SurfaceChoice
from autograd_tui.core.optimizer_spec import GroupSpec
from autograd_tui.core.phase_order import Goal, next_command
from autograd_tui.core.picture import Picture
from autograd_tui.core.replay_check import Divergence
from autograd_tui.core.run_observer import Progress, ProgressCallback, RunObserver
from autograd_tui.core.session_protocol import DeviceLoad, Interruption, SessionInfo
from autograd_tui.core.tensor_stats import Inspection
from autograd_tui.core.trace import Trace
from autograd_tui.core.watchpoint import FiredWatchpoint, Watchpoint
from autograd_tui.engine.gradcheck.gradcheck import GradChecker
from autograd_tui.engine.picture_taker import PictureTaker
from autograd_tui.engine.replay.checkpoints import CheckpointStore
from autograd_tui.engine.replay.free_run import run_free, run_until
from autograd_tui.engine.replay.replayer import Replayer
from autograd_tui.engine.replay.timeline import Timeline
from autograd_tui.engine.repro import Repro, latest_repro
from autograd_tui.engine.surface_sampler import SurfaceSampler
from autograd_tui.engine.training.accelerator import DeviceLoadReader
from autograd_tui.engine.training.checkpoint import Checkpoint
from autograd_tui.engine.training.interruption import interrupt
from autograd_tui.engine.training.optimizers import group_specs, import_compiler, import_part
from autograd_tui.engine.training.state_file import save
from autograd_tui.engine.training.trainer import Trainer
from autograd_tui.engine.training.user_code import is_out_of_memory, let_go_of_tensors


class Session:
    """A training run that takes one command at a time: commands go in, frames come out.

    The timeline holds what is stored of the present branch, the replayer moves training along it.
    """

    def __init__(self, trainer: Trainer, *, about: SessionInfo, checkpoints: CheckpointStore | None = None) -> None:
        self.about = about
        self.can = LIVE
        self.notice: str | None = None
        self.departure: str | None = None  # where it is another run than the one that it goes on with
        self._trainer = trainer
        self._replayer = Replayer(trainer, CheckpointStore(trainer) if checkpoints is None else checkpoints)
        self._timeline = Timeline(trainer, self._replayer)
        self._device_load = DeviceLoadReader(trainer.state.device)
        is_linear = about.config.scenario == "linear"
        self._sampler = SurfaceSampler(trainer, self._replayer, self._timeline.checker)
        self._picture_taker = PictureTaker(trainer)
        self._grad_checker = GradChecker(trainer, self._replayer, self._timeline.traces, has_formula=is_linear)

    @property
    def observer(self) -> RunObserver | None:
        """What observes everything that runs from now on."""
        return self._timeline.observer

    @observer.setter
    def observer(self, observer: RunObserver | None) -> None:
        self._timeline.observer = observer

    @property
    def frame(self) -> Frame:
        """The frame where training stands."""
        return self._trainer.frame

    @property
    def device_load(self) -> DeviceLoad | None:
        """What is in use of the device, as of about a second ago at most; None where it is not known. On any thread."""
        return self._device_load.latest

    @property
    def newest(self) -> int:
        """The index of the last frame of this branch: greater than `frame.index` after going back."""
        return self._timeline.newest

    @property
    def history(self) -> History:
        """The columns that plots need, of this branch."""
        return self._timeline.history

    # Going on.

    def run(self, command: Command | str) -> Frame:
        """Run one command, "f" or "forward" or "lr=0.01", and return the frame that it leads to.

        What PyTorch raises is in the frame's `error`. Raises Refused, with nothing changed, where the command is out
        of turn or impossible, and UnknownCommand where it is none.
        """
        if isinstance(command, str):
            command = parse_one(command)
        if command.recorded:
            return self._timeline.run_recorded(replace(command, recorded=False))
        return self._timeline.go_back(command) if command.goes_back else self._timeline.run(command)

    def run_all(self, text: str) -> Iterator[Frame]:
        """Run several commands, "fbsz*3 lr=0.01 f", yielding each frame as it comes."""
        for command in parse(text):
            yield self.run(command)

    def repeats(self, command: Command) -> bool:
        """Return whether this very command was run from here before, with the frame that it led to still ahead.

        False where running it again may give other numbers.
        """
        ahead = self._replayer.log.leading_to(self.frame.index + 1) if self.frame.index < self.newest else None
        return ahead is not None and str(ahead) == str(command) and self._trainer.unrepeatable_reason is None

    def next_command(self) -> Command:
        """Return the phase that comes next."""
        return next_command(self.frame)

    def run_until(self, goal: Goal) -> Iterator[Frame]:
        """Run phase by phase until `goal` is reached, a watchpoint fires or something raises, yielding each frame."""
        return run_until(self._timeline, goal)

    def run_free(self, goal: Goal, stopped: Callable[[], bool], *, every: float = 0.1) -> Iterator[Frame]:
        """Run iterations at the loop's own speed until `goal`, `stopped` or an error; yield a frame now and then.

        `every`: seconds between them, more where making them would cost too much of the run. The frames between are
        not made: `look` makes them when asked. It ends where a watchpoint fires.
        """
        return run_free(self._timeline, goal, stopped, every=every)

    def end_of(self, iterations: int) -> Goal:
        """Return the goal so many iterations from here, the one that has begun included."""
        return Goal.from_here(self.frame, iterations)

    # Pausing.

    @property
    def watchpoints(self) -> tuple[Watchpoint, ...]:
        """The conditions that are armed; any thread may ask."""
        return self._timeline.watcher.armed

    def arm(self, watchpoint: Watchpoint | str) -> None:
        """Pause runs where a condition holds, "grad_norm > 10"; while one is armed each phase is looked at.

        Raises UnknownCommand where it is none, and Refused where the model has nothing of that name.
        """
        watcher, state = self._timeline.watcher, self._trainer.state
        metrics = (*state.parts.metrics, *self.history.metrics)
        modules = [name for name, _ in state.model.named_modules() if name]
        watcher.arm(watchpoint, self.frame, metrics=metrics, modules=modules)
        self._trainer.watched_modules = tuple(each.name for each in watcher.armed if each.kind == "dead")

    def disarm(self) -> None:
        """Disarm all watchpoints."""
        self._timeline.watcher.disarm()
        self._trainer.watched_modules = ()
        self._replayer.checkpoints.drop_iteration_start()

    @property
    def fired(self) -> FiredWatchpoint | None:
        """Where a watchpoint fired last; any thread may ask."""
        return self._timeline.watcher.fired

    def take_fired(self) -> FiredWatchpoint | None:
        """Return, once, where a watchpoint has fired since the last call."""
        return self._timeline.watcher.take_fired()

    # Looking: training stays where it is.

    def stored(self, index: int) -> Frame | None:
        """Return a frame without touching the engine, as any thread may; None where only `look` can recompute it."""
        return self._timeline.stored(index)

    def nearest(self, index: int, by: int) -> int:
        """Return the index of the stored frame nearest to `index`: at or after it (`by` 1), at or before it (-1)."""
        return self._timeline.frames.nearest(index, by)

    def look(self, index: int) -> Frame:
        """Return frame `index`, recomputed where it is not stored."""
        return self._timeline.look(index)

    def look_alike(self, index: int, by: int) -> Frame | None:
        """Return the frame of the same phase one iteration before (`by` -1) or after (1) frame `index`, or None."""
        return self._timeline.look_alike(index, by)

    def trace(self, index: int) -> Trace:
        """Return what happened inside the phase that led to frame `index`.

        Where it was not recorded, it runs again from a checkpoint. Raises Refused where no phase led there.
        """
        with self._beside_training("to look inside a phase"):
            return self._timeline.trace(index)

    def inspect(self, name: str) -> Inspection:
        """Return exact statistics of a parameter where training stands; nothing is changed, and nothing recorded."""
        with self._beside_training(f"to measure {name} exactly"):
            return self._trainer.inspect(name)

    def check_gradient(self, index: int, what: str | int, *, stopped: Callable[[], bool] = lambda: False) -> GradCheck:
        """Compare a gradient at frame `index` with finite differences in float64.

        what: a parameter by its name, or the output of an operation by its number in the forward's trace.
        Raises Refused, in one sentence, where it cannot be checked, also where it is `stopped`, which is asked before
        each forward.
        """
        self._timeline.check(index)
        import_compiler()
        with self._timeline.reporting_moves(), self._beside_training("for a gradient check"):
            return self._grad_checker.check_gradient(index, what, self._timeline.checker(), stopped)

    @contextmanager
    def _beside_training(self, purpose: str) -> Iterator[None]:
        """Raise Refused where what runs inside finds no memory; training stands where it stood."""
        here = self.frame.index
        try:
            yield
            return
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            let_go_of_tensors(error)
        self._trainer.release_memory()
        self._replayer.return_to(here, self._timeline.checker())
        raise Refused(f"there is too little memory on {self.about.device} {purpose}: training stands as before.")

    def choose_surface(self, choice: SurfaceChoice) -> None:
        """Choose the surface that `surface` measures; raises Refused where there is none."""
        import_compiler()
        with self._timeline.reporting_moves():
            self._sampler.choose(choice, next(iter(self.branches[-1:]), None))

    def give_up_surface(self) -> str | None:
        """Measure no further what was chosen; return a sentence about it, None where nothing was being measured."""
        return self._sampler.give_up()

    @property
    def surface_so_far(self) -> LossSurface | None:
        """What is measured of the surface, with where training stands on it."""
        return self._sampler.so_far(newest=self.newest, branch=next(iter(self.branches[-1:]), None))

    def surface(
        self,
        *,
        stopped: Callable[[], bool] = lambda: False,
        watch: Callable[[Progress], None] = lambda progress: None,
    ) -> LossSurface | None:
        """Return the loss over the model's two parameter values, or the surface that was chosen.

        It is measured on a copy, with the batch of the last forward; that of a model with two values is measured again
        where the data have changed or training has left it. None where there is no surface, or the model cannot be
        copied. `stopped` is asked before each row or point, and ends it for now; `watch` is told behind each point of a
        chosen one.
        """
        surface = self._sampler.surface(self.history.path, stopped, watch)
        return surface or self.surface_so_far

    def pictures(self, *, stopped: Callable[[], bool] = lambda: False) -> tuple[Picture, ...]:
        """Return the last pictures of what the model has learned, the newest last; none without `Parts(picture=)`.

        One of the present frame is among them, unless `stopped` held before it was taken: on a copy of the model, and
        once for each frame whose parameters differ.
        """
        return self._picture_taker.pictures(stopped)

    def import_part(self) -> bool:
        """Import a part of what steps need, where not all of it is imported; return whether there was one."""
        return import_part()

    def refresh(self) -> bool:
        """Return False: nothing comes from elsewhere."""
        return False

    # Going back.

    def rewind(self, index: int) -> Frame:
        """Return to frame `index`: the next command goes on from there. Later frames stay until then."""
        return self._timeline.rewind(index)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The runs that were rewound over, in order of abandonment; any thread may ask."""
        return self._timeline.branches.newest

    def take_branch(self, number: int) -> Frame:
        """Return to the end of a branch; what is left for it becomes a branch itself."""
        return self._timeline.take_branch(number)

    @property
    def warning(self) -> str | None:
        """A sentence: where this is another run than its journal's, what going back costs, or why it is not exact."""
        unrepeatable_reason = self._trainer.unrepeatable_reason
        inexact = (
            f"going back in this model runs forward again and may give other numbers: {unrepeatable_reason}."
            if unrepeatable_reason
            else None
        )
        return self.departure or self._replayer.checkpoints.warning or inexact

    def take_divergence(self) -> Divergence | None:
        """Return, once, where going back last computed another frame than there had been; None where all agreed."""
        return self._replayer.take_divergence()

    def watch(self, watch: ProgressCallback, stopped: Callable[[], bool] = bool) -> None:
        """Call `watch` with the progress of going back and gradient checks; it cancels them by returning False."""
        self._replayer.watch = watch

    def interrupt(self, thread: int, *, begin: bool = True) -> Interruption:
        """Have KeyboardInterrupt raised in the user's code that runs on a thread, and return how far that has come.

        What was asked for raises Interrupted then, and training stands where it did; of a free run its whole iterations
        stay. Any thread may call it, repeatedly: it is raised once. Not `begin`: what was not to end yet goes on.
        """
        return interrupt(thread, begin=begin)

    # Keeping.

    def command_line(self) -> str:
        """Return the command line that repeats the run up to where training stands."""
        return self.about.command_line_with(self.log())

    def commands(self) -> str:
        """Return the commands that lead from the start to where training stands, as `--do` takes them."""
        return str(self.log())

    def log(self) -> CommandLog:
        """Return them with what they raised, as a log of its own, which another thread may read."""
        return self._replayer.log.up_to(self.frame.index)

    def groups(self, optimizer: str) -> tuple[GroupSpec, ...]:
        """Return the parameter groups as an optimizer of this name, such as "sgd", has them."""
        return group_specs(self._trainer.state.groups, optimizer, self._trainer.state.params)

    def checkpoint(self) -> Checkpoint:
        """Return all that the next forward depends on, where one could run now."""
        return self._trainer.checkpoint()

    def write_repro(self, file: BinaryIO) -> Repro:
        """Write the iteration up to where training stands into a file, with the state before it; return the same.

        It is read with `torch.load(path, weights_only=True)`. Raises Refused where there has been no forward, OSError.
        """
        checker = self._timeline.checker()
        with self._timeline.reporting_moves():
            repro = latest_repro(self._trainer, self._replayer, checker, about=self.about, fired=self.fired)
        save(repro, file)
        return repro

    def resume(self, checkpoint: Checkpoint, log: CommandLog, history: History) -> None:
        """Continue at the end of a log that another program ran, whose last state is a checkpoint."""
        self._timeline.resume(checkpoint, log, history)

    def resume_branches(self, branches: Branches) -> None:
        """Take over the branches that another program left."""
        self._timeline.branches = branches

    def close(self, *, in_order: bool) -> None:
        """End the observer, if there is one; where not `in_order`, the run waits to be resumed."""
        self._timeline.close(in_order=in_order)
