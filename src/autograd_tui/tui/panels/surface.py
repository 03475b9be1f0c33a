"""The loss over two parameter values, with the way that training took."""

from __future__ import annotations

from collections.abc import Iterator

from textual import events
from textual.message import Message

from autograd_tui.core.frame import Frame
from autograd_tui.core.history import Path
from autograd_tui.core.loss_surface import LossSurface
from autograd_tui.text.hidden_results import HiddenResults
from autograd_tui.text.loss_map import AHEAD, LOWEST, NOW, Point, map_lines, nearest_point
from autograd_tui.text.plot_view import branch_label
from autograd_tui.text.styled_text import Line
from autograd_tui.tui.panels.panel import Panel


class SurfacePanel(Panel):
    """A map of the loss: the iterations' starts by number, where training stands, and the lowest point."""

    DRAWN_FROM = (*Panel.DRAWN_FROM, "history", "surface", "branches")

    def __init__(self, *, title: str = "") -> None:
        super().__init__(title=title)
        self._latest_map: tuple[object, list[Line]] = None, []  # last, and what of

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the way up to the frame, and what came after it."""
        return self._map(frame.index, width, height)

    def cover(self, hidden: HiddenResults, width: int, height: int) -> list[Line]:
        """Leave out where a step has led while that is hidden."""
        assert self.frame is not None
        return self._map(self.frame.index - (hidden.known.params is not self.frame.params), width, height)

    class Clicked(Message):
        """The mouse has chosen a point of the way."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def on_click(self, event: events.Click) -> None:
        offset, surface, way = self.under(event), self.view.surface, self._way()
        if offset is None or surface is None or way is None or self.view.hidden is not None:
            return
        size = self.content_size
        nearest = nearest_point(surface, way.points(), size.width, size.height, column=offset.x, row=offset.y)
        if nearest is not None:
            self.post_message(self.Clicked(way.indices[nearest]))

    def _way(self) -> Path | None:
        """Return where training stood, as far as it is known."""
        surface, history = self.view.surface, self.view.history
        if surface is not None and surface.path is not None:
            return surface.path
        return history.path if history is not None else None

    def _map(self, index: int, width: int, height: int) -> list[Line]:
        surface, path = self.view.surface, self._way()
        if surface is None or path is None:
            return [[("the loss around here is being measured", "dim")]]
        count = path.count(index)
        hides = self.view.hidden is not None
        # Of a long run the way is long, and most keys move nothing. What runs that were left show hangs on more.
        asked = None if self.view.branches else (surface, path, count, hides, width, height, self.has_ramp)
        if asked is None or asked != self._latest_map[0]:
            self._latest_map = asked, self._map_lines(surface, path, count, width, height, hides=hides)
        lines = self._latest_map[1]
        title, later = _title(surface), f"  {AHEAD} later" * (count < len(path) and not hides)
        now = f"{NOW} {'now' if surface.is_followed else 'then'}"
        if not any(NOW in text for line in lines for text, _ in line):
            now = now.replace(NOW, "off the map")  # beyond its edge, or NaN
        signs = f"  {now}  {LOWEST} low"
        titles = [f"{title}{signs}est{later}", title + signs, title.replace(" over", " ") + signs]
        self.retitle(next((each for each in titles if len(each) < width), title))
        return [*lines]

    def _map_lines(
        self, surface: LossSurface, path: Path, count: int, width: int, height: int, *, hides: bool
    ) -> list[Line]:
        points, first = path.points(), [iteration + 1 for iteration in path.iterations]
        return map_lines(
            surface,
            width,
            height,
            way=list(zip(first[:count], points, strict=False)),
            ahead=[] if hides else points[count:],
            branches=list(self._branches()) if surface.frame is None else (),
            colors=self.has_ramp,
        )

    def _branches(self) -> Iterator[tuple[str, list[Point]]]:
        """Yield the ways of the runs that were left, each with what differs in it from the present one."""
        assert self.view.history is not None
        for branch in self.view.branches:
            if branch.history is not None:
                label = branch_label(branch, self.view.history)
                yield label, branch.history.path.points()[branch.history.path.count(branch.fork) :]


def _title(surface: LossSurface) -> str:
    """Return what the loss is over, and where the other parameters are held still."""
    x, y = surface.names
    if surface.frame is None:
        return f"Loss over {x} → {y} ↑"
    return f"Loss at frame {surface.frame}  {x} → {y} ↑"
