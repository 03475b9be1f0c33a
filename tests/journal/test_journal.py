"""A journal holds what ran, in a line each, and reads back as the same run."""

from __future__ import annotations

import errno
import json
import os
import random
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from autograd_tui.core.errors import Refused, UnknownCommand
from autograd_tui.core.frame import TorchError
from autograd_tui.core.run_config import RunConfig
from autograd_tui.core.tensor_stats import StatsTable
from autograd_tui.engine.open_session import open_again, open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import Scenario
from autograd_tui.journal import journal_file
from autograd_tui.journal import reader as reading
from autograd_tui.journal import writer as writing
from autograd_tui.journal.entry import Entry, frame_digest
from autograd_tui.journal.interrupted import journal_summary
from autograd_tui.journal.reader import EntryTree, Journal, read_journal
from autograd_tui.journal.resume_run import resume_run, verify_journal
from autograd_tui.journal.writer import JournalWriter
from expected_journal import spelled
from plain_loop import Batch
from session_internals import as_scenario
from spoiled_journals import REAL, check_plain_lines, real


def kept(path: Path, scenario: str = "linear") -> Session:
    session = open_session(scenario)
    session.observer = JournalWriter(path, session.about, private=True)
    return session


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "line.journal"


def closed(session: Session) -> None:
    assert session.observer is not None
    session.observer.close(in_order=False)


def told(journal: Journal) -> list[str]:
    return spelled(journal.log())


def lines(path: Path) -> list[list[object]]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def test_each_command_is_a_line_of_id_parent_command_and_digest(path: Path) -> None:
    session = kept(path)
    frames = list(session.run_all("fb lr=0.5"))
    expected = [[1, 0, "f"], [2, 1, "b"], [3, 2, "lr=0.5"]]
    written = [line[:4] for line in lines(path)]
    assert written == [[*three, frame_digest(frame)] for three, frame in zip(expected, frames, strict=True)]


def test_the_loss_is_written_where_it_is_another_one(path: Path) -> None:
    session = kept(path)
    first = session.run("f").loss
    list(session.run_all("bsz w=nan f b"))
    assert [line[4:] for line in lines(path)] == [[{"loss": first}], *[[]] * 4, [{"loss": "NaN"}], []]


@pytest.mark.parametrize(
    "words", ["z", "lr=0.5", "fb", "fbsz*2 b=3", "fbsz*2 @2", "fbsz*2 @2 lr=0.5", "fb @0", "fbszf @2 s branch=1"]
)
@pytest.mark.parametrize("goes_on", [False, True])
def test_the_last_loss_is_read_back_also_where_the_run_was_cut_off(path: Path, words: str, goes_on: bool) -> None:
    session = kept(path)
    list(session.run_all(words))
    closed(session)
    if goes_on:
        writer = JournalWriter.resume(read_journal(path), session.about, left={})
        writer.close(in_order=True)
    assert read_journal(path).loss == session.frame.loss


def test_the_header_opens_the_same_run(path: Path) -> None:
    session = open_session("linear", seed=3, lr=0.25, batch_size=4)
    session.observer = JournalWriter(path, session.about, private=True)
    session.run("f")
    assert read_journal(path).config == session.about.config


def test_a_journal_from_before_decays_had_a_least_rate_repeats_to_the_bit(path: Path) -> None:
    session = open_session("linear", decay="plateau:0.1:0:0")
    session.observer = JournalWriter(path, session.about, private=True)
    *_, last = session.run_all("w=4 b=1 fbsz*12")
    assert last.learning_rate < 1e-6
    path.write_text(path.read_text().replace("plateau:0.1:0:0", "plateau:0.1:0"))
    journal = read_journal(path)
    again = open_session("linear", decay=journal.config.arguments["decay"])
    assert all(each.matches for each in verify_journal(again, journal))


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_a_journal_of_older_digests_is_still_checked_and_gone_on_with(path: Path, version: int, goes_on: bool) -> None:
    scenario = large_line()
    old = open_again(RunConfig("line", digest_version=version), scenario)  # type: ignore[arg-type]
    old.observer = JournalWriter(path, old.about, private=True)
    *_, frame = old.run_all("fbszfb")
    closed(old)
    large = frame.grads[0]
    assert large is not None
    assert (large.sampled, large.range_sampled) == (True, version == 2)
    if version == 1:  # it did not say so
        path.write_text(path.read_text().replace(', "digest_version": 1', ""))
    journal = read_journal(path)
    assert journal.config.digest_version == version
    assert journal.tip.digest == frame_digest(frame, version) != frame_digest(frame)
    again = open_again(journal.config, scenario)  # type: ignore[arg-type]
    if goes_on:
        resume_run(again, journal)
        again.run("s")
        closed(again)
        journal, again = read_journal(path), open_again(journal.config, scenario)  # type: ignore[arg-type]
    checks = list(verify_journal(again, journal))
    assert len(checks) == 6 + goes_on
    assert all(each.matches for each in checks)


