from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app_screen import Screen, screen
from autograd_tui.core.command import parse
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.scenario import Scenario
from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.layouts import MIN_ROWS_BELOW
from autograd_tui.tui.panels.footer import KeyTablePanel
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.trace_panels import ChainRulePanel, OperationPanel
from autograd_tui.tui.trace_screen import TraceScreen
from session_internals import as_scenario
from suite_options import some

SIZES = [(120, 40), (80, 24), (60, 15)]


def text(shown: Screen, panel: str) -> str:
    """Give what a panel inside shows; `panel` is its class name."""
    inside = shown.app.screen
    assert isinstance(inside, TraceScreen)
    (found,) = [each for each in inside.query(panel).results(Panel) if each.content_size.area]
    return "\n".join(found.render_line(y).text.rstrip() for y in range(found.content_size.height))


def lit(shown: Screen) -> str:
    """Give the rows of the graph or tree that are lit."""
    return "\n".join(row for row in text(shown, "GraphPanel").splitlines() if row.startswith("▶"))


def note(shown: Screen) -> str:
    inside = shown.app.screen
    assert isinstance(inside, TraceScreen)
    return inside.view.note.text if inside.view.note else ""


async def test_i_runs_the_next_phase_and_steps_inside_it() -> None:
    async with screen(do="f") as shown:
        await shown.press("i")
        assert "BACKWARD" in text(shown, "TraceHeaderPanel")
        assert "operation 1 of 7  MeanBackward0" in text(shown, "TraceHeaderPanel")
        assert shown.session.newest == 2


async def test_while_looking_back_i_records_the_phase_looked_at_and_trains_nothing() -> None:
    async with screen(do="fbsz") as shown:
        await shown.press("left", "left", "left", "i")
        assert "▌FORWARD▐" in text(shown, "TraceHeaderPanel")
        assert "inside frame 1" in text(shown, "TraceHeaderPanel")
        assert shown.session.frame.index == shown.session.newest == 4


async def test_a_recorded_command_in_words_steps_inside_it() -> None:
    async with screen(do="f") as shown:
        await shown.press(":", *"i:b", "enter")
        assert "operation 1 of 7" in text(shown, "TraceHeaderPanel")


async def test_a_recorded_command_goes_on_from_the_frame_looked_at() -> None:
    async with screen(do="fbsz") as shown:
        await shown.press("left", "left", "left", ":", *"i:b", "enter", "escape")
        assert shown.session.commands() == "fb"


async def test_words_are_understood_inside_and_never_run_as_keys() -> None:
    async with screen(do="f") as shown:
        await shown.press("i", ":", *"theme light", "enter")
        assert shown.app.theme == "textual-light"
        await shown.press(":", *"plod loss", "enter")
        assert note(shown) == '"plod" is not understood: the nearest is plot.'
        await shown.press("escape", ":", *"help", "enter")
        panel = shown.app.screen.query_one(KeyTablePanel)
        assert "check the gradient" in "".join(panel.render_line(y).text for y in range(panel.size.height))
        await shown.press("escape", ":", *"/sub", "enter")
        assert "operation 3 of 7" in text(shown, "TraceHeaderPanel")
        await shown.press(":", *"plot grad", "enter", "left")
        assert shown.app.screen is shown.app.main
        assert (shown.app.main.view.plot.names, shown.session.newest) == (("grad",), 2)
        await shown.press("escape", "i", ":", *"lr=0.5", "enter", "z")
        assert shown.session.commands() == "fbs lr=0.5 z"


async def test_keys_of_the_main_screen_say_inside_what_they_are() -> None:
    async with screen(do="f") as shown:
        await shown.press("i", "f")
        assert note(shown) == '"f" is a key of the main screen: i leads out to it; ? lists the keys'
        await shown.press("x")
        assert note(shown) == '"x" does nothing here; ? lists the keys'
        assert shown.session.newest == 2


