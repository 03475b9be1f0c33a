from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.checkpoint import BARE_CHECKPOINT
from autograd_tui.engine.training.scenario import Options, Parts, scenario
from plain_loop import Batch, copied, differing, small_net_fresh
from session_internals import as_scenario, tensors
from suite_options import examples


def opened(*watched: str, **options: object) -> Session:
    session = open_session(**options)  # type: ignore[arg-type]
    for each in watched:
        session.arm(each)
    return session


def run(session: Session, goal: Goal | None = None, *, every: float = 0.0) -> None:
    for _ in session.run_free(goal or Goal(iteration=200), lambda: False, every=every):
        pass


def where(session: Session) -> str | None:
    """Give where a watchpoint fired."""
    fired = session.take_fired()
    return str(fired) if fired else None


@pytest.mark.parametrize(
    ("watched", "phase", "value"),
    [
        ("loss < 3", "forward", lambda frame: frame.loss),
        ("grad_norm < 0.8", "backward", lambda frame: frame.grads.norm()),
        ("w.grad < 0.8", "backward", lambda frame: frame.grads[0].norm),
        ("w > 2.1", "step", lambda frame: frame.params[0].norm),
        ("param_norm < 5", "step", lambda frame: frame.params.norm()),
        ("update < 0.03", "step", lambda frame: math.hypot(*frame.moves) / frame.before.norm()),
        ("b.update < 0.02", "step", lambda frame: frame.moves[1] / frame.before[1].norm),
    ],
)
def test_a_free_run_pauses_at_the_first_frame_that_leaves_the_range(
    watched: str, phase: str, value: Callable[[Frame], float]
) -> None:
    sign, bound = watched.split()[1], float(watched.split()[2])
    frames = [frame for frame in open_session().run_all("fbsz*200") if frame.phase == phase]
    first = next(each for each in frames if (value(each) > bound if sign == ">" else value(each) < bound))
    session = opened(watched)
    run(session)
    assert session.frame.same(first)
    assert where(session) == f"frame {first.index}: {watched.split()[0]} {value(first):.4g} {sign} {bound:g}"


@pytest.mark.parametrize(
    ("watched", "lr", "iteration", "phase", "said"),
    [
        ("still", 0.0, 5, "step", "w has not changed for 5 iterations, as 1 more"),
        ("b still 2", 0.0, 2, "step", "b has not changed for 2 iterations"),
        ("loss rises 3", 0.6, 4, "forward", "the loss has risen 3 times in a row, to "),
        ("nonfinite", 1e30, 2, "forward", "the loss is inf"),
    ],
)
def test_a_free_run_pauses_where_a_condition_over_iterations_holds(
    watched: str, lr: float, iteration: int, phase: str, said: str
) -> None:
    session = opened(watched, lr=lr)
    run(session)
    assert (session.frame.iteration, session.frame.phase) == (iteration, phase)
    assert f"frame {session.frame.index}: {said}" in str(where(session))


def partly_nested(seed: int) -> tuple[nn.Module, Batch]:
    """Build a model whose parameter is whole numbers of its own kind: no gradient, no norm."""
    model = nn.Linear(1, 1)
    model.register_parameter("flags", nn.Parameter(torch.ones(3, dtype=torch.bool), requires_grad=False))
    return model, lambda i: (torch.ones(1, 1), torch.ones(1, 1))


