from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui import Frame, Session, open_session
from autograd_tui.core.command import Command, Phase
from autograd_tui.core.errors import Refused
from autograd_tui.engine.training.scenario import Parts, Scenario
from autograd_tui.text.batch_table import batch_lines
from autograd_tui.text.explain import explain, step_comment
from autograd_tui.text.styled_text import plain, printable
from calculator import check
from session_internals import state_of
from suite_options import examples

OPTIMIZERS = ["sgd", "sgd,momentum=0.9", "sgd,momentum=0.9,nesterov=true", "adam", "adamw", "rmsprop"]
WORDS = ["f", "b", "s", "z", "F", "B", "S", "Z", "lr=0.05", "lr=0", "w=3", "b[0]=1", "undo", "@2"]


def said(frame: Frame, session: Session) -> str:
    return "\n".join(explain(frame))


def true_loss(session: Session) -> float:
    """Work out, in plain PyTorch, what the loss is for the parameters as they are."""
    params = state_of(session).params
    x = torch.tensor([1.0, 2.0, 3.0])
    with torch.no_grad():
        return float((((4 * x + 1) - (params["w"] * x + params["b"])) ** 2).mean())


def check_age(frame: Frame, session: Session) -> None:
    if frame.loss is None:
        return
    if not frame.loss_is_old:
        assert frame.loss == true_loss(session)
    else:
        assert frame.loss_params is not None
        assert [row.values for row in frame.loss_params] != [row.values for row in frame.params]
    shown = "\n".join(map(plain, batch_lines(frame, session.about, 100)))
    assert ("old" in shown) == frame.loss_is_old


def check_step(frame: Frame, session: Session, before: dict[str, float]) -> None:
    text = said(frame, session)
    after = {name: param.item() for name, param in state_of(session).params.items()}
    grads = {name: param.grad for name, param in state_of(session).params.items()}
    for name, old, sign, rate, grad, new in re.findall(
        r"^  (\w)  (\S+) ([+-]) (\S+) × \(?([^\s()]+)\)? = ([^\s,]+)", text, re.MULTILINE
    ):  # the arithmetic of plain SGD, as printed, is right to the digits printed
        moved = float(old) + (1 if sign == "+" else -1) * float(rate) * float(grad)
        assert moved == pytest.approx(float(new), rel=1e-3, abs=2e-3)
        assert float(new) == pytest.approx(after[name], rel=1e-3, abs=1e-4)
        assert float(old) == pytest.approx(before[name], rel=1e-3, abs=1e-4)
    for name in after:
        gradient = grads[name]
        uphill = gradient is not None and (after[name] - before[name]) * gradient.item() > 0
        line = next((each for each in text.split("\n") if each.startswith(f"  {name}  ")), "")
        assert ("not the way its gradient alone" in line) == (uphill and bool(line))
    if "moved nothing" in text or "no parameter has changed" in text:
        assert after == before or all(gradient is None for gradient in grads.values())


