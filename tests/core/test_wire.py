"""A frame that is written and read again says the same, to the bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import StatsTable
from autograd_tui.core.wire import FrameDecoder, FrameEncoder
from autograd_tui.engine.open_session import open_session
from plain_loop import small_net
from session_internals import as_scenario


def read_back(frames: Sequence[Frame]) -> list[Frame]:
    writer, reader = FrameEncoder(), FrameDecoder()
    return [reader.frame(writer.line(frame)) for frame in frames]


def assert_same(frames: Sequence[Frame]) -> None:
    for one, other in zip(frames, read_back(frames), strict=True):
        assert one.same(other)
        assert (one.seconds, one.memory, repr(one)) == (other.seconds, other.memory, repr(other))


WORDS = ["f", "b", "s", "z", "F", "B", "S", "Z", "lr=0.5", "optimizer=adam", "w=3", "w=nan", "b=inf", "undo", "@2"]


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_any_run_of_the_line_is_read_back(words: list[str]) -> None:
    session = open_session("linear")
    frames = [session.frame]
    for word in words:
        try:
            frames.append(session.run(word))
        except Refused:
            continue
    assert_same(frames)


@pytest.mark.parametrize("optimizer", ["sgd,momentum=0.9", "adam"])
def test_a_network_with_buffers_is_read_back(optimizer: str) -> None:
    session = open_session(as_scenario(small_net), optimizer=optimizer)
    assert_same([session.frame, *session.run_all("fbBsz*2 f")])


def test_resnet18_is_read_back() -> None:
    session = open_session("resnet18")
    assert_same([session.frame, *session.run_all("fbsz")])


def test_a_line_is_strict_json() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    session = open_session("linear")
    writer = FrameEncoder()
    for frame in session.run_all("w=nan b=inf f"):
        json.loads(writer.line(frame), parse_constant=refuse)


def test_what_two_frames_share_is_written_once_and_shared_again() -> None:
    session = open_session("resnet18")
    before, after = session.run("f"), session.run("lr=0.5")
    writer, reader = FrameEncoder(), FrameDecoder()
    first, second = writer.line(before), writer.line(after)
    assert len(second) < len(first) / 20
    assert reader.frame(first).params is reader.frame(second).params


def test_a_line_whose_predecessors_were_not_read_is_refused() -> None:
    session = open_session("linear")
    writer = FrameEncoder()
    writer.line(session.run("f"))
    with pytest.raises(ValueError, match="no frame"):
        FrameDecoder().frame(writer.line(session.run("b")))


@pytest.mark.parametrize(
    "line", ["", "{}", "[]", '{"frame": {}, "tables": {}}', '{"frame": {"x": {"y": 1}}, "tables": {}}']
)
def test_what_is_no_frame_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"no frame|Expecting|Frame lacks a field"):
        FrameDecoder().frame(line)


def test_names_of_any_kind_are_read_back() -> None:
    frame = open_session("linear").frame
    layout = replace(frame.params.layout, names=("[red]w[/]\x1b[31m", "ü" * 300))
    frame = replace(frame, params=StatsTable(layout, frame.params.numbers), metrics=(("a\nb", float("nan")),))
    assert_same([frame])
