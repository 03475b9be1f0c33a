"""The chain rule at the operation at hand, worked."""

from __future__ import annotations

from autograd_tui.engine.command import Phase
from autograd_tui.text.inside.chain_rule import chain_rule_lines
from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.line import Line
from autograd_tui.tui.panels.walk import WalkPanel

TITLES = {
    Phase.FORWARD: "Computed",
    Phase.BACKWARD: "Chain rule   upstream x local = downstream",
    Phase.STEP: "The optimizer's formula",
    Phase.ZERO_GRAD: "Cleared",
}


class ChainRulePanel(WalkPanel):
    """Numbers where they are few, else shapes and norms."""

    def draw_walk(self, walk: Walk, width: int, height: int) -> list[Line]:
        """Draw what there is room for; a last row says that there is more."""
        if self.has_class("framed"):
            self.retitle(TITLES[walk.trace.phase])
        return cut(chain_rule_lines(walk.trace, walk.op, width), height)


def cut(lines: list[Line], height: int) -> list[Line]:
    """Leave out the rows that there is no room for, and say so."""
    return lines if len(lines) <= height else [*lines[: height - 1], [("…", "dim")]]
