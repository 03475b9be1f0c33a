from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autograd_tui.cli import main
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.scenario import Parts
from autograd_tui.scenarios.find import find
from autograd_tui.scenarios.lstm import waves
from autograd_tui.scenarios.spiral import spirals
from autograd_tui.scenarios.transformer import CHARACTERS, LanguageModel
from program import Run

SHIPPED = ("spiral", "lstm", "transformer")
FEWER = {"spiral": {"width": 4}, "lstm": {"width": 4, "steps": 5}, "transformer": {"width": 8, "context": 9}}


def trained(name: str, iterations: int) -> tuple[Frame, Frame]:
    """Give the first forward's frame and that after so many iterations."""
    session = open_session(name)
    first = session.run("f")
    *_, last = session.run_all(f"bsz fbsz*{iterations}")
    return first, last


@pytest.mark.parametrize(
    ("name", "iterations", "share"), [("spiral", 300, 0.1), ("lstm", 200, 0.1), ("transformer", 200, 0.5)]
)
def test_it_trains_within_a_few_hundred_iterations(name: str, iterations: int, share: float) -> None:
    first, last = trained(name, iterations)
    assert first.loss is not None
    assert last.loss is not None
    assert last.loss < share * first.loss


def test_the_spirals_are_told_apart() -> None:
    first, last = trained("spiral", 300)
    assert first.metrics[0][1] < 0.7
    assert dict(last.metrics)["accuracy"] > 0.98


def parts(name: str, **options: Any) -> Parts:
    scenario = find(name)
    return scenario.build(scenario.options(5, options))


@pytest.mark.parametrize("name", SHIPPED)
def test_fixed_data_are_drawn_once(name: str) -> None:
    batch = parts(name, data="fixed").batch
    assert batch(0) is batch(1)


@pytest.mark.parametrize("name", SHIPPED)
def test_fresh_data_are_those_of_their_iteration(name: str) -> None:
    one, other = parts(name, data="fresh").batch, parts(name, data="fresh").batch
    assert torch.equal(one(3)[0], other(3)[0])
    assert not torch.equal(one(3)[0], one(4)[0])


@pytest.mark.parametrize("name", SHIPPED)
def test_its_own_options_are_taken(name: str) -> None:
    session = open_session(name, batch_size=3, **{option: str(value) for option, value in FEWER[name].items()})  # type: ignore[arg-type]
    frame = session.run("f")
    assert frame.error is None
    assert frame.prediction is not None
    assert frame.prediction.shape[0] == 3


@pytest.mark.parametrize("name", SHIPPED)
def test_an_option_that_it_has_not_is_refused_with_those_it_has(name: str) -> None:
    with pytest.raises(Refused, match="it takes --batch-size, --data, --option width="):
        open_session(name, image_size=3)


def test_one_runs_from_the_command_line_with_an_option_of_its_own(run: Run) -> None:
    done = run("transformer", "--headless", "--do", "fbsz", "--option", "width=8", "--json")
    assert done.code == 0
    assert len(done.out) == 4


@pytest.mark.parametrize("name", SHIPPED)
def test_the_help_names_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert name in capsys.readouterr().out


def test_the_two_spirals_stand_opposite_each_other() -> None:
    x, y = spirals(1000)
    radius, turned = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0]) - torch.pi * y[:, 0]
    beside = (turned - 2 * torch.pi * radius + torch.pi).remainder(2 * torch.pi) - torch.pi  # radians off the spiral
    assert (beside.abs() * radius).median() < 0.2
    assert y.mean() == 0.5


def test_a_wave_is_followed_by_its_own_next_value() -> None:
    x, y = waves(3, 10)
    assert torch.equal(x[:, 1:], y[:, :-1])


def test_no_character_sees_those_behind_it() -> None:
    model = LanguageModel(width=8, heads=2, layers=2, context=6)
    x = torch.randint(len(CHARACTERS), (1, 6))
    other = x.clone()
    other[0, 4:] = (other[0, 4:] + 1) % len(CHARACTERS)
    assert torch.equal(model(x)[..., :4], model(other)[..., :4])
    assert not torch.equal(model(x)[..., 4:], model(other)[..., 4:])


@pytest.mark.parametrize("name", SHIPPED)
def test_its_source_lines_fit_beside_the_panels(name: str) -> None:
    room = 48 if name == "transformer" else 56  # the table of its many parameters takes more
    listing = open_session(name).about.listing
    indented = ["  " * (phase != "setup") + line for phase, lines in listing.items() for line in lines]
    assert [line for line in indented if len(line) > room] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_the_lines_of_the_forward_are_what_it_computes(name: str) -> None:
    made = parts(name, data="fixed")
    inputs, targets = made.batch(0)
    scope: dict[str, Any] = {"model": made.model, "x": inputs, "y": targets} | vars(nn.functional)
    scope |= {each: getattr(made.model, each) for each in ("lstm", "head") if hasattr(made.model, each)}
    exec(made.listing["forward"], scope)
    assert made.loss is not None
    expected: Tensor = made.loss(made.model(inputs), targets)
    assert torch.equal(scope["loss"], expected)
    assert made.names[2] in scope
