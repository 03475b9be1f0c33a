"""Make the pictures that the README shows: python assets/make_pictures.py"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from autograd_tui.engine.command import parse
from autograd_tui.open import open_session
from autograd_tui.tui.app import AutogradApp

HERE = Path(__file__).parent
PICTURES = {
    "line.svg": ("linear", "fbs", (120, 40)),
    "line-hall.svg": ("linear", "fb", (80, 24)),
    "resnet18.svg": ("resnet18", "fbsz*3 fb", (120, 40)),
}


async def picture(scenario: str, commands: str, size: tuple[int, int]) -> str:
    """Give the screen after some commands, as SVG that asks no other site for a font."""
    app = AutogradApp(lambda name: open_session(name or scenario, device="cpu"), parse(commands), title=scenario)
    async with app.run_test(size=size) as pilot:
        while app.main.trainer.session is None or app.main.trainer.busy:
            await pilot.pause(0.05)
        await pilot.pause()
        drawn = app.export_screenshot()
    drawn = re.sub(r"@font-face\s*{.*?}", "", drawn, flags=re.DOTALL)
    # The names of its styles are drawn by lot: fixed ones keep an unchanged picture unchanged.
    drawn = re.sub(r"terminal-\d+", "terminal", drawn)
    return drawn.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")


def main() -> None:
    """Write all pictures beside this script."""
    for name, (scenario, commands, size) in PICTURES.items():
        (HERE / name).write_text(asyncio.run(picture(scenario, commands, size)), encoding="utf-8")


if __name__ == "__main__":
    main()