def test_the_digests_of_large_tensors_are_of_their_version(path: Path) -> None:
    scenario = large_line()
    session = open_again(RunConfig("line", digest_version=2), scenario)  # type: ignore[arg-type]
    session.observer = JournalWriter(path, session.about, private=True)
    list(session.run_all("fbs"))
    closed(session)
    assert session.frame.params[0].range_sampled
    journal = read_journal(path)
    assert all(each.matches for each in verify_journal(open_again(journal.config, scenario), journal))  # type: ignore[arg-type]
    other = replace(journal.config, digest_version=1)
    assert not all(each.matches for each in verify_journal(open_again(other, scenario), journal))  # type: ignore[arg-type]


def test_what_a_digest_is_not_of_is_computed_when_somebody_looks(path: Path) -> None:
    session = open_session(large_line())
    session.observer = JournalWriter(path, session.about, private=True)
    frames = list(session.run_all("fbsz"))
    closed(session)
    tables = [frame.grads.table for frame in frames[1:3]] + [frames[2].params]
    assert not any(map(is_computed, tables))
    assert [sum(row.histogram or ()) for table in tables for row in table] == [1024] * len(tables)
    assert all(map(is_computed, tables))
    assert [entry.digest for entry in read_journal(path).entries] == list(map(frame_digest, frames))


def is_computed(table: StatsTable) -> bool:
    """Return whether a table has all its numbers, without asking for them."""
    try:
        object.__getattribute__(table, "numbers")
    except AttributeError:
        return False
    return True


def large_line() -> Scenario:
    """Give a scenario of one parameter of 3,000 values."""

    def build(seed: int) -> tuple[nn.Module, Batch]:
        torch.manual_seed(seed)
        return nn.Linear(3000, 1, bias=False), lambda iteration: (torch.ones(2, 3000), torch.ones(2, 1))

    return as_scenario(build)


@pytest.mark.parametrize("said", [["no", "m.py", 3], ["no", "m.py", 3, "loss", "x / 0"]])
def test_an_error_is_read_as_journals_of_any_age_tell_it(said: list[object]) -> None:
    entry = Entry.from_json_line(json.dumps([1, 0, "F", "0" * 16, {"raised": "ValueError", "said": said}]).encode())
    assert entry.error == TorchError("ValueError", *said)  # type: ignore[arg-type]


def test_nothing_is_made_before_the_first_command(path: Path) -> None:
    session = kept(path)
    assert not path.parent.exists()
    session.run("f")
    assert path.exists()


def test_files_of_the_state_folder_are_private(path: Path) -> None:
    kept(path).run("f")
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]


def test_a_journal_of_the_users_own_obeys_the_umask(tmp_path: Path) -> None:
    session = open_session("linear")
    session.observer = JournalWriter(tmp_path / "mine", session.about, private=False)
    old = os.umask(0o027)
    try:
        session.run("f")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("words", "present"),
    [
        ("fbsz*2", "fbszfbsz"),
        ("fbszf @2 s", "fbs"),
        ("fbszf @2 s @1 b @2 s @3", "fbs"),
        ("fb @1 @2 s", "fbs"),
        ("fbs undo undo b", "fb"),
        ("fb @0 z", "z"),
        ("fb @0", ""),
        ("fbsz*3 @5 @9 b @3 z @9", None),
        ("fbsz @2 lr=0.5 branch=1", "fbsz"),
        ("fbsz @2 lr=0.5 branch=1 f branch=2 s @1 b branch=3", "fbszf"),
    ],
)
def test_the_present_branch_is_read_back(path: Path, words: str, present: str | None) -> None:
    session = kept(path)
    try:
        list(session.run_all(words))
    except Refused:
        assert present is None
    journal = read_journal(path)
    assert "".join(told(journal)) == "".join(map(str, session.log()))
    assert present is None or "".join(told(journal)) == present
    assert journal.frame == session.frame.index


def test_what_was_raised_is_read_back(path: Path) -> None:
    list(kept(path).run_all("fbBsz"))
    assert told(read_journal(path)) == ["f", "b", "B RuntimeError", "s", "z"]


def test_a_free_run_is_a_line_and_reads_back_as_one_stretch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FREE_RUN_INTERVAL", "CHECKPOINT_INTERVAL"):  # a machine under load may write more lines
        monkeypatch.setattr(writing, name, float("inf"))
    session = kept(path)
    list(session.run_free(session.end_of(2000), lambda: False))
    # The last iteration runs phase by phase where a frame happened to be made just before it.
    assert [line[2] for line in lines(path)] in ([*"fbsz", "fbsz*1999"], [*"fbsz", "fbsz*1998", *"fbsz"])
    journal = read_journal(path)
    assert (len(journal.log()), len(list(journal.log().blocks()))) == (8000, 1)
    assert lines(path)[-1][3] == frame_digest(session.frame)


def test_a_branch_may_begin_in_the_middle_of_a_free_run(path: Path) -> None:
    session = kept(path)
    list(session.run_free(session.end_of(500), lambda: False))
    session.rewind(1001)
    list(session.run_all("b lr=0.01"))
    assert "".join(told(read_journal(path))) == "fbsz" * 250 + "fb" + "lr=0.01"


def test_a_line_cut_off_is_left_out_and_written_over(path: Path) -> None:
    first = kept(path)
    list(first.run_all("fb"))
    closed(first)
    with path.open("a") as file:
        file.write('[3,2,"s","01')
    journal = read_journal(path)
    assert (told(journal), journal.unread_bytes) == (["f", "b"], 12)
    session = open_session("linear")
    list(session.run_all("fb"))
    session.observer = JournalWriter.resume(journal, session.about, left={})
    session.run("s")
    assert (told(read_journal(path)), read_journal(path).unread_bytes) == (["f", "b", "s"], 0)


def test_going_on_after_a_rewind_goes_on_from_there(path: Path) -> None:
    first = kept(path)
    list(first.run_all("fbsz @2"))
    closed(first)
    session = open_session("linear")
    list(session.run_all("fb"))
    session.observer = JournalWriter.resume(read_journal(path), session.about, left={})
    list(session.run_all("z @1 b"))
    assert told(read_journal(path)) == ["f", "b"]


def test_going_back_into_a_free_run_says_where_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "FREE_RUN_INTERVAL", float("inf"))
    session = kept(path)
    list(session.run_free(session.end_of(50), lambda: False))
    session.run("undo")
    assert lines(path)[-1][2:] == ["@199", frame_digest(session.frame), {"start": 199, "loss": session.frame.loss}]
    assert read_journal(path).frame == 199


def test_a_line_that_goes_back_without_saying_from_where_is_read_as_it_was_meant(path: Path) -> None:
    session = kept(path)
    list(session.run_all("f"))
    going_back = Entry(3, 2, "@3", frame_digest(session.frame))
    with path.open("a") as file:
        file.write(Entry(2, 1, "bszfbsz", "0" * 16).to_json_line() + going_back.to_json_line())
    journal = read_journal(path)
    assert (journal.damage, journal.frame, told(journal)) == (None, 3, ["f", "b", "s"])


OF_VERSION_0_1 = """\
{"autograd-tui journal": 1, "columns": ["id", "parent", "command", "digest"], "started": 1795732360.485106, \
"scenario": "linear", "arguments": {}, "own": {}, "device": "cpu", "threads": 1, \
"versions": {"autograd-tui": "0.1.0", "python": "3.11.7", "torch": "2.14.1+cu130"}, "sha256": null}
[1,0,"B","7768e6bfbc48040e",{"raised":"NameError"}]
[2,1,"f","903af43b9faffba3"]
[3,2,"b","17f03b0ee159f843"]
[4,3,"s","006f1ba8f885ffef"]
[5,4,"z","c80383e8012bec7a"]
[6,5,"fbsz*41","f536d2522a4c1618"]
[7,6,"@168","454465ee71447eb3"]
[8,6,"z","f536d2522a4c1618",{"start":168}]
[9,8,"fbsz*8","ddd1fda8cf0bc7ac"]
[10,0,"@0","d8042c6003da704b",{"start":0}]
"""


def test_a_journal_of_the_first_version_stands_where_its_run_did(path: Path) -> None:
    """It does not say from which frame its seventh line goes back, which is the first of its kind."""
    path.parent.mkdir()
    path.write_text(OF_VERSION_0_1)
    journal = read_journal(path)
    assert (journal.damage, list(journal.end_frames)) == (None, [1, 2, 3, 4, 5, 169, 168, 169, 201, 0])
    path.write_text("".join(OF_VERSION_0_1.splitlines(keepends=True)[:10]))
    assert told(read_journal(path))[-33:] == ["z", *"fbsz" * 8]


def test_lines_that_are_read_by_one_expression_are_those_that_parsing_finds(path: Path) -> None:
    path.parent.mkdir()
    plain = 0
    for number in range(REAL):
        path.write_bytes(real(number))
        check_plain_lines(journal := read_journal(path))
        plain += len(journal.entries.letters.replace(b"-", b""))
    assert plain > 10 * REAL


@pytest.mark.parametrize("number", range(5))
def test_the_line_of_a_frame_is_the_one_that_a_list_of_all_finds(number: int) -> None:
    rng = random.Random(number)
    tree, present, left = (
        EntryTree(),
        list[tuple[int, int]](),
        dict[int, list[tuple[int, int]]](),
    )  # each line and its end
    for line in range(1, 400):
        start = rng.choice([tree.end, tree.end, rng.randint(0, tree.end)])
        if left and rng.random() < 0.05:
            tip = rng.choice(list(left))
            tree.return_to_branch(tip)
            left[present[-1][0]], present = present, left.pop(tip)
        elif rng.random() < 0.1:
            tree.add_rewind(start)
        else:
            if start < tree.end:
                left[present[-1][0]] = present
            tree.add_run(start, end := start + rng.randint(1, 9))
            starts = [0, *(ends for _, ends in present)]
            kept = [
                (each, min(ends, start))
                for (each, ends), begins in zip(present, starts, strict=False)
                if begins < start
            ]
            present = [*kept, (line, end)]
        assert (tree.last, tree.tip, tree.end) == (line, *present[-1]) if present else (line, 0, 0)
        for frame in range(tree.end + 1):
            expected = next((each for each, ends in present if ends >= frame), 0) if frame else 0
            assert tree.line_of(frame) == expected


ZEROS = "0" * 16  # a digest
ODD_COMMANDS = ["x", "", " ", "undo", "@2", "@-1", "@1 b", "branch=1", "branch=99999", "f @0", "f" * 3000]
ODD_COMMANDS += ["fbsz*99999999999999", "fb*999999999", "fbsz*0"]
ODD_MORE = ["[]", "3", '{"start":0}', '{"start":2}', '{"start":"1"}', '{"a":1}', '{"left":"x"}']
ODD_MORE += [f'{{"loss":{loss}}}' for loss in ('"x"', "[]", "true", 10**400, '"nan"')]
ODD_MORE += [f'{{"raised":{raised}}}' for raised in ("3", "[]", "true")]
ODD_MORE += [f'{{"raised":"E","said":{said}}}' for said in ("3", "[]", '["a"]', '["a","b","c"]', "{}")]
ODD_LINES = [
    *['{"a": 1}', "[3]", "null", "3", "\0", "", "[" * 100_000, "1" * 10_000, '[2,1,"b","00"]', "\xff"],
    *[f'[{number},1,"b","{ZEROS}"]' for number in (1, 3, -2, "true", "2.0")],
    *[f'[2,{parent},"b","{ZEROS}"]' for parent in (0, 2, 5, -1, "null", "1e400", 10**30)],
    *[f'[2,1,"{command}","{ZEROS}"]' for command in ODD_COMMANDS],
    *[f'[2,1,"b","{ZEROS}",{more}]' for more in ODD_MORE],
    *[f'[2,1,"bs","{ZEROS}",{{"raised":"E"}}]', f'[2,0,"@0","{ZEROS}",{{"raised":"E","start":0}}]'],
    *['{"left":3', '{"left":[]}', '{"left":3,"loss":"x"}', '{"left":3,"loss":[]}'],
]


