"""What could be typed next at the prompt."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product

from autograd_tui.core.command import PHASES, can_be_spelled
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch
from autograd_tui.core.history import History
from autograd_tui.core.optimizer_spec import format_number
from autograd_tui.core.run_config import BUILT_IN, DEFAULT_MEMORY, size_in_words
from autograd_tui.core.tensor_stats import MAX_LISTED_VALUES
from autograd_tui.text.messages import branch_line
from autograd_tui.text.numbers import number, rate
from autograd_tui.text.optimizer_words import rates
from autograd_tui.text.plot_view import SMOOTHINGS, plot_words
from autograd_tui.text.prompt.word_table import NOT_OF_SCRIPTS, SCRIPT_MEANINGS, WORDS, Group, is_screen_word

OPTIMIZER_LINES = {  # all of torch.optim that can be stepped, in the order in which people look for them
    "sgd": "its gradient; with momentum, a velocity",
    "adam": "averaged gradient over its usual size",
    "adamw": "adam, with weight decay kept apart",
    "rmsprop": "gradient over its usual size",
    "nadam": "adam with a look ahead",
    "radam": "adam, more careful in its first steps",
    "adamax": "averaged gradient over its largest size",
    "adagrad": "gradient over the size of all so far",
    "adadelta": "gradient, scaled by how far it moved lately",
    "adafactor": "gradient over its size by row and column",
    "rprop": "the sign of the gradient alone",
    "asgd": "gradient, at a rate that falls over time",
    "muon": "for matrices alone: made orthogonal",
    "sparseadam": "adam for sparse gradients alone",
}
DECAY = {"weight_decay=1e-4": "draw parameters to zero a little"}
BETAS = {"betas=(0.9,0.999)": "how long the two averages last"}
OPTION_LINES = {  # the usual ones, with the values that are usual
    "sgd": {
        "momentum=0.9": "keep nine tenths of the velocity",
        "nesterov=true": "look ahead along the velocity",
        **DECAY,
    },
    "adam": {**BETAS, "amsgrad=true": "never forget the largest size", **DECAY},
    "adamw": {**BETAS, "weight_decay=0.01": "draw parameters to zero, its default"},
    "rmsprop": {"alpha=0.99": "how long the average lasts", "momentum=0.9": "a velocity too", **DECAY},
    "nadam": BETAS | DECAY,
    "radam": BETAS | DECAY,
    "adamax": BETAS | DECAY,
    "adagrad": {"lr_decay=0.01": "lower the rate with each step", **DECAY},
    "adadelta": {"rho=0.9": "how long the averages last", **DECAY},
    "adafactor": DECAY,
    "rprop": {"etas=(0.5,1.2)": "factors for a turn, and for going on"},
    "asgd": {"t0=1000": "average from this step on", **DECAY},
    "muon": {"momentum=0.95": "its default", **DECAY},
    "sparseadam": BETAS,
}

NO_VALUES_OF_SCRIPTS = ("run.py", *NOT_OF_SCRIPTS)  # no loop can be written anew for a script
MAX_PLOT_WORDS = 8  # that are completed behind "plot"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A word to stand in the place of the one being typed; it goes on where it ends in "=" or a blank."""

    word: str
    line: str
    stem: int = 0  # how many of its characters need not be shown, since they stand in the prompt

    @property
    def label(self) -> str:
        """The part that is shown."""
        return self.word[self.stem :].strip()

    @property
    def goes_on(self) -> bool:
        """Whether more belongs behind it."""
        return self.word.endswith(("=", " "))


def candidates(lines: Mapping[str, str], before: str = "") -> list[Candidate]:
    """Make candidates of words and their lines, behind what stands already."""
    return [Candidate(before + word, line, len(before)) for word, line in lines.items()]


def complete(
    text: str,
    frame: Frame | None,
    *,
    newest: int = 0,
    history: History | None = None,
    themes: Sequence[str] = (),
    models: Mapping[str, str] = BUILT_IN,
    branches: Sequence[Branch] = (),
    script: bool = False,
) -> list[Candidate]:
    """Return the words that may stand in the place of the last one, the likeliest first.

    frame: the one on screen, whose parameters and number are offered. models: scenarios and files, with their lines.
    branches: those that one can return to. script: whether a script runs, of which less can be asked.
    """
    *before, last = text.lstrip().split(" ")
    before = [word for word in before if word]
    name, equals, _ = (before or [last])[0].partition("=")
    if script and name in NOT_OF_SCRIPTS and (before or equals):
        return []
    if last.startswith("/") and not before:
        return _name_candidates(last[1:], frame)
    if before and is_screen_word(before[0]):
        values = {"surface": 2, "plot": MAX_PLOT_WORDS}.get(before[0], 1)  # behind the word
        offered = _value_candidates(before, last, themes, models, frame) if len(before) <= values else []
        if script:
            offered = [each for each in offered if each.word not in NO_VALUES_OF_SCRIPTS]
    elif setting := re.match(r"lr(\[\d+\])?=", last):
        offered = candidates(WORDS["lr"].values, setting[0])
    elif last.startswith("optimizer="):
        offered = optimizer_candidates(last)
    elif last.startswith("@"):
        offered = list(_frame_candidates(frame, newest, history))
    elif last.startswith("branch="):
        offered = candidates({str(each.number): branch_line(each) for each in reversed(branches)}, "branch=")
    else:
        offered = _command_candidates(last, frame, alone=not before, branches=bool(branches), script=script)
    return sorted((each for each in offered if each.word.startswith(last)), key=lambda each: each.word != last)


