"""Readers of what stands behind a word for the screen; each raises UnknownCommand for what makes no sense."""

from __future__ import annotations

import math
import re

from autograd_tui.core.command import MAX_COMMANDS, PHASES, is_value_name
from autograd_tui.core.errors import UnknownCommand, clipped, unknown
from autograd_tui.core.loss_surface import SurfaceChoice
from autograd_tui.core.optimizer_spec import parse_number
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.run_config import BUILT_IN, installed
from autograd_tui.core.watchpoint import Watchpoint, parse_watchpoint

MAX_ITERATIONS = MAX_COMMANDS // len(PHASES)
EXPORT_ENDINGS = (".py", ".csv", ".jsonl", ".svg", ".html", ".tb", ".pt")  # of the files that a run is written to
SORT_COLUMNS = {  # that a table is sorted by
    "tensors": "how many tensors a layer has",
    "values": "how many numbers are in them",
    "params": "the norm of the parameters",
    "grad": "the norm of the gradients",
    "update": "how far the last step moved, for its size",
    "name": "by the alphabet",
    "model": "in the model's own order",
}


def read_column(text: str) -> str:
    """Return the column to sort a table by."""
    if text not in SORT_COLUMNS:
        raise UnknownCommand(unknown(text, "column", SORT_COLUMNS))
    return text


def read_scenario(text: str) -> str:
    """Return a scenario's name, or its file with or without a function's name."""
    if text not in BUILT_IN and not re.search(r"\.(py(:\w+)?|ipynb)$", text) and text not in (names := installed()):
        raise UnknownCommand(unknown(text, "scenario", (*BUILT_IN, *names, "my_model.py")))
    return text


def read_export(text: str) -> str | None:
    """Return the file to write; None for a picture of the screen and the line that repeats the run."""
    if text and not text.endswith(EXPORT_ENDINGS):
        raise UnknownCommand(f'"export {clipped(text)}" needs one of these endings: {", ".join(EXPORT_ENDINGS)}.')
    return text or None


def read_image(text: str) -> int:
    """Return the number of an image or sample of the batch, from 1."""
    if not text.isdecimal() or not int(text):
        raise UnknownCommand(f'"image {clipped(text)}" makes no sense: give its number in the batch, from 1.')
    return int(text)


def read_speed(text: str) -> float | None:
    """Return the commands a second; None for as many as there is time for."""
    if text == "full":
        return None
    speed = parse_number(text)
    if speed is None or not 0 < speed < math.inf:
        raise UnknownCommand(f'"speed {clipped(text)}" makes no sense: give commands a second, as in speed 4, or full.')
    return speed


def read_run(text: str) -> int | Goal:
    """Return how many iterations to run, or the goal to run to; a goal without bounds is never reached."""
    if not text:
        return Goal()
    if until := re.fullmatch(r"loss ?([<>]) ?(?!=)(.*)", text):
        loss = parse_number(until[2])
        if loss is None or not math.isfinite(loss):
            raise UnknownCommand(f'"run {clipped(text)}" needs a number behind {until[1]}, as in run loss<0.01.')
        return Goal(below=loss) if until[1] == "<" else Goal(above=loss)
    times = parse_number(text)
    if times is None:
        raise UnknownCommand(f'"run {clipped(text)}" is not understood: {_suggest_run(text)}.')
    if not (times >= 1 and times.is_integer()):
        raise UnknownCommand(f'"run {clipped(text)}" makes no sense: give whole iterations, 1 or more.')
    if times > MAX_ITERATIONS:
        raise UnknownCommand(f'"run {clipped(text)}" asks for more than {MAX_ITERATIONS:,} iterations at once.')
    return int(times)


def _suggest_run(text: str) -> str:
    """Return how a run is asked for that goes on for so long or so far; a loss is compared by < and > alone."""
    loss = re.fullmatch(r"(?:until |till |to |while )?loss ?(<=|>=|=<|=>|≤|≥|[<>=]|) ?(\S+)", text)
    if loss and parse_number(loss[2]) is not None:
        return f"the nearest is run loss{'>' if set(loss[1]) & set('>≥') else '<'}{clipped(loss[2])}"
    if times := re.fullmatch(r"(?:for )?(\d{1,15}) (?:iterations?|epochs?|steps?|times)", text):
        return f"the nearest is run {times[1]}"
    return "say run, run 100 or run loss<0.01"


def read_surface(text: str) -> SurfaceChoice:
    """Return the two values to draw the loss over, "off", or "usual" where nothing is said."""
    if text in ("", "off"):
        return "off" if text else "usual"
    names = text.replace(", ", ",").split()
    if len(names) != 2 or not all(map(is_value_name, names)):
        raise UnknownCommand(f'"surface {clipped(text)}" needs two values, as in surface w b or fc.bias[0] fc.bias[1].')
    return names[0], names[1]


def read_watch(text: str) -> Watchpoint | str | None:
    """Return a condition, "off" to watch none, or None to list those that are watched."""
    return parse_watchpoint(text) if text not in ("", "off") else text or None
