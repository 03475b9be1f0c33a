"""What tests need of scripts that a session leads: their processes, and what they print at their end."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from autograd_tui.core.errors import Refused
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.script.script_session import ScriptSession


@pytest.fixture
def lead(tmp_path: Path) -> Iterator[Callable[[str], tuple[ScriptSession, bytearray]]]:
    sessions: list[ScriptSession] = []

    def start(text: str) -> tuple[ScriptSession, bytearray]:
        printed = bytearray()
        file = tmp_path / "train.py"
        file.write_text(textwrap.dedent(text))
        sessions.append(ScriptSession((str(file),), on_output=printed.extend))
        return sessions[-1], printed

    yield start
    for session in sessions:
        session.close(in_order=True)
    deadline = monotonic() + 60
    while left := running(str(tmp_path)):
        assert monotonic() < deadline, left
        sleep(0.05)


def running(folder: str) -> list[str]:
    """Return the processes, with their states, whose command line names something in a folder."""
    found = []
    for each in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{each}/cmdline").read_bytes()
            state = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if os.fsencode(folder) in words and state != "Z":
            found.append(each)
    return found


def last_lines(printed: bytearray, count: int) -> list[str]:
    """Return the last lines of so many runs to the end, once they have come from the terminal."""
    deadline = monotonic() + 60
    while printed.count(b"sha256") < count or not printed.endswith(b"\n"):
        assert monotonic() < deadline, bytes(printed)
        sleep(0.01)
    return [each.split("\r")[0].strip() for each in printed.decode().split("sha256")[1:]]


def run_to_end(session: ScriptSession) -> None:
    with pytest.raises(Refused, match="has ended"):
        for _ in session.run_free(Goal(), lambda: False, every=0.05):
            pass
