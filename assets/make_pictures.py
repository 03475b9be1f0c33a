"""Make the pictures that the README shows: python assets/make_pictures.py"""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path

from textual.pilot import Pilot

from autograd_tui.core.capabilities import SCRIPTED
from autograd_tui.core.command import parse
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.script.script_session import ScriptSession
from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.captured_output import CapturedOutput
from autograd_tui.tui.offscreen import by_itself

HERE = Path(__file__).parent
PICTURES: dict[str, tuple[str, str, tuple[int, int], list[str]]] = {
    "line.svg": ("linear", "fbs", (120, 40), []),
    "line-hall.svg": ("linear", "fb", (80, 24), []),
    "inside.svg": ("linear", "f", (80, 24), ["i", *["right"] * 5]),
    "resnet18.svg": ("resnet18", "fbsz*3 fb", (200, 60), []),
    "spiral.svg": ("spiral", "fbsz*200 f", (120, 40), []),
}
SCRIPT_PICTURES = {"script.svg": ["n", "n", "f"], "script-nan.svg": ["r", "i"]}  # by the keys that lead there
SCRIPT = """\
import torch
from torch import nn


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(4, 8)
        self.score = nn.Linear(8, 1)

    def forward(self, x):
        level = torch.sigmoid(self.score(torch.relu(self.hidden(x))))
        return torch.log(0.8 - level)


torch.manual_seed(0)
critic = Critic()
optimizer = torch.optim.Adam(critic.parameters(), lr=0.05)
for step in range(300):
    x = torch.randn(16, 4)
    optimizer.zero_grad()
    loss = critic(x).mean()
    loss.backward()
    optimizer.step()
    if step % 2 == 0:
        print(f"step {step}: loss {loss.item():.4f}")
"""
FIRST_MINUTE = "first-minute.svg"
KEYS = [("f", 6), ("b", 7), ("s", 6), ("z", 4), *[("n", 2)] * 4, *[("n", 0.4)] * 46, ("f", 6)]  # seconds shown
BEGINNING = 5  # seconds that nothing has run yet


async def pictures(scenario: str, commands: str, size: tuple[int, int], keys: Iterable[str]) -> list[str]:
    """Give the screen after some commands, and after each of some keys, as SVG that asks no other site for a font."""
    app = AutogradApp(lambda name: open_session(name or scenario, device="cpu"), parse(commands), title=scenario)
    return await drawn_by(app, size, keys)


async def script_pictures(keys: Iterable[str]) -> list[str]:
    """Give the screen of a script whose run turns NaN, watched for that, after each of some keys."""
    output = CapturedOutput()

    def open_script(_: str | None) -> ScriptSession:
        session = ScriptSession(("train.py",), on_output=output.take_in)
        session.arm("nonfinite")
        return session

    app = AutogradApp(open_script, parse(""), title="train.py", can=SCRIPTED, output=output)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("train.py").write_text(SCRIPT, encoding="utf-8")
        drawn = await drawn_by(app, (120, 40), keys)
        assert app.main.trainer.session is not None
        app.main.trainer.session.close(in_order=True)
    return drawn


async def drawn_by(app: AutogradApp, size: tuple[int, int], keys: Iterable[str]) -> list[str]:
    """Give an app's screen, and how it looks after each of some keys."""
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
    await pilot.pause(0.3)  # what is measured when nothing else runs
    return by_itself(app.export_screenshot())