class Wave(nn.Module):
    """Two complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.tensor([3 + 4j, 0j]))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.c * self.c.conj()).real.sum()


def wave(seed: int) -> tuple[nn.Module, Batch]:
    return Wave(), lambda i: (torch.ones(1), torch.zeros(1))


def test_a_threshold_on_a_sum_that_leaves_a_tensor_out_does_not_fire() -> None:
    session = open_session(as_scenario(partly_nested))
    session.arm("param_norm < 1e6")
    list(session.run_all("fbsz"))
    assert where(session) is None


def test_a_threshold_compares_the_norm_of_complex_numbers() -> None:
    session = open_session(as_scenario(wave))
    for watched in ("grad_norm < 1e-6", "param_norm < 4"):
        session.arm(watched)
    list(session.run_all("fb"))
    assert where(session) is None
    session.run("optimizer=sgd,lr=0.005")
    session.run("s")
    assert str(where(session)).startswith("frame 4: param_norm 2.5 < 4")


def test_a_complex_parameter_that_is_nan_is_seen() -> None:
    session = open_session(as_scenario(wave))
    session.arm("nonfinite")
    list(session.run_all("fb"))
    assert where(session) is None
    session.run("optimizer=sgd,lr=1e30")
    session.run("s")
    session.run("f")
    session.run("b")
    session.run("s")
    assert where(session) is not None


def test_it_goes_on_from_there_and_pauses_again() -> None:
    session = opened("loss rises 3", lr=0.6)
    run(session)
    run(session)
    assert session.frame.index == 25
    assert "risen 6 times" in str(where(session))


def test_where_it_fired_is_told_once_and_stays_known() -> None:
    session = opened("loss > 3")
    run(session)
    assert (where(session), where(session)) == ("frame 1: loss 3.667 > 3", None)
    assert session.fired is not None
    assert session.fired.index == 1


def test_several_that_hold_are_told_together() -> None:
    session = opened("grad_norm > 2", "w.grad > 1")
    run(session)
    assert where(session) == "frame 2: grad_norm 2.404 > 2; w.grad 1.333 > 1"


def test_a_stepped_run_is_told_too() -> None:
    session = opened("grad_norm > 2")
    session.run("f")
    assert where(session) is None
    session.run("b")
    assert where(session) == "frame 2: grad_norm 2.404 > 2"


def test_a_number_is_looked_at_only_where_it_is_new() -> None:
    session = opened("w > 1", "grad_norm > 2")
    fired = []
    for frame in session.run_all("fbsz w=3 lr=0.1 f"):
        if where(session):
            fired.append(frame.index)
    assert fired == [2, 3, 5]


def test_a_norm_that_is_nan_has_left_any_range() -> None:
    session = opened("grad_norm > 10")
    list(session.run_all("w=nan fb"))
    assert where(session) == "frame 3: grad_norm is NaN, and grad_norm > 10 was asked for"


def test_what_is_frozen_may_rest_unless_it_is_named() -> None:
    session = opened("still 2")
    list(session.run_all("w.requires_grad=False fbsz*3"))
    assert where(session) is None
    session.arm("w still 2")
    list(session.run_all("fbsz*2"))
    assert where(session) == f"frame {session.frame.index - 1}: w has not changed for 2 iterations"


def test_what_fired_on_a_branch_is_not_known_on_another() -> None:
    session = open_session("linear")
    list(session.run_all("fbsz*2 @4"))
    session.arm("loss > 0")
    list(session.run_all("lr=0.01 f b"))
    assert session.fired is not None
    session.run("branch=1")
    assert session.fired is None


def test_counting_begins_anew_after_going_back() -> None:
    session = opened("loss rises 3", lr=0.6)
    list(session.run_all("fbsz*3"))
    session.rewind(0)
    list(session.run_all("fbszfbsz"))
    assert where(session) is None
    list(session.run_all("fbszfbsz"))
    assert where(session) == "frame 13: the loss has risen 3 times in a row, to 6056"


def test_the_gradients_that_are_not_finite_are_named_and_counted() -> None:
    def build(seed: int) -> tuple[nn.Module, Batch]:
        x = torch.zeros(2, 3)
        return Roots(), lambda i: (x, torch.zeros(2, 3))

    session = opened("nonfinite", scenario=as_scenario(build))
    run(session)
    assert where(session) == "frame 2: scale.grad has 3 of 3 values that are NaN or infinite"


class Masked(nn.Module):
    """A mask of -inf among the buffers and the parameters, and in the prediction, where it counts for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.never = nn.Parameter(torch.tensor([0.0, 0.0, -torch.inf]), requires_grad=False)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.never + self.mask  # type: ignore[operator]


def test_a_mask_of_infinities_is_nothing_to_pause_at() -> None:
    def build(_: Options) -> Parts:
        batch = torch.ones(2, 3), torch.zeros(2, dtype=torch.long)
        return Parts(model=Masked(), batch=lambda i: batch, loss=nn.CrossEntropyLoss())

    session = opened("nonfinite", scenario=scenario("masked", device="cpu")(build))
    run(session, Goal(iteration=2))
    assert where(session) is None
    assert session.frame.index == 8


class Roots(nn.Module):
    """A root at 0, where its slope is infinite; the loss is finite."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.ones(1))
        self.scale = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.offset + (self.scale + x).sqrt()


@pytest.mark.parametrize("watched", ["v > 3", "w.bias > 3", "loss still", "v still 3", "weight > 3"])
def test_a_parameter_that_the_model_lacks_is_refused(watched: str) -> None:
    with pytest.raises(Refused, match=r"there is no parameter .* to watch: this model has w, b\."):
        opened(watched)


class Rectified(nn.Module):
    """Two rectified layers that share a module, of which the second gives zeros alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU()
        with torch.no_grad():
            self.second.weight.fill_(1.0)
            self.second.bias.fill_(-100.0)

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.relu(self.first(x))
        return first.sum(1) + self.relu(self.second(first)).sum(1)


def rectified(seed: int) -> tuple[nn.Module, Batch]:
    x, y = torch.rand(5, 3), torch.rand(5)
    return Rectified(), lambda i: (x, y)


