"""How this program opens and claims files: it reads regular ones alone, and makes new ones where nothing is."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: two programs may write the same file, and neither notices
    fcntl = None  # type: ignore[assignment]

STANDARD_DESCRIPTORS = 3  # descriptors: a scenario may have closed one of them, whose number the next file would get
# A pipe would be waited for, and a terminal would become this program's; some flags are unknown to some systems.
OPEN_FLAGS = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
NEW_FILE_FLAGS = os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
OTHER_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def other_kind(mode: int) -> str | None:
    """Return what has this mode, "a pipe"; None for a regular file."""
    return None if stat.S_ISREG(mode) else OTHER_KINDS.get(stat.S_IFMT(mode), "a link")


def open_file(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file that is there; return its descriptor, which no child inherits. Raises OSError.

    A pipe, a folder or a device is refused at once, in the error's strerror: "it is a pipe, and no file".
    """
    try:
        _check_regular(os.stat(path).st_mode)  # before it is opened, which some devices take for a command
        descriptor = os.open(path, flags | OPEN_FLAGS)
    except ValueError as error:  # a name that no file can have
        raise FileNotFoundError(errno.ENOENT, str(error)) from None
    try:
        _check_regular(os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return _above_standard(descriptor)


def open_to_read(path: str | Path) -> BufferedReader:
    """Open a regular file to read its bytes. Raises OSError, as `open_file` does."""
    return os.fdopen(open_file(path), "rb")


def read_file(path: str | Path, *, max_bytes: int = -1) -> bytes:
    """Read a regular file, up to `max_bytes` of it. Raises OSError, as `open_file` does."""
    with open_to_read(path) as file:
        return file.read(max_bytes)


def new_file(path: Path, mode: int = 0o666, *, flags: int = 0) -> int:
    """Make a file to write where nothing is, not even a link; return its descriptor, which no child inherits.

    Raises OSError, FileExistsError among it.
    """
    return _above_standard(os.open(path, os.O_WRONLY | NEW_FILE_FLAGS | OPEN_FLAGS | flags, mode))


def new_part(path: Path, mode: int = 0o666) -> tuple[Path, int]:
    """Make a file beside `path` that is to take its place; return its random name and its descriptor.

    The mode is what the umask leaves of `mode`. Raises OSError.
    """
    part = part_of(path)
    return part, new_file(part, mode)


def part_of(path: Path) -> Path:
    """Return a random name beside `path`, for what is to take its place: "run.csv.3f9a20c1.new"."""
    return path.with_name(f"{path.name}.{os.urandom(4).hex()}.new")


@contextmanager
def replacing(path: Path, mode: int = 0o666, *, over: bool = True) -> Iterator[BinaryIO]:
    """Write a file that takes the place of `path` once it is whole, or leaves no trace. Raises OSError.

    over: whatever is there; a link itself, and what it leads to stays as it is. Else raises FileExistsError.
    """
    part, descriptor = new_part(path, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        if not over:
            os.close(new_file(path, mode))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def try_lock(descriptor: int) -> bool:
    """Claim an open file for this program, as long as it lives; return whether no other one has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk that knows no locks: as on Windows
        return True
    return True


def is_locked(path: Path) -> bool:
    """Return whether another program has claimed a file. Raises OSError."""
    descriptor = open_file(path)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, for this user alone. Raises OSError."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)


def working_folder() -> str | None:
    """Return the folder that relative names are of at this moment; None where it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


def go_to(folder: str | None) -> None:
    """Work from a folder, as far as it is still there: code of a scenario may have gone to another one."""
    if folder is not None and folder != working_folder():
        with suppress(OSError):
            os.chdir(folder)


def absolute(name: str, folder: str | None) -> str:
    """Return a file's name from the root on, as it is meant in a folder."""
    return os.path.join(folder or "", name)


def found_in(folders: Iterable[str | None], name: str) -> str:
    """Return a file's name from the root on, in the first folder where it is; as it was given where it is in none."""
    names = (absolute(name, folder) for folder in folders if name)
    return next((each for each in names if os.path.isabs(each) and os.path.lexists(each)), name)


def file_sha256(path: str) -> str | None:
    """Return the hash of what a regular file holds; None for whatever else."""
    import hashlib  # here, since few starts need it

    try:
        with open_to_read(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def same_file(one: Path, other: Path) -> bool:
    """Return whether two names lead to one file, also by a link of either kind or another spelling."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them is not there
        return False


def _check_regular(mode: int) -> None:
    if kind := other_kind(mode):
        raise OSError(errno.ENOTSUP, f"it is {kind}, and no file")


def _above_standard(descriptor: int) -> int:
    """Return a descriptor of the same file that is none of the standard ones."""
    if descriptor >= STANDARD_DESCRIPTORS:
        return descriptor
    try:
        return _above_standard(os.dup(descriptor))
    finally:
        os.close(descriptor)
