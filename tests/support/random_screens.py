"""Press random keys at the app, and compare what its panels say with a plain PyTorch loop that was told the same.

Run it by hand: `python tests/support/random_screens.py linear --times 500`. It exits with 1 where a number, an age or
a word is false.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from textual.geometry import Region

from app_screen import Screen, screen
from autograd_tui.tui.panels.panel import Panel
from panel_values import READERS, read_panel
from screen_oracle import PlainMoments
from screen_values import Facts, Page, Tally

SIZES = ((200, 60), (120, 40), (80, 24), (60, 15))
OPTIONS: dict[str, dict[str, Any]] = {  # in a batch of one there is nothing to normalise in images of 32 pixels
    "resnet18": {"weights": "random"}
}
SETTABLE = {"linear": ("w", "b"), "spiral": ("2.bias",), "lstm": ("head.bias", "head.weight[0,0]")}
RATES = ("0.1", "0.05", "0.02", "0.01", "1e-3", "1e-05", "0.5", "3", "0")
OPTIMIZERS = ("sgd", "sgd,momentum=0.9", "adam", "adamw", "rmsprop", "adagrad", "adam,lr=0.05")
MOST_FRAMES = 60  # from the start, behind which it begins anew


@dataclass
class Report:
    """What was read on all screens."""

    screens: int = 0
    faults: list[str] = field(default_factory=list)
    tallies: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    kinds: Counter[str] = field(default_factory=Counter)

    def take(self, pages: Sequence[Page], where: str) -> None:
        """Add what one screen said."""
        self.screens += 1
        for page in pages:
            self.tallies[page.panel].add(page.tally())
            for fault in page.faults:
                self.faults.append(f"{fault}\n    after {where}")
                self.kinds[re.sub(r"[+-]?[\d.]+(?:e[+-]?\d+)?", "#", fault.partition(", in ")[0])] += 1

    @property
    def total(self) -> Tally:
        """What was painted in all panels."""
        total = Tally()
        for tally in self.tallies.values():
            total.add(tally)
        return total

    def lines(self) -> Iterator[str]:
        """Say what was compared, and how much of what was painted that is."""
        total = self.total
        for panel, tally in [*sorted(self.tallies.items()), ("all", total)]:
            numbers, words = _share(tally.known_numbers, tally.numbers), _share(tally.known_words, tally.words)
            yield f"{panel:<17} numbers {numbers}   ages {words}"
        for row, times in total.unknown.most_common(25):
            yield f"  not understood {times:>5} times: {row}"
        for kind, times in self.kinds.most_common():
            yield f"  false {times:>5} times: {kind}"
        yield f"{self.screens} screens, {len(self.faults)} things that are false"


def _share(known: int, all_there_are: int) -> str:
    return f"{known:>6} of {all_there_are:>6} compared, {known / max(all_there_are, 1):>4.0%}"


class Player:
    """Presses keys at the app and tells the plain loop what they mean."""

    def __init__(self, shown: Screen, plain: PlainMoments, scenario: str, chance: random.Random) -> None:
        self._shown, self._plain, self._scenario, self._chance = shown, plain, scenario, chance
        self._looking: int | None = None
        self.keys: list[str] = []

    async def act(self) -> None:
        """Do one random thing."""
        weighted: list[tuple[int, Callable[[], Any]]] = [
            (25, lambda: self._phase(self._chance.choice("ffbbsszz"))),
            (10, lambda: self._phase(self._chance.choice("FFBSZ"))),
            (25, lambda: self._next(self._chance.choice((1, 1, 1, 2, 3)))),
            (15, lambda: self._iterations(self._chance.choice((1, 1, 2, 3)))),
            (3, self._run),
            (3, self._run_and_pause),
            (8, lambda: self._words(f"lr={self._chance.choice(RATES)}")),
            (4, lambda: self._words(f"optimizer={self._chance.choice(OPTIMIZERS)}")),
            (5, self._set_value),
            (5, self._freeze),
            (10, self._look),
            (3, self._undo),
            (2, lambda: self._go_to(self._chance.randint(0, min(self._plain.newest, MOST_FRAMES)))),
            (3, lambda: self._press(self._chance.choice(("down", "up", "enter")))),
            (2, lambda: self._words(self._chance.choice(("log", "linear", "plot grad", "plot loss", "sort update")))),
        ]
        if max(self._plain.index, self._looking or 0) > MOST_FRAMES:
            weighted = [(1, lambda: self._go_to(0))]
        weights, actions = zip(*weighted, strict=True)
        await self._chance.choices(actions, weights)[0]()

    def facts(self) -> Facts:
        """Give what is true of the screen now."""
        plain = self._plain
        moment = plain.now if self._looking is None else plain.moments[self._looking]
        return Facts(moment, plain.moments, plain.left, plain.index, plain.names, lambda: self._slope(moment))

    def _slope(self, moment: Any) -> float:
        return math.nan if moment.before is None else self._plain.slope_along(moment.before, moment.params)

    async def resize(self, size: tuple[int, int]) -> None:
        await self._shown.resize(*size)
        self.keys.append(f"[{size[0]}x{size[1]}]")

    async def _press(self, *keys: str) -> None:
        self.keys.append(" ".join(keys))
        await self._shown.press(*keys)

    def _stand(self) -> None:
        """Go on from the frame looked at."""
        if self._looking is not None:
            self._plain.go_to(self._looking)
            self._looking = None

    async def _phase(self, letter: str) -> None:
        self._stand()
        self._plain.run(letter)
        await self._press(letter)

    async def _next(self, times: int) -> None:
        self._stand()
        for _ in range(times):
            if not self._plain.run_next():
                break
        await self._press(*(str(times) if times > 1 else ""), "space")

    async def _iterations(self, times: int) -> None:
        self._stand()
        self._plain.run_iterations(times, anew=times > 1)
        await self._press(*(str(times) if times > 1 else ""), "n")

    async def _run(self) -> None:
        times = self._chance.choice((5, 12, 30) if self._scenario == "linear" else (3, 6))
        self._stand()
        self._plain.run_iterations(times, anew=True)
        await self._words(f"run {times}", known=True)

    async def _run_and_pause(self) -> None:
        """Let it run until some moment: how far it came is read from the screen, and all else is held to that."""
        if self._scenario == "resnet18":
            return
        self._stand()
        self.keys.append("r")
        await self._shown.pilot.press("r")
        await self._shown.pilot.pause(self._chance.choice((0.0, 0.02, 0.05)))
        await self._press("space")
        status = next(rows[0] for name, rows, _ in painted(self._shown) if name == "StatusPanel")
        reached = re.search(r"frame (\d+) of", status)
        while reached and self._plain.index < int(reached[1]) and self._plain.run_next(anew=True):
            pass

    async def _words(self, words: str, *, known: bool = False) -> None:
        if "=" in words and not known:
            self._stand()
            self._plain.run(words)
        self.keys.append(f":{words}")
        await self._shown.press(":", *words, "enter")
        if self._shown.app.main.prompt.is_open:
            await self._press("escape")

    async def _set_value(self) -> None:
        if names := SETTABLE.get(self._scenario):
            await self._words(f"{self._chance.choice(names)}={self._chance.choice(('3', '-1.5', '0', '4', '1', '2'))}")

    async def _freeze(self) -> None:
        names = list(self._plain.params)
        frozen = self._plain.now.frozen if self._looking is None else self._plain.moments[self._looking].frozen
        name = next(iter(sorted(frozen)), self._chance.choice(names))  # one at a time: else nothing is left to train
        await self._words(f"{name}.requires_grad={name in frozen}")

    async def _look(self) -> None:
        key, by = self._chance.choice((("left", -1), ("right", 1), ("<", 0), (">", 0), ("escape", 0)))
        here, newest = self._plain.index if self._looking is None else self._looking, self._plain.newest
        to = {"<": 0, ">": newest, "escape": self._plain.index}.get(key, min(max(here + by, 0), newest))
        self._looking = None if to == self._plain.index else to
        await self._press({"<": "less_than_sign", ">": "greater_than_sign"}.get(key, key))

    async def _undo(self) -> None:
        here = self._plain.index if self._looking is None else self._looking
        self._looking = None
        if here:  # at frame 0 it is refused, and nobody goes anywhere
            self._plain.go_to(here - 1)
        await self._press("u")

    async def _go_to(self, index: int) -> None:
        self._stand()
        self._plain.go_to(index)
        await self._words(f"@{index}", known=True)


def painted(shown: Screen) -> list[tuple[str, list[str], str]]:
    """Read the cells of each panel: its class's name, its rows, and the row of its border with the title."""
    app = shown.app
    update = app.screen._compositor.render_update(full=True, screen_stack=app._background_screens)
    cells = ["".join(text for strip in strips for text, _, _ in strip) for strips in update.strips]  # type: ignore[union-attr]

    def rows(region: Region) -> list[str]:
        return [row[region.x : region.right].rstrip() for row in cells[region.y : region.bottom]]

    panels = [each for each in app.main.query(Panel) if each.content_size.area and type(each).__name__ in READERS]
    return [(type(each).__name__, rows(each.content_region), rows(each.region)[0]) for each in panels]


