"""What a run goes on until."""

from __future__ import annotations

from dataclasses import dataclass

from autograd_tui.engine.optimizer_spec import format_number


@dataclass(frozen=True, slots=True)
class Goal:
    """A number of iterations, a loss, whichever is reached first; with neither, a run goes on until it is stopped."""

    iterations: int | None = None
    below: float | None = None  # the loss is less than this
    above: float | None = None

    def reached(self, loss: float | None) -> bool:
        """Tell whether this loss is one to stop at; a NaN is neither below nor above anything."""
        if loss is None:
            return False
        return (self.below is not None and loss < self.below) or (self.above is not None and loss > self.above)

    @property
    def on_loss(self) -> bool:
        """Whether each loss must be looked at."""
        return self.below is not None or self.above is not None

    def __str__(self) -> str:
        said = [] if self.iterations is None else [f"{self.iterations:,} iterations are done"]
        said += [] if self.below is None else [f"the loss is below {format_number(self.below)}"]
        said += [] if self.above is None else [f"the loss is above {format_number(self.above)}"]
        return " or ".join(said)