async def test_the_word_inside_does_as_the_key() -> None:
    async with screen(do="f") as shown:
        await shown.press(":", *"inside", "enter")
        assert "▌BACKWARD▐" in text(shown, "TraceHeaderPanel")


async def test_arrows_walk_there_and_back() -> None:
    async with screen(do="f") as shown:
        await shown.press("i", "right", "right")
        assert "sub" in lit(shown)
        await shown.press("left")
        assert "pow 2" in lit(shown)


async def test_space_walks_on_and_behind_the_last_operation_leads_out() -> None:
    async with screen(do="f") as shown:
        await shown.press("i", *["space"] * 6)
        assert "operation 7 of 7" in text(shown, "TraceHeaderPanel")
        await shown.press("space")
        assert shown.app.screen is shown.app.main
        assert shown.session.newest == 2


async def test_keys_typed_before_the_recording_is_there_walk_it() -> None:
    async with screen(do="f") as shown:
        await shown.pilot.press("i", "space", "space", "right")
        await shown.settle()
        assert "operation 4 of 7" in text(shown, "TraceHeaderPanel")
        assert shown.session.newest == 2


async def test_a_name_typed_before_the_recording_is_there_is_run_to() -> None:
    app = AutogradApp(lambda _: open_session("linear"), parse("f"), title="linear")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("i", "slash", *"sub", "enter", "down")
        shown = Screen(app, pilot)
        await shown.settle()
        assert "operation 4 of 7" in text(shown, "TraceHeaderPanel")


async def test_i_before_the_session_is_open_waits_for_it() -> None:
    app = AutogradApp(lambda _: open_session("linear"), parse(""), title="linear")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("f", "i", "space")
        shown = Screen(app, pilot)
        await shown.settle()
        assert "operation 2 of 7" in text(shown, "TraceHeaderPanel")


async def test_home_and_end_and_their_signs_go_to_the_first_and_the_last() -> None:
    async with screen(do="f") as shown:
        await shown.press("i", "end")
        assert "operation 7 of 7" in text(shown, "TraceHeaderPanel")
        await shown.press("home")
        assert "operation 1 of 7" in text(shown, "TraceHeaderPanel")
        await shown.press("greater_than_sign", "less_than_sign")
        assert "operation 1 of 7" in text(shown, "TraceHeaderPanel")


@pytest.mark.parametrize("size", SIZES)
async def test_gradients_appear_as_the_walk_reaches_them(size: tuple[int, int]) -> None:
    async with screen(do="f", size=size) as shown:
        await shown.press("i")
        assert "1.3333" not in text(shown, "GraphPanel")
        await shown.press("end")
        assert "1.3333  → w.grad" in text(shown, "GraphPanel")


async def test_where_autograd_follows_nothing_the_graph_says_why() -> None:
    async with screen(do="f", size=(80, 24)) as shown:
        await shown.press("i")
        (row,) = [row for row in text(shown, "GraphPanel").splitlines() if "○ x" in row]
        assert "requires_grad=False" in row


async def test_in_a_forward_values_appear_from_the_leaves_up() -> None:
    async with screen() as shown:
        await shown.press("i", "right")
        (row,) = [row for row in text(shown, "GraphPanel").splitlines() if "AddBackward0" in row]
        assert "8.0000  10.0000  12.0000" in row
        assert "3.6667" not in text(shown, "GraphPanel")


async def test_up_follows_the_picture() -> None:
    async with screen() as shown:
        await shown.press("i", "up")
        assert "add" in lit(shown)


async def test_a_step_has_an_operation_for_each_parameter() -> None:
    async with screen(do="fb") as shown:
        await shown.press("i", "right")
        assert "parameter 2 of 2  b" in text(shown, "TraceHeaderPanel")
        assert "6 → 5.8" in text(shown, "GraphPanel")


async def test_a_zero_grad_shows_what_it_clears() -> None:
    async with screen(do="fbs") as shown:
        await shown.press("i")
        assert "1.3333 → None" in text(shown, "GraphPanel")


