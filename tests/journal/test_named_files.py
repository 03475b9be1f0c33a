"""The files that a journal names: none is opened without a word, and one that is not as it was is known."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from autograd_tui.core.errors import Refused
from autograd_tui.engine.open_session import open_session
from autograd_tui.journal import paths as folder
from autograd_tui.journal.reader import read_journal
from program import Do

MINE = """
from pathlib import Path
import torch
from autograd_tui import File, Parts, scenario

@scenario("mine", points=File("none.csv"), width=2, words="plain")
def build(options):
    start = float(Path(options.points).read_text()) if options.points != "none.csv" else 1.0
    model = torch.nn.Linear(1, 1)
    x = torch.full((1, 1), start)
    return Parts(model=model, batch=lambda i: (x, x), loss=torch.nn.functional.mse_loss)
"""
EVENTS: list[tuple[str, str]] = []  # while a test listens: what this process opens, makes or asks for
LISTENING: list[bool] = []
WATCHED = ("open", "os.mkdir", "os.listdir", "os.scandir", "socket.connect", "socket.getaddrinfo", "urllib.Request")


@pytest.fixture(autouse=True)
def own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "autograd-tui" / "runs"


def heard(event: str, arguments: tuple[object, ...]) -> None:
    if LISTENING and event in WATCHED:
        EVENTS.append((event, str(arguments[0] if event != "socket.connect" else arguments[1])))


@pytest.fixture(scope="module")
def hook() -> None:
    sys.addaudithook(heard)  # which cannot be taken away again


@pytest.fixture
def events(hook: None) -> Iterator[list[tuple[str, str]]]:
    EVENTS.clear()
    LISTENING.append(True)
    yield EVENTS
    LISTENING.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "line.journal"


def header(path: Path, **fields: object) -> None:
    """Change what the first line of a journal says."""
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps(json.loads(first) | fields) + "\n" + "".join(rest))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Give a folder with files that nobody names but a journal."""
    place = tmp_path / "secret"
    place.mkdir()
    torch.save({"w": torch.ones(1), "b": torch.ones(1)}, place / "state.pt")
    (place / "picture.png").write_bytes(b"no picture")
    return place


