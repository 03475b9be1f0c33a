"""Writes the journal of a run: a line for each command, flushed before the next one runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import astuple, replace
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from autograd_tui.core.command_log import CommandLog, Pattern
from autograd_tui.core.frame import Frame, TorchError, plain_number
from autograd_tui.core.history import History
from autograd_tui.core.run_observer import Problem
from autograd_tui.core.session_protocol import SessionInfo
from autograd_tui.journal.entry import Entry, closing_line, frame_digest, header_line
from autograd_tui.journal.frame_stream import FrameStream
from autograd_tui.journal.journal_file import JournalFile, error_reason
from autograd_tui.journal.reader import EntryTree, Journal

if TYPE_CHECKING:
    from autograd_tui.engine.training.checkpoint import Checkpoint

CHECKPOINT_INTERVAL = 2.0  # seconds between checkpoints on disk, so that resuming runs no more than that again
MAX_CHECKPOINT_SHARE = 0.005  # of the run's time that they may cost
LAST_INTERVALS = 0.25  # since the one before, from which on the newest is written where a run ends
MAX_LAST_SHARE = 0.25  # of the time that it saves whoever resumes the run
WRITE_SPEED = 500e6  # bytes a second, for as long as none has been written
FREE_RUN_INTERVAL = 0.25  # seconds between the lines of a free run


class JournalWriter:
    """Writes what happens in a run; a disk that is full or gone never stops it: `problem` says what is not kept."""

    def __init__(self, path: Path, about: SessionInfo, *, private: bool, fallback_paths: Iterable[Path] = ()) -> None:
        """Prepare to write to `path`; unless `private`, other users may read the file as far as the umask allows.

        fallback_paths: tried in order where another run has taken the path before.
        """
        self._file = JournalFile(path, mode=0o600 if private else 0o666, fallback_paths=fallback_paths)
        self._about, self._frame_stream = about, FrameStream(path, about, mode=self._file.mode)
        self._checkpoint_error: str | None = None  # why the last checkpoint is not on disk
        self._reported_problem: Problem | None = None  # the one that was taken last
        self._tree = EntryTree()  # of all lines
        self._branch_ends: dict[int, int] = {}  # by the number of a branch, its last entry
        self._left_loss: float | None = None  # of the run that the next line leaves
        self._free_run: tuple[CommandLog, int, Frame] | None = None  # commands not written yet, their start and end
        self._write_time = 0.0  # of the last line, by the monotonic clock
        self._checkpoint_time = monotonic()  # of the last checkpoint
        self._checkpoint_cost = 0.0  # seconds that it took
        self._checkpoint_frame: Frame | None = None
        self._loss: float | str | None = None  # of the frame where training stands, as strict JSON has it

    @classmethod
    def resume(cls, journal: Journal, about: SessionInfo, *, left: Mapping[int, int]) -> JournalWriter:
        """Go on with a journal, as `JournalFile.reopen` does; raises Refused where another run writes it.

        left: by the number of each branch that can be returned to, its last entry.
        """
        writer = cls(journal.path, about, private=True)
        writer._file = JournalFile.reopen(journal)
        writer._tree, writer._loss = deepcopy(journal.tree), plain_number(journal.loss)
        writer._branch_ends = dict(left)
        return writer

    @property
    def path(self) -> Path:
        """The path of the file, which is a fallback one where another run had taken the first."""
        return self._file.path

    def on_command(self, command: str, frame: Frame) -> None:
        """Write one command that has led to a frame."""
        self.on_free_run_end()
        self._frame_stream.ran_from(frame.index - 1)
        self._append(command, frame, start=frame.index - 1)

    def on_free_run(self, commands: Iterable[tuple[Pattern, int]], start: int, frame: Frame) -> None:
        """Add what ran freely from frame `start` to another; it is written four times a second at most."""
        if self._free_run is not None and self._free_run[2].index != start:
            self.on_free_run_end()
        self._frame_stream.ran_from(start)
        log, start, _ = self._free_run or (CommandLog(), start, frame)
        for pattern, times in commands:
            log.append_block(pattern, times)
        self._free_run = (log, start, frame)
        if monotonic() - self._write_time >= FREE_RUN_INTERVAL:
            self.on_free_run_end()

    def on_free_run_end(self) -> None:
        """Write what ran freely and has not been written yet."""
        if self._free_run is not None:
            (log, start, frame), self._free_run = self._free_run, None
            self._append(str(log), frame, start=start)

    def on_rewind(self, frame: Frame) -> None:
        """Write that training stands at an earlier frame of its branch, or at one that was left, again."""
        self.on_free_run_end()
        self._append(f"@{frame.index}", frame, start=frame.index)

    def on_branch_left(self, number: int, loss: float | None) -> None:
        """Note where a branch ends that is about to be left, and with which loss."""
        self.on_free_run_end()
        self._branch_ends[number], self._left_loss = self._tree.tip, loss

    def on_branch_taken(self, number: int, frame: Frame) -> None:
        """Write that training stands at the end of a branch that had been left."""
        self.on_free_run_end()
        if self._file.finished or number not in self._branch_ends:
            return
        self._frame_stream.ran_from(0)
        self._loss, tip = plain_number(frame.loss), self._branch_ends.pop(number)
        entry = Entry(self._tree.last + 1, tip, f"branch={number}", self._digest(frame), frame.index)
        entry = replace(entry, left=self._take_left_loss(), loss=self._loss)
        self._tree.return_to_branch(tip)
        self._write(entry.to_json_line(), frame.index)

    def on_checkpoint(self, checkpoint: Checkpoint, history: History, *, last: bool = False) -> None:
        """Write a checkpoint beside the journal, once in a while, where that has every line; `last`: the run ends."""
        started = monotonic()
        soon = started - self._checkpoint_time < self._min_interval(checkpoint, last=last)
        if soon or not self._file.is_open or checkpoint.frame is self._checkpoint_frame:
            return
        from autograd_tui.journal.checkpoint_file import save_checkpoint

        self.on_free_run_end()
        index = checkpoint.frame.index
        if index > self._tree.end or not self._file.sync():
            return
        try:
            save_checkpoint(
                self.path,
                checkpoint,
                history,
                entry=self._tree.line_of(index),
                lines=self._file.content_hash,
                mode=self._file.mode,
            )
            self._checkpoint_error = None
        except OSError as error:
            self._checkpoint_error = error_reason(error)
        self._checkpoint_time, self._checkpoint_frame = monotonic(), checkpoint.frame
        self._checkpoint_cost = self._checkpoint_time - started

    def _min_interval(self, checkpoint: Checkpoint, *, last: bool) -> float:
        """Return how many seconds the last checkpoint must be ago before this one is written."""
        if not last:
            return max(CHECKPOINT_INTERVAL, self._checkpoint_cost / MAX_CHECKPOINT_SHARE)
        cost = self._checkpoint_cost or checkpoint.bytes / WRITE_SPEED
        return max(LAST_INTERVALS * CHECKPOINT_INTERVAL, cost / MAX_LAST_SHARE)

    def on_shown(self, frame: Frame, newest: int, history: History) -> None:
        """Show a frame to those who follow the run."""
        if self._file.is_open:
            self._frame_stream.drew(frame, newest, history)

    def on_idle(self) -> None:
        """Show the newest one, since nothing comes behind it for now."""
        self._frame_stream.write_newest()

    def close(self, *, in_order: bool) -> None:
        """Write what is left to write, and that the run was left in order, where it was."""
        self.on_free_run_end()
        if self._file.has_pending or (in_order and self._file.is_open):
            self._write(closing_line(time(), self._loss) if in_order else "", self._file.last_frame)
        self._frame_stream.close()
        self._file.close()

    @property
    def problem(self) -> Problem | None:
        """What is not kept, for as long as that is so."""
        if (error := self._file.error) is not None:
            end = self._file.written_to
            extent = "not kept" if end is None else f"kept no further than frame {end:,}"
            sentence = f"the journal {self.path} cannot be written ({error}): this run is {extent}."
            return Problem("not kept", sentence)
        if self._checkpoint_error is not None:
            sentence = f"no checkpoint can be written beside the journal {self.path} ({self._checkpoint_error})"
            return Problem("no checkpoints", f"{sentence}: resuming will run more of it again.")
        if self._frame_stream.problem is not None:
            sentence = f"the frames beside the journal {self.path} cannot be written ({self._frame_stream.problem})"
            return Problem("not followed", f"{sentence}: who follows this run sees nothing new.")
        return None

    def take_problem(self) -> str | None:
        """Return what has gone wrong, or is well again, once; None where nothing is new."""
        before, self._reported_problem = self._reported_problem, self.problem
        if before == self._reported_problem:
            return None
        if self._reported_problem is None:
            return f"the journal {self.path} has all of this run again."
        tries = self._file.error is not None and not self._file.finished
        return self._reported_problem.sentence + " Each command tries again." * tries

    def _append(self, command: str, frame: Frame, *, start: int) -> None:
        before, self._loss = self._loss, plain_number(frame.loss)
        if self._file.finished:
            return
        parent = self._tree.line_of(start)
        follows = parent == self._tree.last and start == self._tree.end  # the line before, to its end
        number, digest, begin = self._tree.last + 1, self._digest(frame), None if follows else start
        loss = self._loss if not follows or self._loss != before else None
        entry = Entry(number, parent, command, digest, begin, loss=loss)
        if not entry.goes_back and (frame.error is not None or self._left_loss is not None):
            entry = replace(entry, left=self._take_left_loss(), **_error_fields(frame.error))
        if entry.goes_back:
            self._tree.add_rewind(start)  # later frames stay until something runs from there
        else:
            self._tree.add_run(start, frame.index)
        self._write(entry.to_json_line(), frame.index)

    def _write(self, line: str, frame: int) -> None:
        """Write the line that led to a frame, behind the header where it is the first one."""
        path = self._file.path
        if not (self._file.is_open or self._file.has_pending):
            line = header_line(self._about.config, started=time()) + line
        self._write_time = monotonic()
        self._file.append(line, frame)
        if self._file.path != path:  # which another run has taken
            self._frame_stream = FrameStream(self._file.path, self._about, mode=self._file.mode)

    def _digest(self, frame: Frame) -> str:
        return frame_digest(frame, self._about.config.digest_version)

    def _take_left_loss(self) -> float | str | None:
        loss, self._left_loss = self._left_loss, None
        return plain_number(loss)


def _error_fields(error: TorchError | None) -> dict[str, Any]:
    """Return what a command raised as fields of its entry."""
    return {} if error is None else {"raised": error.type, "said": astuple(error)[1:]}