def animated(frames: Sequence[str], seconds: Sequence[float]) -> str:
    """Put pictures of one size into one that shows them in turns; who wants no motion sees the last.

    What stays the same from one frame to the next is drawn once.
    """
    looks: dict[str, str] = {}  # the name of each look, by what it is
    drawn = [_elements(frame, looks) for frame in frames]
    starts = [0.0, *accumulate(seconds)]
    layers, moves = [], []
    for kind in ("<rect", "<text"):  # no rectangle covers a text
        stretches = _stretches(drawn, kind)
        for first, last in sorted(stretches, key=lambda stretch: (stretch[0], -stretch[1])):  # the background first
            name = f"from-{first}-to-{last}"
            layers.append(
                f'<g class="part {name}{" last" * (last == len(frames) - 1)}">{"".join(stretches[first, last])}</g>'
            )
            begin, end = (100 * each / starts[-1] for each in (starts[first], starts[last + 1]))
            hidden = "0% { visibility: hidden; } " if first else ""
            gone = f" {end:.3f}% {{ visibility: hidden; }}" if last < len(frames) - 1 else ""
            moves.append(f"@keyframes {name} {{ {hidden}{begin:.3f}% {{ visibility: visible; }}{gone} }}")
            moves.append(f".{name} {{ animation-name: {name}; }}")
    style = re.search(r"\.terminal-matrix \{.*?\}", frames[0], re.DOTALL)
    head, _, body = frames[0].partition("<!--")
    around, _, cells = body.partition("</defs>")[2].partition('<g class="terminal-matrix">')
    assert style
    assert cells
    return "\n".join(
        [
            head,
            "<style>",
            style[0],
            *(f".{name} {{ {look} }}" for look, name in looks.items()),
            f".part {{ visibility: hidden; animation: {starts[-1]:g}s step-end infinite; }}",
            *dict.fromkeys(moves),
            "@media (prefers-reduced-motion) { .part { animation: none; } .last { visibility: visible; } }",
            "</style>",
            re.sub(r' clip-path="[^"]*"|<text[^>]*>.*?</text>', "", around, flags=re.DOTALL),
            '<g class="terminal-matrix">',
            *layers,
            "</g></g></svg>\n",
        ]
    )


def _stretches(drawn: Sequence[Sequence[str]], kind: str) -> dict[tuple[int, int], list[str]]:
    """Return the elements of a kind by the frames, from the first to the last, for which they stay."""
    stretches: dict[tuple[int, int], list[str]] = {}
    begun: dict[str, int] = {}
    for index, elements in enumerate([*drawn, []]):
        for element in [each for each in begun if each not in elements]:
            stretches.setdefault((begun.pop(element), index - 1), []).append(element)
        for element in elements:
            if element.startswith(kind):
                begun.setdefault(element, index)
    return stretches


def _elements(picture: str, looks: dict[str, str]) -> list[str]:
    """Return what a picture draws in the terminal's cells; a look has the same name in all pictures."""
    names = {
        name: looks.setdefault(look, f"look-{len(looks)}")
        for name, look in re.findall(r"\.(terminal-r\d+) \{ (.*?) \}", picture)
    }
    cells = picture[picture.index("url(#terminal-clip-terminal)") :]
    elements = re.findall(r"<rect[^>]*/>|<text[^>]*>.*?</text>", cells.replace("&#160;", "\u00a0"), re.DOTALL)
    background, _ = Counter(re.findall(r'<rect fill="([^"]*)"', cells)).most_common(1)[0]
    size = re.search(r'<clipPath id="terminal-clip-terminal">\s*<rect x="0" y="0" ([^>]*)/>', picture)
    assert size
    behind = f'<rect fill="{background}" {size[1]}/>'
    elements = [behind, *(each for each in elements if f'fill="{background}"' not in each)]
    renamed = [re.sub(r'class="(terminal-r\d+)"', lambda m: f'class="{names[m[1]]}"', each) for each in elements]
    return [re.sub(r' clip-path="[^"]*"', "", each) for each in renamed]


def main() -> None:
    """Write all pictures beside this script."""
    for name, (scenario, commands, size, keys) in PICTURES.items():
        *_, drawn = asyncio.run(pictures(scenario, commands, size, keys))
        (HERE / name).write_text(drawn, encoding="utf-8")
    for name, keys in SCRIPT_PICTURES.items():
        *_, drawn = asyncio.run(script_pictures(keys))
        (HERE / name).write_text(drawn, encoding="utf-8")
    frames = asyncio.run(pictures("linear", "", (80, 24), [key for key, _ in KEYS]))
    (HERE / FIRST_MINUTE).write_text(animated(frames, [BEGINNING, *(shown for _, shown in KEYS)]), encoding="utf-8")


if __name__ == "__main__":
    main()
