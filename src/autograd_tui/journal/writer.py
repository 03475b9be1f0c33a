"""Writes the journal of a run: a line for each command, flushed before the next one runs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import astuple, replace
from itertools import chain, count
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from autograd_tui.core.command_log import CommandLog, Pattern
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import make_folder, new_file, open_file, read_file, replacing, try_lock
from autograd_tui.core.frame import Frame, TorchError, plain_number
from autograd_tui.core.history import History
from autograd_tui.core.run_observer import Problem
from autograd_tui.core.session_view import SessionInfo
from autograd_tui.journal.digest import PrefixHash, frame_digest, hash_prefix
from autograd_tui.journal.entry import Entry, closing_line, header_line
from autograd_tui.journal.frame_stream import FrameStream
from autograd_tui.journal.paths import remove_unfinished
from autograd_tui.journal.reader import EntryTree, Journal, read_journal

if TYPE_CHECKING:
    from autograd_tui.engine.training.checkpoint import Checkpoint

CHECKPOINT_INTERVAL = 30.0  # seconds between checkpoints on disk, so that resuming runs no more than that again
MAX_CHECKPOINT_SHARE = 0.01  # of the run's time that they may cost
FREE_RUN_INTERVAL = 0.25  # seconds between the lines of a free run
MAX_PENDING_BYTES = 1 << 20  # bytes of lines that wait for a disk that takes them


class JournalWriter:
    """Appends to one file, which is made with the first command; a disk that is full or gone never stops the run.

    Lines that cannot be written wait, and are written before the next one once that is possible again. `problem` says
    for as long as that is so what is not kept.
    """

    def __init__(self, path: Path, about: SessionInfo, *, private: bool, fallback_paths: Iterable[Path] = ()) -> None:
        """Prepare to write to `path`; unless `private`, other users may read the file as far as the umask allows.

        fallback_paths: tried in order where another run has taken the path before.
        """
        self.path, self._fallback_paths = path, fallback_paths
        self._write_error: str | None = None  # why lines wait, or are written no more
        self._checkpoint_error: str | None = None  # why the last checkpoint is not on disk
        self._reported_problem: Problem | None = None  # the one that was taken last
        self._about, self._mode = about, 0o600 if private else 0o666
        self._frame_stream = FrameStream(path, about, mode=self._mode)
        self._descriptor: int | None = None
        self._absolute_path = path  # wherever a scenario changes the working directory to
        self._content_hash = PrefixHash()  # all that the file holds
        self._finished = False  # nothing is written any more
        self._pending = bytearray()  # lines that are not in the file yet
        self._last_frame = 0  # the frame that the last line led to
        self._written_to: int | None = None  # the one that the last line in the file led to
        self._tree = EntryTree()  # of all lines
        self._branch_ends: dict[int, int] = {}  # by the number of a branch, its last entry
        self._left_loss: float | None = None  # of the run that the next line leaves
        self._free_run: tuple[CommandLog, int, Frame] | None = None  # commands not written yet, their start and end
        self._write_time = 0.0  # of the last line, by the monotonic clock
        self._checkpoint_time = monotonic()  # of the last checkpoint
        self._checkpoint_cost = 0.0  # seconds that it took
        self._checkpoint_frame: Frame | None = None
        self._loss: float | str | None = None  # of the frame where training stands, as strict JSON has it
        if hasattr(os, "register_at_fork"):
            close = WeakMethod(self._close_file)  # a forked process writes nothing, and must not hold the lock
            os.register_at_fork(after_in_child=lambda: method() if (method := close()) else None)

    @classmethod
    def resume(cls, journal: Journal, about: SessionInfo, *, left: Mapping[int, int]) -> JournalWriter:
        """Go on with a journal, whose unfinished line is cut off; raises Refused where another run writes it.

        left: by the number of each branch that can be returned to, its last entry. A damaged journal is kept beside
        it, all of it, before the lines from the damaged one on are cut off.
        """
        writer = cls(journal.path, about, private=True)
        try:
            writer._open_at_end_of(journal)
        except OSError as error:  # such as a disk that is read-only: the run goes on, and says that it is not kept
            writer._stop_writing(error)
        writer._tree, writer._loss = deepcopy(journal.tree), plain_number(journal.loss)
        writer._written_to = writer._last_frame = journal.frame
        writer._branch_ends = dict(left)
        return writer

    def _open_at_end_of(self, journal: Journal) -> None:
        self._lock_file(open_file(self.path, os.O_WRONLY | os.O_APPEND))
        assert self._descriptor is not None
        if os.fstat(self._descriptor).st_size != journal.size + journal.unread_bytes:
            raise Refused(f"{journal.path} has been written to by another run just now: try again.")
        if journal.damage:
            _copy_damaged(journal.path, damaged_copy_path(journal.path))
        os.ftruncate(self._descriptor, journal.size)
        self._content_hash = hash_prefix(self.path, journal.size)
        remove_unfinished(self.path)

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
            log.append_all(pattern, times)
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
        if self._finished or number not in self._branch_ends:
            return
        self._frame_stream.ran_from(0)
        self._loss, tip = plain_number(frame.loss), self._branch_ends.pop(number)
        entry = Entry(self._tree.last + 1, tip, f"branch={number}", frame_digest(frame), frame.index)
        entry = replace(entry, left=self._take_left_loss(), loss=self._loss)
        self._tree.return_to_branch(tip)
        self._write(entry.to_json_line(), frame.index)

    def on_checkpoint(self, checkpoint: Checkpoint, history: History) -> None:
        """Write a checkpoint beside the journal, once in a while, where that has every line."""
        started = monotonic()
        soon = started - self._checkpoint_time < max(CHECKPOINT_INTERVAL, self._checkpoint_cost / MAX_CHECKPOINT_SHARE)
        if soon or self._descriptor is None or checkpoint.frame is self._checkpoint_frame:
            return
        from autograd_tui.journal.checkpoint_file import save_checkpoint

        self.on_free_run_end()
        index = checkpoint.frame.index
        if self._descriptor is None or self._pending or index > self._tree.end:
            return
        try:
            os.fsync(self._descriptor)
        except OSError as error:  # lines that seemed to be written may be lost
            self._stop_writing(error)
            return
        try:
            save_checkpoint(
                self.path,
                checkpoint,
                history,
                entry=self._tree.line_of(index),
                lines=self._content_hash,
                mode=self._mode,
            )
            self._checkpoint_error = None
        except OSError as error:
            self._checkpoint_error = _reason(error)
        self._checkpoint_time, self._checkpoint_frame = monotonic(), checkpoint.frame
        self._checkpoint_cost = self._checkpoint_time - started

    def on_shown(self, frame: Frame, newest: int, history: History) -> None:
        """Show a frame to those who follow the run."""
        if self._descriptor is not None:
            self._frame_stream.drew(frame, newest, history)

    def on_idle(self) -> None:
        """Show the newest one, since nothing comes behind it for now."""
        self._frame_stream.write_newest()

    def close(self, *, in_order: bool) -> None:
        """Write what is left to write, and that the run was left in order, where it was."""
        self.on_free_run_end()
        if self._pending or (in_order and self._descriptor is not None):
            self._write(closing_line(time(), self._loss) if in_order else "", self._last_frame)
        self._frame_stream.close()
        self._remove_empty()
        self._close_file()

    @property
    def problem(self) -> Problem | None:
        """What is not kept, for as long as that is so."""
        if self._write_error is not None:
            extent = "not kept" if self._written_to is None else f"kept no further than frame {self._written_to:,}"
            sentence = f"the journal {self.path} cannot be written ({self._write_error}): this run is {extent}."
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
        tries = self._write_error is not None and not self._finished
        return self._reported_problem.sentence + " Each command tries again." * tries

    def _append(self, command: str, frame: Frame, *, start: int) -> None:
        before, self._loss = self._loss, plain_number(frame.loss)
        if self._finished:
            return
        parent = self._tree.line_of(start)
        follows = parent == self._tree.last and start == self._tree.end  # the line before, to its end
        entry = Entry(self._tree.last + 1, parent, command, frame_digest(frame), None if follows else start)
        if not follows or self._loss != before:
            entry = replace(entry, loss=self._loss)
        if not entry.goes_back:
            entry = replace(entry, left=self._take_left_loss(), **_error_fields(frame.error))
        if entry.goes_back:
            self._tree.add_rewind(start)  # later frames stay until something runs from there
        else:
            self._tree.add_run(start, frame.index)
        self._write(entry.to_json_line(), frame.index)

    def _write(self, line: str, index: int) -> None:
        """Write the line that led to a frame at the end of the file, with those that wait: all of them or none."""
        if self._descriptor is None and not self._pending:
            line = header_line(self._about.opening, started=time()) + line
        self._pending += line.encode()
        self._last_frame, self._write_time = index, monotonic()
        try:
            if self._descriptor is None:
                self._lock_file(self._create_file())
            self._write_pending()
        except OSError as error:
            self._write_error = _reason(error)
            if len(self._pending) > MAX_PENDING_BYTES:
                self._stop_writing(error)

    def _write_pending(self) -> None:
        assert self._descriptor is not None
        if change := self._foreign_change(self._descriptor):
            self._stop_writing(OSError(errno.ESTALE, change))
            return
        written = os.write(self._descriptor, self._pending)
        if written < len(self._pending):
            self._undo_write(self._descriptor, written)
        self._content_hash.append(bytes(self._pending))
        self._pending.clear()
        self._write_error, self._written_to = None, self._last_frame

    def _foreign_change(self, descriptor: int) -> str | None:
        """Return what another program has done to the file since the last line; its size and its name show it."""
        file = at_path = os.fstat(descriptor)
        try:
            at_path = os.stat(self._absolute_path)
        except (FileNotFoundError, NotADirectoryError):
            self._written_to = self._written_to if file.st_nlink else None
            return "it has been moved" if file.st_nlink else "it has been removed"
        except OSError:
            pass  # a folder that may be looked into no more tells nothing of its files
        if not os.path.samestat(file, at_path):
            self._written_to = self._written_to if file.st_nlink else None
            return "another file has taken its place"
        if file.st_size < self._content_hash.size:
            with suppress(Refused):
                self._written_to = None
                self._written_to = read_journal(self._absolute_path).frame
            return "another program has cut it short"
        return "another program has written to it" if file.st_size > self._content_hash.size else None

    def _undo_write(self, descriptor: int, written: int) -> None:
        """Cut off what a full disk took of a line, and raise OSError: no line can come behind a part of one."""
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            if os.fstat(descriptor).st_size != self._content_hash.size + written:
                raise full  # somebody else's lines stand behind it
            os.ftruncate(descriptor, self._content_hash.size)
        except OSError as error:
            self._stop_writing(error)
        raise full

    def _create_file(self) -> int:
        """Make the file, under a name that is free at this moment; return its descriptor."""
        make_folder(self.path.parent)
        for path in self._fallback_paths:
            with suppress(FileExistsError):
                return new_file(self.path, self._mode, flags=os.O_APPEND)
            self.path, self._frame_stream = path, FrameStream(path, self._about, mode=self._mode)
        return new_file(self.path, self._mode, flags=os.O_APPEND)

    def _lock_file(self, descriptor: int) -> None:
        if not try_lock(descriptor):
            os.close(descriptor)
            raise Refused(f"{self.path} is being written by another run: follow it, or wait for its end.")
        self._descriptor, self._absolute_path = descriptor, Path(os.path.abspath(self.path))

    def _stop_writing(self, error: OSError) -> None:
        """Write nothing any more: what waits cannot go into this file."""
        self._write_error = _reason(error)
        self._close_file()

    def _remove_empty(self) -> None:
        """Leave no file behind into which nothing could be written."""
        if self._descriptor is None or self._written_to is not None:
            return
        with suppress(OSError):
            file = os.fstat(self._descriptor)
            if not file.st_size and os.path.samestat(file, os.lstat(self.path)):
                self.path.unlink()

    def _close_file(self) -> None:
        if self._descriptor is not None:
            try:
                os.close(self._descriptor)
            except OSError as error:  # a disk in a network may say only now that it is full
                self._write_error = _reason(error)
        self._descriptor, self._finished = None, True
        self._pending.clear()

    def _take_left_loss(self) -> float | str | None:
        loss, self._left_loss = self._left_loss, None
        return plain_number(loss)


def damaged_copy_path(path: Path) -> Path:
    """Return a name for a damaged journal that nothing bears yet."""
    names = chain([f"{path.name}.damaged"], (f"{path.name}.damaged-{number}" for number in count(2)))
    return next(other for each in names if not os.path.lexists(other := path.with_name(each)))


def _copy_damaged(path: Path, copy: Path) -> None:
    """Copy a damaged journal; raises Refused where that is not possible."""
    try:
        data = read_file(path)
        with replacing(copy, 0o600, over=False) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        why = f"it cannot be kept as {copy.name} ({_reason(error)}), so nothing is cut off."
        raise Refused(f"{path} is damaged: {why}") from None


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _error_fields(error: TorchError | None) -> dict[str, Any]:
    """Return what a command raised as fields of its entry."""
    return {} if error is None else {"raised": error.type, "said": astuple(error)[1:]}
