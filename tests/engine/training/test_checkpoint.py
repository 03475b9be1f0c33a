"""A checkpoint brings the same state back as often as wanted, whatever training did since."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.checkpoint import BARE_CHECKPOINT, Checkpoint
from autograd_tui.engine.training.trainer import Trainer
from models_hard_to_repeat import gated, mixed, tripwire, wilful, words
from plain_loop import Batch, Build, Tensors, copied, differing, small_net
from session_internals import as_scenario, tensors

OPTIMIZERS = ["sgd,lr=0.1", "sgd,momentum=0.9", "adam", "adagrad", "nadam", "adam,amsgrad=true", "asgd", "rprop"]


def run(session: Session, commands: str) -> None:
    for _ in session.run_all(commands):
        pass


def trainer_of(session: Session) -> Trainer:
    return session._trainer


def held(session: Session) -> Tensors:
    """Give a copy of all but the loss, which a checkpoint leaves to the forward that follows it."""
    return {name: each for name, each in copied(tensors(session)).items() if name != "loss"}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_restoring_twice_gives_the_same_tensors_twice(optimizer: str) -> None:
    session = open_session(as_scenario(gated), optimizer=optimizer)
    run(session, "fbsz fb fbs")
    expected, checkpoint = held(session), trainer_of(session).checkpoint()
    for _ in range(2):
        run(session, "fbsz*3 gate=2 lr=0.5 f b F B S z")
        trainer_of(session).restore(checkpoint)
        assert differing(held(session), expected) == []


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_after_a_restore_does_not_change_the_checkpoint(optimizer: str) -> None:
    session = open_session(as_scenario(gated), optimizer=optimizer)
    run(session, "fbsz fbs")
    checkpoint = trainer_of(session).checkpoint()
    before = [tensor.clone() for tensor in checkpoint.tensors()]
    trainer_of(session).restore(checkpoint)
    run(session, "fb S fbsz gate=1")
    assert all(map(torch.equal, checkpoint.tensors(), before))


def test_a_checkpoint_shares_no_memory_with_training() -> None:
    session = open_session(as_scenario(small_net), optimizer="adam")
    run(session, "fbsz fbs")
    checkpoint = trainer_of(session).checkpoint()
    trainer_of(session).restore(checkpoint)
    live = {each.untyped_storage().data_ptr() for each in tensors(session).values() if each is not None}
    assert live.isdisjoint(each.untyped_storage().data_ptr() for each in checkpoint.tensors())


@pytest.mark.parametrize("before", ["", "S", "fb", "fbs"])
def test_optimizer_state_is_as_empty_as_it_was(before: str) -> None:
    session = open_session("linear", optimizer="adam")
    run(session, before)
    expected, checkpoint = held(session), trainer_of(session).checkpoint()
    run(session, "z fbsz*2")
    trainer_of(session).restore(checkpoint)
    assert held(session).keys() == expected.keys()


def test_another_optimizer_gives_way_to_the_one_before() -> None:
    session = open_session("linear", optimizer="sgd,lr=0.1,momentum=0.9,nesterov=true")
    run(session, "fbsz lr=0.03")
    expected, checkpoint = held(session), trainer_of(session).checkpoint()
    run(session, "optimizer=adam,lr=0.5 fbsz")
    trainer_of(session).restore(checkpoint)
    assert differing(held(session), expected) == []
    assert trainer_of(session).state.optimizer.param_groups[0]["nesterov"]


def test_the_plateau_goes_back_too() -> None:
    session = open_session("linear", lr=0.0, decay="plateau")
    run(session, "fbsz*3")
    scheduler = trainer_of(session).state.scheduler
    assert scheduler is not None
    expected, checkpoint = scheduler.state_dict(), trainer_of(session).checkpoint()
    run(session, "lr=0.1 fbsz*3")
    trainer_of(session).restore(checkpoint)
    scheduler = trainer_of(session).state.scheduler
    assert scheduler is not None
    assert scheduler.state_dict() == expected


@pytest.mark.parametrize("build", [gated, tripwire, words, mixed, wilful])
def test_every_kind_of_tensor_comes_back(build: Build) -> None:
    session = open_session(as_scenario(build), optimizer="sgd,lr=0.1,momentum=0.9")
    run(session, "fbsz fb")
    expected, checkpoint = held(session), trainer_of(session).checkpoint()
    run(session, "fbsz*2")
    trainer_of(session).restore(checkpoint)
    assert differing(held(session), expected) == []


def test_state_of_a_wider_dtype_than_its_parameter_keeps_it() -> None:
    def narrow(seed: int) -> tuple[nn.Module, Batch]:
        x = torch.rand(3, 1, dtype=torch.bfloat16)
        return nn.Linear(1, 1, dtype=torch.bfloat16), lambda i: (x, x)

    session = open_session(as_scenario(narrow), optimizer="adam")
    run(session, "fbs")
    expected, checkpoint = held(session), trainer_of(session).checkpoint()
    trainer_of(session).restore(checkpoint)
    assert differing(held(session), expected) == []


def test_a_buffer_that_was_none_is_none_again() -> None:
    session = open_session(as_scenario(wilful))
    checkpoint = trainer_of(session).checkpoint()
    run(session, "f")
    assert tensors(session)["buffer first"] is not None
    trainer_of(session).restore(checkpoint)
    assert tensors(session)["buffer first"] is None


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_nested_and_sparse_buffers_stay_what_they_are() -> None:
    def odd(seed: int) -> tuple[nn.Module, Batch]:
        model, pieces = nn.Linear(1, 1), [torch.ones(2), torch.ones(3)]
        model.register_buffer("nested", torch.nested.nested_tensor(pieces))
        model.register_buffer("jagged", torch.nested.nested_tensor(pieces, layout=torch.jagged))
        model.register_buffer("near", torch.eye(3).to_sparse_csr())
        return model, lambda i: (torch.ones(2, 1), torch.zeros(2, 1))

    session = open_session(as_scenario(odd))
    run(session, "fbsz")
    checkpoint, loss = trainer_of(session).checkpoint(), session.run("f").loss
    trainer_of(session).restore(checkpoint)
    assert session.run("f").loss == loss
    assert [row.norm for row in session.frame.buffers] == [None, None, pytest.approx(3**0.5)]


def test_a_batch_that_the_model_keeps_as_a_buffer_is_not_overwritten() -> None:
    session = open_session(as_scenario(wilful))
    checkpoint = trainer_of(session).checkpoint()
    first = session.run("f").inputs
    trainer_of(session).restore(checkpoint)
    assert session.run("f").inputs == first


def test_a_second_parameter_name_for_one_tensor_is_no_second_parameter() -> None:
    def tied(seed: int) -> tuple[nn.Module, Batch]:
        layer, x = nn.Linear(2, 2), torch.rand(3, 2)
        return nn.Sequential(layer, nn.BatchNorm1d(2), layer), lambda i: (x, x)

    session = open_session(as_scenario(tied), optimizer="adam")
    run(session, "fbsz")
    expected, checkpoint = held(session), trainer_of(session).checkpoint()
    run(session, "fbsz")
    trainer_of(session).restore(checkpoint)
    assert differing(held(session), expected) == []


def test_the_memory_of_a_dropped_checkpoint_is_used_again() -> None:
    session = open_session(as_scenario(small_net), optimizer="adam")
    run(session, "fbsz fbs")
    trainer = trainer_of(session)

    def addresses(checkpoint: Checkpoint) -> set[int]:
        return {each.data_ptr() for each in checkpoint.tensors()}

    first = trainer.checkpoint()
    assert addresses(trainer.checkpoint(recycled=first)) == addresses(first)


def test_a_checkpoint_in_used_memory_is_a_checkpoint_like_any_other() -> None:
    session = open_session(as_scenario(gated), optimizer="adam")
    old = trainer_of(session).checkpoint()
    run(session, "fbsz fb")
    expected, checkpoint = held(session), trainer_of(session).checkpoint(recycled=old)
    run(session, "fbsz*2")
    trainer_of(session).restore(checkpoint)
    assert differing(held(session), expected) == []


def test_a_checkpoint_counts_its_bytes() -> None:
    session = open_session("linear")
    assert trainer_of(session).checkpoint().bytes == BARE_CHECKPOINT + 8  # w and b
    run(session, "fb")
    assert trainer_of(session).checkpoint().bytes == BARE_CHECKPOINT + 16  # and their gradients


def test_a_scripted_model_goes_back_too() -> None:
    def scripted(seed: int) -> tuple[nn.Module, Batch]:
        x, y = torch.rand(4, 3), torch.rand(4, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = torch.jit.script(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
        return model, lambda i: (x, y)

    session = open_session(as_scenario(scripted))
    list(session.run_all("fbsz*2"))
    expected = copied(tensors(session))
    list(session.run_all("@4 fbsz"))
    assert differing(tensors(session), expected) == []
