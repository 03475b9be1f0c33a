"""A table of what cannot be: one sentence; exit code 2 where the command line shows it, 1 where only a session can."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from autograd_tui.cli import main
from autograd_tui.scenarios.transformer import TEXT
from program import Run

OPTIONS = r"""
nope
linaer
linear:build
missing.py
missing.py:name
/
.
''
' '
'a b'
two words
--no-such-option
--optimizer adem
--optimizer lbfgs
--optimizer ''
--optimizer 7
--optimizer sgd,lr
--optimizer sgd,lr=fast
--optimizer sgd,lr=-1
--optimizer sgd,lr=nan
--optimizer sgd,momentum=-1
--optimizer sgd,momentun=0.9
--optimizer sgd,nesterov=true
--optimizer adam,betas=(0.9
--optimizer adam,betas=(2,3)
--optimizer adam,betas=0.9
--optimizer muon
--watch everything
--watch ''
--watch "loss > ten"
--watch "grad_norm < -1"
--watch "nobody > 3"
--lr -1
--lr nan
--lr inf
--lr fast
--lr ''
--lr 1e999
--lr 1,5
--lr
--momentum -1
--momentum text
--weight-decay -1
--weight-decay text
--decay x
--decay ''
--decay plateau:
--decay plateau:2
--decay plateau:-1
--decay plateau:nan
--decay plateau:0.1:-1
--decay plateau:0.1:x
--decay plateau:0.1:5:-1
--decay plateau:0.1:5:1e-5:6
--batch-size 0
--batch-size -1
--batch-size text
--batch-size 1.5
--batch-size 99999999999
--batch-size 999999999999999999999999
--image-size 32
--seed -1
--seed 1.5
--seed text
--seed 99999999999999999999
--device toaster
--device cuda:-1
--device cuda:99
--device cpu:7
--device meta
--device ''
--threads 0
--threads -1
--threads text
--threads 999999999999
--data stale
--option width
--option =3
--option lr=3
--option width=3
--option ''
--repeat -1
--repeat 0
--repeat text
--repeat 1.5
--repeat 99999999999999
--theme nope
"""
WORDS = r"""
x
*3
f*
f*0
f*-1
f*1.5
fbsz*9999999999999
fbsz*99999999999999999999999999999999
(fb
fb)*3
f;b
w=
=3
lr=
lr=fast
lr=1=2
backward=1
undo=1
undo*3
@
@x
@-1
@99999999999999999999
w[-1]=3
w[=3
optimizer=
optimizer=7
optimizer=sgd,lr
--
é
"""
LATER = {  # what only a session can know: one line all the same, exit code 1
    "@99": "there is no frame 99: the newest is frame 0.",
    "undo": "there is nothing to undo: this is frame 0.",
    "q=3": 'there is no parameter "q": this model has w, b.',
    "w[9]=3": "w[9] does not exist: w has shape (1,), counted from 0.",
    "lr=-1": "a learning rate must be a number from 0 up, not -1.0.",
    "lr=nan": "a learning rate must be a number from 0 up, not nan.",
    "lr=inf": "a learning rate must be a number from 0 up, not inf.",
    "optimizer=adem": 'torch.optim has no "adem": the nearest is adam.',
    "optimizer=sgd,lr=-1": "a learning rate must be a number from 0 up, not -1.0.",
    "b": "backward needs a loss, and there is none yet: run forward first (B tries it all the same).",
    "s": "step has no gradient to use, so nothing would move (S shows it): run backward first.",
}
OWN_OPTIONS = {  # of the scenarios that come with the program
    "spiral width=0": "--option width must lie between 1 and 65536, not 0.",
    "spiral width=-3": "--option width must lie between 1 and 65536, not -3.",
    "spiral width=1e9": "--option width must lie between 1 and 65536, not 1000000000.",
    "spiral width=1e18": "--option width must lie between 1 and 65536, not 1e+18.",
    "spiral width=nan": "--option width=nan must be a whole number, as its default 32 is.",
    "spiral width=1.5": "--option width=1.5 must be a whole number, as its default 32 is.",
    "spiral width=": "--option width= must be a whole number, as its default 32 is.",
    "lstm width=0": "--option width must lie between 1 and 2048, not 0.",
    "lstm width=1e9": "--option width must lie between 1 and 2048, not 1000000000.",
    "lstm steps=0": "--option steps must lie between 1 and 10000, not 0.",
    "lstm steps=-1": "--option steps must lie between 1 and 10000, not -1.",
    "lstm steps=1e9": "--option steps must lie between 1 and 10000, not 1000000000.",
    "transformer width=-32": "--option width must lie between 1 and 2048, not -32.",
    "transformer width=1e9": "--option width must lie between 1 and 2048, not 1000000000.",
    "transformer width=30": "--option heads=4 does not divide width=30: each head takes an equal share of it.",
    "transformer heads=0": "--option heads must lie between 1 and 2048, not 0.",
    "transformer heads=3": "--option heads=3 does not divide width=32: each head takes an equal share of it.",
    "transformer heads=64": "--option heads=64 does not divide width=32: each head takes an equal share of it.",
    "transformer layers=-1": "--option layers must lie between 0 and 64, not -1.",
    "transformer layers=1e9": "--option layers must lie between 0 and 64, not 1000000000.",
    "transformer context=0": f"--option context must lie between 1 and {len(TEXT) - 1}, not 0.",
    f"transformer context={len(TEXT)}": f"--option context must lie between 1 and {len(TEXT) - 1}, not {len(TEXT)}.",
    "transformer context=1e9": f"--option context must lie between 1 and {len(TEXT) - 1}, not 1000000000.",
}
JUST_POSSIBLE = """
spiral width=1
lstm width=1
lstm steps=1
transformer width=1 heads=1
transformer heads=32
transformer layers=0
transformer context=1
"""


def rows(table: str) -> list[str]:
    return table.strip().split("\n")


def test_the_table_is_long() -> None:
    assert len({*rows(OPTIONS), *rows(WORDS), *LATER}) >= 120


@pytest.mark.parametrize("arguments", rows(OPTIONS))
def test_an_argument_that_means_nothing_is_one_sentence(run: Run, arguments: str) -> None:
    done = run(*shlex.split(arguments), "--headless", "--do", "f")
    assert (done.code, done.out, len(done.err)) == (2, [], 1)
    assert done.err[0].startswith("autograd-tui: ")


@pytest.mark.parametrize("word", rows(WORDS))
def test_a_word_that_is_no_command_is_refused_with_its_place(run: Run, word: str) -> None:
    done = run("--headless", f"--do=f b {word} s")
    assert (done.code, done.out, len(done.err)) == (2, [], 1)
    assert done.err[0].startswith("autograd-tui: word 3: ")


@pytest.mark.parametrize("word", LATER)
def test_what_only_a_session_can_know_is_one_sentence_too(run: Run, word: str) -> None:
    done = run("--headless", "--do", word)
    assert (done.code, done.out, done.err) == (1, [], [f"autograd-tui: {LATER[word]}"])


def own(row: str) -> list[str]:
    scenario, *options = row.split()
    return [scenario, *(word for option in options for word in ("--option", option))]


@pytest.mark.parametrize("row", OWN_OPTIONS)
def test_a_size_that_a_shipped_scenario_cannot_have_is_refused(run: Run, row: str) -> None:
    done = run(*own(row), "--headless", "--do", "f")
    assert (done.code, done.out, done.err) == (2, [], [f"autograd-tui: {OWN_OPTIONS[row]}"])


@pytest.mark.parametrize("row", [*rows(JUST_POSSIBLE), f"transformer context={len(TEXT) - 1}"])
def test_the_least_and_greatest_sizes_train(run: Run, row: str) -> None:
    done = run(*own(row), "--headless", "--do", "fbsz*2")
    assert (done.code, done.err) == (0, [])


def test_the_nearest_optimizer_is_named(run: Run) -> None:
    assert run("--optimizer", "adem", "--headless", "--do", "f").err == [
        'autograd-tui: torch.optim has no "adem": the nearest is adam.'
    ]


@pytest.mark.parametrize("arguments", ["--lr 0", "--do lr=0", "--momentum nan", "--do w=nan", "--do w=1e999"])
def test_what_torch_allows_is_allowed(run: Run, arguments: str) -> None:
    done = run("--headless", "--do", "f", *shlex.split(arguments))
    assert (done.code, done.err) == (0, [])


def test_one_small_image_is_too_little_for_a_batch_norm_in_pytorchs_own_words(run: Run) -> None:
    done = run("resnet18", "--image-size", "32", "--headless", "--json", "--do", "f")
    assert (done.code, len(done.out), len(done.err)) == (1, 1, 1)
    assert "Expected more than 1 value per channel when training" in done.err[0]


def test_control_characters_of_an_argument_do_not_reach_the_terminal(run: Run) -> None:
    done = run("no\x1b[2Jsuch\x07", "--headless", "--do", "f")
    assert (done.code, len(done.err)) == (2, 1)
    assert done.err[0].isprintable()


def test_a_folder_that_is_gone_is_no_reason_to_fail(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert run("--headless", "--do", "f").code == 0
    assert (run("my_model.py", "--headless", "--do", "f").code, run("linaer", "--headless", "--do", "f").code) == (2, 2)


def test_a_full_disk_behind_stdout_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    kept, full = os.dup(1), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    try:
        code = main(["--headless", "--do", "f"])
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(full)
    assert (code, capfd.readouterr().err) == (
        1,
        "autograd-tui: the lines could not be written: No space left on device\n",
    )
