"""Parameters of every kind on screen: frozen, tied, unused, in groups, of any dtype, of any name, very many."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from app_screen import Screen, screen
from autograd_tui.core.errors import Refused
from autograd_tui.engine.open_session import open_session
from autograd_tui.text.styled_text import plain
from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.parameters import ParametersPanel
from autograd_tui.tui.screen_state import View
from session_internals import state_of
from suite_options import some

SIZES = [(120, 40), (80, 24), (60, 15)]
HEAD = """
import torch
from torch import nn
from autograd_tui import Parts, scenario

"""
KINDS = (
    HEAD
    + """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))
        self.cold = nn.Parameter(torch.tensor([3.0]), requires_grad=False)
        self.idle = nn.Parameter(torch.tensor([5.0]))
        self.twin = self.w

    def forward(self, x):
        return x * self.w * self.twin + self.cold

@scenario("kinds")
def build(options):
    x = torch.ones(2)
    metrics = {"mae": lambda prediction, target: (prediction - target).abs().mean()}
    return Parts(model=Net(), batch=lambda i: (x, 4 * x), loss=nn.functional.mse_loss, metrics=metrics)
"""
)
DTYPES = (
    HEAD
    + """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        for dtype in (torch.complex64, torch.float16, torch.bfloat16, torch.float64):
            self.register_parameter("of_" + str(dtype)[6:], nn.Parameter(torch.ones(3, dtype=dtype)))
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.scalar = nn.Parameter(torch.tensor(2.0))
        self.places = nn.Parameter(torch.arange(3), requires_grad=False)
        self.register_buffer("counts", torch.arange(3))

def forward(model, batch):
    return sum((param.abs() ** 2).double().sum() for param in model.parameters())

@scenario("dtypes")
def build(options):
    return Parts(model=Net(), batch=lambda i: (), forward=forward)
"""
)
UNLIKE = (
    HEAD
    + """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.EmbeddingBag(50, 4, sparse=True, mode="sum")
        self.wave = nn.Parameter(torch.ones(5, dtype=torch.cfloat))
        self.turn = nn.Parameter(torch.tensor(3 + 4j))
        self.flags = nn.Parameter(torch.ones(3, dtype=torch.bool), requires_grad=False)
        self.register_buffer("mask", torch.ones(3, dtype=torch.bool))
        self.register_buffer("near", torch.eye(3).to_sparse())

    def forward(self, x):
        self.mask = ~self.mask
        return self.words(x) + (self.wave * self.wave.conj()).real.sum() + (self.turn * self.turn.conj()).real

@scenario("unlike")
def build(options):
    x, y = torch.randint(0, 50, (8, 3)), torch.randn(8, 4)
    return Parts(model=Net(), batch=lambda i: (x, y), loss=nn.functional.mse_loss, optimizer="sgd,lr=0.001")
"""
)
NAMED = (
    HEAD
    + """
@scenario("names")
def build(options):
    model = nn.Module()
    for name in {names!r}:
        model.register_parameter(name, nn.Parameter(torch.ones(1)))
    return Parts(model=model, batch=lambda i: (), forward=lambda model, batch: sum(model.parameters()).sum())
"""
)
NAMES = ["n" * 300, "a[0]", "[bold]b[/bold]", "[", "]", "red\x1b[31mred", "bell\x07", "new\nline", "é 漢字"]
GROUPS = (
    HEAD
    + """
@scenario("groups")
def build(options):
    model = nn.Module()
    model.w, model.b = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([6.0]))
    groups = [{"params": [model.w]}, {"params": [model.b], "lr": 0.5}]
    forward = lambda model, batch: (model.w * model.b).sum()
    return Parts(model=model, batch=lambda i: (), forward=forward, optimizer="sgd,lr=0.1", groups=groups)
