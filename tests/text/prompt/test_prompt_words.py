from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.command import Commands, parse
from autograd_tui.core.errors import UnknownCommand, nearest
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.watchpoint import Watchpoint
from autograd_tui.text.prompt.parser import EXAMPLE, OTHER_PROGRAMS, SETTINGS, ScreenCommand, parse_prompt
from autograd_tui.text.prompt.word_table import COMMANDS, SORT_COLUMNS, WORDS, PromptWord, find_word, word_rows

SCREEN_WORDS = [word for word in WORDS.values() if word.group == "screen"]
ALONE = [word.name for word in SCREEN_WORDS if word.read is None]

LIKELY = st.lists(
    st.sampled_from(
        ["lr", "=", "0.1", " ", "run", "loss", "<", "speed", "full", "sort", "model", "quit", "f", "-", "("]
    )
)


def said(text: str) -> str:
    with pytest.raises(UnknownCommand) as caught:
        parse_prompt(text)
    return str(caught.value)


def sentence(text: str) -> str:
    """Give what is said against a text; "" where it is understood."""
    try:
        assert isinstance(parse_prompt(text), (Commands, ScreenCommand))
    except UnknownCommand as error:
        return str(error)
    return ""


@given(st.text(max_size=60) | LIKELY.map("".join))
def test_any_text_is_words_or_not_understood_in_one_sentence(text: str) -> None:
    said = sentence(text)
    assert "\n" not in said
    assert not said or said.endswith(".")


@given(st.sampled_from([word.name for word in SCREEN_WORDS]), st.text(max_size=20))
def test_whatever_stands_behind_a_word_for_the_screen_is_understood_or_not(word: str, text: str) -> None:
    assert "\n" not in sentence(f"{word} {text}")