async def test_the_state_of_each_grad_is_told_as_far_as_the_walk_has_come() -> None:
    async with screen(do="f") as shown:
        await shown.press("i", *["space"] * 4)
        assert text(shown, "TraceGradsPanel").splitlines() == ["▶ b  None → 2", "  w  None, until operation 7"]


async def test_the_line_of_source_is_lit() -> None:
    async with screen(do="f") as shown:
        await shown.press("i", "right")
        (row,) = [row for row in text(shown, "SourcePanel").splitlines() if row.startswith("▶")]
        assert "return ((target - prediction) ** 2)" in row


async def test_n_goes_to_the_next_operation_of_the_module() -> None:
    async with screen("resnet18", do="f", image_size=32, batch_size=2) as shown:
        await shown.press("i", "slash", *"layer4.1.bn2", "enter")
        assert "NativeBatchNormBackward0" in lit(shown)
        await shown.press("n")
        assert "→ weight.grad" in lit(shown)


async def test_n_stays_where_the_module_has_no_later_operation() -> None:
    async with screen(do="f") as shown:
        await shown.press("i", "end", "n")
        assert "no later operation" in note(shown)


async def test_slash_finds_nothing_of_an_unknown_name_and_says_so() -> None:
    async with screen(do="f") as shown:
        await shown.press("i", "slash", *"softmax", "enter")
        assert 'no operation or module has "softmax" in its name.' in note(shown)


async def test_a_large_model_is_a_tree_folded_to_what_fits() -> None:
    async with screen("resnet18", do="f", image_size=32, batch_size=2) as shown:
        await shown.press("i")
        tree = text(shown, "GraphPanel")
        assert "layer4  31 operations" in tree
        assert "layer4.0" not in tree


@pytest.mark.parametrize("size", some(SIZES, 1))
async def test_the_operation_at_hand_is_always_in_sight(size: tuple[int, int]) -> None:
    async with screen("resnet18", do="f", size=size, image_size=32, batch_size=2) as shown:
        await shown.press("i")
        for _ in range(135):
            assert len(lit(shown).splitlines()) == 1
            await shown.pilot.press("right")


async def test_enter_opens_what_arrows_have_chosen() -> None:
    async with screen("resnet18", do="f", image_size=32, batch_size=2) as shown:
        await shown.press("i", "home")
        before = len(text(shown, "GraphPanel").split("operations"))
        for _ in range(20):
            await shown.press("down")
            if any("→ ▸ layer3 " in row for row in text(shown, "GraphPanel").splitlines()):
                break
        await shown.press("enter")
        assert len(text(shown, "GraphPanel").split("operations")) > before
        await shown.press("down", "enter", "down", "enter")
        assert "in layer3.1" in text(shown, "TraceHeaderPanel")


async def test_enter_without_a_chosen_row_says_how_to_choose() -> None:
    async with screen("resnet18", do="f", image_size=32, batch_size=2) as shown:
        await shown.press("i", "enter")
        assert "↑ and ↓ select a row" in note(shown)


@pytest.mark.parametrize("key", ["escape", "i", "q"])
async def test_out_again(key: str) -> None:
    async with screen(do="f") as shown:
        await shown.press("i", key)
        assert shown.app.screen is shown.app.main
        assert shown.app.is_running


async def test_escape_leaves_the_prompt_first() -> None:
    async with screen(do="f") as shown:
        await shown.press("i", "slash", "escape")
        assert isinstance(shown.app.screen, TraceScreen)
        assert not shown.app.screen.prompt.is_open


async def test_a_phase_that_raises_shows_what_came_before_and_the_error_last() -> None:
    async with screen("resnet18", image_size=32) as shown:
        await shown.press("i")
        last = text(shown, "GraphPanel").rstrip().splitlines()[-1]
        assert last.startswith("! ValueError: Expected more than 1 value per channel")


