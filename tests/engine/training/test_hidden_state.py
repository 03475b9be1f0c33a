"""A run with looks ends in exactly the bits of the run without, wherever the model keeps what it remembers."""

from __future__ import annotations

import io
import itertools
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autograd_tui.core.errors import Refused
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from plain_loop import Batch, Build, copied, differing, plain_loop
from session_internals import FEW, as_scenario, open_with_many_checkpoints, state_of, tensors
from suite_options import LONG


def batch(seed: int) -> Batch:
    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(seed))
    return lambda i: (x, x.sum(1, keepdim=True))


class Recurrent(nn.Module):
    """Carries the hidden state of an LSTM from batch to batch, as a tuple in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 5), nn.Linear(5, 1)
        self.hidden = (torch.zeros(1, 5), torch.zeros(1, 5))

    def forward(self, x: Tensor) -> Tensor:
        out, hidden = self.lstm(x, self.hidden)
        self.hidden = tuple(each.detach() for each in hidden)
        return self.out(out)


class Scaled(nn.Module):
    """A linear layer whose output `scale` changes; `take` gives the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.take()

    def take(self) -> float | Tensor:
        raise NotImplementedError


class Counting(Scaled):
    calls = 0

    def take(self) -> float:
        self.calls += 1
        return 1 + self.calls / 10


class Growing(Scaled):
    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[float]] = {"all": []}

    def take(self) -> float:
        self.seen["all"].append(len(self.seen["all"]) / 10)
        return 1 + sum(self.seen["all"])


class InPlace(Scaled):
    def __init__(self) -> None:
        super().__init__()
        self.state = [torch.zeros(1), torch.ones(2)]

    def take(self) -> Tensor:
        self.state[0].data.add_(0.1)
        return 1 + self.state[0].clone()


class Game:
    """A world of its own, as in reinforcement learning."""

    def __init__(self) -> None:
        self.at, self.walls = 0.0, [0.5]

    def step(self) -> float:
        self.at += 0.1
        self.walls.append(self.at)
        return self.at

    def reset(self) -> None:
        self.at = 0.0


class Playing(Scaled):
    def __init__(self) -> None:
        super().__init__()
        self.game = Game()

    def take(self) -> float:
        return 1 + self.game.step()


class Generated(Scaled):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def take(self) -> Tensor:
        return 1 + torch.rand(1, generator=self.generator)


class ClassWide(Scaled):
    """Counts for all models of its class."""

    calls = 0

    def take(self) -> float:
        ClassWide.calls += 1
        return 1 + ClassWide.calls / 10


class Averaged(Scaled):
    """Batch norms in a list, where nobody looks for their statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = [nn.BatchNorm1d(3), nn.BatchNorm1d(3)]

    def forward(self, x: Tensor) -> Tensor:
        for norm in self.norms:
            norm(x)
        return self.layer(x) + self.norms[1].running_var.mean()  # type: ignore[union-attr]


class Streaming(Scaled):
    def __init__(self) -> None:
        super().__init__()
        self.stream = (1 + each / 10 for each in itertools.count())

    def take(self) -> float:
        return next(self.stream)


class Elsewhere(Scaled):
    """Counts where nothing finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere = types.ModuleType("elsewhere")
        self.elsewhere.calls = 0  # type: ignore[attr-defined]

    def take(self) -> float:
        self.elsewhere.calls += 1  # type: ignore[attr-defined]
        return 1 + float(self.elsewhere.calls) / 10


def of(cls: Callable[[], nn.Module]) -> Build:
    def build(seed: int) -> tuple[nn.Module, Batch]:
        ClassWide.calls = 0
        return cls(), batch(seed)

    return build


def closure(seed: int) -> tuple[nn.Module, Batch]:
    calls, seen = 0, [0.0]

    class Closed(Scaled):
        def take(self) -> float:
            nonlocal calls
            calls += 1
            seen[0] += 0.01
            return 1 + calls / 10 + seen[0]

    return Closed(), batch(seed)


def hidden_optimizer(seed: int) -> tuple[nn.Module, Batch]:
    critic = nn.Linear(1, 1)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.01)

    class Adversarial(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x)
            optimizer.zero_grad()
            (critic(out.detach()) ** 2).mean().backward()
            optimizer.step()
            return out + critic(out)

    return Adversarial(), batch(seed)


