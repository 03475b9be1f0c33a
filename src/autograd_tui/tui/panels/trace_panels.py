"""The panels of the trace screen: header, graph, source, operation, chain rule, gradients and warnings."""

from __future__ import annotations

from collections import deque
from itertools import groupby
from pathlib import PurePath
from typing import ClassVar

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Trace
from autograd_tui.text.derivation.chain_rule import chain_rule_lines
from autograd_tui.text.frame_summary import raised_line
from autograd_tui.text.script_lines import code_title, script_code_lines
from autograd_tui.text.styled_text import Line, one_line, wrapped
from autograd_tui.text.trace.grad_lines import grad_lines, grad_operations, grad_summary, gradcheck_lines
from autograd_tui.text.trace.graph_lines import GraphView, can_be_drawn
from autograd_tui.text.trace.health import health_lines
from autograd_tui.text.trace.module_tree import ModuleTree, ModuleTreeView
from autograd_tui.text.trace.operation_lines import operation_lines, source_lines
from autograd_tui.text.trace.trace_position import TracePosition, header_lines
from autograd_tui.tui.panels.code import lines_of
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.screen_state import View


class TracePanel(Panel):
    """Draws an operation of a trace: a panel overrides `draw_trace`."""

    DRAWN_FROM: ClassVar[tuple[str, ...]] = ("trace_position",)

    @property
    def trace_position(self) -> TracePosition | None:
        """The operation that is shown, with the state of the module tree; None while the trace is awaited."""
        return self.view.trace_position

    def draw_trace(self, position: TracePosition, width: int, height: int) -> list[Line]:
        """Return the rows to show; those beyond `height` are not seen."""
        raise NotImplementedError

    def lines(self, width: int, height: int) -> list[Line]:
        """Return the rows as they stand, nothing before there is a trace."""
        return [] if self.trace_position is None else self.draw_trace(self.trace_position, width, height)


class SidePanel(TracePanel):
    """Stands aside where there is nothing to show."""

    def __init__(self, *, title: str = "") -> None:
        super().__init__(title=title)
        self.display = False

    def watch_view(self, old: View, new: View) -> None:
        """Show another operation, or nothing."""
        wanted = self.trace_position is not None and self.rows_wanted() > 0
        if wanted != self.display:
            self.display = wanted
        super().watch_view(old, new)


class TraceHeaderPanel(TracePanel):
    """The phases over the operation at hand."""

    DEFAULT_CSS = "TraceHeaderPanel { height: 2; }"

    DRAWN_FROM = ("trace_position", "unkept")

    def draw_trace(self, position: TracePosition, width: int, height: int) -> list[Line]:
        """Draw two rows."""
        return header_lines(position, width, unkept=self.view.unkept)


class SourcePanel(TracePanel):
    """As many lines as fit, one of them lit; in one row, that one alone."""

    DRAWN_FROM = ("trace_position", "about", "frame")

    def draw_trace(self, position: TracePosition, width: int, height: int) -> list[Line]:
        """Draw the lines; a frame around them names the file."""
        frame, source = self.frame, position.op.source
        if source is None and frame is not None and frame.script is not None:
            if self.has_class("framed"):
                self.retitle(code_title(frame.script).replace("Code", "Source", 1))
            return script_code_lines(frame, frame.script, width, height)
        if self.has_class("framed"):
            self.retitle(f"Source   {one_line(PurePath(source.file).name)}" if source else "Source")
        listing = self.about.listing.get(position.trace.phase.value, ()) if self.about else ()
        calls = lines_of("model", listing) if position.op.module and position.trace.phase is Phase.FORWARD else ()
        return source_lines(position, [listing[index] for index in calls] or listing, width, height)


TITLES = {
    Phase.FORWARD: "Computed",
    Phase.BACKWARD: "Chain rule   upstream × local = downstream",
    Phase.STEP: "The optimizer's formula",
    Phase.ZERO_GRAD: "Cleared",
}


class WholeTextPanel(TracePanel):
    """Says all that there is to say of an operation, a remark less where there is no room: see `whole_text`."""

    DRAWN_FROM = ("trace_position", "gradcheck")
    RECENT = 12  # operations whose longest text counts: what stands beside it must not jump at each key

    def __init__(self, *, title: str = "") -> None:
        super().__init__(title=title)
        self._rows: deque[int] = deque(maxlen=self.RECENT)  # of the latest texts
        self._counted: tuple[Trace, int, int] | None = None  # of the last one: which operation's, at which width
        self._text: tuple[tuple[object, ...], list[Line]] = (), []  # the last one, and what of

    def whole_text(self, view: View, position: TracePosition, width: int) -> list[Line]:
        """Return all that is to be said of an operation."""
        raise NotImplementedError

    def most_rows(self, view: View, width: int) -> int:
        """Return the rows of the longest of the latest texts, that of a view among them."""
        position = view.trace_position
        if position is not None:
            trace, _, counted_width = self._counted or (position.trace, 0, width)
            if trace is not position.trace or counted_width != width:
                self._rows.clear()
            elif self._counted and self._counted[1] == position.index:
                self._rows.pop()  # a gradient check may stand in its place
            self._counted = position.trace, position.index, width
            self._rows.append(len(self._latest_text(view, position, width)))
        return max(self._rows, default=0)

    def draw_trace(self, position: TracePosition, width: int, height: int) -> list[Line]:
        """Draw what there is room for; a last row says that there is more."""
        return cut(self._latest_text(self.view, position, width), height)

    def _latest_text(self, view: View, position: TracePosition, width: int) -> list[Line]:
        made_of = view.gradcheck, position.trace, position.index, width
        if self._text[0] != made_of:
            self._text = made_of, self.whole_text(view, position, width)
        return self._text[1]


