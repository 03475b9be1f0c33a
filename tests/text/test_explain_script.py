from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from autograd_tui.core.command import Command
from autograd_tui.core.frame import Frame
from autograd_tui.text.batch_table import batch_lines
from autograd_tui.text.explain import explain
from autograd_tui.text.frame_summary import status_line
from autograd_tui.text.script_lines import (
    call_rows,
    code_title,
    cut_call_rows,
    kind_of,
    learn_order,
    script_code_lines,
    shown_order,
)
from autograd_tui.text.story import losses_of
from autograd_tui.text.styled_text import length, plain
from handmade_scripts import ABOUT, SCENES, accumulated, by_hand, closure, gan, history_of, library, raised, simple


def said(frame: Frame) -> str:
    return "\n".join(explain(frame))


def with_stop(frame: Frame, **changes: Any) -> Frame:
    assert frame.script is not None
    return replace(frame, script=replace(frame.script, **changes))


@pytest.mark.parametrize("scene", SCENES)
def test_nothing_that_is_true_of_a_scenario_alone_is_said_of_a_script(scene: str) -> None:
    for frame in SCENES[scene]():
        text = said(frame)
        assert text
        for false in ("space runs", "No parameter has moved:", "press l", "u undoes", ":seed", "as they were before"):
            assert false not in text


def test_a_forward_names_the_loss_and_the_models_and_is_held_before_its_backward() -> None:
    frame = gan()[8]
    assert said(frame).startswith("errG is 0.8312, made by netG and netD. backward has not begun")
    assert "There are gradients from before: backward adds to those that it reaches." in said(frame)


def test_a_scaled_loss_is_said_beside_the_loss() -> None:
    text = said(accumulated()[1])
    assert text.startswith("loss is 0.6100, made by model.")
    assert "GradScaler has scaled it: backward starts from 39976.9600, 65,536 times as much." in text
    assert "of the scaled loss: 65,536 times as large" in said(accumulated()[2])


def test_backwards_that_add_up_are_counted() -> None:
    assert "It was added to what was there: each .grad is the sum of 4 backwards." in said(accumulated()[8])
    assert "added" not in said(simple()[3])


def test_a_kept_graph_is_said() -> None:
    frame = simple()[3]
    assert "kept" not in said(frame)
    assert "The graph has been kept" in said(replace(frame, graph="alive"))


@pytest.mark.parametrize(
    ("norm", "bound", "words"),
    [
        (3.2173, 1.0, "a norm of 3.2173 over the gradients that it got, more than 1: it multiplied each by 0.3108."),
        (0.2, 0.25, "within 0.25: it left them as they were."),
        (float("nan"), 1.0, "a norm of NaN over the gradients that it got: no clipping can mend that."),
        (None, 0.5, "clip_grad_norm_ limited the gradients to at most 0.5."),
    ],
)
def test_clipping_says_the_norm_and_what_came_of_it(norm: float | None, bound: float, words: str) -> None:
    assert words in said(with_stop(accumulated()[10], norm=norm, max_norm=bound))


def test_a_step_of_one_of_several_optimizers_moves_its_own_parameters() -> None:
    text = said(gan()[10])
    assert text.startswith("optimizerG.step moved 4 of 8 parameters, each by learning rate × its averaged gradient")
    assert "least: netG" in text
    assert "The others stayed as they were." in text
    assert "That was step 1 of optimizerG." in text


def test_a_step_that_the_scaler_left_out_moves_nothing() -> None:
    text = said(accumulated(skipped=True)[11])
    assert text.startswith("GradScaler left optimizer.step out, for gradients that are not finite")
    assert "moved each" not in text


def test_a_scheduler_says_both_learning_rates() -> None:
    changed = "scheduler.step changed the learning rate of optimizer from 0.01 to 0.007, from its next step on."
    assert said(simple()[-1]) == changed
    assert "left the learning rate of optimizer as it was." in said(with_stop(simple()[-1], rates_before=(0.007,)))
    assert "the learning rate of optimizer is 0.007." in said(with_stop(simple()[-1], rates_before=()))


