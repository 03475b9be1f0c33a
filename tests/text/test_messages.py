from __future__ import annotations

import pytest

from autograd_tui.core.command import parse
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.frame_store import Branch
from autograd_tui.core.history import History
from autograd_tui.core.replay_check import Divergence
from autograd_tui.core.run_observer import Progress
from autograd_tui.text.messages import branch_line, divergence_line, left_branch_line, progress_line
from autograd_tui.text.prompt.completion import complete, completion_heading


def branch(number: int, words: str, fork: int, loss: float | None) -> Branch:
    log, history = CommandLog(parse(words)), History()
    if loss is not None:
        history.loss.append(1, 1, loss)
    return Branch(number, log, history, fork)


def test_going_back_says_how_far_it_has_come_and_how_to_give_it_up() -> None:
    assert progress_line(Progress(40, 1200)) == "going back: 40 of 1,200 frames, escape gives it up"
    assert progress_line(Progress(40, 1200, home=True)) == "returning: 40 of 1,200 frames"


def test_a_gradient_check_says_how_many_slopes_are_measured_and_that_escape_gives_it_up() -> None:
    assert progress_line(Progress(0, 0, gradient="w.grad")) == "checking w.grad, escape gives it up"
    assert progress_line(Progress(0, 0, gradient="w.grad"), 8.04) == "checking w.grad: 8.0 s, escape gives it up"
    assert progress_line(Progress(3, 8, gradient="w.grad"), 75) == (
        "checking w.grad: 3 of 8, 1 min 15 s, escape gives it up"
    )
    assert progress_line(Progress(3, 8, gradient="w.grad")) == "checking w.grad: 3 of 8, escape gives it up"


@pytest.mark.parametrize(
    ("difference", "line"),
    [
        (Divergence(12, "loss", 3.66666, 3.7012), "loss 3.6667 → 3.7012."),
        (Divergence(12, "loss", 0.25, 0.25000001), "loss 0.25 → 0.25000001."),
        (Divergence(12, "loss", None, 1.0), "loss - → 1.0000."),
        (Divergence(12, "gradients"), "its gradients differ."),
        (Divergence(12, ""), "something that no checkpoint keeps has changed."),
    ],
)
def test_a_difference_says_at_which_frame_and_by_how_much(difference: Divergence, line: str) -> None:
    said = divergence_line(difference)
    assert said.startswith("run again, frame 12 is not what it was: ")
    assert said.endswith(line)


def test_a_branch_says_its_length_where_it_was_left_and_its_last_loss() -> None:
    assert branch_line(branch(1, "fbsz*300", 40, 0.125)) == "1,200 frames, left at frame 40, last loss 0.1250"
    assert branch_line(branch(1, "lr=1", 0, None)) == "1 frame, left at frame 0"


@pytest.mark.parametrize(
    ("words", "fork", "line"),
    [
        ("fbszf", 2, "frames 3 to 5 are kept as a branch: :branch=3 returns there."),
        ("fbszf", 4, "frame 5 is kept as a branch: :branch=3 returns there."),
    ],
)
def test_what_is_left_says_how_to_return_to_it(words: str, fork: int, line: str) -> None:
    assert left_branch_line(branch(3, words, fork, None)) == line


def test_branches_are_offered_the_newest_first() -> None:
    branches = [branch(3, "fb", 1, 2.0), branch(4, "fbs", 2, 1.0)]
    assert [each.word for each in complete("branch=", None, branches=branches)] == ["branch=4", "branch=3"]
    assert "branch=" in [each.word for each in complete("", None, branches=branches)]
    assert "branch=" not in [each.word for each in complete("", None)]


def test_the_memory_for_checkpoints_is_shown_where_one_goes_back() -> None:
    assert completion_heading("@", None) == "frame to return to; checkpoints: up to 1 GiB"