class ChainRulePanel(WholeTextPanel):
    """Numbers where they are few, else shapes and norms; in their place a gradient check, once there is one."""

    def whole_text(self, view: View, position: TracePosition, width: int) -> list[Line]:
        if view.gradcheck is not None:
            return gradcheck_lines(view.gradcheck, width)
        lines = chain_rule_lines(position.trace, position.op, width)
        error = position.trace.error if position.at_end else None
        return [*lines, *(wrapped(one_line(raised_line(error)), width, style="error") if error else [])]

    def draw_trace(self, position: TracePosition, width: int, height: int) -> list[Line]:
        if self.has_class("framed"):
            self.retitle(
                "Gradient check   by finite differences" if self.view.gradcheck else TITLES[position.trace.phase]
            )
        return super().draw_trace(position, width, height)


def cut(lines: list[Line], height: int) -> list[Line]:
    """Leave out what there is no room for: first remarks, from the last one on, then the end, and say so."""
    blocks = [list(block) for _, block in groupby(lines, _is_remark)]
    for index in range(len(blocks) - 1, -1, -1):
        if sum(map(len, blocks)) > height and _is_remark(blocks[index][0]):
            blocks[index:] = blocks[index + 1 :]
    kept = [line for block in blocks for line in block]
    return kept if len(kept) <= height else [*kept[: height - 1], [("…", "dim")]]


def _is_remark(line: Line) -> bool:
    return all(style == "dim" for _, style in line)


class OperationPanel(WholeTextPanel):
    """A row a tensor."""

    def whole_text(self, view: View, position: TracePosition, width: int) -> list[Line]:
        return operation_lines(position.trace, position.op, width)


class TraceGradsPanel(SidePanel):
    """A row a parameter in the order in which they have their turn."""

    def rows_wanted(self) -> int:
        return len(grad_operations(self.trace_position.trace)) if self.trace_position is not None else 1

    def draw_trace(self, position: TracePosition, width: int, height: int) -> list[Line]:
        """Draw those around the one at hand."""
        self.retitle(f".grad   {grad_summary(position)}".rstrip())
        return grad_lines(position, width, height)


class HealthPanel(SidePanel):
    """The first NaN or infinity, dead units, gradients that vanish; what the recorder could not see."""

    DEFAULT_CSS = "HealthPanel { height: auto; max-height: 6; }"

    def __init__(self, *, title: str = "") -> None:
        super().__init__(title=title)
        self._told: tuple[Trace | None, int, list[Line]] = (None, 0, [])  # at every position of a trace

    def rows_wanted(self) -> int:
        position = self.trace_position
        return len(self._lines_of(position.trace, self.offered_width)) if position is not None else 1

    def draw_trace(self, position: TracePosition, width: int, height: int) -> list[Line]:
        return cut(self._lines_of(position.trace, width), height)

    def _lines_of(self, trace: Trace, width: int) -> list[Line]:
        if self._told[:2] != (trace, width):
            notes = [row for note in trace.notes for row in wrapped(one_line(note), width, style="dim")]
            self._told = trace, width, [*health_lines(trace, width), *notes]
        return self._told[2]


GRAPH = "Graph   ● operation  ◆ leaf  ○ not followed"
MOST_ROWS = 100  # before there is anything: as many as the layout gives
TREE = "by module, in the order in which they run"


class GraphPanel(TracePanel):
    """Draws what there is room for, the operation at hand always among it; knows what stands above and below it."""

    def __init__(self, *, title: str = "") -> None:
        super().__init__(title=title)
        self._trace: Trace | None = None
        self._drawing: GraphView | ModuleTreeView | None = None

    def rows_wanted(self) -> int:
        """Take a row for each node, or for each module and operation, folded or not."""
        return self._of(self.trace_position).rows_wanted() if self.trace_position is not None else MOST_ROWS

    def draw_trace(self, position: TracePosition, width: int, height: int) -> list[Line]:
        """Draw the one or the other."""
        drawing = self._of(position)
        if self.has_class("framed"):
            operations = position.trace.phase in (Phase.FORWARD, Phase.BACKWARD)
            tree = f"{'Operations' if operations else 'Parameters'} {TREE}"
            self.retitle(GRAPH if isinstance(drawing, GraphView) else tree)
        return drawing.lines(position, width, height)

    def moved(self, position: TracePosition, by: int) -> TracePosition:
        """Go to the operation drawn above or below; in a tree, move the cursor."""
        return self._of(position).moved(position, by)

    def opened(self, position: TracePosition) -> TracePosition | None:
        """Open or close the part under the cursor, or run to the operation there; None where there is no cursor."""
        drawing = self._of(position)
        return drawing.opened(position) if isinstance(drawing, ModuleTreeView) else None

    @property
    def is_tree(self) -> bool:
        return isinstance(self._drawing, ModuleTreeView)

    def _of(self, position: TracePosition) -> GraphView | ModuleTreeView:
        if self._drawing is None or self._trace is not position.trace:
            self._trace = position.trace
            drawn = can_be_drawn(position.trace)
            self._drawing = GraphView(position.trace) if drawn else ModuleTreeView(ModuleTree(position.trace))
        return self._drawing
