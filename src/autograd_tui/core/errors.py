"""Exceptions that carry one sentence for the user, and suggestions for misspelt words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class Refused(Exception):
    """A command or an option cannot be; the message is one sentence that says why, and what to do instead."""


class UnknownCommand(Refused):
    """A word of a command line has no meaning."""


class UserCodeError(Exception):
    """PyTorch or the user's own code raised `error`; the phase that it came from has been undone, but for a step."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


MAX_WORD_LENGTH = 40  # characters of a word that is compared, or shown in a sentence


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that is most like a word; None where none is."""
    if len(word) > MAX_WORD_LENGTH:
        return None
    by_small_letters = {choice.lower(): choice for choice in choices}
    matches = get_close_matches(word.lower(), by_small_letters, n=1)
    return by_small_letters[matches[0]] if matches else None


def unknown(word: str, kind: str, choices: Iterable[str]) -> str:
    """Return a sentence: a word is none of its kind, and which is the nearest, or else which there are."""
    listed = list(choices)
    near = nearest(word, listed)
    rest = f"the nearest is {near}" if near else f"there are {', '.join(listed)}"
    return f'"{clipped(word)}" is no {kind}: {rest}.'


def first_few(names: Sequence[str], count: int = 4) -> str:
    """List the first names of many, and count the others."""
    more = len(names) - count
    return ", ".join(names[:count]) + f" and {more:,} more" * (more > 0)


def clipped(text: str, length: int = MAX_WORD_LENGTH) -> str:
    """Return the first `length` characters of what is quoted; "…" for those that are left out."""
    return text if len(text) <= length else text[: length - 1] + "…"
