from __future__ import annotations

from dataclasses import replace

import pytest

from autograd_tui.core.gradcheck_result import GradCheck, Verdict
from autograd_tui.core.trace import Trace
from autograd_tui.engine.open_session import open_session
from autograd_tui.text.styled_text import length, plain
from autograd_tui.text.trace.grad_lines import grad_lines, grad_summary, gradcheck_lines
from autograd_tui.text.trace.trace_position import TracePosition
from handmade_traces import line_backward, line_forward, line_step, line_zero_grad, tower, value


def grad_texts(trace: Trace, index: int, width: int = 40, height: int = 8) -> list[str]:
    return [plain(line).rstrip() for line in grad_lines(TracePosition(trace, index), width, height)]


def test_before_its_operation_a_grad_says_when_it_will_be_filled() -> None:
    assert grad_texts(line_backward(), 0) == ["  b  None, until operation 5", "  w  None, until operation 7"]


def test_at_its_operation_a_grad_is_filled() -> None:
    assert grad_texts(line_backward(), 4) == ["▶ b  None → 2", "  w  None, until operation 7"]


def test_what_was_there_is_told_beside_the_sum() -> None:
    trace = line_backward()
    filled = replace(trace.ops[-1], grad_before=value("", 1.0), grad_after=value("", 7 / 3))
    assert grad_texts(replace(trace, ops=(*trace.ops[:-1], filled)), 6)[1] == "▶ w  1 → 2.3333"


def test_a_step_uses_them_one_after_the_other() -> None:
    assert grad_texts(line_step(), 0) == ["▶ w  1.3333  used", "  b  2"]


def test_a_zero_grad_clears_them() -> None:
    assert grad_texts(line_zero_grad(), 1) == ["  w  1.3333 → None", "▶ b  2 → None"]


def test_a_forward_fills_none() -> None:
    assert grad_texts(line_forward(), 4) == []
    assert grad_summary(TracePosition(line_forward())) == ""


def test_they_are_counted() -> None:
    assert grad_summary(TracePosition(tower(), 8)) == "3 of 8 filled"


@pytest.mark.parametrize("height", [2, 3, 5, 9])
def test_the_one_at_hand_is_in_sight(height: int) -> None:
    trace = tower()
    for op in trace.ops:
        rows = grad_texts(trace, op.number, height=height)
        assert len(rows) <= height
        assert any(row.startswith("▶") for row in rows) == (op.accumulates_into is not None)


@pytest.mark.parametrize("width", [30, 36, 40, 60])
def test_no_row_is_longer_than_there_is_room(width: int) -> None:
    for trace in (tower(), line_backward(), line_step()):
        for index in range(len(trace.ops)):
            assert max(map(length, grad_lines(TracePosition(trace, index), width, 8))) <= width


@pytest.fixture(scope="module")
def check() -> GradCheck:
    session = open_session()
    list(session.run_all("fb"))
    return session.check_gradient(2, "w")


def text(check: GradCheck, width: int = 78) -> str:
    return "\n".join(map(plain, gradcheck_lines(check, width)))


def test_the_line_shows_its_gradient_in_four_ways(check: GradCheck) -> None:
    title, verdict, heading, row, *_ = text(check, 140).splitlines()
    assert title == "w.grad: agrees"
    assert verdict.startswith("Autograd in float64 is off by")
    assert heading.split() == ["differences", "the", "run", "float64", "formula"]
    assert row.split() == ["[0]", *["+1.3333"] * 4]


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ("agrees", "Autograd in float64 is off by"),
        ("wrong", "some operation's backward is not the slope of its forward, or a hook has changed"),
        ("differs", "more than float32 rounds, so something else has changed it, such as a hook"),
        ("kink", "In 1 of 1 the loss has a kink"),
    ],
)
def test_each_verdict_says_what_follows(verdict: Verdict, sentence: str, check: GradCheck) -> None:
    assert sentence in " ".join(text(replace(check, verdict=verdict, kinks=1)).split())


@pytest.mark.parametrize("width", [20, 40, 78])
def test_every_row_fits(width: int, check: GradCheck) -> None:
    many = tuple(range(40))
    large = replace(check, shape=(4, 10), numeric=many, held=many, exact=many, closed=None)
    for each in (check, large, replace(large, kind="directions")):
        assert max(map(length, gradcheck_lines(each, width))) <= width


def test_elements_are_named_by_their_place_and_many_are_counted(check: GradCheck) -> None:
    many = tuple(map(float, range(12)))
    shown = text(replace(check, shape=(3, 4), numeric=many, held=many, exact=many, closed=None))
    assert ["[1,2]", *["+6.0000"] * 3] in [row.split() for row in shown.splitlines()]
    assert "and 4 more" in shown


def words(check: GradCheck) -> str:
    return " ".join(text(check).split())


def test_what_was_held_still_is_said_with_its_lines(check: GradCheck) -> None:
    start = "The loss also depends on w through detach (line 18), which gradients do not follow: "
    assert start + "measured with that held still, they agree." in words(
        replace(check, held_still=("detach (line 18)",))
    )
    wrong = words(replace(check, held_still=("detach (line 18)", "no_grad (line 20)"), verdict="wrong"))
    assert "through detach (line 18) and no_grad (line 20), which gradients do not follow: that was held still" in wrong
    assert "depends on what comes out of mul 1 through" in words(replace(check, name="mul 1", held_still=("item",)))


def test_what_is_another_in_the_copy_is_said(check: GradCheck) -> None:
    assert "In the copy float (line 3) gives float64." in words(replace(check, casts=("float (line 3)",)))
    casts = tuple(f"to (line {line})" for line in range(1, 6))
    sentence = "In the copy to (line 1), to (line 2), to (line 3) and 2 more give float64 and autocast is off."
    assert sentence in words(replace(check, casts=casts, autocast=True))
    assert "In the copy" not in words(check)
    sentence = "the run's float32 gradient, with bfloat16 on its way, is off by"
    assert sentence in words(replace(check, coarsest="bfloat16"))


def test_of_a_script_it_is_said_who_made_the_forwards_and_that_the_loss_was_scaled(check: GradCheck) -> None:
    said = words(replace(check, of_script=True, scale=1024.0))
    assert "in copies of the script that run its own forward." in said
    assert "GradScaler has multiplied the loss by 1024" in said
    assert "on a copy of the model." in words(check)
    assert "GradScaler" not in words(check)


def test_what_comes_out_of_an_operation_is_named_as_such(check: GradCheck) -> None:
    assert text(replace(check, name="mul 1")).startswith("dLoss/d(mul 1): agrees")