async def test_where_something_goes_infinite_the_walk_opens_there() -> None:
    async with screen(do="b=inf") as shown:
        await shown.press("i")
        assert "operation 2 of 5  add" in text(shown, "TraceHeaderPanel")
        assert "First infinity: 3 of 3 values out of add" in note(shown)


@pytest.mark.parametrize("size", SIZES)
async def test_what_went_wrong_stays_in_one_row_below_the_panels(size: tuple[int, int]) -> None:
    async with screen(do="b=inf", size=size) as shown:
        await shown.press("i")
        row = text(shown, "NotePanel")
        assert "\n" not in row
        assert "First infinity: 3 of 3 values out of add, 2 of 5" in row


async def test_the_error_of_a_second_backward_is_told_whole() -> None:
    async with screen(do="fb", size=(80, 24)) as shown:
        await shown.press(":", *"i:B", "enter")
        assert "after they have already been freed" in " ".join(text(shown, "ChainRulePanel").split())


async def test_after_a_phase_that_raised_i_opens_that_phase_and_once_more_goes_on() -> None:
    async with screen("resnet18", image_size=32) as shown:  # its batch norm refuses a single value a channel
        await shown.pilot.press("f", "i")  # typed ahead: what i means is settled when its turn comes
        await shown.settle()
        assert "▌FORWARD▐" in text(shown, "TraceHeaderPanel")
        assert "inside frame 1" in text(shown, "TraceHeaderPanel")
        assert "batch_norm raised: nothing came out of it." in text(shown, "ChainRulePanel")
        await shown.press("escape", "i")
        assert "inside frame 2" in text(shown, "TraceHeaderPanel")
        await shown.press("escape", "u", "f", "i")
        assert "inside frame 2" in text(shown, "TraceHeaderPanel")


async def test_inside_a_step_that_raised_everything_is_as_it_was() -> None:
    async with screen(do="optimizer=sgd,differentiable=true fbs") as shown:
        await shown.press("i")
        assert "▌STEP▐" in text(shown, "TraceHeaderPanel")
        assert "6 → 6" in text(shown, "GraphPanel")
        assert "the step raised, and what it had moved was put back." in " ".join(text(shown, "ChainRulePanel").split())
        assert "used" not in text(shown, "TraceGradsPanel")


async def test_a_frame_without_a_phase_has_no_inside() -> None:
    async with screen(do="f") as shown:
        await shown.press("left", "i")
        assert shown.app.screen is shown.app.main
        assert "there is nothing inside it to walk" in shown.note


async def test_ctrl_c_twice_quits() -> None:
    async with screen(do="f") as shown:
        await shown.press("i")
        await shown.press("ctrl+c")
        assert "once more quits" in note(shown)
        await shown.press("ctrl+c")
        assert shown.app.return_code == 130


async def test_help_lists_the_keys_inside() -> None:
    async with screen(do="f") as shown:
        await shown.press("i", "question_mark")
        panel = shown.app.screen.query_one(KeyTablePanel)
        words = " ".join(panel.render_line(y).text for y in range(panel.size.height))
        assert "the next operation" in words


async def test_another_size_brings_another_layout_of_the_same_place() -> None:
    async with screen(do="f") as shown:
        await shown.press("i", "right")
        await shown.resize(80, 24)
        assert "pow 2" in lit(shown)
        await shown.press("escape")
        assert shown.app.screen is shown.app.main


async def test_training_goes_on_after_a_walk() -> None:
    async with screen() as shown:
        await shown.press(*["i", "escape"] * 4, "space")
        assert shown.session.commands() == "fbsz f"


async def test_p_checks_the_gradient_at_hand_and_walking_on_puts_the_check_away() -> None:
    async with screen(do="f") as shown:
        await shown.press("i", "greater_than_sign", "p")
        assert "w.grad: agrees" in text(shown, "ChainRulePanel")
        assert "+1.3333" in text(shown, "ChainRulePanel")
        await shown.press("left")
        assert "agrees" not in text(shown, "ChainRulePanel")
        await shown.press("p")
        assert "dLoss/d(mul 1): agrees" in text(shown, "ChainRulePanel")


