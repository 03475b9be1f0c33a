from __future__ import annotations

import pytest
import torch
from torch import nn

from autograd_tui.core.errors import Refused, UnknownCommand
from autograd_tui.core.optimizer_spec import LrDecay, OptimizerSpec
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.optimizers import make_optimizer, optimizer_classes, override_spec
from autograd_tui.engine.training.scenario import Options, Parts, scenario

# torch.optim's own, in the versions that this program takes: those that need a closure or matrices.
REFUSED_ON_THE_LINE = {"lbfgs", "muon"}
RAISES_ON_THE_LINE = {"sparseadam"}  # in step, where it meets a dense gradient


@scenario("small resnet")
def small(options: Options) -> Parts:
    """Parameters of resnet18's kinds: convolution, batch norm, matrix, bias; one of them above 1,024 values."""
    convolution = nn.Sequential(nn.Conv2d(3, 40, 3, bias=False), nn.BatchNorm2d(40), nn.ReLU())
    model = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 2))
    batch = torch.rand(2, 3, 8, 8), torch.rand(2, 2)
    return Parts(model=model, batch=lambda i: batch, loss=nn.functional.mse_loss)


@scenario("matrices")
def matrices(options: Options) -> Parts:
    """Matrices alone, as Muon wants them."""
    batch = torch.rand(4, 3), torch.rand(4, 2)
    return Parts(model=nn.Linear(3, 2, bias=False), batch=lambda i: batch, loss=nn.functional.mse_loss)


def one_sentence(error: BaseException) -> bool:
    return "\n" not in str(error) and len(str(error)) > 10


@scenario("table of words")
def table_of_words(options: Options) -> Parts:
    """An embedding, whose gradients are sparse."""
    batch = torch.tensor([[1, 2, 2], [0, 4, 1]]), torch.rand(2, 4)
    model = nn.EmbeddingBag(50, 4, sparse=True, mode="sum")
    return Parts(model=model, batch=lambda i: batch, loss=nn.functional.mse_loss)


@pytest.mark.parametrize("name", sorted(set(optimizer_classes()) - RAISES_ON_THE_LINE))
@pytest.mark.parametrize("model", ["linear", small], ids=["line", "small resnet"])
def test_every_optimizer_trains_or_is_refused_in_one_sentence(name: str, model: object) -> None:
    if name in REFUSED_ON_THE_LINE:
        with pytest.raises(Refused) as caught:
            open_session(model, optimizer=name)  # type: ignore[arg-type]
        assert one_sentence(caught.value)
        return
    session = open_session(model, optimizer=name)  # type: ignore[arg-type]
    frames = list(session.run_all("fbsz*3"))
    assert [frame.error for frame in frames] == [None] * 12
    assert frames[-1].params != frames[0].params


@pytest.mark.skipif("muon" not in optimizer_classes(), reason="this PyTorch has no Muon")
def test_muon_trains_a_model_of_matrices() -> None:
    frames = list(open_session(matrices, optimizer="muon").run_all("fbsz*3"))
    assert [frame.error for frame in frames] == [None] * 12


