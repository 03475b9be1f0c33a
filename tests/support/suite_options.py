"""The options of the tests' command line. conftest.py sets them before any test module is imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import settings

LONG = False  # --long: every case runs, where some stand for many in the usual run
EXAMPLES: int | None = None  # --examples N: the random examples of each property; None: each test's own number
UPDATE = False  # --update: golden files and pictures of screens are written anew
Case = TypeVar("Case")


def some(cases: Sequence[Case], count: int) -> list[Case]:
    """Return the first `count` cases, and all of them with --long."""
    return list(cases if LONG else cases[:count])


def examples(count: int) -> settings:
    """Return settings for `count` random examples: four times as many with --long, or the number of --examples."""
    return settings(max_examples=EXAMPLES or count * (4 if LONG else 1), deadline=None)


def search(count: int) -> settings:
    """Return settings for `count` examples that are the same in every run, or for the random ones of --examples."""
    return settings(max_examples=EXAMPLES or count, deadline=None, derandomize=EXAMPLES is None)
