"""See training happen, one step at a time, in a terminal."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autograd_tui.core.command import Phase
    from autograd_tui.core.frame import Frame
    from autograd_tui.core.picture import Plane
    from autograd_tui.engine.open_session import open_session
    from autograd_tui.engine.script.step_into import step_into
    from autograd_tui.engine.session import Session
    from autograd_tui.engine.training.data_loader import from_loader
    from autograd_tui.engine.training.scenario import File, Options, Parts, scenario

__version__ = "0.7.0"
__all__ = [
    "File",
    "Frame",
    "Options",
    "Parts",
    "Phase",
    "Plane",
    "Session",
    "from_loader",
    "open_session",
    "scenario",
    "step_into",
]

_HOMES = {
    "File": "engine.training.scenario",
    "Frame": "core.frame",
    "Options": "engine.training.scenario",
    "Parts": "engine.training.scenario",
    "Phase": "core.command",
    "Plane": "core.picture",
    "Session": "engine.session",
    "from_loader": "engine.training.data_loader",
    "open_session": "engine.open_session",
    "scenario": "engine.training.scenario",
    "step_into": "engine.script.step_into",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch is not brought in before."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
