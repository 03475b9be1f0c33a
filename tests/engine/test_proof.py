"""A gradient is proven by finite differences: what autograd says is computed again, and never assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_loop import Batch, Build, copied, differing, mse, small_net_fresh
from reach import as_scenario, tensors
from torch import Tensor, nn
from worlds import gated

from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import Parts, Scenario
from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.progress import Progress
from autograd_tui.engine.values.proof_result import Proof
from autograd_tui.open import open_session


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors need no more, and wait for each other where there are more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def after(words: str, build: Build | None = None, **options: Any) -> Session:
    session = open_session("linear" if build is None else as_scenario(build), **options)
    list(session.run_all(words))
    return session


def of(module: Callable[[], nn.Module], x: Tensor | None = None) -> Build:
    """Build a model that is asked for zeros."""

    def build(seed: int) -> tuple[nn.Module, Batch]:
        inputs = torch.rand(4, 3) if x is None else x
        return module(), lambda i: (inputs, torch.zeros(()))

    return build


def test_the_lines_gradient_is_that_of_differences_of_autograd_and_of_the_formula() -> None:
    proof = after("fb").prove(2, "w")
    assert proof.verdict == "agrees"
    assert proof.held == pytest.approx([4 / 3])
    assert proof.numeric == pytest.approx([4 / 3], rel=1e-9)
    assert proof.exact == pytest.approx([4 / 3], rel=1e-14)
    assert proof.closed == pytest.approx([4 / 3], rel=1e-14)
    assert after("fb").prove(2, "b").closed == pytest.approx([2.0])


def test_any_frame_that_has_a_gradient_can_be_proven() -> None:
    session = after("fbsz*4 fbs")
    assert [session.prove(index, "w").verdict for index in (2, 3, 6, 19)] == ["agrees"] * 4
    assert session.prove(6, "w").held != session.prove(2, "w").held


def test_a_sum_of_backwards_is_proven_as_one() -> None:
    proof = after("fb FB").prove(4, "b")
    assert (proof.verdict, proof.backwards) == ("agrees", 1)
    assert proof.held == pytest.approx([4.0])
    assert proof.numeric == pytest.approx([4.0])


class Scaled(torch.autograd.Function):
    """Doubles, and says that it does a little more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return 2.001 * grads[0]


class Wrong(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))
        self.b = nn.Parameter(torch.tensor([6.0]))

    def forward(self, x: Tensor) -> Tensor:
        return Scaled.apply(self.w * x) + self.b  # type: ignore[no-any-return, no-untyped-call]


def test_a_wrong_backward_of_ones_own_is_caught_where_it_is_and_nowhere_else() -> None:
    session = after("fb", of(Wrong))
    assert session.prove(2, "w").verdict == "wrong"
    assert session.prove(2, "w").relative_error == pytest.approx(0.001 / 2.001, rel=1e-4)
    assert session.prove(2, "b").verdict == "agrees"


def test_a_gradient_that_somebody_has_changed_in_the_run_differs_from_what_autograd_says() -> None:
    def build(seed: int) -> tuple[nn.Module, Batch]:
        model = nn.Linear(3, 1)
        model.weight.register_hook(lambda grad: grad.clamp(max=1e-3))
        x = torch.rand(4, 3)
        return model, lambda i: (x, torch.full((4, 1), -1.0))

    session = after("fb", build)
    assert session.prove(2, "weight").verdict == "differs"
    assert session.prove(2, "bias").verdict == "agrees"


class Kinked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return (self.w.relu() * x + 1).sum()


def test_a_kink_is_said_to_be_one() -> None:
    proof = after("fb", of(Kinked)).prove(2, "w")
    assert (proof.verdict, proof.kinks) == ("kink", 3)


def networks() -> st.SearchStrategy[tuple[Build, int]]:
    """Draw small smooth networks: layers of random width with a random activation between."""
    widths = st.lists(st.integers(1, 4), min_size=1, max_size=3)
    activations = st.sampled_from([nn.Tanh, nn.Sigmoid, nn.GELU, nn.Softplus, nn.SiLU])
    return st.tuples(st.tuples(widths, activations).map(lambda drawn: network(*drawn)), st.integers(0, 99))


