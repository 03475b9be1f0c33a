"""The arrangements of panels, one for each range of terminal sizes; there is one layout on a screen at a time."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.containers import Container
from textual.geometry import Size
from textual.layout import Layout as TextualLayout
from textual.reactive import var

from autograd_tui.core.frame import Frame
from autograd_tui.text.batch_table import can_scatter, knows_first_batch, outputs_and_positions
from autograd_tui.text.table.layers import MAX_PARAMETER_ROWS
from autograd_tui.tui.arrangement import Arrangement, PanelColumn, Room
from autograd_tui.tui.panels.batch import DataPanel, OutputPanel, PicturePanel, ScatterPanel
from autograd_tui.tui.panels.code import CodePanel
from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.parameters import ParametersPanel
from autograd_tui.tui.panels.phases import PhasesPanel
from autograd_tui.tui.panels.surface import SurfacePanel
from autograd_tui.tui.panels.table import BuffersPanel, SelectedPanel, TablePanel
from autograd_tui.tui.panels.text_panels import CONSOLE_ROWS, ConsolePanel, ExplanationPanel
from autograd_tui.tui.panels.trace_panels import (
    ChainRulePanel,
    GraphPanel,
    HealthPanel,
    OperationPanel,
    SourcePanel,
    TraceGradsPanel,
    TraceHeaderPanel,
)
from autograd_tui.tui.rendering import CachedHorizontal, CachedRows, CachedVertical
from autograd_tui.tui.screen_state import View

MANY = 2  # parameter values, above which a model has more to show of one parameter than its row
WIDE = 160  # columns from which panels stand in three columns

# What each kind of panel asks for, in the order of what matters most.
ROOMS: dict[type, Room] = {
    PhasesPanel: Room(least=2, wanted=2),
    TablePanel: Room(least=3, limit=0.6),
    CodePanel: Room(least=1),
    ParametersPanel: Room(least=3, limit=0.65),
    ExplanationPanel: Room(least=3, wanted=5),
    PanelColumn: Room(least=4, wanted=8),
    LossPanel: Room(least=2, wanted=6, share=2),
    SurfacePanel: Room(least=7, wanted=15, share=3),
    PicturePanel: Room(least=5, wanted=15, share=5),
    SelectedPanel: Room(least=4, wanted=7, share=2),
    DataPanel: Room(optional=True),
    ScatterPanel: Room(least=5, wanted=7, share=3, optional=True),
    OutputPanel: Room(least=1, optional=True),
    BuffersPanel: Room(least=2, wanted=5, limit=0.25, optional=True),
    ConsolePanel: Room(least=CONSOLE_ROWS, wanted=CONSOLE_ROWS, share=1),  # more where it stands without pictures
}
SMALL_ROOMS = ROOMS | {
    TablePanel: Room(least=1, limit=0.6),
    ParametersPanel: Room(least=1, limit=0.6),
    ExplanationPanel: Room(least=3, wanted=6),
    SurfacePanel: Room(least=7, wanted=9, share=3, optional=True),
    PicturePanel: Room(least=6, wanted=9, share=3, optional=True),
    LossPanel: Room(least=6, wanted=6, share=2, optional=True),
    SelectedPanel: Room(least=4, wanted=9, share=1, optional=True),
}
TITLES: dict[type[Panel], str] = {  # as long as there is nothing more to say
    CodePanel: "Code",
    ExplanationPanel: "What happened",
    DataPanel: "Data",
    ScatterPanel: "Fit",
    OutputPanel: "Output",
    ConsolePanel: "Console   what was printed, :console shows more",
    ParametersPanel: "Parameters and gradients   ↑ ↓ select",
    TablePanel: "Parameters and gradients, by layer",
    SelectedPanel: "Selected",
    BuffersPanel: "Buffers",
    SurfacePanel: "Loss over two values",
    PicturePanel: "Picture",
    LossPanel: "Loss",
}
Options = dict[type[Panel], dict[str, Any]]  # what panels are made with
UNFRAMED: Options = {CodePanel: {"title": "", "running_line_only": True}, ExplanationPanel: {"title": ""}}
LARGE_BLOCK_CLASSES = ("-asked", "-picture")
LARGE_BLOCK = Room(least=8, wanted=10)  # of columns below a table: a picture, or the numbers that enter has asked for


class PanelLayout(Container, CachedRows):
    """Hands the view on to the panels inside it; a subclass yields them from `panels`."""

    view: var[View] = var(View())

    def compose(self) -> ComposeResult:
        """Yield the panels, each bound to the view."""
        for widget in self.panels():
            yield widget.data_bind(PanelLayout.view) if isinstance(widget, Panel) else widget

    def panels(self) -> ComposeResult:
        """Yield the panels, in containers or not."""
        raise NotImplementedError


class Layout(PanelLayout):
    """The panels of the main screen; its classes say for the stylesheet what there is to show."""

    ROOMS: ClassVar[dict[type, Room]] = ROOMS
    ABOVE: ClassVar[tuple[type[Panel], ...]] = (PhasesPanel,)  # over the whole width
    COLUMNS: ClassVar[tuple[PanelColumn, ...]] = ()
    WIDE_COLUMNS: ClassVar[tuple[PanelColumn, ...]] = ()  # where a terminal is wide
    PANELS: ClassVar[tuple[type[Panel], ...]] = ()  # below the phases, in the order of tab
    OPTIONS: ClassVar[Options] = {}

    def __init__(self) -> None:
        super().__init__(classes="-opening")  # until there is a frame
        self._arrangement = Arrangement(self.ROOMS, self.ABOVE)

    def panels(self) -> ComposeResult:
        yield PhasesPanel()
        for panel in self.PANELS:
            yield panel(**{"title": TITLES[panel], **self.OPTIONS.get(panel, {})})

    @property
    def layout(self) -> TextualLayout:
        """What places the panels."""
        wide = self.WIDE_COLUMNS and self.app.size.width >= WIDE
        self._arrangement.columns = self.WIDE_COLUMNS if wide else self.COLUMNS
        self._arrangement.block = LARGE_BLOCK if any(map(self.has_class, LARGE_BLOCK_CLASSES)) else ROOMS[PanelColumn]
        return self._arrangement

    def watch_view(self, old: View, new: View) -> None:
        """Set the classes of what has changed: all at once, for each time the styles of all panels are found anew."""
        classes: dict[str, bool] = {}
        if new.printed is not old.printed:
            classes["-printed"] = bool(new.printed)
        if new.frame is not old.frame and new.frame is not None:
            classes |= _classes_of_model(new.frame)
        if new.surface is not old.surface:
            classes["-surface"] = new.surface is not None
        if new.about is not old.about or new.surface is not old.surface:
            asked = new.surface is not None and new.surface.frame is not None
            classes["-picture"] = bool(new.about and new.about.picture) and not asked
        if new.history is not old.history:
            classes["-loss"] = new.history is not None and bool(new.history.loss)
        if new.table is not old.table:
            folded = classes.get("-folded", self.has_class("-folded"))
            classes["-cursor"] = new.table.cursor is not None and not folded
            classes["-asked"] = new.table.asked
        needs_room = any(name in classes and classes[name] is not self.has_class(name) for name in LARGE_BLOCK_CLASSES)
        self.update_classes(classes)
        if needs_room and self.children:
            self.children[0].refresh(layout=True)  # Textual keeps the arrangement of what asks for another itself

    def zoom(self, panel: Panel | None) -> None:
        """Show one panel alone below the phases, or all of them again."""
        for each in self.query(Panel):
            aside = panel is not None and each is not panel and not isinstance(each, PhasesPanel)
            each.update_classes({"-aside": aside, "-zoomed": each is panel})


class WideLayout(Layout):
    """From 100 x 30, few parameters: everything side by side."""

    COLUMNS = (
        PanelColumn(1, (CodePanel, ExplanationPanel, DataPanel, ScatterPanel, LossPanel, OutputPanel, ConsolePanel)),
        PanelColumn(1, (ParametersPanel, SurfacePanel, PicturePanel, SelectedPanel, BuffersPanel, LossPanel)),
    )
    WIDE_COLUMNS = (
        PanelColumn(5, (CodePanel, ExplanationPanel, DataPanel, ScatterPanel, LossPanel)),
        PanelColumn(6, (ParametersPanel, SurfacePanel, PicturePanel, SelectedPanel, BuffersPanel)),
        PanelColumn(5, (LossPanel, OutputPanel, ConsolePanel)),
    )
    PANELS = (
        *(CodePanel, ExplanationPanel, DataPanel, ScatterPanel, OutputPanel, ConsolePanel, ParametersPanel),
        *(SelectedPanel, BuffersPanel, SurfacePanel, PicturePanel, LossPanel),
    )


class FoldedLayout(Layout):
    """From 100 x 30, many parameters: the table by layer has the larger half."""

    ROOMS = ROOMS | {PicturePanel: Room(least=5, wanted=11, share=5)}  # beside a table, which has rows to show
    COLUMNS = (
        PanelColumn(5, (CodePanel, ExplanationPanel, DataPanel, LossPanel, ConsolePanel)),
        PanelColumn(
            7, (TablePanel, SurfacePanel, PicturePanel, SelectedPanel, BuffersPanel, ScatterPanel, OutputPanel)
        ),
    )
    WIDE_COLUMNS = (
        PanelColumn(5, (CodePanel, ExplanationPanel, DataPanel, LossPanel, ConsolePanel)),
        PanelColumn(7, (TablePanel, SurfacePanel, PicturePanel, SelectedPanel, ScatterPanel)),
        PanelColumn(5, (PicturePanel, OutputPanel, BuffersPanel)),
    )
    PANELS = (
        *(CodePanel, ExplanationPanel, DataPanel, OutputPanel, LossPanel, ConsolePanel, TablePanel),
        *(SurfacePanel, PicturePanel, SelectedPanel, BuffersPanel, ScatterPanel),
    )
    OPTIONS: ClassVar[Options] = {TablePanel: {"hint": "~ from a sample · enter opens · / finds · :sort update"}}


class NarrowLayout(Layout):
    """From 72 x 20, as a lecture hall sees it, few parameters: the line of code and its story beside the pictures."""

    ABOVE = (PhasesPanel, CodePanel)
    COLUMNS = (
        PanelColumn(7, (ExplanationPanel, ParametersPanel, DataPanel)),
        PanelColumn(5, (SurfacePanel, PicturePanel, ScatterPanel, SelectedPanel, LossPanel)),
    )
    PANELS = (
        *(CodePanel, ExplanationPanel, ParametersPanel, DataPanel),
        *(SurfacePanel, PicturePanel, ScatterPanel, LossPanel, SelectedPanel, ConsolePanel),
    )
    OPTIONS = UNFRAMED


class NarrowFoldedLayout(Layout):
    """From 72 x 20, many parameters: the table by layer over the whole width."""

    ABOVE = (PhasesPanel, CodePanel, ExplanationPanel, TablePanel)
    COLUMNS = (
        PanelColumn(1, (LossPanel,)),
        PanelColumn(1, (SurfacePanel, PicturePanel, SelectedPanel, OutputPanel)),
    )
    PANELS = (
        *(CodePanel, ExplanationPanel, TablePanel, LossPanel),
        *(SurfacePanel, PicturePanel, OutputPanel, SelectedPanel, ConsolePanel),
    )
    OPTIONS = UNFRAMED | {TablePanel: {"title": "By layer", "hint": "enter opens · / finds a name"}}


class SmallLayout(Layout):
    """Below that: one thing below the other, as far as there is room."""

    ROOMS = SMALL_ROOMS
    COLUMNS = (
        PanelColumn(
            1,
            (
                *(CodePanel, ParametersPanel, TablePanel, ExplanationPanel, SurfacePanel, PicturePanel),
                *(LossPanel, DataPanel, SelectedPanel, OutputPanel),
            ),
        ),
    )
    PANELS = (*COLUMNS[0].panels, ConsolePanel)
    OPTIONS = UNFRAMED | {ParametersPanel: {"title": ""}, TablePanel: {"title": ""}}


def layout_for(size: Size, frame: Frame | None) -> type[Layout]:
    """Choose the layout that a terminal of this size has room for; before there is a frame, that of a small model."""
    if size.width >= 100 and size.height >= 30:
        return FoldedLayout if frame is not None and is_folded(frame) else WideLayout
    if size.width >= 72 and size.height >= 20:
        return NarrowFoldedLayout if frame is not None and is_folded(frame) else NarrowLayout
    return SmallLayout


def is_folded(frame: Frame) -> bool:
    """Return whether a model is shown by layers, having more parameters than there are rows for."""
    return len(frame.params) > MAX_PARAMETER_ROWS


def _classes_of_model(frame: Frame) -> dict[str, bool]:
    """Return the classes of a model that is shown by layers, of gradients in its table, and of what else there is."""
    classes = {
        "-opening": False,
        "-folded": is_folded(frame),
        "-many": sum(map(prod, frame.params.layout.shapes)) > MANY,
        "-buffers": bool(frame.buffers),
    }
    if frame.inputs is not None:
        classes["-data"] = True
    if frame.prediction is not None or knows_first_batch(frame):
        classes["-points"] = can_scatter(frame)
    if frame.prediction is not None:
        classes["-classes"] = bool(frame.top)
        classes["-positions"] = outputs_and_positions(frame) is not None
    return classes


HEADER_ROWS, LINE_ROWS = 2, 1  # of the header, and of the line of source
GRAPH_WIDTH = 64  # percent
MIN_ROWS_BELOW = 13  # of the chain rule and the source, where the graph could do with more


class TraceLayout(PanelLayout):
    """The panels of the trace screen."""

    def header_and_line(self) -> ComposeResult:
        """Yield what comes first where there is little room: the position in the trace, and the line of source."""
        yield TraceHeaderPanel()
        yield SourcePanel(classes="line")

    def share_rows(self) -> None:
        """Have panels take the rows that others have no use for."""

    def watch_view(self) -> None:
        """Show another operation."""
        if self.view.trace_position is not None:
            self.share_rows()

    def on_resize(self) -> None:
        """Share the rows out anew."""
        self.watch_view()


class WideTraceLayout(TraceLayout):
    """From 100 x 30: the graph beside what the operation holds, the arithmetic below, beside the source."""

    def panels(self) -> ComposeResult:
        yield TraceHeaderPanel()
        with CachedHorizontal(classes="above"):
            yield GraphPanel(title="Graph")
            with CachedVertical():
                yield OperationPanel(title="Operation")
                yield TraceGradsPanel(title=".grad")
                yield HealthPanel(title="Health")
        with CachedHorizontal(classes="below"):
            yield ChainRulePanel(title="Chain rule")
            yield SourcePanel(title="Source")

    def share_rows(self) -> None:
        """Give what stands below the rows that its texts need, and those that nothing above has a use for."""
        graph, chain_rule = self.query_one(GraphPanel), self.query_one(ChainRulePanel)
        operation, gradients = self.query_one(OperationPanel), self.query_one(TraceGradsPanel)
        frame = graph.gutter.height
        columns = {operation: self.size.width * (100 - GRAPH_WIDTH) // 100, chain_rule: self.size.width * 11 // 20}
        least = {each: each.most_rows(self.view, width - each.gutter.width) + frame for each, width in columns.items()}
        room = self.size.height - HEADER_ROWS
        usual = room - room * 7 // 11
        health = self.query_one(HealthPanel).outer_size.height
        wanted = max(graph.rows_wanted(), least[operation] + gradients.rows_wanted() + health) + frame
        texts = max(least[chain_rule], MIN_ROWS_BELOW)
        below = min(texts, usual) if wanted > room - usual else max(usual, min(texts, room - wanted))
        self.query_one(".below").styles.height = below
        gradients.styles.max_height = max(room - below - least[operation] - health, (room - below) * 2 // 5)


class NarrowTraceLayout(TraceLayout):
    """From 72 x 20, as a lecture hall sees it: the graph over the chain rule."""

    def panels(self) -> ComposeResult:
        yield from self.header_and_line()
        yield GraphPanel()
        yield ChainRulePanel(title="Chain rule")

    def share_rows(self) -> None:
        """Give the graph the rows that no chain rule has needed of late."""
        chain_rule = self.query_one(ChainRulePanel)
        room = self.size.height - HEADER_ROWS - LINE_ROWS - 1  # the border above the chain rule
        left = room - chain_rule.most_rows(self.view, self.size.width - chain_rule.gutter.width)
        self.query_one(GraphPanel).styles.max_height = max(left, room // 2)


class SmallTraceLayout(TraceLayout):
    """Below that: the chain rule over as much of the graph as there is room for."""

    def panels(self) -> ComposeResult:
        yield from self.header_and_line()
        yield ChainRulePanel()
        yield GraphPanel()


def trace_layout_for(size: Size) -> type[TraceLayout]:
    """Choose the layout that a terminal of this size has room for."""
    if size.width >= 100 and size.height >= 30:
        return WideTraceLayout
    return NarrowTraceLayout if size.width >= 72 and size.height >= 20 else SmallTraceLayout
