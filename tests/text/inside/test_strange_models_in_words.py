"""Models that are hard to record, in words: nothing raises, and no sentence contradicts torch."""

from __future__ import annotations

import pytest
from strange_models import MODELS, strange

from autograd_tui import open_session
from autograd_tui.text.inside.chain_rule import chain_rule_lines
from autograd_tui.text.inside.health import health_lines
from autograd_tui.text.inside.operation import operation_lines
from autograd_tui.text.line import length
from made_traces import text, warnings


@pytest.mark.parametrize("name", MODELS)
def test_every_operation_has_its_words(name: str) -> None:
    session = open_session(strange(MODELS[name]))
    for _ in range(2):
        for letter in "fbsz":
            trace = session.run(f"i:{letter}").trace
            assert trace is not None
            for width in (78, 38):
                assert health_lines(trace, width)
                for op in trace.ops:
                    lines = [*operation_lines(trace, op, width), *chain_rule_lines(trace, op, width)]
                    assert lines
                    assert all(length(line) <= width for line in lines), text(lines)
                    assert warnings(lines) == "" or name == "hooked", text(lines)