def test_sparse_adam_trains_what_has_sparse_gradients() -> None:
    session = open_session(table_of_words, optimizer="sparseadam,lr=0.1")
    frames = list(session.run_all("fbsz*3"))
    torch.manual_seed(0)
    plain = table_of_words.build(Options(seed=0))
    optimizer = torch.optim.SparseAdam(plain.model.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        inputs, targets = plain.batch(0)
        loss = nn.functional.mse_loss(plain.model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert [frame.error for frame in frames] == [None] * 12
    assert [frame.loss for frame in frames[::4]] == losses


def test_sparse_adam_meets_a_dense_gradient_with_pytorchs_own_words() -> None:
    *_, last = open_session("linear", optimizer="sparseadam").run_all("fbs")
    assert last.error is not None
    assert "does not support dense gradients" in last.error.message


@pytest.mark.parametrize("name", sorted(set(optimizer_classes()) - REFUSED_ON_THE_LINE - RAISES_ON_THE_LINE))
def test_every_optimizer_can_be_changed_to_while_training(name: str) -> None:
    session = open_session("linear")
    *_, last = session.run_all(f"fbsz optimizer={name} fbsz")
    assert (last.optimizer, last.error) == (name, None)


@pytest.mark.parametrize("name", sorted(set(optimizer_classes()) - REFUSED_ON_THE_LINE))
def test_every_optimizer_has_the_options_that_a_script_would_give_it(name: str) -> None:
    param = nn.Parameter(torch.ones(2))
    made = make_optimizer(OptimizerSpec(name, 0.5), [{"params": [param]}])
    plain = optimizer_classes()[name]([param], lr=0.5)  # type: ignore[call-arg]
    assert made.state_dict()["param_groups"] == plain.state_dict()["param_groups"]


def test_the_names_include_sgd_and_adam() -> None:
    assert {"sgd", "adam", "adamw", "rmsprop"} <= set(optimizer_classes())


@pytest.mark.parametrize(
    ("spelling", "fragment"),
    [
        ("adem", 'no "adem": the nearest is adam'),
        ("optimizer", 'no "optimizer"'),
        ("lbfgs", "closure"),
        ("sgd,speed=3", "sgd has no option speed: it takes lr, momentum"),
        ("sgd,params=3", "sgd has no option params"),
        ("sgd,momentum=-1", "SGD does not take"),
        ("sgd,momentum=fast", "SGD does not take"),
        ("sgd,momentum=none", "SGD does not take"),
        ("sgd,nesterov=true", "SGD does not take"),
        ("adam,betas=0.9", "Adam does not take"),
        ("adam,betas=(2,2)", "Adam does not take"),
        ("sgd,lr=-1", "a learning rate must be a number from 0 up"),
        ("sgd,lr=nan", "a learning rate must be a number from 0 up"),
        ("sgd,lr=inf", "a learning rate must be a number from 0 up"),
    ],
)
def test_what_no_optimizer_takes_is_refused_in_one_sentence(spelling: str, fragment: str) -> None:
    with pytest.raises(Refused) as caught:
        open_session("linear", optimizer=spelling)
    assert fragment in str(caught.value)
    assert one_sentence(caught.value)


def test_the_sentence_about_unknown_names_offers_only_what_can_be_stepped() -> None:
    with pytest.raises(Refused) as caught:
        open_session("linear", optimizer="adem")
    assert "lbfgs" not in str(caught.value)


def test_an_optimizer_that_is_refused_while_training_leaves_the_old_one() -> None:
    session = open_session("linear", momentum=0.9)
    with pytest.raises(Refused):
        session.run("optimizer=lbfgs")
    assert session.run("f").optimizer == "sgd,momentum=0.9"


def test_an_option_that_raises_only_in_the_step_is_an_error_in_the_frame() -> None:
    session = open_session("linear", optimizer="sgd,differentiable=true")
    before = [row.values for row in session.frame.params]
    *_, last = session.run_all("fbs")
    assert last.error is not None
    assert [row.values for row in last.params] == before


@pytest.mark.parametrize(
    ("name", "lr", "options", "spelling"),
    [
        (None, None, {}, "sgd,lr=0.1,momentum=0.5"),
        (None, 0.2, {}, "sgd,lr=0.2,momentum=0.5"),
        (None, None, {"momentum": 0.9}, "sgd,lr=0.1,momentum=0.9"),
        ("adam", None, {}, "adam,lr=0.1"),
        ("adam,lr=0.3", None, {}, "adam,lr=0.3"),
        ("adam,lr=0.3", 0.4, {"weight_decay": 0.01}, "adam,lr=0.4,weight_decay=0.01"),
    ],
)
def test_flags_override_the_scenario(
    name: str | None, lr: float | None, options: dict[str, float], spelling: str
) -> None:
    assert str(override_spec(OptimizerSpec.parse("sgd,lr=0.1,momentum=0.5"), name, lr, options)) == spelling


@pytest.mark.parametrize(
    ("text", "decay", "whole"),
    [
        ("plateau", LrDecay(0.1, 10, 1e-5), "plateau:0.1:10:1e-05"),
        ("plateau:0.5", LrDecay(0.5, 10, 1e-5), "plateau:0.5:10:1e-05"),
        ("plateau:0.5:3", LrDecay(0.5, 3, 1e-5), "plateau:0.5:3:1e-05"),
        ("plateau:1e-2:0:0", LrDecay(0.01, 0, 0.0), "plateau:0.01:0:0"),
    ],
)
def test_a_decay_is_read_and_written_whole(text: str, decay: LrDecay, whole: str) -> None:
    assert LrDecay.parse(text) == LrDecay.parse(whole) == decay
    assert str(decay) == whole


@pytest.mark.parametrize(
    "text", ["", "step", "plateau:", "plateau:0.1:", "plateau:x", "plateau:0.1:x", "plateau:0.1:1:1:1"]
)
def test_a_decay_without_meaning_is_not_understood(text: str) -> None:
    with pytest.raises(UnknownCommand, match="use plateau"):
        LrDecay.parse(text)


@pytest.mark.parametrize("text", ["plateau:0", "plateau:1", "plateau:nan", "plateau:inf", "plateau:-0.1"])
def test_a_factor_that_lowers_nothing_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="the factor must lie between 0 and 1"):
        LrDecay.parse(text)


@pytest.mark.parametrize("text", ["plateau:0.1:-1", "plateau:0.1:1.5", "plateau:0.1:nan", "plateau:0.1:inf"])
def test_a_patience_that_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="the patience must be a whole number"):
        LrDecay.parse(text)


@pytest.mark.parametrize("text", ["plateau:0.1:1:-1", "plateau:0.1:1:nan", "plateau:0.1:1:inf"])
def test_a_least_learning_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="the least learning rate must be a number from 0 up"):
        LrDecay.parse(text)


@pytest.mark.parametrize(("decay", "least"), [("plateau:0.1:0", 1e-5), ("plateau:0.1:0:1e-3", 1e-3)])
def test_a_decay_stops_at_its_least_learning_rate(decay: str, least: float) -> None:
    session = open_session("linear", decay=decay)
    *_, last = session.run_all("w=4 b=1 fbsz*12")  # a loss of 0 never improves
    assert (last.learning_rate, session.about.config.arguments["decay"]) == (
        pytest.approx(least),
        str(LrDecay.parse(decay)),
    )


def test_a_decay_lowers_the_learning_rate_on_a_plateau() -> None:
    session = open_session("linear", lr=0.0, decay="plateau:0.5:0")
    *_, last = session.run_all("fbsz lr=0.5 fbsz")
    assert last.learning_rate == 0.25


def test_a_decay_says_its_line() -> None:
    said = "scheduler.step(loss)  # plateau: lr x 0.5 after 3 without improvement"
    assert LrDecay.parse("plateau:0.5:3").line == f"{said}, not below 1e-05"
    assert LrDecay.parse("plateau:0.5:3:0").line == said


def test_a_loss_that_a_scheduler_cannot_read_is_an_error_in_the_frame() -> None:
    def build(_: Options) -> Parts:
        batch = torch.ones(2, 3), None
        return Parts(model=nn.Linear(3, 1), batch=lambda i: batch, loss=lambda prediction, target: prediction)

    *_, last = open_session(scenario("a loss for each row")(build), decay="plateau").run_all("fS")
    assert last.error is not None
