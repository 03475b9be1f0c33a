"""Files of drawn frames as no leader writes them, read by a follower while they grow; every frame it takes is drawn."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import traceback
from array import array
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.core.capabilities import READ_ONLY
from autograd_tui.core.command import Commands
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import Parts, Scenario
from autograd_tui.journal.followed_session import FollowedSession
from autograd_tui.journal.frame_stream import FrameStream, frames_path
from autograd_tui.text.frame_summary import frame_line
from autograd_tui.text.hidden_results import hide_results
from autograd_tui.text.plot_view import PlotView, plot_words
from autograd_tui.text.table.layers import Layers, TableView, ViewRow
from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.layouts import (  # type: ignore[attr-defined]
    BuffersPanel,
    CodePanel,
    DataPanel,
    ExplanationPanel,
    LossPanel,
    OutputPanel,
    ParametersPanel,
    PhasesPanel,
    ScatterPanel,
    SelectedPanel,
    TablePanel,
)
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.text_panels import StatusPanel
from autograd_tui.tui.screen_state import View

JOURNAL = b"the first line of all their journals\n"
ORIGINALS = 24  # files that are damaged, each of a run of its own
ON_SCREEN = 100  # one case in so many is shown by the whole app
PANELS: tuple[Callable[[], Panel], ...] = (
    PhasesPanel,
    CodePanel,
    lambda: CodePanel(running_line_only=True),
    ExplanationPanel,
    DataPanel,
    OutputPanel,
    ParametersPanel,
    TablePanel,
    SelectedPanel,
    BuffersPanel,
    ScatterPanel,
    LossPanel,
    StatusPanel,
)
SIZES = ((120, 40), (58, 11), (36, 8), (20, 3), (9, 1))
DEEP = "[" * 100_000 + "]" * 100_000
TEXTS = ["", "nan", "inf", "s", "w=3", "lr[7]=1", "undo", "sgd,momentum=x", "a" * 30_000, "\ud800", "\x1b[2J", "[/b]"]
NUMBERS = [0, 1, -1, 2, 7, 17, 10**6, 2**63, -(2**63), 10**400, 0.5, -0.5, 1e308, 5e-324, math.nan, math.inf]
ODD: list[Any] = [*TEXTS, *NUMBERS, None, True, False, [], {}, [[]], [0, 0], {"": 0}]
ODD += [{"table": 1}, {"table": 99}, {"float": "nan"}, {"float": "1"}, {"set": [0, 99]}, {"set": [[]]}]
ODD += [{"array": "AAAA"}, {"array": "AAAAAAAA8D8="}, {"Command": "s"}, {"Command": "fb"}, {"Frame": {}}, {"int": 1}]
DOUBLES = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 1e308, -1e308, 5e-324, 1e18, 1e19]


class Odd(nn.Module):
    """Has parameters and buffers of kinds that few models have."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 3, sparse=True)
        self.phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        self.short = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
        self.unused = nn.Parameter(torch.zeros(0, 4))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mask", torch.ones(5, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1  # type: ignore[assignment, operator]
        return self.embedding(x) * self.phase.abs().sum() + self.short.float()


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 32), nn.BatchNorm1d(32), nn.Dropout(0.3), nn.Linear(32, 2))


def _deep() -> nn.Module:
    return nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)) for _ in range(5)))


def _mse(prediction: Tensor, target: Tensor) -> Tensor:
    return ((target - prediction) ** 2).mean()


