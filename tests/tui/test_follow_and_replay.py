"""Following and replaying on a screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app_screen import Screen, running, screen
from autograd_tui.core.capabilities import READ_ONLY, REPLAYED
from autograd_tui.core.command import Commands, parse
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.journal.followed_session import FollowedSession
from autograd_tui.journal.frame_stream import frames_path
from autograd_tui.journal.writer import JournalWriter
from autograd_tui.text.frame_summary import status_line
from autograd_tui.text.styled_text import plain
from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.panels.trace_panels import TraceHeaderPanel


class Leader:
    """A session that draws what it runs, in this process."""

    def __init__(self, path: Path) -> None:
        self.path, self.session = path, open_session("linear")
        self.session.observer = self.writer = JournalWriter(path, self.session.about, private=True)

    def run(self, words: str) -> None:
        for frame in self.session.run_all(words):
            self.writer.on_shown(frame, self.session.newest, self.session.history)
            self.writer.on_idle()


@pytest.fixture
def leader(tmp_path: Path) -> Leader:
    leader = Leader(tmp_path / "line.journal")
    leader.run("fb")
    return leader


def follower(leader: Leader) -> AutogradApp:
    opened: Any = lambda _: FollowedSession(leader.path)  # noqa: E731
    return AutogradApp(opened, Commands(), title="line", can=READ_ONLY)


async def shows(screen: Screen, text: str) -> None:
    """Wait until the first row says so: what is followed is looked for twenty times a second."""
    for _ in range(1000):
        if text in screen.text("StatusPanel"):
            return
        await screen.pilot.pause(0.01)
    raise AssertionError(screen.text("StatusPanel"))


async def test_a_follower_shows_what_the_leader_draws(leader: Leader) -> None:
    async with running(follower(leader), (120, 40)) as shown:
        await shows(shown, "frame 2 of 2")
        leader.run("s")
        await shows(shown, "frame 3 of 3")
        assert "2.0000 → 1.8667" in shown.text("ParametersPanel")
        assert shown.note == "following another terminal: arrows look back here, escape rejoins"


async def test_a_follower_looks_back_in_its_own_time_and_rejoins(leader: Leader) -> None:
    async with running(follower(leader), (120, 40)) as shown:
        await shown.press("left")
        assert shown.note == "frame 1 of 2: escape returns"
        leader.run("sz")
        await shows(shown, "frame 1 of 4")
        await shown.press("escape")
        await shows(shown, "frame 4 of 4")


@pytest.mark.parametrize("keys", ["f", "space", "r", "n", "u", "F"])
async def test_a_follower_trains_nothing(leader: Leader, keys: str) -> None:
    async with running(follower(leader), (120, 40)) as shown:
        await shown.press(keys)
        assert shown.note.startswith("this terminal follows: training goes on in the one that leads")
        assert leader.session.frame.index == 2


async def test_a_follower_says_of_keys_that_they_do_nothing(leader: Leader) -> None:
    async with running(follower(leader), (120, 40)) as shown:
        await shown.press("v")
        assert shown.note.startswith("the veil does nothing here")
        await shown.press("x")
        assert shown.note == '"x" does nothing here: ? lists the keys'


async def test_a_follower_says_that_the_leader_has_left(leader: Leader) -> None:
    leader.writer.close(in_order=True)
    async with running(follower(leader), (120, 40)) as shown:
        assert shown.note == "the terminal that led this run has left it: autograd-tui resume goes on"


async def test_a_follower_says_that_the_file_is_damaged(leader: Leader) -> None:
    async with running(follower(leader), (120, 40)) as shown:
        with frames_path(leader.path).open("ab") as file:
            file.write(b"{}\n")
        await shown.until(lambda: "is damaged" in shown.note)
        assert shown.note == (
            "the file of frames is damaged: its line 6 cannot be read (not written by a leader); "
            "shown is what came before"
        )
        assert "frame 2 of 2" in shown.text("StatusPanel")


def replay(words: str, speed: float | None = None) -> AutogradApp:
    def opened(_: str | None) -> Session:
        session = open_session("linear")
        session.can = REPLAYED
        return session

    return AutogradApp(opened, parse(words), title="line", can=REPLAYED, speed=speed)


async def test_a_replay_runs_the_journal_to_its_end() -> None:
    async with running(replay("fbBsz @2 lr=0.5 s"), (120, 40)) as shown:
        assert shown.session.commands() == "fb lr=0.5 s"
        assert shown.note == "the end of the journal, 8 commands: arrows look back"


async def test_a_replay_pauses_and_goes_on_command_by_command() -> None:
    app = replay("fbsz*50", speed=0.001)
    async with app.run_test(size=(120, 40)) as pilot:
        shown = Screen(app, pilot)
        await shown.until(lambda: app.main.trainer.session is not None)
        await shows(shown, "frame 1 of 1")
        await shown.press("space")
        await shown.until(lambda: shown.note == "a replay, 1 of 200 commands: space runs the next one, r goes on")
        await shown.press("space")
        assert shown.session.frame.index == 2
        await shown.press("n")
        assert shown.session.frame.index == 4
        await shown.press("left")
        assert shown.note == "frame 3 of 4: escape returns"


async def test_a_replay_runs_nothing_but_the_journal() -> None:
    async with running(replay("f"), (120, 40)) as shown:
        await shown.press("b")
        assert shown.note.startswith("this is a replay: space runs the journal's next command")
        assert shown.session.frame.index == 1


async def test_a_word_at_the_start_stays_until_something_is_asked() -> None:
    async with screen(greeting="a run waits") as shown:
        assert shown.note == "a run waits"
        await shown.press("f")
        assert shown.note == ""


async def test_a_run_that_is_kept_no_further_is_marked_on_every_screen_until_it_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with screen() as shown:
        path = tmp_path / "file" / "runs" / "line.journal"
        shown.session.observer = JournalWriter(path, shown.session.about, private=True)
        assert "not kept" not in shown.text("StatusPanel")
        await shown.press("f")
        assert "cannot be written (Not a directory): this run is not kept." in shown.note
        await shown.press("b")
        assert shown.note == ""
        for size in [(200, 60), (80, 24), (60, 15)]:
            await shown.resize(*size)
            assert shown.text("StatusPanel").startswith(" not kept  the line")
        await shown.press("i")
        await shown.until(lambda: shown.app.screen.query_one(TraceHeaderPanel).trace_position is not None)
        assert shown.app.screen.query_one(TraceHeaderPanel).render_line(0).text.startswith(" not kept   forward")
        (sentence,) = shown.app.main.trainer.runner.unkept
        assert "this run is not kept" in sentence
        await shown.press("i", "colon", *"model linear", "enter")
        assert "not kept" not in shown.text("StatusPanel")
        assert shown.app.main.trainer.runner.unkept == [sentence]


@pytest.mark.parametrize("width", [200, 120, 80, 60])
@pytest.mark.parametrize("frame", [0, 987_654_321])
def test_the_mark_of_a_run_that_is_not_kept_is_never_cut_off(width: int, frame: int) -> None:
    session = open_session("linear")
    row = plain(status_line(session.frame, session.about, frame, width, unkept="not kept"))
    assert row.startswith((" not kept ", " ! "))
    assert f"frame 0 of {frame}" in row


async def test_a_run_that_goes_on_as_another_one_says_so_until_a_key(tmp_path: Path) -> None:
    def opened(_: str | None) -> Session:
        session = open_session("linear")
        session.departure = "from line 4 of its journal on, frame 3, this is another run"
        return session

    async with running(AutogradApp(opened, parse("fbsz*20"), title="line"), (120, 40)) as shown:
        assert shown.note == "from line 4 of its journal on, frame 3, this is another run"
        await shown.press("f")
        assert shown.note == ""
