from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autograd_tui.core.frame import Frame, TorchError
from autograd_tui.core.run_config import RunConfig
from autograd_tui.core.session_protocol import DeviceLoad, SessionInfo
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.scenario import Options, Parts, scenario
from autograd_tui.text.frame_summary import HEADER, error_line, frame_line, load_words, status_line
from autograd_tui.text.styled_text import plain, to_ascii
from handmade_frames import frame
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


CARD = DeviceLoad(memory=12_300_000_000, total=85_500_000_000, use=0.37, temperature=54)
ABOUT = SessionInfo("the line", "cuda:0", 0, RunConfig("linear"))


def test_a_card_is_told_with_ever_fewer_words() -> None:
    assert load_words(CARD) == ["12.3 of 85.5 GB in use, 37% busy, 54 °C", "12.3 of 85.5 GB, 37%, 54 °C", "37%, 54 °C"]


def test_a_part_of_a_card_tells_only_its_memory() -> None:
    words = load_words(DeviceLoad(memory=1_000_000_000, total=10_000_000_000))
    assert words[0] == "1.0 of 10.0 GB in use"


def test_a_cpu_tells_what_the_process_takes() -> None:
    assert load_words(DeviceLoad(memory=546_152_448)) == ["RSS 0.5 GB"]


def test_what_nobody_knows_is_not_said() -> None:
    assert load_words(None) == load_words(DeviceLoad()) == load_words(DeviceLoad(total=1)) == []


@pytest.mark.parametrize(
    ("width", "row"),
    [
        (120, " the line · SGD lr 0.1 · cuda:0 12.3 of 85.5 GB in use, 37% busy, 54 °C · seed 0"),
        (100, " the line · SGD lr 0.1 · cuda:0 12.3 of 85.5 GB, 37%, 54 °C · seed 0"),
        (80, " the line · SGD lr 0.1 · cuda:0 37%, 54 °C · seed 0"),
        (74, " the line · SGD lr 0.1 · cuda:0 37%, 54 °C"),
        (60, " the line · SGD lr 0.1 · cuda:0"),
        (55, " the line · SGD lr 0.1"),
    ],
)
def test_the_status_row_drops_it_as_it_gets_narrow(width: int, row: str) -> None:
    line = plain(status_line(frame(), ABOUT, 0, width, load=CARD))
    assert line.startswith(f"{row} ")
    assert len(line) == width


def test_in_ascii_there_is_a_form_for_a_degree() -> None:
    assert to_ascii("54 °C", 5) == "54 'C"
