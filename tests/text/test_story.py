from __future__ import annotations

from autograd_tui.engine.open_session import open_session
from autograd_tui.text.story import story


def told(do: str, scenario: str = "linear", **options: str) -> list[tuple[str, str]]:
    """Return what the story of the last frame is, with the styles."""
    session = open_session(scenario, **options)  # type: ignore[arg-type]
    for _ in session.run_all(do):
        pass
    return story(session.frame, session.history, session.surface())


def test_the_first_backward_answers_why_w_goes_down() -> None:
    assert told("fb") == [
        ("With b at 6 the best w is 1.857, below 2: w goes down, away from 4, its best in the end.", "strong")
    ]


def test_the_third_one_says_why_it_rises_again() -> None:
    assert told("fbsz*2 fb") == [("With b at 5.693 the best w is 1.989, above 1.938: w goes up.", "strong")]


def test_a_forward_compares_its_loss_with_the_one_before() -> None:
    assert told("f") == []
    assert told("fbszf") == [("The loss before it was 3.6667: down 9.5 %.", "")]


def test_a_loss_that_rose_is_red_and_names_the_critical_learning_rate() -> None:
    sentences = told("lr=0.19 fbsz*30 f")
    assert [style for _, style in sentences] == ["error", "error"]
    assert ": up " in sentences[0][0]
    assert sentences[1][0] == "lr 0.19 is too large: above 0.1803 this loss diverges. l sets another."


def test_it_is_named_before_the_loss_rises() -> None:
    assert told("lr=0.19 fbsz*2")[1] == (
        "lr 0.19 is too large: above 0.1803 this loss diverges. l sets another.",
        "warn",
    )


def test_below_the_critical_learning_rate_no_sentence_says_that_it_is_too_large() -> None:
    for do in ("lr=0.18 fbsz*5 f", "lr=0.18 fbsz*30"):
        assert not any("too large" in sentence for sentence, _ in told(do))


def test_momentum_moves_the_critical_learning_rate() -> None:
    assert not any("too large" in sentence for sentence, _ in told("lr=0.19 fbsz*5", optimizer="sgd,momentum=0.5"))


def test_of_adam_no_critical_learning_rate_is_known() -> None:
    for count in range(1, 12):
        sentences = told(f"lr=3 fbsz*{count} f", optimizer="adam")
        assert not any("diverges" in sentence for sentence, _ in sentences)


def test_the_end_of_an_iteration_says_what_it_brought() -> None:
    assert told("fbsz*2") == [
        ("Iteration 2: loss 3.6667 → 3.3185, down 9.5 %, w +0.0711, b -0.1067.", "strong"),
    ]


def test_a_larger_model_tells_the_loss_alone() -> None:
    ((sentence, _),) = told("fbsz*2", "spiral")
    assert sentence.startswith("Iteration 2: loss ")
    assert "weight" not in sentence
