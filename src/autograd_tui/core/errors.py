"""Exceptions that carry one sentence for the user, and suggestions for misspelt words."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class Refused(Exception):
    """Say in one sentence why a command or an option cannot be, and what to do instead."""


class UnknownCommand(Refused):
    """Say which word of a command line has no meaning."""


class UserCodeError(Exception):
    """Carry what PyTorch or the user's own code raised; the phase that met it has been undone, but for a step."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


MAX_WORD_LENGTH = 40  # characters of a word that is compared, or shown in a sentence


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Give the known word that is most like this one; None where none is."""
    if len(word) > MAX_WORD_LENGTH:
        return None
    by_small_letters = {each.lower(): each for each in known}
    found = get_close_matches(word.lower(), by_small_letters, n=1)
    return by_small_letters[found[0]] if found else None


def unknown(word: str, kind: str, known: Iterable[str]) -> str:
    """Say that a word is none of its kind, and which is the nearest, or else which there are."""
    listed = list(known)
    near = nearest(word, listed)
    rest = f"the nearest is {near}" if near else f"there are {', '.join(listed)}"
    return f'"{clipped(word)}" is no {kind}: {rest}.'


def clipped(text: str, length: int = MAX_WORD_LENGTH) -> str:
    """Return the first `length` characters of what is quoted in a sentence."""
    return text if len(text) <= length else text[: length - 1] + "…"
