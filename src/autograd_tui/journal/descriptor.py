"""Files that one program alone writes, opened where nobody's standard output can be led over them."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: two programs may write the same file, and neither notices
    fcntl = None  # type: ignore[assignment]

STANDARD = 3  # descriptors: a scenario may have closed one of them, whose number the next file would get


def open_file(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file for writing and give its descriptor, which no child inherits. Raises OSError."""
    low: list[int] = []
    try:
        while (descriptor := os.open(path, flags | os.O_CLOEXEC, mode)) < STANDARD:
            low.append(descriptor)
            flags &= ~os.O_EXCL  # it is there now
        return descriptor
    finally:
        for each in low:
            os.close(each)


def lock(descriptor: int) -> bool:
    """Claim an open file for this program, as long as it lives; tell whether no other one has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Tell whether another program has claimed a file. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return not lock(descriptor)
    finally:
        os.close(descriptor)
