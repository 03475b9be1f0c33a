"""What can be done with a scenario: every phase, looks inside, ways back, exports, a journal, a screen."""

from __future__ import annotations

import asyncio
import faulthandler
import io
import os
import random
import shutil
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import torch

from autograd_tui.core.command import Commands, parse
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.trace import Trace
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.export.formats import export_file, export_repro
from autograd_tui.headless import run_headless
from autograd_tui.journal.reader import read_journal
from autograd_tui.journal.resume_run import resume_run
from autograd_tui.journal.writer import JournalWriter
from autograd_tui.text.derivation.chain_rule import chain_rule_lines
from autograd_tui.text.styled_text import one_line
from autograd_tui.text.trace.health import health_lines
from autograd_tui.text.trace.operation_lines import operation_lines, trace_lines
from autograd_tui.text.trace.trace_position import TracePosition
from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.panels.batch import DataPanel, OutputPanel, ScatterPanel
from autograd_tui.tui.panels.code import CodePanel
from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.parameters import ParametersPanel
from autograd_tui.tui.panels.phases import PhasesPanel
from autograd_tui.tui.panels.table import BuffersPanel, SelectedPanel, TablePanel
from autograd_tui.tui.panels.text_panels import ExplanationPanel, StatusPanel
from autograd_tui.tui.panels.trace_panels import GraphPanel
from autograd_tui.tui.preferences import Preferences
from autograd_tui.tui.screen_state import View
from odd_scenarios import HOOKS

FILE = "from odd_scenarios import odd_scenario\nbuild = odd_scenario({number}, __name__)\n"
HANGS = 300.0  # seconds
PANELS: list[type[Panel]] = [
    BuffersPanel,
    CodePanel,
    DataPanel,
    ExplanationPanel,
    ScatterPanel,
]
PANELS += [LossPanel, OutputPanel, ParametersPanel, PhasesPanel, SelectedPanel, StatusPanel, TablePanel]
SIZES = ((118, 38), (78, 20), (36, 8), (5, 2))
WORDS = ["f", "b", "s", "z", "F", "B", "S", "Z", "lr=0.1", "lr=0", "optimizer=adam", "optimizer=sgd,lr=0.1", "seed=3"]
WORDS += [
    "last.bias=3",
    "first.weight[0,0]=nan",
    "own=1",
    "w=1",
    "requires_grad=false",
    "requires_grad=true",
    "lr[1]=0.5",
]
WORDS += [
    "last.bias.requires_grad=false",
    "F B S Z".replace(" ", ""),
    "i:f",
    "i:b",
    "i:s",
    "i:z",
    "I:F",
    "i:F",
    "i:B",
    "branch=1",
]
KEYS = [
    "f",
    "b",
    "s",
    "z",
    "space",
    "i",
    "escape",
    "u",
    "n",
    "left",
    "right",
    "v",
    "a",
    "tab",
    "enter",
    "down",
    "question_mark",
]
KEYS += ["F", "B", "S", "y", "e", "slash", "less_than_sign", "greater_than_sign", "p"]


@contextmanager
def as_it_was(folder: Path) -> Iterator[None]:
    """Put back what a scenario may change in this process, and have what it writes in a folder."""
    path, modules = sys.path.copy(), set(sys.modules)
    with chdir(folder), warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            sys.path[:] = path
            for name in set(sys.modules) - modules:
                if name == "my_model":
                    del sys.modules[name]
            torch.set_grad_enabled(True)
            torch.set_default_dtype(torch.float32)
            while HOOKS:
                with suppress(Exception):
                    HOOKS.pop().remove()


