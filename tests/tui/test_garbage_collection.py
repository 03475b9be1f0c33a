from __future__ import annotations

import gc

from autograd_tui.engine.open_session import open_session
from autograd_tui.tui.app import out_of_the_collector


def test_what_is_there_with_a_session_is_not_looked_through_again() -> None:
    try:
        session = out_of_the_collector(lambda _: open_session("linear"))(None)
        assert gc.get_freeze_count() > 100_000
        assert str(session.run("f").phase) == "forward"  # type: ignore[arg-type]
    finally:
        gc.freeze()  # as it is for all tests
