"""Where the panels inside a phase stand, for each size of terminal."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Container
from textual.geometry import Size
from textual.reactive import var

from autograd_tui.engine.values.about import About
from autograd_tui.engine.values.proof_result import Proof
from autograd_tui.text.inside.walk import Walk
from autograd_tui.tui.kept_rows import KeptHorizontal, KeptRows, KeptVertical
from autograd_tui.tui.panels.chain_rule import ChainRulePanel
from autograd_tui.tui.panels.graph import GraphPanel
from autograd_tui.tui.panels.health import HealthPanel
from autograd_tui.tui.panels.operation import OperationPanel
from autograd_tui.tui.panels.source import SourcePanel
from autograd_tui.tui.panels.walk_grads import WalkGradsPanel
from autograd_tui.tui.panels.where import WherePanel


class InsideLayout(Container, KeptRows):
    """Hands the walk on to the panels inside it."""

    walk: var[Walk | None] = var(None)
    about: var[About | None] = var(None)
    proof: var[Proof | None] = var(None)
    unkept: var[str] = var("")

    def where_and_line(self) -> ComposeResult:
        """Yield what comes first where there is little room: where the walk is, and the line of source."""
        yield WherePanel().data_bind(InsideLayout.walk, InsideLayout.unkept)
        source = SourcePanel(classes="line")
        yield source.data_bind(InsideLayout.walk, InsideLayout.about)


class WideInside(InsideLayout):
    """From 100 x 30: the graph beside what the operation holds, the arithmetic below, beside the source."""

    def compose(self) -> ComposeResult:
        """Yield the panels."""
        yield WherePanel().data_bind(InsideLayout.walk, InsideLayout.unkept)
        with KeptHorizontal(classes="above"):
            yield GraphPanel(title="Graph").data_bind(InsideLayout.walk)
            with KeptVertical():
                yield OperationPanel(title="Operation").data_bind(InsideLayout.walk)
                yield WalkGradsPanel(title=".grad").data_bind(InsideLayout.walk)
                yield HealthPanel(title="Health").data_bind(InsideLayout.walk)
        with KeptHorizontal(classes="below"):
            yield ChainRulePanel(title="Chain rule").data_bind(InsideLayout.walk, InsideLayout.proof)
            yield SourcePanel(title="Source").data_bind(InsideLayout.walk, InsideLayout.about)


class NarrowInside(InsideLayout):
    """From 72 x 20, as a lecture hall sees it: the graph over the chain rule."""

    def compose(self) -> ComposeResult:
        """Yield the panels."""
        yield from self.where_and_line()
        yield GraphPanel().data_bind(InsideLayout.walk)
        yield ChainRulePanel(title="Chain rule").data_bind(InsideLayout.walk, InsideLayout.proof)


class SmallInside(InsideLayout):
    """Below that: the chain rule over as much of the graph as there is room for."""

    def compose(self) -> ComposeResult:
        """Yield the panels."""
        yield from self.where_and_line()
        yield ChainRulePanel().data_bind(InsideLayout.walk, InsideLayout.proof)
        yield GraphPanel().data_bind(InsideLayout.walk)


def inside_layout_for(size: Size) -> type[InsideLayout]:
    """Choose the layout that a terminal of this size has room for."""
    if size.width >= 100 and size.height >= 30:
        return WideInside
    return NarrowInside if size.width >= 72 and size.height >= 20 else SmallInside
