"""What stands on the screen for the line, word by word. --update writes it anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui import open_session
from autograd_tui.text.derivation.chain_rule import chain_rule_lines
from autograd_tui.text.trace.operation_lines import operation_lines
from calculator import check
from suite_options import UPDATE, examples
from traced_functions import text

GOLDEN = Path(__file__).parent / "golden"
WALKS = {
    "forward": "i:f",
    "backward": "f i:b",
    "second-backward": "fbf i:b",
    "step": "fb i:s",
    "zero_grad": "fbs i:z",
    "momentum": "optimizer=sgd,lr=0.1,momentum=0.9 fbszfb i:s",
    "nesterov": "optimizer=sgd,lr=0.1,momentum=0.9,nesterov=true,weight_decay=0.1 fbszfb i:s",
    "adam": "optimizer=adam,lr=0.1 fbszfb i:s",
    "adamw": "optimizer=adamw,lr=0.1,weight_decay=0.1 fb i:s",
    "rmsprop": "optimizer=rmsprop,lr=0.1,momentum=0.9,centered=true fbszfb i:s",
    "adagrad": "optimizer=adagrad,lr=0.1 fb i:s",
}


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize("name", WALKS)
def test_the_line_reads_as_it_should(name: str, width: int) -> None:
    session = open_session("linear")
    *_, frame = session.run_all(WALKS[name])
    assert frame.trace is not None
    rows = []
    for op in frame.trace.ops:
        rows += [text(operation_lines(frame.trace, op, width)), text(chain_rule_lines(frame.trace, op, width)), ""]
    written = "\n".join(rows)
    path = GOLDEN / f"{name}-{width}.txt"
    if UPDATE:
        path.write_text(written, encoding="utf-8")
    assert max(map(len, written.splitlines())) <= width
    assert written == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", WALKS)
@examples(5)
@given(w=st.floats(-9, 9, width=32), b=st.floats(-9, 9, width=32))
def test_the_lines_arithmetic_comes_out_on_a_calculator(name: str, w: float, b: float) -> None:
    session = open_session("linear")
    *_, frame = session.run_all(f"w={w} b={b} {WALKS[name]}")
    assert frame.trace is not None
    written = "\n".join(text(chain_rule_lines(frame.trace, op, 9999)) for op in frame.trace.ops)
    exactly, nearly = check(written)
    assert exactly >= nearly, written
    assert exactly or name in ("zero_grad", "adagrad"), written


def test_the_line_tells_why_the_gradient_of_w_is_what_it_is() -> None:
    session = open_session("linear")
    *_, frame = session.run_all("f i:b")
    trace = frame.trace
    assert trace is not None
    walked = {op.name + (op.accumulates_into or ""): text(chain_rule_lines(trace, op, 80)) for op in trace.ops}
    for name, sentence in {
        "MeanBackward0": "1 × 1/3 = [0.3333, 0.3333, 0.3333]",
        "PowBackward0": "[0.33333 × (-6), 0.33333 × (-2), 0.33333 × 2] = [-2, -0.6667, 0.6667]",
        "SubBackward0": "[-2, -0.6667, 0.6667] × (-1) = [2, 0.6667, -0.6667]",
        "AddBackward0": "2 + 0.6667 - 0.6667 = 2",
        "AccumulateGradb": "None + 2 = 2",
        "MulBackward0": "2 + 1.3333 - 2 = 1.3333",
        "AccumulateGradw": "None + 1.3333 = 1.3333",
    }.items():
        assert sentence in walked[name], walked[name]


@pytest.mark.parametrize("command", ["i:f", "f i:b", "fb i:s"])
def test_the_line_needs_no_more_rows_than_a_lecture_hall_has(command: str) -> None:
    *_, frame = open_session("linear").run_all(command)
    assert frame.trace is not None
    for op in frame.trace.ops:
        assert len(chain_rule_lines(frame.trace, op, 76)) <= 5
