"""What the engine refuses with."""

from __future__ import annotations


class Refused(Exception):
    """Say in one sentence why a command or an option cannot be, and what to do instead."""


class NotUnderstood(Refused):
    """Say which word of a command line has no meaning."""


class Raised(Exception):
    """Carry what PyTorch or the user's own code raised; the phase that met it has been undone, but for a step."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error
