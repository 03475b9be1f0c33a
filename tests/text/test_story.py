from __future__ import annotations

import re
from array import array
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.loss_surface import COLUMNS, ROWS
from autograd_tui.engine import surface_sampler
from autograd_tui.engine.open_session import open_session
from autograd_tui.text.story import both_losses, change_of_loss, story
from session_internals import state_of
from suite_options import examples

NOISY = """
import torch
from torch import nn
from autograd_tui import Options, Parts, scenario

@scenario("noisy")
def build(options):
    def batch(i):
        x = torch.rand(8, 1, generator=torch.Generator().manual_seed(i))
        return x, 3 * x + torch.randn(8, 1, generator=torch.Generator().manual_seed(i))
    return Parts(model=nn.Linear(1, 1), batch=batch, loss=nn.functional.mse_loss, optimizer="sgd,lr=0.05")
"""


@pytest.fixture(autouse=True)
def without_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure where the loss is lowest, which a story is told from, and not the map around it."""
    monkeypatch.setattr(surface_sampler, "_grid", lambda *_: array("d", [0.0]) * (ROWS * COLUMNS))


def told(do: str, scenario: str = "linear", **options: str) -> list[tuple[str, str]]:
    """Return what the story of the last frame is, with the styles."""
    session = open_session(scenario, **options)  # type: ignore[arg-type]
    for _ in session.run_all(do):
        pass
    sentences = story(session.frame, session.history, session.surface())
    return [(text.replace("\N{NO-BREAK SPACE}", " "), style) for text, style in sentences]


def test_a_rise_is_no_fault_where_the_optimizer_goes_uphill() -> None:
    uphill = "sgd,lr=0.1,maximize=True"
    assert not [sentence for sentence, _ in told("fb", optimizer=uphill) if "sends" in sentence]
    assert told("fbsz f", optimizer=uphill) == [("Loss 3.6667 → 4.4741: up 22.0 %.", "strong")]
    assert {style for _, style in told("fbsz f bsz", optimizer=uphill)} == {"strong"}


def test_no_direction_is_told_where_there_is_none() -> None:
    for value in ("nan", "inf", "-inf", "1e38"):
        assert not [sentence for sentence, _ in told(f"w={value} fb") if "sends" in sentence]


def test_the_first_backward_answers_why_w_goes_down() -> None:
    assert told("fb") == [
        (
            "With b at 6 w is best at 1.857: the gradient sends w down, though 4 is best in the end.",
            "strong",
        )
    ]


def test_the_third_one_says_why_it_rises_again() -> None:
    (sentence,) = told("fbsz*2 fb")
    assert sentence == ("With b at 5.693 w is best at 1.989: the gradient sends w up.", "strong")


def test_a_forward_compares_its_loss_with_the_one_before() -> None:
    assert told("f") == []
    assert told("fbszf") == [("Loss 3.6667 → 3.3185: down 9.5 %.", "strong")]


def test_a_loss_that_rose_says_what_made_it_rise_and_what_to_press() -> None:
    session, rises = open_session("linear", momentum=0.9), 0
    for frame in session.run_all("fbsz*60"):
        sentences = story(frame, session.history, session.surface())
        if frame.phase == "forward" and len(sentences) == 2:
            rises += 1
            assert re.fullmatch(r"Loss .* up.*: the step before went too far\.", sentences[0][0])
            assert sentences[1] == ("l sets a smaller learning rate, u undoes the step.", "error")
            assert sentences[0][1] == "error"
    assert rises
    assert told("fbsz w=9 f") == [("Loss 3.6667 → 235.7067: up 64-fold.", "error")]


def test_of_other_data_nothing_is_said_to_go_too_far(tmp_path: Path) -> None:
    source = tmp_path / "noisy.py"
    source.write_text(NOISY)
    session = open_session(str(source))
    rises = 0
    for frame in session.run_all("fbsz*40"):
        for sentence, _ in story(frame, session.history, session.surface()):
            rises += "up" in sentence
            assert "too far" not in sentence
            assert "diverges" not in sentence
    assert rises


def test_a_forward_run_again_is_not_said_to_lie_behind_a_step() -> None:
    assert told("fbsz f f") == [("Loss 3.3185 → 3.3185: the same, with no step between.", "strong")]


def test_what_a_plot_no_longer_keeps_is_not_taken_for_the_loss_before() -> None:
    session = open_session("linear", lr=0.001)
    session.history.loss.capacity = 400
    for _ in session.run_free(session.end_of(1000), lambda: False, every=60):
        pass
    assert len(session.history.loss) < 400
    told_since = 0
    seen = [4 * each for each in session.history.loss.iterations[100:200:9]]
    for index in seen:
        frame = session.look(index)
        for sentence, _ in story(frame, session.history, session.surface()):
            before, since = re.search(r"loss (\S+) →", sentence), re.search(r"since iteration (\d+)", sentence)
            earlier = int(since[1]) if since else frame.iteration - 1
            told_since += bool(since)
            loss = session.look(4 * earlier).loss
            assert loss is not None
            assert not before or abs(float(before[1]) - loss) <= 5e-5
    assert told_since > 3


def test_a_history_that_lags_behind_is_not_compared() -> None:
    session = open_session("linear")
    for _ in session.run_all("fbsz*5"):
        pass
    old = session.history.copy()
    for _ in session.run_all("fbsz*5"):
        pass
    ((sentence, _),) = story(session.frame, old, None)
    assert "→" not in sentence
    assert f"loss {session.frame.loss:.4f}" in sentence


def test_after_a_backward_that_adds_nothing_is_said_about_one_gradient() -> None:
    assert told("fbsz fb s fb") == []
    assert told("w.requires_grad=False fb") == []


def test_a_loss_that_rose_is_red_and_names_the_critical_learning_rate() -> None:
    sentences = told("lr=0.19 fbsz*30 f")
    assert [style for _, style in sentences] == ["error", "error"]
    assert ": up " in sentences[0][0]
    assert sentences[1][0] == "Above lr 0.1803 this loss diverges: press l."


def test_it_is_named_as_soon_as_it_is_set() -> None:
    assert told("f lr=0.181")[0][0].startswith("Above lr 0.1803 this loss diverges")
    assert told("f lr=0.18") == []


def test_it_is_named_before_the_loss_rises() -> None:
    assert told("lr=0.19 fbsz*2")[1] == ("Above lr 0.1803 this loss diverges: press l.", "warn")


def test_below_the_critical_learning_rate_no_sentence_says_that_it_is_too_large() -> None:
    for do in ("lr=0.18 fbsz*5 f", "lr=0.18 fbsz*30"):
        assert not any("diverges" in sentence for sentence, _ in told(do))


def test_momentum_moves_the_critical_learning_rate() -> None:
    assert not any("diverges" in sentence for sentence, _ in told("lr=0.19 fbsz*5", optimizer="sgd,momentum=0.5"))
    for momentum in (0.5, 0.9):
        critical = 0.180292 * (1 + momentum)
        for factor, diverges in ((0.99, False), (1.01, True)):
            session = open_session("linear", optimizer=f"sgd,momentum={momentum}", lr=factor * critical)
            for _ in session.run_free(session.end_of(1000), lambda: False, every=60):
                pass
            assert (session.frame.loss is None or not session.frame.loss < 1) == diverges
            sentences = told(f"lr={factor * critical} fbsz*5", optimizer=f"sgd,momentum={momentum}")
            assert any("diverges" in sentence for sentence, _ in sentences) == diverges


def test_of_adam_no_critical_learning_rate_is_known() -> None:
    for count in range(1, 12):
        sentences = told(f"lr=3 fbsz*{count} f", optimizer="adam")
        assert not any("diverges" in sentence for sentence, _ in sentences)


def test_the_end_of_the_first_iteration_says_its_loss() -> None:
    assert told("fbsz") == [("Iteration 1: loss 3.6667, w -0.1333, b -0.2000.", "strong")]


def test_an_iteration_in_which_nothing_moved_says_so() -> None:
    ((sentence, _),) = told("lr=0 fbsz*2")
    assert sentence == "Iteration 2: loss 3.6667 → 3.6667, the same, and no parameter has moved."


def test_the_end_of_an_iteration_says_what_it_brought() -> None:
    assert told("fbsz*2") == [
        ("Iteration 2: loss 3.6667 → 3.3185, down 9.5 %, w +0.0711, b -0.1067.", "strong"),
    ]


def test_a_larger_model_tells_the_loss_alone() -> None:
    ((sentence, _),) = told("fbsz*2", "spiral")
    assert sentence.startswith("Iteration 2: loss ")
    assert "weight" not in sentence


def test_layers_are_compared_by_one_value_of_their_gradients() -> None:
    session = open_session("resnet18", image_size=64)
    for _ in session.run_all("fb"):
        pass
    sizes: dict[str, list[torch.Tensor]] = {}
    for name, param in state_of(session).model.named_parameters():
        sizes.setdefault(name.split(".")[0], []).append(param.grad.reshape(-1))  # type: ignore[union-attr]
    rms = {layer: float(torch.cat(grads).square().mean().sqrt()) for layer, grads in sizes.items()}
    large, small = max(rms, key=rms.__getitem__), min(rms, key=rms.__getitem__)
    ((sentence, _),) = story(session.frame, session.history, None)
    assert (
        sentence == f"Per value the gradient is {rms[large] / rms[small]:.0f} times larger in {large} than in {small}."
    )


@pytest.mark.parametrize(
    ("before", "now", "written"),
    [
        (3.6667, 3.3185, "3.6667 → 3.3185"),
        (0.0012834, 0.0012783, "0.001283 → 0.001278"),
        (0.5, 0.50001, "0.50000 → 0.50001"),
        (5.735e-4, 5.463e-4, "5.735e-04 → 5.463e-04"),
        (0.25, 0.25, "0.2500 → 0.2500"),
        (-1.25, -1.5, "-1.2500 → -1.5000"),
    ],
)
def test_two_losses_have_the_digits_that_it_takes_to_tell_them_apart(before: float, now: float, written: str) -> None:
    assert both_losses(before, now) == written


@examples(200)
@given(st.floats(2**-20, 2**20, width=32), st.floats(-0.5, 2.0) | st.floats(-1e-6, 1e-6))
def test_how_far_a_loss_has_changed_can_be_worked_out_from_what_is_written(before: float, share: float) -> None:
    now = float(torch.tensor(before) * (1 + share))
    was, became = map(float, both_losses(before, now).split(" → "))
    assert change_of_loss(was, became) == change_of_loss(before, now)
