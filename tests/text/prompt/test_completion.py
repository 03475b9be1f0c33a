from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from autograd_tui import Frame
from autograd_tui.core.errors import Refused
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.core.run_config import BUILT_IN
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.optimizers import make_optimizer, optimizer_classes
from autograd_tui.text.optimizer_words import OPTIMIZER_NAMES
from autograd_tui.text.prompt.completion import (
    OPTIMIZER_LINES,
    OPTION_LINES,
    Candidate,
    complete,
    completion_heading,
    with_candidate,
)
from autograd_tui.text.prompt.parser import FIRST_WORDS, parse_prompt
from autograd_tui.text.prompt.word_table import WORDS
from handmade_frames import frame, table

SHOWN = frame(5, "f", params=table(w=[2.0], bias=[0.5, -1.0], large=[0.0] * 17), iteration=2)
THEMES = ("light", "nord")
NEEDED = 58 - 4  # columns inside the list on a screen of 60, without the mark and the gap
STARTS = ["", "fbsz ", "lr=0.1 f "]


def offered(text: str, shown: Frame | None = SHOWN) -> list[Candidate]:
    return complete(text, shown, newest=9, themes=THEMES, models=BUILT_IN | {"mine.py": "your own"})


def words(text: str, shown: Frame | None = SHOWN) -> list[str]:
    return [each.word for each in offered(text, shown)]


TYPED = [*FIRST_WORDS, "lr=1e-3", "optimizer=sgd,momentum=0.9,", "optimizer=adam,betas=(0.9,", "@3", "w=", "bias[0]=2"]
TYPED += ["sort update", "theme nord", "model mine.py", "run loss<0.01", "speed full"]


@given(st.sampled_from(STARTS), st.sampled_from(TYPED), st.integers(0, 40))
def test_every_candidate_is_understood_or_the_beginning_of_what_is(start: str, typed: str, length: int) -> None:
    text = start + typed[:length]
    for candidate in offered(text):
        if candidate.goes_on:
            assert candidate.word.endswith(("=", " "))
        else:
            parse_prompt(with_candidate(text, candidate) if not start or " " not in typed else candidate.word)


@given(st.sampled_from(STARTS), st.sampled_from(TYPED), st.integers(0, 40))
def test_a_candidate_goes_on_from_what_is_typed(start: str, typed: str, length: int) -> None:
    text = start + typed[:length]
    assert all(with_candidate(text, candidate).startswith(text) for candidate in offered(text))


@given(st.text(max_size=60) | st.sampled_from(TYPED))
def test_any_text_has_candidates_or_none(text: str) -> None:
    assert isinstance(offered(text), list)
    assert completion_heading(text, SHOWN)
    assert isinstance(offered(text, None), list)


@pytest.mark.parametrize(
    "text", ["", "lr=", "optimizer=", "sort ", "theme ", "model ", "run ", "speed ", "export ", "help ", "@"]
)
def test_every_line_fits_on_a_small_screen(text: str) -> None:
    longest = max(len(each.label) for each in offered(text))
    assert all(each.line and longest + len(each.line) <= NEEDED for each in offered(text))
    assert len(completion_heading(text, SHOWN)) <= NEEDED + 2


@pytest.mark.parametrize("name", OPTION_LINES)
def test_every_line_about_an_option_fits_on_a_small_screen(name: str) -> None:
    options = offered(f"optimizer={name},momentum=0.9,")
    longest = max(len(each.label) for each in options)
    assert all(longest + len(each.line) <= NEEDED for each in options)


def test_an_empty_prompt_offers_every_kind_of_word() -> None:
    kinds = words("")
    assert {"fbsz", "lr=", "optimizer=", "w=", "@0", "undo"} <= set(kinds)
    assert {spelling for word in WORDS.values() for spelling in word.offered} - {"branch="} <= set(kinds)


def test_behind_a_command_only_commands_are_offered() -> None:
    assert "lr=" in words("fbsz ")
    assert "quit" not in words("fbsz ")


