"""Run the app without a terminal, and read what its panels show.

Apps of one process share what each would make anew and alike: the rules of its CSS, which of them a widget has at its
place, and the loss over the parameters of the line. The first of them makes it as it does for users. Each draws what
has changed, and puts no lines of the terminal together of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic, thread_time
from typing import Any
from unittest.mock import patch

from textual._compositor import Compositor
from textual.css.model import RuleSet
from textual.css.styles import RulesMap
from textual.css.stylesheet import Stylesheet
from textual.dom import DOMNode
from textual.geometry import Region
from textual.pilot import Pilot
from textual.screen import Screen as TextualScreen
from textual.strip import Strip
from textual.widget import Widget

from autograd_tui.core.command import parse
from autograd_tui.core.loss_surface import LossSurface
from autograd_tui.engine import surface_sampler
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.surface_slice import Point
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.export.live_export import export_live
from autograd_tui.scenarios.linear import Line
from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.preferences import Preferences
from autograd_tui.tui.terminal import Terminal


class Screen:
    """The running app: press keys, read panels."""

    def __init__(self, app: AutogradApp, pilot: Pilot[int]) -> None:
        self.app, self.pilot = app, pilot

    @property
    def session(self) -> Session:
        session = self.app.main.trainer.session
        assert session is not None
        return session  # type: ignore[return-value]

    async def press(self, *keys: str) -> None:
        """Press keys, then wait until all that they asked for is on the screen.

        Between two keys it waits for that too, but no longer than half a second: a run may go on for ever.
        """
        for key in keys:
            await self.pilot.press(key)
            next_key_at = monotonic() + 0.5
            while self.app.is_running and not self.app.main.up_to_date and monotonic() < next_key_at:
                await asyncio.sleep(0.001)
            await self.pilot.pause(0)
        await self.settle()

    async def settle(self) -> None:
        """Wait until the trainer thread has nothing to do and its news is shown."""
        await self.pilot.pause()
        while self.app.is_running and not self.app.main.up_to_date:
            while self.app.is_running and not self.app.main.up_to_date:
                await asyncio.sleep(0.001)
            await self.pilot.pause()
        await self.pilot.pause()  # once more, for what follows the screen's refresh

    async def resize(self, width: int, height: int) -> None:
        """Give the terminal another size, and wait until the screen has it."""
        await self.pilot.resize_terminal(width, height)
        await self.pilot.pause(0.02)  # Textual waits 1/120 s for a size that follows at once
        await self.settle()

    async def until(self, true: Callable[[], bool], *, seconds: float = 100) -> None:
        """Wait for what the app comes to by itself."""
        given_up = monotonic() + seconds
        while not true():
            if not self.app.is_running or monotonic() > given_up:
                raise AssertionError(f'it did not come; the note is "{self.note}"')
            await asyncio.sleep(0.002)

    def text(self, panel: str) -> str:
        """Give what a panel shows, cut to its size; `panel` is its class name."""
        shown = [each for each in self.app.main.query(panel).results(Panel) if each.content_size.area]
        assert len(shown) == 1, f"{len(shown)} {panel} on screen"
        return "\n".join(shown[0].render_line(y).text.rstrip() for y in range(shown[0].content_size.height))

    @property
    def note(self) -> str:
        note = self.app.main.view.note
        return note.text if note else ""


@asynccontextmanager
async def screen(
    scenario: str = "linear",
    *,
    do: str = "",
    size: tuple[int, int] = (120, 40),
    preferences: Preferences | None = None,
    preferences_file: Path | None = None,
    terminal: Terminal | None = None,
    theme: str | None = None,
    greeting: str | None = None,
    begins_slowly: bool = False,
    **options: str | float,
) -> AsyncIterator[Screen]:
    """Open a scenario on a screen of a size and wait until it is there."""
    app = AutogradApp(
        lambda name: open_session(name or scenario, **options),  # type: ignore[arg-type]
        parse(do),
        title=scenario,
        preferences=preferences,
        preferences_file=preferences_file,
        terminal=terminal,
        theme=theme,
        begins_slowly=begins_slowly,
        greeting=greeting,
        exporter=export_live,
    )
    async with running(app, size) as shown:
        yield shown


@asynccontextmanager
async def running(app: AutogradApp, size: tuple[int, int]) -> AsyncIterator[Screen]:
    """Run an app on a screen of a size and wait until its session is there."""
    with (
        patch("textual.app.wait_for_idle", wait_until_quiet),
        patch("textual.pilot.wait_for_idle", wait_until_quiet),
        patch.object(Pilot, "_wait_for_screen", _wait_for_screen),
        patch.object(Stylesheet, "_parse_rules", _parse_once),
        patch.object(Stylesheet, "apply", _apply_once),
        patch.object(RuleSet, "__hash__", object.__hash__),  # by identity too, and not in Python
        patch.object(TextualScreen, "_compositor_refresh", _draw),
        patch.object(surface_sampler, "_sample", _sample_once),
    ):
        async with app.run_test(size=size) as pilot:
            opened = Screen(app, pilot)
            await opened.settle()
            yield opened


_compositor_refresh = TextualScreen._compositor_refresh


def _draw(screen: TextualScreen[Any]) -> None:
    """Draw what has changed; the lines that Textual puts together of it would go to a terminal."""
    compositor: Any = screen._compositor
    compositor._render_chops = partial(_draw_parts, compositor)
    try:
        _compositor_refresh(screen)
    finally:
        del compositor._render_chops


def _draw_parts(
    compositor: Compositor, crop: Region, is_rendered_line: Callable[[int], bool]
) -> Sequence[Mapping[int, Strip]]:
    for _ in compositor._get_renders(crop):
        pass
    return []


_parse_rules, _rules = Stylesheet._parse_rules, dict[Any, list[RuleSet]]()
_sample, _surfaces = surface_sampler._sample, dict[Any, LossSurface]()


def _parse_once(sheet: Stylesheet, css: str, **where: Any) -> list[RuleSet]:
    """Return the rules of a source of CSS: they depend on it, where it is from, and the theme's variables."""
    key = css, tuple(where.items()), tuple(sheet._variables.items())
    if key not in _rules:
        _rules[key] = _parse_rules(sheet, css, **where)
    return _rules[key]


