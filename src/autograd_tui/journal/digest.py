"""Hashes of frames, by which a repeated run is compared, and of the beginning of a journal, which identifies it."""

from __future__ import annotations

import struct
from hashlib import blake2b
from pathlib import Path

from autograd_tui.core.files import open_to_read
from autograd_tui.core.frame import Frame


def frame_digest(frame: Frame) -> str:
    """Return 16 hexadecimal digits that differ where a frame's loss or any number measured for it does.

    Nothing is measured for it: it hashes the numbers that the frame holds, bit for bit, and what was raised.
    """
    hashed = blake2b(digest_size=8)
    loss = (0.0, False) if frame.loss is None else (frame.loss, True)
    hashed.update(struct.pack("<d?qqd", *loss, frame.iteration, frame.steps, frame.learning_rate))
    if frame.groups is not None:
        hashed.update(struct.pack(f"<{len(frame.learning_rates)}d", *frame.learning_rates))
    for table in (frame.params, frame.grads.table, frame.optimizer_state, frame.buffers):
        hashed.update(table.numbers)
    hashed.update(bytes(map(bool, frame.grads.backwards)))
    if frame.prediction is not None:
        hashed.update(struct.pack("<2d", *(each or 0.0 for each in (frame.prediction.norm, frame.prediction.mean))))
    if frame.error is not None:
        hashed.update(frame.error.type.encode())
    return hashed.hexdigest()


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