def _parts(kind: int) -> Parts:
    """Build one of the models whose frames differ most in what they hold."""
    if kind == 0:
        return Parts(model=_net(), batch=lambda i: (torch.rand(16, 4), torch.rand(16, 2)), loss=_mse, optimizer="adam")
    if kind == 1:
        both = torch.rand(7, 3), torch.rand(7, 3)
        return Parts(model=_deep(), batch=lambda i: both, loss=_mse, optimizer="sgd,lr=0.1,momentum=0.9")
    if kind == 2:
        names = tuple(f"class {place}" for place in range(20))
        batch = torch.rand(2, 6), torch.rand(2, 20)
        return Parts(model=nn.Linear(6, 20), batch=lambda i: batch, loss=_mse, class_names=names)
    if kind == 3:
        positions = torch.rand(2, 5, 4), torch.rand(2, 5, 7)
        metrics = {"accuracy": lambda q, y: (q - y).abs().max()}
        return Parts(model=nn.Linear(4, 7), batch=lambda i: positions, loss=_mse, metrics=metrics)
    if kind == 4:
        model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1, bias=False))
        groups = [{"params": ["0.weight"], "lr": 0.5}, {"params": ["1.weight"], "momentum": 0.9}]
        batch = torch.rand(3, 2), torch.rand(3, 1)
        return Parts(model=model, batch=lambda i: batch, loss=_mse, groups=groups)
    if kind == 5:
        return Parts(
            model=Odd(), batch=lambda i: (torch.arange(4), torch.ones(4, 3)), loss=lambda q, y: (q - y).abs().sum()
        )
    return Parts(model=nn.Linear(1, 1), batch=_batch_that_raises, loss=_mse)


def _batch_that_raises(index: int) -> tuple[Tensor, Tensor]:
    if index % 2:
        raise RuntimeError("no batch of an odd number\nsecond line \x1b[31m")
    return torch.ones(4, 1), torch.tensor([[1.0], [math.inf], [1e200], [math.nan]])


def some_session(rng: random.Random) -> Session:
    kind = rng.randrange(-2, 7)
    if kind < 0:
        return open_session("linear", seed=rng.randrange(9))
    return open_session(Scenario(f"model {kind}", lambda _: _parts(kind)), seed=rng.randrange(9))


WORDS = [*["f", "b", "s", "z"] * 3, "F", "B", "S", "Z", "lr=0.5", "lr[1]=2", "optimizer=adam", "optimizer=rprop"]
WORDS += ["w=3", "w=nan", "b=inf", "seed=4", "w.requires_grad=False", "requires_grad=True", "@0", "@2", "undo", "undo"]
WORDS += ["branch=1"]


@dataclass(frozen=True)
class Original:
    """A file as its leader wrote it, and the frame that it ends with."""

    lines: tuple[bytes, ...]
    last: Frame


@lru_cache(maxsize=ORIGINALS)
def original(number: int) -> Original:
    """Lead a random run whose every frame is drawn."""
    rng = random.Random(number)
    with TemporaryDirectory() as folder:
        session, journal = some_session(rng), Path(folder) / "j"
        journal.write_bytes(JOURNAL)
        drawn = FrameStream(journal, session.about, mode=0o600)
        for word in rng.choices(WORDS, k=rng.choice([1, 4, 12, 24])):
            start = session.frame.index
            with suppress(Refused):
                if rng.random() < 0.1:
                    list(session.run_free(session.end_of(rng.choice([3, 300])), lambda: False))
                else:
                    session.run(word)
            drawn.ran_from(min(start, session.frame.index))
            drawn.drew(session.frame, session.newest, session.history)
            if rng.random() < 0.9:
                drawn.write_newest()
        drawn.close()
        return Original(tuple(frames_path(journal).read_bytes().splitlines(keepends=True)), session.frame)


