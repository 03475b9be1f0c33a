"""A gradient is checked by finite differences: what autograd says is computed again, and never assumed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Categorical, Normal
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from autograd_tui.core.errors import Refused
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.run_observer import Progress
from autograd_tui.engine.gradcheck.float64_copy import RestoringMode
from autograd_tui.engine.gradcheck.gradcheck import slope
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import Parts, Scenario
from models_hard_to_repeat import gated
from plain_loop import Batch, Build, copied, differing, mse, small_net_fresh
from session_internals import as_scenario, tensors
from suite_options import examples


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
    check = after("fb").check_gradient(2, "w")
    assert check.verdict == "agrees"
    assert check.held == pytest.approx([4 / 3])
    assert check.numeric == pytest.approx([4 / 3], rel=1e-9)
    assert check.exact == pytest.approx([4 / 3], rel=1e-14)
    assert check.closed == pytest.approx([4 / 3], rel=1e-14)
    assert after("fb").check_gradient(2, "b").closed == pytest.approx([2.0])


def test_any_frame_that_has_a_gradient_can_be_checked() -> None:
    session = after("fbsz*4 fbs")
    assert [session.check_gradient(index, "w").verdict for index in (2, 3, 6, 19)] == ["agrees"] * 4
    assert session.check_gradient(6, "w").held != session.check_gradient(2, "w").held


def test_a_sum_of_backwards_is_checked_as_one() -> None:
    check = after("fb FB").check_gradient(4, "b")
    assert (check.verdict, check.backwards) == ("agrees", 1)
    assert check.held == pytest.approx([4.0])
    assert check.numeric == pytest.approx([4.0])


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
        return Scaled.apply(self.w * x) + self.b


def test_a_wrong_backward_of_ones_own_is_caught_where_it_is_and_nowhere_else() -> None:
    session = after("fb", of(Wrong))
    assert session.check_gradient(2, "w").verdict == "wrong"
    assert session.check_gradient(2, "w").relative_error == pytest.approx(0.001 / 2.001, rel=1e-4)
    assert session.check_gradient(2, "b").verdict == "agrees"


def test_a_gradient_that_somebody_has_changed_in_the_run_differs_from_what_autograd_says() -> None:
    def build(seed: int) -> tuple[nn.Module, Batch]:
        model = nn.Linear(3, 1)
        model.weight.register_hook(lambda grad: grad.clamp(max=1e-3))
        x = torch.rand(4, 3)
        return model, lambda i: (x, torch.full((4, 1), -1.0))

    session = after("fb", build)
    assert session.check_gradient(2, "weight").verdict == "differs"
    assert session.check_gradient(2, "bias").verdict == "agrees"


class Kinked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return (self.w.relu() * x + 1).sum()


def test_a_kink_is_said_to_be_one() -> None:
    check = after("fb", of(Kinked)).check_gradient(2, "w")
    assert (check.verdict, check.kinks) == ("kink", 3)


@pytest.mark.parametrize("function", [abs, lambda x: x + 1e3 * x**3, lambda x: 3 * x])
def test_a_loss_is_measured_once_for_each_distance(function: Callable[[float], float]) -> None:
    distances = list[float]()

    def measured(distance: float) -> float:
        distances.append(distance)
        return function(distance)

    slope(measured, 2.0, size=2.0)
    assert len(distances) == len(set(distances))


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


@examples(12)
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
        assert session.check_gradient(2, name).verdict == "agrees", name


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
        check = session.check_gradient(6, name)
        assert (check.verdict, name) == ("agrees", name)
        assert check.relative_held_error < 1e-4


def test_a_gradient_that_is_nothing_but_rounding_is_not_said_to_differ() -> None:
    session = after("fbsz*2 fb", small_net_fresh)
    check = session.check_gradient(session.frame.index, "0.bias")  # which the batch norm behind it takes out again
    assert max(map(abs, check.exact)) < 1e-12 < max(map(abs, check.held))
    assert check.verdict == "agrees"


def test_a_large_gradient_is_checked_along_random_directions() -> None:
    check = after("fbsz fb", of(lambda: nn.Sequential(nn.Linear(3, 40), nn.Tanh(), nn.Linear(40, 1)))).check_gradient(
        6, "0.weight"
    )
    assert (check.kind, len(check.numeric), check.verdict) == ("directions", 8, "agrees")


@pytest.mark.parametrize("build", [small_net_fresh, gated])
def test_a_gradient_check_leaves_everything_as_it_was(build: Build) -> None:
    session, other = after("fbsz*2 fbs", build), after("fbsz*2 fbs", build)
    before = copied(tensors(session))
    session.check_gradient(session.frame.index, session.frame.params.layout.names[0])
    assert differing(tensors(session), before) == []
    for each in (session, other):
        list(each.run_all("z fbsz"))
    assert session.frame.same(other.frame)
    assert differing(tensors(session), tensors(other)) == []


def refused(session: Session, index: int, what: str | int) -> str:
    before = copied(tensors(session))
    with pytest.raises(Refused) as caught:
        session.check_gradient(index, what)
    assert differing(tensors(session), before) == []
    return str(caught.value)


class InNumPy(torch.autograd.Function):
    """Squares, in float32 whatever comes in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy().astype("float32") ** 2)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return 2 * grads[0] * ctx.saved_tensors[0]


