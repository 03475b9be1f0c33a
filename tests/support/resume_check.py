"""Was a run that was killed kept as promised? It is resumed, and compared with one that was never disturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograd_tui.core.command import parse
from autograd_tui.core.errors import Refused
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.journal.entry import frame_digest
from autograd_tui.journal.reader import read_journal
from autograd_tui.journal.resume_run import resume_run, verify_journal

QUARTER = 0.25  # seconds of a free run that may be lost
Tell = Callable[[int], None]  # the frame that a free run has come to


def do(session: Session, word: str, tell: Tell = lambda index: None) -> None:
    """Do one word: a command, "free 50" iterations, or "to 207", a frame that lies ahead; raises Refused."""
    name, _, number = word.partition(" ")
    if name == "free":
        for frame in session.run_free(session.end_of(int(number)), lambda: False, every=0.02):
            tell(frame.index)
    elif name == "to":
        _go_to(session, int(number))
    elif word.startswith("watch "):
        session.arm(number)
    else:
        session.run(word)


def _go_to(session: Session, index: int) -> None:
    """Run freely as far as whole iterations go, and phase by phase to the frame."""
    while session.frame.index < index:
        whole = (index - session.frame.index) // 4
        if whole > 1:
            list(session.run_free(Goal(iteration=session.frame.iteration + whole - 1), lambda: False))
        else:
            session.run(session.next_command())


def state(session: Session) -> tuple[object, ...]:
    """Give where a session stands, in values that are equal only where everything is.

    The commands are listed one by one: a free run's are spelled as it happened to be sampled.
    """
    branches = [(each.number, each.fork, len(each), str(each.loss)) for each in session.branches]
    return (
        session.frame.index,
        frame_digest(session.frame),
        session.newest,
        "".join(map(str, parse(session.commands()))),
        branches,
    )


@dataclass
class Told:
    """What a process had told before it was killed."""

    done: int = 0  # words, the refused ones among them
    begun: bool = False  # whether one more had begun
    frames: Sequence[tuple[int, float]] = ()  # that a free run had come to, and when

    @classmethod
    def read(cls, lines: Iterable[str]) -> Told:
        """Read its lines."""
        told = cls()
        for line in lines:
            if line == "begun":
                told.begun, told.frames = True, []
            elif line == "done":
                told.done, told.begun = told.done + 1, False
            else:
                index, when = line.split()
                told.frames = [*told.frames, (int(index), float(when))]
        return told

    def lost(self, kept: int) -> float:
        """Say how many seconds of a free run are lost where it is kept up to a frame."""
        behind = [when for index, when in self.frames if index > kept]
        return self.frames[-1][1] - behind[0] if behind and self.begun else 0.0


@dataclass
class Verdict:
    """What became of one run."""

    wrong: str | None = None
    lost: float = 0.0  # seconds of a free run
    words: Sequence[str] = ()  # that the journal has


def judge(path: Path, words: Sequence[str], told: Told, opened: Callable[[], Session] = open_session) -> Verdict:
    """Resume a run of these words, and say what of it was not kept as promised."""
    straight = opened()
    done = [word for word in words[: told.done] if not _refused(straight, word)]
    if not path.exists() or not path.stat().st_size:
        nothing = state(straight) == state(opened())
        return Verdict(None if nothing else f"{len(done)} words were done, and there is no journal", words=done)
    journal, session = read_journal(path), opened()
    resume_run(session, journal)
    verdict = Verdict(words=done)
    if told.begun and words[told.done].startswith("free "):
        verdict.lost = told.lost(session.frame.index)
        if session.frame.index > straight.frame.index:
            verdict.words = [*done, f"to {session.frame.index}"]
    elif told.begun and state(session) != state(straight):
        verdict.words = [*done, words[told.done]]
    if verdict.words != done and _refused(straight, verdict.words[-1]):
        verdict.words = done
    if verdict.lost > QUARTER:
        verdict.wrong = f"{verdict.lost:.3f} s of a free run are lost"
    elif state(session) != state(straight):
        here, there = (f"{each.frame.index} of {each.newest}, {each.commands()}" for each in (session, straight))
        verdict.wrong = f"it is resumed at frame {here}, and stood at frame {there}"
    else:
        verdict.wrong = next(
            (_differs(line.entry.id) for line in verify_journal(opened(), journal) if not line.matches), None
        )
    return verdict


def _refused(session: Session, word: str) -> bool:
    try:
        do(session, word)
    except Refused:
        return True
    return False


def _differs(number: int) -> str:
    return f"line {number + 1} differs when it is done again"
