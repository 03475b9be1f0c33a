"""Models that are hard to record, in words: nothing raises, and no sentence contradicts torch."""

from __future__ import annotations

import pytest

from autograd_tui import open_session
from autograd_tui.text.derivation.chain_rule import chain_rule_lines
from autograd_tui.text.styled_text import length
from autograd_tui.text.trace.health import health_lines
from autograd_tui.text.trace.operation_lines import operation_lines
from models_hard_to_trace import MODELS, strange
from traced_functions import text, warnings


@pytest.mark.parametrize("name", MODELS)
def test_every_operation_has_its_words(name: str) -> None:
    session = open_session(strange(MODELS[name]))
    for _ in range(2):
        for letter in "fbsz":
            trace = session.run(f"i:{letter}").trace
            assert trace is not None
            for width in (78, 38):
                health = health_lines(trace, width)
                for op in trace.ops:
                    worked = chain_rule_lines(trace, op, width)
                    assert worked
                    assert warnings(worked) == "" or name == "hooked", text(worked)
                    lines = [*health, *operation_lines(trace, op, width), *worked]
                    assert all(length(line) <= width for line in lines), text(lines)
