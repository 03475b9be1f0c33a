"""Where the panels stand, for each size of terminal; one layout is shown at a time."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.geometry import Size
from textual.reactive import var

from autograd_tui.engine.about import About
from autograd_tui.engine.frame import Frame
from autograd_tui.engine.history import History
from autograd_tui.text.fit import can_fit
from autograd_tui.tui.panels.both import BothPanel
from autograd_tui.tui.panels.code import CodePanel
from autograd_tui.tui.panels.data import DataPanel
from autograd_tui.tui.panels.explanation import ExplanationPanel
from autograd_tui.tui.panels.fit import FitPanel
from autograd_tui.tui.panels.gradients import GradientsPanel
from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.panels.output import OutputPanel
from autograd_tui.tui.panels.parameters import MOST_ROWS, ParametersPanel
from autograd_tui.tui.panels.phases import PhasesPanel


def layout_for(size: Size) -> str:
    """Name the layout that a terminal of this size has room for."""
    if size.width >= 100 and size.height >= 30:
        return "-wide"
    return "-narrow" if size.width >= 72 and size.height >= 20 else "-small"


class Layout(Container):
    """Hands the frame on to the panels inside it."""

    frame: var[Frame | None] = var(None)
    about: var[About | None] = var(None)
    history: var[History | None] = var(None)
    log_scale: var[bool] = var(False)

    def watch_frame(self) -> None:
        """Mark a model that is shown by layers, whose table has the gradients too, and points that can be drawn."""
        if self.frame is None:
            return
        self.set_class(len(self.frame.params) > MOST_ROWS, "-folded")
        if self.frame.prediction is not None:
            self.set_class(can_fit(self.frame), "-points")
            self.set_class(bool(self.frame.top), "-classes")


class WideLayout(Layout):
    """From 100 x 30: everything side by side."""

    def compose(self) -> ComposeResult:
        """Yield the panels."""
        yield PhasesPanel().data_bind(Layout.frame)
        with Horizontal():
            with Vertical(classes="half"):
                yield CodePanel(title="Code").data_bind(Layout.frame, Layout.about)
                yield ExplanationPanel(title="What happened").data_bind(Layout.frame, Layout.about)
                yield DataPanel(title="Data").data_bind(Layout.frame, Layout.about)
                yield OutputPanel(title="Output").data_bind(Layout.frame, Layout.about)
            with Vertical(classes="half"):
                yield ParametersPanel(title="Parameters").data_bind(Layout.frame)
                yield GradientsPanel(title="Gradients").data_bind(Layout.frame)
                yield FitPanel(title="Fit   o truth   * prediction   ┊ error").data_bind(Layout.frame)
                yield LossPanel(title="Loss").data_bind(Layout.frame, Layout.history, Layout.log_scale)


class NarrowLayout(Layout):
    """From 72 x 20, as a lecture hall sees it: the phase and its line of code first."""

    def compose(self) -> ComposeResult:
        """Yield the panels."""
        yield PhasesPanel().data_bind(Layout.frame)
        yield CodePanel(running_line_only=True).data_bind(Layout.frame, Layout.about)
        yield ExplanationPanel().data_bind(Layout.frame, Layout.about)
        with Horizontal():
            with Vertical(classes="left"):
                yield BothPanel(title="Parameters   .grad").data_bind(Layout.frame)
                yield ParametersPanel(title="Parameters").data_bind(Layout.frame)
                yield DataPanel(title="Data").data_bind(Layout.frame, Layout.about)
            with Vertical(classes="right"):
                yield FitPanel(title="Fit  o truth  * prediction").data_bind(Layout.frame)
                yield LossPanel(title="Loss").data_bind(Layout.frame, Layout.history, Layout.log_scale)


class SmallLayout(Layout):
    """Below that: the phases, the line of code, one table, and as much of the explanation as there is room for."""

    def compose(self) -> ComposeResult:
        """Yield the panels."""
        yield PhasesPanel().data_bind(Layout.frame)
        yield CodePanel(running_line_only=True).data_bind(Layout.frame, Layout.about)
        yield BothPanel().data_bind(Layout.frame)
        yield ParametersPanel().data_bind(Layout.frame)
        yield ExplanationPanel().data_bind(Layout.frame, Layout.about)
