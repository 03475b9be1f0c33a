"""A free run with a watchpoint armed stops at the very frame at which a run that makes each frame does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import Options, Parts, scenario
from autograd_tui.engine.training.stats_reader import draw_sample_indices
from autograd_tui.engine.training.still_counter import PROBE_STRIDE
from plain_loop import PlainLine, differing
from session_internals import open_with_many_checkpoints, tensors, trainer_of
from suite_options import examples

ITERATIONS = 40
FAULTS = [
    "none",
    "loss",
    "prediction",
    "buffer",
    "large gradient",
    "infinite gradient",
    "no gradient",
    "risen loss",
    "dead",
]
CONDITIONS = [
    "nonfinite",
    "loss > 1000",
    "loss < 0.1",
    "grad_norm > 200",
    "grad_norm < 1e-3",
    "param_norm > 4",
    "loss rises 2",
    "still 2",
    "still 5",
    "zero",
    "*.b* zero",
    "update > 0.3",
    "update < 1e-4",
    "*.update > 0.5",
    "*.grad > 100",
    "inside.* < 0.01",
    "error > 30",
    "error < 0.2",
    "dead * > 0.7",
    "dead inside* < 0.1",
]
NAMED = [
    *(None, "{} still 3", "{} > 3", "{}.grad > 100", "{}.grad < 1e-3"),
    *("{}.update > 0.2", "{}.update < 1e-3", "{}.grad zero", "{} zero"),
]


@dataclass(frozen=True)
class Fault:
    """What goes wrong in some forwards, counted from 1, and leaves no trace in the parameters where that can be."""

    kind: str
    first: int
    times: int

    def is_in(self, forward: int) -> bool:
        return self.first <= forward < self.first + self.times


class Faulty(nn.Module):
    """A model around another one, in which a fault is planted."""

    count: Tensor
    seen: Tensor

    def __init__(self, inside: nn.Module, fault: Fault) -> None:
        super().__init__()
        self.inside, self.fault = inside, fault
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("seen", torch.zeros(5))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        now = self.fault.is_in(int(self.count))
        prediction: Tensor = self.inside(-100 * x if now and self.fault.kind == "dead" else x)
        self.seen[3] = math.nan if now and self.fault.kind == "buffer" else float(self.count)
        if now and self.fault.kind == "prediction":
            missing = torch.zeros_like(prediction)
            missing.view(-1)[-1] = math.nan
            return prediction + missing
        if now and self.fault.kind in GRADIENT_FACTORS and prediction.requires_grad:
            prediction.register_hook(lambda grad: grad * GRADIENT_FACTORS[self.fault.kind])
        return prediction

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error of what is predicted."""
        known = ~prediction.detach().isnan()
        loss = ((prediction[known] - target[known]) ** 2).mean()
        if self.fault.is_in(int(self.count)):
            if self.fault.kind == "loss":
                return loss + math.inf
            if self.fault.kind == "risen loss":
                return loss + 10.0 * int(self.count)
        return loss


GRADIENT_FACTORS = {"large gradient": 1e4, "infinite gradient": math.inf, "no gradient": 0.0}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


def rarely_used() -> nn.Module:
    """Build a model of which most values of one parameter never move, and which has one above the sample's size."""
    return nn.Sequential(nn.Linear(3, 600), nn.ReLU(), nn.Linear(600, 2))


