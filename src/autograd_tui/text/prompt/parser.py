"""Reads what was typed at the prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from autograd_tui.core.command import PHASES, Commands, can_be_spelled, parse
from autograd_tui.core.errors import UnknownCommand, clipped, nearest
from autograd_tui.core.optimizer_spec import parse_number
from autograd_tui.core.run_config import BUILT_IN
from autograd_tui.text.prompt.words import (
    ALONE,
    RATES,
    READERS,
    THEMES,
    Candidate,
    ScreenWord,
    candidates,
    is_screen_word,
    parse_screen_word,
)

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


def optimizer_candidates(word: str) -> list[Candidate]:
    """Give what may stand in the place of "optimizer=...": names, or options that it has not set yet."""
    stem = _fixed_part(word)
    if not stem:
        return candidates(OPTIMIZER_LINES, "optimizer=")
    name, *options = stem.removeprefix("optimizer=").split(",")
    taken = {option.partition("=")[0] for option in options}
    return [
        each for each in candidates(_options(name.lower()), stem) if _can_follow(each.label.partition("=")[0], taken)
    ]


def _fixed_part(word: str) -> str:
    """Give the part up to the comma behind which an option is being typed; a comma in brackets is none."""
    outside = word[: word.rindex("(")] if word.count("(") > word.count(")") else word
    return word[: outside.rfind(",") + 1]


def _options(name: str) -> dict[str, str]:
    return {f"lr={rate}": line for rate, line in RATES.items()} | OPTION_LINES[name] if name in OPTION_LINES else {}


def _can_follow(option: str, taken: set[str]) -> bool:
    return option not in taken and (option != "nesterov" or "momentum" in taken)


EXAMPLE = "3"  # for the number that may stand behind a word: {0}
MAX_DIGITS = 15  # of a number that is said again
FRAME = "@{0} returns to frame {0}, as the key g does"
OTHER_PROGRAMS = {
    "goto go jump frame look seek rewind checkout g @": FRAME,
    "undo back prev previous u": "undo returns to the frame before, the keys {0}u go {0} back, and ← only looks",
    "redo": "@{0} returns to frame {0}, also forwards until another command has run",
    "reset restart begin": "@0 returns to the first frame",
    "next n": "the key space runs the next phase, and n the rest of the iteration",
    "start train fit continue cont resume play epoch epochs iterate iterations r": (
        "run goes on until the key space pauses it, and run {0} for so many iterations"
    ),
    "stop pause halt": "the key space pauses a run",
    "break breakpoint bp when": "watch loss>{0} pauses a run where that holds",
    "unwatch": "watch off pauses at no condition any more",
    "exit q q! wq x close leave bye": "quit leaves, as the key q does",
    "save write dump": "export run.py writes the run to a file, and export alone a picture",
    "screenshot picture e": "export writes a picture, and export run.py the run",
    "case": "export case.pt writes this iteration",
    "h ? man info keys": "help shows the keys",
    "load open scenario": "model spiral trains another, and so does model my_model.py",
    "v": "veil hides new numbers until the next space",
    "y": "log draws the loss on a log scale, linear on a plain one",
    "i": "inside walks the operations of the next phase",
    "find search print show p": "/ and a part of its name finds a parameter",
}
SETTINGS = {  # that lack what they set
    "lr l": "lr=0.1 sets the learning rate",
    "optimizer optim o": "optimizer=adam starts another optimizer",
    "seed": "seed=1 starts the random numbers anew",
    "branch branches": "branch=1 returns to what was rewound over",
}
_ANSWERS, _SETTINGS = (
    {word: said for words, said in each.items() for word in words.split()} for each in (OTHER_PROGRAMS, SETTINGS)
)


def suggest(words: list[str]) -> str | None:
    """Say what does what was asked for in another program's words; None where that is not known."""
    first, second = (*words, "", "")[:2]
    if not second:
        return _suggest_for_word(first)
    if first in ("freeze", "unfreeze") and can_be_spelled(second):
        return f"{second}.requires_grad={first == 'unfreeze'} does it"
    found = _ANSWERS.get(first.lower())
    if found and ("{0}" in found or parse_number(second) is None):
        return found.format(second if _is_count(second) else EXAMPLE)
    return _suggest_repeat(words)


def _suggest_for_word(word: str) -> str | None:
    if _is_count(word):
        return FRAME.format(word)
    if word in BUILT_IN:
        return f"model {word} trains it"
    if word in OPTIMIZER_LINES:
        return f"optimizer={word} starts it"
    if word in THEMES:
        return f"theme {word} takes these colours"
    found = _ANSWERS.get(word.lower()) or _SETTINGS.get(word.lower())
    return found.format(EXAMPLE) if found else None


def _suggest_repeat(words: list[str]) -> str | None:
    """Say how what stands before a number is done so often."""
    for word, times in pairwise(words):
        if _is_count(times) and times != "0" and (word in PHASES or set(word) <= set("fbszFBSZ")):
            return f"{word}*{times} does it so often"
    return None


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS


WORDS_SETTINGS = ("lr", "optimizer", "seed", "branch")
WORDS = (*PHASES, "undo", *READERS, *ALONE)


def parse_prompt(text: str) -> Commands | ScreenWord:
    """Read what was typed; raises UnknownCommand, in one sentence that gives the nearest word where there is one."""
    first, *rest = text.split() or [""]
    if is_screen_word(first):
        return parse_screen_word(first, " ".join(rest))
    try:
        return parse(text)
    except UnknownCommand as error:
        raise UnknownCommand(_correction(text.split()) or str(error)) from None


def _correction(words: list[str]) -> str | None:
    """Say what was meant, where that is known or the first word that is no command can be guessed."""
    if words[0].lower() == "set" and len(words) > 1:
        words = words[1:]
        if _is_command(" ".join(words)):
            return _nearest_is(f"set {' '.join(words)}", " ".join(words))
    joined = re.sub(r" ?= ?", "=", " ".join(words))  # lr = 0.1
    if joined != " ".join(words) and _is_command(joined):
        return _nearest_is(" ".join(words), joined)
    if does := suggest(words):
        return f'"{clipped(" ".join(words))}" is not understood: {does}.'
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if is_screen_word(word):
            return f'"{word}" is for the screen, and stands on a line of its own.'
        if not _is_command(word):
            return next((_nearest_is(*guess) for guess in _guesses(word, after) if _is_known(guess[1])), None)
    return None


def _guesses(word: str, after: str) -> Iterator[tuple[str, str]]:
    """Give what was said, and what may have been meant."""
    name, equals, value = word.partition("=")
    setting = nearest(name, WORDS_SETTINGS) or name
    if equals:
        yield word, f"{setting}={value}"
        return
    if after:
        yield f"{word} {after}", f"{setting}={after}"
    called = word.removesuffix("()").rpartition(".")[2]  # optimizer.step()
    yield word, nearest(called, WORDS) or ""


def _nearest_is(said: str, meant: str) -> str:
    return f'"{clipped(said)}" is not understood: the nearest is {clipped(meant)}.'


def _is_known(word: str) -> bool:
    return is_screen_word(word) or _is_command(word)


def _is_command(text: str) -> bool:
    try:
        return bool(parse(text))
    except UnknownCommand:
        return False
