"""How frame 0 is made: by the scenario's own code, in the same surroundings however often."""

from __future__ import annotations

from collections.abc import Callable

from autograd_tui.engine.training.loop import Loop
from autograd_tui.engine.training.surroundings import Surroundings

TRIAL = 16  # commands, from which it shows whether a model draws random numbers of Python's or NumPy's


class Start:
    """Remembers what is around a session when it is opened, so that its loop can be built there again."""

    def __init__(self, build: Callable[[Surroundings], Loop], surroundings: Surroundings) -> None:
        self._build, self._surroundings = build, surroundings

    def __call__(self) -> Loop:
        """Build the loop; raises Refused where the scenario does."""
        surroundings = self._surroundings.copy()
        with surroundings:
            loop = self._build(surroundings)
        surroundings.try_without_foreign(TRIAL)
        return loop
