from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autograd_tui.core.frame import Frame, TorchError
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.scenario import Options, Parts, scenario
from autograd_tui.text.frame_summary import HEADER, error_line, frame_line, status_line
from autograd_tui.text.styled_text import plain
from picture_frames import LINE


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(open_session("linear").run_all("fbsB"))


def test_a_forward_shows_its_loss_and_no_gradients(frames: list[Frame]) -> None:
    assert " ".join(frame_line(frames[0]).split()) == "1 f 1 0 3.66667 0.1 w 2 grad None b 6 grad None"


def test_a_backward_shows_its_gradients(frames: list[Frame]) -> None:
    assert frame_line(frames[1]).split()[6:] == ["w", "2", "grad", "1.33333", "b", "6", "grad", "2"]


def test_a_loss_from_before_a_step_is_marked_old(frames: list[Frame]) -> None:
    assert "3.66667 old" in frame_line(frames[2])


def test_columns_stand_below_their_header(frames: list[Frame]) -> None:
    line = frame_line(frames[2])
    assert line.index(" 0.1") + len(" 0.1") == HEADER.index(" lr") + len(" lr")
    assert line.index("w ") == HEADER.index("parameters")


def test_what_was_raised_stands_on_a_line_of_its_own(frames: list[Frame]) -> None:
    _, raised = frame_line(frames[3]).split("\n")
    assert raised.split()[:2] == ["raised", "RuntimeError:"]


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("Trying again. Once more.\nAnd more", "E: Trying again"),
        ("one\ntwo", "E: one"),
        ("", "E"),
        ("\n\n  late", "E: late"),
    ],
)
def test_an_error_is_told_in_its_first_sentence(message: str, line: str) -> None:
    assert error_line(TorchError("E", message, "", 0)) == line


def trained(model: nn.Module, *batch: Tensor) -> list[Frame]:
    def build(_: Options) -> Parts:
        return Parts(model=model, batch=lambda i: batch, loss=nn.functional.mse_loss)

    return list(open_session(scenario("mine")(build)).run_all("fb"))


def test_a_large_model_shows_norms_alone() -> None:
    forward, backward = trained(nn.Linear(9, 9), torch.ones(2, 9), torch.ones(2, 9))
    assert "|grads| None" in frame_line(forward)
    assert f"|grads| {backward.grads.norm():.6g}" in frame_line(backward)


def test_several_values_stand_in_brackets() -> None:
    forward, _ = trained(nn.Linear(1, 2), torch.ones(2, 1), torch.ones(2, 2))
    assert "weight [" in frame_line(forward)


def test_metrics_stand_at_the_end_and_are_as_old_as_the_loss() -> None:
    def build(_: Options) -> Parts:
        x, mae = torch.ones(2, 1), nn.functional.l1_loss
        return Parts(model=nn.Linear(1, 1), batch=lambda i: (x, x), loss=nn.functional.mse_loss, metrics={"mae": mae})

    forward, _, step = open_session(scenario("mine")(build)).run_all("fbs")
    assert frame_line(forward).endswith(f"   mae {dict(forward.metrics)['mae']:.6g}")
    assert frame_line(step).endswith(f"   mae {dict(forward.metrics)['mae']:.6g} old")


@pytest.mark.parametrize("width", range(44, 90))
def test_the_two_halves_of_the_first_row_stand_apart(width: int, frames: list[Frame]) -> None:
    row = plain(status_line(frames[-1], LINE, 4, width))
    assert len(row) == width
    assert "  iteration 1   frame" in row