async def play(scenario: str, times: int, *, seed: int = 0, write: Callable[[str], None] = print) -> Report:
    """Read so many screens of a scenario, of one app."""
    chance, report = random.Random(seed), Report()
    options = OPTIONS.get(scenario, {})
    plain = PlainMoments(scenario, **options)
    async with screen(scenario, size=SIZES[0], device="cpu", **options) as shown:
        player = Player(shown, plain, scenario, chance)
        for _ in range(times):
            if chance.random() < 0.3:
                await player.resize(chance.choice(SIZES))
            await player.act()
            facts = player.facts()
            report.take([read_panel(*each, facts) for each in painted(shown)], _last(player, shown))
    return report


def _last(player: Player, shown: Screen) -> str:
    size = shown.app.size
    return f"{' '.join(player.keys[-12:])} at {size.width}x{size.height}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", help="linear, resnet18, spiral, lstm or transformer")
    parser.add_argument("--times", type=int, default=100, metavar="N", help="screens to read")
    parser.add_argument("--seed", type=int, default=0, help="of the random keys")
    options = parser.parse_args()
    report = asyncio.run(play(options.scenario, options.times, seed=options.seed))
    for line in (*report.faults[:40], *report.lines()):
        print(line)
    return min(len(report.faults), 1)


if __name__ == "__main__":
    raise SystemExit(main())