def check_backward(frame: Frame, session: Session) -> None:
    for name, value in re.findall(r"  (\w)\.grad.* = ([+-][\d.e+-]+)(?::|$)", said(frame, session), re.MULTILINE):
        gradient = state_of(session).params[name].grad
        assert gradient is not None
        assert float(value) == pytest.approx(gradient.item(), rel=1e-3, abs=1e-4)
    for name, number, terms in re.findall(r"  (\w)\.grad = 2/(\d) × \((.*)\)", said(frame, session)):
        gradient = state_of(session).params[name].grad
        assert gradient is not None
        total = 2 / int(number) * eval(terms.replace("×", "*"))
        assert total == pytest.approx(gradient.item(), rel=5e-3, abs=2e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@examples(25)
@given(words=st.lists(st.sampled_from(WORDS), min_size=4, max_size=30))
def test_every_number_and_age_is_that_of_plain_pytorch(optimizer: str, words: list[str]) -> None:
    session = open_session("linear", optimizer=optimizer)
    for word in words:
        before = {name: param.item() for name, param in state_of(session).params.items()}
        try:
            frame = session.run(word)
        except Refused:
            continue
        assert said(frame, session)
        check(said(frame, session))  # what has = comes out on a calculator
        check_age(frame, session)
        if word in ("s", "S") and not frame.error:
            check_step(frame, session, before)
        if word in ("b", "B") and not frame.error:
            check_backward(frame, session)


def test_the_forward_shows_the_mean_of_the_squares() -> None:
    session = open_session()
    assert "(9 + 1 + 1) / 3 = 3.6667" in said(session.run("f"), session)


def test_the_backward_shows_the_chain_rule_in_numbers() -> None:
    session = open_session()
    *_, frame = session.run_all("fb")
    text = said(frame, session)
    assert "w.grad = 2/3 × (3×1 + 1×2 - 1×3) = +1.3333: raising w raises the loss" in text
    assert "b.grad = 2/3 × (3 + 1 - 1) = +2.0000" in text


def test_momentum_may_move_a_parameter_another_way_than_its_gradient() -> None:
    session = open_session(momentum=0.9)
    *_, frame = session.run_all("fbsz fbs")
    text = said(frame, session)
    assert "by learning rate × its velocity, v = 0.9 v + grad" in text
    assert "w  1.8667 - 0.1 × 0.4889 = 1.8178, not the way its gradient alone would send it" in text


def test_accumulated_gradients_are_said_to_be_sums() -> None:
    session = open_session()
    *_, frame = session.run_all("fb fb")
    assert "each is the sum of 2 backwards" in said(frame, session)


@pytest.mark.parametrize(("words", "cleared"), [("Z", False), ("fZ", False), ("fbsz Z", False), ("fbz", True)])
def test_zero_grad_says_whether_there_was_anything_to_clear(words: str, cleared: bool) -> None:
    session = open_session()
    *_, frame = session.run_all(words)
    assert ("zero_grad cleared the gradients" in said(frame, session)) == cleared
    assert ("had nothing to clear: each .grad was None already" in said(frame, session)) == (not cleared)


@pytest.mark.parametrize(("words", "first"), [("fbz", "zero_grad cleared"), ("fbzZ", "zero_grad had nothing to clear")])
def test_zero_grad_says_which_gradients_it_does_not_reach(words: str, first: str) -> None:
    def build(_: object) -> Parts:
        model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
        data, groups = (torch.ones(1, 1), torch.zeros(1, 1)), [{"params": model[1].parameters()}]
        return Parts(model=model, batch=lambda i: data, loss=torch.nn.functional.mse_loss, groups=groups)

    session = open_session(Scenario("its head alone", build))
    *_, frame = session.run_all(words)
    assert said(frame, session).startswith(first)
    assert "each .grad that the optimizer holds" in said(frame, session)
    assert "Outside the optimizer 2 parameters still have a gradient" in said(frame, session)
    assert sum(grad is not None for grad in frame.grads) == 2


def test_a_step_without_gradients_is_said_to_move_nothing() -> None:
    session = open_session()
    assert "moved nothing: every gradient is None" in said(session.run("S"), session)


def test_what_pytorch_raised_is_shown_in_its_own_words() -> None:
    session = open_session()
    *_, frame = session.run_all("fbB")
    assert frame.error is not None
    assert frame.error.message.split("\n")[0] in said(frame, session)


def test_a_forward_that_raised_says_how_to_get_past_chance() -> None:
    session = open_session("linear")
    *_, frame = session.run_all("fbB")
    assert "chance" not in said(frame, session)
    forward = replace(frame, command=Command("forward"))
    assert said(forward, session).endswith("it would again: :seed=1 gives it other random numbers.")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "RuntimeError",
            "Expected all tensors to be on the same device, but got cuda:0 and cpu!",
        ),
        ("RuntimeError", "indices should be either on cpu or on the same device as the indexed tensor (cpu)"),
        ("TypeError", "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first."),
    ],
)
def test_a_forward_where_two_devices_meet_says_how_to_train_on_one(kind: str, message: str) -> None:
    session = open_session("linear")
    *_, frame = session.run_all("fbB")
    assert frame.error is not None
    assert "--device" not in said(frame, session)
    error = replace(frame.error, type=kind, message=message)
    words = said(replace(frame, command=Command("forward"), error=error), session)
    assert "start with --device cpu" in words
    assert "chance" not in words


