"""The operation at hand: where it was called, what went in and came out, what its nodes keep."""

from __future__ import annotations

from autograd_tui.text.inside.operation import operation_lines
from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.line import Line
from autograd_tui.tui.panels.chain_rule import cut
from autograd_tui.tui.panels.walk import WalkPanel


class OperationPanel(WalkPanel):
    """A row a tensor."""

    def draw_walk(self, walk: Walk, width: int, height: int) -> list[Line]:
        """Draw what there is room for."""
        return cut(operation_lines(walk.trace, walk.op, width), height)