def averaged_teacher(seed: int) -> tuple[nn.Module, Batch]:
    teacher = nn.Linear(3, 1)

    class Student(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            for theirs, ours in zip(teacher.parameters(), self.parameters(), strict=True):
                theirs.data.mul_(0.9).add_(ours.data, alpha=0.1)
            return self.layer(x) + teacher(x).detach()

    return Student(), batch(seed)


def hooked(seed: int) -> tuple[nn.Module, Batch]:
    model, calls = nn.Linear(3, 1), [0]

    def louder(module: nn.Module, inputs: Any, out: Tensor, by: list[float] = [0.1]) -> Tensor:  # noqa: B006
        by[0] += 0.1
        return out * (1 + by[0])

    def steeper(grad: Tensor) -> Tensor:
        calls[0] += 1
        return grad * calls[0]

    model.register_forward_hook(louder)
    model.weight.register_hook(steeper)
    return model, batch(seed)


SCALE = 1.0  # which the code reads, and never sets


class Global(Scaled):
    """Counts in globals, one of which is not there before."""

    def take(self) -> float:
        global calls
        calls = globals().get("calls", 0) + 1  # type: ignore[name-defined]
        return (SCALE + calls) / 10  # type: ignore[name-defined]


def globally(seed: int) -> tuple[nn.Module, Batch]:
    globals().pop("calls", None)
    return Global(), batch(seed)


def closed_stream(seed: int) -> tuple[nn.Module, Batch]:
    stream = itertools.count(1)

    class Closed(Scaled):
        def take(self) -> float:
            return next(stream) / 10

    return Closed(), batch(seed)


def streamed_batches(seed: int) -> tuple[nn.Module, Batch]:
    first = batch(seed)
    stream = itertools.count(1)

    def stretched(i: int) -> tuple[Tensor, Tensor]:
        x, y = first(i)
        return x * next(stream) / 10, y

    return nn.Linear(3, 1), stretched


KNOWN: dict[str, Build] = {
    "tuple": of(Recurrent),
    "counter": of(Counting),
    "list": of(Growing),
    "in place": of(InPlace),
    "game": of(Playing),
    "generator": of(Generated),
    "class": of(ClassWide),
    "modules in a list": of(Averaged),
    "closure": closure,
    "global": globally,
    "hidden optimizer": hidden_optimizer,
    "teacher": averaged_teacher,
    "hooks": hooked,
}
UNKNOWN: dict[str, Build] = {
    "iterator": of(Streaming),
    "iterator in a closure": closed_stream,
    "iterator of batches": streamed_batches,
}
ALL = {**KNOWN, **UNKNOWN}
LOOKS = "i:f i:b i:s i:z f i:b i:s i:z f b s z fb i:s z i:f b s i:z"
PROVEN = range(1, len(LOOKS.split()), 3 if LONG else 9)  # behind which words gradients are checked
PLAIN = "fbsz*5"


def looked(session: Session) -> list[str]:
    """Run five iterations, looking at all there is to see on the way; give what was refused."""
    refused = []
    first = next(iter(state_of(session).params))
    for number, word in enumerate(LOOKS.split()):
        list(session.run_all(word))
        here = session.frame.index
        looks: list[tuple[Callable[..., object], Any]] = [
            (session.look, (max(here - 3, 0),)),
            (session.trace, (max(here - 2, 1),)),
        ]
        if number in PROVEN:
            looks += [(session.check_gradient, (here, first)), (session.check_gradient, (here, 0))]
            looks += [(session.write_repro, (io.BytesIO(),))]
        for look, about in looks:
            try:
                look(*about)
            except Refused as error:
                refused.append(str(error))
    return refused


@pytest.mark.parametrize("kind", ALL)
def test_looking_changes_no_bit_of_the_run(kind: str, tmp_path: Path) -> None:
    session = open_with_many_checkpoints(as_scenario(ALL[kind]), frames=1, budget=FEW)
    refused = looked(session)
    ours = copied(tensors(session))
    plain = open_session(as_scenario(ALL[kind]))
    list(plain.run_all(PLAIN))
    assert differing(ours, tensors(plain)) == []
    assert session.take_divergence() is None
    assert any("runs again" in each for each in refused) == (kind in UNKNOWN)
    loop = plain_loop(ALL[kind], lambda params: torch.optim.SGD(params, lr=0.01))
    *_, last = itertools.islice(loop, 5)
    assert [name for name in differing(ours, last) if not name.startswith("gradient")] == []


@pytest.mark.parametrize("kind", KNOWN)
def test_what_is_remembered_comes_back_with_every_rewind(kind: str) -> None:
    session = open_with_many_checkpoints(as_scenario(KNOWN[kind]))
    past = [copied(tensors(session))]
    for _ in session.run_all("fbsz fbs fbsz"):
        past.append(copied(tensors(session)))
    for index in (5, 2, 11, 0, 7, 1):
        session.rewind(index)
        assert differing(tensors(session), past[index]) == []
    list(session.run_all("@4 fbs fbsz"))
    assert differing(tensors(session), past[11]) == []
    assert session.take_divergence() is None


@pytest.mark.parametrize("kind", KNOWN)
def test_a_free_run_may_go_on_from_any_of_its_frames(kind: str) -> None:
    session = open_with_many_checkpoints(as_scenario(KNOWN[kind], optimizer="sgd,lr=0.001"))
    for _ in session.run_free(Goal(iteration=30), lambda: False):
        pass
    first = copied(tensors(session))
    session.rewind(17)
    for _ in session.run_free(Goal(iteration=30), lambda: False):
        pass
    assert session.take_divergence() is None
    assert differing(tensors(session), first) == []


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_cannot_be_put_back_is_said_before_anything_runs(kind: str) -> None:
    session = open_session(as_scenario(UNKNOWN[kind]))
    assert session.warning is not None
    assert "stream, an iterator, which cannot be put back" in session.warning


@pytest.mark.parametrize("kind", KNOWN)
def test_nothing_is_said_of_what_can_be_put_back(kind: str) -> None:
    assert open_session(as_scenario(KNOWN[kind])).warning is None


def test_a_backward_on_the_live_graph_is_shown_without_the_forward_where_that_may_not_repeat() -> None:
    session = open_session(as_scenario(of(Elsewhere)))
    session._trainer.diverged = True  # as a re-run would have shown
    list(session.run_all("f"))
    session._trainer.tracer.forget()  # as if it had not been recorded as it ran
    calls = state_of(session).model.elsewhere.calls  # type: ignore[union-attr]
    trace = session.run("i:b").trace
    assert trace is not None
    assert state_of(session).model.elsewhere.calls == calls  # type: ignore[union-attr]
    assert trace.forward is None
    assert "does not run again" in trace.notes[0]
    assert [op.accumulates_into for op in trace.ops if op.accumulates_into] == ["layer.bias", "layer.weight"]


def test_the_forward_of_a_model_with_an_iterator_is_known_as_it_ran() -> None:
    session = open_session(as_scenario(of(Streaming)))
    loss = session.run("f").loss
    trace = session.run("i:b").trace
    assert trace is not None
    assert trace.forward is not None
    assert trace.forward.ops[-1].output[0].stats.values == (loss,)
    assert session.trace(1).ops[-1].output[0].stats.values == (loss,)


def test_once_a_frame_came_out_otherwise_nothing_runs_again_to_be_looked_at() -> None:
    session = open_session(as_scenario(of(Elsewhere)))
    list(session.run_all("fbsz f @4 f"))
    assert session.take_divergence() is not None
    with pytest.raises(Refused, match="gave other numbers than the first time"):
        session.trace(1)
    assert session.warning is not None


class Attached(Recurrent):
    """Forgets to detach what it carries, as people do."""

    def forward(self, x: Tensor) -> Tensor:
        out, self.hidden = self.lstm(x, self.hidden)
        return self.out(out)


@pytest.mark.parametrize("words", ["fbsz f i:b", "fbsz f b @5 i:b", "fbsz f b u i:b", "ff i:b", "fbsz f @4 f i:b"])
def test_a_hidden_state_that_is_not_detached_raises_where_a_script_does(words: str) -> None:
    session = open_with_many_checkpoints(as_scenario(of(Attached)))
    frames = list(session.run_all(words.replace("u ", "undo ")))
    straight = open_session(as_scenario(of(Attached)))
    expected = list(straight.run_all("ff b" if words.startswith("ff") else "fbsz f b"))
    assert (frames[-1].error is None) == (expected[-1].error is None) == words.startswith("ff")
    assert frames[-1].params == expected[-1].params
    assert differing(tensors(session), tensors(straight)) == []
    assert session.take_divergence() is None


class Showing(Recurrent):
    """Leaves its output for others to look at, and never reads it."""

    def forward(self, x: Tensor) -> Tensor:
        self.shown = super().forward(x)
        return self.shown


def test_an_output_that_a_model_only_shows_does_not_keep_checkpoints_away() -> None:
    session = open_with_many_checkpoints(as_scenario(of(Showing)))
    list(session.run_all("fbsz*4"))
    assert len(session._replayer.checkpoints) >= 3
    carrying = open_with_many_checkpoints(as_scenario(of(Attached)))
    list(carrying.run_all("f*4"))
    assert len(carrying._replayer.checkpoints) == 1


def test_a_global_that_the_code_only_reads_is_not_set_by_going_back(monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(as_scenario(globally))
    session.run("f")
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 3.0)
    session.rewind(0)
    assert SCALE == 3.0


def test_large_tensors_that_are_gone_are_not_held_on_to() -> None:
    class Large(Scaled):
        def take(self) -> Tensor:
            self.last = torch.ones(1 << 19)
            return self.last.mean()

    session = open_session(as_scenario(of(Large)))
    list(session.run_all("fbsz*5"))
    assert len(state_of(session).reachable.copies._copies) <= 2