class OneSampledValueMoves(nn.Module):
    """A line whose slope is one value of a large parameter: one of its sample, and the others never move."""

    place: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.ones(5000))
        sampled = draw_sample_indices(5000, torch.device("cpu")).tolist()
        probed = set(sampled[::PROBE_STRIDE])
        self.register_buffer("place", torch.tensor([next(index for index in sampled if index not in probed)]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.base[self.place]


MODELS = {"line": PlainLine, "net": net, "large": rarely_used, "sampled": OneSampledValueMoves}


def greatest_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the largest difference; a random number is drawn, as a metric of somebody's may do."""
    return (prediction - target).abs().max() + 0 * torch.rand(())


def opened(model: str, fault: Fault, *, many: bool, **options: Any) -> Session:
    def build(_: Options) -> Parts:
        faulty = Faulty(MODELS[model](), fault)
        x = torch.rand(4, 3)
        y = 2 * x + 1 if model in ("line", "sampled") else 2 * x[:, :2] + 1
        return Parts(model=faulty, batch=lambda i: (x, y), loss=faulty.loss, metrics={"error": greatest_error})

    made = scenario("faulty", device="cpu")(build)
    return open_with_many_checkpoints(made, **options) if many else open_session(made, **options)


@examples(12)
@given(
    model=st.sampled_from(list(MODELS)),
    fault=st.builds(Fault, st.sampled_from(FAULTS), st.integers(1, ITERATIONS), st.sampled_from([1, 1, 2, 6])),
    watched=st.lists(st.sampled_from(CONDITIONS), min_size=1, max_size=3, unique=True),
    named=st.sampled_from(NAMED),
    optimizer=st.sampled_from(["sgd,lr=0.05", "sgd,lr=0.05,momentum=0.9", "adam,lr=0.01", "sgd,lr=0"]),
    every=st.sampled_from([0.0, 0.004, 1.0]),
    many=st.booleans(),
)
def test_it_stops_where_a_run_phase_by_phase_stops(
    model: str, fault: Fault, watched: list[str], named: str | None, optimizer: str, every: float, many: bool
) -> None:
    freely = opened(model, fault, many=many, optimizer=optimizer)
    by_phases = opened(model, fault, many=False, optimizer=optimizer)
    if named:
        watched = [*watched, named.format(freely.frame.params.layout.names[0])]
    for session in (freely, by_phases):
        for each in watched:
            session.arm(each)
    goal = Goal(iteration=ITERATIONS)
    for _ in range(4):
        for _ in freely.run_free(goal, lambda: False, every=every):
            pass
        for _ in by_phases.run_until(goal):
            pass
        assert str(freely.take_fired()) == str(by_phases.take_fired())
        assert freely.commands() == by_phases.commands()
        assert freely.frame.same(by_phases.frame)
    assert differing(tensors(freely), tensors(by_phases)) == []
    assert repr(freely.history.loss.points()) == repr(by_phases.history.loss.points())  # a NaN equals no other
    assert freely.take_divergence() is None


@pytest.mark.parametrize(
    ("kind", "watched", "phase"),
    [
        ("loss", "nonfinite", "forward"),
        ("prediction", "nonfinite", "forward"),
        ("buffer", "nonfinite", "forward"),
        ("large gradient", "grad_norm > 200", "backward"),
        ("infinite gradient", "nonfinite", "backward"),
        ("no gradient", "still 1", "step"),
        ("risen loss", "loss rises 1", "forward"),
        ("infinite gradient", "*.2.weight.grad > 1e6", "backward"),
        ("large gradient", "*.update > 5", "step"),
        ("no gradient", "zero", "backward"),
        ("no gradient", "update < 1e-9", "step"),
        ("prediction", "error > 100", "forward"),
        ("dead", "dead inside.1 < 0.49", "forward"),
    ],
)
def test_the_one_iteration_that_leaves_no_trace_is_found(kind: str, watched: str, phase: str) -> None:
    session = opened("large", Fault(kind, 30, 1), many=False, optimizer="sgd,lr=0.02")
    session.arm(watched)
    for _ in session.run_free(Goal(iteration=60), lambda: False, every=1.0):
        pass
    assert (session.frame.iteration, session.frame.phase) == (30, phase)
    assert session.fired is not None
    assert session.fired.index == session.frame.index


def clip(line: PlainLine) -> None:
    for param in line.parameters():
        param.data.clamp_(-9, 9)


class ClippedLine(PlainLine):
    def forward(self, x: Tensor) -> Tensor:
        clip(self)
        return super().forward(x)


class UncountedLine(PlainLine):
    def forward(self, x: Tensor) -> Tensor:
        for param in self.parameters():
            values = param.detach().numpy()
            values.clip(-9, 9, out=values)
        return super().forward(x)


class CountedLine(PlainLine):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            for param in self.parameters():
                param.clamp_(-9, 9)
        return super().forward(x)


@pytest.mark.parametrize("model", [ClippedLine, UncountedLine, CountedLine])
def test_an_infinity_that_the_next_forward_clips_is_found(
    model: type[PlainLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "line", model)
    session = opened("line", Fault("infinite gradient", 30, 1), many=False, optimizer="sgd,lr=0.02")
    session.arm("nonfinite")
    for _ in session.run_free(Goal(iteration=60), lambda: False, every=1.0):
        pass
    assert (session.frame.iteration, session.frame.phase) == (30, "backward")


class Twisted(nn.Module):
    """A line beside complex numbers, one of which is none in the 30th forward: of a table, or of the prediction."""

    turns: Tensor
    count: Tensor

    def __init__(self, *, of_prediction: bool) -> None:
        super().__init__()
        self.inside, self.of_prediction = PlainLine(), of_prediction
        self.register_buffer("turns", torch.ones(3, dtype=torch.complex64))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        missing = torch.tensor(complex(0, math.nan if self.count == 30 else 0))
        line: Tensor = self.inside(x)
        if not self.of_prediction:
            self.turns[1] = missing
            return line
        shift = torch.zeros(x.shape, dtype=torch.complex64)
        shift[-1, -1] = missing
        return line + shift


@pytest.mark.parametrize("of_prediction", [True, False])
@pytest.mark.parametrize("is_free", [True, False])
def test_a_complex_number_that_is_none_in_one_iteration_is_found(of_prediction: bool, is_free: bool) -> None:
    def build(_: Options) -> Parts:
        x = torch.rand(4, 3)
        return Parts(
            model=Twisted(of_prediction=of_prediction),
            batch=lambda i: (x, 2 * x + 1),
            loss=lambda prediction, target: (prediction - target)[:-1].abs().square().mean(),
        )

    session = open_session(scenario("twisted", device="cpu")(build), optimizer="sgd,lr=0.02")
    session.arm("nonfinite")
    goal = Goal(iteration=60)
    for _ in session.run_free(goal, lambda: False, every=1.0) if is_free else session.run_until(goal):
        pass
    assert (session.frame.iteration, session.frame.phase) == (30, "forward")


class FirstIsNan(nn.Module):
    """A line beside a large parameter that is no number in its first value, which is in no sample, and never moves."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = PlainLine()
        self.base = nn.Parameter(torch.ones(5000))
        assert 0 not in draw_sample_indices(5000, torch.device("cpu"))[1:]
        with torch.no_grad():
            self.base[0] = math.nan

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x) + 0 * self.base[1]


def test_a_large_parameter_without_a_first_number_is_as_still_as_its_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "line", FirstIsNan)
    fired = []
    for is_free in (True, False):
        session = opened("line", Fault("none", 1, 1), many=False, optimizer="sgd,lr=0.02")
        session.arm("still 20")
        goal = Goal(iteration=60)
        for _ in session.run_free(goal, lambda: False, every=1.0) if is_free else session.run_until(goal):
            pass
        fired.append(str(session.fired))
    assert fired[0] == fired[1]
    assert "base has not changed" in fired[0]


class WithoutValues(PlainLine):
    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Parameter(torch.zeros(0))


@pytest.mark.parametrize("is_free", [True, False])
def test_a_parameter_without_values_is_never_still(is_free: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "line", WithoutValues)
    session = opened("line", Fault("no gradient", 30, 5), many=False, optimizer="sgd,lr=0.02")
    session.arm("still 3")
    goal = Goal(iteration=60)
    for _ in session.run_free(goal, lambda: False, every=1.0) if is_free else session.run_until(goal):
        pass
    assert session.frame.iteration == 32
    assert "inside.w has not changed" in str(session.fired)


@pytest.mark.parametrize(
    ("kind", "watched"), [("loss", "nonfinite"), ("risen loss", "loss > 100"), ("risen loss", "loss rises 1")]
)
def test_no_iteration_runs_behind_the_one_whose_loss_is_watched_for(kind: str, watched: str) -> None:
    ran: list[int] = []
    session = opened("large", Fault(kind, 30, 1), many=False, optimizer="sgd,lr=0.02")
    session.arm(watched)
    trainer_of(session).state.model.register_forward_hook(lambda model, given, output: ran.append(int(model.count)))
    for _ in session.run_free(Goal(iteration=60), lambda: False, every=1.0):
        pass
    assert session.frame.iteration == 30
    assert max(ran) == 30


def test_the_repro_is_that_of_a_run_phase_by_phase() -> None:
    repros = []
    for is_free in (True, False):
        session = opened("net", Fault("infinite gradient", 30, 1), many=False, optimizer="adam,lr=0.01")
        session.arm("nonfinite")
        goal = Goal(iteration=60)
        for _ in session.run_free(goal, lambda: False, every=1.0) if is_free else session.run_until(goal):
            pass
        repros.append(session.write_repro(BytesIO()))
    one, other = repros
    for key in ("frame", "steps", "iteration", "end", "fault", "forwards"):
        assert one[key] == other[key]
    assert one["fault"]
    for key in ("params", "buffers"):
        assert differing(one[key], other[key]) == []


@pytest.mark.parametrize(("model", "still"), [("net", "still 500"), ("large", "still 5"), ("sampled", "still 5")])
def test_no_frame_is_made_of_most_iterations_while_nothing_holds(
    model: str, still: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(model, Fault("none", 1, 1), many=False)
    for watched in ("nonfinite", "grad_norm > 1e6", "loss > 1e6", still, "loss rises 50", "update > 90"):
        session.arm(watched)
    trainer, made = trainer_of(session), []
    run = trainer.run

    def counting(command: Any, **options: Any) -> Any:
        made.append(command)
        return run(command, **options)

    monkeypatch.setattr(trainer, "run", counting)
    for _ in session.run_free(Goal(iteration=100), lambda: False, every=60):
        pass
    assert session.frame.iteration == 100
    assert session.fired is None
    assert len(made) < 40
