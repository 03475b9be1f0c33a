"""Reads what was typed at the prompt, and says what was meant where it is not understood."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from autograd_tui.core.command import PHASES, Commands, can_be_spelled, parse
from autograd_tui.core.errors import UnknownCommand, clipped, nearest
from autograd_tui.core.optimizer_spec import parse_number
from autograd_tui.core.run_config import BUILT_IN
from autograd_tui.text.optimizer_words import OPTIMIZER_NAMES
from autograd_tui.text.prompt.word_table import WORDS, Value, is_screen_word

SETTINGS = [word.name for word in WORDS.values() if word.stem.endswith("=")]
FIRST_WORDS = (*PHASES, "undo", *(word.name for word in WORDS.values() if word.group == "screen"))


@dataclass(frozen=True, slots=True)
class ScreenCommand:
    """One thing to tell the screen. It trains nothing, so no session knows of it.

    `value` is the column of "sort", the scenario of "model", the name of "theme", a part of a name for "/", a word's
    line for "help"; for "speed" the commands a second, None for full; the file of "export", None for a picture and a
    line; for "run" the number of iterations, or its goal; for "watch" a condition, "off", or None to list those that
    are armed.
    """

    name: str
    value: Value = None


def parse_prompt(text: str) -> Commands | ScreenCommand:
    """Read what was typed; raises UnknownCommand, in one sentence that gives the nearest word where there is one."""
    first, *rest = text.split() or [""]
    if first.startswith("/"):
        return ScreenCommand("/", text.strip().removeprefix("/").strip())
    if is_screen_word(first):
        return _parse_screen_command(first, " ".join(rest))
    try:
        return parse(text)
    except UnknownCommand as error:
        raise UnknownCommand(_correction(text.split()) or str(error)) from None


def _parse_screen_command(name: str, rest: str) -> ScreenCommand:
    word = WORDS[name]
    if word.read is None:
        if rest:
            raise UnknownCommand(f'"{name}" stands alone: nothing belongs behind it.')
        return ScreenCommand(name)
    if not rest and not word.optional:
        raise UnknownCommand(f'"{name}" needs a word behind it, as in {word.example}.')
    return ScreenCommand(name, word.read(rest))


def _correction(words: list[str]) -> str | None:
    """Return what was meant, where that is known or the first word that is no command can be guessed."""
    if words[0].lower() == "set" and len(words) > 1:
        words = words[1:]
        if _is_command(" ".join(words)):
            return _nearest_is(f"set {' '.join(words)}", " ".join(words))
    joined = re.sub(r" ?= ?", "=", " ".join(words))  # lr = 0.1
    if joined != " ".join(words) and _is_command(joined):
        return _nearest_is(" ".join(words), joined)
    if len(words) == 1 and (setting := words[0].lower()) in SETTINGS:
        return f'"{words[0]}" needs a value, as in {WORDS[setting].example}.'
    if does := suggest(words):
        return f'"{clipped(" ".join(words))}" is not understood: {does}.'
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if is_screen_word(word):
            return f'"{word}" is for the screen, and stands on a line of its own.'
        if not _is_command(word):
            return next((_nearest_is(*guess) for guess in _guesses(word, after) if _is_known(guess[1])), None)
    return None


def _guesses(word: str, after: str) -> Iterator[tuple[str, str]]:
    """Yield what was said, and what may have been meant."""
    name, equals, value = word.partition("=")
    setting = nearest(name, SETTINGS) or name
    if equals:
        yield word, f"{setting}={value}"
        return
    if after:
        yield f"{word} {after}", f"{setting}={after}"
    called = word.removesuffix("()").rpartition(".")[2]  # optimizer.step()
    yield word, nearest(called, FIRST_WORDS) or ""


def _nearest_is(said: str, meant: str) -> str:
    return f'"{clipped(said)}" is not understood: the nearest is {clipped(meant)}.'


def _is_known(word: str) -> bool:
    return is_screen_word(word) or _is_command(word)


def _is_command(text: str) -> bool:
    try:
        return bool(parse(text))
    except UnknownCommand:
        return False


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
    "case repro": "export repro.pt writes this iteration",
    "h ? man info keys": "help shows the keys",
    "load open scenario": "model spiral trains another, and so does model my_model.py",
    "v": "veil hides new numbers until the next space",
    "y": "log draws the loss on a log scale, linear on a plain one",
    "l": "lr=0.1 sets the learning rate",
    "optim o": "optimizer=adam starts another optimizer",
    "branches": "branch=1 returns to what was rewound over",
    "i": "inside walks the operations of the next phase",
    "find search print show p": "/ and a part of its name finds a parameter",
}
_ANSWERS = {word: answer for words, answer in OTHER_PROGRAMS.items() for word in words.split()}


def suggest(words: list[str]) -> str | None:
    """Return a sentence on what does what other programs call by this name; None where that is not known."""
    first, second = (*words, "", "")[:2]
    if not second:
        return _suggest_for_word(first)
    if first in ("freeze", "unfreeze") and can_be_spelled(second):
        return f"{second}.requires_grad={first == 'unfreeze'} does it"
    answer = _ANSWERS.get(first.lower())
    if answer and ("{0}" in answer or parse_number(second) is None):
        return answer.format(second if _is_count(second) else EXAMPLE)
    return _suggest_repeat(words)


def _suggest_for_word(word: str) -> str | None:
    if _is_count(word):
        return FRAME.format(word)
    if word in BUILT_IN:
        return f"model {word} trains it"
    if word in OPTIMIZER_NAMES:
        return f"optimizer={word} starts it"
    if word in WORDS["theme"].values:
        return f"theme {word} takes these colours"
    answer = _ANSWERS.get(word.lower())
    return answer.format(EXAMPLE) if answer else None


def _suggest_repeat(words: list[str]) -> str | None:
    """Return a sentence on how to do so often what stands before a number."""
    for word, times in pairwise(words):
        if _is_count(times) and times != "0" and (word in PHASES or set(word) <= set("fbszFBSZ")):
            return f"{word}*{times} does it so often"
    return None


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS
