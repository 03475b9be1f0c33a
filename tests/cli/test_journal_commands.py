"""Kept runs on the command line: resume, replay --check, sessions."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from unittest.mock import Mock

import pytest

from autograd_tui.cli.arguments import with_journal
from autograd_tui.core.files import make_folder, new_file
from autograd_tui.core.run_config import RunConfig
from autograd_tui.engine.open_session import open_session
from autograd_tui.journal import paths as folder
from autograd_tui.journal.reader import read_journal
from autograd_tui.journal.writer import JournalWriter
from fork_server import PipedProcess
from program import Do, Done
from suite_options import LONG

PROGRAM = [sys.executable, "-m", "autograd_tui"]
MINE = """
import torch
from torch import nn
from autograd_tui import Parts, scenario

@scenario("mine")
def build(options):
    x = torch.rand(4, 2)
    return Parts(model=nn.Linear(2, 1), batch=lambda i: (x, x.sum(1, keepdim=True)), loss=nn.functional.mse_loss)
"""


def losses(done: Done) -> list[float]:
    return [json.loads(line)["loss"] for line in done.out]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "line.journal"


@pytest.fixture(autouse=True)
def own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "autograd-tui" / "runs"


def test_a_run_is_kept_in_the_state_folder(do: Do, own_state_folder: Path) -> None:
    do("linear", "--headless", "--do", "fbsz")
    (journal,) = own_state_folder.iterdir()
    assert len(read_journal(journal).log()) == 4


@pytest.mark.parametrize("name", ["a" * 250, "é" * 120, "a\nb.c", "", "𝔞" * 60])
def test_a_run_of_a_scenario_of_any_name_has_a_journal(own_state_folder: Path, name: str) -> None:
    """Also its longest companion does: a file's name may have 255 bytes."""
    path = next(folder.new_journal_paths(RunConfig(f"{name}.py")))
    assert path.parent == own_state_folder
    assert len(os.fsencode(path.name + ".tensors-1000000000.0123abcd.new")) <= 255
    make_folder(path.parent)
    os.close(new_file(path))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
def test_runs_that_begin_in_the_same_second_are_all_kept(
    own_state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that stand before their first command go on at once; each name is chosen before any file is made."""

    class OneSecond(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(folder, "datetime", OneSecond)
    count = 50 if LONG else 10
    list(open_session("linear").run_all("fbsz"))  # what is imported late is, once for all
    reading, writing = os.pipe()
    children = []
    for seed in range(count):
        if not (child := os.fork()):
            os.close(writing)
            try:
                session = with_journal(
                    open_session("linear", seed=seed), argparse.Namespace(no_journal=False, journal=None)
                )
                os.read(reading, 1)  # until all others have come this far
                for _ in session.run_all("ff" if seed % 2 else "f"):
                    pass
                session.close(in_order=True)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    os.close(reading)
    os.close(writing)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * count
    runs = [read_journal(each) for each in folder.list_journals()]
    assert sorted(run.config.arguments.get("seed", 0) for run in runs) == list(range(count))
    assert all(run.frame == 1 + run.config.arguments.get("seed", 0) % 2 for run in runs)


def test_a_run_is_kept_nowhere_where_that_is_asked(do: Do, own_state_folder: Path) -> None:
    do("linear", "--headless", "--do", "fbsz", "--no-journal")
    assert not own_state_folder.exists()


def test_a_run_goes_on_where_it_stopped(do: Do, path: Path) -> None:
    straight = losses(do("linear", "--headless", "--json", "--do", "fbsz*2 fb", "--optimizer", "adam"))
    do("linear", "--headless", "--do", "fbsz f", "--journal", str(path), "--optimizer", "adam")
    resumed = losses(do("resume", str(path), "--headless", "--json", "--do", "bsz fb"))
    assert resumed == straight[5:]
    assert len(read_journal(path).log()) == 10


def test_without_a_name_the_latest_run_goes_on(do: Do, own_state_folder: Path) -> None:
    do("linear", "--headless", "--do", "f")
    done = do("resume", "--headless", "--json", "--do", "b")
    assert json.loads(done.out[0])["index"] == 2
    assert len(list(own_state_folder.iterdir())) == 1


def test_a_run_goes_on_in_its_own_journal_alone(do: Do, path: Path) -> None:
    do("linear", "--headless", "--do", "f", "--journal", str(path))
    done = do("resume", str(path), "--no-journal", "--headless", "--do", "b", code=2)
    assert done.err == ["autograd-tui: unrecognized arguments: --no-journal (--help lists all options)"]


def test_a_run_that_does_not_exist_cannot_go_on(do: Do) -> None:
    assert do("resume", "--headless", "--do", "f", code=2).err == [
        "autograd-tui: no run is kept yet: there is nothing to resume."
    ]


def test_a_journal_is_not_written_over(do: Do, path: Path) -> None:
    do("linear", "--headless", "--do", "f", "--journal", str(path))
    done = do("linear", "--headless", "--do", "f", "--journal", str(path), code=2)
    resume = f"where it is a journal, autograd-tui resume {path} goes on with it"
    assert done.err == [f"autograd-tui: {path} exists already: give another name; {resume}."]


def test_a_journal_has_a_name(do: Do) -> None:
    done = do("linear", "--headless", "--do", "f", "--journal", "", code=2)
    assert done.err == ["autograd-tui: --journal needs a file's name, and none was given."]


@pytest.mark.parametrize("command", ["resume", "replay", "follow", "export"])
def test_an_empty_name_is_that_of_no_journal(do: Do, command: str) -> None:
    done = do(command, "", *(["--to", "run.py"] if command == "export" else []), code=2)
    assert done.err == ['autograd-tui: "" names no journal: give its file, as autograd-tui sessions lists them.']


def test_without_a_terminal_a_replay_names_the_options_that_need_none(do: Do, path: Path) -> None:
    do("linear", "--headless", "--do", "f", "--journal", str(path))
    screenless = "autograd-tui: this is no terminal, so there is no screen: use"
    assert do("replay", str(path), code=2).err == [f"{screenless} --headless --check."]
    assert do("resume", str(path), code=2).err == [f'{screenless} --headless --do "fbsz".']


def test_an_empty_file_in_the_place_of_a_journal_is_named(do: Do, path: Path) -> None:
    path.touch()
    done = do("linear", "--headless", "--do", "f", "--journal", str(path), code=2)
    said = f"{path} is there and holds no run: delete it, or give another name for the journal."
    assert done.err == [f"autograd-tui: {said}"]


def test_a_pipe_is_no_place_for_a_journal(do: Do, path: Path) -> None:
    os.mkfifo(path)
    done = do("linear", "--headless", "--do", "f", "--journal", str(path), code=2)
    assert done.err == [f"autograd-tui: {path} is a pipe, and no file: give another name for the journal."]


def test_a_killed_run_loses_no_command(path: Path) -> None:
    words = ["linear", "--headless", "--json", "--do", "-", "--journal", str(path)]
    with PipedProcess([*PROGRAM, *words]) as program:
        program.stdin.write("fbsz fb\n")
        program.stdin.flush()
        for _ in range(6):
            program.stdout.readline()
        program.send_signal(signal.SIGKILL)
    assert len(read_journal(path).log()) == 6


def test_a_check_agrees_with_the_run_that_was_kept(do: Do, path: Path) -> None:
    do(
        "linear",
        "--headless",
        "--do",
        "fbBsz*3 @3 lr=0.5 s undo w=3 branch=1 f branch=3 fbsz*40",
        "--journal",
        str(path),
    )
    done = do("replay", str(path), "--headless", "--check")
    lines = len(path.read_text().splitlines()) - 2
    assert done.out == [f"{path}: all {lines} lines agree."]


def test_a_check_names_the_first_line_that_differs(do: Do, path: Path) -> None:
    do("linear", "--headless", "--do", "fbsz", "--journal", str(path))
    header, *lines = path.read_text().splitlines(keepends=True)
    lines[1] = json.dumps([*json.loads(lines[1])[:3], "0" * 16]) + "\n"
    path.write_text(header + "".join(lines))
    done = do("replay", str(path), "--headless", "--check", code=1)
    assert done.out == [f'{path}: differs from line 3 ("b") on.']


@pytest.fixture
def damaged(do: Do, path: Path) -> Path:
    """Keep a run whose fourth line is no more what it was."""
    do("linear", "--headless", "--do", "fbsz", "--journal", str(path))
    first, *lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, *lines[:2], "no line\n", *lines[3:]]))
    return path


def test_a_damaged_run_goes_on_from_before_the_damage_where_that_is_asked(do: Do, damaged: Path) -> None:
    before, said = damaged.read_text(), f"autograd-tui: {damaged} is damaged: its line 4 cannot be read (no JSON)"
    refused = do("resume", str(damaged), "--headless", "--do", "s", code=2)
    assert refused.err == [f"{said}; resume --salvage goes on from before it, at frame 2, and keeps the damaged file."]
    assert damaged.read_text() == before
    done = do("resume", str(damaged), "--salvage", "--headless", "--json", "--do", "s")
    kept = damaged.with_name("line.journal.damaged")
    assert done.err == [f"{said}; the run goes on from before it, at frame 2; the damaged file will be kept as {kept}."]
    assert json.loads(done.out[0])["index"] == 3
    assert (kept.read_text(), read_journal(damaged).damage) == (before, None)


def test_a_damaged_run_is_checked_and_exported_up_to_the_damage_which_is_said(
    do: Do, damaged: Path, tmp_path: Path
) -> None:
    said = f"autograd-tui: {damaged} is damaged: its line 4 cannot be read (no JSON)"
    said += "; the run up to there is taken, 2 frames."
    done = do("replay", str(damaged), "--headless", "--check", code=1)
    assert (done.err, done.out) == ([said], [f"{damaged}: all 2 lines before the damaged one agree."])
    done = do("export", str(damaged), "--to", str(tmp_path / "run.csv"))
    assert done.err[0] == said


def test_sessions_says_which_run_is_damaged(do: Do, own_state_folder: Path) -> None:
    do("linear", "--headless", "--do", "fbsz")
    (journal,) = own_state_folder.iterdir()
    with journal.open("a") as file:
        file.write("x\n")
    (own_state_folder / "nowhere.journal").symlink_to("nothing")
    assert do("sessions").out[1].endswith(f"{journal} is damaged: its line 7 cannot be read (no JSON)")
    do("sessions", "--delete", str(journal))
    assert not journal.exists()


def test_sessions_names_a_file_that_is_no_journal_once(do: Do, own_state_folder: Path) -> None:
    do("linear", "--headless", "--do", "f")
    (other := own_state_folder / "other.journal").write_text("x\n")
    (line,) = (each for each in do("sessions").out if "?" in each)
    assert line.count(str(other)) == 1


def test_a_check_on_another_machine_says_so(do: Do, path: Path) -> None:
    do("linear", "--headless", "--do", "f", "--journal", str(path))
    header, *lines = path.read_text().splitlines(keepends=True)
    there = json.loads(header) | {"threads": 99, "versions": {"torch": "9.9"}}
    path.write_text(json.dumps(there) + "\n" + "".join(lines))
    out = do("replay", str(path), "--headless", "--check").out[0]
    assert "all 1 lines agree on another machine: threads" in out
    assert "(was 99), torch " in out


def test_a_run_that_is_another_one_goes_on_only_where_that_is_asked(do: Do, path: Path) -> None:
    do("linear", "--headless", "--do", "fbsz", "--journal", str(path))
    line = read_journal(path).entries[2].to_json_line()
    path.write_text(path.read_text().replace(line, line.replace('"s"', '"lr=1"')))
    why = "its model does not repeat, or the journal is not as it was written"
    other = f"autograd-tui: from line 4 of its journal on, frame 3, this is another run: {why}"
    words = ["resume", str(path), "--headless", "--do", "f"]
    assert do(*words, code=2).err == [f"{other}; --changed goes on all the same."]
    assert do(*words, "--changed").err == [f"{other}; it goes on as it is now."]
    assert do("replay", str(path), "--headless", "--check", code=1).out == [f'{path}: differs from line 4 ("lr=1") on.']


@pytest.fixture
def mine(do: Do, tmp_path: Path, path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    do(str(tmp_path / "mine.py"), "--headless", "--do", "fb", "--journal", str(path))
    return tmp_path / "mine.py"


def test_a_scenarios_file_runs_only_where_it_is_named(do: Do, mine: Path, path: Path) -> None:
    done = do("resume", str(path), "--headless", "--do", "s", code=2)
    assert done.err == [f"autograd-tui: this run is of {mine}: name it, as in --scenario {mine}."]
    do("resume", str(path), "--scenario", str(mine), "--headless", "--do", "s")


def test_a_scenarios_file_that_is_not_there_is_not_said_to_have_changed(do: Do, mine: Path, path: Path) -> None:
    done = do("resume", str(path), "--scenario", "other.py", "--headless", "--do", "b", code=2)
    assert done.err == [f"autograd-tui: there is no file other.py: this run is of {mine}."]


def test_a_scenarios_file_that_has_changed_runs_only_where_that_is_asked(do: Do, mine: Path, path: Path) -> None:
    mine.write_text(MINE + "\n# changed\n")
    words = ["replay", str(path), "--scenario", str(mine), "--headless", "--check"]
    assert do(*words, code=2).err == [
        f"autograd-tui: {mine} is not as it was in this run: --changed takes it all the same."
    ]
    do(*words, "--changed")


def test_sessions_lists_the_newest_first(do: Do, own_state_folder: Path) -> None:
    do("linear", "--headless", "--do", "fbsz")
    first = next(own_state_folder.iterdir())
    os.utime(first, (1, 1))
    do("linear", "--headless", "--do", "f", "--seed", "3")
    header, newer, older = do("sessions").out
    assert header.split() == ["begun", "scenario", "frames", "last", "loss", "size", "journal"]
    assert (newer.split()[2:5], older.split()[2:5]) == (["linear", "1", "3.66667"], ["linear", "4", "3.66667"])
    assert older.endswith(str(first))


@pytest.mark.parametrize(
    ("words", "said"), [("lr=0.5 z", "-"), ("w=nan f", "nan"), ("w=1e30 f b", "inf"), ("w=nan f @0", "-")]
)
def test_a_last_loss_that_is_not_finite_is_said_also_of_a_run_that_was_resumed(do: Do, words: str, said: str) -> None:
    do("linear", "--headless", "--do", words)
    do("resume", "--headless", "--do", "@0" if said == "-" else "z")
    assert do("sessions").out[1].split()[4] == said


BESIDE = {  # a journal, as this program has written it
    ".frames": b'{"autograd-tui frames": 2, ',
    ".frames.new": b"",
    ".frames.0123abcd.new": b'{"auto',
    ".damaged": b'{"autograd-tui journal": 1, ',
    ".damaged-2": b'{"autograd-tui journal": 1, ',
    ".damaged.0123abcd.new": b'{"autograd-tui jo',
    ".tensors-12": b"PK\x03\x04...",
    ".tensors-16.new": b"PK",
    ".tensors-20.89abcdef.new": b"PK\x03\x04...",
}


@pytest.mark.parametrize("name", ["my_model", "run[1].journal", "a*?.journal"])
def test_sessions_deletes_what_this_program_wrote_and_names_it(do: Do, tmp_path: Path, name: str) -> None:
    do("linear", "--headless", "--do", "f", "--journal", str(tmp_path / name))
    own = [name, *(name + ending for ending in BESIDE)]
    for ending, data in BESIDE.items():
        (tmp_path / (name + ending)).write_bytes(data)
    theirs = [f"{name}.py", f"{name}.csv", f"{name}.tensors-x", f"{name}.tensors-3.new.txt", "run1.journal.tensors-12"]
    for each in theirs:
        (tmp_path / each).write_bytes(b"PK\x03\x04...")
    deleted = do("sessions", "--delete", str(tmp_path / name), f"{tmp_path}/./{name}").out
    assert sorted(deleted) == sorted(f"deleted: {tmp_path / each}" for each in own)
    assert deleted[-1] == f"deleted: {tmp_path / name}"
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_file()) == sorted(theirs)


def test_sessions_deletes_nothing_that_only_has_the_name(do: Do, path: Path) -> None:
    do("linear", "--headless", "--do", "f", "--journal", str(path))
    pictures, weights, link = (path.with_name(path.name + end) for end in (".frames", ".tensors-1", ".tensors-2"))
    pictures.write_text("a folder's worth of pictures")
    weights.write_text("mine")
    link.symlink_to(weights)
    assert do("sessions", "--delete", str(path)).out == [f"deleted: {path}"]
    assert all(map(os.path.lexists, (pictures, weights, link)))


@pytest.mark.parametrize("bad", ["thesis.txt", "link", "nowhere", "pipe", "."])
def test_sessions_deletes_nothing_where_one_of_the_names_is_no_journal(do: Do, path: Path, bad: str) -> None:
    do("linear", "--headless", "--do", "f", "--journal", str(path))
    (path.parent / "thesis.txt").write_text("mine")
    (path.parent / "link").symlink_to(path)
    os.mkfifo(path.parent / "pipe")
    refused = do("sessions", "--delete", str(path), str(path.parent / bad), code=2)
    assert refused.out == []
    assert len(refused.err) == 1
    assert path.exists()
    assert os.path.lexists(path.parent / bad) == (bad != "nowhere")


def test_sessions_deletes_no_journal_of_a_run_that_goes_on(do: Do, path: Path) -> None:
    session = open_session("linear")
    session.observer = JournalWriter(path, session.about, private=True)
    session.run("f")
    refused = do("sessions", "--delete", str(path), code=2).err
    assert refused == [f"autograd-tui: {path} is being written by a run that goes on: it is not deleted."]
    session.run("b")
    session.close(in_order=True)
    do("sessions", "--delete", str(path))
    assert not path.exists()


def test_sessions_deletes_a_journal_that_is_damaged_behind_its_header(do: Do, path: Path) -> None:
    do("linear", "--headless", "--do", "f", "--journal", str(path))
    path.write_bytes(path.read_bytes() + b"\xff no line\n[]\n")
    do("sessions", "--delete", str(path))
    assert not path.exists()


def test_without_runs_sessions_says_so(do: Do) -> None:
    assert do("sessions").err == ["no run is kept yet."]


@pytest.mark.parametrize("home", ["file", "file/deeper", "loop", "x" * 300])
def test_a_state_folder_that_cannot_be_made_is_a_sentence(
    do: Do, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/{home}")
    done = do("linear", "--headless", "--json", "--do", "fbs")
    assert len(done.out) == 3
    assert len(done.err) == 1
    assert ": this run is not kept." in done.err[0]
    assert do("sessions").err == ["no run is kept yet."]
    assert len(do("resume", "--headless", "--do", "f", code=2).err) == 1
    assert len(do("follow", code=2).err) == 1


@pytest.mark.parametrize("words", ["linear --headless --do f", "sessions", "resume --headless --do f", "follow"])
def test_a_home_folder_that_is_not_known_is_a_sentence(do: Do, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setattr(folder, "user_state_path", Mock(side_effect=RuntimeError))
    (said,) = do(*words.split(), code=2).err
    assert "set HOME or XDG_STATE_HOME, or use --no-journal" in said


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """Have no file here opened to be written, for a reason that has a number."""

    def refuse(wrong: int) -> None:
        def fail(path: str | Path, flags: int, *mode: int) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(tmp_path)):
                raise OSError(wrong, os.strerror(wrong), path)
            return opened(path, flags, *mode)

        opened = os.open
        monkeypatch.setattr(os, "open", fail)

    return refuse


@pytest.mark.parametrize("wrong", [errno.EMFILE, errno.ENFILE, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_a_run_whose_files_cannot_be_made_goes_on(do: Do, refuse: Callable[[int], None], wrong: int) -> None:
    refuse(wrong)
    done = do("linear", "--headless", "--json", "--do", "fbs")
    assert len(done.out) == 3
    assert len(done.err) == 1
    assert f"({os.strerror(wrong)}): this run is not kept." in done.err[0]


def test_a_run_is_resumed_from_a_disk_that_can_only_be_read(do: Do, path: Path, refuse: Callable[[int], None]) -> None:
    do("linear", "--headless", "--do", "fb", "--journal", str(path))
    before = path.read_bytes()
    refuse(errno.EROFS)
    done = do("resume", str(path), "--headless", "--json", "--do", "s")
    assert len(done.out) == 1
    (said,) = done.err
    assert "(Read-only file system): this run is kept no further than frame 2." in said
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_opened_is_named(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "my_model.csv")
    monkeypatch.setattr("autograd_tui.cli.sessions._list", Mock(side_effect=wrong))
    assert do("sessions", code=2).err == ["autograd-tui: my_model.csv: Permission denied"]


def test_a_run_that_can_be_kept_no_further_says_so_and_goes_on(do: Do, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = do("linear", "--headless", "--json", "--do", "fb", "--journal", str(tmp_path / "file" / "runs" / "j"))
    assert len(done.out) == 2
    assert len(done.err) == 1
    assert "cannot be written (Not a directory): this run is not kept." in done.err[0]
