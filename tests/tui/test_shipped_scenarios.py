"""The small networks on the two sizes that matter: a desk's terminal, and a lecture hall's."""

from __future__ import annotations

import pytest

from app_screen import screen
from autograd_tui.engine.open_session import open_session
from autograd_tui.tui.panels.batch import OutputPanel
from autograd_tui.tui.screen_state import View

LOSS_LINES = {
    "spiral": "loss = binary_cross_entropy_with_logits(logits, y)",
    "lstm": "loss = mse_loss(prediction, y)",
    "transformer": "loss = cross_entropy(logits, y)",
}


@pytest.mark.parametrize("size", [(120, 40), (80, 24)], ids=str)
@pytest.mark.parametrize("scenario", LOSS_LINES)
async def test_a_small_network_shows_its_lines_whole(scenario: str, size: tuple[int, int]) -> None:
    async with screen(scenario, size=size, do="f") as shown:
        code = shown.text("CodePanel").splitlines()
        assert f"▶ {LOSS_LINES[scenario]}" in [line.strip() for line in code]
        assert not [line for line in code if line.endswith("…")]


@pytest.mark.parametrize("scenario", LOSS_LINES)
async def test_a_small_network_says_what_it_predicted(scenario: str) -> None:
    async with screen(scenario, do="fbsz*2 f") as shown:
        frame = shown.session.frame
        assert frame.prediction is not None
        assert "x".join(map(str, frame.prediction.shape)) in shown.text("DataPanel")
        assert all(f"{name} {value:.4f}" in shown.text("LossPanel") for name, value in frame.metrics)


async def test_a_transformer_is_shown_by_its_layers() -> None:
    async with screen("transformer", do="fb") as shown:
        table = shown.text("TablePanel")
        assert all(layer in table for layer in ("characters", "positions", "layers", "head"))


async def test_a_transformer_shows_its_outputs_for_each_position() -> None:
    async with screen("transformer", do="f") as shown:
        prediction = shown.session.frame.prediction
        assert prediction is not None
        first, second = shown.text("OutputPanel").splitlines()
        assert first.startswith(f"{prediction.min:.4f} ~▕")
        assert first.endswith(f"▏ {prediction.max:.4f}")
        assert second.startswith("mean ~")
        panel = shown.app.main.query_one(OutputPanel)
        assert panel.border_title == "Output   29 × 32 positions × 16 samples"


async def test_no_room_is_taken_for_outputs_where_there_is_little_to_tell() -> None:
    async with screen("lstm", do="f") as shown:
        assert not shown.app.main.query_one(OutputPanel).display


async def test_the_veil_covers_how_outputs_are_spread() -> None:
    async with screen("transformer") as shown:
        await shown.press("v", "f")
        assert set(shown.text("OutputPanel").splitlines()[0]) <= {"▒", " "}
        await shown.press("space")
        assert "▕" in shown.text("OutputPanel")


@pytest.mark.parametrize(
    ("batch_size", "title"),
    [(1, "Output   the largest 5 of 1000"), (3, "Output   image 1 of 3   [ ] another   the largest 5 of 1000")],
)
def test_outputs_say_of_which_image_of_the_batch_they_are(batch_size: int, title: str) -> None:
    session = open_session("resnet18", image_size=64, batch_size=batch_size)
    frame = session.run("f")
    panel = OutputPanel()
    panel.view = View(about=session.about)
    panel.draw(frame, 70, 5)
    assert panel.border_title == title
    panel.draw(frame, 70, 2)
    assert panel.border_title == title.replace("largest 5", "largest 2")


def test_outputs_have_bars_in_a_narrow_column_too() -> None:
    session = open_session("resnet18", image_size=64)
    frame = session.run("f")
    panel = OutputPanel()
    panel.set_reactive(OutputPanel.view, View(about=session.about))
    for width, targets in ((66, True), (54, True), (34, False)):
        rows = ["".join(text for text, _ in line) for line in panel.draw(frame, width, 5)]
        assert all("████" in row and len(row.rstrip()) <= width for row in rows)
        assert all(("target" in row) is targets for row in rows)
