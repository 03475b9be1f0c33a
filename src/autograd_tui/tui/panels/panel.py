"""The base of all panels: draws lines, and repaints only what has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.content import Content
from textual.events import MouseEvent
from textual.geometry import Offset, Region, Size
from textual.message import Message
from textual.reactive import var
from textual.strip import Strip

from autograd_tui.core.frame import Frame
from autograd_tui.core.session_protocol import SessionInfo
from autograd_tui.text.hidden_results import HiddenResults, cover_hidden
from autograd_tui.text.styled_text import Line, printable
from autograd_tui.tui.keys import clicked_on_frame
from autograd_tui.tui.rendering import CachedRows
from autograd_tui.tui.screen_state import View
from autograd_tui.tui.terminal import ReadableApp
from autograd_tui.tui.themes import ramp_style

FRAME_INDENT = 3  # columns from a frame's corner to the text on it


class PanelContent(CachedRows):
    """The rows of a framed panel: Textual writes a change from its widget's left edge on, here without the frame."""

    def rows(self, crop: Region) -> list[Strip]:
        """Return what the panel has drawn: there is no border, for which Textual would take each row apart."""
        if not isinstance(self.parent, Panel):  # it is being removed
            return [Strip.blank(crop.width)] * crop.height
        rows = [self.parent.render_line(y) for y in crop.line_range]
        _, background = self.background_colors
        for each in self.get_line_filters():
            rows = [row.apply_filter(each, background) for row in rows]
        return [row.crop(*crop.column_span) for row in rows]


