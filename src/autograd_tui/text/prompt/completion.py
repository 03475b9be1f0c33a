"""What could be typed next at the prompt."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from autograd_tui.core.command import can_be_spelled
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch
from autograd_tui.core.history import History
from autograd_tui.core.optimizer_spec import format_number
from autograd_tui.core.run_config import BUILT_IN, DEFAULT_MEMORY, size_in_words
from autograd_tui.core.tensor_stats import MAX_LISTED_VALUES
from autograd_tui.text.messages import branch_line
from autograd_tui.text.numbers import number, rate
from autograd_tui.text.optimizer_words import rates
from autograd_tui.text.prompt import words
from autograd_tui.text.prompt.parser import optimizer_candidates
from autograd_tui.text.prompt.words import Candidate, candidates, is_screen_word


def complete(
    text: str,
    frame: Frame | None,
    *,
    newest: int = 0,
    history: History | None = None,
    themes: Sequence[str] = (),
    models: Mapping[str, str] = BUILT_IN,
    branches: Sequence[Branch] = (),
) -> list[Candidate]:
    """Give the words that may stand in the place of the last one, the likeliest first.

    frame: the one on screen, whose parameters and number are offered. models: scenarios and files, with their lines.
    branches: those that one can return to.
    """
    *before, last = text.lstrip().split(" ")
    before = [word for word in before if word]
    if last.startswith("/") and not before:
        return _name_candidates(last[1:], frame)
    if before and is_screen_word(before[0]):
        found = _value_candidates(before[0], themes, models, frame) if len(before) == 1 else []
    elif setting := re.match(r"lr(\[\d+\])?=", last):
        found = candidates(words.RATES, setting[0])
    elif last.startswith("optimizer="):
        found = optimizer_candidates(last)
    elif last.startswith("@"):
        found = list(_frame_candidates(frame, newest, history))
    elif last.startswith("branch="):
        found = candidates({str(each.number): branch_line(each) for each in reversed(branches)}, "branch=")
    else:
        found = _command_candidates(last, frame, alone=not before, branches=bool(branches))
    fitting = [each for each in found if each.word.startswith(last)]
    return sorted(fitting, key=lambda each: each.word != last)


def with_candidate(text: str, candidate: Candidate) -> str:
    """Put a candidate in the place of the last word."""
    return text[: text.rfind(" ") + 1] + candidate.word


def completion_heading(text: str, frame: Frame | None, *, memory: int = DEFAULT_MEMORY) -> str:
    """Say what is being asked for; memory: bytes for checkpoints."""
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


def _command_candidates(last: str, frame: Frame | None, *, alone: bool, branches: bool) -> list[Candidate]:
    """Give the kinds of words; single letters and all parameters only once something is typed."""
    params = list(_parameter_candidates(frame, last)) if frame else []
    found = candidates(words.PHASE_WORDS | words.SETTINGS)
    found += _rate_candidates(frame) if frame and last.startswith("lr") else []
    found += params if last else params[:1]
    found += candidates(words.MOVES | (words.BRANCHES if branches else {}) | (words.SCREEN if alone else {}))
    return found + (candidates(words.LETTERS) if last else [])


def _rate_candidates(frame: Frame) -> list[Candidate]:
    """Give the learning rate of each parameter group, where there are several."""
    if len(frame.learning_rates) == 1:
        return []
    return [
        Candidate(f"lr[{group}]=", f"of group {group}, now {rate(lr)}") for group, lr in enumerate(frame.learning_rates)
    ]


def _parameter_candidates(frame: Frame, last: str) -> Iterator[Candidate]:
    """Give each value that can be set; where one is being set, the numbers at hand."""
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
    """Give the parameters with a part in their names."""
    layout = frame.params.layout if frame else None
    pairs = zip(layout.names, layout.shapes, strict=True) if layout else ()
    named = {name: "×".join(map(str, shape)) or "one value" for name, shape in pairs}
    return candidates({name: shape for name, shape in named.items() if part.casefold() in name.casefold()}, "/")


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
    """Give the frame that the first forward of the shown iteration went on from."""
    if frame is None or history is None:
        return None
    pairs = zip(history.loss.indices, history.loss.iterations, strict=True)
    return next((index - 1 for index, iteration in pairs if iteration == frame.iteration), None)


def _watch_candidates(frame: Frame | None) -> list[Candidate]:
    names = frame.params.layout.names if frame else ()
    return [Candidate(f"{name}{end}>", f"the norm of {name}{end}") for name in names for end in ("", ".grad")]


def _value_candidates(
    name: str, themes: Sequence[str], models: Mapping[str, str], frame: Frame | None
) -> list[Candidate]:
    if name == "plot":
        metrics = frame.metrics if frame else ()
        return candidates(words.PLOTS | {metric: f"a metric, now {number(value)}" for metric, value in metrics})
    if name == "model":
        return candidates(dict(models))
    if name == "watch":
        return candidates(words.SCREEN_VALUES[name]) + _watch_candidates(frame)
    if name == "theme":
        return candidates(words.THEMES | {theme: "one of Textual's" for theme in themes if theme not in words.THEMES})
    return candidates(words.SCREEN_VALUES.get(name, {}))
