from __future__ import annotations

import math

import pytest

from autograd_tui.text.trace.module_tree import NormScale, norm_of, norm_over
from handmade_traces import line_backward, line_forward, line_step, tower


def test_a_call_is_about_what_came_out_and_a_node_about_what_came_in() -> None:
    forward, backward = line_forward(), line_backward()
    assert norm_of(forward, forward.ops[2]) == math.hypot(3, 1, 1)
    assert norm_of(backward, backward.ops[2]) == pytest.approx(math.hypot(2, 2 / 3, 2 / 3))


def test_a_module_is_about_its_last_call_its_first_node_or_all_its_gradients() -> None:
    forward, backward, step = line_forward(), line_backward(), line_step()
    assert norm_over(forward, forward.ops) == norm_of(forward, forward.ops[-1])
    assert norm_over(backward, backward.ops) == norm_of(backward, backward.ops[0])
    assert norm_over(step, step.ops) == math.hypot(4 / 3, 2)


def test_a_scale_is_whole_powers_of_ten_around_the_norms() -> None:
    assert NormScale.of(tower()) == NormScale(-3, 0)


def test_equal_norms_have_a_scale_too() -> None:
    assert NormScale.of(tower(1, wild=3)) == NormScale(0, 1)


@pytest.mark.parametrize("norm", [1e-3, 1e-2, 1e-1, 1.0])
def test_a_bar_grows_by_as_much_for_each_power(norm: float) -> None:
    share = (math.log10(norm) + 3) / 3
    assert NormScale(-3, 0).bar(norm, 100).count("█") == round(100 * (0.04 + 0.96 * share))


def test_nothing_has_no_bar() -> None:
    assert NormScale(-3, 0).bar(0.0, 20) == ""
