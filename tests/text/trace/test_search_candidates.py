from __future__ import annotations

from autograd_tui.text.trace.trace_position import search_candidates
from handmade_traces import tower


def test_modules_around_operations_are_offered_too() -> None:
    found = {each.word: each.line for each in search_candidates(tower(), "layer3")}
    assert found["/layer3"] == "operation 7 of 24"
    assert found["/layer3.0.conv1"] == "operation 11 of 24"


def test_only_what_fits_is_offered() -> None:
    assert [each.word for each in search_candidates(tower(), "RELUB")] == ["/ReluBackward0"]