def test_frame_0_asks_which_way() -> None:
    session = open_session()
    assert "Which way should w and b move, and who decides?" in said(session.frame, session)


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, "adagrad", "adadelta", "adamax", "nadam", "radam", "rprop", "asgd"])
def test_no_optimizer_but_plain_sgd_claims_learning_rate_times_gradient(optimizer: str) -> None:
    session = open_session(optimizer=optimizer)
    *_, frame = session.run_all("fbs")
    assert ("learning rate × its gradient, in the downhill direction" in said(frame, session)) == (optimizer == "sgd")


def test_a_summed_gradient_makes_no_claim_about_the_loss() -> None:
    session = open_session()
    *_, frame = session.run_all("fbs fb")
    assert "raises" not in said(frame, session)
    assert "lowers" not in said(frame, session)


@examples(50)
@given(
    w=st.floats(-9, 9, width=32),
    b=st.floats(-9, 9, width=32),
    lr=st.floats(1e-6, 0.2),
    optimizer=st.sampled_from(["sgd", "sgd,momentum=0.9"]),
)
def test_arithmetic_comes_out_on_a_calculator(w: float, b: float, lr: float, optimizer: str) -> None:
    session = open_session("linear", optimizer=optimizer, lr=lr)
    texts = [said(frame, session) for frame in session.run_all(f"w={w} b={b} fbs fb s z fbs")]
    exactly, nearly = check("\n".join(texts))
    assert exactly > nearly


def test_digits_are_added_until_arithmetic_comes_out() -> None:
    session = open_session("linear")
    *_, frame = session.run_all("fbsz fb")
    assert "w.grad = 2/3 × (2.6667×1 + 0.5333×2 - 1.6×3) = -0.7111" in said(frame, session)
    *_, frame = session.run_all("z lr=0.123456789 fb s")
    assert "w  1.8667 + 0.1235 × 0.7111 = 1.9545" in said(frame, session)


@pytest.mark.parametrize("words", ["fbsS", "fb w=3 s", "fb fb s", "w=nan fbs", "fb b=-10 F S", "fbs fb S", "fb F s"])
def test_a_step_that_may_go_uphill_is_not_said_to_go_down(words: str) -> None:
    session = open_session(lr=0.5)
    *_, frame = session.run_all(words)
    assert "downhill direction" not in said(frame, session)


def test_a_step_on_gradients_of_other_parameters_says_so() -> None:
    session = open_session()
    *_, frame = session.run_all("fbsS")
    assert "belong to other parameters" in said(frame, session)


def test_a_step_that_is_too_long_is_not_promised_to_go_down() -> None:
    session = open_session(lr=0.5)
    *_, frame = session.run_all("fbs")
    assert true_loss(session) > 5 > 3.6667
    assert "in the downhill direction:" in said(frame, session)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("fb f", "from before: a backward now adds to them."),
        ("fb w.requires_grad=False f", "from before, and a backward adds to what is not frozen."),
        ("fb requires_grad=False f", "The gradients are from before."),
        ("requires_grad=False f", "This loss has no graph: every parameter is frozen, so a backward would raise."),
    ],
)
def test_a_forward_says_what_a_backward_would_add_to(words: str, sentence: str) -> None:
    session = open_session()
    *_, frame = session.run_all(words)
    assert sentence in said(frame, session)


def test_gradients_are_of_the_forward_that_they_came_from_not_of_the_latest() -> None:
    session = open_session()
    *_, frame = session.run_all("fb b=-10 F S")
    assert "The gradients belong to other parameters: this need not be downhill." in said(frame, session)
    *_, frame = session.run_all("z b=6 fb b=1 b=6 s")  # there again
    assert "other parameters" not in said(frame, session)
    *_, frame = session.run_all("F B S")
    assert "Some gradients belong to other parameters" in said(frame, session)


@examples(60)
@given(words=st.lists(st.sampled_from(["f", "b", "s", "z", "F", "B", "S", "b=-10", "w=3", "fbs"]), max_size=12))
def test_downhill_is_said_only_where_a_short_step_lowers_the_loss(words: list[str]) -> None:
    session = open_session(lr=1e-4)
    for word in [*words, "S"]:
        try:
            before = true_loss(session)
            *_, frame = session.run_all(word)
        except Refused:
            continue
        if frame.phase is Phase.STEP and "downhill direction" in said(frame, session):
            assert true_loss(session) < before


