"""The chain rule at the operation at hand, worked."""

from __future__ import annotations

from itertools import groupby

from textual.reactive import var

from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.proof_result import Proof
from autograd_tui.text.frame_line import raised_line
from autograd_tui.text.inside.chain_rule import chain_rule_lines
from autograd_tui.text.inside.proof_lines import proof_lines
from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.line import Line, one_line, wrapped
from autograd_tui.tui.panels.walk import WalkPanel

TITLES = {
    Phase.FORWARD: "Computed",
    Phase.BACKWARD: "Chain rule   upstream × local = downstream",
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
        lines = chain_rule_lines(walk.trace, walk.op, width)
        error = walk.trace.error if walk.at_end else None
        return cut([*lines, *(wrapped(one_line(raised_line(error)), width, style="error") if error else [])], height)


def cut(lines: list[Line], height: int) -> list[Line]:
    """Leave out what there is no room for: first remarks, from the last one on, then the end, and say so."""
    blocks = [list(block) for _, block in groupby(lines, _is_remark)]
    for place in range(len(blocks) - 1, -1, -1):
        if sum(map(len, blocks)) > height and _is_remark(blocks[place][0]):
            blocks[place:] = blocks[place + 1 :]
    kept = [line for block in blocks for line in block]
    return kept if len(kept) <= height else [*kept[: height - 1], [("…", "dim")]]


def _is_remark(line: Line) -> bool:
    return all(style == "dim" for _, style in line)
