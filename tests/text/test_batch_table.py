from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autograd_tui import Frame, open_session
from autograd_tui.engine.training.scenario import Parts, Scenario
from autograd_tui.text.batch_table import (
    batch_lines,
    outputs_and_positions,
    prediction_lines,
    scatter_lines,
    scatter_title,
)
from autograd_tui.text.styled_text import length, plain
from session_internals import state_of


def forwarded(prediction: Tensor, target: Tensor) -> Frame:
    """Give the frame of a forward whose prediction and targets are these."""

    class Fixed(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return prediction + 0 * self.bias

    parts = Parts(
        model=Fixed(1, 1), batch=lambda i: (torch.zeros(1), target), loss=lambda prediction, target: prediction.sum()
    )
    return open_session(Scenario("fixed", lambda options: parts)).run("f")


@pytest.mark.parametrize(
    ("shape", "targets", "outputs"),
    [
        ((4, 29, 32), (4, 32), (29, 32)),  # as cross_entropy takes them
        ((4, 32, 29), (4, 32), (29, 32)),
        ((4, 32, 29), (4, 32, 29), (29, 32)),
        ((4, 24, 1), (4, 24, 1), None),  # one number for each
        ((4, 10), (4,), None),
        ((4, 3, 8, 8), (4, 8, 8), None),
    ],
)
def test_outputs_are_told_from_positions_by_the_targets(
    shape: tuple[int, ...], targets: tuple[int, ...], outputs: tuple[int, int] | None
) -> None:
    assert outputs_and_positions(forwarded(torch.rand(shape), torch.rand(targets))) == outputs


def test_before_a_forward_there_is_nothing_to_tell() -> None:
    frame = open_session("transformer").frame
    assert (outputs_and_positions(frame), prediction_lines(frame)) == (None, [])


def test_data_that_each_iteration_takes_as_they_are_stand_there_before_a_forward() -> None:
    session = open_session("linear")
    lines = [plain(line) for line in batch_lines(session.frame, session.about, 60)]
    later = [plain(line) for line in batch_lines(session.run("f"), session.about, 60)]
    assert lines[:2] == later[:2]
    assert lines[2].split() == ["Q", "none", "here:", "forward", "makes", "it"]
    assert len(lines) == len(later)  # so that nothing below moves


def test_larger_data_are_told_in_as_many_rows_before_a_forward_as_after_it() -> None:
    session = open_session("spiral")
    lines = [plain(line) for line in batch_lines(session.frame, session.about, 80)]
    later = [plain(line) for line in batch_lines(session.run("f"), session.about, 80)]
    assert lines[:2] == later[:2]
    assert lines[2].split() == ["logits", "none", "here:", "forward", "makes", "it"]
    assert len(lines) == len(later)


def test_fresh_data_are_not_known_before_a_forward() -> None:
    session = open_session("linear", data="fresh")
    (line,) = batch_lines(session.frame, session.about, 60)
    assert "no batch here" in plain(line)


def test_the_range_is_that_of_all_outputs() -> None:
    session = open_session("transformer")
    frame = session.run("f")
    prediction = state_of(session).prediction
    assert isinstance(prediction, Tensor)
    first, second = (plain(line) for line in prediction_lines(frame))
    assert first.startswith(f"{prediction.min():.4f} ~▕")
    assert first.endswith(f"▏ {prediction.max():.4f}")
    assert second.startswith("mean ~")


def test_few_outputs_are_spread_as_they_are() -> None:
    frame = forwarded(torch.arange(32.0).view(2, 4, 4), torch.rand(2, 4, 4))
    assert [plain(line) for line in prediction_lines(frame)] == [
        "0.0000 ▕████████████████▏ 31.0000",
        "mean 15.5000   std 9.2331",
    ]


def test_outputs_that_are_not_finite_are_counted() -> None:
    prediction = torch.rand(4, 29, 32)
    prediction[0, 0, :3] = float("nan")
    lines = [plain(line) for line in prediction_lines(forwarded(prediction, torch.rand(4, 32)))]
    assert lines == ["3 of 3 712 are NaN or infinite"]


def test_a_prediction_of_an_earlier_step_is_old() -> None:
    *_, frame = open_session("transformer").run_all("fbs")
    assert plain(prediction_lines(frame)[0]).endswith("  old")


def after(words: str, **options: int | str) -> Frame:
    *_, frame = open_session("linear", **options).run_all(words)  # type: ignore[arg-type]
    return frame


def text(frame: Frame, width: int = 50, height: int = 12) -> str:
    return "\n".join(plain(line) for line in scatter_lines(frame, width, height))


def test_each_point_has_its_truth_and_its_prediction() -> None:
    drawn = text(after("f"))
    assert drawn.count("o") - drawn.count("to") == 3
    assert drawn.count("*") == 3


def test_a_prediction_in_the_row_of_its_truth_stays_over_its_own_input() -> None:
    frame = after("f")
    columns = {
        place for line in scatter_lines(frame, 50, 4) for place, mark in enumerate(plain(line)[9:]) if mark in "o*&"
    }
    assert len(columns) == 3
    assert "&" in text(frame, height=4)
    assert "&" not in text(frame, height=12)


def test_a_fit_that_is_exact_is_drawn_as_equal() -> None:
    assert text(after("w=4 b=1 f")).count("&") == 3


@pytest.mark.parametrize("width", [10, 20, 30, 40, 60])
def test_an_old_prediction_says_so_in_the_title_and_not_among_the_points(width: int) -> None:
    old = after("fbs")
    assert ", old" in scatter_title(old, width)
    assert len(scatter_title(old, width)) <= width
    assert "old" not in text(old, width)
    assert "old" not in scatter_title(after("f"), width)


def test_before_the_first_forward_there_is_the_truth_where_each_iteration_takes_the_same_data() -> None:
    drawn = text(after("lr=1"))
    assert drawn.count("o") - drawn.count("to") == 3
    assert "*" not in drawn
    assert "forward makes one" in scatter_title(after("lr=1"), 60)
    assert "prediction" not in scatter_title(after("lr=1"), 20)


def test_before_the_first_forward_there_is_nothing_to_draw_of_fresh_data() -> None:
    assert "forward makes one" in text(after("lr=1", data="fresh"))


def test_a_prediction_that_is_not_finite_is_left_out() -> None:
    assert "*" not in text(after("w=nan f"))


def test_rows_fit_at_every_size() -> None:
    frame = after("fbs")
    for width in range(0, 70, 3):
        for height in range(16):
            lines = scatter_lines(frame, width, height)
            assert len(lines) <= max(height, 0)
            assert all(length(line) <= width for line in lines)
