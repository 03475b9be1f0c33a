"""What can be said at the prompt: commands, and words that concern the screen alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from autograd_tui.engine.values.command import PHASES, Commands, parse
from autograd_tui.engine.values.errors import NotUnderstood
from autograd_tui.engine.values.nearest import clipped, nearest
from autograd_tui.text.other_words import answer
from autograd_tui.text.screen_word import ALONE, READERS, ScreenWord, is_screen_word, read_screen_word

SETTINGS = ("lr", "optimizer", "seed", "branch")
WORDS = (*PHASES, "undo", *READERS, *ALONE)


def read(text: str) -> Commands | ScreenWord:
    """Read what was typed; raises NotUnderstood, in one sentence that gives the nearest word where there is one."""
    first, *rest = text.split() or [""]
    if is_screen_word(first):
        return read_screen_word(first, " ".join(rest))
    try:
        return parse(text)
    except NotUnderstood as error:
        raise NotUnderstood(_correction(text.split()) or str(error)) from None


def _correction(words: list[str]) -> str | None:
    """Say what was meant, where that is known or the first word that is no command can be guessed."""
    if words[0].lower() == "set" and len(words) > 1:
        words = words[1:]
        if _is_command(" ".join(words)):
            return _nearest_is(f"set {' '.join(words)}", " ".join(words))
    joined = re.sub(r" ?= ?", "=", " ".join(words))  # lr = 0.1
    if joined != " ".join(words) and _is_command(joined):
        return _nearest_is(" ".join(words), joined)
    if does := answer(words):
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
    setting = nearest(name, SETTINGS) or name
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
    except NotUnderstood:
        return False
