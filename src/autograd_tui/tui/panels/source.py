"""The source lines around an operation."""

from __future__ import annotations

from pathlib import PurePath

from autograd_tui.engine.values.command import Phase
from autograd_tui.text.inside.source_lines import source_lines
from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.line import Line, one_line
from autograd_tui.tui.panels.code import lines_of
from autograd_tui.tui.panels.walk import WalkPanel


class SourcePanel(WalkPanel):
    """As many lines as fit, one of them lit; in one row, that one alone."""

    def draw_walk(self, walk: Walk, width: int, height: int) -> list[Line]:
        """Draw the lines; a frame around them names the file."""
        if self.has_class("framed"):
            source = walk.op.source
            self.retitle(f"Source   {one_line(PurePath(source.file).name)}" if source else "Source")
        listing = self.about.listing.get(walk.trace.phase.value, ()) if self.about else ()
        calls = lines_of("model", listing) if walk.op.module and walk.trace.phase is Phase.FORWARD else ()
        return source_lines(walk, [listing[place] for place in calls] or listing, width, height)
