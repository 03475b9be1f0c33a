"""Leads the measurement of a surface around a script's parameters, which a copy of its process makes."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection

from autograd_tui.core.errors import Refused
from autograd_tui.core.loss_surface import LossSurface, SurfaceChoice, given_up_sentence
from autograd_tui.core.run_observer import Progress
from autograd_tui.engine.script.agent_client import AgentClient
from autograd_tui.engine.script.agent_messages import SurfaceOrder, SurfaceSoFar
from autograd_tui.engine.script.script_gradcheck import ForwardFinder

POLL_SECONDS = 0.05  # between two looks at whether somebody wants something else


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
                    watch(Progress(self._so_far.done, self._so_far.of, surface=True))
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
        return given_up_sentence(so_far.done, so_far.of, is_complete=so_far.is_complete)

    def close(self) -> None:
        """Show none any more, and end the copy."""
        self._end()
        self._so_far = None

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
