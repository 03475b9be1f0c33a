"""The command line: words into a session, on a screen or without one."""

from __future__ import annotations

from autograd_tui.cli.program import main

__all__ = ["main"]