_apply, _matched = Stylesheet.apply, dict[Any, RulesMap]()
_numbers_of_rules = dict[tuple[int, ...], int]()  # by the identities of all rules of a sheet, which `_rules` keeps


class _Matched:
    """Stands for the cache that Textual has while it styles several widgets, with a key that holds in any app."""

    def __init__(self, key: Any) -> None:
        self.key = key

    def get(self, _: Any) -> RulesMap | None:
        return _matched.get(self.key)

    def __setitem__(self, _: Any, rules: RulesMap) -> None:
        _matched[self.key] = rules


def _apply_once(sheet: Stylesheet, node: DOMNode, *, animate: bool = False, cache: object = None) -> None:
    """Style a widget by the rules that were found for one of the same ancestors, which look and are named alike."""
    rules = sheet.rules
    known: tuple[list[RuleSet], int, int] | None = getattr(sheet, "_numbered", None)
    if known is None or known[0] is not rules or known[1] != len(rules):
        number = _numbers_of_rules.setdefault(tuple(map(id, rules)), len(_numbers_of_rules))
        known = sheet._numbered = rules, len(rules), number  # type: ignore[attr-defined]
    key = known[2], *map(_as_selectors_see, node.css_path_nodes)
    _apply(sheet, node, animate=animate, cache=_Matched(key))  # type: ignore[arg-type]


def _as_selectors_see(node: DOMNode) -> tuple[object, ...]:
    """Return all of a node that selectors look at, but for its place among others: Textual keeps no rules by that."""
    seen = type(node), node._id, frozenset(node._classes)
    if isinstance(node, Widget):
        return *seen, node._pseudo_classes_cache_key, node.allow_focus()
    return *seen, frozenset(node.pseudo_classes)


def _sample_once(
    state: TrainingState, names: tuple[str, str], shown: Sequence[Point], stopped: Callable[[], bool]
) -> LossSurface | None:
    """Return the surface of the line; it depends on its batch and on what is to be on it. Another's is measured."""
    if type(state.model) is not Line:
        return _sample(state, names, shown, stopped)
    x, y = state.batch or state.parts.batch(state.forwards)
    key = tuple(x.tolist()), tuple(y.tolist()), tuple(shown)
    if key not in _surfaces:
        surface = _sample(state, names, shown, stopped)
        if surface is None:
            return None
        _surfaces[key] = surface
    return _surfaces[key]


async def _wait_for_screen(_: Pilot[int], timeout: float = 30.0) -> bool:
    """Wait until the loop is quiet: no message waits then, where Textual's pilot sends one to each widget to know."""
    await wait_until_quiet()
    return True


async def wait_until_quiet(*_: float) -> None:
    """Wait until the event loop has nothing to do, or has worked for a second.

    Textual's pilot waits instead until the process has used no CPU for 20 ms: twice a key, and a second each time
    while a run goes on.
    """
    loop, deadline = asyncio.get_running_loop(), thread_time() + 1  # however busy the machine is
    await asyncio.sleep(0)
    while loop._ready and thread_time() < deadline:  # type: ignore[attr-defined]
        await asyncio.sleep(0)