def test_where_every_gradient_is_0_no_digits_are_to_blame() -> None:
    session = open_session()
    *_, frame = session.run_all("w=4 b=1 fbs")
    assert "no parameter has changed: the gradients are exactly 0." in said(frame, session)
    *_, frame = session.run_all("z optimizer=adam fbs")
    assert "exactly 0, and the rest of the rule moves nothing." in said(frame, session)
    *_, frame = session.run_all("z optimizer=sgd,lr=1e-12 w=3 fbs")
    assert "too little for their digits to hold" in said(frame, session)
    *_, frame = session.run_all("z lr=0.1 w=nan b=nan fbs")
    assert "too little" not in said(frame, session)


def test_a_gradient_of_0_is_written_with_the_formula_of_its_own_parameter() -> None:
    session = open_session()
    *_, frame = session.run_all("w=4 b=1 fb")
    assert "w.grad = 2/3 × (0×1 + 0×2 + 0×3) = +0.0000: flat here" in said(frame, session)
    assert "b.grad = 2/3 × (0 + 0 + 0) = +0.0000: flat here" in said(frame, session)


@examples(40)
@given(w=st.integers(-3, 6), b=st.integers(-3, 6))
def test_a_formula_is_written_for_the_parameter_that_it_is_of(w: int, b: int) -> None:
    session = open_session()
    *_, frame = session.run_all(f"w={w} b={b} fb")
    assert "×" not in re.sub("2/3 ×", "", re.search(r"b.grad = .*", said(frame, session))[0])  # type: ignore[index]
    formula = re.search(r"w.grad = (.*) = ", said(frame, session))
    assert formula is None or "×1" in formula[1]


def test_a_gradient_that_a_backward_does_not_reach_is_not_claimed_by_it() -> None:
    session = open_session()
    *_, frame = session.run_all("fb w.requires_grad=False fb")
    text = said(frame, session)
    assert "gradient of the loss for 1 parameter." in text
    assert "w.grad" not in text
    assert "w: not reached by this backward" in text


def test_a_gradient_of_parameters_that_have_moved_says_where_it_was_measured() -> None:
    session = open_session()
    *_, frame = session.run_all("f w=9 b=9 b")
    assert "raises the loss, where it was measured" in said(frame, session)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("b.requires_grad=True", "b was not frozen: nothing has changed."),
        ("requires_grad=True", "No parameter was frozen: nothing has changed."),
        ("b.requires_grad=False", "b is frozen: no backward"),
        ("b.requires_grad=False b.requires_grad=False", "b was frozen already: nothing has changed."),
        ("b.requires_grad=False b.requires_grad=True", "b is frozen no longer"),
        ("requires_grad=False w.requires_grad=True w.requires_grad=True", "w was not frozen"),
    ],
)
def test_what_was_never_frozen_is_not_said_to_be_so_no_longer(words: str, sentence: str) -> None:
    session = open_session()
    *_, frame = session.run_all(words)
    assert sentence in said(frame, session)


def test_freezing_speaks_of_the_gradient_of_what_it_froze_alone() -> None:
    session = open_session()
    *_, frame = session.run_all("w.requires_grad=False fb b.requires_grad=False")
    assert "A gradient that is there already stays" in said(frame, session)
    *_, frame = session.run_all("w.requires_grad=True requires_grad=False")
    assert "A gradient that is there" not in said(frame, session)


def test_a_scheduler_that_lowers_the_rate_is_named() -> None:
    session = open_session(decay="plateau:0.5:1", lr=0.6)
    *_, frame = session.run_all("fbsz*2 fbs")
    assert "scheduler changed the learning rate from 0.6 to 0.3" in said(frame, session)


def test_escape_sequences_of_an_error_never_reach_the_screen() -> None:
    assert printable("boom \x1b[31mred\x1b[0m\x07") == "boom red"


def test_a_backward_that_is_added_shows_the_addition() -> None:
    session = open_session("linear")
    *_, frame = session.run_all("fb fb")
    text = said(frame, session)
    assert "w.grad = 1.33333 + 1.33333 = +2.6667: a sum of 2" in text
    *_, frame = session.run_all("s fb")
    assert frame.added_to is not None
    before, after = frame.added_to[0].values[0], frame.grads[0].values[0]
    shown = re.search(r"w.grad = ([\d.]+) - ([\d.]+) = (\S+): a sum of 3", said(frame, session))
    assert shown is not None
    assert [*map(float, shown.groups())] == pytest.approx([before, before - after, after], abs=1e-4)
    *_, frame = session.run_all("z fb")
    assert frame.added_to is None


