from __future__ import annotations

import gc

import pytest

from autograd_tui.core.errors import Refused
from autograd_tui.core.session_protocol import InteractiveSession
from autograd_tui.engine.open_session import open_session
from autograd_tui.tui.app import out_of_the_collector


def test_what_is_there_with_a_session_is_not_looked_through_again() -> None:
    try:
        session = out_of_the_collector(lambda _: open_session("linear"))(None)
        assert gc.get_freeze_count() > 100_000
        assert str(session.run("f").phase) == "forward"  # type: ignore[arg-type]
    finally:
        gc.freeze()  # as it is for all tests


@pytest.mark.parametrize("was_enabled", [True, False])
def test_nothing_is_collected_while_a_session_opens_and_all_is_as_it_was_then(*, was_enabled: bool) -> None:
    seen = []

    def fail(_: str | None) -> InteractiveSession:
        seen.append(gc.isenabled())
        raise Refused("there is none")

    try:
        if not was_enabled:
            gc.disable()
        with pytest.raises(Refused):
            out_of_the_collector(fail)(None)
        assert (seen, gc.isenabled()) == ([False], was_enabled)
    finally:
        gc.enable()
        gc.freeze()  # as it is for all tests
