"""Who tells the recorder, if there is one, what happens along the line of frames."""

from __future__ import annotations

from autograd_tui.engine.line.way_back import WayBack
from autograd_tui.engine.values.branches import Branch
from autograd_tui.engine.values.command import Command
from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.history import History
from autograd_tui.engine.values.recorder import Recorder


class Reporter:
    """Tells what ran and where training went; after what ran it offers the newest checkpoint."""

    def __init__(self, way: WayBack) -> None:
        self.recorder: Recorder | None = None
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

    def _offer_checkpoint(self, recorder: Recorder, history: History) -> None:
        newest = self._way.checkpoints.newest
        if newest is not None and newest.frame.index:
            recorder.keep(newest, history)
