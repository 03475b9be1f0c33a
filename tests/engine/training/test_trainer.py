"""One command after the other, and what its frame says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training import loop, trainer
from models_hard_to_repeat import gated, tripwire, words
from plain_loop import Batch, PlainLine, copied, differing, line, mse, small_net
from session_internals import as_scenario, state_of, tensors


def run(session: Session, commands: str) -> Frame:
    """Run several commands and give the last frame."""
    return list(session.run_all(commands))[-1]


# What is raised.


def test_a_second_backward_gives_the_text_of_pytorch_itself() -> None:
    model, batch = line(0)
    loss = mse(model(batch(0)[0]), batch(0)[1])
    loss.backward()
    with pytest.raises(RuntimeError) as raised:
        loss.backward()
    error = run(open_session("linear"), "f b B").error
    assert error is not None
    assert (error.type, error.message) == ("RuntimeError", str(raised.value))


def test_a_backward_that_raises_leaves_the_gradients_and_their_words() -> None:
    frame = run(open_session("linear"), "f b B")
    assert [row and row.values for row in frame.grads] == [(pytest.approx(4 / 3),), (2.0,)]
    assert (frame.grads.state, frame.grads.backwards) == ("fresh", (1, 1))


def test_backward_before_any_forward_raises_as_the_script_would() -> None:
    error = run(open_session("linear"), "B").error
    assert error is not None
    assert (error.type, error.message) == ("NameError", "name 'loss' is not defined")


def test_an_error_names_the_line_of_the_users_own_code() -> None:
    error = run(open_session(as_scenario(gated)), "gate=4 f").error
    assert error is not None
    source = Path(error.file).read_text(encoding="utf-8").splitlines()
    assert source[error.line - 1].strip() == 'raise ValueError("the gate is shut")'


def test_the_next_command_carries_no_error() -> None:
    assert run(open_session("linear"), "f b B z").error is None


def test_a_step_without_gradients_moves_nothing() -> None:
    session = open_session("linear", optimizer="adam")
    expected = copied(tensors(session))
    assert run(session, "S").steps == 1
    assert differing(tensors(session), expected) == []


# The gradients.


@pytest.mark.parametrize(
    ("commands", "state", "backwards", "used"),
    [
        ("f", "none", (0, 0), (False, False)),
        ("fb", "fresh", (1, 1), (False, False)),
        ("fbs", "used", (1, 1), (True, True)),
        ("fbsz", "none", (0, 0), (False, False)),
        ("fbsf", "used", (1, 1), (True, True)),
        ("fbsfb", "fresh", (2, 2), (False, False)),
        ("fbfbfb", "fresh", (3, 3), (False, False)),
        ("fbfbs", "used", (2, 2), (True, True)),
    ],
)
def test_gradients_say_how_many_backwards_they_hold_and_whether_a_step_used_them(
    commands: str, state: str, backwards: tuple[int, ...], used: tuple[bool, ...]
) -> None:
    grads = run(open_session("linear"), commands).grads
    assert (grads.state, grads.backwards, grads.used) == (state, backwards, used)


def test_gradients_add_up_until_zero_grad() -> None:
    frames = list(open_session("linear").run_all("fb fb fb"))[1::2]
    assert [round(frame.grads[0].values[0], 4) for frame in frames] == [1.3333, 2.6667, 4.0]


def test_zero_grad_leaves_no_gradient_at_all() -> None:
    assert list(run(open_session("linear"), "fbz").grads) == [None, None]


def test_zero_grad_keeps_what_it_cleared_to_look_at() -> None:
    *_, backward, cleared = open_session("linear").run_all("fbz")
    assert cleared.last_grads is backward.grads


def test_a_parameter_that_no_loss_depends_on_has_no_gradient() -> None:
    class Half(PlainLine):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.ones(2))

    def half(seed: int) -> tuple[nn.Module, Batch]:
        return Half(), line(seed)[1]

    frame = run(open_session(as_scenario(half)), "fbsfb")
    assert [row and row.backwards for row in frame.grads] == [2, 2, None]


def test_a_sparse_gradient_has_the_norm_of_what_it_holds() -> None:
    session = open_session(as_scenario(words))
    frame = run(session, "fb")
    sparse = frame.grads[frame.params.layout.names.index("words.weight")]
    grad = state_of(session).params["words.weight"].grad
    assert grad is not None
    assert (sparse.backwards, sparse.stored) == (1, grad.coalesce().values().numel())
    assert sparse.norm == pytest.approx(float(grad.to_dense().norm()))


# The iteration, and what is old.


@pytest.mark.parametrize(
    ("commands", "iterations"),
    [
        ("fbsz fbsz", [1, 1, 1, 1, 2, 2, 2, 2]),
        ("ff fb fb s f", [1, 1, 1, 1, 1, 1, 1, 2]),
        ("z lr=1 f", [0, 0, 1]),
        ("S f f", [0, 1, 1]),
        ("fb s S f", [1, 1, 1, 1, 2]),
        ("w=3 f w=4 f", [0, 1, 1, 1]),
    ],
)
def test_the_iteration_rises_at_the_first_forward_after_a_step(commands: str, iterations: list[int]) -> None:
    assert [frame.iteration for frame in open_session("linear").run_all(commands)] == iterations


def test_a_forward_that_raises_begins_no_iteration() -> None:
    assert run(open_session(as_scenario(gated)), "fbsz gate=4 f").iteration == 1


@pytest.mark.parametrize(
    ("commands", "old"),
    [
        ("f", False),
        ("fb", False),
        ("fbs", True),
        ("fbsz", True),
        ("fbszf", False),
        ("f S", False),  # no gradient: nothing moved
        ("lr=0 fbs", False),  # a step by nothing
        ("f w=3", True),
        ("f w=3 w=2", False),
        ("f w=2", False),
        ("f lr=3 optimizer=adam", False),
        ("w=3", False),  # no loss yet
        ("fbs f b B", False),
    ],
)
def test_a_loss_is_old_once_its_parameters_are_no_longer_there(commands: str, old: bool) -> None:
    assert run(open_session("linear"), commands).loss_is_old is old


def large(seed: int) -> tuple[nn.Module, Batch]:
    x = torch.rand(2, 40)
    return nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 2)), lambda i: (x, x[:, :2])


def test_a_step_makes_the_loss_of_a_large_model_old() -> None:
    frames = list(open_session(as_scenario(large)).run_all("f S fbs"))
    assert [frame.loss_is_old for frame in frames] == [False, False, False, False, True]


def test_a_step_by_nothing_leaves_the_loss_of_a_large_model_as_it_is() -> None:
    assert not run(open_session(as_scenario(large)), "lr=0 fbs").loss_is_old


def still(seed: int) -> tuple[nn.Module, Batch]:
    x = torch.zeros(4, 6)
    return nn.Linear(6, 9, bias=False), lambda i: (x, torch.ones(4, 9))


def test_a_step_by_gradients_of_zero_leaves_the_loss_as_it_is() -> None:
    frame = run(open_session(as_scenario(still)), "fbs")
    assert not frame.params.whole
    assert not frame.loss_is_old


def test_a_value_set_to_what_it_is_leaves_the_loss_of_a_large_model_as_it_is() -> None:
    session = open_session(as_scenario(large))
    values = run(session, "f").params[-1].values
    assert values is not None
    ages = [session.run(command).loss_is_old for command in (f"1.bias[0]={values[0]!r}", "1.bias[0]=3", "f", "b", "s")]
    assert ages == [False, True, False, False, True]


@pytest.mark.parametrize("spelling", ["adam,fused=true", "sgd,fused=true", "adam,foreach=true"])
def test_a_step_that_moves_all_parameters_at_once_makes_the_loss_old(spelling: str) -> None:
    assert run(open_session(as_scenario(gated), optimizer=spelling), "fbs").loss_is_old


# What frames share.

TABLES = ("params", "grads", "optimizer_state", "buffers")


@pytest.mark.parametrize(
    ("before", "command", "changed"),
    [
        ("fbsz", "f", {"buffers"}),
        ("fbszf", "b", {"grads"}),
        ("fbszfb", "s", {"params", "optimizer_state", "grads"}),
        ("fbszfbs", "z", {"grads"}),
        ("fbsz", "lr=1", set()),
        ("fbsz", "gate=1", {"params"}),
        ("fbsz", "gate=4", {"params"}),
        ("fbsz", "optimizer=adam", {"optimizer_state"}),
        ("fbsz fb", "B", set()),  # raises
    ],
)
def test_a_command_makes_only_the_tables_that_it_changes(before: str, command: str, changed: set[str]) -> None:
    session = open_session(as_scenario(gated), optimizer="sgd,momentum=0.9")
    old = run(session, before)
    new = session.run(command)
    assert {name for name in TABLES if getattr(new, name) is not getattr(old, name)} == changed


def test_a_step_shares_the_numbers_of_the_gradients() -> None:
    *_, backward, step = open_session("linear").run_all("fbs")
    assert step.grads.table is backward.grads.table


def test_a_fixed_batch_is_measured_once() -> None:
    first, *_, second = open_session("linear").run_all("fbszf")
    assert second.inputs is first.inputs


def test_a_fresh_batch_is_measured_anew() -> None:
    first, *_, second = open_session("linear", data="fresh").run_all("fbszf")
    assert second.inputs != first.inputs


def test_a_forward_keeps_the_buffers_from_before_it() -> None:
    first, *_, second = open_session(as_scenario(small_net)).run_all("fbszf")
    assert [(frame.buffers_before or ())[2].values for frame in (first, second)] == [(0.0,), (1.0,)]  # type: ignore[misc]
    assert second.buffers_before is first.buffers


def test_a_forward_that_changes_no_buffer_shares_their_numbers() -> None:
    def unchanging(seed: int) -> tuple[nn.Module, Batch]:
        model, batch = line(seed)
        model.register_buffer("scale", torch.ones(3))
        return model, batch

    frame = run(open_session(as_scenario(unchanging)), "f")
    assert frame.buffers is frame.buffers_before


# The settings.


def test_another_optimizer_keeps_the_learning_rate() -> None:
    assert run(open_session("linear"), "lr=0.03 optimizer=adam").learning_rate == 0.03


def test_another_optimizer_may_bring_its_own_learning_rate() -> None:
    assert run(open_session("linear"), "optimizer=adam,lr=0.5").learning_rate == 0.5


def test_another_optimizer_starts_with_empty_state() -> None:
    frame = run(open_session("linear", momentum=0.9), "fbsz optimizer=adam")
    assert (len(frame.optimizer_state), frame.optimizer) == (0, "adam")


@pytest.mark.parametrize("commands", ["optimizer=adagrad", "lr=1 optimizer=adagrad,lr=0.1"])
def test_state_that_an_optimizer_makes_at_once_is_shown_at_once(commands: str) -> None:
    frame = run(open_session("linear"), commands)
    assert frame.optimizer_state.layout.names == ("w.step", "w.sum", "b.step", "b.sum")


def test_state_that_the_first_optimizer_makes_at_once_is_in_frame_0() -> None:
    assert len(open_session("linear", optimizer="adagrad").frame.optimizer_state) == 4


def plateau(session: Session) -> tuple[int, int]:
    scheduler = session._trainer.state.scheduler
    assert scheduler is not None
    return int(scheduler.num_bad_epochs), int(scheduler.last_epoch)


def test_another_optimizer_starts_the_plateau_anew() -> None:
    session = open_session("linear", decay="plateau", lr=0.0)
    run(session, "fbsz*3")
    assert plateau(session) == (2, 3)
    session.run("optimizer=adam")
    assert plateau(session) == (0, 0)


def test_setting_the_learning_rate_leaves_the_plateau_counters() -> None:
    session = open_session("linear", decay="plateau", lr=0.0)
    run(session, "fbsz*3 lr=0.1")
    assert plateau(session) == (2, 3)


@pytest.mark.parametrize(
    "command",
    [
        "optimizer=muon",  # takes matrices alone
        "optimizer=lbfgs",
        "optimizer=nothing",
        "optimizer=adam,betas=(2,2)",
        "optimizer=adam,momentum=1",
        "optimizer=adam,lr=-1",
        "lr=-1",
        "lr=nan",
        "lr=inf",
        "v=1",
        "w[1]=1",
        "w[0,0]=1",
    ],
)
def test_a_setting_that_cannot_be_is_refused_and_leaves_everything(command: str) -> None:
    session = open_session("linear", optimizer="adam", decay="plateau:0.5:0")
    run(session, "fbsz*5 fb")
    frame, counters, expected = session.frame, plateau(session), copied(tensors(session))
    with pytest.raises(Refused):
        session.run(command)
    assert (session.frame, session.newest, plateau(session)) == (frame, 22, counters)
    assert differing(tensors(session), expected) == []
    assert session.run("s").error is None


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-0.0", "1e-45"])
def test_a_parameter_takes_any_number_of_its_dtype(value: str) -> None:
    session = open_session("linear")
    session.run(f"b[0]={value}")
    assert differing({"b": torch.tensor([float(value)])}, {"b": tensors(session)["parameter b"]}) == []


def test_one_value_of_a_matrix_can_be_set() -> None:
    session = open_session(as_scenario(gated))
    session.run("net.3.weight[1,2]=7")
    weight = tensors(session)["parameter net.3.weight"]
    assert weight is not None
    assert (weight == 7).nonzero().tolist() == [[1, 2]]


def test_a_graph_that_saved_a_value_set_since_then_raises() -> None:
    error = run(open_session(as_scenario(tripwire)), "f w=1 b").error
    assert error is not None
    assert "modified by an inplace operation" in error.message


# The numbers.


def test_measuring_a_large_model_draws_no_random_numbers() -> None:
    def large(seed: int) -> tuple[nn.Module, Batch]:
        model = nn.Linear(50, 50)
        x = torch.rand(30, 50)
        return model, lambda i: (x, x)

    session = open_session(as_scenario(large), seed=3)
    run(session, "fbsz*2")
    torch.manual_seed(3)
    large(3)
    assert torch.equal(session._trainer.state.global_state._inside.torch[0], torch.get_rng_state())


def test_the_time_of_a_phase_is_without_that_of_copying_what_it_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    session, now = open_session("linear"), [0.0]
    state = state_of(session)

    def clock() -> float:
        now[0] += 0.001
        return now[0]

    for module in (trainer, loop):
        monkeypatch.setattr(module, "perf_counter", clock)
    for name in ("begin_forward", "begin_backward"):
        begin = getattr(state, name)

        def slow(begin: Callable[[], Callable[[], None]] = begin) -> Callable[[], None]:
            now[0] += 100
            return begin()

        monkeypatch.setattr(state, name, slow)
    assert [0 < frame.seconds < 1 for frame in session.run_all("fb")] == [True, True]
