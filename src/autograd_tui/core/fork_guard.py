"""Ends copies of this process (`os.fork` in user code) where they would go on as a second program."""

from __future__ import annotations

import os


class ForkGuard:
    """Runs other people's code; a copy of this process that it has made by os.fork ends when it is through with it.

    It would read the same keys, and write to the same terminal and journal.
    """

    __slots__ = ("_process",)

    def __enter__(self) -> ForkGuard:
        self._process = os.getpid()
        return self

    def check(self) -> None:
        """End here if this is a copy."""
        if os.getpid() != self._process:
            os._exit(0)

    def __exit__(self, *raised: object) -> None:
        self.check()
