"""See training happen, one step at a time, in a terminal."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session
    from autograd_tui.engine.training.loader import from_loader
    from autograd_tui.engine.training.options import File, Options
    from autograd_tui.engine.training.scenario import Parts, scenario
    from autograd_tui.engine.values.command import Phase
    from autograd_tui.engine.values.frame import Frame
    from autograd_tui.open import open_session

__version__ = "0.2.0"
__all__ = ["File", "Frame", "Options", "Parts", "Phase", "Session", "from_loader", "open_session", "scenario"]

_HOMES = {
    "File": "engine.training.options",
    "Frame": "engine.values.frame",
    "Options": "engine.training.options",
    "Parts": "engine.training.scenario",
    "Phase": "engine.values.command",
    "Session": "engine.session",
    "from_loader": "engine.training.loader",
    "open_session": "open",
    "scenario": "engine.training.scenario",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch is not brought in before."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
