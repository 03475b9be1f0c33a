"""What a scenario's own functions may give, and the sentence where it is something else."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autograd_tui import Options, Parts, Session, open_session
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.training.scenario import Scenario
from session_internals import state_of

Pair = namedtuple("Pair", "loss logits")


class ModelOutput(OrderedDict[str, Any]):
    """As Hugging Face's: a dict whose values are attributes too; those that are None are left out."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


@dataclass
class Output:
    loss: Tensor | None
    prediction: Tensor | None = None


def opened(give: Any, **parts: Any) -> Session:
    """Open a session whose forward gives something made of its prediction."""

    def build(_: Options) -> Parts:
        x = torch.rand(8, 2)
        own = {"forward": lambda model, batch: give(model(batch)), "batch": lambda i: x} | parts
        return Parts(model=nn.Linear(2, 1), optimizer="sgd,lr=0.1", **own)

    return open_session(Scenario("given", build))


def script(loss_of: Any) -> list[float]:
    torch.manual_seed(0)
    x, model = torch.rand(8, 2), nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for _ in range(3):
        loss = loss_of(model(x))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def mean(prediction: Tensor) -> Tensor:
    return prediction.square().mean()


OUTPUTS = {
    "a tensor": lambda p: mean(p),
    "a pair": lambda p: (mean(p), p),
    "a dict": lambda p: {"loss": mean(p), "logits": p},
    "an output of a library": lambda p: ModelOutput(loss=mean(p), logits=p),
    "a dataclass": lambda p: Output(mean(p), p),
    "a named tuple": lambda p: Pair(mean(p), p),
    "any object": lambda p: SimpleNamespace(loss=mean(p), output=p),
    "a pair with an output in it": lambda p: (Output(mean(p)), p),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_the_loss_is_found_in_what_a_forward_gives(kind: str) -> None:
    session = opened(OUTPUTS[kind])
    assert [frame.loss for frame in session.run_all("fbsz*3")][::4] == script(mean)
    assert session.frame.metrics == ()
    assert (session.frame.prediction is None) == (kind == "a tensor")
    free = opened(OUTPUTS[kind])
    *_, last = free.run_free(Goal.from_here(free.frame, 3), lambda: False)
    assert last.loss == script(mean)[-1]


def two(p: Tensor) -> dict[str, Any]:
    return {"box": p.mean(), "class": p.square().mean() / 3, "penalty": 0.5}


def test_of_a_dict_of_losses_the_sum_is_trained_and_each_is_a_metric() -> None:
    session = opened(two)
    frames = [frame for frame in session.run_all("fbsz*3") if frame.phase == "forward"]
    assert [frame.loss for frame in frames] == script(lambda p: sum(two(p).values()))
    names, values = zip(*frames[0].metrics, strict=True)
    assert names == ("box", "class", "penalty")
    assert values[2] == 0.5
    assert frames[0].plain()["metrics"].keys() == set(names)
    assert len(session.history.metrics["box"]) == 3


def test_losses_beside_a_loss_are_metrics_too() -> None:
    session = opened(lambda p: {"loss": mean(p), "auxiliary": p.mean(), "logits": p}, metrics={"two": lambda p, _: 2})
    assert [name for name, _ in session.run("f").metrics] == ["auxiliary", "two"]


def test_a_total_loss_is_not_added_to_its_own_terms() -> None:
    session = opened(lambda p: {"total_loss": mean(p), "reconstruction": mean(p) - p.mean(), "kl": p.mean()})
    frames = [frame for frame in session.run_all("fbsz*3") if frame.phase == "forward"]
    assert [frame.loss for frame in frames] == script(mean)
    assert [name for name, _ in frames[0].metrics] == ["reconstruction", "kl"]


def test_what_is_called_no_loss_beside_losses_is_a_metric() -> None:
    session = opened(lambda p: {"loss_box": p.mean(), "loss_class": mean(p), "accuracy": (p > 0).float().mean()})
    frames = [frame for frame in session.run_all("fbsz*3") if frame.phase == "forward"]
    assert [frame.loss for frame in frames] == script(lambda p: p.mean() + mean(p))
    assert [name for name, _ in frames[0].metrics] == ["loss_box", "loss_class", "accuracy"]


def test_a_loss_function_may_give_a_dict_of_losses() -> None:
    pair = torch.rand(8, 2), torch.rand(8, 1)
    session = opened(None, forward=None, batch=lambda i: pair, loss=lambda p, y: {"mse": mean(p - y), "l1": p.mean()})
    frame = session.run("f")
    loss = state_of(session).loss
    assert [name for name, _ in frame.metrics] == ["mse", "l1"]
    assert loss is not None
    assert frame.loss == loss.item()


def test_a_gradient_of_a_sum_of_losses_can_be_checked() -> None:
    session = opened(two)
    list(session.run_all("fb"))
    assert session.check_gradient(2, "weight").verdict == "agrees"


def test_a_phase_inside_of_an_output_object_has_its_operations() -> None:
    session = opened(OUTPUTS["an output of a library"])
    trace = session.run("i:f").trace
    assert trace is not None
    assert any(op.name == "mean" for op in trace.ops)


LOSS_GAVE = "forward= gave {}: return the loss, or (loss, output)."


@pytest.mark.parametrize(
    ("give", "sentence"),
    [
        (lambda p: (p.mean(), p, None), LOSS_GAVE.format("a tuple of 3")),
        (lambda p: [p.mean(), p], LOSS_GAVE.format("a list of 2")),
        (lambda p: (), LOSS_GAVE.format("a tuple of 0")),
        (lambda p: None, LOSS_GAVE.format("None")),
        (lambda p: (None, p), LOSS_GAVE.format("None")),
        (lambda p: p.mean().item(), LOSS_GAVE.format("a float")),
        (lambda p: {"logits": p, "labels": p}, LOSS_GAVE.format("a dict of logits, labels")),
        (lambda p: dict.fromkeys("abcd", p), LOSS_GAVE.format("a dict of a, b, c, …")),
        (lambda p: {"a": 1.0, "b": 2.0}, LOSS_GAVE.format("a dict of a, b")),
        (lambda p: {}, LOSS_GAVE.format("an empty dict")),
        (lambda p: ModelOutput(logits=p), LOSS_GAVE.format("a ModelOutput of logits")),
        (lambda p: Output(None, p), LOSS_GAVE.format("an Output whose loss is None")),
        (lambda p: Pair(3.0, p), LOSS_GAVE.format("a Pair of 2")),
        (lambda p: object(), LOSS_GAVE.format("an object")),
    ],
)
def test_what_else_a_forward_gives_is_said_in_a_sentence(give: Any, sentence: str) -> None:
    error = opened(give).run("f").error
    assert error is not None
    assert (error.type, error.message, error.line) == ("TypeError", sentence, 0)


PAIR = torch.rand(8, 2), torch.rand(8, 1)


@pytest.mark.parametrize(
    ("loss", "batch", "sentence"),
    [
        (lambda p, y: (mean(p), y), PAIR, "loss= gave a tuple of 2: return the loss."),
        (lambda p, y: 3.5, PAIR, "loss= gave a float: return the loss."),
        (lambda p, y: {"a": p}, PAIR, "loss= gave a dict of a: return the loss."),
        (
            nn.MSELoss(),
            (*PAIR, 3),
            "the batch is a tuple of 3: loss= needs (inputs, targets), forward= takes any batch.",
        ),
        (
            nn.MSELoss(),
            {"x": 1, "y": 2},
            "the batch is a dict of x, y: loss= needs (inputs, targets), forward= takes any",
        ),
        (nn.MSELoss(), PAIR[0], "the batch is a tensor of shape (8, 2): loss= needs (inputs, targets)"),
        (nn.MSELoss(), None, "the batch is None: loss= needs (inputs, targets)"),
        (nn.MSELoss(), torch.tensor(1.0), "the batch is a tensor of shape (): loss= needs (inputs, targets)"),
    ],
)
def test_what_else_a_loss_or_a_batch_is_is_said_in_a_sentence(loss: Any, batch: Any, sentence: str) -> None:
    error = opened(None, forward=None, loss=loss, batch=lambda i: batch).run("f").error
    assert error is not None
    assert error.type == "TypeError"
    assert error.message.startswith(sentence)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "None"),
        ("high", "a str"),
        (torch.ones(3), "a tensor of shape (3,)"),
        ({"a": 1}, "a dict of a"),
        ([1, 2], "a list of 2"),
    ],
)
def test_what_else_a_metric_gives_is_said_in_a_sentence(value: Any, said: str) -> None:
    error = opened(mean, metrics={"mine": lambda p, y: value}).run("f").error
    assert error is not None
    assert error.message == f'metrics["mine"] gave {said}: return one number.'