def test_the_share_of_zeros_is_that_of_each_call_of_a_module() -> None:
    session = opened("dead relu > 0.95", "dead second < 0.5", scenario=as_scenario(rectified))
    session.run("f")
    (_, first), (_, second), (_, third) = session.frame.zero_shares
    assert [name for name, _ in session.frame.zero_shares] == ["relu", "second", "relu"]
    assert 0 < first < 0.95
    assert (second, third) == (0.0, 1.0)
    assert where(session) == "frame 1: dead relu: 1 > 0.95; dead second: 0 < 0.5"
    assert not any(module._forward_hooks for module in session._trainer.state.model.modules())


def test_a_recorded_forward_is_watched_too_and_shows_no_more_operations() -> None:
    operations = []
    for watched in ((), ("dead relu > 0.95",)):
        session = opened(*watched, scenario=as_scenario(rectified))
        frame = session.run("i:f")
        assert frame.trace is not None
        operations.append([op.name for op in frame.trace.ops])
    assert operations[0] == operations[1]
    assert where(session) == "frame 1: dead relu: 1 > 0.95"


def test_a_gradient_of_zeros_is_found_among_all() -> None:
    session = opened("zero", "first.weight.grad zero", "*.bias zero", scenario=as_scenario(rectified))
    run(session)
    assert where(session) == "frame 2: second.weight.grad has no value but 0, as 1 more"


def test_a_pattern_names_the_first_that_holds_and_counts_the_others() -> None:
    session = opened("*.grad > 0.1")
    run(session)
    assert where(session) == "frame 2: w.grad 1.333 > 0.1, as 1 more"


def test_metrics_of_the_scenario_and_named_losses_are_watched() -> None:
    def build(_: Options) -> Parts:
        batch = torch.ones(2, 3), torch.zeros(2, 1)
        metrics = {"least": lambda prediction, target: prediction.min() - 5}
        return Parts(model=nn.Linear(3, 1), batch=lambda i: batch, loss=nn.MSELoss(), metrics=metrics)

    session = opened("least < -1", scenario=scenario("measured", device="cpu")(build))
    run(session)
    assert str(where(session)).startswith("frame 1: least -")
    with pytest.raises(Refused, match=r'no parameter or metric "leas" to watch: the nearest is least\.'):
        session.arm("leas < 1")


def many_layers(options: Options) -> Parts:
    layers = [nn.Linear(2, 2) for _ in range(6)]
    x = torch.ones(1, 2)
    return Parts(model=nn.Sequential(*layers), batch=lambda i: (x, x), loss=nn.functional.mse_loss)


@pytest.mark.parametrize(
    ("asked", "has"),
    [
        ("watch qqqq > 1", "0.weight, 0.bias, 1.weight, 1.bias and 8 more."),
        ("watch dead qqqq > 0.9", "0, 1, 2, 3 and 2 more."),
        ("qqqq=3", "0.weight, 0.bias, 1.weight, 1.bias and 8 more."),
    ],
)
def test_of_many_names_the_first_are_listed_and_the_others_counted(asked: str, has: str) -> None:
    session = open_session(scenario("many layers")(many_layers))
    with pytest.raises(Refused) as caught:
        session.arm(asked.removeprefix("watch ")) if asked.startswith("watch ") else session.run(asked)
    assert str(caught.value).endswith(f"this model has {has}")


@pytest.mark.parametrize(
    ("watched", "said"),
    [
        ("dead rel > 0.9", 'there is no module "rel" to watch: the nearest is relu.'),
        ("dead layer* > 0.9", 'there is no module "layer*" to watch: this model has first, second, relu.'),
        ("*.grd zero", 'there is no parameter "*.grd" to watch: this model has first.weight, first.bias'),
        ("first.weight < 0", "compares a norm, which is 0 or more"),
    ],
)
def test_what_the_model_lacks_is_refused_with_what_it_has(watched: str, said: str) -> None:
    with pytest.raises(Refused) as caught:
        opened(watched, scenario=as_scenario(rectified))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("watched", "meant"),
    [("grad_nrm > 3", "grad_norm"), ("los < 1", "loss"), ("w.grd > 3", "w.grad"), ("grad > 3", "w.grad")],
)
def test_what_is_misspelt_is_answered_with_the_nearest_that_can_be_watched(watched: str, meant: str) -> None:
    with pytest.raises(Refused, match=rf"to watch: the nearest is {meant}\.$"):
        opened(watched)


def test_only_a_parameter_is_the_nearest_where_it_is_to_keep_still() -> None:
    with pytest.raises(Refused, match=r"the nearest is 0\.weight\.$"):
        opened("0.weight.grd still", scenario=as_scenario(small_net_fresh))


def test_a_condition_is_armed_once_and_all_are_disarmed_together() -> None:
    session = opened("w > 3", "w>3", "nonfinite")
    assert list(map(str, session.watchpoints)) == ["w > 3", "nonfinite"]
    session.disarm()
    assert session.watchpoints == ()


