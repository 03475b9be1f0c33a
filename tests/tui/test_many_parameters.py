"""A model of 2,000 parameters: what is drawn depends on the rows that are seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app_screen import screen
from autograd_tui.core.tensor_stats import StatsTable, TensorStats
from autograd_tui.text.sparkline import trend
from suite_options import some

LAYERS = """
import torch
from torch import nn
from autograd_tui import Parts, scenario

@scenario("many")
def build(options):
    model = nn.Module()
    model.first, model.second = (nn.ModuleList(nn.Linear(2, 2) for _ in range(500)) for _ in range(2))
    forward = lambda model, batch: sum(param.square().sum() for param in model.parameters())
    return Parts(model=model, batch=lambda i: (), forward=forward)
"""
SEEN = 100  # rows of the largest terminal here, and some more
SETTING = "second.499.bias[0]=1"


@pytest.mark.parametrize("size", some([(120, 40), (80, 24), (60, 15)], 1))
async def test_no_row_is_made_that_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    (tmp_path / "many.py").write_text(LAYERS)
    async with screen(str(tmp_path / "many.py"), do="f", size=size) as shown:
        await shown.press("down", "enter")
        made = counted(monkeypatch)
        for command in ["", "b", "s", "z", "f", "b", "f", "b", SETTING]:
            if command:
                shown.app.main.prompt_actions.run(command)
                await shown.settle()
            drawn = shown.session.frame
            assert drawn.error is None
            shown.app.main.show_frame(shown.session.look(0))
            made.clear()
            shown.app.main.show_frame(drawn)
            await shown.settle()
            assert len(made) < SEEN, str(drawn.command)


async def test_whether_the_loss_is_old_is_asked_for_all_gradients_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "many.py").write_text(LAYERS)
    async with screen(str(tmp_path / "many.py"), do=f"fb {SETTING}") as shown:
        drawn, main = shown.session.frame, shown.app.main
        main.show_frame(shown.session.look(0))
        asked: list[StatsTable] = []
        whole: Callable[[StatsTable], bool] = StatsTable.whole.fget  # type: ignore[attr-defined]
        monkeypatch.setattr(StatsTable, "whole", property(lambda table: asked.append(table) or whole(table)))  # type: ignore[func-returns-value]
        main.show_frame(drawn)
        await shown.settle()
        assert 0 < len(asked) < SEEN


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Take note of each row that a table makes from now on."""
    made: list[int] = []
    row: Callable[[StatsTable, int], TensorStats] = StatsTable._row

    def noted(table: StatsTable, index: int) -> TensorStats:
        made.append(index)
        return row(table, index)

    monkeypatch.setattr(StatsTable, "_row", noted)
    return made


async def test_the_table_shows_how_each_layers_gradient_went_from_the_fourth_backward_on() -> None:
    async with screen("resnet18", do="fbsz*2 fb", size=(120, 40)) as shown:
        assert "last 30" not in shown.text("TablePanel")
        await shown.press("s", "z", "f", "b")
        assert "last 30" in shown.text("TablePanel")
        rows = [row for row in shown.text("TablePanel").splitlines() if "conv1" in row]
        sizes = shown.session.history.grads.sizes([0])
        assert trend(sizes) in rows[0]


async def test_a_veil_covers_the_newest_gradient_of_a_trend() -> None:
    async with screen("resnet18", do="fbsz*3 f", size=(120, 40)) as shown:
        await shown.press("v", "b")
        assert shown.app.main.view.hidden is not None
        row = next(row for row in shown.text("TablePanel").splitlines() if "conv1" in row)
        assert trend(shown.session.history.grads.sizes([0])) not in row
        await shown.press("space")
        row = next(row for row in shown.text("TablePanel").splitlines() if "conv1" in row)
        assert trend(shown.session.history.grads.sizes([0])) in row