class Panel(CachedRows):
    """Draws the frame it is given: a panel overrides `draw`, and knows nothing of any other."""

    DEFAULT_CSS = """
    Panel {
        height: 1fr;
    }
    Panel.framed { border: round $frame; padding: 0 1; }
    Panel.framed { border-title-color: $text-muted; border-subtitle-color: $text-muted; }
    Panel.framed > PanelContent { width: 100%; height: 100%; }
    Panel.framed:focus { border: heavy $frame; border-title-style: bold; }
    """

    DRAWN_FROM: ClassVar[tuple[str, ...]] = ("frame", "about", "hidden")  # the fields of the view that `lines` reads

    view: var[View] = var(View())

    def __init__(self, *, id: str | None = None, classes: str | None = None, title: str = "") -> None:
        super().__init__(id=id, classes=f"framed {classes or ''}" if title else classes)
        self.can_focus = bool(title)
        self._lines: list[Line] = []  # as drawn last
        self._strips: list[Strip] = []  # the same in the theme's colours
        self._seen = False  # has been painted since it was hidden last; what nobody sees is not drawn
        self._rows_wanted = 0  # where the layout has asked, or was asked to ask again
        self.offered_width = 40  # columns of content, where the layout has asked for the height
        self._looks: dict[str, Style] = {}  # by a line's style names, in the theme's colours
        self._face: CachedRows = self  # what the rows are drawn on
        self._title = ""
        self._retitles = False
        if title:
            self.retitle(title)

    def compose(self) -> ComposeResult:
        """Yield what the rows are drawn on, where there is a frame around them."""
        if self.has_class("framed"):
            self._face = PanelContent()
            yield self._face

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Return the rows to show; those beyond `height` are not seen."""
        raise NotImplementedError

    def rows_wanted(self) -> int:
        """Return how many rows there are to show, where the layout asks: `height: auto`."""
        return 1

    def is_text(self) -> bool:
        """Return whether more rows than `rows_wanted` would stay empty, though the panel stands among pictures."""
        return False

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Answer the layout."""
        return self.rows_wanted_in(width)

    def rows_wanted_in(self, width: int) -> int:
        """Return how many rows there are to show in so many columns, and take the layout to give room for these."""
        self.offered_width = width
        self._rows_wanted = self.rows_wanted()
        return self._rows_wanted

    def under(self, event: MouseEvent) -> Offset | None:
        """Return the column and the row of the content under the mouse, None where there is no content."""
        room = self.content_region
        return event.screen_offset - room.offset if room.contains_point(event.screen_offset) else None

    @property
    def frame(self) -> Frame | None:
        """The frame shown."""
        return self.view.frame

    @property
    def about(self) -> SessionInfo | None:
        """The session that the frame is of."""
        return self.view.about

    @property
    def has_ramp(self) -> bool:
        """Whether the terminal and the theme have colours enough for a ramp."""
        app = self.app
        assert isinstance(app, ReadableApp)
        terminal = app.terminal
        return not (app.ascii_only or terminal.colorless or terminal.colors < 256 or app.current_theme.ansi)

    class KeysClicked(Message):
        """The mouse has pressed keys: one, or a word beside several."""

        def __init__(self, labels: Sequence[str]) -> None:
            super().__init__()
            self.labels = labels

    class WordsClicked(Message):
        """The mouse has chosen words for the prompt."""

        def __init__(self, words: str) -> None:
            super().__init__()
            self.words = words

    def on_click(self, event: events.Click) -> None:
        """Press the key that the frame names where it was clicked."""
        offset = event.screen_offset - self.region.offset
        texts = {0: self._title, self.size.height + 1: str(self.border_subtitle or "")}
        text = texts.get(offset.y, "") if self.has_class("framed") else ""
        start = self.region.width - FRAME_INDENT - len(text) if offset.y else FRAME_INDENT
        labels = clicked_on_frame(text, offset.x - max(start, FRAME_INDENT))
        if labels and labels[0].startswith(":"):
            self.post_message(self.WordsClicked(labels[0][1:]))
        elif labels:
            self.post_message(self.KeysClicked(labels))

    def watch_view(self, old: View, new: View) -> None:
        """Draw anew where a field that this panel draws from has changed."""
        changed = [name for name in self.DRAWN_FROM if getattr(old, name) is not getattr(new, name)]
        if not changed:
            return
        if changed != ["frame"] or self._seen:
            self._make_room()
        if self._seen:
            self.redraw()
        else:
            self._strips = []
            self._face.forget_rows()

    def on_show(self) -> None:
        """Draw what has changed in the meantime."""
        self._seen = True
        self.redraw()

    def on_hide(self) -> None:
        """Draw no more until somebody looks."""
        self._seen = False
        self._face.forget_rows()  # so that the next painting asks for them

    def _make_room(self) -> None:
        before = self._rows_wanted
        if self.rows_wanted_in(self.offered_width) != before:
            self.refresh(layout=True)

    def on_resize(self) -> None:
        """Draw for the new size."""
        self.redraw()

    def notify_style_update(self) -> None:
        """Forget the old theme's colours; the new ones are not all known yet, and a refresh follows."""
        super().notify_style_update()
        self._strips = []
        self._looks = {}

    def retitle(self, title: str) -> None:
        """Change the title on the border, and repaint that row."""
        if title != self._title:
            self._title, self._retitles = title, True
            self.border_title = Content(printable(title))  # names in it are a user's: text, never markup
            self._retitles = False

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        """Ask for a repaint; of a new title, for which Textual asks for all, of its row alone."""
        if self._retitles and not layout:
            regions = (Region(0, 0, self.outer_size.width, 1).translate(-self.content_offset),)
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def redraw(self) -> None:
        """Draw anew and repaint the changed part of each changed row."""
        width, height = self.content_size
        if not width or not height:
            return
        old, self._strips = self._strips, self._draw_strips(width, height)
        if len(old) != len(self._strips):
            self._face.refresh()
            return
        changes = [
            changed_span(before, after, y) for y, (before, after) in enumerate(zip(old, self._strips, strict=True))
        ]
        regions = [region for region in changes if region]
        if regions:
            self._face.refresh(*regions)

    def lines(self, width: int, height: int) -> list[Line]:
        """Return the rows as they stand, nothing before there is a frame."""
        if self.frame is None:
            return []
        hidden = self.view.hidden
        return self.draw(self.frame, width, height) if hidden is None else self.cover(hidden, width, height)

    def cover(self, hidden: HiddenResults, width: int, height: int) -> list[Line]:
        """Return the rows with what the veil hides covered."""
        assert self.frame is not None
        known = self.draw(hidden.known, width, height)  # first: the true rows are those that the mouse finds
        return cover_hidden(self.draw(self.frame, width, height), known)

    def render_line(self, y: int) -> Strip:
        """Return one row, for the compositor: Textual does not tell each panel that it places on the screen."""
        self._seen = True
        width, height = self.content_size
        if len(self._strips) != height or (self._strips and self._strips[0].cell_length != width):
            self._strips = self._draw_strips(width, height)
        return self._strips[y] if y < len(self._strips) else Strip.blank(width, self.rich_style)

    def _draw_strips(self, width: int, height: int) -> list[Strip]:
        """Draw the rows; one that says the same as before is the same strip."""
        before, strips = self._lines, self._strips
        if len(strips) != height or strips[0].cell_length != width:
            before = []
        rows = self.lines(width, height)[:height]
        self._lines = rows + [[]] * (height - len(rows))
        same = [index < len(before) and line == before[index] for index, line in enumerate(self._lines)]
        return [strips[y] if same[y] else self._strip(line, width) for y, line in enumerate(self._lines)]

    def _strip(self, line: Line, width: int) -> Strip:
        segments = [Segment(printable(text), self._look(name)) for text, name in line if text]
        return Strip(Segment.simplify(Segment.adjust_line_length(segments, width, self._look(""))), width)

    def _look(self, name: str) -> Style:
        if name not in self._looks:
            kind, _, levels = name.partition(":")
            if levels:
                app = self.app
                assert isinstance(app, ReadableApp)
                self._looks[name] = ramp_style(kind, levels, dark=app.current_theme.dark, shown=app.shown)
            else:
                self._looks[name] = self.rich_style + self._own_look(name)
        return self._looks[name]

    def _own_look(self, name: str) -> Style:
        """Return what a style name adds to the panel's own colours: the screen knows it, once for all panels."""
        return self.screen.get_component_rich_style(f"panel--{name}", partial=True) if name else Style()


def changed_span(before: Strip, after: Strip, y: int) -> Region | None:
    """Return the span of a row from its first to its last changed cell."""
    if before is after or before == after:
        return None
    width = after.cell_length
    if before.cell_length != width or any(cell_len(row.text) != len(row.text) for row in (before, after)):
        return Region(0, y, width, 1)  # a character takes more or less than a cell
    first = 0
    for old, new in zip(before, after, strict=False):
        if old != new:
            first += common_prefix(old.text, new.text) if old.style == new.style else 0
            break
        first += len(old.text)
    last = width
    for old, new in zip(reversed(list(before)), reversed(list(after)), strict=False):
        if old != new:
            last -= common_prefix(old.text[::-1], new.text[::-1]) if old.style == new.style else 0
            break
        last -= len(old.text)
    return Region(first, y, last - first, 1)


def common_prefix(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike; halves are compared, not characters one by one."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