def test_every_word_is_offered_once_it_is_begun() -> None:
    for word in FIRST_WORDS:
        assert word == "/" or word in [each.strip() for each in words(word[:-1])]


def test_what_is_typed_in_full_comes_first() -> None:
    assert words("f")[0] == "f"
    assert words("optimizer=adam")[0] == "optimizer=adam"
    assert words("step")[0] == "step"


def test_learning_rates_are_offered_with_the_usual_one_named() -> None:
    lines = {each.label: each.line for each in offered("lr=")}
    assert list(lines) == ["1e-1", "1e-2", "1e-3", "1e-4", "1e-5"]
    assert lines["1e-3"] == "the usual one to begin with"
    assert "now 0.1" in completion_heading("lr=", SHOWN)


def test_the_optimizers_offered_are_all_that_can_be_stepped() -> None:
    names = {each.label for each in offered("optimizer=")}
    assert names == set(optimizer_classes()) - {"lbfgs"}  # a closure
    assert names == set(OPTIMIZER_LINES) == set(OPTIMIZER_NAMES) == set(OPTION_LINES)


@pytest.mark.parametrize("name", sorted(OPTIMIZER_LINES))
def test_pytorch_takes_every_option_that_is_offered(name: str) -> None:
    for start in ("", "momentum=0.9,") if name in ("sgd", "rmsprop", "muon") else ("",):
        for word in words(f"optimizer={name},{start}"):
            spec = OptimizerSpec.parse(word.removeprefix("optimizer="))
            assert make_optimizer(spec, [{"params": [nn.Parameter(torch.ones(2, 2))]}])


def test_nesterov_is_offered_once_there_is_momentum() -> None:
    assert "optimizer=sgd,nesterov=true" not in words("optimizer=sgd,")
    assert "optimizer=sgd,momentum=0.9,nesterov=true" in words("optimizer=sgd,momentum=0.9,n")
    with pytest.raises(Refused):
        make_optimizer(OptimizerSpec.parse("sgd,nesterov=true"), [{"params": [nn.Parameter(torch.ones(2))]}])


def test_an_option_that_is_set_is_not_offered_again() -> None:
    assert not [word for word in words("optimizer=sgd,lr=0.5,") if word.count("lr=") > 1]


def test_a_comma_in_brackets_begins_no_option() -> None:
    assert words("optimizer=adam,betas=(0.9,") == ["optimizer=adam,betas=(0.9,0.999)"]


def test_parameters_of_up_to_sixteen_values_are_offered() -> None:
    assert words("b") == ["b", "bias[0]=", "bias[1]=", "backward"]
    assert words("w") == ["w=", "watch "]
    assert words("la") == []


def test_a_parameter_is_offered_the_value_that_it_has() -> None:
    assert [(each.label, each.line) for each in offered("bias[1]=")] == [("-1", "as it is now"), ("0", "zero")]


def test_values_offered_set_just_what_is_there() -> None:
    session = open_session("linear")
    *_, last = session.run_all("fbs")
    for name in ("w", "b"):
        word = words(f"{name}=", last)[0]
        assert session.run(word).params.named(name) == last.params.named(name)


def test_frames_that_mean_something_are_offered() -> None:
    session = open_session("linear")
    *_, last = session.run_all("fbsz*3 ffb")
    found = complete("@", last, newest=session.newest, history=session.history)
    assert [(each.word, each.line) for each in found] == [
        ("@0", "the first: before any command"),
        ("@12", "the start of this iteration"),
        ("@14", "the one before"),
        ("@15", "the newest"),
    ]


def test_values_of_words_for_the_screen_are_offered() -> None:
    assert words("sort u") == ["update"]
    assert words("theme n") == ["nord"]
    assert words("model ") == [*BUILT_IN, "mine.py"]
    assert words("model linear ") == []
    assert words("quit ") == []