def test_commands_are_what_they_are_everywhere() -> None:
    assert parse_prompt("fbsz*3 lr=0.01 f") == parse("fbsz*3 lr=0.01 f")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        *((f"sort {column}", ScreenCommand("sort", column)) for column in SORT_COLUMNS),
        ("model resnet18", ScreenCommand("model", "resnet18")),
        ("model models/mine.py:small", ScreenCommand("model", "models/mine.py:small")),
        ("model my model.py", ScreenCommand("model", "my model.py")),
        ("theme light", ScreenCommand("theme", "light")),
        ("run", ScreenCommand("run", Goal())),
        ("run 100", ScreenCommand("run", 100)),
        ("run loss<0.01", ScreenCommand("run", Goal(below=0.01))),
        ("run loss > 1e1", ScreenCommand("run", Goal(above=10.0))),
        ("speed 4", ScreenCommand("speed", 4.0)),
        ("speed 0.5", ScreenCommand("speed", 0.5)),
        ("speed full", ScreenCommand("speed")),
        ("watch", ScreenCommand("watch")),
        ("watch off", ScreenCommand("watch", "off")),
        ("watch loss > 10", ScreenCommand("watch", Watchpoint("bound", "loss", ">", 10.0))),
        ("/ conv1.w", ScreenCommand("/", "conv1.w")),
        ("help", ScreenCommand("help")),
        ("help lr=", ScreenCommand("help", str(WORDS["lr"]))),
        *((word, ScreenCommand(word)) for word in ALONE),
    ],
)
def test_words_for_the_screen_are_read(text: str, word: ScreenCommand) -> None:
    assert parse_prompt(f"  {text} ") == word


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("forwrd", "forward"),
        ("f bakward", "backward"),
        ("FORWARD", "forward"),
        ("zerograd", "zero_grad"),
        ("unod", "undo"),
        ("lr 0.1", "lr=0.1"),
        ("lr = 0.1", "lr=0.1"),
        ("lr =0.1", "lr=0.1"),
        ("w 3", "w=3"),
        ("optimiser=adam", "optimizer=adam"),
        ("optimizer adam", "optimizer=adam"),
        ("optimiser adam", "optimizer=adam"),
        ("fbsz optimizr=sgd,momentum=0.9", "optimizer=sgd,momentum=0.9"),
        ("thme light", "theme"),
        ("exprot", "export"),
        ("sort updat", "update"),
        ("model resnet", "resnet18"),
        ("set lr 0.1", "lr=0.1"),
        ("set lr=0.1", "lr=0.1"),
        ("optimizer.step()", "step"),
        ("run loss<=0.1", "run loss<0.1"),
        ("run loss >= 1e1", "run loss>1e1"),
        ("run until loss<0.1", "run loss<0.1"),
        ("run loss 0.1", "run loss<0.1"),
        ("run 100 iterations", "run 100"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_nearest(text: str, meant: str) -> None:
    assert said(text).endswith(f": the nearest is {meant}.")


@pytest.mark.parametrize(
    "text",
    [
        *("run -1", "run 0", "run 1.5", "run 1e30", "run nan", "run loss<", "run loss<nan", "run loss<=1"),
        *("speed 0", "speed -1", "speed inf", "speed nan", "speed fast", "speed 4 5"),
    ],
)
def test_a_number_that_makes_no_sense_gets_a_sentence_that_quotes_it(text: str) -> None:
    assert f'"{text}"' in said(text)


@pytest.mark.parametrize(
    ("text", "does"),
    [
        ("goto 3", "@3"),
        ("@ 3", "@3"),
        ("3", "@3"),
        ("back", "undo"),
        ("u", "undo"),
        ("reset", "@0"),
        ("restart", "@0"),
        ("step 3", "step*3"),
        ("f b 2", "b*2"),
        ("train 10", "run"),
        ("exit", "quit"),
        ("q", "quit"),
        ("save", "export run.py"),
        ("load mine.py", "model spiral"),
        ("spiral", "model spiral"),
        ("adam", "optimizer=adam"),
        ("dark", "theme dark"),
        ("l", "lr=0.1"),
        ("o adam", "optimizer=adam"),
        ("break loss>3", "watch loss>3"),
        ("freeze w", "w.requires_grad=False"),
        ("?", "help"),
    ],
)
def test_a_word_of_another_program_is_answered_with_what_does_it_here(text: str, does: str) -> None:
    assert said(text).startswith(f'"{text}" is not understood: {does} ')
    assert parse_prompt(does)


def test_several_commands_are_undone_by_a_count() -> None:
    assert "the keys 4u go 4 back" in said("undo 4")


@pytest.mark.parametrize(("words", "told"), [*OTHER_PROGRAMS.items()])
def test_no_word_of_another_program_is_one_that_this_one_has(words: str, told: str) -> None:
    for word in words.split():
        assert word == "undo" or told.format(EXAMPLE) in said(word)


def test_a_learning_rate_that_is_no_number_gets_a_sentence() -> None:
    assert said("lr=abc") == '"lr=abc" needs a number after "=", such as lr=0.1.'


NEED_A_VALUE = [
    *SETTINGS,
    *(word.name for word in SCREEN_WORDS if word.read and not word.optional and word.name != "/"),
]


@pytest.mark.parametrize("word", [*SETTINGS, *NEED_A_VALUE])
def test_a_word_that_needs_another_says_so_with_an_example(word: str) -> None:
    assert said(word).removesuffix(".").split("as in ")[1] == WORDS[word].example


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
def test_every_word_of_the_table_has_an_example_that_is_understood(word: PromptWord) -> None:
    understood = parse_prompt(word.example)
    assert isinstance(understood, ScreenCommand) == (word.group == "screen")
    assert (
        word.name == "NAME"
        or word.example.startswith((word.name, *word.spellings_once_begun))
        or word.name in word.example
    )
    assert len(word.meaning) <= 41


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
def test_help_finds_each_word_by_whatever_begins_a_line_with_it(word: PromptWord) -> None:
    for text in {word.name, word.stem, *word.offered, *word.spellings_once_begun}:
        assert find_word(text) is word
    assert parse_prompt(f"help {word.name}") == ScreenCommand("help", str(word))


def test_help_about_what_is_no_word_names_the_nearest() -> None:
    assert said("help exprot") == '"exprot" is no word: the nearest is export.'


def test_the_list_of_words_has_all_of_them_in_groups() -> None:
    rows = word_rows(*COMMANDS, "screen")
    assert [syntax for syntax, _ in rows if syntax] == [word.syntax for word in WORDS.values()]
    assert len(rows) == len(WORDS) + 3


@pytest.mark.parametrize("word", ALONE)
def test_a_word_that_stands_alone_takes_nothing_behind_it(word: str) -> None:
    assert "stands alone" in said(f"{word} 3")


def test_commands_and_words_for_the_screen_do_not_mix() -> None:
    assert '"quit" is for the screen' in said("fbsz quit")


def test_a_long_word_is_quoted_in_part() -> None:
    assert len(said("model " + "x" * 5000)) < 200
    assert nearest("f" * 5000, ["f"]) is None
