"""Out of memory: a frame with the error, all as before it, and nothing of what failed is kept."""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autograd_tui import Options, Parts, Session, open_session
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame, TorchError
from autograd_tui.engine.training import stats_reader
from autograd_tui.engine.training.scenario import Scenario
from autograd_tui.text.explain import explain
from session_internals import state_of, trainer_of

SIZE = 2000  # values of the weight: more than are copied whole
HIDDEN = 37  # values, which no other tensor has


class Greedy(nn.Module):
    """Holds a tensor of its forward in a local variable where it runs out of memory, if it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(SIZE, HIDDEN), nn.Linear(HIDDEN, 1)
        self.fails: BaseException | None = None

    def forward(self, x: Tensor) -> Any:
        hidden = self.layer(x).relu()
        if self.fails is not None:
            raise self.fails
        return self.last(hidden)


def _opened() -> tuple[Session, Greedy]:
    def build(_: Options) -> Parts:
        x, y = torch.rand(4, SIZE), torch.rand(4, 1)
        return Parts(model=Greedy(), batch=lambda _: (x, y), loss=nn.functional.mse_loss, optimizer="adam")

    session = open_session(Scenario("greedy", build))
    model = state_of(session).model
    assert isinstance(model, Greedy)
    return session, model


def _hidden_alive() -> int:
    """Return how many hidden values of a forward are in memory."""
    return sum(type(each) is Tensor and each.shape == (4, HIDDEN) for each in gc.get_objects())


@pytest.mark.parametrize("how", ["f", "i:f"])
def test_nothing_of_a_forward_that_ran_out_of_memory_is_kept_and_the_next_one_works(how: str) -> None:
    session, model = _opened()
    list(session.run_all("fbsz"))
    model.fails = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
    frame = session.run(how)
    model.fails = None
    assert frame.error is not None
    assert frame.error.type == "OutOfMemoryError"
    assert _hidden_alive() == 0
    assert session.run("f").error is None


def test_a_free_run_that_runs_out_of_memory_lets_go_of_it_and_ends_with_the_error() -> None:
    session, model = _opened()
    list(session.run_all("fbsz"))
    calls = 0

    def fail_later(*_: Any) -> None:
        nonlocal calls
        calls += 1
        model.fails = torch.OutOfMemoryError("CUDA out of memory.") if calls > 8 else None

    model.register_forward_pre_hook(fail_later)
    frames = list(session.run_free(session.end_of(20), lambda: False))
    assert frames[-1].error is not None
    assert frames[-1].error.is_out_of_memory
    assert calls > 8
    assert _hidden_alive() == 0


@pytest.mark.parametrize(
    ("type_", "message", "is_one"),
    [
        ("OutOfMemoryError", "CUDA out of memory.", True),
        ("RuntimeError", "MPS backend out of memory (MPS allocated: 9 GB)", True),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory", True),
        ("MemoryError", "", True),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied", False),
        ("ValueError", "out of memory of mine", False),
    ],
)
def test_out_of_memory_is_known_however_it_is_said(type_: str, message: str, is_one: bool) -> None:
    assert TorchError(type_, message, "", 0).is_out_of_memory is is_one


def test_the_screen_says_what_to_do_in_one_sentence() -> None:
    session, model = _opened()
    told = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 79.10 GiB of which 1 GiB is free."
    model.fails = torch.OutOfMemoryError(
        f"{told} Including non-PyTorch memory, this process has 78 GiB in use. And so on."
    )
    first, *others = explain(session.run("f"))
    assert first.startswith("forward raised OutOfMemoryError (test_out_of_memory.py, line ")
    assert first.endswith("): there was too little memory left for it, a smaller batch needs less.")
    assert others == ["Parameters, gradients, buffers and random numbers are as before it.", told]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")],
    ids=["CUDA", "MPS"],
)
def test_where_there_is_no_memory_to_measure_the_step_stands_and_the_host_measures(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = _opened()
    wanted, _ = _opened()
    list(session.run_all("fb"))
    launch, calls = stats_reader.launch_large, 0

    def failing(*args: Any, **kwargs: Any) -> list[Tensor]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise error
        return launch(*args, **kwargs)

    monkeypatch.setattr(stats_reader, "launch_large", failing)
    frame: Frame = session.run("s")
    assert calls > 2
    assert frame.same([*wanted.run_all("fbs")][-1])


def test_where_there_is_no_memory_to_copy_what_a_forward_may_change_it_is_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session, _ = _opened()
    state = state_of(session)

    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(state, "begin_forward", fail)
    frame = session.run("f")
    assert frame.error is not None
    assert frame.error.is_out_of_memory
    monkeypatch.undo()
    assert session.run("f").error is None


def _out_of_memory(*_: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_phase_stands_whose_inside_there_is_no_memory_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = _opened()
    wanted, _ = _opened()
    with monkeypatch.context() as patch:
        patch.setattr(trainer_of(session).tracer, "take", _out_of_memory)
        with pytest.raises(Refused, match=r"^forward ran, but there was too little memory left to measure what is in"):
            session.run("i:f")
    assert session.frame.same([*wanted.run_all("f")][-1])
    list(session.run_all("bsz"))
    with monkeypatch.context() as patch:
        patch.setattr(trainer_of(session).tracer, "take", _out_of_memory)
        with pytest.raises(Refused):
            session.trace(1)
    assert session.frame.same([*wanted.run_all("bsz")][-1])
    assert session.trace(1).ops


def test_what_is_asked_beside_training_is_refused_where_it_has_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = _opened()
    wanted, _ = _opened()
    list(session.run_all("fb"))
    monkeypatch.setattr(session._grad_checker, "check_gradient", _out_of_memory)
    with pytest.raises(Refused, match=r"^there is too little memory on cpu for a gradient check: training stands as"):
        session.check_gradient(2, "last.bias")
    assert session.run("s").same([*wanted.run_all("fbs")][-1])


def test_it_is_told_where_a_step_that_raised_cannot_be_undone_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(_: Options) -> Parts:
        model = nn.Linear(1, 1)
        x, y = torch.rand(4, 1), torch.rand(4, 1)
        chance = random.SystemRandom()  # which nothing puts back
        return Parts(model=model, batch=lambda _: (x, y), loss=lambda q, y: ((q - y) ** 2).mean() * chance.random())

    session = open_session(Scenario("chance", build))
    list(session.run_all("fb"))
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", lambda self, closure=None: _out_of_memory())
        assert session.run("s").error is not None
    assert session.take_divergence() is not None
