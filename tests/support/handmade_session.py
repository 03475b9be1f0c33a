"""Sessions whose frames are made by hand: the last one can be shown, and nothing can be run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from autograd_tui.core.capabilities import Capabilities
from autograd_tui.core.command import Command
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.core.loss_surface import LossSurface
from autograd_tui.core.picture import Picture
from autograd_tui.core.run_observer import Progress
from autograd_tui.core.session_protocol import ReadOnlySession, SessionInfo
from autograd_tui.core.trace import Trace


class MadeSession(ReadOnlySession):
    """Stands at the last of its frames; the loss around it, and a picture of it, may be made by hand too."""

    def __init__(
        self,
        about: SessionInfo,
        frames: Sequence[Frame],
        *,
        surface: LossSurface | None = None,
        picture: Picture | None = None,
    ) -> None:
        self.about, self._frame = about, frames[-1]
        self._surface, self._pictures = surface, (picture,) if picture else ()
        self.newest = self.frame.index
        self.history = History()
        for frame in frames:
            self.history.append(frame)

    @property
    def frame(self) -> Frame:
        return self._frame

    def surface(self, *, stopped: Callable[[], bool], watch: Callable[[Progress], None]) -> LossSurface | None:
        return self._surface

    def pictures(self, *, stopped: Callable[[], bool]) -> tuple[Picture, ...]:
        return self._pictures


class TracedSession(MadeSession):
    """Has recorded the phase that comes next."""

    can: Capabilities = Capabilities(trace=True)

    def __init__(self, about: SessionInfo, frames: Sequence[Frame], trace: Trace) -> None:
        super().__init__(about, frames)
        self._trace = trace

    def next_command(self) -> Command:
        return Command(self._trace.phase.value)

    def run(self, command: Command) -> Frame:
        return replace(self.frame, trace=self._trace)
