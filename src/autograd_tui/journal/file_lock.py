"""Files that one program alone writes."""

from __future__ import annotations

import os
from pathlib import Path

from autograd_tui.core.files import open_file

try:
    import fcntl
except ImportError:  # Windows: two programs may write the same file, and neither notices
    fcntl = None  # type: ignore[assignment]


def try_lock(descriptor: int) -> bool:
    """Claim an open file for this program, as long as it lives; tell whether no other one has it."""
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
    """Tell whether another program has claimed a file. Raises OSError."""
    descriptor = open_file(path)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)