@contextmanager
def ended_where_it_hangs(number: int) -> Iterator[None]:
    """End the program where a case has not ended for so long, with its number and where it stands."""

    def end() -> None:
        print(f"case {number} hangs", file=sys.__stderr__, flush=True)
        faulthandler.dump_traceback(sys.__stderr__)  # type: ignore[arg-type]
        os._exit(3)

    timer = threading.Timer(HANGS, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def sentence(error: Refused) -> str | None:
    """Say what is wrong with the words of a refusal; None where nothing is."""
    said = str(error)
    if not one_line(said):
        return f"an empty refusal: {said!r}"
    return None if len(said) < 12_000 else f"a refusal of {len(said)} characters"


class Walker:
    """Does one thing after the other with a session; `wrong` is what must not be."""

    def __init__(self, file: Path, rng: random.Random) -> None:
        self.file, self.rng, self.wrong = file, rng, list[str]()
        self.done: list[str] = []

    def attempt(self, what: str, function: Callable[[], Any]) -> Any:
        """Do something that may be refused; note what else it raises."""
        self.done.append(what)
        try:
            return function()
        except Refused as error:
            if wrong := sentence(error):
                self.wrong.append(f"{what}: {wrong}")
        except BaseException:
            self.wrong.append(f"after {' '.join(self.done)}:\n{traceback.format_exc()}")
        return None

    def open(self) -> Session | None:
        return self.attempt("open", lambda: open_session(str(self.file), device="cpu"))

    def walk(self, session: Session) -> None:
        """Run a usual iteration, or anything."""
        rng = self.rng
        words = rng.choice(["f b s z f b s z", "F B S Z F B S Z", "F F B B S S Z", " ".join(rng.choices(WORDS, k=8))])
        for word in words.split():
            self.attempt(word, lambda word=word: session.run(word))  # type: ignore[misc]
            if rng.random() < 0.3:
                self.draw(session)
        others: list[tuple[str, Callable[[], Any]]] = [
            ("undo", lambda: session.rewind(max(session.frame.index - 1, 0))),
            ("@0", lambda: session.run("@0")),
            ("@3", lambda: session.run("@3")),
            ("free", lambda: list(session.run_free(session.end_of(6), lambda: False, every=1e9))),
            ("until", lambda: list(session.run_until(session.end_of(2)))),
            *[(word, lambda word=word: session.run(word)) for word in rng.choices(WORDS, k=3)],
            *[
                (f"i:{letter}", lambda letter=letter: self.inside(session.run(f"i:{letter}").trace))
                for letter in "fbszFB"
            ],
            ("trace", lambda: self.inside(session.trace(rng.randrange(session.frame.index + 1)))),
            ("look", lambda: session.look(rng.randrange(session.newest + 1))),
            ("inspect", lambda: session.inspect(rng.choice([*session.frame.params.layout.names, "nobody"]))),
            (
                "check_gradient",
                lambda: session.check_gradient(
                    session.frame.index,
                    rng.choice([*session.frame.params.layout.names, 0]),  # type: ignore[arg-type]
                ),
            ),
            (
                "watch",
                lambda: session.arm(rng.choice(["loss > 1", "grad_norm > 0", "nonfinite", "last.bias.grad > 0"])),
            ),
            ("headless", lambda: self.headless(session, json_lines=rng.random() < 0.5)),
            ("command line", session.command_line),
            ("draw", lambda: self.draw(session)),
        ]
        for what, function in rng.sample(others, rng.choice([2, 4, 8])):
            self.attempt(what, function)
        self.draw(session)

    def headless(self, session: Session, *, json_lines: bool) -> None:
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # strict, as stdout is
        run_headless(session, parse("fbsz"), json_lines=json_lines, out=out)

    def draw(self, session: Session) -> None:
        """Draw every panel without a screen, at some size."""
        frame, (width, height) = session.frame, self.rng.choice(SIZES)
        for kind in PANELS:
            self.attempt(kind.__name__, lambda kind=kind: drawn(kind, session, frame, width, height))  # type: ignore[misc]
            self.done.pop()

    def inside(self, trace: Trace | None) -> None:
        """Draw what a trace tells, operation by operation."""
        if trace is None:
            return
        width = self.rng.choice([78, 38])
        health_lines(trace, width)
        trace_lines(trace)
        for op in trace.ops[:40]:
            operation_lines(trace, op, width)
            chain_rule_lines(trace, op, width)
        if trace.ops:
            graph = GraphPanel()
            graph.draw_trace(TracePosition(trace), width, 20)

    def export(self, session: Session, folder: Path) -> None:
        """Write the run in one form."""
        ending = self.rng.choice([".py", ".py", ".csv", ".jsonl", ".pt", ".pt", ".tb"])
        path = folder / f"out{ending}"
        log = session.log()

        def reopen() -> Session:
            return open_session(str(self.file), device="cpu")

        def write() -> None:
            if ending == ".pt":
                export_repro(path, session)
            else:
                export_file(path, session.about.config, log, reopen)

        refused = self.attempt(f"export {ending}", lambda: [write()]) is None  # type: ignore[func-returns-value]
        left = [each for each in folder.iterdir() if each.name.startswith((".out", "out"))]
        if refused and left:
            self.wrong.append(f"{ending} left {left} behind")
        for each in left:
            if each.suffix == ".py":
                self.attempt("compile", lambda each=each: compile(each.read_text(encoding="utf-8"), str(each), "exec"))  # type: ignore[misc]

    def keep_and_resume(self, folder: Path) -> None:
        """Keep a run in a journal, leave it in the middle, and go on with it."""
        session = self.open()
        if session is None:
            return
        path = folder / "run.jsonl"
        session.observer = JournalWriter(path, session.about, private=True)
        for word in self.rng.choice(["FBSZFB", "F B S Z @2 F", "f b i:s z"]).split():
            self.attempt(f"kept {word}", lambda word=word: list(session.run_all(word)))  # type: ignore[misc]
        if self.rng.random() < 0.5:
            self.attempt("kept free", lambda: list(session.run_free(session.end_of(6), lambda: False, every=1e9)))
        observer = session.observer
        self.attempt("shown", lambda: observer.on_shown(session.frame, session.newest, session.history))
        self.attempt("checkpoint", lambda: observer.on_checkpoint(session.checkpoint(), session.history))
        self.attempt("close", lambda: session.close(in_order=self.rng.random() < 0.5))
        if path.exists():
            again = self.open()
            if again is not None:
                self.attempt("resume", lambda: resume_run(again, read_journal(path)))
                self.attempt("go on", lambda: list(again.run_all("FB")))
                self.attempt("close again", lambda: again.close(in_order=True))

    def on_screen(self) -> None:
        """Press keys at the whole program, without a terminal."""
        keys = [*"fbsz", *self.rng.choices(KEYS, k=10)]
        size = self.rng.choice([(120, 40), (80, 24), (60, 15)])
        self.attempt(f"on screen {keys}", lambda: asyncio.run(self._press(keys, size)))

    async def _press(self, keys: list[str], size: tuple[int, int]) -> None:
        app = AutogradApp(
            lambda _: open_session(str(self.file), device="cpu"), Commands(), title="odd", preferences=Preferences()
        )
        async with app.run_test(size=size) as pilot:
            for key in ["", *keys]:
                await pilot.press(*[key] * bool(key))
                for _ in range(3000):
                    if not app.is_running or app.main.up_to_date:
                        break
                    await pilot.pause(0.01)
                else:
                    raise AssertionError(f"after {key} it never came to rest")
        if app.failure is not None:
            raise app.failure


def drawn(kind: type[Panel], session: Session, frame: Frame, width: int, height: int) -> None:
    """Draw a panel as its screen would."""
    panel = kind()
    panel.set_reactive(
        Panel.view, View(frame=frame, about=session.about, history=session.history, newest_history=session.history)
    )
    for line in panel.draw(frame, width, height):
        for text, style in line:
            assert isinstance(text, str), text
            assert isinstance(style, str), style


def case_of_a_scenario(number: int, folder: Path) -> tuple[object, str | None]:
    """Open scenario `number` and do with it what can be done."""
    rng = random.Random(f"walk {number}")
    file = folder / "my_model.py"
    file.write_text(FILE.format(number=number))
    walker = Walker(file, rng)
    with ended_where_it_hangs(number), as_it_was(folder):
        session = walker.open()
        if session is not None:
            walker.walk(session)
            if rng.random() < 0.5:
                walker.export(session, folder)
            if rng.random() < 0.2:
                walker.keep_and_resume(folder)
        if rng.random() < 0.04:
            walker.on_screen()
    for each in folder.iterdir():
        if each != file:
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    return walker.done, "\n".join(walker.wrong[:2]) or None