@pytest.mark.parametrize("line", ODD_LINES, ids=lambda line: repr(line)[:50])
def test_a_damaged_line_is_named_and_those_before_it_are_read(path: Path, line: str) -> None:
    session = kept(path)
    session.run("f")
    whole = path.stat().st_size
    with path.open("a", encoding="latin-1") as file:
        file.write(f"{line}\n[3,2,")
    journal = read_journal(path)
    assert str(journal.damage).startswith("its line 3 cannot be read (")
    assert (journal.size, journal.unread_bytes, journal.left) == (whole, len(line) + 6, None)
    assert (told(journal), journal.frame, journal.loss) == (["f"], 1, session.frame.loss)


@pytest.mark.parametrize(("rest", "damaged"), [("[2,1,", False), ('{"left":', False), ("\0\0\0", False), ("[3,", True)])
def test_what_stands_behind_the_last_line_is_cut_off_only_where_it_is_the_beginning_of_the_next(
    path: Path, rest: str, damaged: bool
) -> None:
    kept(path).run("f")
    with path.open("a") as file:
        file.write(rest)
    assert bool(read_journal(path).damage) is damaged


ODD_FIELDS = [
    *[("scenario", value) for value in (None, 3, "", [], "a\0b", "x" * 5000)],  # type: ignore[var-annotated]
    *[("arguments", value) for value in (None, [], "x", {"seed": "0"}, {"seed": True}, {"seed": 10**30}, {"lr": "1"})],  # type: ignore[var-annotated]
    *[("arguments", value) for value in ({"decay": 3}, {"decay": "x"}, {"nobody": 1}, {"memory": []}, {"state": 0})],  # type: ignore[var-annotated]
    *[("own", value) for value in (None, [], "x", {"seed": 1}, {"scenario": "x"}, {"x": 10**400})],  # type: ignore[var-annotated]
    *[("device", 3), ("threads", "1"), ("threads", 1e9), ("threads", None), ("versions", []), ("versions", {"a": 1})],
    *[
        ("sha256", "x"),
        ("sha256", 3),
        ("started", "now"),
        ("started", 1e300),
        ("started", -1),
        ("started", float("nan")),
    ],
    *[("digest_version", value) for value in (None, "1", True, 0, 99)],
    *[("autograd-tui journal", value) for value in (None, "1", [], {}, 1.5)],  # type: ignore[var-annotated]
]


@pytest.mark.parametrize(("name", "value"), ODD_FIELDS, ids=lambda value: repr(value)[:30])
def test_a_first_line_that_opens_no_run_is_refused(path: Path, name: str, value: object) -> None:
    kept(path).run("f")
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | {name: value}), *rest, ""]))
    with pytest.raises(Refused, match="is no journal: its first line says nothing that opens a run"):
        read_journal(path)


@pytest.mark.parametrize("scenario", ["a\nb.py", "caf\udce9.py", "\x1b[2J.py"])
def test_a_scenario_may_have_any_name_that_a_file_can_have(path: Path, scenario: str) -> None:
    session = open_session("linear")
    config = replace(session.about.config, scenario=scenario, own={"text": "two\nlines"})
    session.observer = JournalWriter(path, replace(session.about, config=config), private=True)
    session.run("f")
    assert read_journal(path).config == config
    assert journal_summary(path).isprintable()


def test_a_first_line_lacks_nothing(path: Path) -> None:
    kept(path).run("f")
    first, *rest = path.read_text().splitlines()
    for name in set(json.loads(first)) - {"columns", "hashes", "digest_version"}:  # which journals of old do not have
        without = {key: value for key, value in json.loads(first).items() if key != name}
        path.write_text("\n".join([json.dumps(without), *rest, ""]))
        with pytest.raises(Refused, match="is no journal"):
            read_journal(path)


