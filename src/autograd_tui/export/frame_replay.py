"""The frames of a recorded run, one after the other: what the exporters of numbers and pictures read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autograd_tui.core.command_log import Recording
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session


@dataclass(frozen=True, slots=True)
class FrameReplay:
    """A recording, and a session that has just been opened to run it again, once."""

    recording: Recording
    session: Session
    stopped: Callable[[], bool] = lambda: False

    def frames(self) -> Iterator[Frame]:
        """Run the recording; give every frame, from frame 0. Raises Refused where it is given up."""
        yield self.session.frame
        for step in self.recording:
            if self.stopped():
                raise Refused("the export was stopped: nothing is written.")
            yield self.session.run(step.command)