def network(widths: list[int], activation: type[nn.Module]) -> Build:
    def build(seed: int) -> tuple[nn.Module, Batch]:
        layers: list[nn.Module] = []
        for before, width in zip([3, *widths], [*widths, 1], strict=True):
            layers += [nn.Linear(before, width), activation()]
        x, y = torch.rand(5, 3), torch.rand(5, 1)
        return nn.Sequential(*layers), lambda i: (x, y)

    return build


@settings(max_examples=12, deadline=None)
@given(networks())
def test_it_agrees_with_gradcheck_on_random_networks(drawn: tuple[Build, int]) -> None:
    build, seed = drawn
    session = after("fb", build, seed=seed)
    torch.manual_seed(seed)
    model, batch = build(seed)
    model.double()
    inputs, targets = (each.double() for each in batch(0))
    params = dict(model.named_parameters())

    def loss_of(*values: Tensor) -> Tensor:
        return mse(torch.func.functional_call(model, dict(zip(params, values, strict=True)), inputs), targets)

    assert torch.autograd.gradcheck(loss_of, tuple(params.values()))
    for name in params:
        assert session.prove(2, name).verdict == "agrees", name


def test_noise_and_dropout_draw_what_the_run_drew() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.net(x + torch.randn_like(x))
            return y * torch.rand(()) + torch.empty_like(y).normal_() + torch.randn(1)

    session = after("fbsz fb", of(Noisy))
    for name in ("net.0.weight", "net.1.weight", "net.4.bias"):
        proof = session.prove(6, name)
        assert (proof.verdict, name) == ("agrees", name)
        assert proof.relative_held_error < 1e-4


def test_a_gradient_that_is_nothing_but_rounding_is_not_said_to_differ() -> None:
    session = after("fbsz*2 fb", small_net_fresh)
    proof = session.prove(session.frame.index, "0.bias")  # which the batch norm behind it takes out again
    assert max(map(abs, proof.exact)) < 1e-12 < max(map(abs, proof.held))
    assert proof.verdict == "agrees"


def test_a_large_gradient_is_proven_along_random_directions() -> None:
    proof = after("fbsz fb", of(lambda: nn.Sequential(nn.Linear(3, 40), nn.Tanh(), nn.Linear(40, 1)))).prove(
        6, "0.weight"
    )
    assert (proof.kind, len(proof.numeric), proof.verdict) == ("directions", 8, "agrees")


@pytest.mark.parametrize("build", [small_net_fresh, gated])
def test_a_proof_leaves_everything_as_it_was(build: Build) -> None:
    session, other = after("fbsz*2 fbs", build), after("fbsz*2 fbs", build)
    before = copied(tensors(session))
    session.prove(session.frame.index, session.frame.params.layout.names[0])
    assert differing(tensors(session), before) == []
    for each in (session, other):
        list(each.run_all("z fbsz"))
    assert session.frame.same(other.frame)
    assert differing(tensors(session), tensors(other)) == []


def refused(session: Session, index: int, what: str | int) -> str:
    before = copied(tensors(session))
    with pytest.raises(Refused) as caught:
        session.prove(index, what)
    assert differing(tensors(session), before) == []
    return str(caught.value)


class Casting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return (self.w * x).half().float().sum()


class Unsteady(Casting):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        Unsteady.calls += 1
        return (self.w * x).sum() * Unsteady.calls


class Stubborn(Casting):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("one of me is enough")


class Picky(Casting):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype is not torch.float32:
            raise TypeError("only float32 is welcome")
        return (self.w * x).sum()


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Casting, "the model changes its numbers' dtype on the way, and float64 is needed all the way."),
        (Stubborn, "the model cannot be copied: TypeError: one of me is enough (test_proof.py, line "),
        (Picky, "the model cannot run in float64: TypeError: only float32 is welcome (test_proof.py, line "),
    ],
)
def test_what_cannot_be_proven_is_said_in_a_sentence(module: type[nn.Module], said: str) -> None:
    assert refused(after("fb", of(module)), 2, "w").startswith(said)