def test_zero_grad_says_whose_gradients_stay() -> None:
    text = said(gan()[7])
    assert text.startswith("netG.zero_grad had nothing to clear. 4 parameters still have a gradient")


def test_what_moved_by_hand_is_said() -> None:
    text = said(by_hand()[-1])
    assert "By hand: 0.weight, 0.bias, 2.weight, 2.bias have changed since the stop before" in text
    assert "the .grad of w went" in said(with_stop(by_hand()[-1], cleared_by_hand=("w",)))


def test_a_call_inside_another_says_so() -> None:
    assert "This is inside optimizer.step, which has not ended." in said(closure()[2])
    assert "strategy.py, line 198, of a library made the call." in said(library()[3])
    assert "inside" not in said(closure()[-1])


def test_a_script_that_raised_ends_as_it_would_have() -> None:
    text = said(raised()[-1])
    assert text.startswith("The script raised RuntimeError (train.py, line 6):")
    assert "From here on it ends as under plain Python." in text


def test_gradients_that_are_not_finite_are_no_harm_where_a_scaler_watches() -> None:
    frame = accumulated()[2]
    numbers = frame.grads.table.numbers[:]
    numbers[0], numbers[3] = float("inf"), 1
    spoiled = replace(frame, grads=replace(frame.grads, table=replace(frame.grads.table, numbers=numbers)))
    assert "GradScaler leaves a step out for that" in said(spoiled)
    assert "a step with that would put it into the parameters." in said(with_stop(spoiled, scaled_loss=None))


def test_losses_of_several_kinds_are_not_compared() -> None:
    frames = gan()
    assert all(losses_of(frame, history_of(frames)) is None for frame in frames)
    both = losses_of(simple()[6], history_of(simple()))
    assert both is not None
    assert [each.value for each in both] == [2.3026, 2.1984]


def test_the_lines_around_the_call_are_numbered_and_the_call_is_seen() -> None:
    frame = gan()[10]
    assert frame.script is not None
    lines = [plain(each) for each in script_code_lines(frame, frame.script, 60, 5)]
    assert lines[-1] == "▶ 16 optimizerG.step()"
    assert lines[0] == "  12 netG.zero_grad()"
    assert code_title(frame.script) == "Code   train.py, line 16"
    assert [plain(each) for each in script_code_lines(frame, frame.script, 60, 1)] == ["▶ 16 optimizerG.step()"]


def test_a_line_that_is_cut_says_so() -> None:
    frame = accumulated()[10]
    assert frame.script is not None
    (line,) = (plain(each) for each in script_code_lines(frame, frame.script, 30, 1))
    assert line == "▶  8 torch.nn.utils.clip_grad…"


def test_the_line_of_a_library_stands_below() -> None:
    frame = library()[3]
    assert frame.script is not None
    lines = [plain(each) for each in script_code_lines(frame, frame.script, 60, 9)]
    assert lines[-1].strip() == "tensor.backward is called in strategy.py, line 198"
    assert any(each.startswith("▶ 4 ") for each in lines)


def test_a_line_that_raised_is_marked() -> None:
    frame = raised()[-1]
    assert frame.script is not None
    assert any(plain(each).startswith("!  6 ") for each in script_code_lines(frame, frame.script, 60, 9))


def test_no_line_of_the_script_is_made_up() -> None:
    frame = with_stop(simple()[3], file="", line=0, source=())
    assert frame.script is not None
    assert [plain(each) for each in script_code_lines(frame, frame.script, 60, 9)] == ["▶ loss.backward"]


@pytest.mark.parametrize(
    ("scene", "order"),
    [
        ("simple", "zero_grad forward backward step scheduler"),
        ("gan", "zero_grad forward backward step"),
        ("accumulated", "forward backward unscale clip step zero_grad"),
        ("closure", "zero_grad forward backward step"),
        ("penalty", "zero_grad grad"),
    ],
)
def test_the_kinds_of_calls_are_learned_in_the_loops_order(scene: str, order: str) -> None:
    seen: tuple[str, ...] = ()
    before = None
    for frame in SCENES[scene]():
        seen, before = learn_order(seen, before, frame), frame
    assert " ".join(seen) == order