# Damage.


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the way to each value inside a value of JSON."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def changed(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """Give a value of JSON with another one inside it."""
    if not path:
        return change(value)
    key, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = changed(value[key], tuple(rest), change)
    return copy


def with_other_value(line: bytes, rng: random.Random) -> bytes:
    """Put something else in the place of one value, or next to it, or take it out; in a column often."""
    value = json.loads(line)

    def other(old: Any) -> Any:
        if isinstance(old, int) and not isinstance(old, bool) and rng.random() < 0.6:
            return old + rng.choice([-1, 1, 1000])
        if isinstance(old, str) and rng.random() < 0.6 and _numbers(old) is not None:
            return other_numbers(old, rng)
        if isinstance(old, dict) and old and rng.random() < 0.5:
            left_out = rng.choice(list(old))
            kept = {key: each for key, each in old.items() if key != left_out}
            return kept if rng.random() < 0.5 else {**kept, rng.choice(list(old)) + "x": old[left_out]}
        if isinstance(old, list) and old and rng.random() < 0.5:
            return rng.choice([old[1:], old + old[:1], old[::-1]])
        return rng.choice(ODD)

    ways = list(places(value))
    columns = [way for way in ways if isinstance(at := _at(value, way), str) and _numbers(at)]
    way = rng.choice(columns if columns and rng.random() < 0.4 else ways)
    return json.dumps(changed(value, way, other)).encode() + b"\n"


def _numbers(text: str) -> bytes | None:
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        return None
    return data if data and len(data) % 8 == 0 else None


def other_numbers(text: str, rng: random.Random) -> str:
    """Change numbers of an array in base64, or how many they are."""
    data = _numbers(text) or b""
    numbers = array("d", data)
    for _ in range(rng.choice([1, 1, 3, 30])):
        numbers[rng.randrange(len(numbers))] = rng.choice(DOUBLES)
    whole = array("q", data)
    at = rng.randrange(len(whole))
    whole[at] = rng.choice([whole[at] - 1, whole[at] + 1, -1, 1 << 62]) % (1 << 63)
    found = rng.choice([numbers.tobytes(), numbers.tobytes(), whole.tobytes(), data[8:], data + data[:8], data[:-3]])
    return b64encode(found).decode() if rng.random() < 0.95 else text.replace("A", rng.choice("é*=BZ"), 3)


def flipped(content: bytes, rng: random.Random) -> bytes:
    """Change, take out or put in a few bytes."""
    for _ in range(rng.choice([1, 1, 2, 5, 50])):
        place = rng.randrange(len(content) + 1)
        content = content[:place] + rng.randbytes(rng.randrange(3)) + content[place + rng.randrange(3) :]
    return content


def spoiled(lines: list[bytes], rng: random.Random) -> list[bytes]:
    """Damage a file in one place."""
    way, at, to = rng.randrange(20), rng.randrange(len(lines)), rng.randrange(len(lines))
    if way == 0:
        cut = rng.randrange(len(lines[at]))
        return [*lines[:at], lines[at][:cut]]
    if way == 1:
        return [*lines[:at], flipped(lines[at], rng), *lines[at + 1 :]]
    if way == 2:
        lines[at], lines[to] = lines[to], lines[at]
        return lines
    if way == 3:
        return [*lines[:at], *lines[at + 1 :]]
    if way == 4:
        stranger = original(rng.randrange(ORIGINALS)).lines
        return [*lines[:at], rng.choice(stranger), *lines[at + rng.randrange(2) :]]
    if way == 5:
        odd = [
            b"\n",
            b"\0\n",
            b"{}\n",
            b'{"left": true}\n',
            b"\xff\xfe[\0]\0\n",
            f"{DEEP}\n".encode(),
            b"1" * 5000 + b"\n",
        ]
        return [*lines[:at], rng.choice(odd), *lines[at + rng.randrange(2) :]]
    with suppress(ValueError, RecursionError):  # it is damaged already
        lines[at] = with_other_value(lines[at], rng)
    return lines


# Following.


@dataclass(frozen=True)
class Spoiled:
    """One case: a damaged file, and in which pieces it comes."""

    first: int  # which original
    damages: int
    content: bytes
    pieces: tuple[int, ...]

    def __repr__(self) -> str:
        return f"original {self.first}, {self.damages} damages, pieces {self.pieces}"


def some_frames(rng: random.Random) -> Spoiled:
    """Damage the file of a random run; or leave it whole."""
    number, damages = rng.randrange(ORIGINALS), rng.choice([0, 1, 1, 1, 1, 2, 3])
    lines = list(original(number).lines)
    for _ in range(damages):
        lines = spoiled(lines, rng) or [b""]
    content = b"".join(lines)
    ends = [rng.randrange(len(content) + 1) for _ in range(rng.randrange(4))]
    return Spoiled(number, damages, content, (*sorted(ends), len(content)))


def draw(following: FollowedSession, frame: Frame, rng: random.Random) -> None:
    """Draw what the screen would of a frame."""
    layers = Layers.of(frame.params.layout.names)
    group = rng.choice(list(layers.groups))
    cursor = rng.choice([None, ViewRow(group), ViewRow(group, layers.groups[group][0])])
    if cursor is not None and cursor.parameter is None and layers.alone(group):
        cursor = ViewRow(group, layers.groups[group][0])
    column = rng.choice(["model", "name", "values", "params", "grad", "update", "state", "spread", "tensors"])
    view = TableView(cursor, frozenset(rng.choice([(), (group,)])), column, asked=True)
    history = following.history.copy()
    veils = [None, *filter(None, (hide_results(frame, stage) for stage in (0, 1)))]
    width, height = rng.choice(SIZES)
    for new in PANELS:
        panel = new()
        shown = View(frame, following.about, following.newest, history, table=view)
        shown = replace(shown, log_scale=rng.random() < 0.5, plot=_plot_view(rng, frame, history))
        for veil in veils:
            panel.set_reactive(Panel.view, replace(shown, hidden=veil))
            panel.rows_wanted()
            for line in panel.lines(width, height):
                assert all(isinstance(text, str) and isinstance(style, str) for text, style in line)
    frame_line(frame)


def _plot_view(rng: random.Random, frame: Frame, history: History) -> PlotView:
    """Choose what is plotted, and how."""
    words = [*(word for word, _ in plot_words(frame)), *history.metrics, "missing"]
    ends = sorted(rng.choices(range(20), k=2))
    first, last = ends if rng.random() < 0.3 else (None, None)
    cursor = rng.choice([None, rng.randrange(30)])
    names = tuple(rng.sample(words, rng.randint(1, 3)))
    return PlotView(names, first, last, rng.choice([0.0, 0.9]), cursor)


def follow(what: Spoiled, whole: Original, path: Path, rng: random.Random) -> str | None:
    """Follow a file that grows in pieces; say what is wrong with that, None where nothing is."""
    file, begun, following = frames_path(path), 0, None
    file.unlink(missing_ok=True)
    path.write_bytes(JOURNAL)
    for end in what.pieces:
        with file.open("ab") as appended:
            appended.write(what.content[begun:end])
        begun = end
        if following is None:
            with suppress(Refused):
                following = FollowedSession(path)
        else:
            following.refresh()
        if following is not None:
            draw(following, following.frame, rng)
    if not what.damages and (following is None or following.damage or not following.frame.same(whole.last)):
        return f"an intact file is not followed: {following and following.damage}"
    if following is None:
        return None
    for index in rng.sample(range(following.newest % 1000 + 1), k=min(3, following.newest % 1000 + 1)):
        draw(following, following.look(index), rng)
        following.look_alike(index, 1)
    return None if rng.random() < 0.8 else goes_on(following, whole, file)


def goes_on(following: FollowedSession, whole: Original, file: Path) -> str | None:
    """Let the leader begin its file anew; say so where the follower does not take that up."""
    new = file.with_name("new")
    new.write_bytes(b"".join(whole.lines))
    os.replace(new, file)
    following.refresh()
    another = following.damage and "of another model" in following.damage
    if not another and (following.damage or not following.frame.same(whole.last)):
        return f"a file begun anew is not followed: {following.damage}"
    return None


async def on_screen(what: Spoiled, path: Path) -> None:
    """Show the file while it grows, with a few keys in between."""
    file, begun = frames_path(path), what.pieces[len(what.pieces) // 2]
    file.write_bytes(what.content[:begun])
    try:
        following = FollowedSession(path)
    except Refused:
        return
    opened: Any = lambda _: following  # noqa: E731
    app = AutogradApp(opened, Commands(), title=following.about.title, can=READ_ONLY)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause(0.1)
        with file.open("ab") as appended:
            appended.write(what.content[begun:])
        await pilot.pause(0.1)
        for keys in (["left", "left", "down", "enter"], ["a", "escape", "y", "right"], ["colon", "l", "o", "escape"]):
            await pilot.press(*keys)
        for size in ((80, 24), (50, 12), (120, 40)):
            await pilot.resize_terminal(*size)
            await pilot.pause(0.02)
        assert app.failure is None, app.failure


def case_of_frames(rng: random.Random, folder: Path, *, shown: bool) -> tuple[object, str | None]:
    """Follow a damaged file; the whole app shows it where that is asked for."""
    what = some_frames(rng)
    try:
        wrong = follow(what, original(what.first), folder / "j", rng)
        if shown:
            asyncio.run(on_screen(what, folder / "j"))
    except BaseException:
        return what, traceback.format_exc()
    return what, wrong