def test_a_command_is_as_long_as_a_line_may_be_or_does_not_run(path: Path) -> None:
    session = kept(path)
    with pytest.raises(UnknownCommand, match="is longer than a command may be"):
        session.run(f"optimizer=adam,betas=({'.5,' * 500})")  # each is written out as 0.5
    session.run(f"optimizer=adam,betas=({'.5,' * 490})")
    closed(session)
    assert read_journal(path).damage is None


def test_a_file_longer_than_any_journal_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 1000)
    (tmp_path / "j").write_bytes(b" " * 1001)
    with pytest.raises(Refused, match="is longer than 1,000 bytes"):
        read_journal(tmp_path / "j")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "j")
    with pytest.raises(Refused, match="cannot be read: it is a"):
        read_journal(tmp_path / "j")


def test_a_damaged_journal_is_kept_beside_before_a_run_goes_on_in_it(path: Path) -> None:
    first = kept(path)
    list(first.run_all("fb"))
    closed(first)
    with path.open("a") as file:
        file.write('not ours\n[3,2,"s","0000000000000000"]\n')
    damaged = path.read_bytes()
    path.with_name("line.journal.damaged").write_text("an older one")
    session = open_session("linear")
    list(session.run_all("fb"))
    session.observer = JournalWriter.resume(read_journal(path), session.about, left={})
    session.run("s")
    assert (told(read_journal(path)), read_journal(path).damage) == (["f", "b", "s"], None)
    assert path.with_name("line.journal.damaged-2").read_bytes() == damaged
    assert path.with_name("line.journal.damaged").read_text() == "an older one"


@pytest.mark.parametrize("text", ["", "{}\n", "[]\n", "words\n", "\xff\n", '{"autograd-tui journal": 1}\n'])
def test_what_is_no_journal_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "j").write_text(text, encoding="latin-1")
    with pytest.raises(Refused, match="is no journal"):
        read_journal(tmp_path / "j")


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j").write_text('{"autograd-tui journal": 2}\n')
    with pytest.raises(Refused, match="format 2, and this version reads format 1"):
        read_journal(tmp_path / "j")


def test_two_cannot_write_the_same_journal(path: Path) -> None:
    session = kept(path)
    session.run("f")
    with pytest.raises(Refused, match="is being written by another run"):
        JournalWriter.resume(read_journal(path), session.about, left={})


def problem(session: Session) -> str:
    assert session.observer is not None
    return session.observer.take_problem() or ""


def why_not_kept(session: Session) -> str:
    assert session.observer is not None
    problem = session.observer.problem
    return problem.sentence if problem is not None else ""


def test_a_journal_removed_while_it_runs_is_said_once_and_the_run_goes_on(path: Path) -> None:
    session = kept(path)
    session.run("f")
    path.unlink()
    assert session.run("b").index == 2
    assert problem(session).endswith("cannot be written (it has been removed): this run is not kept.")
    session.run("s")
    assert problem(session) == ""
    assert "this run is not kept" in why_not_kept(session)
    assert not path.exists()


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


def emptied(path: Path) -> None:
    path.write_text("")


def written_to(path: Path) -> None:
    with path.open("a") as file:
        file.write("x")


def replaced(path: Path) -> None:
    path.with_name("other").write_text("mine")
    path.with_name("other").rename(path)


def moved(path: Path) -> None:
    path.rename(path.with_name("other"))


def moved_and_replaced(path: Path) -> None:
    moved(path)
    path.write_bytes(path.with_name("other").read_bytes())


@pytest.mark.parametrize(
    ("touch", "why", "is_kept"),
    [
        (cut_short, "another program has cut it short", "kept no further than frame 1"),
        (emptied, "another program has cut it short", "not kept"),
        (written_to, "another program has written to it", "kept no further than frame 2"),
        (replaced, "another file has taken its place", "not kept"),
        (moved, "it has been moved", "kept no further than frame 2"),
        (moved_and_replaced, "another file has taken its place", "kept no further than frame 2"),
        (os.unlink, "it has been removed", "not kept"),
    ],
)
def test_what_somebody_does_to_a_journal_is_said_at_the_next_line_and_left_as_it_is(
    path: Path, touch: Callable[[Path], None], why: str, is_kept: str
) -> None:
    session = kept(path)
    list(session.run_all("fb"))
    touch(path)
    files = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    list(session.run_all("s @1 z"))
    assert problem(session) == f"the journal {path} cannot be written ({why}): this run is {is_kept}."
    session.close(in_order=True)
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == files


