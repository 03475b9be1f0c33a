from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.scenario import Options, Parts, Scenario, scenario
from autograd_tui.scenarios.find import find

X, Y = torch.ones(4, 2), torch.zeros(4, 1)


def made(**parts: Any) -> Scenario:
    """Make a scenario of one linear layer, with other parts put over its own."""

    def build(options: Options) -> Parts:
        usual: dict[str, Any] = {"model": nn.Linear(2, 1), "batch": lambda i: (X, Y), "loss": nn.functional.mse_loss}
        return Parts(**{name: part for name, part in (usual | parts).items() if part is not None})

    return scenario("mine")(build)


def refusal(given: str | Scenario, **options: Any) -> str:
    with pytest.raises(Refused) as caught:
        open_session(given, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def last(given: Scenario, commands: str = "fbsz") -> Frame:
    *_, frame = open_session(given).run_all(commands)
    return frame


@pytest.mark.parametrize(
    ("name", "options", "fragment"),
    [
        ("linear", {"image_size": 64}, '"the line" has no --image-size: it takes --batch-size, --data.'),
        ("linear", {"batch_size": 0}, "--batch-size must be at least 1"),
        ("linear", {"batch_size": 1 << 62}, "--batch-size is further from 0 than any whole number here"),
        ("linear", {"data": "stale"}, "--data must be fixed or fresh"),
        ("resnet18", {"image_size": -1}, "--image-size must be at least 1"),
        ("linear", {"seed": -1}, "--seed must be"),
        ("linear", {"seed": 1 << 40}, "--seed must be"),
        ("linear", {"threads": 0}, "--threads must lie between 1 and 1024"),
        ("linear", {"device": "toaster"}, '"toaster" is no device'),
        ("linear", {"device": "meta"}, "there is no meta device here"),
        ("linear", {"lr": -1.0}, "a learning rate must be"),
        ("linear", {"optimizer": "adam", "momentum": 0.9}, "adam has no option momentum"),
        ("linear", {"decay": "sometimes"}, "is not understood"),
    ],
)
def test_an_option_without_meaning_is_refused(name: str, options: dict[str, Any], fragment: str) -> None:
    assert fragment in refusal(name, **options)


def test_a_scenario_without_options_takes_none() -> None:
    assert refusal(made(), batch_size=3) == '"mine" has no --batch-size.'


def test_every_scenario_takes_a_device() -> None:
    assert open_session(made(), device="cpu").run("f").error is None


def batches(name: str, seed: int, **options: Any) -> list[Any]:
    chosen = find(name).options(seed, options)
    batch = find(name).build(chosen).batch
    return [batch(index)[0] for index in range(3)]


@pytest.mark.parametrize("name", ["linear"])
def test_fresh_data_are_the_same_on_every_run(name: str) -> None:
    for one, other in zip(batches(name, 5, data="fresh"), batches(name, 5, data="fresh"), strict=True):
        assert torch.equal(one, other)


def test_fresh_data_differ_from_forward_to_forward() -> None:
    first, second, _ = batches("linear", 5, data="fresh")
    assert not torch.equal(first, second)


def test_fresh_data_differ_from_seed_to_seed() -> None:
    assert not torch.equal(batches("linear", 5, data="fresh")[0], batches("linear", 6, data="fresh")[0])


def test_fresh_data_leave_the_global_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    batches("linear", 5, data="fresh")
    assert torch.equal(torch.get_rng_state(), before)


def test_fixed_data_are_drawn_once() -> None:
    first, second, _ = batches("linear", 5)
    assert first is second


def test_the_batch_size_is_that_of_the_data() -> None:
    assert batches("linear", 0, batch_size=7)[0].shape == (7,)


def test_resnet18_takes_batch_and_image_size() -> None:
    chosen = find("resnet18").options(0, {"batch_size": 2, "image_size": 40, "data": "fresh"})
    images, labels = find("resnet18").build(chosen).batch(0)
    assert (images.shape, labels.shape) == ((2, 3, 40, 40), (2, 1000))


def test_the_command_line_that_opens_a_session_names_what_was_given() -> None:
    line = open_session("linear", seed=3, lr=0.5, optimizer="adam,betas=(0.9,0.99)").about.command_line
    assert line == "autograd-tui linear --seed 3 --optimizer 'adam,betas=(0.9,0.99)' --lr 0.5"


@pytest.mark.parametrize(
    ("parts", "fragment"),
    [
        ({"model": "resnet"}, "Parts takes a torch.nn.Module as model=, not str."),
        ({"batch": (X, Y)}, "Parts takes a function as batch="),
        ({"loss": None}, "Parts takes either loss="),
        ({"forward": lambda model, batch: 0}, "Parts takes either loss="),
        ({"model": nn.ReLU()}, "empty parameter list"),
        ({"model": nn.LazyLinear(1)}, "lazy parameters"),
        ({"optimizer": "adem"}, 'no "adem"'),
        ({"optimizer": "sgd;"}, "needs a name first"),
        ({"loss": torch.ones(1)}, "Parts takes a function as loss=, not a Tensor."),
        ({"loss": None, "forward": 3}, "Parts takes a function as forward=, not an int."),
        ({"listing": ["x"]}, "Parts takes listing= as a dict by name, not list."),
        ({"listing": {"step": 3}}, "Parts takes texts in listing=, and one of them is an int."),
        ({"listing": {"stop": "x"}}, 'for setup, forward, backward, step, zero_grad, not for "stop".'),
        ({"names": "xyz"}, "Parts takes texts in names= as a list or a tuple, not a str."),
        ({"names": ("x", "y", 3)}, "Parts takes texts in names=, and one of them is an int."),
        ({"names": ("x", "y")}, "Parts takes names= of inputs, targets and prediction, and here are 2."),
        ({"class_names": (each for each in "ab")}, "Parts takes texts in class_names= as a list or a tuple, not a"),
        ({"metrics": {3: len}}, "Parts takes metrics= as a dict by name, and one name is an int."),
        ({"metrics": {"mae": "mae"}}, 'Parts takes functions as metrics=, and "mae" is a str.'),
        ({"settled": {"weights": "x"}}, "TypeError: Parts.__init__() got an unexpected keyword argument 'settled'"),
        ({"groups": [{"params": ["weight"], "momentum": torch.ones(1)}]}, "group 0: the option momentum is a Tensor"),
        ({"groups": [{"params": [object()]}]}, "group 0 takes parameters of the model, or their names, not an object."),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_parts_that_cannot_be_trained_are_refused(parts: dict[str, Any], fragment: str) -> None:
    assert fragment in refusal(made(**parts))


def test_an_optimizer_without_a_learning_rate_has_its_own() -> None:
    assert open_session(made(optimizer="adam")).frame.learning_rate == 0.001


@pytest.mark.parametrize("returned", [None, 3, (X, Y)])
def test_a_scenario_that_returns_no_parts_is_refused(returned: object) -> None:
    wrong = scenario("mine")(lambda options: returned)  # type: ignore[arg-type, return-value]
    assert refusal(wrong) == f'"mine" must return Parts(...), not {type(returned).__name__}.'


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_a_scenario_that_raises_is_refused(error: BaseException) -> None:
    def build(_: Options) -> Parts:
        raise error

    assert f"could not be built: {type(error).__name__}: {error}" in refusal(scenario("mine")(build))


def dict_batch(_: int) -> dict[str, Tensor]:
    return {"inputs": X, "labels": Y}


def model_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    loss: Tensor = (model(batch["inputs"]) - batch["labels"]).square().mean()
    return loss


def model_loss_and_output(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return model_loss(model, batch), batch["inputs"]


@pytest.mark.parametrize("forward", [model_loss, model_loss_and_output])
def test_a_forward_of_ones_own_trains_on_dicts(forward: Callable[..., Any]) -> None:
    frame = last(made(loss=None, forward=forward, batch=dict_batch))
    assert (frame.error, frame.iteration, frame.prediction is None) == (None, 1, forward is model_loss)


@pytest.mark.parametrize(
    "parts",
    [
        {"loss": lambda prediction, target: 3.0},
        {"loss": lambda prediction, target: None},
        {"loss": lambda prediction: prediction},
        {"loss": None, "forward": lambda model, batch: (X, X, X)},
        {"loss": None, "forward": lambda model, batch: [X]},
        {"batch": lambda i: X},
        {"batch": lambda i: None},
        {"batch": lambda: (X, Y)},
        {"batch": lambda i: (X[:, :1], Y)},
        {"metrics": {"many": lambda prediction, target: prediction}},
        {"metrics": {"none": lambda prediction, target: None}},
        {"metrics": {"raises": lambda prediction, target: 1 / 0}},
    ],
)
def test_what_a_users_code_gets_wrong_in_a_forward_is_an_error_in_the_frame(parts: dict[str, Any]) -> None:
    frame = open_session(made(**parts)).run("f")
    assert frame.error is not None
    assert (frame.graph, frame.loss_params) == ("none", None)


def test_an_error_names_the_users_own_line() -> None:
    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        raise ValueError("mine")

    error = open_session(made(loss=loss)).run("f").error
    assert error is not None
    assert (error.type, error.message, error.file, error.line) == (
        "ValueError",
        "mine",
        __file__,
        loss.__code__.co_firstlineno + 1,
    )


@pytest.mark.parametrize(
    ("value", "shown"), [(0.5, 0.5), (torch.tensor([0.25]), 0.25), (3, 3.0), (True, 1.0), (torch.tensor(False), 0.0)]
)
def test_a_metric_may_be_any_one_number(value: object, shown: float) -> None:
    assert last(made(metrics={"m": lambda prediction, target: value}), "f").metrics == (("m", shown),)


def test_a_metric_sees_prediction_and_target() -> None:
    frame = last(made(metrics={"error": lambda prediction, target: (prediction - target).abs().max()}), "f")
    assert frame.prediction is not None
    assert frame.metrics[0][1] == pytest.approx(abs(frame.prediction.mean or 0))


def wide(title: str = "wide") -> Scenario:
    """Make a scenario with options of its own, of each kind."""

    def build(options: Options) -> Parts:
        layers = [nn.Linear(2, options.width), nn.Dropout(options.rate), nn.Linear(options.width, 1)]
        assert isinstance(options.bias, bool)
        assert isinstance(options.text, str)
        return Parts(model=nn.Sequential(*layers), batch=lambda i: (X, Y), loss=nn.functional.mse_loss)

    return scenario(title, width=8, rate=0.5, bias=True, text="abc")(build)


@pytest.mark.parametrize("width", [3, "3"])
def test_a_scenarios_own_option_is_given_as_a_value_or_in_words(width: int | str) -> None:
    assert open_session(wide(), width=width).frame.params[0].shape == (3, 2)


def test_own_options_stand_in_the_command_line_that_opens_the_session() -> None:
    line = open_session(wide(), width="3", text="a b").about.command_line
    assert line == "autograd-tui wide --option width=3 --option 'text=a b'"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"width": "wide"}, "--option width=wide must be a whole number, as its default 8 is."),
        ({"width": "2.5"}, "--option width=2.5 must be a whole number, as its default 8 is."),
        ({"rate": "much"}, "--option rate=much must be a number, as its default 0.5 is."),
        ({"bias": "1"}, "--option bias=1 must be true or false, as its default True is."),
        (
            {"heigth": "3"},
            '"wide" has no --option heigth=: it takes --option width=, --option rate=, --option bias=, --option text=.',
        ),
    ],
)
def test_an_own_option_without_meaning_is_refused(given: dict[str, str], sentence: str) -> None:
    assert refusal(wide(), **given) == sentence


