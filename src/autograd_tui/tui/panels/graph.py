"""The graph of a small model, or the tree of a large one's modules."""

from __future__ import annotations

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Trace
from autograd_tui.text.styled_text import Line
from autograd_tui.text.trace.graph_lines import GraphView, can_be_drawn
from autograd_tui.text.trace.module_tree import ModuleTree
from autograd_tui.text.trace.tree_lines import TreeLines
from autograd_tui.text.trace.walk import Walk
from autograd_tui.tui.panels.trace_panels import WalkPanel

GRAPH = "Graph   ● operation  ◆ leaf  ○ not followed"
MOST_ROWS = 100  # before there is anything: as many as the layout gives
TREE = "by module, in the order in which they run"


class GraphPanel(WalkPanel):
    """Draws what there is room for, the operation at hand always among it; knows what stands above and below it."""

    def __init__(self, *, title: str = "") -> None:
        super().__init__(title=title)
        self._trace: Trace | None = None
        self._drawing: GraphView | TreeLines | None = None

    def rows_wanted(self) -> int:
        """Take a row for each node, or for each module and operation, folded or not."""
        return self._of(self.walk).rows_wanted() if self.walk is not None else MOST_ROWS

    def draw_walk(self, walk: Walk, width: int, height: int) -> list[Line]:
        """Draw the one or the other."""
        drawing = self._of(walk)
        if self.has_class("framed"):
            operations = walk.trace.phase in (Phase.FORWARD, Phase.BACKWARD)
            tree = f"{'Operations' if operations else 'Parameters'} {TREE}"
            self.retitle(GRAPH if isinstance(drawing, GraphView) else tree)
        return drawing.lines(walk, width, height)

    def moved(self, walk: Walk, by: int) -> Walk:
        """Go to the operation drawn above or below; in a tree, move the cursor."""
        return self._of(walk).moved(walk, by)

    def opened(self, walk: Walk) -> Walk | None:
        """Open or close the part under the cursor, or run to the operation there; None where there is no cursor."""
        drawing = self._of(walk)
        return drawing.opened(walk) if isinstance(drawing, TreeLines) else None

    @property
    def is_tree(self) -> bool:
        return isinstance(self._drawing, TreeLines)

    def _of(self, walk: Walk) -> GraphView | TreeLines:
        if self._drawing is None or self._trace is not walk.trace:
            self._trace = walk.trace
            drawn = can_be_drawn(walk.trace)
            self._drawing = GraphView(walk.trace) if drawn else TreeLines(ModuleTree(walk.trace))
        return self._drawing
