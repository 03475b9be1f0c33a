"""The screen as a whole, as pictures of frames made by hand.

Where a change is meant, or another version of Textual draws in another way, this draws them anew:
python -m pytest tests/tui/test_snapshots.py --update
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app_screen import running
from autograd_tui.core.capabilities import LIVE, SCRIPTED
from autograd_tui.core.command import parse
from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.preferences import THEMES, Preferences
from handmade_scripts import HeldScript, accumulated, gan, raised
from handmade_session import MadeSession, TracedSession
from handmade_traces import line_backward, tower
from picture_frames import (
    LAYERS,
    LINE,
    SIDES,
    TEXTS,
    WAVES,
    error_frame,
    layers_frames,
    line_frames,
    line_surface,
    picture_of,
)
from suite_options import UPDATE

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "assets"))

from make_pictures import by_itself

SNAPSHOTS = Path(__file__).parent / "snapshots"
VAST, WIDE, HALL, SMALL = (200, 60), (120, 40), (80, 24), (60, 15)
# A loss at one point alone: lines are drawn from two on, by plotext, each version of it in its own way.


def drawing(title: str, **what: Any) -> MadeSession:
    """Give the line after a step as a model that draws what it has learned."""
    frames = line_frames()
    return MadeSession(replace(LINE, picture=title), frames, picture=picture_of(frames[-1], **what))


SCENES = {
    "beginning": MadeSession(LINE, line_frames()[:1], surface=line_surface()),
    "backward": MadeSession(LINE, line_frames()[:3], surface=line_surface()),
    "step": MadeSession(LINE, line_frames(), surface=line_surface()),
    "error": MadeSession(LINE, [*line_frames()[:3], error_frame()]),
    "layers": MadeSession(LAYERS, layers_frames()),
    "plane": drawing("two sides", plane=SIDES, points=SIDES.points),
    "waves": drawing("waves", points=WAVES),
    "texts": drawing("what it writes", texts=TEXTS),
    "gan": HeldScript(gan()),
    "accumulated": HeldScript(accumulated(skipped=True)),
    "raised": HeldScript(raised()),
    "inside": TracedSession(LINE, line_frames()[:2], line_backward()),
    "tower": TracedSession(LAYERS, layers_frames()[:1], tower()),
}
THIRD_OPERATION = ("i", "right", "right")
TO_ITS_END = ("space",) * 12  # through all stops of a script
INTO_A_LAYER = ("2", "down", "enter", "down")


class Picture(NamedTuple):
    scene: str
    size: tuple[int, int]
    looks: str  # a theme, or "ascii"
    keys: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        width, height = self.size
        return f"{self.scene}-{width}x{height}-{self.looks}.svg"


PICTURES = [  # each scene, size and look twice at least
    Picture("beginning", WIDE, "dark"),
    Picture("beginning", SMALL, "ansi"),
    Picture("backward", WIDE, "light"),
    Picture("backward", HALL, "ansi"),
    Picture("step", WIDE, "ascii"),
    Picture("step", HALL, "dark"),
    Picture("step", VAST, "light"),
    Picture("error", HALL, "light"),
    Picture("error", SMALL, "dark"),
    Picture("layers", WIDE, "dark", INTO_A_LAYER),
    Picture("layers", HALL, "light", INTO_A_LAYER),
    Picture("layers", SMALL, "ascii", INTO_A_LAYER),
    Picture("layers", VAST, "dark", INTO_A_LAYER),
    Picture("plane", WIDE, "dark"),
    Picture("plane", HALL, "ascii"),
    Picture("waves", WIDE, "light"),
    Picture("waves", HALL, "dark"),
    Picture("texts", HALL, "ansi"),
    Picture("texts", VAST, "dark"),
    Picture("gan", WIDE, "dark", TO_ITS_END[:10]),
    Picture("gan", HALL, "light", TO_ITS_END[:8]),
    Picture("gan", VAST, "ansi", TO_ITS_END[:10]),
    Picture("accumulated", WIDE, "ascii", TO_ITS_END[:11]),
    Picture("accumulated", HALL, "dark", TO_ITS_END[:10]),
    Picture("accumulated", SMALL, "ansi", TO_ITS_END[:2]),
    Picture("raised", WIDE, "light", TO_ITS_END[:6]),
    Picture("raised", SMALL, "dark", TO_ITS_END[:6]),
    Picture("inside", WIDE, "dark", THIRD_OPERATION),
    Picture("inside", HALL, "light", THIRD_OPERATION),
    Picture("tower", HALL, "ascii", THIRD_OPERATION),
    Picture("tower", WIDE, "ansi", (*THIRD_OPERATION, "down", "down", "down", "enter")),
]


async def drawn(picture: Picture) -> str:
    """Show a scene and draw the screen."""
    preferences = Preferences(theme=THEMES.get(picture.looks, THEMES["dark"]), ascii_only=picture.looks == "ascii")
    session = SCENES[picture.scene]
    session = HeldScript(session.frames) if isinstance(session, HeldScript) else session  # which goes on
    can = SCRIPTED if session.can.script else LIVE
    app = AutogradApp(lambda _: session, parse(""), title=picture.scene, preferences=preferences, can=can)
    async with running(app, picture.size) as shown:
        for key in picture.keys:
            await shown.press(key)
        if app.main.trace_screen is None:  # of what took long, a note stays for a moment
            await shown.until(lambda: not app.main.state.is_patient)
        return by_itself(app.export_screenshot())


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.file)
async def test_the_screen_looks_as_in_its_picture(picture: Picture, tmp_path: Path) -> None:
    kept, now = SNAPSHOTS / picture.file, await drawn(picture)
    if UPDATE:
        kept.write_text(now, encoding="utf-8")
    if not kept.exists() or kept.read_text(encoding="utf-8") != now:
        (tmp_path / picture.file).write_text(now, encoding="utf-8")
        pytest.fail(f"{kept} differs from what the screen is now: {tmp_path / picture.file}")


def test_every_picture_kept_is_of_a_screen_that_is_drawn() -> None:
    assert {file.name for file in SNAPSHOTS.iterdir()} == {picture.file for picture in PICTURES}
