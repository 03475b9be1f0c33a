"""The word that a misspelt one was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 40  # characters of a word that is compared, or shown in a sentence


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Give the known word that is most like this one; None where none is."""
    if len(word) > LONGEST:
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


def clipped(text: str) -> str:
    """Shorten what is quoted in a sentence."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
