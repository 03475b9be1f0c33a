"""Make the pictures that the README shows: python assets/make_pictures.py"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path

from textual.pilot import Pilot

from autograd_tui.core.command import parse
from autograd_tui.engine.open_session import open_session
from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.offscreen import by_itself

HERE = Path(__file__).parent
PICTURES: dict[str, tuple[str, str, tuple[int, int], list[str]]] = {
    "line.svg": ("linear", "fbs", (120, 40), []),
    "line-hall.svg": ("linear", "fb", (80, 24), []),
    "inside.svg": ("linear", "f", (80, 24), ["i", *["right"] * 5]),
    "resnet18.svg": ("resnet18", "fbsz*3 fb", (120, 40), []),
}
FIRST_CYCLE = "first-cycle.svg"
SECONDS = 4  # that each of its frames is shown


async def pictures(scenario: str, commands: str, size: tuple[int, int], keys: Iterable[str]) -> list[str]:
    """Give the screen after some commands, and after each of some keys, as SVG that asks no other site for a font."""
    app = AutogradApp(lambda name: open_session(name or scenario, device="cpu"), parse(commands), title=scenario)
    async with app.run_test(size=size) as pilot:
        drawn = [await screenshot(app, pilot)]
        for key in keys:
            await pilot.press(key)
            drawn.append(await screenshot(app, pilot))
    return drawn


async def screenshot(app: AutogradApp, pilot: Pilot[int]) -> str:
    """Wait until the screen stands still, and draw it."""
    while app.main.trainer.session is None or not app.main.trainer.status.idle:
        await pilot.pause(0.05)
    await pilot.pause()
    return by_itself(app.export_screenshot())


def animated(frames: list[str]) -> str:
    """Put pictures of one size into one that shows them in turns; who wants no motion sees the last."""
    head = re.match(r"<svg[^>]*>", frames[0])
    assert head
    inner = [
        f'<g class="frame frame-{place}">{_inside(frame).replace("terminal", f"terminal-{place}")}</g>'
        for place, frame in enumerate(frames)
    ]
    share, whole = 100 / len(frames), SECONDS * len(frames)
    style = f"""<style>
    .frame {{ visibility: hidden; animation: turn {whole}s step-end infinite; }}
    @keyframes turn {{ 0% {{ visibility: visible; }} {share:g}% {{ visibility: hidden; }} }}
    {" ".join(f".frame-{place} {{ animation-delay: {place * SECONDS}s; }}" for place in range(len(frames)))}
    @media (prefers-reduced-motion) {{
        .frame {{ animation: none; }}
        .frame-{len(frames) - 1} {{ visibility: visible; }}
    }}
    </style>"""
    return "\n".join([head[0], style, *inner, "</svg>\n"])


def _inside(picture: str) -> str:
    return picture[picture.index(">") + 1 : picture.rindex("</svg>")]


def main() -> None:
    """Write all pictures beside this script."""
    for name, (scenario, commands, size, keys) in PICTURES.items():
        *_, drawn = asyncio.run(pictures(scenario, commands, size, keys))
        (HERE / name).write_text(drawn, encoding="utf-8")
    (HERE / FIRST_CYCLE).write_text(animated(asyncio.run(pictures("linear", "", (80, 24), "fbsz"))), encoding="utf-8")


if __name__ == "__main__":
    main()
