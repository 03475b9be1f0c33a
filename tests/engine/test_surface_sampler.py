"""The measured surface against plain PyTorch, and that measuring it moves nothing."""

from __future__ import annotations

import math
from array import array
from itertools import count
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core import history
from autograd_tui.core.loss_surface import COLUMNS, ROWS, LossSurface
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.surface_sampler import is_whole_on, two_values

X = torch.tensor([1.0, 2.0, 3.0])
Y = 4 * X + 1


def line_loss(w: float, b: float) -> float:
    """The loss as the plain script computes it, in float32."""
    prediction = torch.tensor([w]) * X + torch.tensor([b])
    return float(((Y - prediction) ** 2).mean())


def axis(ends: tuple[float, float], count: int) -> list[float]:
    return [ends[0] + (ends[1] - ends[0]) * index / (count - 1) for index in range(count)]


def measured(do: str = "") -> LossSurface:
    session = open_session("linear")
    for _ in session.run_all(do):
        pass
    surface = session.surface()
    assert surface is not None
    return surface


def test_every_point_of_the_grid_is_the_loss_that_plain_pytorch_gives() -> None:
    surface = measured()
    assert surface.names == ("w", "b")
    expected = [line_loss(w, b) for b in axis(surface.y, ROWS) for w in axis(surface.x, COLUMNS)]
    assert list(surface.losses) == expected


def test_the_start_the_path_and_the_lowest_point_are_on_it() -> None:
    surface = measured("fbsz*40")
    assert all(surface.contains(*point) for point in ((2.0, 6.0), (4.0, 1.0)))


def test_the_lowest_point_and_the_critical_learning_rate_of_the_line() -> None:
    lowest = measured().quadratic
    assert lowest is not None
    assert lowest.exact
    assert (lowest.x, lowest.y) == pytest.approx((4.0, 1.0), abs=1e-6)
    hessian = torch.autograd.functional.hessian(
        lambda at: ((Y.double() - at[0] * X.double() - at[1]) ** 2).mean(), torch.tensor([2.0, 6.0]).double()
    )
    assert [lowest.xx, lowest.xy, lowest.yy] == pytest.approx([*hessian[0].tolist(), float(hessian[1, 1])], rel=1e-5)
    assert lowest.critical_lr() == pytest.approx(2 / float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-6)
    assert f"{lowest.critical_lr():.4f}" == "0.1803"
    assert f"{lowest.best_x(6):.3f}" == "1.857"
    assert f"{lowest.best_x(5.6933):.4f}" == "1.9886"


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_a_run_diverges_from_the_critical_learning_rate_on(momentum: float) -> None:
    lowest = measured().quadratic
    assert lowest is not None
    critical = lowest.critical_lr(momentum)

    def last_loss(lr: float) -> float:
        session = open_session("linear", optimizer=f"sgd,lr={lr},momentum={momentum}")
        *_, frame = session.run_free(session.end_of(600), lambda: False, every=60)
        return frame.loss or 0.0

    assert last_loss(critical * 0.98) < 0.1
    assert not last_loss(critical * 1.02) < 100


def test_it_is_measured_once_as_long_as_the_data_are_the_same_and_the_path_stays_on_it() -> None:
    session = open_session("linear")
    first = session.surface()
    for _ in session.run_all("fbsz*5"):
        pass
    assert session.surface() is first
    session.run("w=9")
    other = session.surface()
    assert other is not first
    assert other is not None
    assert other.contains(9.0, session.frame.params[1].values[0])


def test_other_data_are_measured_anew() -> None:
    session = open_session("linear", data="fresh")
    surfaces = []
    for _ in range(2):
        session.run("f")
        surfaces.append(session.surface())
        for _ in session.run_all("bsz"):
            pass
    assert surfaces[0] is not surfaces[1]


def test_a_run_with_the_map_ends_in_the_same_bits_as_one_without() -> None:
    ends, noise = [], []
    for looks in (False, True):
        session = open_session("linear", data="fresh", optimizer="adam,lr=0.05")
        for _ in session.run_all("fbsz*20"):
            if looks:
                session.surface()
        ends.append([session.frame.params, session.frame.optimizer_state, session.frame.loss])
        noise.append(torch.get_rng_state())
    assert ends[0] == ends[1]
    assert torch.equal(*noise)


NOISY = """
import torch
from torch import nn
from autograd_tui import Parts, scenario

class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.register_buffer("seen", torch.zeros(1))
        self.calls = 0
    def forward(self, x):
        print("forward runs")
        self.calls += 1
        self.seen += 1
        return (x * self.w).sum(-1) + torch.randn(4) * 0.1 + self.seen

@scenario("noisy")
def noisy(options):
    x, y = torch.randn(4, 2), torch.randn(4)
    return Parts(model=Noisy(), batch=lambda i: (x, y), loss=nn.functional.mse_loss, optimizer="sgd,lr=0.1")
"""


def test_noise_buffers_and_prints_of_a_model_leave_no_trace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "noisy.py"
    source.write_text(NOISY)
    ends, printed = [], []
    for looks in (False, True):
        session = open_session(str(source))
        for _ in session.run_all("fbsz*5"):
            if looks:
                surface = session.surface()
                assert surface is not None
                assert surface.names == ("w[0]", "w[1]")
                assert not any(map(math.isnan, surface.losses))
        ends.append((session.frame.params, session.frame.buffers, session.frame.loss))
        printed.append(capfd.readouterr().out)
    assert ends[0] == ends[1]
    assert printed[0] == printed[1]


def test_what_waits_ends_a_measurement_and_the_next_one_completes_it() -> None:
    session = open_session("linear")
    assert session.surface(stopped=lambda: True) is None
    assert session.surface() is not None


def test_a_model_with_other_parameters_has_no_such_map() -> None:
    session = open_session("spiral")
    assert two_values(session.frame.params.layout) is None
    assert session.surface() is None


def test_a_loss_without_a_lowest_point_has_a_map_all_the_same(tmp_path: Path) -> None:
    source = tmp_path / "slope.py"
    source.write_text(
        "import torch\nfrom torch import nn\nfrom autograd_tui import Parts, scenario\n"
        "@scenario('slope')\ndef slope(options):\n"
        "    model = nn.Linear(1, 1)\n"
        "    return Parts(model=model, batch=lambda i: torch.ones(1, 1), forward=lambda m, x: m(x).sum(),"
        " optimizer='sgd,lr=0.1')\n"
    )
    surface = open_session(str(source)).surface()
    assert surface is not None
    assert surface.quadratic is None
    assert surface.names == ("weight", "bias")


def test_a_diverging_run_does_not_stretch_the_map_without_end() -> None:
    surface = measured("lr=0.4 fbsz*60")
    assert surface.x[1] - surface.x[0] < 200


@given(
    st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, -1.0, 3.0, math.inf, -math.inf, math.nan])] * 2), min_size=1)
)
def test_a_path_is_whole_on_a_surface_where_each_of_its_points_is(points: list[tuple[float, float]]) -> None:
    path, surface = history.Path(), LossSurface(("w", "b"), (0.0, 2.0), (0.0, 2.0), array("d"), None)
    for index, (x, y) in zip(count(), points):
        path.insert(index, index, x, y)
    assert is_whole_on(path, surface) == all(surface.contains(*point) for point in points)
