"""Traces of phases: of the one that runs now, and of earlier ones, run again to be traced."""

from __future__ import annotations

from autograd_tui.core.command import Phase
from autograd_tui.core.divergence import ReplayChecker
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.trace import Trace
from autograd_tui.engine.replay.replayer import Replayer
from autograd_tui.engine.training.trainer import Trainer

MAX_TRACES = 4  # that are kept: one of resnet18's backward, its forward included, takes a megabyte or two


class TraceCache:
    """Keeps the traces that were asked for last, and has others recorded by running their phase again."""

    def __init__(self, trainer: Trainer, replayer: Replayer) -> None:
        self._trainer, self._replayer = trainer, replayer
        self._kept: dict[int, Trace] = {}  # by frame

    def know_forward(self, checker: ReplayChecker) -> None:
        """Have the forward that made the live graph recorded; where it was not, it runs again from a checkpoint.

        A forward that may not repeat does not run again: the backward is then shown without it.
        """
        here = self._trainer.frame
        if here.graph == "alive" and not self._trainer.knows_forward and self._trainer.doubt is None:
            self._replayer.record(self._replayer.last(Phase.FORWARD, here.index), checker)
            self._replayer.return_to(here.index, checker)

    def take(self, frame: Frame) -> Trace:
        """Give the trace of the phase that has just been recorded, and led to a frame; it is kept."""
        assert frame.phase is not None
        # A step that raised is not run again.
        trace = self._trainer.trace or self._trainer.trace_of_raised_step()
        self._kept.pop(frame.index, None)
        self._kept[frame.index] = trace
        while len(self._kept) > MAX_TRACES:
            del self._kept[next(iter(self._kept))]
        return trace

    def of(self, index: int, checker: ReplayChecker) -> Trace:
        """Give the trace of the phase that led to frame `index`; raises Refused where none did."""
        command = self._replayer.log.leading_to(index)
        if command is None or command.phase is None:
            what = f"frame {index} is from {command}" if command else "frame 0 is the beginning"
            raise Refused(f"{what}: there is nothing inside it to walk.")
        if index in self._kept:
            return self._kept[index]
        self._replayer.check_repeats(f"frame {index} was not recorded")
        here, error = self._trainer.frame.index, self._replayer.log.errors.get(index)
        self._replayer.record(index, checker)
        trace = self.take(self._trainer.frame)
        self._replayer.return_to(here, checker)
        if (trace.error is None) != (error is None):
            del self._kept[index]
            raise Refused(f"run again, frame {index} is not what it was: what happened inside is not known.")
        return trace

    def truncate_after(self, index: int) -> None:
        """Let those of later frames go: another command has been run from there."""
        self._kept = {each: trace for each, trace in self._kept.items() if each <= index}
