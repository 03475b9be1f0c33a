"""What a screen needs of a session that runs nothing itself."""

from __future__ import annotations

from autograd_tui.engine.values.about import About
from autograd_tui.engine.values.branches import Branch
from autograd_tui.engine.values.command_log import CommandLog
from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.history import History
from autograd_tui.engine.values.progress import Watch
from autograd_tui.engine.values.watchpoint import Watchpoint


class StillSession:
    """Stands at a frame; who inherits from it says which frames there are."""

    recorder = None
    fired = None
    warning = None
    branches: tuple[Branch, ...] = ()
    watchpoints: tuple[Watchpoint, ...] = ()
    about: About
    history: History
    newest: int

    @property
    def frame(self) -> Frame:
        """The frame where it stands."""
        raise NotImplementedError

    def take_difference(self) -> None:
        """Find none: nothing is run again here."""

    def watch(self, watch: Watch) -> None:
        """Tell nothing: no way back is ever long."""

    def close(self, *, in_order: bool) -> None:
        """Keep nothing."""

    def log(self) -> CommandLog:
        """Give no commands: the run is shown, and not repeated from here."""
        return CommandLog()

    def command_line(self) -> str:
        """Give the command line that opens the run at frame 0."""
        return self.about.command_line
