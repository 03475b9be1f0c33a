"""Leads a gradient check and a surface of a script: back to before a forward, and to where it was behind that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.loss_surface import LossSurface, SurfaceChoice, given_up_sentence
from autograd_tui.core.run_observer import Progress, ProgressCallback
from autograd_tui.engine.script.agent_client import AgentClient
from autograd_tui.engine.script.agent_messages import GradientOrder, SurfaceOrder, SurfaceSoFar
from autograd_tui.engine.script.script_rewinder import ScriptRewinder
from autograd_tui.engine.script.script_timeline import ScriptTimeline

POLL_SECONDS = 0.05  # between two looks at whether somebody wants something else
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
        with self._finder.standing_before(forward, name):
            order = GradientOrder(name, forward, self._finder.loss(forward), index)
            check: GradCheck = self._client.ask("check_gradient", order, tell=self.watch, stopped=stopped)
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


class ScriptSurface:
    """The surface that was asked for. Its copy measures on by itself; what it sends is taken in while nothing waits."""

    def __init__(self, client: AgentClient, finder: ForwardFinder) -> None:
        self._client, self._finder = client, finder
        self._connection: Connection | None = None  # of the copy, while it measures
        self._so_far: SurfaceSoFar | None = None

    @property
    def surface(self) -> LossSurface | None:
        """What is measured of it."""
        return self._so_far.surface if self._so_far is not None else None

    def choose(self, choice: SurfaceChoice) -> None:
        """Begin with the surface that is asked for; raises Refused where there is none."""
        if choice == "off":
            self.close()
            return
        order = self._order(choice)
        with self._finder.standing_before(order.forward):
            so_far: SurfaceSoFar = self._client.ask("surface", order, stopped=self._client.stopped)
            self.close()
            run = self._client.run
            self._so_far, self._connection, run.connection = so_far, run.connection, None

    def _order(self, choice: SurfaceChoice) -> SurfaceOrder:
        finder, index = self._finder, self._client.run.frame.index
        if isinstance(choice, tuple):
            forward = finder.last_of("forward", index)
            if forward is None:
                raise Refused(f"there is no forward before frame {index} that is known: f runs on to the next one.")
            return SurfaceOrder(choice, forward.index, finder.loss(forward.index), 0, forward.iteration)
        step = finder.last_of("step", index)
        forward = finder.last_of("forward", step.index) if step is not None else None
        if step is None or forward is None:
            raise Refused("there is no step yet whose direction the plane would have: s runs on to the next one.")
        if any(forward.index < set_at <= step.index for set_at in finder.settings):
            raise Refused("something was set between the last forward and its step: a copy would not set it again.")
        return SurfaceOrder(None, forward.index, finder.loss(forward.index), step.index, step.iteration)

    def measure(self, stopped: Callable[[], bool], watch: Callable[[Progress], None]) -> LossSurface | None:
        """Take in what is measured until `stopped`, or until it is finished; `watch` is told behind each point."""
        while self._connection is not None and not stopped():
            try:
                while self._connection.poll(POLL_SECONDS) and not stopped():
                    self._so_far = self._connection.recv()
                    assert self._so_far is not None
                    watch(self._so_far.progress)
            except (EOFError, OSError):
                self._end()
        return self.surface

    def give_up(self) -> str | None:
        """Measure no further; return a sentence about what there is, or None where nothing was being measured."""
        so_far = self._so_far
        if self._connection is None or so_far is None:
            return None
        self._end()
        if not so_far.is_complete:
            self._so_far = None
        return given_up_sentence(so_far.progress, is_complete=so_far.is_complete)

    def close(self) -> None:
        """Show none any more, and end the copy."""
        self._end()
        self._so_far = None

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