"""
)


def written(folder: Path, source: str) -> str:
    file = folder / "net.py"
    file.write_text(source, encoding="utf-8")
    return str(file)


def everything(shown: Screen) -> str:
    panels = [panel for panel in shown.app.main.query(Panel) if panel.content_size.area]
    return "\n".join(panel.render_line(y).text for panel in panels for y in range(panel.content_size.height))


@pytest.mark.parametrize("size", SIZES)
async def test_a_frozen_parameter_is_called_frozen(tmp_path: Path, size: tuple[int, int]) -> None:
    async with screen(written(tmp_path, KINDS), do="fb", size=size) as shown:
        rows = [line for line in everything(shown).splitlines() if line.startswith("cold ")]
        assert rows
        for row in rows:
            assert "frozen" in row
            assert "None" not in row


@pytest.mark.parametrize("size", SIZES[:2])
async def test_a_parameter_that_the_loss_does_not_use_says_so(tmp_path: Path, size: tuple[int, int]) -> None:
    async with screen(written(tmp_path, KINDS), do="fb", size=size) as shown:
        assert re.search("no gradient reached|unused by loss", everything(shown))


async def test_after_a_step_the_frozen_one_is_said_to_stay(tmp_path: Path) -> None:
    async with screen(written(tmp_path, KINDS), do="fbs") as shown:
        assert "its gradient is None, since it is frozen" in " ".join(shown.text("ExplanationPanel").split())


async def test_a_tied_parameter_names_its_other_name(tmp_path: Path) -> None:
    async with screen(written(tmp_path, KINDS)) as shown:
        await shown.press("down")
        assert "the same tensor as twin" in shown.text("SelectedPanel")


async def test_freezing_at_the_prompt_is_offered_and_done() -> None:
    async with screen() as shown:
        await shown.press(":", *"w.req", "tab", *"Fal", "tab", "enter")
        assert str(shown.session.frame.command) == "w.requires_grad=False"
        assert "w is frozen" in shown.text("ExplanationPanel")


async def test_the_arithmetic_of_each_parameter_uses_the_learning_rate_of_its_group(tmp_path: Path) -> None:
    async with screen(written(tmp_path, GROUPS), do="fbs") as shown:
        said = shown.text("ExplanationPanel")
        assert "2.0000 - 0.1 × 6.0000 = 1.4000" in said
        assert "6.0000 - 0.5 × 2.0000 = 5.0000" in said
        assert "lr 0.1 / 0.5" in shown.text("StatusPanel")


async def test_the_learning_rate_of_each_group_is_offered_and_set(tmp_path: Path) -> None:
    async with screen(written(tmp_path, GROUPS)) as shown:
        await shown.press(":", *"lr[1", "tab", *"0.25", "enter")
        assert shown.session.frame.learning_rates == (0.1, 0.25)


async def test_a_metric_can_be_plotted_in_place_of_the_loss(tmp_path: Path) -> None:
    async with screen(written(tmp_path, KINDS), do="fbsz*3") as shown:
        await shown.press(":", *"plot mae", "enter")
        mae = shown.session.history.metrics["mae"]
        assert len(mae) == 3
        panel = next(panel for panel in shown.app.main.query("LossPanel") if panel.content_size.area)
        assert panel.border_title == "Plot of mae   y log"
        await shown.press("y")
        assert panel.border_title == "Plot of mae   log scale   y linear"
        ticks = [float(row.partition("┤")[0]) for row in shown.text("LossPanel").splitlines() if "┤" in row]
        assert min(mae.values) * 0.9 < min(ticks) < max(ticks) < max(mae.values) * 1.1


def test_names_in_a_panels_title_are_text_and_never_markup() -> None:
    panel = LossPanel(title="Loss")
    panel.retitle("Plot of [/b]\x1b]0;x\x07[red]")
    assert str(panel._border_title) == "Plot of [/b][red]"


def test_values_and_norms_stand_below_each_other() -> None:
    *_, frame = open_session("spiral").run_all("fbs")
    panel = ParametersPanel()
    panel.set_reactive(ParametersPanel.view, View(frame=frame))
    for width in (100, 58, 40):
        _, *lines = [plain(line) for line in panel.draw(frame, width, 10)]
        assert len({line.index("norm") for line in lines if "norm" in line}) == 1
        assert width < 100 or len({line.index(" →") for line in lines}) == 1
        assert all(len(line) <= width for line in lines)


async def test_a_plot_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    async with screen(written(tmp_path, KINDS), do="f") as shown:
        await shown.press(":", *"plot may", "enter")
        assert "the nearest is mae" in shown.note


@pytest.mark.parametrize("size", some(SIZES, 1))
@pytest.mark.parametrize("source", [DTYPES, UNLIKE, NAMED.replace("{names!r}", repr(NAMES)), KINDS, GROUPS])
async def test_every_phase_and_every_row_can_be_shown(tmp_path: Path, source: str, size: tuple[int, int]) -> None:
    async with screen(written(tmp_path, source), size=size) as shown:
        for key in ("f", "b", "s", "z", *["down"] * 9, "enter", "left", "left"):
            await shown.press(key)
            assert all(text.isprintable() for text in everything(shown).splitlines())
        assert shown.session.frame.error is None
        json.dumps(shown.session.frame.plain(), allow_nan=False)


async def test_sparse_and_complex_tensors_show_what_they_have_and_nothing_else(tmp_path: Path) -> None:
    async with screen(written(tmp_path, UNLIKE), do="fbs", size=(200, 60)) as shown:
        params = state_of(shown.session).params
        grads = {name: param.grad for name, param in params.items() if param.grad is not None}
        held = grads["words.weight"].coalesce().values()
        rows = {row.split()[0]: row for row in shown.text("ParametersPanel").splitlines()}
        assert f"  {float(held.norm()):.4f}  " in rows["words.weight"]
        assert f"  {float(grads['wave'].norm()):.4f}  " in rows["wave"]
        assert f"  {float(grads['turn'].norm()):.4f}  " in rows["turn"]  # a norm: it has no sign
        assert rows["flags"].split()[:5] == ["flags", "3", "norm", "-", "frozen"]
        assert rows["flags"].endswith("frozen")
        assert "|move| ≥" in shown.text("PhasesPanel")  # flags has no norm
        assert "2, 1 not measured" in " ".join(shown.text("BuffersPanel").split())
        await shown.press("down", "down", "down", "down")
        told = " ".join(shown.text("SelectedPanel").split())
        assert f"sparse: {held.numel()} of 200 values stored" in told
        assert f"{float(held.min()):.4f} to {float(held.max()):.4f}" in told
        assert "NaN" not in everything(shown)


@pytest.mark.parametrize("size", SIZES)
async def test_brackets_in_names_are_text(tmp_path: Path, size: tuple[int, int]) -> None:
    async with screen(
        written(tmp_path, NAMED.replace("{names!r}", repr(["[bold]b[/bold]", "a[0]"]))), size=size
    ) as shown:
        text = everything(shown)
        assert "[/bold]" in text
        assert "a[0]" in text


@pytest.mark.parametrize("name", NAMES[1:])
async def test_a_command_on_a_name_that_no_word_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    session = open_session(written(tmp_path, NAMED.replace("{names!r}", repr(NAMES))))
    with pytest.raises(Refused):
        session.run(f"{name}=3")