def with_candidate(text: str, candidate: Candidate) -> str:
    """Put a candidate in the place of the last word."""
    return text[: text.rfind(" ") + 1] + candidate.word


def completion_heading(text: str, frame: Frame | None, *, memory: int = DEFAULT_MEMORY) -> str:
    """Return what is being asked for; memory: bytes for checkpoints."""
    *before, last = text.lstrip().split(" ")
    if before and is_screen_word(before[0]):
        return before[0]
    if re.match(r"lr(\[\d+\])?=", last):
        now = f", now {rates(frame)}" if frame else ""
        return f"learning rate: usually from 1e-1 down to 1e-5{now}"
    if last.startswith("optimizer="):
        return "optimizer: options go behind a comma"
    if last.startswith("@"):
        return f"frame to return to; checkpoints: up to {size_in_words(memory)}"
    if last.startswith("branch="):
        return "branch to return to, rewound over before"
    if last.startswith("/"):
        return "a part of a parameter's name; nothing finds the last one again"
    if "=" in last:
        return "value of a parameter"
    return "commands" if before else "commands, and words for the screen"


def _command_candidates(
    last: str, frame: Frame | None, *, alone: bool, branches: bool, script: bool
) -> list[Candidate]:
    """Return the kinds of words; single letters and all parameters only once something is typed."""
    params = list(_parameter_candidates(frame, last)) if frame else []
    if script:
        params = [each for each in params if "requires_grad" not in each.word]
    offered = _offered("phase", script=script) + _offered("setting", script=script)
    offered += _rate_candidates(frame) if frame and last.startswith("lr") else []
    offered += params if last else params[:1]
    offered += [each for each in _offered("frame", script=script) if branches or each.word != WORDS["branch"].stem]
    offered += _offered("screen", script=script) if alone else []
    if last and script:
        offered += candidates({name: SCRIPT_MEANINGS[name] for name in PHASES})
        offered += candidates({name[0]: SCRIPT_MEANINGS[name] for name in PHASES})
    elif last:
        offered += [each for word in WORDS.values() for each in candidates(word.spellings_once_begun)]
    return offered


def _offered(group: Group, *, script: bool) -> list[Candidate]:
    words = [word for word in WORDS.values() if word.group == group]
    if not script:
        return [each for word in words for each in candidates(word.offered)]
    offered: list[Candidate] = []
    for word in words:
        if word.name not in NOT_OF_SCRIPTS and word.name != "fbsz":
            meaning = SCRIPT_MEANINGS.get(word.name)
            offered += candidates(word.offered if meaning is None else {word.stem: meaning})
    return [each for each in offered if each.word not in PHASES]


def _rate_candidates(frame: Frame) -> list[Candidate]:
    """Return the learning rate of each parameter group, where there are several."""
    if len(frame.learning_rates) == 1:
        return []
    return [
        Candidate(f"lr[{group}]=", f"of {frame.group_name(group)}, now {rate(lr)}")
        for group, lr in enumerate(frame.learning_rates)
    ]


def _parameter_candidates(frame: Frame, last: str) -> Iterator[Candidate]:
    """Yield each value that can be set; where one is being set, the numbers at hand."""
    layout = frame.params.layout
    for param_index, (name, shape) in enumerate(zip(layout.names, layout.shapes, strict=True)):
        if not can_be_spelled(name):
            continue
        switch = f"{name}.requires_grad="
        if last.startswith(switch) or last == switch.rstrip("="):
            yield from candidates({"False": "freeze it", "True": "freeze it no longer"}, switch)
            continue
        if last.startswith(f"{name}."):
            yield Candidate(
                switch, "freeze it with False" if param_index not in frame.frozen else "frozen: True undoes it"
            )
        if not 1 <= math.prod(shape) <= MAX_LISTED_VALUES or not layout.ordinary(param_index):
            continue
        values = frame.params[param_index].values or ()
        for index, value in zip(product(*map(range, shape)), values, strict=True):
            target = f"{name}=" if len(values) == 1 else f"{name}[{','.join(map(str, index))}]="
            if last.startswith(target):
                yield Candidate(f"{target}{format_number(value)}", "as it is now", len(target))
                yield Candidate(f"{target}0", "zero", len(target))
            else:
                yield Candidate(target, f"a parameter, now {number(value)}")


