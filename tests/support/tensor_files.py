"""Files of tensors as others leave them, good and bad."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


class Malicious:
    """Makes a folder when it is unpickled by whoever runs what is in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def save(path: Path, value: object) -> str:
    """Save it as a script does, and give the path."""
    torch.save(value, path)
    return str(path)


def cut(path: str, share: float = 0.5) -> str:
    """Cut a file short."""
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: int(len(whole) * share)])
    return path