def test_a_loss_whose_squares_are_too_large_to_add_up_is_explained() -> None:
    def parts(options: object) -> Parts:
        x = torch.tensor([[1.0], [1.0]], dtype=torch.float64)
        return Parts(
            model=torch.nn.Linear(1, 1, bias=False, dtype=torch.float64),
            batch=lambda i: (x, x * 1.3e154),
            loss=torch.nn.functional.mse_loss,
        )

    session = open_session(Scenario("huge", parts))
    assert "the loss inf" in said(session.run("f"), session)


WORKED = {  # the last rows of the second step, as a calculator has them
    "sgd,momentum=0.9": [
        "    w  v = 0.9 × 1.3333 - 0.7111 = 0.4889",
        "  w  1.8667 - 0.1 × 0.4889 = 1.8178, not the way its gradient alone would send it",
    ],
    "sgd,weight_decay=0.1": [
        "    w  g = grad + weight_decay × w = -1.1378 + 0.1 × 1.8467 = -0.9531",
        "  w  1.8467 - 0.1 × (-0.9531) = 1.9420",
    ],
    "adamw": [
        "    w  w = w × (1 - lr × weight_decay) = 1.898 × (1 - 0.1 × 0.01) = 1.8961",
        "  w  1.8961 - 0.1 × 0.6091 / sqrt(0.8894) = 1.8315, not the way its gradient alone would send it",
    ],
    "rmsprop": [
        "    w  s = 0.99 × 0.01778 + 0.01 × (-12)^2 = 1.4576",
        "  w  1 - 0.1 × (-12) / sqrt(1.4576) = 1.9939",
    ],
}


@pytest.mark.parametrize("optimizer", WORKED)
def test_the_arithmetic_of_the_second_step_is_worked_in_numbers(optimizer: str) -> None:
    session = open_session("linear", optimizer=optimizer)
    *_, frame = session.run_all("fbszfbs")
    lines = explain(frame)
    assert [line for line in WORKED[optimizer] if line not in lines] == []
    check("\n".join(lines))


def test_what_adam_has_before_a_step_is_that_of_the_iteration_before_after_a_free_run_too() -> None:
    session, stepped = open_session("linear", optimizer="adam"), open_session("linear", optimizer="adam")
    for _ in session.run_free(session.end_of(40), lambda: False, every=60):
        pass
    *_, frame = session.run_all("fbs")
    *_, same = stepped.run_all("fbsz*40 fbs")
    assert explain(frame) == explain(same)
    assert sum(line.startswith("    ") for line in explain(frame)) == 8
    assert explain(session.look(39 * 4 + 3)) == explain(stepped.look(39 * 4 + 3))


def test_an_optimizer_whose_formula_gives_other_numbers_shows_none() -> None:
    session = open_session("linear", optimizer="adam")
    *_, frame = session.run_all("fbs")
    odd = replace(frame, step_rate=0.2)  # as if the formula had it wrong
    assert not any("sqrt" in line for line in explain(odd))
    assert "  w  2.0000 → 1.9000" in explain(odd)


def test_the_comment_beside_the_step_leaves_no_option_out() -> None:
    frame = open_session("linear", optimizer="sgd,momentum=0.9,nesterov=true").frame
    comments = {step_comment(frame, room) for room in range(80)}
    assert comments == {
        "# SGD, momentum 0.9, nesterov true, lr 0.1",
        "# momentum 0.9, nesterov true, lr 0.1",
        "# SGD, momentum 0.9, nesterov true",
        "",
    }
    adam = open_session("linear", optimizer="adam,betas=(0.8,0.9)").frame
    assert step_comment(adam, 80) == "# Adam, betas (0.8,0.9), lr 0.1"


def test_only_what_was_frozen_is_said_to_be_so_no_longer() -> None:
    session = open_session("linear")
    session.run("b.requires_grad=False")
    assert said(session.run("requires_grad=True"), session).startswith("b is frozen no longer:")
    assert said(session.run("b.requires_grad=True"), session) == "b was not frozen: nothing has changed."
