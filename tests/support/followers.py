"""Follow one run from three processes: one is killed, one is stopped for a while; the leader must not notice.

As a script, on resnet18: `python tests/support/followers.py --iterations 100 --stopped 10`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic, sleep

from autograd_tui.engine.open_session import open_session
from autograd_tui.journal.entry import frame_digest
from autograd_tui.journal.reader import read_journal
from autograd_tui.journal.writer import JournalWriter

FOLLOWER = Path(__file__).with_name("follower.py")
FOLLOWERS = 3
KILLED, STOPPED, _ = range(FOLLOWERS)
Shown = dict[int, tuple[str, float]]  # by frame: its digest, and when it was shown or drawn


@dataclass(frozen=True)
class Outcome:
    """What became of one run with followers."""

    alone: list[str]  # the digests of the journal's lines, of a run that nobody followed
    led: list[str]
    drawn: Shown
    followed: list[Shown]
    codes: list[int]  # of the followers
    woken: float  # when the stopped one went on

    @property
    def wrong(self) -> list[str]:
        """Say what was not as promised."""
        found = [] if self.led == self.alone else ["the leader's numbers are not those of a run alone"]
        found += [] if self.codes == [-signal.SIGKILL, 0, 0] else [f"the followers ended with {self.codes}"]
        newest = max(self.drawn)
        for number, shown in enumerate(self.followed):
            found += [
                f"follower {number} shows another frame {index} than was drawn"
                for index, (digested, _) in shown.items()
                if self.drawn[index][0] != digested
            ]
            if number != KILLED and newest not in shown:
                found.append(f"follower {number} has not shown the newest frame, {newest}")
        return found

    @property
    def lags(self) -> list[float]:
        """Give how long after the leader each frame was shown, in seconds, by followers that ran at that time."""
        return [
            when - self.drawn[index][1]
            for number, shown in enumerate(self.followed)
            for index, (_, when) in list(shown.items())[1:]  # the first was drawn before anyone followed
            if number != STOPPED or self.drawn[index][1] > self.woken
        ]


class Leader:
    """A run that is kept and drawn, command by command."""

    def __init__(self, path: Path, scenario: str) -> None:
        self.session = open_session(scenario, threads=1)  # the other cores are for the followers
        self.observer = JournalWriter(path, self.session.about, private=True)
        self.session.observer = self.observer
        self.path = path
        self.drawn: Shown = {}

    def step(self, iterations: int) -> None:
        """Run so many iterations, and rest as one who looks does."""
        for _ in range(iterations):
            for letter in "fbsz":
                frame = self.session.run(letter)
                self.drawn[frame.index] = frame_digest(frame), monotonic()
                self.observer.on_shown(frame, self.session.newest, self.session.history)
        self.observer.on_idle()

    def leave(self) -> list[str]:
        """End, and give what the journal has kept."""
        self.session.close(in_order=True)
        return [entry.digest for entry in read_journal(self.path).entries]


def lead(scenario: str, *, bouts: int, iterations: int, stopped: float) -> Outcome:
    """Run bouts of iterations with and without followers, one of them stopped for so many seconds at least."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        leader = Leader(folder / "led", scenario)
        leader.step(iterations)
        followers = [_follower(leader.path, folder / f"{number}") for number in range(FOLLOWERS)]
        for number in range(FOLLOWERS):
            _wait_for(folder / f"{number}")
        done = _bouts(leader, bouts, iterations)
        os.kill(followers[STOPPED].pid, signal.SIGSTOP)
        until = monotonic() + stopped
        done += _bouts(leader, bouts, iterations)
        followers[KILLED].kill()
        while monotonic() < until:
            done += _bouts(leader, 1, iterations)
        os.kill(followers[STOPPED].pid, signal.SIGCONT)
        woken = monotonic()
        done += _bouts(leader, bouts, iterations)
        led = leader.leave()
        codes = [each.wait() for each in followers]
        followed = [dict(_read(folder / f"{number}")) for number in range(FOLLOWERS)]
        alone = Leader(folder / "alone", scenario)
        for _ in range(done + 1):
            alone.step(iterations)
        return Outcome(alone.leave(), led, leader.drawn, followed, codes, woken)


def _bouts(leader: Leader, times: int, iterations: int) -> int:
    for _ in range(times):
        leader.step(iterations)
    return times


def _follower(journal: Path, out: Path) -> subprocess.Popen[bytes]:
    with out.open("wb") as file:
        return subprocess.Popen([sys.executable, FOLLOWER, journal], stdout=file)


def _wait_for(out: Path) -> None:
    while not out.stat().st_size:
        sleep(0.01)


def _read(out: Path) -> Iterator[tuple[int, tuple[str, float]]]:
    for line in out.read_text().split("\n")[:-1]:  # of one that was killed the last may be cut
        index, digested, when = json.loads(line)
        yield index, (digested, when)


def main() -> None:
    """Lead as long a run as is asked for, and print what was wrong, and how far followers were behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", default="resnet18")
    parser.add_argument("--bouts", type=int, default=20, help="of iterations, before, during and after the stop")
    parser.add_argument("--iterations", type=int, default=2, help="in a bout")
    parser.add_argument("--stopped", type=float, default=10.0, help="seconds")
    arguments = parser.parse_args()
    outcome = lead(
        arguments.scenario, bouts=arguments.bouts, iterations=arguments.iterations, stopped=arguments.stopped
    )
    print(*outcome.wrong, sep="\n")
    print(f"{len(outcome.drawn):,} frames drawn, {len(outcome.lags):,} shown by {FOLLOWERS} followers:", end=" ")
    print(f"median {median(outcome.lags):.3f} s behind, at worst {max(outcome.lags):.3f} s;", end=" ")
    print(f"{len(outcome.wrong)} things not as promised")
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
