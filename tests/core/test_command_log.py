from __future__ import annotations

from itertools import chain, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.command import Command, parse, parse_journal
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.errors import UnknownCommand
from command_strategies import run_commands

few = st.sampled_from(parse("f b s z F lr=1 lr=2"))  # so few that they repeat
iterations = st.sampled_from([parse("fbsz"), parse("fb"), parse("lr=1"), parse("z"), parse("F")])
lists = st.lists(few, max_size=30) | st.lists(iterations, max_size=12).map(lambda parts: list(chain(*parts)))


@given(lists | st.lists(run_commands, max_size=10))
def test_a_log_printed_and_parsed_gives_the_same_list(listed: list[Command]) -> None:
    assert parse(str(CommandLog(listed))) == listed


@given(lists, st.integers(0, 40), st.integers(0, 40))
def test_between_gives_what_a_slice_gives(listed: list[Command], start: int, end: int) -> None:
    assert list(CommandLog(listed).between(start, end)) == listed[start:end]


@given(lists, st.integers(0, 40), lists)
def test_a_log_up_to_a_place_goes_on_without_the_whole_one(
    listed: list[Command], length: int, more: list[Command]
) -> None:
    log = CommandLog(listed)
    part = log.up_to(length)
    assert str(part) == str(CommandLog(listed[:length]))
    for command in more:
        part.append(command)
    assert str(log) == str(CommandLog(listed))


@given(lists)
def test_a_log_is_as_long_as_its_list(listed: list[Command]) -> None:
    assert len(CommandLog(listed)) == len(listed)


@given(lists, st.integers(0, 40), lists)
def test_what_follows_a_forgotten_part_is_as_if_it_had_never_been(
    listed: list[Command], length: int, more: list[Command]
) -> None:
    log = CommandLog(listed)
    log.truncate_after(length)
    for command in more:
        log.append(command)
    kept = listed[:length] + more
    assert list(log.between(0, len(log))) == kept
    assert str(log) == str(CommandLog(kept))


def test_iterations_that_repeat_are_written_once() -> None:
    assert str(CommandLog(parse("fbsz fbsz fbsz lr=0.5 fbsz fb"))) == "fbsz*3 lr=0.5 fbsz fb"


def test_an_unfinished_iteration_counts_as_a_repeat_when_it_is_one() -> None:
    assert str(CommandLog(parse("fbszfbsz"))) == "fbsz*2"


def test_memory_does_not_grow_while_an_iteration_repeats() -> None:
    log = CommandLog(parse("fbsz*1000"))
    assert len(log) == 4000
    assert len(log._blocks) + len(log._open) <= 5


def test_memory_does_not_grow_while_a_setting_repeats() -> None:
    assert len(CommandLog(parse("lr=0.5") * 1000)._blocks) == 1


@given(lists, lists, st.integers(0, 30))
def test_two_logs_know_how_much_they_share(first: list[Command], then: list[Command], cut: int) -> None:
    others = [*first[:cut], *then]
    log = CommandLog(first)
    other = log.copy()
    other.truncate_after(cut)
    for command in then:
        other.append(command)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, others, strict=False)))
    assert log.shared_with(other) == other.shared_with(log) == shared
    assert list(log.between(0, len(log))) == first


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 3))
def test_repeated_iterations_share_as_many_as_the_shorter_has(times: int, repeats: int, begun: int) -> None:
    log = CommandLog(parse(f"fbsz*{times}"))
    other = CommandLog([*parse(f"fbsz*{repeats}"), *parse("f b s")[:begun]])
    assert log.shared_with(other) == min(4 * times, 4 * repeats + begun)


def test_the_calls_of_a_script_are_written_and_read_as_they_were_and_take_no_room() -> None:
    log = CommandLog([Command("zero_grad"), *parse("fb"), Command("clip"), Command("clip"), Command("scheduler")])
    log.append_block((Command("next"),), 10**9)
    log.append_block((Command("next"),), 5)
    log.append(Command("forward"))
    assert str(log) == "z fb clip*2 scheduler next*1000000005 f"
    read = parse_journal(str(log))
    assert len(read) == len(log) == 10**9 + 12
    assert len(log._blocks) + len(log._open) <= 7
    assert [*read[:7]] == list(log.between(0, 7))


@pytest.mark.parametrize("words", ["next*0", "next*9999999999999", "clip*x", "unscaled"])
def test_what_is_no_call_of_a_script_is_no_line_of_a_journal(words: str) -> None:
    with pytest.raises(UnknownCommand):
        parse_journal(words)
