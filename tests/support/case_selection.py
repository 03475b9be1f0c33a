"""Some cases stand for many, unless AUTOGRAD_TUI_LONG asks for all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

LONG = bool(os.environ.get("AUTOGRAD_TUI_LONG"))
Case = TypeVar("Case")


def some(cases: Sequence[Case], count: int) -> list[Case]:
    """Give the first few, in a long run all."""
    return list(cases if LONG else cases[:count])
