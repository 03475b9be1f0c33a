"""Surfaces that are asked for, of any model: against plain PyTorch, and that measuring them moves nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from autograd_tui.core.errors import Refused
from autograd_tui.core.loss_surface import LossSurface
from autograd_tui.core.run_observer import Progress
from autograd_tui.engine import surface_slice
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.surface_slice import COARSE_COLUMNS, COARSE_ROWS

# A small relative of resnet18: convolutions, batch norm, a skip, and dropout besides.
MODEL = """
import torch
from torch import nn
from autograd_tui import Parts, scenario

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.drop, self.fc = nn.Dropout(0.3), nn.Linear(8, 5)
    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)) + x)
        return self.fc(self.drop(x.mean((2, 3))))

@scenario("net")
def net(options):
    images, labels = torch.rand(4, 3, 8, 8), torch.randint(5, (4,))
    return Parts(model=Net(), batch=lambda i: (images, labels), loss=nn.functional.cross_entropy,
                 optimizer="sgd,lr=0.05,momentum=0.9")
"""


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop at the first grid: the next ones take longer, and are measured in the same way."""
    monkeypatch.setattr(surface_slice, "BUDGET_SECONDS", 0.0)


@pytest.fixture
def open_net(tmp_path: Path) -> Callable[[str], Session]:
    """Return what opens a session of the net, and runs commands."""
    file = tmp_path / "net.py"
    file.write_text(MODEL)

    def open_one(do: str) -> Session:
        session = open_session(str(file))
        for _ in session.run_all(do):
            pass
        return session

    return open_one


def measured(session: Session) -> LossSurface:
    surface = session.surface()
    assert surface is not None
    return surface


def at(surface: LossSurface, column: int, row: int) -> float:
    return surface.losses[row * surface.columns + column]


def values_at(surface: LossSurface, column: int, row: int) -> tuple[float, float]:
    (left, right), (bottom, top) = surface.x, surface.y
    x = left + (right - left) * column / (surface.columns - 1)
    return x, bottom + (top - bottom) * row / (surface.rows - 1)


