"""Which sample of the batch the output is of, and how to choose another."""

from __future__ import annotations

from pathlib import Path

from app_screen import Screen, screen
from autograd_tui.text.numbers import number

MODEL = """
import torch
from autograd_tui import Parts, scenario

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(12, 30)
    def forward(self, x):
        return self.fc(x.flatten(1))

@scenario("images")
def build(options):
    x, y = torch.rand(8, 3, 2, 2), torch.rand(8, 30)
    return Parts(model=Net(), batch=lambda i: (x, y), loss=torch.nn.functional.mse_loss)
"""


def written(folder: Path) -> str:
    file = folder / "images.py"
    file.write_text(MODEL)
    return str(file)


def shows(shown: Screen, sample: int) -> bool:
    """Tell whether the panel is titled with a sample, from 1, and has its numbers."""
    top = shown.session.frame.top_of(sample - 1)
    text = shown.text("OutputPanel")
    titled = f"image {sample} of 8" in str(shown.app.main.query_one("OutputPanel").border_title)
    return titled and all(number(value) in text for _, value, _ in top)


async def test_keys_and_words_choose_the_image_whose_outputs_are_shown(tmp_path: Path) -> None:
    async with screen(written(tmp_path), do="f", size=(120, 50)) as shown:
        assert shows(shown, 1)
        await shown.press("right_square_bracket")
        assert shows(shown, 2)
        await shown.press("5", "right_square_bracket", "left_square_bracket")
        assert shows(shown, 6)
        await shown.press("colon", *"image 3", "enter")
        assert shows(shown, 3)
        assert shown.session.commands() == "f"


async def test_an_image_that_is_not_there_gets_a_sentence(tmp_path: Path) -> None:
    async with screen(written(tmp_path), do="f", size=(120, 50)) as shown:
        await shown.press("left_square_bracket")
        assert shown.note == "the outputs of samples 1 to 8 are known."
        await shown.press("colon", *"image 9", "enter")
        assert shown.note == "the outputs of samples 1 to 8 are known."
        await shown.press("escape", "colon", *"image none", "enter")
        assert "give its number in the batch" in shown.note
    async with screen(do="f") as shown:
        await shown.press("right_square_bracket")
        assert "no outputs of another sample" in shown.note
