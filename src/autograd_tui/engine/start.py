"""How frame 0 is made: by the scenario's own code, in the same surroundings however often."""

from __future__ import annotations

from collections.abc import Callable

from autograd_tui.engine.loop import Loop
from autograd_tui.engine.surroundings import ForeignRandom, Surroundings


class Start:
    """Remembers what is around a session when it is opened, so that its loop can be built there again."""

    def __init__(self, build: Callable[[Surroundings], Loop], surroundings: Surroundings) -> None:
        self._build = build
        self._surroundings, self._foreign = surroundings, ForeignRandom.read()

    def __call__(self) -> Loop:
        """Build the loop; raises Refused where the scenario does."""
        self._foreign.write()
        surroundings = self._surroundings.copy()
        with surroundings:
            return self._build(surroundings)
