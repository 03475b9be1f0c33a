"""Files are made where nothing is, and links are not followed to make one; only regular files are read."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import make_folder, new_file, open_file, read_file, replacing
from autograd_tui.engine.open_session import open_session
from autograd_tui.journal.followed_session import FollowedSession
from autograd_tui.journal.reader import read_journal
from autograd_tui.journal.writer import JournalWriter
from autograd_tui.tui.preferences import Preferences, load_preferences, save_preferences
from program import Run


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.fixture(autouse=True)
def nothing_waits_for_ever() -> Iterator[None]:
    """End a test that waits for a pipe."""

    def fail(number: int, frame: FrameType | None) -> None:
        pytest.fail("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


PLACES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_what_is_no_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    PLACES[kind](Path("here"))
    with pytest.raises(OSError, match=f"it is {kind}, and no file"):
        read_file("here")


def test_a_terminal_is_no_file() -> None:
    leader, terminal = os.openpty()
    try:
        with pytest.raises(OSError, match="it is a device, and no file"):
            open_file(os.ttyname(terminal))
    finally:
        os.close(leader)
        os.close(terminal)


def test_a_name_that_no_file_can_have_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match="null"):
        read_file("a\0b")


def test_a_link_of_the_users_own_is_read(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"text")
    (tmp_path / "link").symlink_to("there")
    assert read_file(tmp_path / "link", max_bytes=2) == b"te"


@pytest.mark.parametrize("leads_to", ["there", "nowhere"])
def test_a_new_file_is_made_through_no_link(tmp_path: Path, leads_to: str) -> None:
    (tmp_path / "there").write_text("mine")
    (tmp_path / "link").symlink_to(leads_to)
    with pytest.raises(FileExistsError):
        new_file(tmp_path / "link")
    assert (tmp_path / "there").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_takes_the_place_of_a_link_and_not_of_what_that_leads_to(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    (tmp_path / "link").symlink_to("there")
    with replacing(tmp_path / "link") as file:
        file.write(b"new")
    assert [(tmp_path / name).read_text() for name in ("link", "there")] == ["new", "mine"]
    assert not (tmp_path / "link").is_symlink()


def test_a_file_that_is_not_finished_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(TypeError), replacing(tmp_path / "new") as file:
        file.write("no bytes")  # type: ignore[call-overload]
    assert list(tmp_path.iterdir()) == []


def test_what_has_come_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError), replacing(tmp_path / "new", over=False):
        (tmp_path / "new").write_text("mine")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["mine"]


def test_a_folder_is_made_for_its_user_alone_also_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / "state").symlink_to("elsewhere")
    make_folder(tmp_path / "state" / "autograd-tui" / "runs")
    made = [tmp_path / "elsewhere" / "autograd-tui", tmp_path / "elsewhere" / "autograd-tui" / "runs"]
    assert [each.stat().st_mode & 0o777 for each in made] == [0o700, 0o700]


LOW = """
import os, sys
from pathlib import Path
from autograd_tui.core.files import new_file, open_file
os.close(0)
os.close(1)
made = new_file(Path(sys.argv[1]))
read = open_file(sys.argv[1])
sys.exit(0 if min(made, read) > 2 else 1)
"""


def test_no_file_gets_the_number_of_standard_output(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", LOW, str(tmp_path / "new")], check=False).returncode == 0


READERS: dict[str, Callable[[str], object]] = {
    "journal": lambda name: read_journal(Path(name)),
    "journal.frames": lambda name: FollowedSession(Path("journal")),
    "mine.py": lambda name: open_session(name),
    "state.pt": lambda name: open_session("linear", state=name),
    "state.safetensors": lambda name: open_session("linear", state=name),
    "weights.pt": lambda name: open_session("resnet18", weights=name),
    "picture.png": lambda name: open_session("resnet18", weights="random", image=name),
    "checkpoints/resnet18-f37072fd.pth": lambda name: open_session("resnet18", hub_dir="."),
}


@pytest.mark.parametrize("name", READERS)
def test_each_file_that_is_read_is_refused_in_a_sentence_where_it_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    for kind, make in PLACES.items():
        make(Path(name))
        with pytest.raises(Refused, match=f"is {kind}, and no file"):
            READERS[name](name)
        Path(name).rename(f"{kind} before")


def test_choices_behind_a_pipe_are_as_if_never_made(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "screen.json")
    assert load_preferences(tmp_path / "screen.json") == Preferences()


def test_choices_are_saved_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    (tmp_path / "screen.json").symlink_to("there")
    save_preferences(tmp_path / "screen.json", Preferences(log_scale=True))
    assert load_preferences(tmp_path / "screen.json").log_scale
    assert (tmp_path / "there").read_text() == "mine"


def test_a_journal_is_made_through_no_link(tmp_path: Path) -> None:
    session = open_session("linear")
    (tmp_path / "journal").symlink_to("nowhere")
    session.observer = JournalWriter(tmp_path / "journal", session.about, private=False)
    session.run("f")
    assert "(File exists)" in (session.observer.take_problem() or "")
    assert not (tmp_path / "nowhere").exists()


LONG = "a" * 300  # a name that no file can have


@pytest.mark.parametrize(
    "words",
    [
        [f"{LONG}.py", "--headless", "--do", "f"],
        ["linear", "--headless", "--do", "f", "--state", LONG],
        ["resnet18", "--headless", "--do", "f", "--weights", f"{LONG}.pt"],
        ["resnet18", "--headless", "--do", "f", "--weights", "pretrained", "--hub-dir", LONG],
        ["resnet18", "--headless", "--do", "f", "--image", LONG],
        ["sessions", "--delete", LONG],
        ["resume", LONG, "--headless"],
        ["follow", LONG],
        ["export", "run", "--to", f"{LONG}.py"],
        ["export", "run", "--to", f"{LONG}/run.py"],
    ],
    ids=lambda words: " ".join(words).replace(LONG, "LONG"),
)
def test_a_name_that_no_file_can_have_is_named(
    run: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("linear", "--headless", "--do", "f", "--journal", "run")
    done = run(*words)
    assert (done.code, len(done.err)) == (2, 1)
    assert LONG in done.err[0]
