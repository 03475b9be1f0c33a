"""What raises leaves all as before it; what a scenario's own functions may give, and what is said of others."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autograd_tui import Options, Parts, Session, open_session
from autograd_tui.core.errors import Refused
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.training.scenario import Scenario
from models_hard_to_repeat import Gated, gated, mixed, tripwire, wilful, words
from plain_loop import Batch, Build, copied, differing, mse
from session_internals import as_scenario, state_of, tensors


@pytest.mark.parametrize(
    ("build", "optimizer", "before", "raises"),
    [
        (gated, "sgd,lr=0.1", "fbsz*2 gate=4", "f"),  # buffers and random numbers
        (gated, "adam,lr=0.1", "fbs fb gate=4", "f"),
        (wilful, "sgd,lr=0.1", "fbsz w=4", "f"),  # buffers replaced by others
        (wilful, "sgd,lr=0.1", "w=4", "f"),
        (tripwire, "sgd,lr=0.1", "w=4 f", "b"),  # gradients that were None
        (tripwire, "sgd,lr=0.1", "fb w=4 f", "b"),  # gradients added to
        (words, "adam,lr=0.1", "fb", "s"),  # the state of one parameter made, not of the other
        (words, "sgd,lr=0.1", "fbs lr=1e39 fb", "s"),
        (mixed, "sgd,lr=0.1", "fbsz fb lr=1e39", "s"),  # one parameter moved, the other not
        (mixed, "adam,lr=0.1", "fbsz fb lr=1e39", "s"),
    ],
)
def test_a_phase_that_raises_leaves_every_tensor_as_it_was(
    build: Build, optimizer: str, before: str, raises: str
) -> None:
    session = open_session(as_scenario(build), optimizer=optimizer)
    list(session.run_all(before))
    expected = copied(tensors(session))
    assert session.run(raises).error is not None
    assert differing(tensors(session), expected) == []


def test_sparse_gradients_are_put_back_when_backward_raises() -> None:
    session = open_session(as_scenario(words))
    list(session.run_all("fb"))
    expected = copied(tensors(session))
    assert session.run("B").error is not None
    assert differing(tensors(session), expected) == []


def test_the_old_graph_outlives_a_forward_that_raises() -> None:
    session, straight = open_session(as_scenario(gated)), open_session(as_scenario(gated))
    list(session.run_all("f gate=4 f b"))
    list(straight.run_all("f gate=4 b"))
    assert session.frame.error is None
    assert differing(tensors(session), tensors(straight)) == []


def test_a_buffer_that_a_raising_forward_replaced_is_the_old_one_again() -> None:
    session = open_session(as_scenario(wilful))
    last = session._trainer.state.model.get_buffer("last")
    list(session.run_all("w=4 f"))
    assert session._trainer.state.model.get_buffer("last") is last


def test_the_same_batch_is_tried_again_after_a_forward_that_raised(capfd: pytest.CaptureFixture[str]) -> None:
    def build(seed: int) -> tuple[nn.Module, Batch]:
        model, batch = gated(seed)
        return model, lambda i: (print(i), batch(i))[1]

    list(open_session(as_scenario(build)).run_all("f gate=4 f gate=0 f f"))
    assert capfd.readouterr().out.split() == ["0", "1", "1", "2"]


def test_grad_mode_is_put_back_when_the_code_that_turned_it_off_raises() -> None:
    class Careless(Gated):
        def forward(self, x: Tensor) -> Tensor:
            if self.gate.item() > 3:
                torch.set_grad_enabled(False)
            return super().forward(x)

    def careless(seed: int) -> tuple[nn.Module, Batch]:
        return Careless(), gated(seed)[1]

    session = open_session(as_scenario(careless))
    list(session.run_all("gate=4 f gate=0"))
    assert session.run("f").graph == "alive"


def test_a_scheduler_that_raises_undoes_its_step() -> None:
    def build(seed: int) -> tuple[nn.Module, Batch]:
        x = torch.rand(3, 1)
        return nn.Linear(1, 1), lambda i: (x, x)

    vector = Scenario("vector", lambda options: Parts(**parts(build), loss=lambda prediction, target: prediction))
    session = open_session(vector, decay="plateau")
    list(session.run_all("f"))
    expected = copied(tensors(session))
    error = session.run("S").error
    assert error is not None
    assert error.type in ("RuntimeError", "ValueError")
    assert differing(tensors(session), expected) == []


@pytest.mark.parametrize("word", ["w=1e39", "b=-1e39"])
def test_a_value_too_large_for_the_dtype_is_refused(word: str) -> None:
    session = open_session("linear")
    with pytest.raises(Refused, match="does not fit in float32"):
        session.run(word)
    assert session.newest == 0


def test_gradients_that_build_left_behind_are_counted() -> None:
    def build(seed: int) -> tuple[nn.Module, Batch]:
        model, batch = mixed(seed)
        inputs, targets = batch(0)
        mse(model(inputs), targets).backward()
        return model, batch

    assert open_session(as_scenario(build)).frame.grads.backwards == (1, 1)


def parts(build: Build) -> dict[str, Any]:
    model, batch = build(0)
    return {"model": model, "batch": batch}


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
