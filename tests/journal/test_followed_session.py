"""A follower has the frames that the leader drew, to the bit, and disturbs nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from array import array
from dataclasses import replace
from pathlib import Path

import pytest

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.journal import frame_stream as drawn_frames
from autograd_tui.journal.followed_session import FollowedSession
from autograd_tui.journal.frame_stream import MAX_SIZES, FrameStream, decode_history, encode_history, frames_path
from autograd_tui.journal.writer import JournalWriter


class Leader:
    """A session whose every frame is drawn and written."""

    def __init__(self, path: Path, scenario: str = "linear") -> None:
        self.path = path
        self.session: Session = open_session(scenario)
        self.writer = JournalWriter(path, self.session.about, private=True)
        self.session.observer = self.writer

    def run(self, words: str) -> list[Frame]:
        return [self.show(frame) for frame in self.session.run_all(words)]

    def show(self, frame: Frame) -> Frame:
        self.writer.on_shown(frame, self.session.newest, self.session.history)
        self.writer.on_idle()
        return frame


@pytest.fixture
def leader(tmp_path: Path) -> Leader:
    return Leader(tmp_path / "line.journal")


def held(following: FollowedSession) -> dict[int, str]:
    frames = [following.stored(index) for index in range(following.newest + 1)]
    return {frame.index: str(frame.command) for frame in frames if frame}


def test_every_frame_drawn_is_there_to_the_bit(leader: Leader) -> None:
    frames = leader.run("fbBsz*2 lr=0.5 fb")
    following = FollowedSession(leader.path)
    for frame in frames:
        stored = following.stored(frame.index)
        assert stored is not None
        assert stored.same(frame)


def test_what_comes_later_is_taken_in_when_read(leader: Leader) -> None:
    leader.run("f")
    following = FollowedSession(leader.path)
    (frame,) = leader.run("b")
    assert following.frame.index == 1
    assert following.refresh()
    assert following.frame.same(frame)
    assert not following.refresh()


def test_the_run_is_known_without_opening_it(leader: Leader) -> None:
    leader.run("f")
    assert FollowedSession(leader.path).about == leader.session.about


def test_a_follower_has_no_place_for_a_picture_that_only_the_model_can_give(tmp_path: Path) -> None:
    leader = Leader(tmp_path / "spiral.journal", "spiral")
    leader.run("f")
    following = FollowedSession(leader.path)
    assert leader.session.about.picture
    assert following.about == replace(leader.session.about, picture="")
    assert following.pictures(stopped=lambda: False) == ()


def test_a_file_that_begins_anew_has_a_frame_from_its_first_moment(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def replace(part: Path, path: Path) -> None:
        part.rename(path)
        seen.append(FollowedSession(leader.path).frame.index)

    monkeypatch.setattr(drawn_frames.os, "replace", replace)  # type: ignore[attr-defined]
    leader.run("f")
    assert seen == [1]


def test_frames_of_another_run_that_had_the_name_are_not_shown(leader: Leader) -> None:
    leader.run("fbsz")
    leader.writer.close(in_order=True)
    leader.path.unlink()
    Leader(leader.path).session.run("f")  # without a screen, so that it draws nothing
    with pytest.raises(Refused, match="are those of another run, which had its name"):
        FollowedSession(leader.path)


def test_going_back_shows_the_earlier_frame_and_keeps_the_later_ones(leader: Leader) -> None:
    leader.run("fbsz @2")
    following = FollowedSession(leader.path)
    assert (following.frame.index, following.newest) == (2, 4)
    assert held(following) == {1: "f", 2: "b", 3: "s", 4: "z"}


def test_another_branch_takes_the_place_of_the_first(leader: Leader) -> None:
    leader.run("fbsz @2")
    following = FollowedSession(leader.path)
    leader.run("lr=0.5 s")
    following.refresh()
    assert held(following) == {1: "f", 2: "b", 3: "lr=0.5", 4: "s"}
    assert following.newest == 4


def test_frames_that_were_not_drawn_are_looked_at_as_the_nearest_before(leader: Leader) -> None:
    leader.run("f")
    list(leader.session.run_all("bsz fb"))
    leader.show(leader.session.frame)
    following = FollowedSession(leader.path)
    assert held(following) == {1: "f", 6: "b"}
    assert following.look(4).index == 1


def test_a_branch_that_was_left_between_two_drawn_frames_is_forgotten(leader: Leader) -> None:
    leader.run("fbsz")
    following = FollowedSession(leader.path)
    list(leader.session.run_all("@1 b lr=0.5 lr=0.6 lr=0.7"))
    leader.show(leader.session.frame)
    following.refresh()
    assert held(following) == {1: "f", 5: "lr=0.7"}


def test_the_plot_has_the_losses_from_before_it_was_followed(leader: Leader) -> None:
    list(leader.session.run_free(leader.session.end_of(500), lambda: False))
    leader.show(leader.session.frame)
    following = FollowedSession(leader.path)
    assert following.history.loss.values == leader.session.history.loss.values
    leader.run("fbsz")
    list(leader.session.run_free(leader.session.end_of(20), lambda: False))
    leader.show(leader.session.frame)
    following.refresh()
    assert following.history.loss.values == leader.session.history.loss.values


def test_a_file_that_begins_anew_loses_no_follower(tmp_path: Path) -> None:
    session = open_session("linear")
    (tmp_path / "line.journal").write_text("its first line\n")
    drawn = FrameStream(tmp_path / "line.journal", session.about, mode=0o600, max_bytes=8000)
    following: FollowedSession | None = None
    for count, frame in enumerate(session.run_all("fbsz*20")):
        drawn.ran_from(frame.index - 1)
        drawn.drew(frame, session.newest, session.history)
        drawn.write_newest()
        following = following or FollowedSession(tmp_path / "line.journal")
        following.refresh()
        assert following.frame.same(frame)
        assert len(held(following)) == count + 1
    assert frames_path(tmp_path / "line.journal").stat().st_size < 16000


def test_at_most_ten_frames_a_second_are_written_and_always_the_newest(leader: Leader) -> None:
    for frame in leader.session.run_all("fbsz*25"):
        leader.writer.on_shown(frame, leader.session.newest, leader.session.history)
    leader.writer.on_idle()
    following = FollowedSession(leader.path)
    assert following.frame.index == 100
    assert len(held(following)) < 50


def test_three_followers_agree_with_the_leader_on_resnet18(tmp_path: Path) -> None:
    leader = Leader(tmp_path / "j", "resnet18")
    leader.run("f")
    followers = [FollowedSession(leader.path) for _ in range(3)]
    for frame in leader.run("bsz fbsz @3 z f"):
        del frame
        for following in followers[:2]:
            following.refresh()
            assert following.frame.same(leader.session.stored(following.frame.index) or following.frame)
    for following in followers:  # the third had been stopped for a while
        following.refresh()
        assert following.frame.same(leader.session.frame)
        assert held(following) == held(followers[0])


def test_a_follower_never_trains(leader: Leader) -> None:
    leader.run("f")
    with pytest.raises(Refused, match="exact numbers are measured where the run is led"):
        FollowedSession(leader.path).inspect("w")


def test_the_same_phase_is_found_in_the_iterations_beside(leader: Leader) -> None:
    leader.run("fbsz*3")
    following = FollowedSession(leader.path)
    found = following.look_alike(6, -1)
    assert found is not None
    assert (found.index, following.look_alike(2, -1)) == (2, None)


def test_a_leader_that_leaves_in_order_is_known_to_have_left(leader: Leader) -> None:
    leader.run("f")
    following = FollowedSession(leader.path)
    assert not following.left
    leader.writer.close(in_order=True)
    following.refresh()
    assert following.left


def test_a_run_that_draws_nothing_cannot_be_followed(leader: Leader) -> None:
    leader.session.run("f")
    with pytest.raises(Refused, match=r"no screen shows this run, for which there would be line.journal.frames\.$"):
        FollowedSession(leader.path)
    with pytest.raises(Refused, match=r"other cannot be followed: No such file or directory\.$"):
        FollowedSession(leader.path.with_name("other"))


@pytest.mark.parametrize("text", ["", "\n", "{}\n", "words\n", '{"autograd-tui frames": 2, "about": {}}\n'])
def test_what_is_no_file_of_frames_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "j").write_text("its first line\n")
    frames_path(tmp_path / "j").write_text(text)
    with pytest.raises(Refused, match=r"has drawn nothing yet|no run that can be followed"):
        FollowedSession(tmp_path / "j")


def test_a_full_disk_stops_followers_and_not_the_run(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    leader.run("f")
    following = FollowedSession(leader.path)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drawn_frames.os, "write", full)  # type: ignore[attr-defined]
    leader.run("b")
    monkeypatch.undo()
    following.refresh()
    assert (following.frame.index, leader.session.frame.index) == (1, 2)


def spoil(leader: Leader, number: int, old: bytes, new: bytes) -> bytes:
    """Write the leader's file with one of its lines changed; give it as it was."""
    file = frames_path(leader.path)
    lines = file.read_bytes().splitlines(keepends=True)
    assert old in lines[number]
    lines[number] = lines[number].replace(old, new, 1)
    whole = file.read_bytes()
    file.write_bytes(b"".join(lines))
    return whole


