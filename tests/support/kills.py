"""Kill runs at random moments with SIGKILL, in twelve ways, and see what their journals have kept.

As a script: `python tests/support/kills.py 1000` kills so many; `python tests/support/kills.py 1 --first 417` kills the
one of that number again, and `--mode rewound` kills all in one way. All are copies of one process.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import random
import select
import signal
import struct
import sys
import tempfile
import termios
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any
from unittest.mock import patch

import torch

from autograd_tui.cli import main as program
from autograd_tui.core.command import parse
from autograd_tui.core.errors import Refused
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.journal import frame_stream as drawn_frames
from autograd_tui.journal import writer as writing
from autograd_tui.journal.entry import frame_digest
from autograd_tui.journal.followed_session import FollowedSession
from autograd_tui.journal.reader import read_journal
from autograd_tui.journal.resume_run import resume_run
from autograd_tui.journal.writer import JournalWriter
from autograd_tui.tui import app
from autograd_tui.tui.trainer_status import StatusPublisher
from resume_check import Told, Verdict, do, judge, state
from session_internals import open_with_many_checkpoints

Out = Callable[[str], None]  # takes a line
Words = list[str]
PHASES = [*"fbsz" * 3]
SETTINGS = ["lr=0.05", "w=3", "b[0]=-1", "optimizer=adam", "optimizer=sgd,momentum=0.9"]
BACK = ["undo", "@0", "@1", "@2", "@5", "@9"]
FORWARD = [*"fbsz" * 5, "free 20", *"fbs"]
KEYS = ["f", "b", "s", "z", " ", "n", "5n", "u", "40n"]
GENERATIONS = 5
MANY = 3000  # words: more than are done before the end
FAST = {
    "CHECKPOINT_INTERVAL": 0.0,
    "MAX_CHECKPOINT_SHARE": float("inf"),
}  # a checkpoint on disk whenever there is a new one


# Processes: each is a copy of this one, which has torch and everything else at hand, and no threads.


class Copy:
    """A copy of this process that tells lines."""

    def __init__(self, run: Callable[[Out], None], *, terminal: bool = False) -> None:
        reading, writing = os.pipe()
        self.child, self.terminal = pty.fork() if terminal else (os.fork(), None)  # type: ignore[var-annotated]
        if not self.child:
            os.close(reading)
            _run_here(run, writing)
        os.close(writing)
        self._reading, self._data = reading, b""

    def hear(self, seconds: float, *, until: str = "") -> None:
        """Take in what it tells for so long, or until a line, or its end."""
        end = monotonic() + seconds
        sources = [self._reading] if self.terminal is None else [self._reading, self.terminal]
        while (left := end - monotonic()) > 0 and not (until and f"{until}\n".encode() in self._data):
            for source in select.select(sources, [], [], left)[0]:
                try:
                    data = os.read(source, 1 << 16)
                except OSError:  # a terminal whose program has ended
                    data = b""
                if not data:
                    return
                self._data += data if source == self._reading else b""

    def kill(self) -> list[str]:
        """Kill it; give all whole lines that it has told."""
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)
        while data := os.read(self._reading, 1 << 16):
            self._data += data
        os.close(self._reading)
        if self.terminal is not None:
            os.close(self.terminal)
        return self._data.decode().split("\n")[:-1]


def _run_here(run: Callable[[Out], None], writing: int) -> None:
    def out(line: str) -> None:
        os.write(writing, f"{line}\n".encode())

    try:
        run(out)
    except BaseException:
        out(json.dumps(traceback.format_exc()))
    os._exit(0)


def elsewhere(answer: Callable[[], Verdict]) -> Verdict:
    """Give what a function answers in a copy of this process."""
    copy = Copy(lambda out: out(json.dumps(asdict(answer()))))
    copy.hear(600)
    told = json.loads(copy.kill()[-1])
    return Verdict(told) if isinstance(told, str) else Verdict(**told)


# Runs of words.


def run_words(session: Session, words: Words, out: Out) -> None:
    """Do words, and tell before and after each."""
    for word in words:
        out("begun")
        with suppress(Refused):
            do(session, word, lambda index: out(f"{index} {monotonic()}"))
        out("done")


def kill_words(
    path: Path,
    words: Words,
    after: float,
    opened: Callable[[], Session] = open_session,
    *,
    known: Sequence[str] = (),
    early: bool = False,
    fast: bool = False,
) -> Verdict:
    """Run words, kill them, and judge; `known` are those that an earlier run of the same journal has done.

    early: the time until the end begins before the run is opened. fast: checkpoints are written all the time.
    """

    def run(out: Out) -> None:
        with patch.multiple(writing, **FAST) if fast else ExitStack():  # type: ignore[call-overload]
            if early:
                out("ready")
            session = opened()
            if path.exists() and path.stat().st_size:
                resume_run(session, read_journal(path))
            else:
                path.unlink(missing_ok=True)  # it may have been made, and nothing written
                session.observer = JournalWriter(path, session.about, private=True)
            if not early:
                out("ready")
            run_words(session, words, out)

    told = _told(Copy(run), after)
    told.done += len(known)
    return elsewhere(lambda: judge(path, [*known, *words], told, opened))


def _told(copy: Copy, after: float) -> Told:
    copy.hear(60, until="ready")
    copy.hear(after)
    return Told.read(line for line in copy.kill() if line != "ready")


def some_words(rng: random.Random, *kinds: Sequence[str], many: int = MANY) -> Words:
    """Choose words, each of one of the kinds, which are equally frequent."""
    return [rng.choice(rng.choice(kinds)) for _ in range(many)]


def some_scenario(rng: random.Random) -> Callable[[], Session]:
    """Choose what is trained, and how."""
    options = {
        "decay": rng.choice([None, "plateau:0.5:1"]),
        "optimizer": rng.choice([None, "adam", "sgd,momentum=0.9"]),
    }
    return partial(open_session, rng.choice(["linear", "linear", "spiral"]), **options)  # type: ignore[arg-type]


# The twelve ways.


def typed(path: Path, rng: random.Random) -> Verdict:
    """Single commands, settings and other optimizers among them."""
    return kill_words(path, some_words(rng, PHASES, PHASES, SETTINGS), rng.uniform(0, 0.15), some_scenario(rng))


def free(path: Path, rng: random.Random) -> Verdict:
    """One free run, which may begin in the middle of an iteration."""
    words = [*"fbsz"[: rng.randrange(5)], "free 1000000000"]
    return kill_words(path, words, rng.uniform(0, 1.2), some_scenario(rng))


def rewound(path: Path, rng: random.Random) -> Verdict:
    """Free runs, and going back behind each."""
    runs = [f"free {rng.randint(2, 60)}" for _ in range(200)]
    backs = [[*rng.choices(["undo", f"@{rng.randrange(200)}"], k=rng.choice([1, 1, 2])), *"fbsz"] for _ in runs]
    words = [word for run, back in zip(runs, backs, strict=True) for word in [run, *back[: rng.randint(1, 4)]]]
    return kill_words(path, words, rng.uniform(0, 0.15))


def branched(path: Path, rng: random.Random) -> Verdict:
    """Branches left and taken again."""
    words = some_words(rng, FORWARD, FORWARD, BACK, ["branch=1", "branch=2", "branch=3"])
    return kill_words(path, words, rng.uniform(0, 0.2), some_scenario(rng))


def saved(path: Path, rng: random.Random) -> Verdict:
    """Checkpoints on disk, which are being written most of the time."""
    opened = partial(open_with_many_checkpoints, rng.choice(["linear", "spiral"]))
    words = some_words(rng, FORWARD, FORWARD, FORWARD, [*BACK, "branch=1"])
    return kill_words(path, words, rng.uniform(0, 0.3), opened, fast=True)


def resumed(path: Path, rng: random.Random) -> Verdict:
    """A run over generations: each is killed, also while it is being resumed, and the next one goes on."""
    verdict, opened, fast = Verdict(), some_scenario(rng), rng.random() < 0.5
    for _ in range(GENERATIONS):
        words = some_words(rng, FORWARD, FORWARD, SETTINGS, [*BACK, "branch=1", "branch=2"])
        early, lost = rng.random() < 0.5, verdict.lost
        known, after = verdict.words, rng.uniform(0, 0.1)
        verdict = kill_words(path, words, after, opened, known=known, early=early, fast=fast)
        verdict.lost = max(lost, verdict.lost)
        if verdict.wrong:
            break
    return verdict


def begun(path: Path, rng: random.Random) -> Verdict:
    """The journal is just being made, in a folder that is not there yet."""
    return kill_words(path.parent / path.stem / "runs" / path.name, some_words(rng, PHASES), rng.uniform(0, 0.004))


def raising(path: Path, rng: random.Random) -> Verdict:
    """Commands out of turn, many of which raise."""
    return kill_words(path, some_words(rng, "FBSZ", "FBB", ["lr=0.1", "undo", "w=nan"]), rng.uniform(0, 0.15))


def watched(path: Path, rng: random.Random) -> Verdict:
    """A run with a watchpoint, and a learning rate that decays."""
    words = [f"watch {rng.choice(['nonfinite', 'grad_norm > 2', 'w still'])}", *["free 100000"] * 50]
    opened = partial(open_session, "linear", decay="plateau:0.5:1", optimizer="sgd,lr=0.05,momentum=0.9")
    return kill_words(path, words, rng.uniform(0, 0.5), opened)


def headless(path: Path, rng: random.Random) -> Verdict:
    """The program without a screen, which does what --do says."""
    words = ["F", *some_words(rng, "FBSZ", "FBSZ", ["lr=0.05", "w=3", "undo", "@1"], many=800)]

    def run(out: Out) -> None:
        lines = os.pipe()
        reader = os.fork()
        if not reader:
            os.close(lines[1])
            with os.fdopen(lines[0]) as file:
                for _ in file:
                    out("done\nbegun")
            os._exit(0)
        os.close(lines[0])
        os.dup2(lines[1], 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        out("ready\nbegun")
        program(["linear", "--headless", "--json", "--threads", "1", "--do", " ".join(words), "--journal", str(path)])

    told = _told(Copy(run), rng.uniform(0.05, 0.4))
    told.begun = told.done < len(words)
    return elsewhere(lambda: judge(path, words, told, partial(open_session, "linear", threads=1)))


def followed(path: Path, rng: random.Random) -> Verdict:
    """A run that another process follows, whose file of frames begins anew all the time."""
    words = ["f", *some_words(rng, ["next"] * 4 + ["free 30"])]

    def lead(out: Out) -> None:
        small = partial(drawn_frames.FrameStream, max_bytes=20_000)
        with patch.object(writing, "FrameStream", small), patch.object(drawn_frames, "MIN_INTERVAL", 0.0):
            session = open_session("linear")
            session.observer = observer = JournalWriter(path, session.about, private=True)
            for word in words:
                out("begun")
                do(session, str(session.next_command()) if word == "next" else word)
                observer.on_shown(session.frame, session.newest, session.history)
                out("done")
                if word == "f":
                    out("ready")

    def follow(out: Out) -> None:
        following, shown = FollowedSession(path), -1
        while True:
            if following.frame.index != shown:
                shown = following.frame.index
                out(f"{shown} {frame_digest(following.frame)}")
            following.refresh()

    leader = Copy(lead)
    leader.hear(60, until="ready")
    follower = Copy(follow)
    leader.hear(rng.uniform(0, 0.3))
    told = Told.read(line for line in leader.kill() if line != "ready")
    follower.hear(0.1)
    return elsewhere(partial(_judge_followed, path, words, told, follower.kill()))


def _judge_followed(path: Path, words: Words, told: Told, shown: list[str]) -> Verdict:
    in_turn, session = [], open_session("linear")
    for word in words[: told.done + 1]:
        in_turn.append(str(session.next_command()) if word == "next" else word)
        do(session, in_turn[-1])
    straight = open_session("linear")
    for line in shown:
        if line.startswith('"'):
            return Verdict(f"the follower raised: {json.loads(line)}")
        index, digested = line.split()
        do(straight, f"to {index}")
        if frame_digest(straight.frame) != digested:
            return Verdict(f"the follower shows another frame {index}")
    return judge(path, in_turn, told)


def on_screen(path: Path, rng: random.Random) -> Verdict:
    """The program on a screen, with keys."""
    publish = StatusPublisher.publish

    def run(out: Out) -> None:
        def publish_and_tell(publisher: StatusPublisher, session: Any, *arguments: Any, **options: Any) -> None:
            publish(publisher, session, *arguments, **options)
            out(json.dumps([monotonic(), publisher.status.run is not None, session.commands()]))

        StatusPublisher.publish = publish_and_tell  # type: ignore[assignment, method-assign]
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(each, "r" if not each else "w") for each in range(3))
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
        os.environ["TERM"] = "xterm-256color"
        program(["linear", "--journal", str(path)])

    copy = Copy(run, terminal=True)
    assert copy.terminal is not None
    fcntl.ioctl(copy.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    copy.hear(60, until='""]')  # it stands at frame 0
    end = monotonic() + rng.uniform(0.1, 1.5)
    keys = rng.choices(KEYS, k=200) + ["r"] * (rng.random() < 0.3)
    for key in rng.sample(keys, len(keys)):
        if monotonic() > end:
            break
        os.write(copy.terminal, key.encode())
        copy.hear(rng.uniform(0, 0.05))
        if key == "r":
            copy.hear(end - monotonic())
    lines = copy.kill()
    return elsewhere(lambda: _judge_screen(path, lines))


def _judge_screen(path: Path, lines: list[str]) -> Verdict:
    """Where training stood when it was last told is kept, and at most one command more; of a run a quarter less."""
    told = [json.loads(line) for line in lines]
    if isinstance(told[-1], str):
        return Verdict(told[-1])
    last, runs, commands = told[-1]
    if not path.exists() or not path.stat().st_size:
        return Verdict(f"{commands} were done, and there is no journal" if commands else None)
    session, journal = open_session("linear"), read_journal(path)
    resume_run(session, journal)
    straight = open_session("linear")
    for command in parse(session.commands()):
        straight.run(command)
    verdict = Verdict()
    if state(straight)[:2] != state(session)[:2]:
        verdict.wrong = f"it is resumed at frame {session.frame.index}, which {session.commands()} does not lead to"
        return verdict
    kept, at_least = session.frame.index, len(parse(commands))
    if runs:
        behind = [when for when, _, done in told if len(parse(done)) > kept]
        verdict.lost = last - behind[0] if behind else 0.0
        at_least = max((len(parse(done)) for when, _, done in told if when < last - 0.25), default=0)
    before = list(parse(commands))[: min(at_least, kept)]
    if list(parse(session.commands()))[: len(before)] != before or kept < at_least - 1:
        verdict.wrong = f"{session.commands()} are kept, and {commands} were done"
    return verdict


MODES: dict[str, Callable[[Path, random.Random], Verdict]] = {
    each.__name__: each
    for each in (typed, free, rewound, branched, saved, resumed, begun, raising, watched, headless, followed, on_screen)
}


def kill(first: int, times: int, mode: str | None = None) -> Iterator[tuple[int, str, Verdict]]:
    """Kill runs by their numbers, the twelve ways in turn, or all in one of them; give what became of each."""
    torch.set_num_threads(1)
    _warm()
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, XDG_CONFIG_HOME=folder, XDG_STATE_HOME=folder):
        for number in range(first, first + times):
            name = mode or list(MODES)[number % len(MODES)]
            yield number, name, MODES[name](Path(folder) / f"{number}.journal", random.Random(number))


def _warm() -> None:
    """Have all that copies need: what is imported late takes seconds."""
    assert app.AutogradApp  # type: ignore[truthy-function]
    with tempfile.TemporaryDirectory() as folder, patch.multiple(writing, **FAST):  # type: ignore[call-overload]
        for scenario in ("linear", "spiral"):
            session = open_with_many_checkpoints(scenario)
            session.observer = JournalWriter(Path(folder) / scenario, session.about, private=True)
            list(session.run_all("fbsz optimizer=adam,lr=0.1 fbsz"))
            list(session.run_free(session.end_of(20), lambda: False))
            session.close(in_order=True)


def main() -> None:
    """Kill as many as are asked for, and print what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("times", type=int, nargs="?", default=100)
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--mode", choices=MODES)
    arguments = parser.parse_args()
    wrong, lost = 0, 0.0
    for number, name, verdict in kill(arguments.first, arguments.times, arguments.mode):
        lost = max(lost, verdict.lost)
        if verdict.wrong:
            wrong += 1
            print(f"{number} {name}: {verdict.wrong}", flush=True)
    print(f"{arguments.times} runs killed, {wrong} not kept as promised; at most {lost:.3f} s of a free run lost")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
