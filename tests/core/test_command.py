from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.command import MAX_COMMANDS, Command, Commands, Phase, parse, parse_one
from autograd_tui.core.errors import UnknownCommand
from command_strategies import commands

WORDS = "fbsz*3 zero_grad F*2 lr=1e-05 w=3 b[0]=.5 0.weight[1,2]=-1 optimizer=sgd,lr=0.1,betas=(0.9,0.999) @40 undo"


@given(st.lists(commands, max_size=8))
def test_commands_printed_and_parsed_are_the_same_commands(listed: list[Command]) -> None:
    assert parse(" ".join(map(str, listed))) == listed


@given(commands)
def test_a_command_is_printed_without_blanks(command: Command) -> None:
    assert len(str(command).split()) == 1


def read(text: str) -> list[Command] | UnknownCommand:
    try:
        return parse(text)  # type: ignore[return-value]
    except UnknownCommand as error:
        return error


def is_one_sentence(error: UnknownCommand) -> bool:
    return str(error).endswith(".") and "\n" not in str(error)


@given(st.text(max_size=40) | st.text("fbszFBSZ*0123456789.,=@()[]-+e lrwundoptimizer", max_size=40))
def test_any_text_is_commands_or_not_understood_in_one_sentence(text: str) -> None:
    answer = read(text)
    assert isinstance(answer, Commands) or is_one_sentence(answer)  # type: ignore[arg-type]


@given(st.text("fbszFBSZ*0123456789.,=@()[]-+e lrw", max_size=20))
def test_whatever_was_understood_is_understood_again_from_its_own_spelling(text: str) -> None:
    answer = read(text)
    if not isinstance(answer, UnknownCommand):
        some = answer[:1000]
        assert parse(" ".join(map(str, some))) == some


@given(st.data())
def test_a_good_line_with_one_letter_changed_is_commands_or_not_understood(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(WORDS) - 1))
    answer = read(WORDS[:place] + data.draw(st.characters()) + WORDS[place + 1 :])
    assert isinstance(answer, Commands) or is_one_sentence(answer)  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", Phase)
def test_a_phase_is_understood_by_letter_and_by_name(phase: Phase) -> None:
    assert parse(f"{phase.letter} {phase.value}") == [Command(phase.value)] * 2


def test_a_capital_forces_its_phase() -> None:
    assert parse("B") == [Command("backward", forced=True)]


def test_letters_stand_together_and_repeat() -> None:
    assert parse("fB*2") == [Command("forward"), Command("backward", forced=True)] * 2


def test_a_phase_in_full_repeats_too() -> None:
    assert parse("forward*2") == [Command("forward")] * 2


def test_no_words_are_no_commands() -> None:
    assert parse(" \n\t") == []


@pytest.mark.parametrize(
    ("words", "spelling"),
    [
        ("w=3.0", "w=3"),
        ("w=+3", "w=3"),
        ("w=-0.0", "w=-0.0"),
        ("w=1e3", "w=1000"),
        ("w=1e22", "w=1e+22"),
        ("w=inf", "w=inf"),
        ("w=-inf", "w=-inf"),
        ("w=nan", "w=nan"),
        ("b[0]=.5", "b[0]=0.5"),
        ("lr=0.00001", "lr=1e-05"),
        ("forward", "f"),
        ("zero_grad", "z"),
        ("F", "F"),
        ("@007", "@7"),
        ("undo", "undo"),
        ("optimizer=ADAM", "optimizer=adam"),
    ],
)
def test_every_command_has_one_spelling(words: str, spelling: str) -> None:
    assert str(parse_one(words)) == spelling


def test_nan_is_read_as_nan() -> None:
    value = parse_one("w=nan").value
    assert isinstance(value, float)
    assert math.isnan(value)


@pytest.mark.parametrize(
    "word",
    [
        "x",
        "f*",
        "f*-1",
        "fx",
        "*3",
        "=3",
        "w=",
        "w=three",
        "w=1_000",
        "w[=3",
        "w[]=3",
        "w[-1]=3",
        "a-b=3",
        ".w=3",
        "lr==1",
        "@",
        "@-1",
        "@1.5",
        "@" + "9" * 16,
        "undo*2",
        "forward=3",
        "step=3",
        "undo=3",
        "optimizer=",
        "optimizer=1",
        "b[" + "9" * 5000 + "]=1",
    ],
)
def test_a_word_without_meaning_is_named(word: str) -> None:
    with pytest.raises(UnknownCommand) as caught:
        parse(f"f {word} f")
    assert word in str(caught.value)


@pytest.mark.parametrize("times", [str(MAX_COMMANDS), "9" * 5000])
def test_more_commands_than_the_limit_are_refused(times: str) -> None:
    with pytest.raises(UnknownCommand, match="more than 1,000,000,000,000 commands"):
        parse(f"f fbsz*{times}")


def test_the_limit_counts_all_words_together() -> None:
    with pytest.raises(UnknownCommand, match="more than 1,000,000,000,000 commands"):
        parse(f"f*{MAX_COMMANDS - 1} fb")


@pytest.mark.parametrize("text", ["", "fb", "f f"])
def test_parse_one_wants_exactly_one(text: str) -> None:
    with pytest.raises(UnknownCommand, match="one command is wanted"):
        parse_one(text)


def test_only_phases_have_a_phase() -> None:
    assert [command.phase for command in parse("f lr=1 undo @0")] == [Phase.FORWARD, None, None, None]


def test_commands_that_repeat_take_no_room_and_can_be_indexed() -> None:
    commands = parse("fbsz*1000000000 lr=1") * 2
    assert len(commands) == 8_000_000_002
    assert str(commands[4_000_000_000]) == "lr=1"
    assert [str(command) for command in commands[-3:]] == ["s", "z", "lr=1"]


@given(st.lists(st.sampled_from(["fbsz*3", "f", "lr=0.5", "bs*2", "@3", "undo"])), st.integers(0, 3))
def test_commands_are_the_list_they_stand_for(words: list[str], times: int) -> None:
    commands = parse(" ".join(words)) * times
    listed = [command for word in words for command in list(parse(word))] * times
    assert list(commands) == listed
    assert [commands[place] for place in range(len(commands))] == listed
