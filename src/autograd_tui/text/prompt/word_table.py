"""The table of the prompt's words, from which the parser, completion and every list of words in help are made."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from autograd_tui.core.command import MAX_COMMANDS, PHASES, Command, is_value_name, parse
from autograd_tui.core.errors import UnknownCommand, clipped, unknown
from autograd_tui.core.loss_surface import SurfaceChoice
from autograd_tui.core.optimizer_spec import parse_number
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.run_config import BUILT_IN, installed
from autograd_tui.core.watchpoint import Watchpoint, parse_watchpoint
from autograd_tui.text.plot_view import USUAL

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
Value = str | float | Goal | Watchpoint | tuple[str, str] | None
Group = Literal["phase", "setting", "frame", "screen"]
COMMANDS: tuple[Group, ...] = ("phase", "setting", "frame")  # the groups that a session takes too
SCRIPT_MEANINGS = {  # what words do where a script runs, which calls its phases itself
    "fbsz": "run on to each of these in turn",
    "forward": "run on to the next forward",
    "backward": "run on to the next backward",
    "step": "run on to the next step",
    "zero_grad": "run on to the next zero_grad",
    "run": "let it go on until paused, or to a loss",
    "inside": "walk the operations of the next call",
    "undo": "return to the stop before",
}
NOT_OF_SCRIPTS = {  # why there is no such word where a script runs
    "B": "a script calls its phases itself, so none can be forced: b runs on to its next backward.",
    "optimizer": "a script has made its optimizers itself: lr=0.01 sets their learning rate.",
    "seed": "a script draws its random numbers itself: they can be neither set nor drawn anew from here.",
    "requires_grad": "a script freezes its parameters itself: lr=0 holds all of them still.",
    "model": "this screen leads one script: autograd-tui and a model's name opens another screen.",
    "veil": "the veil is for models that are trained here, and not for scripts.",
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


@dataclass(frozen=True, slots=True)
class PromptWord:
    """One word: how it is written, what it does, and what completion offers of it."""

    name: str  # that `help` takes, and that a line for the screen begins with
    group: Group
    syntax: str
    meaning: str  # at most 41 characters, so that each fits into a list on a small screen
    example: str
    read: Callable[[str], Value] | None = None  # what stands behind a word for the screen; None where nothing may
    optional: bool = False  # whether it may also stand alone
    values: Mapping[str, str] = field(default_factory=dict)  # usual ones, each with what it does
    more_examples: tuple[str, ...] = ()  # that help names, of what may stand behind it
    spellings: Mapping[str, str] | None = None  # offered in place of `stem`, each with what it does
    spellings_once_begun: Mapping[str, str] = field(default_factory=dict)  # offered once their first letter is typed

    @property
    def stem(self) -> str:
        """What is typed before its value: "run ", "lr=", or all of a word that takes none."""
        if self.group == "screen":
            return f"{self.name} " if self.read else self.name
        return f"{self.name}=" if self.example.startswith(f"{self.name}=") else self.name

    @property
    def offered(self) -> Mapping[str, str]:
        """What completion offers at any time, each with what it does."""
        return {self.stem: self.meaning} if self.spellings is None else self.spellings

    @property
    def meaning_and_example(self) -> str:
        return self.meaning if self.example in self.syntax.split(" | ") else f"{self.meaning}, as in {self.example}"

    def __str__(self) -> str:
        return ", ".join([f"{self.syntax}: {self.meaning_and_example}", *self.more_examples])


def _phase(name: str, meaning: str) -> PromptWord:
    letter = name[0]
    spellings = {letter: name, name: meaning}
    return PromptWord(
        name, "phase", f"{letter} | {name}", meaning, letter, spellings={}, spellings_once_begun=spellings
    )


def _read_help(text: str) -> str | None:
    return str(find_word(text)) if text else None


_WORDS = (
    PromptWord(
        "fbsz",
        "phase",
        "fbsz*N",
        "phases in a row, so many times",
        "fbsz*10",
        spellings={"fbsz": "forward, backward, step, zero_grad", "fbsz*10": "ten iterations"},
    ),
    _phase("forward", "the prediction and the loss"),
    _phase("backward", "the gradients, added to what is there"),
    _phase("step", "let the optimizer move the parameters"),
    _phase("zero_grad", "clear the gradients"),
    PromptWord(
        "B",
        "phase",
        "F | B | S | Z",
        "the phase, even where b or s is refused",
        "B",
        spellings={"B": "backward, even where b is refused; so S"},
        spellings_once_begun={"F": "forward, as f", "S": "step, even where s is refused", "Z": "zero_grad, as z"},
    ),
    PromptWord(
        "i:",
        "phase",
        "i:f | i:b | i:s | i:z",
        "the phase recorded, to be walked",
        "i:b",
        spellings={},
        spellings_once_begun={"i:f": "a phase recorded, to be walked; so i:b, i:s, i:z"},
    ),
    PromptWord(
        "lr",
        "setting",
        "lr=X | lr[GROUP]=X",
        "set the learning rate",
        "lr=0.01",
        values={
            "1e-1": "the largest in common use",
            "1e-2": "a tenth, once the loss stalls",
            "1e-3": "the usual one to begin with",
            "1e-4": "smaller steps, late in training",
            "1e-5": "the smallest in common use",
        },
    ),
    PromptWord("optimizer", "setting", "optimizer=NAME[,OPTION=X]", "start another optimizer", "optimizer=adam"),
    PromptWord("seed", "setting", "seed=N", "start the random numbers anew", "seed=1"),
    PromptWord(
        "NAME", "setting", "NAME=X | NAME[I,J]=X", "set a parameter, or one of its values", "b[0]=1", spellings={}
    ),
    PromptWord(
        "requires_grad",
        "setting",
        "NAME.requires_grad=False",
        "freeze a parameter or module, or undo it",
        "w.requires_grad=False",
        spellings={},
    ),
    PromptWord("@", "frame", "@N", "return to a frame", "@3", spellings={"@0": "return to a frame, here the first"}),
    PromptWord("undo", "frame", "undo", "return to the frame before", "undo"),
    PromptWord("branch", "frame", "branch=N", "return to what was rewound over", "branch=1"),
    PromptWord(
        "run",
        "screen",
        "run [N | loss<X | loss>X]",
        "train until paused, N times or to a loss",
        "run loss<0.01",
        read_run,
        optional=True,
        values={
            "10": "ten iterations",
            "100": "a hundred iterations",
            "1000": "a thousand iterations",
            "loss<0.01": "until the loss is below a number",
            "loss>10": "until the loss is above a number",
        },
    ),
    PromptWord(
        "speed",
        "screen",
        "speed N | speed full",
        "set a run's commands a second",
        "speed 4",
        read_speed,
        values={
            "1": "one command a second",
            "4": "four commands a second: an iteration",
            "20": "twenty commands a second",
            "full": "as fast as it goes",
        },
    ),
    PromptWord(
        "watch",
        "screen",
        "watch [CONDITION | off]",
        "pause runs at a condition, or list them",
        "watch nonfinite",
        read_watch,
        optional=True,
        values={
            "nonfinite": "anything is NaN or infinite",
            "grad_norm>10": "all gradients together are large",
            "loss>10": "the loss is large",
            "update>0.1": "a step changes a tenth of what there was",
            "*.grad>1": "the gradient of some parameter is large",
            "zero": "the gradient of some parameter is all zeros",
            "still": "a parameter stops changing, for 5 iterations",
            "dead *>0.9": "some module gives nearly nothing but zeros",
            "off": "pause at no condition any more",
        },
        more_examples=(
            "loss>10",
            "*.grad>1",
            "w.update>0.1",
            "w.grad zero",
            "w still",
            "dead relu>0.9",
            "loss rises 5",
        ),
    ),
    PromptWord("model", "screen", "model NAME | model FILE", "train another model", "model resnet18", read_scenario),
    PromptWord(
        "sort", "screen", "sort COLUMN", "sort the table by layer", "sort update", read_column, values=SORT_COLUMNS
    ),
    PromptWord(
        "theme",
        "screen",
        "theme NAME",
        "choose the colours",
        "theme light",
        str,
        values={"light": "for a projector", "dark": "the usual one", "ansi": "the terminal's own colours"},
    ),
    PromptWord(
        "plot",
        "screen",
        "plot NAME A-B smooth X",
        "plot loss, lr, a metric, NAME.grad",
        "plot grad",
        str,
        values=USUAL,
    ),
    PromptWord(
        "surface",
        "screen",
        "surface [A B | off]",
        "the loss over two values, or a plane",
        "surface w b",
        read_surface,
        optional=True,
        values={"off": "show no surface any more"},
    ),
    PromptWord("log", "screen", "log", "the loss on a log scale", "log"),
    PromptWord("linear", "screen", "linear", "the loss on a plain scale", "linear"),
    PromptWord("ascii", "screen", "ascii", "draw with ASCII characters alone", "ascii"),
    PromptWord("unicode", "screen", "unicode", "draw with all characters", "unicode"),
    PromptWord("inside", "screen", "inside", "walk the operations of the next phase", "inside"),
    PromptWord("veil", "screen", "veil", "hide new numbers until the next space", "veil"),
    PromptWord("image", "screen", "image N", "the output of another image in the batch", "image 3", read_image),
    PromptWord("console", "screen", "console", "what has been printed", "console"),
    PromptWord(
        "export",
        "screen",
        "export [FILE]",
        "write the run to a file, or a picture",
        "export run.py",
        read_export,
        optional=True,
        values={
            "run.py": "a plain PyTorch script of it",
            "run.html": "a page with all its screens",
            "run.csv": "all numbers in one long table",
            "run.jsonl": "a line of JSON for each frame",
            "run.svg": "this screen",
            "run.tb": "a folder for TensorBoard",
            "repro.pt": "this iteration, and a script that repeats it",
        },
    ),
    PromptWord("/", "screen", "/TEXT", "find a parameter by a part of its name", "/weight", str, spellings={}),
    PromptWord(
        "help", "screen", "help [WORD]", "the keys and words, or one of them", "help run", _read_help, optional=True
    ),
    PromptWord("quit", "screen", "quit", "leave, and print how to repeat the run", "quit"),
)
WORDS = {word.name: word for word in _WORDS}


def word_of_command(command: Command) -> PromptWord:
    """Return the word that a command is written with."""
    if command.phase is not None:
        return WORDS["B" if command.forced else "i:" if command.recorded else command.name]
    return WORDS.get(command.kind, WORDS["NAME"])


def is_screen_word(name: str) -> bool:
    """Return whether a line that begins with this word is for the screen."""
    return name in WORDS and WORDS[name].group == "screen"


def find_word(text: str) -> PromptWord:
    """Return the word that a line begins with, "lr" as well as "lr[1]=0.1"; raises UnknownCommand."""
    first = text.split()[0]
    for word in _WORDS:
        if first in (word.name, word.stem, *word.offered, *word.spellings_once_begun):
            return word
    try:
        commands = parse(first)
    except UnknownCommand:
        raise UnknownCommand(unknown(first, "word", WORDS)) from None
    command: Command = commands[0]
    if command.phase is not None:
        return WORDS["i:" if command.recorded else "fbsz"]
    return WORDS.get(command.kind, WORDS["NAME"])


def word_rows(*groups: Group, script: bool = False) -> list[tuple[str, str]]:
    """Return the syntax of each word and what it does, with an empty row between two groups."""
    rows: list[tuple[str, str]] = []
    for group in groups:
        rows += [("", "")] * bool(rows)
        words = [word for word in _WORDS if word.group == group and not (script and word.name in NOT_OF_SCRIPTS)]
        meanings = SCRIPT_MEANINGS if script else {}
        rows += [(word.syntax, meanings.get(word.name, word.meaning_and_example)) for word in words]
    return rows