def test_a_journal_is_where_it_was_also_where_a_scenario_works_in_another_folder(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()
    monkeypatch.chdir(path.parent)
    session = kept(Path("line.journal"))
    session.run("f")
    monkeypatch.chdir("/")
    session.run("b")
    assert (problem(session), told(read_journal(path))) == ("", ["f", "b"])


def test_what_a_full_disk_took_of_a_line_stays_where_others_have_written_behind_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = kept(path)
    session.run("f")
    write = os.write

    def crowded(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[:5]) + 0 * write(descriptor, b"theirs")

    monkeypatch.setattr(os, "write", crowded)
    session.run("b")
    monkeypatch.undo()
    assert "(No space left on device): this run is kept no further than frame 1." in problem(session)
    assert path.read_bytes().endswith(b"theirs")
    assert read_journal(path).frame == 1


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    session = kept(tmp_path / "file" / "runs" / "line.journal")
    session.run("f")
    assert "cannot be written (Not a directory): this run is not kept. Each command tries again." in problem(session)


def disk_with_room(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let files have so many bytes; what goes beyond is written in part, then refused, as a full disk does."""
    write = os.write

    def written(descriptor: int, data: bytes) -> int:
        room = size - os.fstat(descriptor).st_size
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:room])

    monkeypatch.setattr(os, "write", written)


def test_what_a_full_disk_has_not_taken_is_written_once_there_is_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, straight = kept(path), open_session("linear")
    session.run("f")
    before = path.read_bytes()
    disk_with_room(monkeypatch, len(before) + 5)
    frames = [*session.run_all("bs"), *session.run_free(session.end_of(40), lambda: False), *session.run_all("@3 z")]
    assert path.read_bytes() == before
    assert "(No space left on device): this run is kept no further than frame 1." in problem(session)
    monkeypatch.undo()
    frames += session.run_all("lr=0.5 branch=1 f")
    assert (why_not_kept(session), problem(session)) == ("", f"the journal {path} has all of this run again.")
    closed(session)
    again = open_session("linear")
    resume_run(again, read_journal(path))
    assert again.frame.same(session.frame)
    assert all(each.matches for each in verify_journal(open_session("linear"), read_journal(path)))
    list(straight.run_all("fbs"))
    assert straight.frame.same(frames[1])


def test_a_run_is_kept_whole_where_its_folder_can_be_made_later(path: Path) -> None:
    path.parent.write_text("")
    session = kept(path)
    list(session.run_all("fbs"))
    path.parent.unlink()
    session.close(in_order=True)
    assert why_not_kept(session) == ""
    assert told(read_journal(path)) == [*"fbs"]


def test_a_file_into_which_nothing_could_be_written_is_not_left_behind(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = kept(path)
    disk_with_room(monkeypatch, 5)
    list(session.run_all("fbs"))
    session.close(in_order=True)
    assert "(No space left on device): this run is not kept." in why_not_kept(session)
    assert not path.exists()


def test_lines_wait_up_to_a_bound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_file, "MAX_PENDING_BYTES", 100)
    session = kept(path)
    session.run("f")
    disk_with_room(monkeypatch, 0)
    list(session.run_all("bsz fbsz*3"))
    monkeypatch.undo()
    list(session.run_all("fb"))
    assert "this run is kept no further than frame 1." in why_not_kept(session)
    assert told(read_journal(path)) == ["f"]


def test_a_journal_that_can_be_read_alone_is_gone_on_with_unkept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = kept(path)
    list(first.run_all("fb"))
    closed(first)
    read_only = OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr(journal_file, "open_file", Mock(side_effect=read_only))
    session = open_session("linear")
    resume_run(session, read_journal(path))
    assert session.run("s").index == 3
    assert problem(session).endswith("(Read-only file system): this run is kept no further than frame 2.")
    assert told(read_journal(path)) == ["f", "b"]
