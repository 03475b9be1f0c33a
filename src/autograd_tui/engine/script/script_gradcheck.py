"""Leads a gradient check of a script: back to before a forward, the measurement there, and back to where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.run_observer import Progress, ProgressCallback
from autograd_tui.engine.script.agent_client import AgentClient
from autograd_tui.engine.script.agent_messages import GradientOrder, Measured
from autograd_tui.engine.script.script_rewinder import ScriptRewinder
from autograd_tui.engine.script.script_timeline import ScriptTimeline

EVENTS_BEFORE_LOSS = 8  # within which a forward that can be made again has begun


class ForwardFinder:
    """Finds the forwards of a script that can be made again, and takes the script to before one."""

    def __init__(self, client: AgentClient, timeline: ScriptTimeline, rewinder: ScriptRewinder) -> None:
        self._client, self._timeline, self._rewinder = client, timeline, rewinder

    @property
    def settings(self) -> list[int]:
        """The frames that something which the user has set led to: no copy sets that by itself."""
        return [index for index, _ in self._timeline.branch.settings]

    def stored(self, index: int) -> Frame | None:
        """Return frame `index`, None where it is not stored."""
        frame = self._client.run.frame
        return frame if frame.index == index else self._timeline.frames.get(index)

    def loss(self, forward: int) -> float | None:
        """Return the loss of a forward, None where that is not known."""
        losses = self._timeline.branch.history.loss
        return next((losses.values[at] for at, each in enumerate(losses.indices) if each == forward), None)

    def last_forward(self, index: int) -> int:
        """Return the index of the last forward whose backward has ended by frame `index`.

        Raises Refused where there is none that is known.
        """
        forward = last_forward(self.stored, index)
        if forward is None and index == self._client.run.frame.index:
            latest: int = self._client.ask("latest_forward")[0]
            forward = latest if 0 < latest < index else None
        if forward is None:
            raise Refused(f"what led to frame {index} has no frames: after the next backward there is one to check.")
        return forward

    def last_of(self, name: str, index: int) -> Frame | None:
        """Return the frame of the last call of a kind up to frame `index`, None where there is none that is stored."""
        while index and (frame := self.stored(index)) is not None:
            skipped = frame.script is not None and frame.script.skipped
            if frame.command is not None and frame.command.name == name and not skipped:
                return frame
            index -= 1
        return None

    @contextmanager
    def standing_before(self, forward: int, name: str | None = None) -> Iterator[None]:
        """Take the script back to before a forward began, while the block runs; where parameter `name` was known."""
        client = self._client
        first = max([forward - EVENTS_BEFORE_LOSS, *(each for each in self.settings if each < forward), 0])
        starts = [each for each in range(first, forward) if self._rewinder.leads_to(each)]
        if not starts:
            why = client.no_snapshot or "no copy of the script is kept from before it"
            raise Refused(f"the forward of frame {forward} cannot be made again: {why}.")
        frames = [(each, self.stored(each)) for each in starts]
        starts = [each for each, frame in frames if frame is None or name is None or name in frame.params.layout.names]
        if not starts:
            raise Refused(f"{name} was not known before the forward of frame {forward}, which was its first one.")
        with self._rewinder.visiting(starts[0]):
            if client.run.frame.index != starts[0]:
                raise Refused("what was to be measured was given up.")
            yield


class ScriptGradChecker:
    """Asks the script's process before a forward for a check, which forks copies of itself that make the forward."""

    def __init__(self, client: AgentClient, finder: ForwardFinder) -> None:
        self._client, self._finder = client, finder
        self.watch: ProgressCallback = lambda progress: True

    def check_gradient(self, index: int, name: str, stopped: Callable[[], bool]) -> GradCheck:
        """Check the gradient that a parameter had behind the last backward up to frame `index`.

        Raises Refused where there is none, its forward cannot be made again, or the check is given up.
        """
        forward = self._finder.last_forward(index)

        def tell(measured: Measured) -> None:
            self.watch(Progress(measured.done, measured.of, gradient=f"{name}.grad"))

        with self._finder.standing_before(forward, name):
            order = GradientOrder(name, forward, self._finder.loss(forward), index)
            check: GradCheck = self._client.ask("check_gradient", order, tell=tell, stopped=stopped)
            return check


def last_forward(stored: Callable[[int], Frame | None], index: int) -> int | None:
    """Return the index of the last forward whose backward has ended by frame `index`; None where that is not known.

    Raises Refused where there is none, or more than one backward of it.
    """
    backward, current = 0, index
    while current:
        frame = stored(current)
        if frame is None and backward and current == backward - 1:
            return current  # as each backward that is not a further one of the same loss
        if frame is None:
            return None
        called = frame.command.name if frame.command is not None else ""
        if called == "forward" and backward:
            return current
        if called == "backward" and backward:
            raise Refused(f"frame {backward} is a further backward of a loss that had one: only its first can be.")
        if called == "backward":
            backward = current
        current -= 1
    raise Refused(f"there is no backward before frame {index}, so there is nothing to check.")