def test_where_training_stands_the_plane_has_the_loss_of_the_next_forward(open_net: Callable[[str], Session]) -> None:
    session = open_net("fbsz*3")
    session.choose_surface("usual")
    surface = measured(session)
    assert values_at(surface, 2, COARSE_ROWS // 2) == (0.0, 0.0)
    assert at(surface, 2, COARSE_ROWS // 2) == session.run("f").loss
    assert surface.frame == 12
    assert surface.names == ("last step", "random")


def test_every_point_of_the_plane_is_what_plain_pytorch_gives(open_net: Callable[[str], Session]) -> None:
    session = open_net("fbszfbs")
    session.choose_surface("usual")
    surface = measured(session)
    model, parts = session._trainer.state.model, session._trainer.state.parts
    assert isinstance(model, torch.nn.Module)
    now = {name: param.detach().clone() for name, param in model.named_parameters()}
    session.rewind(6)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    session.rewind(7)
    generator = torch.Generator().manual_seed(0)
    random: dict[str, torch.Tensor] = {}
    for name, weight in now.items():
        if weight.dim() > 1:
            noise = torch.randn(weight.shape, generator=generator)
            random[name] = torch.stack(
                [d * (w.norm() / (d.norm() + 1e-10)) for d, w in zip(noise, weight, strict=True)]
            )
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    images, labels = parts.batch(1)
    for column, row in [(0, 0), (2, 4), (5, 7), (10, 2)]:
        x, y = values_at(surface, column, row)
        with session._trainer.state.global_state, torch.no_grad():
            noise_before = torch.get_rng_state()
            for name, param in model.named_parameters():
                param.copy_(now[name] + x * (now[name] - before[name]) + y * random.get(name, torch.zeros(())))
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            torch.set_rng_state(noise_before)
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        assert at(surface, column, row) == pytest.approx(float(loss), rel=1e-4)


def test_each_filter_of_the_random_direction_is_as_long_as_the_weights_own() -> None:
    weights = {"conv": torch.randn(6, 3, 5, 5), "fc": torch.randn(4, 7), "bias": torch.randn(4)}
    first, again = (surface_slice._random_direction(weights) for _ in range(2))
    assert set(first) == {"conv", "fc"}
    for name, direction in first.items():
        assert torch.equal(direction, again[name])
        lengths = [each.flatten(1).norm(dim=1) for each in (direction, weights[name])]
        assert torch.allclose(lengths[0], lengths[1], rtol=1e-5)
    assert set(surface_slice._random_direction({"bias": weights["bias"]})) == {"bias"}


def test_a_run_with_surfaces_ends_in_the_same_bits_as_one_without(open_net: Callable[[str], Session]) -> None:
    ends = []
    for looks in (False, True):
        session = open_net("")
        noise, grad_mode = torch.get_rng_state(), torch.is_grad_enabled()
        for count, _ in enumerate(session.run_all("fbsz*8")):
            if looks and count % 5 == 3:
                session.choose_surface("usual" if count % 2 else ("fc.weight[1,2]", "bn1.bias[3]"))
                asked = iter(range(7))
                while session.surface(stopped=lambda: next(asked, None) is None) is None:  # noqa: B023
                    asked = iter(range(7))
                measured(session)
        state = session._trainer.state
        assert torch.equal(noise, torch.get_rng_state())
        assert torch.is_grad_enabled() is grad_mode
        assert state.model.training
        with state.global_state:
            inside = torch.get_rng_state()
        ends.append(
            [
                *(each.detach() for each in state.model.parameters()),
                *(each.grad for each in state.model.parameters() if each.grad is not None),
                *(each.clone() for each in state.model.buffers()),
                inside,
                torch.tensor(session.history.loss.values),
            ]
        )
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def test_a_surface_goes_on_between_commands_as_if_nothing_had_run(open_net: Callable[[str], Session]) -> None:
    session, other = open_net("fbsz*2"), open_net("fbsz*2")
    session.choose_surface("usual")
    whole = measured(session)
    other.choose_surface("usual")
    told: list[Progress] = []
    commands = iter("fbsz" * 10)
    while (so_far := other.surface(stopped=lambda: len(told) % 9 == 8, watch=told.append)) is None or (
        so_far.measured_rows < so_far.rows
    ):
        other.run(next(commands))
        told.append(told[-1])
    assert list(so_far.losses) == list(whole.losses)
    assert so_far.frame == 8
    assert told[-1] == Progress(99, 99, surface=True)
    assert {each.done for each in told} == set(range(100))


def test_rows_appear_as_they_are_measured(open_net: Callable[[str], Session]) -> None:
    session = open_net("fbsz")
    session.choose_surface("usual")
    rows = []

    def watch(progress: Progress) -> None:
        surface = session.surface_so_far
        if surface is not None and surface.measured_rows not in rows:
            rows.append(surface.measured_rows)
            later = surface.losses[surface.measured_rows * COARSE_COLUMNS :]
            assert all(map(math.isnan, later))
            assert progress.done == surface.measured_rows * COARSE_COLUMNS

    session.surface(watch=watch)
    assert rows == list(range(1, COARSE_ROWS + 1))


def test_finer_grids_keep_the_points_of_coarser_ones(
    open_net: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, other = open_net("fbsz"), open_net("fbsz")
    session.choose_surface("usual")
    coarse = measured(session)
    monkeypatch.setattr(surface_slice, "BUDGET_SECONDS", 1000.0)
    monkeypatch.setattr(surface_slice, "MAX_COLUMNS", 21)
    other.choose_surface("usual")
    fine = measured(other)
    assert (fine.columns, fine.rows) == (21, 17)
    assert (fine.x, fine.y) == (coarse.x, coarse.y)
    assert [at(fine, 2 * c, 2 * r) for r in range(9) for c in range(11)] == list(coarse.losses)
    assert not any(map(math.isnan, fine.losses))
    neighbours = [(at(coarse, 3, 4) + at(coarse, 4, 4)) / 2, at(fine, 7, 8)]
    assert neighbours[0] != neighbours[1]  # the mean has given way to the loss


def test_two_values_of_any_model_and_the_way_over_them(open_net: Callable[[str], Session]) -> None:
    session = open_net("fbsz*2")
    weight, bias = (session._trainer.state.params[name].detach() for name in ("fc.weight", "fc.bias"))
    session.choose_surface(("fc.weight[3,2]", "fc.bias[0]"))
    surface = measured(session)
    here = float(weight[3, 2]), float(bias[0])
    assert values_at(surface, COARSE_COLUMNS // 2, COARSE_ROWS // 2) == pytest.approx(here)
    loss = session.run("f").loss
    assert at(surface, COARSE_COLUMNS // 2, COARSE_ROWS // 2) == loss
    for _ in session.run_all("bszfbs"):
        measured(session)
    then = float(weight[3, 2]), float(bias[0])
    path = measured(session).path
    assert path is not None
    assert list(path.indices) == [8, 11, 15]
    assert list(path.iterations) == [2, 3, 4]
    assert [path.points()[0], path.points()[-1]] == [here, then]
    session.rewind(12)
    path = measured(session).path
    assert path is not None
    assert list(path.indices) == [8, 11, 15]
    for _ in session.run_all("lr=1 fbs"):
        pass
    path = measured(session).path
    assert path is not None
    assert list(path.indices) == [8, 11, 16]


def test_the_way_on_the_plane_is_in_steps_like_the_last(open_net: Callable[[str], Session]) -> None:
    session = open_net("optimizer=sgd,lr=0.05 fbszfbsz")
    session.choose_surface("usual")
    path = measured(session).path
    assert path is not None
    assert path.points()[-2:] == [pytest.approx((-1.0, 0.0), abs=1e-3), (0.0, 0.0)]
    assert list(path.indices) == [7, 8]


def test_a_surface_is_refused_in_a_sentence_where_there_is_none(open_net: Callable[[str], Session]) -> None:
    session = open_net("f")
    for choice, why in [
        ("usual", "there is no step yet"),
        (("fc.weight", "fc.bias[0]"), r"fc.weight has 40 values: name one of them, as in fc.weight\[0,0\]"),
        (("fc.weight[9,0]", "fc.bias[0]"), "does not exist"),
        (("fc.wait[9,0]", "fc.bias[0]"), "there is no parameter"),
        (("fc.bias[0]", "fc.bias[0]"), "are the same value"),
    ]:
        with pytest.raises(Refused, match=why):
            session.choose_surface(choice)  # type: ignore[arg-type]
    assert session.surface() is None
    still = open_net("lr=0 fbs")
    with pytest.raises(Refused, match="moved no parameter"):
        still.choose_surface("usual")


def test_giving_up_leaves_what_is_complete(open_net: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface_slice, "BUDGET_SECONDS", 1000.0)
    session = open_net("fbs")
    assert session.give_up_surface() is None
    for points in (50, 150):
        session.choose_surface("usual")
        asked = iter(range(points))
        session.surface(stopped=lambda: next(asked, None) is None)  # noqa: B023
        sentence = session.give_up_surface()
        assert sentence is not None
        assert (session.surface() is None) is (points == 50)
        assert session.give_up_surface() is None
    surface = measured(session)
    assert (surface.measured_rows, surface.rows) == (17, 17)
    session.choose_surface("off")
    assert session.surface() is None


def test_the_lines_own_map_can_be_put_away_and_comes_back() -> None:
    session = open_session("linear")
    first = measured(session)
    session.choose_surface("off")
    assert session.surface() is None
    session.choose_surface("usual")
    assert session.surface() is first
    session.choose_surface(("b", "w"))
    assert session.surface() is first
