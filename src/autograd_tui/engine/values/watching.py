"""Watchpoints that are armed, and where they fired: each new frame is looked at as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autograd_tui.engine.values.conditions import Memory, check
from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.nearest import clipped, nearest
from autograd_tui.engine.values.watchpoint import GRAD_NORM, LOSS, PARAM_NORM, Watchpoint, parse_watchpoint


@dataclass(frozen=True, slots=True)
class Fired:
    """A frame at which conditions hold; `said` is one sentence about all of them."""

    index: int
    iteration: int
    said: str

    def __str__(self) -> str:
        return f"frame {self.index}: {self.said}"


class Watching:
    """The watchpoints that are armed, and what they have seen of this branch."""

    def __init__(self) -> None:
        self.armed: tuple[Watchpoint, ...] = ()
        self.fired: Fired | None = None  # the frame at which one fired last
        self._unsaid: Fired | None = None
        self._memories: dict[Watchpoint, Memory] = {}
        self._seen = -1  # the frame looked at last

    def arm(self, watchpoint: Watchpoint | str, frame: Frame) -> None:
        """Look out for one more, be it in words; raises Refused where `frame`, of the model, has no such parameter."""
        if isinstance(watchpoint, str):
            watchpoint = parse_watchpoint(watchpoint)
        names, name = frame.params.layout.names, watchpoint.tensor
        param = name if name is None or watchpoint.kind == "still" or name in names else name.removesuffix(".grad")
        if param is not None and param not in names:
            raise Refused(_no_such(watchpoint, names))
        if watchpoint not in self.armed:
            self.armed += (watchpoint,)

    def disarm(self) -> None:
        """Look out for nothing any more."""
        self.armed, self._memories = (), {}

    def see(self, frame: Frame) -> None:
        """Look at the frame that has just been made: whether anything holds of the numbers that are new in it."""
        if frame.index != self._seen + 1:  # training has gone back, or on without frames
            self._memories = {}
        self._seen = frame.index
        if not self.armed or frame.error or frame.command is None:
            return
        memories = [(each, self._memories.setdefault(each, Memory())) for each in self.armed]
        said = [holds for watchpoint, memory in memories if (holds := check(watchpoint, frame, memory))]
        if said:
            self.fired = self._unsaid = Fired(frame.index, frame.iteration, "; ".join(said))

    def fired_at(self, frame: Frame) -> bool:
        """Tell whether one fired at this frame."""
        return self.fired is not None and self.fired.index == frame.index

    def take_fired(self) -> Fired | None:
        """Tell, once, where one has fired since this was asked last."""
        fired, self._unsaid = self._unsaid, None
        return fired

    def forget_after(self, index: int) -> None:
        """Forget what fired at a later frame: another command has been run from frame `index`."""
        if self.fired is not None and self.fired.index > index:
            self.fired = None


def _no_such(watchpoint: Watchpoint, names: Sequence[str]) -> str:
    """Say that a model has nothing of this name to watch, and what is most like it."""
    more = () if watchpoint.kind == "still" else (LOSS, GRAD_NORM, PARAM_NORM, *(f"{name}.grad" for name in names))
    near = nearest(watchpoint.name, (*names, *more))
    has = f"this model has {', '.join(names[:4])}{', ...' * (len(names) > 4)}"
    rest = f"the nearest is {near}" if near else has
    return f'there is no parameter "{clipped(watchpoint.name)}" to watch: {rest}.'