def _name_candidates(part: str, frame: Frame | None) -> list[Candidate]:
    """Return the parameters with a part in their names."""
    layout = frame.params.layout if frame else None
    pairs = zip(layout.names, layout.shapes, strict=True) if layout else ()
    shapes = {name: "×".join(map(str, shape)) or "one value" for name, shape in pairs}
    return candidates({name: shape for name, shape in shapes.items() if part.casefold() in name.casefold()}, "/")


def _frame_candidates(frame: Frame | None, newest: int, history: History | None) -> Iterator[Candidate]:
    offered = {0: "the first: before any command"}
    started = _start_of_iteration(frame, history)
    if started is not None:
        offered.setdefault(started, "the start of this iteration")
    if frame is not None and frame.index > 1:
        offered.setdefault(frame.index - 1, "the one before")
    offered.setdefault(newest, "the newest")
    yield from candidates({str(index): line for index, line in offered.items()}, "@")


def _start_of_iteration(frame: Frame | None, history: History | None) -> int | None:
    """Return the frame that the first forward of the shown iteration went on from."""
    if frame is None or history is None:
        return None
    pairs = zip(history.loss.indices, history.loss.iterations, strict=True)
    return next((index - 1 for index, iteration in pairs if iteration == frame.iteration), None)


def _watch_candidates(frame: Frame | None) -> list[Candidate]:
    names, metrics = (frame.params.layout.names, frame.metrics) if frame else ((), ())
    ends = {"": "the norm of {}", ".grad": "the norm of {}.grad", ".update": "what a step changes of {}, for its size"}
    of_params = [Candidate(f"{name}{end}>", meaning.format(name)) for name in names for end, meaning in ends.items()]
    return [*(Candidate(f"{name}>", f"a metric, now {number(value)}") for name, value in metrics), *of_params]


def _surface_candidates(frame: Frame | None) -> list[Candidate]:
    """Return the values that a surface may be over; of a parameter with many the first."""
    layout = frame.params.layout if frame else None
    offered = {}
    for name, shape in zip(layout.names, layout.shapes, strict=True) if layout else ():
        size = math.prod(shape)
        indices = islice(product(*map(range, shape)), MAX_LISTED_VALUES if size <= MAX_LISTED_VALUES else 1)
        for index in indices if can_be_spelled(name) else ():
            value = f"{name}[{','.join(map(str, index))}]" if size > 1 else name
            offered[value] = "a parameter" if size == 1 else f"of {'×'.join(map(str, shape))}, counted from 0"
    return candidates(offered)


def _value_candidates(
    before: Sequence[str], last: str, themes: Sequence[str], models: Mapping[str, str], frame: Frame | None
) -> list[Candidate]:
    name = before[0]
    usual = WORDS[name].values
    if name == "plot":
        return candidates(SMOOTHINGS if before[-1] == "smooth" else dict(plot_words(frame, last)))
    if name == "model":
        return candidates(models)
    if name == "surface":
        return _surface_candidates(frame) + candidates(usual)
    if name == "watch":
        return candidates(usual) + _watch_candidates(frame)
    if name == "theme":
        return candidates({**usual, **{theme: "one of Textual's" for theme in themes if theme not in usual}})
    if name == "help":
        return candidates({word.name: word.meaning for word in WORDS.values()})
    return candidates(usual)


def optimizer_candidates(word: str) -> list[Candidate]:
    """Return what may stand in the place of "optimizer=...": names, or options that it has not set yet."""
    stem = _fixed_part(word)
    if not stem:
        return candidates(OPTIMIZER_LINES, "optimizer=")
    name, *options = stem.removeprefix("optimizer=").split(",")
    taken = {option.partition("=")[0] for option in options}
    return [
        each for each in candidates(_options(name.lower()), stem) if _can_follow(each.label.partition("=")[0], taken)
    ]


def _fixed_part(word: str) -> str:
    """Return the part up to the comma behind which an option is being typed; a comma in brackets is none."""
    outside = word[: word.rindex("(")] if word.count("(") > word.count(")") else word
    return word[: outside.rfind(",") + 1]


def _options(name: str) -> dict[str, str]:
    return (
        {f"lr={rate}": line for rate, line in WORDS["lr"].values.items()} | OPTION_LINES[name]
        if name in OPTION_LINES
        else {}
    )


def _can_follow(option: str, taken: set[str]) -> bool:
    return option not in taken and (option != "nesterov" or "momentum" in taken)
