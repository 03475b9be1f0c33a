"""Where the panels inside a phase stand, for each size of terminal."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Container
from textual.geometry import Size
from textual.reactive import var

from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.session_view import SessionInfo
from autograd_tui.text.trace.walk import Walk
from autograd_tui.tui.cached_rows import CachedHorizontal, CachedRows, CachedVertical
from autograd_tui.tui.panels.graph import GraphPanel
from autograd_tui.tui.panels.trace_panels import (
    ChainRulePanel,
    HealthPanel,
    OperationPanel,
    SourcePanel,
    WalkGradsPanel,
    WherePanel,
)


class TraceLayout(Container, CachedRows):
    """Hands the walk on to the panels inside it."""

    walk: var[Walk | None] = var(None)
    about: var[SessionInfo | None] = var(None)
    proof: var[GradCheck | None] = var(None)
    unkept: var[str] = var("")

    def where_and_line(self) -> ComposeResult:
        """Yield what comes first where there is little room: where the walk is, and the line of source."""
        yield WherePanel().data_bind(TraceLayout.walk, TraceLayout.unkept)
        source = SourcePanel(classes="line")
        yield source.data_bind(TraceLayout.walk, TraceLayout.about)


class WideTrace(TraceLayout):
    """From 100 x 30: the graph beside what the operation holds, the arithmetic below, beside the source."""

    def compose(self) -> ComposeResult:
        """Yield the panels."""
        yield WherePanel().data_bind(TraceLayout.walk, TraceLayout.unkept)
        with CachedHorizontal(classes="above"):
            yield GraphPanel(title="Graph").data_bind(TraceLayout.walk)
            with CachedVertical():
                yield OperationPanel(title="Operation").data_bind(TraceLayout.walk)
                yield WalkGradsPanel(title=".grad").data_bind(TraceLayout.walk)
                yield HealthPanel(title="Health").data_bind(TraceLayout.walk)
        with CachedHorizontal(classes="below"):
            yield ChainRulePanel(title="Chain rule").data_bind(TraceLayout.walk, TraceLayout.proof)
            yield SourcePanel(title="Source").data_bind(TraceLayout.walk, TraceLayout.about)


class NarrowTrace(TraceLayout):
    """From 72 x 20, as a lecture hall sees it: the graph over the chain rule."""

    def compose(self) -> ComposeResult:
        """Yield the panels."""
        yield from self.where_and_line()
        yield GraphPanel().data_bind(TraceLayout.walk)
        yield ChainRulePanel(title="Chain rule").data_bind(TraceLayout.walk, TraceLayout.proof)


class SmallTrace(TraceLayout):
    """Below that: the chain rule over as much of the graph as there is room for."""

    def compose(self) -> ComposeResult:
        """Yield the panels."""
        yield from self.where_and_line()
        yield ChainRulePanel().data_bind(TraceLayout.walk, TraceLayout.proof)
        yield GraphPanel().data_bind(TraceLayout.walk)


def inside_layout_for(size: Size) -> type[TraceLayout]:
    """Choose the layout that a terminal of this size has room for."""
    if size.width >= 100 and size.height >= 30:
        return WideTrace
    return NarrowTrace if size.width >= 72 and size.height >= 20 else SmallTrace