def test_a_model_that_is_another_each_time_is_refused() -> None:
    with pytest.raises(Refused, match="the model gives another loss each time, random numbers put back"):
        after("fb", of(Unsteady)).prove(2, "w")


def test_a_loss_that_reaches_around_the_copy_is_refused() -> None:
    def build(options: Any) -> Parts:
        model = nn.Linear(3, 1)
        x = torch.rand(4, 3)
        return Parts(model=model, batch=lambda i: (x, x), loss=lambda p, t: p.mean() + model.weight.pow(2).sum())

    session = open_session(Scenario("around", build))
    list(session.run_all("fb"))
    assert refused(session, 2, "weight").startswith("the loss reaches around the copy to the model itself")


def test_where_there_is_no_gradient_there_is_no_proof() -> None:
    session = after("fbsz")
    for index in (0, 1, 4):
        said = f"w has no gradient at frame {index}: there is one after backward, until zero_grad."
        assert refused(session, index, "w") == said
    assert refused(session, 2, "v") == 'there is no parameter "v": this model has w, b.'


class Counted(nn.Linear):
    forwards = 0

    def forward(self, x: Tensor) -> Tensor:
        Counted.forwards += 1
        return super().forward(x)


@pytest.mark.parametrize("what", ["weight", 0])
def test_it_can_be_given_up_before_any_of_its_forwards(what: str | int) -> None:
    session = after("fb", of(lambda: Counted(3, 2)))
    session.trace(1)
    before = copied(tensors(session))
    for forwards in (0, 1, 2, 5):
        Counted.forwards = 0
        with pytest.raises(Refused, match="the proof was given up"):
            session.prove(2, what, stopped=lambda most=forwards: Counted.forwards >= most)  # type: ignore[misc]
        assert Counted.forwards - 2 <= forwards  # two more made frame 2 again, which nobody gives up
        assert differing(tensors(session), before) == []


def test_who_watches_is_told_how_far_it_has_come() -> None:
    session, told = after("fb", of(lambda: nn.Linear(3, 2))), list[Progress]()
    session.watch(lambda progress: told.append(progress) is None)
    session.prove(2, "weight")
    far = [(each.done, each.of) for each in told if each.proof == "weight.grad"]
    assert far == sorted(far)
    assert set(far) == {(0, 0), *((done, 6) for done in range(6))}


# Of what comes out of operations.


def test_what_comes_out_of_each_operation_of_the_line_is_proven() -> None:
    proofs = [after("fb").prove(2, number) for number in range(5)]
    assert [proof.name for proof in proofs] == ["mul 1", "add 2", "sub 3", "pow 4", "mean 5"]
    assert {proof.verdict for proof in proofs} == {"agrees"}
    assert proofs[1].numeric == pytest.approx([2, 2 / 3, -2 / 3])
    assert proofs[2].numeric == pytest.approx([-2, -2 / 3, 2 / 3])
    assert proofs[4].numeric == pytest.approx([1])


def test_an_operation_in_place_is_proven_too() -> None:
    def module() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 1))

    session = after("fb", of(module))
    number = next(op.number for op in session.trace(1).ops if op.mutates)
    proof: Proof = session.prove(2, number)
    assert proof.verdict == "agrees"


def test_a_wrong_backward_is_caught_before_it_and_not_behind_it() -> None:
    session = after("fb", of(Wrong))
    ops = session.trace(1).ops
    behind = next(op.number for op in ops if op.name == "add")
    assert session.prove(2, 0).verdict == "wrong"
    assert session.prove(2, behind).verdict == "agrees"
    opaque = next(op.number for op in ops if op.opaque)
    assert "known by what came out of it alone" in refused(session, 2, opaque)
    assert refused(session, 2, 99) == f"the forward has {len(ops)} operations, and none is number 100."