def test_an_option_that_the_scenario_does_not_name_cannot_be_read() -> None:
    reads = scenario("mine")(lambda options: options.width)
    assert 'no option "width": name it with a default, as in @scenario("...", width=...)' in refusal(reads)


def test_an_option_of_every_scenario_cannot_be_named_anew() -> None:
    with pytest.raises(Refused, match="that is an option of every scenario already"):
        scenario("mine", lr=3)


def test_options_can_be_copied() -> None:
    options = Options(3, "cpu", {"width": 8})
    assert copy.deepcopy(options) == options


def test_a_title_without_parentheses_is_refused() -> None:
    with pytest.raises(Refused, match=r'@scenario\("a title"\) stands above a build function'):
        scenario(lambda options: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        ({"a b": 1}, 'has an option "a b", which is no name in Python.'),
        ({"device": 3}, 'takes device= as a text, such as "cpu", not an int.'),
    ],
)
def test_options_that_nobody_could_give_are_refused(given: dict[str, Any], fragment: str) -> None:
    with pytest.raises(Refused) as caught:
        scenario("mine", **given)(lambda options: Parts(model=nn.ReLU(), batch=len, loss=len))  # type: ignore[arg-type]
    assert fragment in str(caught.value)


def test_what_stands_below_scenario_must_be_a_function() -> None:
    with pytest.raises(Refused, match="stands above a build function, not an int"):
        scenario("mine")(3)  # type: ignore[arg-type]


def test_numbers_of_numpy_in_groups_are_those_of_python() -> None:
    session = open_session(made(groups=[{"params": ["weight", "bias"], "weight_decay": np.float64(0.5)}]))
    options = session.groups("sgd")[0].options
    assert {name: type(value) for name, value in options.items()} == {"weight_decay": float}
