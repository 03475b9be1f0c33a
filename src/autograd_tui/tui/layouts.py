"""The arrangements of panels, one for each range of terminal sizes; there is one layout on a screen at a time."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Container
from textual.geometry import Size
from textual.reactive import var

from autograd_tui.core.frame import Frame
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.history import History
from autograd_tui.core.session_view import SessionInfo
from autograd_tui.core.tensor_stats import Inspection
from autograd_tui.text.batch_table import outputs_and_positions
from autograd_tui.text.hidden_results import HiddenResults
from autograd_tui.text.scatter import can_scatter
from autograd_tui.text.table.layers import MAX_PARAMETER_ROWS
from autograd_tui.text.table.view import TableView
from autograd_tui.text.trace.walk import Walk
from autograd_tui.tui.panels.batch import DataPanel, FitPanel, OutputPanel
from autograd_tui.tui.panels.code import CodePanel
from autograd_tui.tui.panels.console import ConsolePanel
from autograd_tui.tui.panels.explanation import ExplanationPanel
from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.parameters import CompactParametersPanel, GradientsPanel, ParametersPanel
from autograd_tui.tui.panels.phases import PhasesPanel
from autograd_tui.tui.panels.table import BuffersPanel, SelectedPanel, TablePanel
from autograd_tui.tui.panels.trace_panels import (
    ChainRulePanel,
    GraphPanel,
    HealthPanel,
    OperationPanel,
    SourcePanel,
    WalkGradsPanel,
    WherePanel,
)
from autograd_tui.tui.rendering import CachedHorizontal, CachedRows, CachedVertical

SHORT = 36  # rows, below which the wide layouts leave out what matters least
MANY = 6  # parameters, from which a small model's lists leave room for what is selected


class Layout(Container, CachedRows):
    """Hands the frame on to the panels inside it."""

    frame: var[Frame | None] = var(None)
    about: var[SessionInfo | None] = var(None)
    history: var[History | None] = var(None)
    view: var[TableView] = var(TableView())
    inspection: var[Inspection | None] = var(None)
    log_scale: var[bool] = var(False)
    plotted: var[str] = var("loss")
    veil: var[HiddenResults | None] = var(None)
    printed: var[tuple[str, ...]] = var(())

    def watch_veil(self) -> None:
        """Hand the veil on to every panel."""
        for panel in self.query(Panel):
            panel.veil = self.veil

    def watch_printed(self) -> None:
        """Mark that there is something to read in the console."""
        self.set_class(bool(self.printed), "-printed")

    def zoom(self, panel: Panel | None) -> None:
        """Show one panel alone, or all of them again."""
        for each in self.query("*"):
            around = panel is None or each in panel.ancestors_with_self or panel in each.ancestors
            each.set_class(not around, "-aside")
            each.set_class(each is panel, "-zoomed")

    def watch_frame(self) -> None:
        """Mark a model that is shown by layers, whose table has the gradients too, and what else there is to show."""
        if self.frame is None:
            return
        self.set_class(is_folded(self.frame), "-folded")
        self.set_class(len(self.frame.params) > MANY, "-many")
        self.set_class(bool(self.frame.buffers), "-buffers")
        if self.frame.prediction is not None:
            self.set_class(can_scatter(self.frame), "-points")
            self.set_class(bool(self.frame.top), "-classes")
            self.set_class(outputs_and_positions(self.frame) is not None, "-positions")

    def watch_view(self) -> None:
        """Mark whether there is a cursor, and whether a parameter's numbers are asked for."""
        self.set_class(self.view.cursor is not None and not self.has_class("-folded"), "-cursor")
        self.set_class(self.view.asked, "-asked")

    def phase_and_line(self) -> ComposeResult:
        """Yield what comes first where there is little room: the phases, and the line of code."""
        yield PhasesPanel().data_bind(Layout.frame)
        yield CodePanel(running_line_only=True).data_bind(Layout.frame, Layout.about)

    def console(self) -> ComposeResult:
        """Yield the console."""
        yield ConsolePanel(title="Console   what was printed, :console shows more").data_bind(Layout.printed)

    def details(self) -> ComposeResult:
        """Yield what is known of the parameter under the cursor, and of the buffers."""
        selected = SelectedPanel(title="Selected")
        yield selected.data_bind(Layout.frame, Layout.about, Layout.view, Layout.inspection)
        yield BuffersPanel(title="Buffers").data_bind(Layout.frame, Layout.view)


