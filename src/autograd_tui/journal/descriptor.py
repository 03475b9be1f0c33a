"""Files opened where nobody's standard output can be led over them."""

from __future__ import annotations

import os
from pathlib import Path

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
