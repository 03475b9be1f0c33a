"""Leaves that are none of the model's parameters are named after the first backward, with the likely reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import Parts, Scenario
from autograd_tui.text.explain_backward import stray_lines

X = torch.linspace(-1, 1, 32).reshape(8, 4)


class Net(nn.Module):
    """A head behind whatever `body` does; `own` is set as an attribute."""

    def __init__(self, own: object, body: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.own, self.body, self.head = own, body, nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self, x))


class Robust(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.tensor(1.0))

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return ((prediction - target) ** 2 / self.width).mean() + self.width.log()


def layers(net: nn.Module, x: Tensor) -> Tensor:
    for each in net.own:  # type: ignore[union-attr]
        x = torch.relu(each(x))
    return x


def scaled(net: nn.Module, x: Tensor) -> Tensor:
    return x * net.own  # type: ignore[operator]


def shown(net: nn.Module, x: Tensor) -> Tensor:
    net.shown = layers(net, x)
    return net.shown


def penalised(net: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(net.head(x).sum(), x, create_graph=True)  # type: ignore[operator]
    noise = torch.zeros(4, requires_grad=True)
    return x + slope.sum() + noise


def opened_session(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.mse_loss, x: Tensor = X
) -> Session:
    y = torch.ones(8, 1)
    return open_session(Scenario("strays", lambda options: Parts(model=model, batch=lambda i: (x, y), loss=loss)))


def opened(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.mse_loss, x: Tensor = X) -> str:
    session = opened_session(model, loss, x)
    frames = list(session.run_all("fbszfb"))
    assert [bool(stray_lines(frame)) for frame in frames[2:]] == [False] * 4
    return " ".join(stray_lines(frames[1]))


def test_layers_in_a_list_are_named_with_their_shapes_and_what_would_make_them_the_models() -> None:
    said = opened(Net([nn.Linear(4, 4) for _ in range(3)], layers))
    assert said == (
        "The gradient also reached 6 tensors that are none of the model's parameters, so no step moves them "
        "(4, 4×4, 4, 4×4, …): model.own is a list of modules, and nn.ModuleList makes them the model's."
    )


def test_an_output_that_the_model_keeps_is_not_blamed_for_it() -> None:
    assert "model.own is a list of modules" in opened(Net([nn.Linear(4, 4)], shown))


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ((nn.Parameter(torch.ones(4)) * 0.01), "model.own was computed from an nn.Parameter"),
        (torch.ones(4, requires_grad=True), "model.own is no nn.Parameter"),
    ],
)
def test_a_tensor_that_is_no_parameter_is_named(own: Tensor, said: str) -> None:
    assert said in opened(Net(own, scaled))


def test_parameters_in_a_dict_are_named() -> None:
    model = Net({"scale": nn.Parameter(torch.ones(4))}, lambda net, x: x * net.own["scale"])  # type: ignore[index]
    assert "a tensor that is none" in opened(model)
    assert "nn.ParameterDict" in opened(model)


def test_a_loss_with_parameters_of_its_own_is_named() -> None:
    assert "the loss function has parameters of its own, such as width" in opened(nn.Linear(4, 1), Robust())


def test_a_module_beside_the_model_is_named() -> None:
    beside = nn.Linear(4, 4)
    assert "beside is used beside the model" in opened(Net(None, lambda net, x: beside(x)))


def test_what_is_meant_is_no_alarm() -> None:
    assert opened(Net(None, lambda net, x: x)) == ""
    assert opened(Net(None, lambda net, x: x), x=X.clone().requires_grad_()) == ""
    assert opened(Net(None, penalised)) == ""


def test_a_rewind_finds_the_first_backward_as_it_was() -> None:
    session = opened_session(Net([nn.Linear(4, 4)], layers))
    frames = list(session.run_all("fbsz fbsz"))
    assert session.rewind(2).same(frames[1])
    assert session.rewind(6).same(frames[5])
    assert session.take_divergence() is None
