"""Python's collector of cycles, which would hold a key up for as long as it looks through all of PyTorch."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session


def out_of_the_collector(open_session: Callable[[str | None], Session]) -> Callable[[str | None], Session]:
    """Open sessions so that what is there then, 300,000 objects that stay, is not looked through again."""

    def open_one(scenario: str | None) -> Session:
        gc.unfreeze()  # the session before may end with this one
        session = open_session(scenario)
        gc.freeze()
        return session

    return open_one
