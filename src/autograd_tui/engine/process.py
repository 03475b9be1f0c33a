"""One process trains: a copy of it ends where it would go on as a second program."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_process() -> Iterator[None]:
    """Run other people's code; a copy of this process that it has made by os.fork ends when it is through with it.

    It would read the same keys, and write to the same terminal and journal.
    """
    process = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != process:
            os._exit(0)
