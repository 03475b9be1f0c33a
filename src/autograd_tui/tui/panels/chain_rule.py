"""The chain rule at the operation at hand, worked."""

from __future__ import annotations

from textual.reactive import var

from autograd_tui.engine.command import Phase
from autograd_tui.engine.proof_result import Proof
from autograd_tui.text.inside.chain_rule import chain_rule_lines
from autograd_tui.text.inside.proof_lines import proof_lines
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
    """Numbers where they are few, else shapes and norms; in their place a proof, once there is one."""

    proof: var[Proof | None] = var(None)

    def watch_proof(self) -> None:
        """Show a proof, or put it away."""
        self.watch_walk()

    def draw_walk(self, walk: Walk, width: int, height: int) -> list[Line]:
        """Draw what there is room for; a last row says that there is more."""
        if self.has_class("framed"):
            self.retitle("Proof   by finite differences" if self.proof else TITLES[walk.trace.phase])
        if self.proof is not None:
            return cut(proof_lines(self.proof, width), height)
        return cut(chain_rule_lines(walk.trace, walk.op, width), height)


def cut(lines: list[Line], height: int) -> list[Line]:
    """Leave out the rows that there is no room for, and say so."""
    return lines if len(lines) <= height else [*lines[: height - 1], [("…", "dim")]]