async def test_in_a_step_p_checks_the_gradient_that_moved_the_parameter() -> None:
    for do in ("fb", "fbs"):
        async with screen(do=do) as shown:
            await shown.press("i", "p")
            assert "w.grad: agrees" in text(shown, "ChainRulePanel"), do


class Gated(nn.Linear):
    """Waits in its forward in float64, which nothing but a gradient check runs, until it is let through."""

    through, reached = threading.Event(), threading.Event()
    forwards: Any = ModuleType("forwards")  # which nobody puts back after a gradient check

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype is torch.float64:
            Gated.forwards.count += 1
            Gated.reached.set()
            assert Gated.through.wait(60)
        return super().forward(x)


def gated_scenario() -> Scenario:
    x = torch.rand(2, 3)
    return as_scenario(lambda seed: (Gated(3, 1), lambda i: (x, x[:, :1])))


async def test_a_gradient_check_says_how_far_it_is_and_each_key_that_leaves_gives_it_up() -> None:
    async with screen(gated_scenario(), do="fbs") as shown:  # type: ignore[arg-type]
        main = shown.app.main
        await shown.press("left", "left", "i", "end", "left")

        async def begin() -> None:
            Gated.through.clear()
            Gated.reached.clear()
            Gated.forwards.count = 0
            await shown.pilot.press("p", "p")
            await shown.until(Gated.reached.is_set)
            await shown.until(lambda: note(shown).startswith("checking dLoss/d(pow 3)"))
            assert not main.trainer.status.waiting  # the second p asked for nothing

        async def let_through() -> None:
            Gated.through.set()
            await shown.settle()
            assert Gated.forwards.count == 1
            assert "agrees" not in text(shown, "ChainRulePanel")

        for key in ("escape", "q", "ctrl+c", "right"):
            await begin()
            await shown.pilot.press(key)
            await let_through()
            assert note(shown) == "the gradient check was given up.", key
        await shown.press("left", "p")
        assert "dLoss/d(pow 3): agrees" in text(shown, "ChainRulePanel")
        assert note(shown) == ""
        await begin()
        await shown.pilot.press("i", "space")
        Gated.through.set()
        await shown.settle()
        assert shown.app.screen is main
        assert shown.session.commands() == "fb"  # it went on from the frame looked at
        assert Gated.forwards.count == 1


async def test_in_a_lecture_hall_no_row_stays_empty_while_the_tree_is_cut() -> None:
    async with screen("resnet18", image_size=32, batch_size=2, size=(80, 24)) as shown:
        await shown.press("i", *["right"] * 20)
        for _ in range(10):
            await shown.press("right")
            inside = shown.app.screen
            assert isinstance(inside, TraceScreen)
            rule = inside.query_one(ChainRulePanel)
            assert "more" in text(shown, "GraphPanel").splitlines()[-1]
            assert rule.content_size.height == rule.most_rows(inside.view, rule.content_size.width) < 9


async def test_what_stands_below_takes_no_rows_that_the_tree_or_the_gradients_need() -> None:
    async with screen("resnet18", image_size=32, batch_size=2, do="f", size=(200, 60)) as shown:
        await shown.press("i", *["right"] * 20)
        inside = shown.app.screen
        assert isinstance(inside, TraceScreen)
        rule, operation = inside.query_one(ChainRulePanel), inside.query_one(OperationPanel)
        below = max(rule.most_rows(inside.view, rule.content_size.width) + 2, MIN_ROWS_BELOW)
        assert rule.outer_size.height == below
        assert operation.content_size.height == operation.most_rows(inside.view, operation.content_size.width)
        assert "more" in text(shown, "TraceGradsPanel")