def test_damage_in_a_later_line_leaves_the_frame_before_until_the_file_begins_anew(leader: Leader) -> None:
    leader.run("fb")
    whole = spoil(leader, 4, b'"graph":"freed"', b'"graph":"gone"')
    following = FollowedSession(leader.path)
    assert (following.frame.index, following.damage) == (1, "its line 5 cannot be read (Frame has no such graph)")
    leader.run("s")
    assert not following.refresh()
    new = leader.path.with_name("new")
    new.write_bytes(whole)
    new.replace(frames_path(leader.path))
    assert following.refresh()
    assert (following.frame.index, following.damage) == (2, None)


@pytest.mark.parametrize(
    ("number", "old", "new", "said"),
    [
        (0, b'": 2, "run"', b'": 3, "run"', "line 1 .*another format"),
        (0, b'"seed": 0', b'"seed": "0"', "line 1 .*SessionInfo has no such seed"),
        (0, b'"backward": [', b'"back": [', "line 1 .*SessionInfo whose parts do not fit together"),
        (0, b'"arguments": {}', b'"arguments": {"lr": ' + b"[" * 800 + b"]" * 800 + b"}", "line 1 .*recursion"),
        (0, b"[4096, 1,", b"[1, 1,", "line 1 .*Series whose parts do not fit together"),
        (1, b'"newest": 1', b'"newest": 1' + b"0" * 5000, "line 2 "),
        (1, b'"newest": 1', b'"newest": 0', "line 2 .*news of frames that there are not"),
        (1, b'{"newest"', b'{"oldest"', "line 2 .*not written by a leader"),
        (2, b'"index":1', b'"index":true', "line 3 .*Frame has no such index"),
        (2, b'"index":1', b'"index":' + b"[" * 100_000 + b"]" * 100_000, "line 3 .*nested too deep"),
        (2, b'"Command":"f"', b'"Command":"ff"', "line 3 .*one command is wanted"),
        (2, b'"names":["w","b"]', b'"names":["w"]', "line 3 .*Layout whose parts do not fit together"),
        (2, b'"shapes":[[1],[1]]', b'"shapes":[[1],[0]]', "line 3 .*Layout whose parts do not fit together"),
        (2, b'"backwards":[0,0]', b'"backwards":[0,1]', "line 3 .*Grads whose parts do not fit together"),
        (2, b'"optimizer":"sgd"', b'"optimizer":","', "line 3 .*Frame whose parts do not fit together"),
        (2, b'"learning_rate":0.1', b'"learning_rate":NaN', "line 3 .*NaN is not JSON"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(
    leader: Leader, number: int, old: bytes, new: bytes, said: str
) -> None:
    leader.run("f")
    spoil(leader, number, old, new)
    with pytest.raises(Refused, match=f"is no run that can be followed: its {said}"):
        FollowedSession(leader.path)


def test_a_file_that_is_cut_while_it_is_followed_is_damaged(leader: Leader) -> None:
    leader.run("fb")
    following = FollowedSession(leader.path)
    os.truncate(frames_path(leader.path), 10)
    assert following.refresh()
    assert (following.frame.index, following.damage) == (2, "its line 6 cannot be read (cut off)")


def test_a_file_of_another_model_in_the_place_of_the_first_is_said(leader: Leader, tmp_path: Path) -> None:
    leader.run("f")
    following = FollowedSession(leader.path)
    other = Leader(tmp_path / "other", "spiral")
    other.run("f")
    other.path.replace(leader.path)
    frames_path(other.path).replace(frames_path(leader.path))
    following.refresh()
    assert (following.about.title, following.damage) == (
        "the line",
        "its line 3 cannot be read (a frame of another model)",
    )


def test_a_frame_of_an_iteration_that_is_over_is_damage(leader: Leader) -> None:
    leader.run("fbszf")
    spoil(leader, 4, b'"iteration":1', b'"iteration":7')
    following = FollowedSession(leader.path)
    assert (following.frame.index, following.damage) == (
        2,
        "its line 7 cannot be read (a frame of an iteration that is over)",
    )


def test_a_disk_that_fails_is_said_once(leader: Leader) -> None:
    leader.run("f")
    following = FollowedSession(leader.path)
    with frames_path(leader.path).open("ab") as unreadable:
        os.dup2(unreadable.fileno(), following._file.fileno())
    assert following.refresh()
    assert (following.frame.index, following.damage) == (1, "it cannot be read (Bad file descriptor)")
    assert not following.refresh()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_named_pipe_is_refused_at_once(leader: Leader) -> None:
    os.mkfifo(frames_path(leader.path))
    with pytest.raises(Refused, match="it is a pipe"):
        FollowedSession(leader.path)


def test_a_file_longer_than_any_leader_writes_is_refused(leader: Leader) -> None:
    leader.run("f")
    with frames_path(leader.path).open("ab") as file:
        file.truncate(1 << 40)
    following = FollowedSession(leader.path)
    assert (following.frame.index, following.damage) == (1, "its line 4 cannot be read (too long)")


def test_what_moved_the_parameters_is_the_command_that_ran_for_the_follower_too(leader: Leader) -> None:
    *_, stepped, frame = leader.run("fbs w=3")
    assert frame.mover is frame.command
    following = FollowedSession(leader.path)
    assert following.frame.mover is following.frame.command
    assert following.look(stepped.index).mover is not following.frame.mover


def test_a_leader_that_goes_on_to_a_frame_between_two_drawn_ones_spoils_no_plot(leader: Leader) -> None:
    list(leader.session.run_all("fbsz*3 @4"))
    leader.show(leader.session.frame)
    following = FollowedSession(leader.path)
    list(leader.session.run_all("@9"))
    leader.show(leader.session.frame)
    following.refresh()
    assert list(following.history.loss.indices) == [1, 5, 9]


FOLLOW = """
import sys
from pathlib import Path
from autograd_tui.journal.followed_session import FollowedSession
assert FollowedSession(Path(sys.argv[1])).frame.index == 1
print([name for name in ("torch", "numpy", "textual") if name in sys.modules])
"""


def test_following_needs_no_torch(leader: Leader) -> None:
    leader.run("f")
    done = subprocess.run([sys.executable, "-c", FOLLOW, leader.path], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_history_of_an_older_version_has_no_path_and_no_sizes(leader: Leader) -> None:
    written = encode_history(leader.session.history)
    older = {name: written[name] for name in ("loss", "grad_norm", "learning_rate", "metrics")}
    assert decode_history(written) == leader.session.history
    assert decode_history(older).loss == leader.session.history.loss
    assert len(decode_history(older).path) == len(decode_history(older).grads) == 0


def test_sizes_of_more_parameters_than_a_line_has_room_for_are_not_written() -> None:
    history = History()
    for index in range(40):
        history.grads.append(index, index, array("d", [1.0]) * 2000)
        history.params.append(index, index, array("d", [1.0]) * 20_000)
    written = encode_history(history)
    assert len(decode_history(written).grads) == 40
    assert len(decode_history(written).params) == 0
    assert len(json.dumps(written)) < 2 * MAX_SIZES * 8
