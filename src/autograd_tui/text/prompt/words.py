"""The words of the prompt."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from autograd_tui.core.command import MAX_COMMANDS, PHASES
from autograd_tui.core.errors import UnknownCommand, clipped, unknown
from autograd_tui.core.goal import Goal
from autograd_tui.core.optimizer_spec import parse_number
from autograd_tui.core.run_config import BUILT_IN, installed
from autograd_tui.core.watchpoint import Watchpoint, parse_watchpoint

SORT_COLUMNS = ("tensors", "values", "params", "grad", "update", "name", "model")  # that a table is sorted by
MAX_ITERATIONS = MAX_COMMANDS // len(PHASES)
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


def parse_screen_word(name: str, rest: str) -> ScreenWord:
    """Read one of them and what stands behind it; raises UnknownCommand."""
    if name in READERS:
        if not rest and name in EXAMPLES:
            raise UnknownCommand(f'"{name}" needs a word behind it, as in {EXAMPLES[name]}.')
        return ScreenWord(name, READERS[name](rest))
    if rest:
        raise UnknownCommand(f'"{name}" stands alone: nothing belongs behind it.')
    return ScreenWord(name)


def _parse_column(text: str) -> str:
    if text not in SORT_COLUMNS:
        raise UnknownCommand(unknown(text, "column", SORT_COLUMNS))
    return text


def _parse_scenario(text: str) -> str:
    if text not in BUILT_IN and not re.search(r"\.(py(:\w+)?|ipynb)$", text) and text not in (names := installed()):
        raise UnknownCommand(unknown(text, "scenario", (*BUILT_IN, *names, "my_model.py")))
    return text


def _parse_export(text: str) -> str | None:
    if text and not text.endswith(EXPORTS):
        raise UnknownCommand(f'"export {clipped(text)}" needs one of these endings: {", ".join(EXPORTS)}.')
    return text or None


def _parse_speed(text: str) -> float | None:
    if text == "full":
        return None
    speed = parse_number(text)
    if speed is None or not 0 < speed < math.inf:
        raise UnknownCommand(f'"speed {clipped(text)}" makes no sense: give commands a second, as in speed 4, or full.')
    return speed


def _parse_run(text: str) -> int | Goal:
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
    """Say how a run is asked for that goes on for so long or so far; a loss is compared by < and > alone."""
    loss = re.fullmatch(r"(?:until |till |to |while )?loss ?(<=|>=|=<|=>|≤|≥|[<>=]|) ?(\S+)", text)
    if loss and parse_number(loss[2]) is not None:
        return f"the nearest is run loss{'>' if set(loss[1]) & set('>≥') else '<'}{clipped(loss[2])}"
    if times := re.fullmatch(r"(?:for )?(\d{1,15}) (?:iterations?|epochs?|steps?|times)", text):
        return f"the nearest is run {times[1]}"
    return "say run, run 100 or run loss<0.01"


def _parse_watch(text: str) -> Watchpoint | str | None:
    return parse_watchpoint(text) if text not in ("", "off") else text or None


READERS: dict[str, Callable[[str], str | float | Goal | Watchpoint | None]] = {
    "run": _parse_run,
    "watch": _parse_watch,
    "export": _parse_export,
    "speed": _parse_speed,
    "model": _parse_scenario,
    "sort": _parse_column,
    "theme": str,
    "plot": str,
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A word to stand in the place of the one being typed; it goes on where it ends in "=" or a blank."""

    word: str
    line: str
    stem: int = 0  # how many of its characters need not be shown, since they stand in the prompt

    @property
    def label(self) -> str:
        """Give the part that is shown."""
        return self.word[self.stem :].strip()

    @property
    def goes_on(self) -> bool:
        """Whether more belongs behind it."""
        return self.word.endswith(("=", " "))