def test_frames_are_given_as_seldom_as_in_any_run() -> None:
    session = opened("loss > 1e9")
    shown = list(session.run_free(Goal(iteration=50), lambda: False, every=60))
    assert [frame.index for frame in shown] == [200]


def test_a_watched_run_stops_after_its_phase_when_it_is_told_to() -> None:
    session = opened("loss > 1e9")
    seen = iter([False, False, True])
    (frame,) = session.run_free(Goal(), lambda: next(seen), every=60)
    assert frame.index == 3


@examples(15)
@given(
    watched=st.lists(st.sampled_from(["nonfinite", "still", "grad_norm > 0.1", "loss rises 2"]), min_size=1),
    optimizer=st.sampled_from(["sgd,momentum=0.9", "adam"]),
    iterations=st.integers(1, 12),
)
def test_an_armed_watchpoint_changes_no_bit(watched: list[str], optimizer: str, iterations: int) -> None:
    session = opened(*watched, scenario=as_scenario(small_net_fresh), optimizer=optimizer, lr=0.05)
    while session.end_of(1).iteration != iterations + 1:
        run(session, Goal(iteration=iterations))
    plain = open_session(as_scenario(small_net_fresh), optimizer=optimizer, lr=0.05)
    list(plain.run_all(f"fbsz*{iterations}"))
    assert differing(tensors(session), tensors(plain)) == []
    assert session.frame.same(plain.frame)
    assert session.commands() == plain.commands()
    assert session.history.loss.points() == plain.history.loss.points()


def test_what_is_kept_aside_is_one_checkpoint_beside_the_budget() -> None:
    session = opened("loss > 1e9", memory=1)
    run(session, Goal(iteration=20))
    line = session._replayer.checkpoints
    assert len(line) == 0
    assert line.iteration_start is not None
    assert line.iteration_start.frame.index == 76
    assert line.iteration_start.bytes < 2 * BARE_CHECKPOINT


def test_its_memory_is_used_again() -> None:
    session = opened("loss > 1e9")
    list(session.run_all("fbsz"))
    line = session._replayer.checkpoints
    assert line.iteration_start is not None
    rooms = sorted(each.data_ptr() for each in line.iteration_start.params.values())
    list(session.run_all("fbsz*3"))
    assert sorted(each.data_ptr() for each in line.iteration_start.params.values()) == rooms


def test_the_latest_iteration_can_be_walked_again_where_no_checkpoint_has_room() -> None:
    session = opened("loss < 2.9", memory=1)
    run(session)
    frames = {index: session.look(index) for index in range(session.frame.index - 3, session.frame.index + 1)}
    trained: list[int] = []
    session.watch(lambda progress: not trained.append(progress.of))  # type: ignore[func-returns-value]
    session.run("b")
    here = session.frame
    session.rewind(here.index - 1)
    assert session.frame.same(frames[here.index - 1])
    assert trained == []  # the one frame is all that was run again: there was nothing to tell on the way


def test_a_forward_that_raises_leaves_no_way_back_from_its_start() -> None:
    from models_hard_to_repeat import gated

    session = opened("loss > 1e9", scenario=as_scenario(gated), memory=1)
    list(session.run_all("fb"))
    list(session.run_all("gate=4 F B"))
    frame = session.frame
    list(session.run_all("S"))
    session.rewind(frame.index)
    assert session.frame.same(frame)


def test_what_was_kept_of_a_model_that_has_been_built_anew_since_is_left_alone() -> None:
    from models_hard_to_repeat import wilful  # whose buffers are other tensors after each forward

    session = opened("loss > 1e9", scenario=as_scenario(wilful), memory=1)
    list(session.run_all("fbsz*2 f"))
    frame, at_hand = session.frame, copied(tensors(session))
    session.rewind(0)
    session.rewind(frame.index)
    assert session.frame.same(frame)
    assert differing(tensors(session), at_hand) == []


def test_disarmed_nothing_is_kept_aside() -> None:
    session = opened("loss > 1e9")
    session.run("f")
    session.disarm()
    assert session._replayer.checkpoints.iteration_start is None


def test_the_loss_of_one_iteration_is_compared_once() -> None:
    session = opened("loss rises 1")
    list(session.run_all("fFF"))
    assert where(session) is None


def test_the_latest_iteration_is_walked_inside_from_its_own_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened("loss < 2.9", memory=1)
    run(session)
    session.run("b")
    monkeypatch.setattr(session._trainer, "rebuild", lambda: pytest.fail("all was run again"))
    trace = session.trace(session.frame.index)
    assert [op.accumulates_into for op in trace.ops if op.accumulates_into] == ["b", "w"]
