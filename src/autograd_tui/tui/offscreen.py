"""The screen at some frames of a run, drawn by the app itself without a terminal."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.style import Style
from textual.pilot import Pilot

from autograd_tui.core.command import Commands
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.core.picture import Picture
from autograd_tui.core.session_protocol import ReadOnlySession, SessionInfo
from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.preferences import Preferences
from autograd_tui.tui.themes import theme_named

if TYPE_CHECKING:
    from autograd_tui.export.formats import ExportedRun

Cells = list[tuple[str, Style]]  # one row of a screen, in spans


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment to draw."""

    frame: Frame
    history: History
    pictures: tuple[Picture, ...] = ()  # of what the model has learned, the frame's own among them


class SnapshotSession(ReadOnlySession):
    """A session at one moment."""

    def __init__(self, about: SessionInfo, moment: Moment) -> None:
        self.about, self.history, self.newest = about, moment.history, moment.frame.index
        self._frame, self._pictures = moment.frame, moment.pictures

    @property
    def frame(self) -> Frame:
        return self._frame

    def pictures(self, *, stopped: Callable[[], bool]) -> tuple[Picture, ...]:
        """Return the pictures that were taken up to that moment."""
        return self._pictures


def moments(run: ExportedRun, wanted: set[int]) -> Iterator[Moment]:
    """Yield the frames that are wanted, with what plots need."""
    for frame in run.frames():
        if frame.index in wanted:
            yield Moment(frame, run.history_at(frame), run.pictures())


class OffscreenScreen:
    """The app on one size of screen, showing one moment after the other."""

    def __init__(self, app: AutogradApp, pilot: Pilot[int]) -> None:
        self._app, self._pilot = app, pilot

    async def show(self, moment: Moment) -> None:
        """Bring a moment onto the screen, as it was when it was the newest."""
        main = self._app.main
        main.state.latest = moment.frame
        main.state.change(history=moment.history, newest=moment.frame.index, pictures=moment.pictures)
        main.show_frame(moment.frame)
        main.say(None)
        await draw_all(self._pilot)

    def rows(self) -> list[Cells]:
        """Return the screen's rows as text with styles."""
        update: Any = self._app.screen._compositor.render_update(full=True)
        return [
            [(segment.text, segment.style or Style.null()) for strip in strips for segment in strip]
            for strips in update.strips
        ]

    def picture(self) -> str:
        """Return the screen as SVG that asks no other site for a font."""
        return by_itself(self._app.export_screenshot())


async def draw_all(pilot: Pilot[int]) -> None:
    """Wait until all is on the screen.

    A pause without seconds waits until the process uses no processor time: on a busy machine it gets none, and has
    drawn nothing either. Messages are counted instead: panels ask for room, the screen gives it, panels draw for it.
    """
    for _ in range(3):
        await pilot.pause(0)


@asynccontextmanager
async def offscreen_screen(
    about: SessionInfo, first: Moment, *, size: tuple[int, int], theme: str | None
) -> AsyncIterator[OffscreenScreen]:
    """Open the app without a terminal, on a screen of a size."""
    preferences = Preferences(theme=theme_named(theme)) if theme else Preferences()
    standing = SnapshotSession(about, first)
    app = AutogradApp(lambda _: standing, Commands(), title=about.title, preferences=preferences)
    async with app.run_test(size=size) as pilot:
        while app.failure is None and not app.main.up_to_date:
            await pilot.pause(0.01)
        if app.failure is not None:
            raise app.failure
        await draw_all(pilot)
        yield OffscreenScreen(app, pilot)


def picture(run: ExportedRun, *, frame: int | None, size: tuple[int, int], theme: str | None) -> str:
    """Return the screen at a frame, by default the last, as SVG; raises Refused where there is no such frame."""
    newest = run.newest
    index = newest if frame is None else frame
    if not 0 <= index <= newest:
        raise Refused(f"there is no frame {index}: the newest is frame {newest}.")
    moment = next(moments(run, {index}), None)
    if moment is None:
        raise Refused(f"frame {index} is not stored, and cannot be made again.")
    return asyncio.run(_picture(run.about, moment, size, theme))


async def _picture(about: SessionInfo, moment: Moment, size: tuple[int, int], theme: str | None) -> str:
    async with offscreen_screen(about, moment, size=size, theme=theme) as drawn:
        await drawn.show(moment)
        return drawn.picture()


def by_itself(drawn: str) -> str:
    """Make a picture the same each time, and let it ask no other site for a font."""
    drawn = re.sub(r"@font-face\s*{.*?}", "", drawn, flags=re.DOTALL)
    # The names of its styles are drawn by lot: fixed ones keep an unchanged picture unchanged.
    drawn = re.sub(r"terminal-\d+", "terminal", drawn)
    return drawn.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")
