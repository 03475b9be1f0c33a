"""Frames as JSON lines: one strict JSON object a frame."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import BinaryIO

from autograd_tui.engine.values.frame import Frame


def write_json_lines(file: BinaryIO, frames: Iterable[Frame]) -> None:
    """Write what `Frame.plain` says of each."""
    for frame in frames:
        file.write((json.dumps(frame.plain(), allow_nan=False) + "\n").encode())