class WideLayout(Layout):
    """From 100 x 30, few parameters: everything side by side."""

    def compose(self) -> ComposeResult:
        """Yield the panels."""
        yield PhasesPanel().data_bind(Layout.frame)
        with CachedHorizontal():
            with CachedVertical(classes="half"):
                yield CodePanel(title="Code").data_bind(Layout.frame, Layout.about)
                yield ExplanationPanel(title="What happened").data_bind(Layout.frame, Layout.about)
                yield DataPanel(title="Data").data_bind(Layout.frame, Layout.about)
                yield OutputPanel(title="Output").data_bind(Layout.frame, Layout.about)
                yield from self.console()
            with CachedVertical(classes="half"):
                yield ParametersPanel(title="Parameters").data_bind(Layout.frame, Layout.view)
                yield GradientsPanel(title="Gradients").data_bind(Layout.frame)
                yield from self.details()
                yield FitPanel(title="Fit   o truth   * prediction   ┊ error").data_bind(Layout.frame)
                yield LossPanel(title="Loss").data_bind(Layout.frame, Layout.history, Layout.log_scale, Layout.plotted)


class FoldedLayout(Layout):
    """From 100 x 30, many parameters: the table by layer has the larger half."""

    def compose(self) -> ComposeResult:
        """Yield the panels."""
        yield PhasesPanel().data_bind(Layout.frame)
        with CachedHorizontal():
            with CachedVertical(classes="less"):
                yield CodePanel(title="Code").data_bind(Layout.frame, Layout.about)
                yield ExplanationPanel(title="What happened").data_bind(Layout.frame, Layout.about)
                yield DataPanel(title="Data").data_bind(Layout.frame, Layout.about)
                yield OutputPanel(title="Output").data_bind(Layout.frame, Layout.about)
                yield LossPanel(title="Loss").data_bind(Layout.frame, Layout.history, Layout.log_scale, Layout.plotted)
                yield from self.console()
            with CachedVertical(classes="more"):
                hint = "~ from a sample · enter opens · / finds · :sort update"
                table = TablePanel(title="Parameters and gradients, by layer", hint=hint)
                yield table.data_bind(Layout.frame, Layout.view)
                yield from self.details()
                yield FitPanel(title="Fit   o truth   * prediction   ┊ error").data_bind(Layout.frame)


class NarrowLayout(Layout):
    """From 72 x 20, as a lecture hall sees it: the phase and its line of code first."""

    def compose(self) -> ComposeResult:
        """Yield the panels."""
        yield from self.phase_and_line()
        yield ExplanationPanel().data_bind(Layout.frame, Layout.about)
        with CachedHorizontal():
            with CachedVertical(classes="left"):
                yield CompactParametersPanel(title="Parameters   .grad").data_bind(Layout.frame, Layout.view)
                table = TablePanel(title="By layer", hint="enter opens · / finds a name")
                yield table.data_bind(Layout.frame, Layout.view)
                yield DataPanel(title="Data").data_bind(Layout.frame, Layout.about)
            with CachedVertical(classes="right"):
                yield FitPanel(title="Fit  o truth  * prediction").data_bind(Layout.frame)
                yield LossPanel(title="Loss").data_bind(Layout.frame, Layout.history, Layout.log_scale, Layout.plotted)
                selected = SelectedPanel(title="Selected")
                yield selected.data_bind(Layout.frame, Layout.about, Layout.view, Layout.inspection)
        yield from self.console()


class SmallLayout(Layout):
    """Below that: the phases, the line of code, one table, and as much of the explanation as there is room for."""

    def compose(self) -> ComposeResult:
        """Yield the panels."""
        yield from self.phase_and_line()
        yield CompactParametersPanel().data_bind(Layout.frame, Layout.view)
        yield TablePanel().data_bind(Layout.frame, Layout.view)
        yield ExplanationPanel().data_bind(Layout.frame, Layout.about)
        yield from self.console()


def layout_for(size: Size, frame: Frame | None) -> type[Layout]:
    """Choose the layout that a terminal of this size has room for; before there is a frame, that of a small model."""
    if size.width >= 100 and size.height >= 30:
        return FoldedLayout if frame is not None and is_folded(frame) else WideLayout
    return NarrowLayout if size.width >= 72 and size.height >= 20 else SmallLayout


def is_folded(frame: Frame) -> bool:
    """Tell whether a model is shown by layers, having more parameters than there are rows for."""
    return len(frame.params) > MAX_PARAMETER_ROWS


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
