"""The file of a journal: it takes whole lines or none, whatever becomes of the disk or of the file itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from itertools import chain, count
from pathlib import Path
from weakref import WeakMethod

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import make_folder, new_file, open_file, open_to_read, read_file, replacing, try_lock
from autograd_tui.journal.paths import remove_unfinished
from autograd_tui.journal.reader import Journal, read_journal

MAX_PENDING_BYTES = 1 << 20  # bytes of lines that wait for a disk that takes them


class JournalFile:
    """Appends lines to one file, which is made with the first of them and locked; errors are kept in `error`.

    Lines that cannot be written wait, and are written before the next one once that is possible again.
    """

    def __init__(self, path: Path, *, mode: int, fallback_paths: Iterable[Path] = ()) -> None:
        """Prepare to write to `path`, or to the first of `fallback_paths` where another run has taken it before."""
        self.path, self.mode, self._fallback_paths = path, mode, fallback_paths
        self.error: str | None = None  # why lines wait, or are written no more
        self.finished = False  # nothing is written any more
        self.last_frame = 0  # the frame that the last line led to
        self.written_to: int | None = None  # the one that the last line in the file led to
        self.content_hash = PrefixHash()  # of all that the file holds
        self._pending = bytearray()  # lines that are not in the file yet
        self._descriptor: int | None = None
        self._absolute_path = path  # wherever a scenario changes the working directory to
        if hasattr(os, "register_at_fork"):
            close = WeakMethod(self._close_file)  # a forked process writes nothing, and must not hold the lock
            os.register_at_fork(after_in_child=lambda: method() if (method := close()) else None)

    @classmethod
    def reopen(cls, journal: Journal) -> JournalFile:
        """Open a journal's file at its end, where an unfinished line is cut off.

        A damaged journal is copied, all of it, before the lines from the damaged one on are cut off. Raises Refused
        where another run writes to it.
        """
        file = cls(journal.path, mode=0o600)
        try:
            file._open_at_end_of(journal)
        except OSError as error:  # such as a read-only disk: the run goes on, and `error` is shown
            file._stop_writing(error)
        file.written_to = file.last_frame = journal.frame
        return file

    @property
    def is_open(self) -> bool:
        """Whether the file has been made and takes lines."""
        return self._descriptor is not None

    @property
    def has_pending(self) -> bool:
        """Whether lines wait to be written."""
        return bool(self._pending)

    def _open_at_end_of(self, journal: Journal) -> None:
        self._lock_file(open_file(self.path, os.O_WRONLY | os.O_APPEND))
        assert self._descriptor is not None
        if os.fstat(self._descriptor).st_size != journal.size + journal.unread_bytes:
            raise Refused(f"{journal.path} has been written to by another run just now: try again.")
        if journal.damage:
            _copy_damaged(journal.path, damaged_copy_path(journal.path))
        os.ftruncate(self._descriptor, journal.size)
        self.content_hash = hash_prefix(self.path, journal.size)
        remove_unfinished(self.path)

    def append(self, lines: str, frame: int) -> None:
        """Write lines that led to a frame at the end of the file, with those that wait: all of them or none."""
        self._pending += lines.encode()
        self.last_frame = frame
        try:
            if self._descriptor is None:
                self._lock_file(self._create_file())
            self._write_pending()
        except OSError as error:
            self.error = error_reason(error)
            if len(self._pending) > MAX_PENDING_BYTES:
                self._stop_writing(error)

    def sync(self) -> bool:
        """Flush the file to the disk; return whether all lines are there."""
        if self._descriptor is None or self._pending:
            return False
        try:
            os.fsync(self._descriptor)
        except OSError as error:  # lines that seemed to be written may be lost
            self._stop_writing(error)
            return False
        return True

    def close(self) -> None:
        """Write nothing any more, and remove the file where nothing could be written into it."""
        self._remove_empty()
        self._close_file()

    def _write_pending(self) -> None:
        assert self._descriptor is not None
        if change := self._foreign_change(self._descriptor):
            self._stop_writing(OSError(errno.ESTALE, change))
            return
        written = os.write(self._descriptor, self._pending)
        if written < len(self._pending):
            self._undo_write(self._descriptor, written)
        self.content_hash.append(bytes(self._pending))
        self._pending.clear()
        self.error, self.written_to = None, self.last_frame

    def _foreign_change(self, descriptor: int) -> str | None:
        """Return what another program has done to the file since the last line; its size and its name show it."""
        file = at_path = os.fstat(descriptor)
        try:
            at_path = os.stat(self._absolute_path)
        except (FileNotFoundError, NotADirectoryError):
            self.written_to = self.written_to if file.st_nlink else None
            return "it has been moved" if file.st_nlink else "it has been removed"
        except OSError:
            pass  # a folder that cannot be read any more shows nothing of its files
        if not os.path.samestat(file, at_path):
            self.written_to = self.written_to if file.st_nlink else None
            return "another file has taken its place"
        if file.st_size < self.content_hash.size:
            with suppress(Refused):
                self.written_to = None
                self.written_to = read_journal(self._absolute_path).frame
            return "another program has cut it short"
        return "another program has written to it" if file.st_size > self.content_hash.size else None

    def _undo_write(self, descriptor: int, written: int) -> None:
        """Cut off what a full disk took of a line, and raise OSError: no line can come behind a part of one."""
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            if os.fstat(descriptor).st_size != self.content_hash.size + written:
                raise full  # somebody else's lines stand behind it
            os.ftruncate(descriptor, self.content_hash.size)
        except OSError as error:
            self._stop_writing(error)
        raise full

    def _create_file(self) -> int:
        """Make the file, under a name that is free at this moment; return its descriptor."""
        make_folder(self.path.parent)
        for path in self._fallback_paths:
            with suppress(FileExistsError):
                return new_file(self.path, self.mode, flags=os.O_APPEND)
            self.path = path
        return new_file(self.path, self.mode, flags=os.O_APPEND)

    def _lock_file(self, descriptor: int) -> None:
        if not try_lock(descriptor):
            os.close(descriptor)
            raise Refused(f"{self.path} is being written by another run: follow it, or wait for its end.")
        self._descriptor, self._absolute_path = descriptor, Path(os.path.abspath(self.path))

    def _stop_writing(self, error: OSError) -> None:
        """Write nothing any more: what waits cannot go into this file."""
        self.error = error_reason(error)
        self._close_file()

    def _remove_empty(self) -> None:
        """Leave no file behind into which nothing could be written."""
        if self._descriptor is None or self.written_to is not None:
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
                self.error = error_reason(error)
        self._descriptor, self.finished = None, True
        self._pending.clear()


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
        why = f"it cannot be kept as {copy.name} ({error_reason(error)}), so nothing is cut off."
        raise Refused(f"{path} is damaged: {why}") from None


def error_reason(error: OSError) -> str:
    """Return what went wrong in the system's words."""
    return error.strerror or str(error)


class PrefixHash:
    """A running hash of a journal's bytes from its start, which identifies the run.

    A second run has another first line, which says when it began; a copy that was continued has other last lines.
    """

    def __init__(self, data: bytes = b"") -> None:
        self.size = len(data)
        self._hashed = blake2b(data, digest_size=16)

    def append(self, data: bytes) -> None:
        """Take in what has been appended."""
        self.size += len(data)
        self._hashed.update(data)

    def hexdigest(self) -> str:
        """Return 32 hexadecimal digits."""
        return self._hashed.hexdigest()


def hash_prefix(path: Path, size: int) -> PrefixHash:
    """Hash so many bytes of a journal, or all that there are. Raises OSError."""
    with open_to_read(path) as file:
        return PrefixHash(file.read(size))


def first_line_hash(path: Path) -> str:
    """Return the hash by which a journal's run is known among others that had its name. Raises OSError."""
    with open_to_read(path) as file:
        return PrefixHash(file.readline()).hexdigest()
