"""Scripts that sessions lead are forked from a process that has PyTorch, where a new Python takes three seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import fork_server
from autograd_tui.engine.script.script_process import ScriptProcess

_start_anew = ScriptProcess._start
fork_scripts = fork_server.fork_scripts


@contextmanager
def scripts_anew() -> Iterator[None]:
    """Start those inside the block as users do."""
    ScriptProcess._start = _start_anew  # type: ignore[method-assign]
    try:
        yield
    finally:
        fork_scripts()


@pytest.fixture
def started_anew() -> Iterator[None]:
    """Start the scripts of a test as users do."""
    with scripts_anew():
        yield
