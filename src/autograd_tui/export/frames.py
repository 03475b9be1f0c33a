"""The frames of a recording, one after the other: what the exporters of numbers and pictures read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from autograd_tui.engine.frame import Frame
from autograd_tui.engine.recording import Recording

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session


def frames(session: Session, recording: Recording) -> Iterator[Frame]:
    """Run a recording again in a session that has just been opened; give every frame, from frame 0."""
    yield session.frame
    for step in recording:
        yield session.run(step.command)
