"""The session: the line of frames, with a few checkpoints to return to."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

from autograd_tui.engine.about import About
from autograd_tui.engine.checkpoint_line import CheckpointLine
from autograd_tui.engine.command import Command, Phase, parse, parse_one
from autograd_tui.engine.command_log import CommandLog
from autograd_tui.engine.errors import Refused
from autograd_tui.engine.frame import Frame, TorchError
from autograd_tui.engine.frame_store import FrameStore
from autograd_tui.engine.history import History
from autograd_tui.engine.trainer import Trainer
from autograd_tui.engine.turn import next_phase


class Session:
    """Runs commands one at a time, and goes back to any frame, exactly.

    `about` says what does not change while it is open.
    """

    def __init__(self, trainer: Trainer, *, about: About, checkpoints: CheckpointLine | None = None) -> None:
        self.about = about
        self.history = History()
        self.history.append(trainer.frame)
        self._trainer = trainer
        self._checkpoints = checkpoints or CheckpointLine(trainer)
        self._frames = FrameStore(trainer.frame)
        self._commands = CommandLog()  # the n-th one led to frame n
        self._errors: dict[int, TorchError] = {}  # what was raised, by frame

    @property
    def frame(self) -> Frame:
        """The frame where training stands."""
        return self._trainer.frame

    @property
    def newest(self) -> int:
        """The index of the last frame of this branch: greater than `frame.index` after going back."""
        return len(self._commands)

    def run(self, command: Command | str) -> Frame:
        """Run one command, "f" or "forward" or "lr=0.01", and give the frame arrived at.

        What PyTorch raises is in the frame's `error`. Raises Refused, with nothing changed, where the command is out
        of turn or impossible, and NotUnderstood where it is none.
        """
        if isinstance(command, str):
            command = parse_one(command)
        if command.name == "@":
            assert isinstance(command.value, int)
            return self.rewind(command.value)
        if command.name == "undo":
            if self.frame.index == 0:
                raise Refused("there is nothing to undo: this is frame 0.")
            return self.rewind(self.frame.index - 1)
        checkpoint = self._checkpoints.take_if_due() if command.phase is Phase.FORWARD else None
        before, started = self.frame, perf_counter()
        frame = self._trainer.run(command)
        self._checkpoints.spend(perf_counter() - started)
        self._forget_after(before)
        if checkpoint and frame.error:
            self._checkpoints.drop(checkpoint)
        elif checkpoint:
            self._checkpoints.keep(checkpoint)
        if frame.error:
            self._errors[frame.index] = frame.error
            if frame.phase is Phase.STEP:
                self._undo_half_a_step(frame)
        self._commands.append(command)
        self._frames.append(frame)
        self.history.append(frame)
        return frame

    def run_all(self, text: str) -> Iterator[Frame]:
        """Run several commands, "fbsz*3 lr=0.01 f", giving each frame as it comes."""
        for command in parse(text):
            yield self.run(command)

    def next_command(self) -> Command:
        """Give the phase that goes on from here."""
        return Command(next_phase(self.frame).value)

    def run_iteration(self) -> Iterator[Frame]:
        """Run to the end of this iteration, its zero_grad; stops at what raises."""
        while True:
            frame = self.run(self.next_command())
            yield frame
            if frame.error or frame.phase is Phase.ZERO_GRAD:
                return

    def stored(self, index: int) -> Frame | None:
        """Give a frame without touching the engine, as any thread may; None where only `look` can make it again."""
        frame = self._frames.get(index)
        return frame if frame and frame.index == index else None  # it may have moved on meanwhile

    def look(self, index: int) -> Frame:
        """Give frame `index` to look at; training stays where it is."""
        self._check(index)
        stored = self.stored(index)
        if stored is not None:
            return stored
        here = self.frame.index
        found = self._go_to(index)
        self._go_to(here)
        return found

    def rewind(self, index: int) -> Frame:
        """Return to frame `index`: the next command goes on from there. Later frames stay until then."""
        self._check(index)
        self._go_to(index)
        return self.frame

    def command_line(self) -> str:
        """Give the command line that repeats the run up to where training stands."""
        commands = self.commands()
        return f"{self.about.command_line} --do {shlex.quote(commands)}" if commands else self.about.command_line

    def commands(self) -> str:
        """Give the commands that lead from the start to where training stands, as `--do` takes them."""
        log = CommandLog(self._commands.between(0, self.frame.index)) if self.frame.index < self.newest else None
        return str(self._commands if log is None else log)

    def _check(self, index: int) -> None:
        if not 0 <= index <= self.newest:
            raise Refused(f"there is no frame {index}: the newest is frame {self.newest}.")

    def _go_to(self, index: int) -> Frame:
        """Bring the trainer to a frame: restore the checkpoint before it, unless it lies ahead, and run again."""
        checkpoint = self._checkpoints.before(index)
        ahead = checkpoint.frame.index <= self.frame.index <= index
        if not ahead:
            self._trainer.restore(checkpoint)
        for command in self._commands.between(self.frame.index, index):
            self._run_again(command)
        return self.frame

    def _run_again(self, command: Command) -> None:
        """Run a command as it ran before; its error keeps its text, which may count what has happened since."""
        index = self.frame.index + 1
        error = self._errors.get(index)
        if error is None or command.phase is not Phase.STEP:  # a step that raised left nothing behind
            self._trainer.run(command)
        if error is not None:
            self._trainer.frame = replace(self.frame, index=index, command=command, error=error)

    def _undo_half_a_step(self, frame: Frame) -> None:
        """Bring back what a step that raised had already moved."""
        self._trainer.restore(self._checkpoints.before(frame.index - 1))
        for command in self._commands.between(self.frame.index, frame.index - 1):
            self._run_again(command)
        self._trainer.frame = frame

    def _forget_after(self, frame: Frame) -> None:
        """Leave the frames that were ahead: a command has run from `frame`."""
        index = frame.index
        if self.newest == index:
            return
        self._commands.forget_after(index)
        self._checkpoints.forget_after(index)
        self.history.forget_after(index)
        self._errors = {each: error for each, error in self._errors.items() if each <= index}
        self._frames.forget_after(frame)