def test_a_kind_seen_out_of_turn_stands_where_most_loops_have_it() -> None:
    frame = replace(simple()[0], index=40, command=Command("scheduler"))
    assert shown_order(("zero_grad",), frame) == ("zero_grad", "forward", "backward", "step", "scheduler")
    clipped = replace(frame, command=Command("clip"))
    assert shown_order(("forward", "backward"), clipped) == ("forward", "backward", "clip", "step", "zero_grad")


@pytest.mark.parametrize(
    ("width", "says"), [(100, "train.py:16 · optimizerD, optimizerG, lr 0.01"), (40, "train.py:16")]
)
def test_the_status_row_says_where_the_script_is_held(width: int, says: str) -> None:
    row = plain(status_line(gan()[10], ABOUT, 10, width))
    assert row.strip().startswith(says)
    assert "iteration 1" in row
    assert len(row) <= width


def test_the_status_row_writes_numbers_as_they_are_typed() -> None:
    frame = replace(gan()[10], iteration=1096, index=5479)
    row = plain(status_line(frame, ABOUT, 5480, 100))
    assert "iteration 1096 " in row
    assert "frame 5479 of 5480" in row


def test_the_status_row_says_where_the_parameters_are() -> None:
    frame = gan()[10]
    assert frame.script is not None
    on_card = replace(frame, script=replace(frame.script, device="cuda:0"))
    assert "· cuda:0" in plain(status_line(on_card, ABOUT, 10, 100))


def test_the_batch_of_a_script_is_none_of_a_scenario() -> None:
    assert "scenario" not in "".join(plain(line) for line in batch_lines(gan()[8], ABOUT, 60))


def test_a_loop_that_was_met_in_its_middle_is_shown_from_its_forward_on() -> None:
    frames = accumulated()
    seen: tuple[str, ...] = ()
    for before, frame in pairwise([frames[0], *frames[2:], *(replace(each, index=100) for each in frames[1:])]):
        seen = learn_order(seen, before, frame)
    assert seen[:2] == ("forward", "backward")


KINDS = ("forward", "backward", "unscale", "clip", "step", "zero_grad", "scheduler")


@pytest.mark.parametrize("width", range(24, 90))
def test_a_long_loop_is_cut_around_its_present_call_and_never_at_the_edge(width: int) -> None:
    for frame in accumulated()[1:]:
        assert frame.script is not None
        rows = cut_call_rows(frame, frame.script, KINDS, width, {"forward": "loss 0.6100", "backward": "|grad| 1.2345"})
        names = plain(rows[0])
        assert max(map(length, rows)) <= width
        assert str(kind_of(frame)) in names.lower()
        assert names.endswith("…") or names.rstrip().endswith(("scheduler", "▐"))
        assert names.startswith("…") or names.lower().lstrip(" ▌")[0] == "f"


@pytest.mark.parametrize("width", [56, 60, 62])
def test_the_loss_stays_below_its_forward_where_the_strip_is_short(width: int) -> None:
    loop = ("zero_grad", "forward", "backward", "clip", "step")
    numbers = {"forward": "loss 8.9037 old", "backward": "|grad| 1.2345", "step": "|move| 0.1269"}
    frame = replace(accumulated()[2], command=Command("z"))
    assert frame.script is not None
    names, below = call_rows(frame, frame.script, loop, width, numbers)
    assert plain(below).index("loss 8.9037 old") == plain(names).index("forward")
    assert "|grad|" not in plain(below)  # the loss reaches below it
    assert ("|move| 0.1269" in plain(below)) is (plain(names).index("step") + 13 <= width)
    assert max(map(length, (names, below))) <= width


def test_a_loss_that_is_not_finite_is_an_error_in_a_short_strip_too() -> None:
    frame = accumulated()[1]
    assert frame.script is not None
    assert kind_of(frame) == "forward"
    below = call_rows(frame, frame.script, KINDS, 62, {"forward": "loss NaN"})[1]
    assert ("loss NaN", "error") in below