def candidates(lines: dict[str, str], before: str = "") -> list[Candidate]:
    """Make candidates of words and their lines, behind what stands already."""
    return [Candidate(before + word, line, len(before)) for word, line in lines.items()]


PHASE_WORDS = {
    "fbsz": "forward, backward, step, zero_grad",
    "fbsz*10": "ten iterations",
    "B": "backward, even where b is refused; so S",
}
SETTINGS = {
    "lr=": "the learning rate, as in lr=0.01",
    "optimizer=": "start another, as in optimizer=adam",
    "seed=": "other random numbers, as in seed=1",
}
MOVES = {
    "@0": "return to a frame, here the first",
    "undo": "return to the frame before",
}
BRANCHES = {"branch=": "return to what was rewound over"}  # offered where there is one
SCREEN = {
    "run ": "run, run 100 or run loss<0.01",
    "speed ": "of a run: speed 4 is 4 commands a second",
    "watch ": "pause runs, as in watch nonfinite",
    "model ": "train another, as in model resnet18",
    "sort ": "the table by layer, as in sort update",
    "theme ": "the colours, as in theme light",
    "plot ": "the loss, grad or a metric, as in plot grad",
    "log": "the loss on a log scale",
    "linear": "the loss on a plain scale",
    "ascii": "draw with ASCII characters alone",
    "unicode": "draw with all characters",
    "inside": "walk the operations of the next phase",
    "veil": "hide new numbers until the next space",
    "console": "what has been printed",
    "export ": "a picture, or as in export run.py",
    "help": "the keys that matter",
    "quit": "leave, and print the line that repeats this",
}
LETTERS = {  # offered only where one has begun to type them
    "i:f": "a phase recorded, to be walked; so i:b, i:s, i:z",
    "f": "forward",
    "b": "backward",
    "s": "step",
    "z": "zero_grad",
    "F": "forward, as f",
    "S": "step, even where s is refused",
    "Z": "zero_grad, as z",
    "forward": "prediction and loss",
    "backward": "the gradients, added to what is there",
    "step": "move the parameters by the gradients",
    "zero_grad": "clear the gradients",
}
RATES = {
    "1e-1": "the largest in common use",
    "1e-2": "a tenth, once the loss stalls",
    "1e-3": "the usual one to begin with",
    "1e-4": "smaller steps, late in training",
    "1e-5": "the smallest in common use",
}
COLUMN_LINES = (
    "how many tensors a layer has",
    "how many numbers are in them",
    "the norm of the parameters",
    "the norm of the gradients",
    "how far the last step moved, for its size",
    "by the alphabet",
    "in the model's own order",
)
SCREEN_VALUES = {  # by the word that they stand behind
    "run": {
        "10": "ten iterations",
        "100": "a hundred iterations",
        "1000": "a thousand iterations",
        "loss<0.01": "until the loss is below a number",
        "loss>10": "until the loss is above a number",
    },
    "speed": {
        "1": "one command a second",
        "4": "four commands a second: an iteration",
        "20": "twenty commands a second",
        "full": "as fast as it goes",
    },
    "watch": {
        "nonfinite": "anything is NaN or infinite",
        "grad_norm>10": "all gradients together are large",
        "loss>10": "the loss is large",
        "still": "a parameter stops changing, for 5 iterations",
        "off": "pause at no condition any more",
    },
    "export": {
        "run.py": "a plain PyTorch script of it",
        "run.html": "a page with all its screens",
        "run.csv": "all numbers in one long table",
        "run.jsonl": "a line of JSON for each frame",
        "run.svg": "this screen",
        "run.tb": "a folder for TensorBoard",
        "case.pt": "this iteration, and a script that repeats it",
    },
    "sort": dict(zip(SORT_COLUMNS, COLUMN_LINES, strict=True)),
}
PLOTS = {"loss": "the usual one", "grad": "the norm of all gradients after each backward"}
THEMES = {"light": "for a projector", "dark": "the usual one", "ansi": "the terminal's own colours"}