class Casting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return (InNumPy.apply(self.w * x) * self.w).sum()


ELSEWHERE: Any = ModuleType("elsewhere")  # where nobody looks for a counter
ELSEWHERE.calls = 0


class Unsteady(Casting):
    def forward(self, x: Tensor) -> Tensor:
        ELSEWHERE.calls += 1
        return (self.w * x).sum() * ELSEWHERE.calls


class Stubborn(Casting):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("one of me is enough")


class Renewed(Casting):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.w.clamp_(max=0.5)
        return (self.w * x).sum()


class Again(Casting):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = checkpoint(lambda each: self.w * each, x.requires_grad_(), use_reentrant=True)
        return y.sum()


class Picky(Casting):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype is not torch.float32:
            raise TypeError("only float32 is welcome")
        return (self.w * x).sum()


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Casting, f"InNumPy (line {Casting.forward.__code__.co_firstlineno + 1}) gives float32 in the copy too"),
        (Renewed, "the forward itself changes w, so there is no telling what moving it before would do."),
        (Again, "a checkpoint with use_reentrant=True hides from autograd what it runs: use_reentrant=False"),
        (Stubborn, "the model cannot be copied: TypeError: one of me is enough (test_gradcheck.py, line "),
        (Picky, "the model cannot run in float64: TypeError: only float32 is welcome (test_gradcheck.py, line "),
    ],
)
def test_what_cannot_be_checked_is_said_in_a_sentence(module: type[nn.Module], said: str) -> None:
    assert refused(after("fb", of(module)), 2, "w").startswith(said)


def test_a_model_that_is_another_each_time_is_refused() -> None:
    with pytest.raises(Refused, match="the model gives another loss each time, random numbers put back"):
        after("fb", of(Unsteady)).check_gradient(2, "w")


def test_a_loss_that_reaches_around_the_copy_is_refused() -> None:
    def build(options: Any) -> Parts:
        model = nn.Linear(3, 1)
        x = torch.rand(4, 3)
        return Parts(model=model, batch=lambda i: (x, x), loss=lambda p, t: p.mean() + model.weight.pow(2).sum())

    session = open_session(Scenario("around", build))
    list(session.run_all("fb"))
    assert refused(session, 2, "weight").startswith("the loss reaches around the copy to the model itself")


def test_where_there_is_no_gradient_there_is_no_gradient_check() -> None:
    session = after("fbsz")
    for index in (0, 1, 4):
        said = f"w has no gradient at frame {index}: there is one after backward, until zero_grad."
        assert refused(session, index, "w") == said
    assert refused(session, 2, "v") == 'there is no parameter "v": this model has w, b.'


