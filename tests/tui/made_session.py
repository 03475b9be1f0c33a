"""A session whose frames are made by hand: its last one can be shown, and nothing can be run."""

from __future__ import annotations

from collections.abc import Sequence

from autograd_tui.engine.about import About
from autograd_tui.engine.frame import Frame
from autograd_tui.engine.history import History
from autograd_tui.engine.still_session import StillSession


class MadeSession(StillSession):
    """Stands at the last of its frames."""

    def __init__(self, about: About, frames: Sequence[Frame]) -> None:
        self.about, self._frame = about, frames[-1]
        self.newest = self.frame.index
        self.history = History()
        for frame in frames:
            self.history.append(frame)

    @property
    def frame(self) -> Frame:
        return self._frame