HOSTILE = {
    "state": {"arguments": {"state": "{}/state.pt"}},
    "weights": {"own": {"weights": "{}/state.pt"}},
    "image": {"own": {"image": "{}/picture.png"}},
    "hub": {"own": {"hub_dir": "{}/hub", "weights": "auto"}},
    "fetched": {"own": {"weights": "pretrained"}},
    "all": {"arguments": {"state": "state.pt"}, "own": {"weights": "pretrained", "hub_dir": "hub", "image": "i.png"}},
}
COMMANDS = {
    "resume": ["--headless", "--do", "f"],
    "replay": ["--headless", "--check"],
    "export": ["--to", "out.csv"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_no_file_is_opened_that_only_a_journal_names(
    do: Do,
    path: Path,
    secret: Path,
    events: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    command: str,
) -> None:
    monkeypatch.chdir(secret.parent)
    monkeypatch.setenv("TORCH_HOME", str(secret / "torch"))
    do("linear", "--headless", "--do", "fbsz", "--journal", str(path))
    fields = json.loads(json.dumps(HOSTILE[kind]).replace("{}", str(secret)))
    header(path, scenario="resnet18", folder=str(secret), **fields)
    EVENTS.clear()
    done = do(command, str(path), *COMMANDS[command], code=2)
    assert [each for each in events if "secret" in each[1] or not each[0].startswith(("open", "os."))] == []
    assert not (secret / "hub").exists()
    (said,) = done.err
    assert said.startswith("autograd-tui: this run asks for what you have not named yourself, --")
    assert said.endswith(": --allow-files takes it.")
    named = [*fields.get("arguments", {}).values(), *fields.get("own", {}).values()]
    assert all(value in said for value in named if value != "auto")


def test_hostile_journals_are_listed_without_opening_what_they_name(
    do: Do,
    own_state_folder: Path,
    secret: Path,
    events: list[tuple[str, str]],
) -> None:
    do("linear", "--headless", "--do", "fbsz")
    (journal,) = own_state_folder.iterdir()
    header(journal, scenario=f"{secret}/mine.py", arguments={"state": f"{secret}/state.pt"})
    EVENTS.clear()
    do("sessions")
    assert [each for each in events if "secret" in each[1]] == []


@pytest.fixture
def with_state(do: Do, path: Path, secret: Path) -> Path:
    """Keep a run outside of the state folder that begins with a file; give that file."""
    do("linear", "--headless", "--do", "fbsz", "--journal", str(path), "--state", str(secret / "state.pt"))
    return secret / "state.pt"


def test_what_a_journal_names_is_opened_with_a_word(do: Do, with_state: Path, path: Path) -> None:
    do("resume", str(path), "--headless", "--do", "f", code=2)
    do("resume", str(path), "--allow-files", "--headless", "--do", "f")
    do("replay", str(path), "--allow-files", "--headless", "--check")
    do("export", str(path), "--allow-files", "--to", str(path.with_suffix(".csv")))


def test_a_journal_that_names_no_file_needs_no_word(do: Do, path: Path) -> None:
    do("linear", "--headless", "--do", "fbsz", "--journal", str(path), "--lr", "0.5", "--optimizer", "adam")
    do("resume", str(path), "--headless", "--do", "f")


@pytest.fixture
def in_the_state_folder(do: Do, own_state_folder: Path, secret: Path) -> Path:
    do("linear", "--headless", "--do", "fbsz", "--state", str(secret / "state.pt"))
    (journal,) = own_state_folder.iterdir()
    return journal


def test_a_journal_of_ones_own_from_the_state_folder_needs_no_word(
    do: Do,
    in_the_state_folder: Path,
) -> None:
    do("resume", "--headless", "--do", "f")
    do("resume", str(in_the_state_folder), "--headless", "--do", "b")


@pytest.mark.parametrize("way", ["file writable", "folder writable", "link", "moved", "hard link"])
def test_a_journal_that_somebody_else_may_have_put_there_needs_the_word(
    do: Do,
    in_the_state_folder: Path,
    tmp_path: Path,
    way: str,
) -> None:
    journal = in_the_state_folder
    if way == "file writable":
        journal.chmod(0o622)
    elif way == "folder writable":
        journal.parent.chmod(0o770)
    elif way == "link":
        journal.symlink_to(journal.rename(tmp_path / "foreign"))
    elif way == "moved":
        journal = journal.rename(tmp_path / "elsewhere.journal")
    else:
        os.link(journal, tmp_path / "elsewhere.journal")
        journal = tmp_path / "elsewhere.journal"
    done = do("resume", str(journal), "--headless", "--do", "f", code=2)
    assert "--allow-files takes it" in done.err[0]


def test_a_journal_of_another_user_needs_the_word(
    do: Do,
    in_the_state_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read_journal(in_the_state_folder).is_own
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not read_journal(in_the_state_folder).is_own
    do("resume", "--headless", "--do", "f", code=2)


def test_it_is_the_file_that_was_read_which_counts(in_the_state_folder: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_text("another journal")
    assert not folder.is_own_journal(in_the_state_folder, foreign.stat())


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "points.csv").write_text("3")
    return tmp_path / "mine.py"


def test_options_of_ones_own_scenario_that_are_texts_need_the_word_too(do: Do, mine: Path, path: Path) -> None:
    do(str(mine), "--headless", "--do", "fb", "--journal", str(path), "--option", "words=/etc/shadow")
    words = ["resume", str(path), "--scenario", str(mine), "--headless", "--do", "s"]
    assert "--option words=/etc/shadow: --allow" in do(*words, code=2).err[0]
    do(*words, "--allow-files")
    path.unlink()
    do(str(mine), "--headless", "--do", "fb", "--journal", str(path), "--option", "width=3")
    do(*words)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_not_as_it_was_is_taken_only_where_that_is_asked(
    do: Do,
    with_state: Path,
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"w": torch.ones(1), "b": torch.zeros(1)}, with_state)
    words = [command, str(path), "--allow-files", *COMMANDS[command]]
    assert do(*words, code=2).err == [
        f"autograd-tui: {with_state}: not as it was in this run; --changed takes it all the same."
    ]
    done = do(*words, "--changed", code=1 if command == "replay" else 0)
    if command == "resume":
        other = "from line 2 of its journal on, frame 1, this is another run"
        assert done.err == [f"autograd-tui: {other}: {with_state} is not as it was; it goes on as it is now."]
        assert len(read_journal(path).entries) == 5  # what came then is kept behind the rest


def test_an_option_of_ones_own_that_names_a_file_is_known_by_its_hash(do: Do, mine: Path, path: Path) -> None:
    points = mine.with_name("points.csv")
    do(str(mine), "--headless", "--do", "fb", "--journal", str(path), "--option", f"points={points}")
    points.write_text("4")
    words = ["resume", str(path), "--scenario", str(mine), "--allow-files", "--headless", "--do", "s"]
    assert f"{points}: not as it was in this run" in do(*words, code=2).err[0]


def test_a_journal_without_hashes_goes_on(do: Do, with_state: Path, path: Path) -> None:
    first, *rest = path.read_text().splitlines(keepends=True)
    old = {name: value for name, value in json.loads(first).items() if name not in ("hashes", "folder")}
    path.write_text(json.dumps(old) + "\n" + "".join(rest))
    do("resume", str(path), "--allow-files", "--headless", "--do", "f")


def test_a_name_that_is_meant_from_another_folder_is_found_there(
    do: Do,
    path: Path,
    secret: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(secret)
    do("linear", "--headless", "--do", "fbsz", "--journal", str(path), "--state", "state.pt")
    assert read_journal(path).config.arguments["state"] == "state.pt"
    monkeypatch.chdir("/")
    do("resume", str(path), "--allow-files", "--headless", "--do", "f")
    (secret.parent / "copied").mkdir()
    monkeypatch.chdir((secret / "state.pt").rename(secret.parent / "copied" / "state.pt").parent)
    do("resume", str(path), "--allow-files", "--headless", "--do", "b")  # as where both were brought elsewhere


def test_a_journal_tells_no_folder_where_nobody_needs_it(do: Do, with_state: Path, path: Path) -> None:
    assert "folder" not in json.loads(path.read_text().splitlines()[0])


@pytest.mark.parametrize("arguments", [{"memory": -1}, {"memory": "lots"}, {"threads": 0}, {"threads": 9999}])
def test_numbers_of_a_header_are_bounded_as_those_of_the_command_line(
    do: Do,
    path: Path,
    arguments: dict[str, object],
) -> None:
    do("linear", "--headless", "--do", "f", "--journal", str(path))
    header(path, arguments=arguments)
    (name,) = arguments
    assert f"--{name} must" in do("resume", str(path), "--headless", "--do", "f", code=2).err[0]


def test_a_file_is_hashed_as_sha256sum_does(secret: Path) -> None:
    import hashlib

    session = open_session("linear", state=str(secret / "state.pt"))
    wanted = hashlib.sha256((secret / "state.pt").read_bytes()).hexdigest()
    assert session.about.config.hashes == {"state": wanted}


def test_a_word_for_weights_names_no_file() -> None:
    with pytest.raises(Refused, match="neither auto, random nor pretrained"):
        open_session("resnet18", weights="none")
