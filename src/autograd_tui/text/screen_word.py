"""Words that concern the screen alone: what trains has no part in them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from autograd_tui.engine.values.command import MOST_COMMANDS, PHASES
from autograd_tui.engine.values.errors import NotUnderstood
from autograd_tui.engine.values.goal import Goal
from autograd_tui.engine.values.nearest import clipped, unknown
from autograd_tui.engine.values.optimizer_spec import parse_number
from autograd_tui.engine.values.scenario_names import BUILT_IN, installed
from autograd_tui.engine.values.watchpoint import Watchpoint, parse_watchpoint

COLUMNS = ("tensors", "values", "params", "grad", "update", "name", "model")  # that a table is sorted by
MOST_ITERATIONS = MOST_COMMANDS // len(PHASES)
ALONE = ("log", "linear", "ascii", "unicode", "veil", "inside", "console", "help", "quit")
EXPORTS = (".py", ".csv", ".jsonl", ".svg", ".html", ".tb", ".pt")  # endings of the files that a run is written to
EXAMPLES = {
    "sort": "sort update",
    "model": "model resnet18",
    "theme": "theme light",
    "plot": "plot loss",
    "speed": "speed 4",
}


@dataclass(frozen=True, slots=True)
class ScreenWord:
    """One thing to tell the screen. It trains nothing, so no session knows of it.

    `value` is the column of "sort", the scenario of "model", the name of "theme"; for "speed" the commands a second,
    None for full; the file of "export", None for a picture and a line; for "run" the number of iterations, or its goal;
    for "watch" a condition, "off", or None to list those that are armed.
    """

    name: str
    value: str | float | Goal | Watchpoint | None = None


def is_screen_word(name: str) -> bool:
    """Tell whether a line that begins so is for the screen."""
    return name in READERS or name in ALONE


def read_screen_word(name: str, rest: str) -> ScreenWord:
    """Read one of them and what stands behind it; raises NotUnderstood."""
    if name in READERS:
        if not rest and name in EXAMPLES:
            raise NotUnderstood(f'"{name}" needs a word behind it, as in {EXAMPLES[name]}.')
        return ScreenWord(name, READERS[name](rest))
    if rest:
        raise NotUnderstood(f'"{name}" stands alone: nothing belongs behind it.')
    return ScreenWord(name)


def _column(text: str) -> str:
    if text not in COLUMNS:
        raise NotUnderstood(unknown(text, "column", COLUMNS))
    return text


def _scenario(text: str) -> str:
    if text not in BUILT_IN and not re.search(r"\.(py(:\w+)?|ipynb)$", text) and text not in (names := installed()):
        raise NotUnderstood(unknown(text, "scenario", (*BUILT_IN, *names, "my_model.py")))
    return text


def _export(text: str) -> str | None:
    if text and not text.endswith(EXPORTS):
        raise NotUnderstood(f'"export {clipped(text)}" needs one of these endings: {", ".join(EXPORTS)}.')
    return text or None


def _speed(text: str) -> float | None:
    if text == "full":
        return None
    speed = parse_number(text)
    if speed is None or not 0 < speed < math.inf:
        raise NotUnderstood(f'"speed {clipped(text)}" makes no sense: give commands a second, as in speed 4, or full.')
    return speed


def _run(text: str) -> int | Goal:
    if not text:
        return Goal()
    if until := re.fullmatch(r"loss ?([<>]) ?(?!=)(.*)", text):
        loss = parse_number(until[2])
        if loss is None or not math.isfinite(loss):
            raise NotUnderstood(f'"run {clipped(text)}" needs a number behind {until[1]}, as in run loss<0.01.')
        return Goal(below=loss) if until[1] == "<" else Goal(above=loss)
    times = parse_number(text)
    if times is None:
        raise NotUnderstood(f'"run {clipped(text)}" is not understood: {_run_meant(text)}.')
    if not (times >= 1 and times.is_integer()):
        raise NotUnderstood(f'"run {clipped(text)}" makes no sense: give whole iterations, 1 or more.')
    if times > MOST_ITERATIONS:
        raise NotUnderstood(f'"run {clipped(text)}" asks for more than {MOST_ITERATIONS:,} iterations at once.')
    return int(times)


def _run_meant(text: str) -> str:
    """Say how a run is asked for that goes on for so long or so far; a loss is compared by < and > alone."""
    loss = re.fullmatch(r"(?:until |till |to |while )?loss ?(<=|>=|=<|=>|≤|≥|[<>=]|) ?(\S+)", text)
    if loss and parse_number(loss[2]) is not None:
        return f"the nearest is run loss{'>' if set(loss[1]) & set('>≥') else '<'}{clipped(loss[2])}"
    if times := re.fullmatch(r"(?:for )?(\d{1,15}) (?:iterations?|epochs?|steps?|times)", text):
        return f"the nearest is run {times[1]}"
    return "say run, run 100 or run loss<0.01"


def _watch(text: str) -> Watchpoint | str | None:
    return parse_watchpoint(text) if text not in ("", "off") else text or None


READERS: dict[str, Callable[[str], str | float | Goal | Watchpoint | None]] = {
    "run": _run,
    "watch": _watch,
    "export": _export,
    "speed": _speed,
    "model": _scenario,
    "sort": _column,
    "theme": str,
    "plot": str,
}
