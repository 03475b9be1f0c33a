"""Leads a gradient check of a script: back to before a forward, the measurement there, and back to where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.history import Series
from autograd_tui.core.run_observer import Progress, Watch
from autograd_tui.engine.script.agent_client import AgentClient
from autograd_tui.engine.script.agent_messages import GradientOrder, Measured
from autograd_tui.engine.script.script_rewinder import ScriptRewinder
from autograd_tui.engine.script.script_timeline import ScriptTimeline

EVENTS_BEFORE_LOSS = 8  # within which a forward that can be made again has begun


class ScriptGradChecker:
    """Asks the script's process before a forward for a check, which forks copies of itself that make the forward."""

    def __init__(self, client: AgentClient, timeline: ScriptTimeline, rewinder: ScriptRewinder) -> None:
        self._client, self._timeline, self._rewinder = client, timeline, rewinder
        self.watch: Watch = lambda progress: True

    def check_gradient(self, index: int, name: str, stopped: Callable[[], bool]) -> GradCheck:
        """Check the gradient that a parameter had behind the last backward up to frame `index`.

        Raises Refused where there is none, its forward cannot be made again, or the check is given up.
        """
        losses = self._timeline.branch.history.loss
        forward = last_forward(self._stored, losses, index)
        loss = next((losses.values[at] for at, each in enumerate(losses.indices) if each == forward), None)

        def tell(measured: Measured) -> None:
            self.watch(Progress(measured.done, measured.of, gradient=f"{name}.grad"))

        with self._before(forward, name):
            order = GradientOrder(name, forward, loss, index)
            check: GradCheck = self._client.ask("check_gradient", order, tell=tell, stopped=stopped)
            return check

    def _stored(self, index: int) -> Frame | None:
        frame = self._client.run.frame
        return frame if frame.index == index else self._timeline.frames.get(index)

    @contextmanager
    def _before(self, forward: int, name: str) -> Iterator[None]:
        """Take the script back to before a forward began, where a parameter was known, while the block runs."""
        client, present = self._client, self._client.run
        # What the user has set no copy sets by itself.
        set_before = [index for index, _ in self._timeline.branch.settings if index < forward]
        first = max([forward - EVENTS_BEFORE_LOSS, *set_before, 0])
        starts = [each for each in range(first, forward) if self._rewinder.leads_to(each)]
        if not starts:
            why = client.no_snapshot or "no copy of the script is kept from before it"
            raise Refused(f"the forward of frame {forward} cannot be made again: {why}.")
        frames = [(each, self._stored(each)) for each in starts]
        starts = [each for each, frame in frames if frame is None or name in frame.params.layout.names]
        if not starts:
            raise Refused(f"{name} was not known before the forward of frame {forward}, which was its first one.")
        try:
            self._rewinder.rewind(starts[0])
            if client.run.frame.index != starts[0]:
                raise Refused("the gradient check was given up.")
            yield
        finally:
            client.take_fired()  # a watchpoint that fires on the way has done so before
            self._rewinder.return_to(present)


def last_forward(stored: Callable[[int], Frame | None], losses: Series, index: int) -> int:
    """Return the index of the last forward whose backward has ended by frame `index`.

    losses: of all forwards, also of those that had no frames. Raises Refused where there is none, or more than one
    backward of it.
    """
    backward, current = 0, index
    while current and (frame := stored(current)) is not None:
        called = frame.command.name if frame.command is not None else ""
        if called == "forward" and backward:
            return current
        if called == "backward":
            if backward:
                raise Refused(f"frame {backward} is a further backward of a loss that had one: only its first can be.")
            backward = current
        current -= 1
    iteration = frame.iteration if (frame := stored(index)) is not None else 0
    places = [at for at, each in enumerate(losses.indices) if each < index and losses.iterations[at] == iteration]
    if not current or not places or losses.bucket > 1:
        raise Refused(f"there is no backward before frame {index} whose forward is known: there is nothing to check.")
    return losses.indices[places[-1]]
