from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn, optim

from autograd_tui.core.errors import Refused
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.engine.training.optimizers import initial_spec, make_optimizer, optimizer_classes

NOT_STEPPED = ("lbfgs",)
OTHERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.3, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4},
    "adam": {"lr": torch.tensor(0.1), "betas": (0.5, 0.25), "amsgrad": True, "foreach": False},
    "adamw": {"weight_decay": 0.1, "eps": 1e-6, "maximize": True},
    "rprop": {"etas": (0.4, 1.3), "step_sizes": (1e-5, 40)},
    "rmsprop": {"alpha": 0.9, "centered": True},
    "adagrad": {"lr_decay": 0.1},
}
Change = Callable[[nn.Linear], optim.Optimizer]


def groups(made: optim.Optimizer) -> dict[str, Any]:
    return {name: value for name, value in made.param_groups[0].items() if name != "params"}


def again(made: optim.Optimizer, model: nn.Module) -> optim.Optimizer:
    """Make it once more from its words."""
    return make_optimizer(OptimizerSpec.parse(str(initial_spec(made, model))), [{"params": list(model.parameters())}])


@pytest.mark.parametrize("name", [name for name in optimizer_classes() if name not in NOT_STEPPED])
def test_an_optimizer_as_pytorch_has_it_is_its_name_and_learning_rate(name: str) -> None:
    model = nn.Linear(2, 2, bias=False)
    spec = initial_spec(optimizer_classes()[name](model.parameters()), model)  # type: ignore[call-arg]
    assert (spec.name, spec.options) == (name, ())


@pytest.mark.parametrize("name", OTHERS)
def test_one_made_of_its_words_has_its_options(name: str) -> None:
    model = nn.Linear(2, 2)
    made = optimizer_classes()[name](model.parameters(), **OTHERS[name])
    assert groups(again(made, model)) == groups(made)


def test_the_learning_rate_is_the_one_in_force() -> None:
    model = nn.Linear(2, 2)
    made = optim.SGD(model.parameters(), lr=1.0)
    made.param_groups[0]["lr"] = 0.25
    assert str(initial_spec(made, model)) == "sgd,lr=0.25"


def test_frozen_parameters_may_be_left_out() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert initial_spec(optim.SGD([model.weight], lr=1.0), model).lr == 1


class Mine(optim.SGD):
    """An optimizer of one's own."""


def stepped(model: nn.Linear) -> optim.Optimizer:
    made = optim.Adam(model.parameters())
    model(torch.ones(2)).sum().backward()
    made.step()
    return made


class Endless:
    """Has a length and items, and no end."""

    def __len__(self) -> int:
        return 10**12

    def __getitem__(self, index: int) -> int:
        return 0


def remembering(**values: object) -> Change:
    def make(model: nn.Linear) -> optim.Optimizer:
        made = optim.SGD(model.parameters())
        made.state[model.weight].update(values)
        return made

    return make


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda model: Mine(model.parameters()), "Mine is none of torch.optim's optimizers"),
        (lambda model: optim.SGD([model.weight]), "the SGD trains only some of the model's parameters"),
        (lambda model: optim.SGD([*model.parameters(), torch.ones(1)]), "trains parameters that are not the model's"),
        (remembering(text="a"), "the SGD has stepped already"),
        (remembering(endless=Endless()), "the SGD has stepped already"),
        (stepped, "the Adam has stepped already: leave the training loop out of the file."),
    ],
)
def test_one_that_words_cannot_make_is_refused(make: Change, sentence: str) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(Refused) as caught:
        initial_spec(make(model), model)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