class Counted(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        ELSEWHERE.calls += 1
        return super().forward(x)


@pytest.mark.parametrize("what", ["weight", 0])
def test_it_can_be_given_up_before_any_of_its_forwards(what: str | int) -> None:
    session = after("fb", of(lambda: Counted(3, 2)))
    session.trace(1)
    before = copied(tensors(session))
    for forwards in (0, 1, 2, 5):
        ELSEWHERE.calls = 0
        with pytest.raises(Refused, match="the gradient check was given up"):
            session.check_gradient(2, what, stopped=lambda most=forwards: ELSEWHERE.calls >= most)  # type: ignore[misc]
        assert ELSEWHERE.calls - 2 <= forwards  # two more made frame 2 again, which nobody gives up
        assert differing(tensors(session), before) == []


def test_who_watches_is_told_how_far_it_has_come() -> None:
    session, told = after("fb", of(lambda: nn.Linear(3, 2))), list[Progress]()
    session.watch(lambda progress: told.append(progress) is None)  # type: ignore[func-returns-value]
    session.check_gradient(2, "weight")
    far = [(each.done, each.of) for each in told if each.gradient == "weight.grad"]
    assert far == sorted(far)
    assert set(far) == {(0, 0), *((done, 6) for done in range(6))}


# Of losses that gradients follow but in part, because autograd was told so.


class Two(nn.Module):
    """Two layers, and a loss made of them by a function."""

    def __init__(self, loss: Callable[[Two, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.loss = nn.Linear(3, 4), nn.Linear(4, 1), loss
        self.teacher = nn.Linear(3, 4).requires_grad_(requires_grad=False)
        self.register_buffer("queue", torch.ones(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.loss(self, x)


def checked(loss: Callable[[Two, Tensor], Tensor], words: str = "fb") -> GradCheck:
    session = after(words, of(lambda: Two(loss), torch.rand(6, 3)))
    assert session.frame.error is None
    return session.check_gradient(session.frame.index, "a.weight")


def moving_average(two: Two) -> None:
    for teacher, student in zip(two.teacher.parameters(), two.a.parameters(), strict=True):
        teacher.data = teacher.data * 0.9 + student.data * 0.1


def with_a_target(two: Two, x: Tensor) -> Tensor:
    with torch.no_grad():
        target = two.b(two.a(x)).sin()
    return F.mse_loss(two.b(two.a(x)), target)


def with_a_teacher(two: Two, x: Tensor) -> Tensor:
    moving_average(two)
    return F.mse_loss(two.a(x).tanh(), two.teacher(x))


def with_a_teacher_moved_in_place(two: Two, x: Tensor) -> Tensor:
    with torch.no_grad():
        torch._foreach_lerp_(list(two.teacher.parameters()), list(two.a.parameters()), 0.1)
    return F.mse_loss(two.a(x).tanh(), two.teacher(x))


def with_a_queue(two: Two, x: Tensor) -> Tensor:
    assert isinstance(two.queue, Tensor)
    with torch.no_grad():
        two.queue[:2] = two.a(x)[:2]
    return (two.a(x) @ two.queue.T).square().mean()


def with_sampled_actions(two: Two, x: Tensor) -> Tensor:
    policy = Normal(two.b(two.a(x)), 1.0)
    actions = policy.sample()
    return -(policy.log_prob(actions) * actions.sin()).mean()


def with_a_penalty(two: Two, x: Tensor, **options: Any) -> Tensor:
    x = x.clone().requires_grad_()
    y = two.b(two.a(x).tanh())
    (slopes,) = torch.autograd.grad(y.sum(), x, **options)
    return y.mean() + (slopes.norm(dim=1) - 1).square().mean()


def with_inference(two: Two, x: Tensor) -> Tensor:
    with torch.inference_mode():
        target = two.b(two.a(x)).sin()
    return F.mse_loss(two.b(two.a(x)), target.clone())


def with_a_layer_frozen_for_a_while(two: Two, x: Tensor) -> Tensor:
    two.a.requires_grad_(requires_grad=False)
    loss = two.b(two.a(x)).square().mean()
    for param in two.a.parameters():
        param.requires_grad = True
    return loss + two.a(x).sin().mean()


def straight_through(two: Two, x: Tensor) -> Tensor:
    p = two.a(x).sigmoid()
    return two.b(p + ((p > 0.5).float() - p).detach()).square().mean()


def quantized(two: Two, x: Tensor) -> Tensor:
    z, codes = two.a(x), two.b.weight.T * torch.arange(4.0)
    q = codes.T[torch.cdist(z, codes.T).argmin(1)]
    return F.mse_loss(q, z.detach()) + F.mse_loss(z, q.detach()) + two.b(z + (q - z).detach()).square().mean()


@pytest.mark.parametrize(
    ("loss", "through"),
    [
        (lambda two, x: F.cosine_similarity(two.a(x).tanh(), two.a(x + 0.1).detach()).mean(), "detach"),
        (lambda two, x: two.a(x).square().mean() * two.a.weight.data.sum(), ".data"),
        (lambda two, x: (two.a(x) / two.a(x).std().item()).tanh().mean(), "item"),
        (lambda two, x: two.b(F.gumbel_softmax(two.a(x), hard=True)).square().mean(), "detach"),
        (straight_through, "detach"),
        (quantized, "detach"),
        (with_a_target, "no_grad"),
        (with_a_teacher, ".data"),
        (with_a_teacher_moved_in_place, "no_grad"),
        (with_a_queue, "no_grad"),
        (with_sampled_actions, "no_grad"),
        (with_inference, "inference_mode"),
        (with_a_layer_frozen_for_a_while, "requires_grad=False"),
        (lambda two, x: with_a_penalty(two, x, retain_graph=True), "grad without create_graph"),
    ],
)
def test_what_autograd_was_told_to_hold_still_is_held_still_and_said(
    loss: Callable[[Two, Tensor], Tensor], through: str
) -> None:
    check = checked(loss, "fbsz fb")
    assert check.verdict == "agrees"
    assert {place.partition(" (")[0] for place in check.held_still} == {through}
    assert check.relative_held_error < 1e-4


class Padded(nn.Module):
    """Words whose padding has a vector that the loss depends on, as tied weights or a mean over words make it."""

    def __init__(self, given: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.words, self.given = nn.Parameter(torch.rand(5, 2)), given

    def forward(self, x: Tensor) -> Tensor:
        return self.given(x.long(), self.words).mean(1).sin() @ self.words.T


@pytest.mark.parametrize("padding", [0, -5])
def test_the_padding_of_an_embedding_is_held_still(padding: int) -> None:
    indices = torch.tensor([[1, 2, 0], [3, 0, 0]])
    model = of(lambda: Padded(lambda x, words: F.embedding(x, words, padding_idx=padding)), indices)
    check = after("fbsz fb", model).check_gradient(6, "words")
    assert check.verdict == "agrees"
    assert [place.partition(" (")[0] for place in check.held_still] == ["padding_idx"]


def test_an_embedding_whose_padding_does_not_come_is_checked_as_it_is() -> None:
    model = of(lambda: Padded(lambda x, words: F.embedding(x, words, padding_idx=4)), torch.tensor([[1, 2, 0]]))
    check = after("fb", model).check_gradient(2, "words")
    assert (check.verdict, check.held_still) == ("agrees", ())


class ByTurns(nn.Module):
    """Trains one of two layers, and freezes the other, by turns."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.turn = nn.Linear(3, 2), nn.Linear(2, 1), 0

    def forward(self, x: Tensor) -> Tensor:
        self.turn += 1
        self.a.requires_grad_(self.turn % 2 == 1)
        self.b.requires_grad_(self.turn % 2 == 0)
        return self.b(self.a(x).tanh())


def test_a_gradient_is_checked_where_the_forward_freezes_by_turns() -> None:
    session = after("fbsz fbsz fb", of(ByTurns))
    checks = [session.check_gradient(*asked) for asked in ((2, "a.weight"), (6, "b.weight"), (10, "a.weight"))]
    assert [check.verdict for check in checks] == ["agrees"] * 3


def test_what_comes_out_of_an_operation_is_checked_where_a_forward_counts_in_python() -> None:
    count, noise = [0], torch.Generator().manual_seed(1)

    def loss(two: Two, x: Tensor) -> Tensor:
        count[0] += 1
        return (two.a(x) * torch.rand(4, generator=noise)).square().mean() * count[0]

    session = after("fbsz fb", of(lambda: Two(loss), torch.rand(6, 3)))
    assert session.check_gradient(6, 0).verdict == "agrees"


def test_it_is_said_at_which_lines() -> None:
    check = checked(with_a_target)
    assert check.held_still == (f"no_grad (line {with_a_target.__code__.co_firstlineno + 1})",)


def test_a_number_that_decides_what_runs_is_held_still() -> None:
    def loss(two: Two, x: Tensor) -> Tensor:
        y = two.b(two.a(x)).square().mean()
        for _ in range(1 + int(abs(two.a(x).sum().item()) * 1e5) % 7):
            y = y * (1 + 0.001 * two.a(x).mean().detach())
        return y

    torch.manual_seed(0)
    check = checked(loss)
    assert check.verdict == "agrees"
    assert [place.partition(" ")[0] for place in check.held_still] == ["item", "detach"]


def test_the_power_iteration_of_a_spectral_norm_is_held_still() -> None:
    session = after("fbsz fb", of(lambda: nn.Sequential(spectral_norm(nn.Linear(3, 4)), nn.Tanh())))
    check = session.check_gradient(6, "0.parametrizations.weight.original")
    assert check.verdict == "agrees"
    assert [place.partition(",")[0] for place in check.held_still] == ["no_grad (parametrizations.py"]


class Honest(torch.autograd.Function):
    """Squares, out of autograd's sight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.detach())
        with torch.enable_grad():
            x.detach().requires_grad_().sum()
        with torch.no_grad():
            return torch.from_numpy(x.detach().numpy() ** 2)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return 2 * grads[0] * ctx.saved_tensors[0]


def implicit(two: Two, x: Tensor) -> Tensor:
    """Find where tanh(z / 99 + a(x)) stays, and let a hook solve for the gradient."""
    with torch.no_grad():
        z = torch.zeros(6, 4)
        for _ in range(9):
            z = torch.tanh(z / 99 + two.a(x))
    z = torch.tanh(z / 99 + two.a(x))
    if z.requires_grad:
        inside = (1 - z.detach() ** 2) / 99
        z.register_hook(lambda grad: grad / (1 - inside))
    return z.square().sum()


@pytest.mark.parametrize(
    "loss",
    [
        lambda two, x: two.b(Honest.apply(two.a(x))).mean(),
        implicit,
        lambda two, x: with_a_penalty(two, x, create_graph=True),
        lambda two, x: two.a(x).relu().mean() * (1.0 if two.a(x).mean().item() < 99 else 2.0),
        lambda two, x: two.a(x).amax(1).mean() + two.a(x).gather(1, two.a(x).argmax(1, keepdim=True)).mean(),
        lambda two, x: -Categorical(logits=two.a(x)).log_prob(Categorical(logits=two.a(x)).sample()).mean(),
        lambda two, x: two.b(F.gumbel_softmax(two.a(x))).square().mean(),
        lambda two, x: two.b(checkpoint(lambda z: F.dropout(two.a(z)).tanh(), x, use_reentrant=False)).mean(),
    ],
)
def test_what_gradients_follow_is_not_held_still(loss: Callable[[Two, Tensor], Tensor]) -> None:
    check = checked(loss)
    assert (check.verdict, check.held_still) == ("agrees", ())
    assert check.relative_held_error < 1e-4


def test_a_wrong_backward_is_caught_beside_what_is_held_still() -> None:
    def loss(two: Two, x: Tensor) -> Tensor:
        wrong: Tensor = Scaled.apply(two.a(x))
        return two.b(wrong).square().mean() * two.a(x).detach().mean()

    check = checked(loss)
    assert (check.verdict, len(check.held_still)) == ("wrong", 1)
    assert checked(lambda two, x: Scaled.apply(two.a(x)).square().mean()).verdict == "wrong"


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("norm", [weight_norm, nn.utils.weight_norm])
def test_a_weight_norm_is_checked(norm: Callable[[nn.Module], nn.Module]) -> None:
    session = after("fbsz fb", of(lambda: nn.Sequential(norm(nn.Linear(3, 4)), nn.Tanh())))
    assert {session.check_gradient(6, name).verdict for name in session.frame.params.layout.names} == {"agrees"}


def test_what_a_forward_remembers_of_the_one_before_is_no_obstacle() -> None:
    def loss(two: Two, x: Tensor) -> Tensor:
        two.remembered = [two.a(x)]  # type: ignore[assignment]
        return two.b(two.remembered[0]).square().mean()  # type: ignore[index]

    assert checked(loss, "fbsz fb").verdict == "agrees"


def test_what_a_forward_writes_into_is_put_back() -> None:
    outside, other = torch.ones(3), torch.ones(3)
    leaf = torch.ones(3, requires_grad=True)
    leaf.grad = torch.ones(3)
    memory = other.data_ptr()
    with RestoringMode() as written:
        inside = torch.zeros(3)
        for each in (outside[1:], inside):
            each.add_(1)
        torch.mul(other, 2, out=other)
        other.data = other.data * 3
        F.batch_norm(torch.rand(2, 3), outside, other, training=True)
        leaf.grad.add_(1)
        outside.requires_grad = True
    assert leaf.grad.tolist() == [1, 1, 1]
    assert not outside.requires_grad
    assert outside.tolist() == other.tolist() == [1, 1, 1]
    assert inside.tolist() == [1, 1, 1]
    assert other.data_ptr() == memory
    assert written.changed == {outside.data_ptr(), memory, leaf.grad.data_ptr()}


def test_putting_the_state_back_before_a_forward_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, watch = list[Any](), RestoringMode.__torch_function__

    def counted(mode: RestoringMode, func: Any, *arguments: Any) -> Any:
        watched.append(func)
        return watch(mode, func, *arguments)

    monkeypatch.setattr(RestoringMode, "__torch_function__", counted)
    counts = []
    for buffers in (0, 9):
        model = nn.Linear(3, 1)
        for number in range(buffers):
            model.register_buffer(f"unused{number}", torch.ones(2))
        watched.clear()
        after("fb", of(lambda model=model: model)).check_gradient(2, "weight")  # type: ignore[misc]
        counts.append(len(watched))
    assert counts[0] == counts[1]


def test_a_teacher_that_is_none_of_the_models_is_held_still_and_left_as_it_was() -> None:
    model, x = nn.Linear(3, 2), torch.rand(6, 3)
    teacher = copy.deepcopy(model).requires_grad_(requires_grad=False)

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            torch._foreach_lerp_(list(teacher.parameters()), list(model.parameters()), 0.5)
        return F.mse_loss(model(x).tanh(), teacher(x))

    session = open_session(Scenario("teacher", lambda options: Parts(model=model, batch=lambda i: x, forward=forward)))
    list(session.run_all("fb lr=1 sz fb"))
    before = copied(dict(teacher.named_parameters()))
    check = session.check_gradient(session.frame.index, "weight")
    assert (check.verdict, len(check.held_still)) == ("agrees", 1)
    assert differing(dict(teacher.named_parameters()), before) == []


# Of forwards that ask for less than float64.


def under_autocast(two: Two, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return two.b(F.gelu(two.a(x))).float().square().mean()


@pytest.mark.parametrize(
    ("loss", "casts", "coarsest"),
    [
        (lambda two, x: F.cross_entropy(two.a(x).float(), torch.arange(6) % 4), ["float"], "float32"),
        (lambda two, x: two.a(x).half().float().square().mean(), ["half", "float"], "float16"),
        (lambda two, x: two.a(x).to(torch.bfloat16).to(x).square().mean(), ["to"], "bfloat16"),
        (lambda two, x: two.a(x).to(dtype=torch.float16).type_as(x).square().mean(), ["to"], "float16"),
        (lambda two, x: two.a(x).type("torch.FloatTensor").softmax(1, torch.float32).square().mean(), None, "float32"),
        (
            lambda two, x: (two.a(x) @ torch.tensor([1, 2, 3, 4], dtype=torch.float32)).sin().mean(),
            ["tensor"],
            "float32",
        ),
        (lambda two, x: (two.a(x) * torch.randn(4, dtype=torch.float32)).sin().mean(), None, "float32"),
        (lambda two, x: F.cross_entropy(two.a(x), torch.arange(6) % 4, WEIGHTS), [], "float32"),  # type: ignore[has-type]
        (under_autocast, ["float"], "bfloat16"),
    ],
)
def test_what_asks_for_less_than_float64_gets_it_all_the_same(
    loss: Callable[[Two, Tensor], Tensor], casts: list[str] | None, coarsest: str
) -> None:
    check = checked(loss)
    assert (check.verdict, check.coarsest, check.held_still) == ("agrees", coarsest, ())
    assert casts is None or [cast.partition(" ")[0] for cast in check.casts] == casts
    assert check.autocast == (loss is under_autocast)
    assert check.relative_error < 1e-6


WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 4.0])


def test_operations_are_found_behind_casts_and_a_cast_is_none_to_check() -> None:
    session = after("fb", of(lambda: Two(lambda two, x: two.b(two.a(x).half().float().tanh()).mean())))
    names = [op.name for op in session.trace(1).ops]
    assert names[1:4] == ["half", "float", "tanh"]
    assert {session.check_gradient(2, number).verdict for number in (0, 3, 4)} == {"agrees"}
    assert refused(session, 2, 2) == "float changes dtypes alone, and the copy is in float64: check what went in."


# Of what comes out of operations.


def test_what_comes_out_of_each_operation_of_the_line_is_checked() -> None:
    checks = [after("fb").check_gradient(2, number) for number in range(5)]
    assert [check.name for check in checks] == ["mul 1", "add 2", "sub 3", "pow 4", "mean 5"]
    assert {check.verdict for check in checks} == {"agrees"}
    assert checks[1].numeric == pytest.approx([2, 2 / 3, -2 / 3])
    assert checks[2].numeric == pytest.approx([-2, -2 / 3, 2 / 3])
    assert checks[4].numeric == pytest.approx([1])


def test_an_operation_in_place_is_checked_too() -> None:
    def module() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 1))

    session = after("fb", of(module))
    number = next(op.number for op in session.trace(1).ops if op.mutates)
    check: GradCheck = session.check_gradient(2, number)
    assert check.verdict == "agrees"


def test_a_wrong_backward_is_caught_before_it_and_not_behind_it() -> None:
    session = after("fb", of(Wrong))
    ops = session.trace(1).ops
    behind = next(op.number for op in ops if op.name == "add")
    assert session.check_gradient(2, 0).verdict == "wrong"
    assert session.check_gradient(2, behind).verdict == "agrees"
    opaque = next(op.number for op in ops if op.opaque)
    assert "known by what came out of it alone" in refused(session, 2, opaque)
    assert refused(session, 2, 99) == f"the forward has {len(ops)} operations, and none is number 100."
