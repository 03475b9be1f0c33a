"""Going back in a script, by processes that are forked from it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from autograd_tui.core.command import Command, Phase, parse_one
from autograd_tui.core.errors import Refused
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.script.script_process import ScriptProcess
from autograd_tui.engine.script.script_session import ScriptSession
from led_scripts import last_lines, run_to_end
from suite_options import some

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="scripts go back on Linux alone")

LOOP = """
import hashlib, random, sys
import torch
from torch import nn

torch.manual_seed(0)
random.seed(0)
model = nn.Sequential(nn.Linear(4, 300), nn.BatchNorm1d(300), nn.Dropout(0.3), nn.ReLU(), nn.Linear(300, 3))
parameters = list(model.parameters())
first = torch.optim.Adam(parameters[:2], lr=0.01)
other = torch.optim.SGD(parameters[2:], lr=0.1, momentum=0.9)
for number in range(24):
    for each in (first, other):
        each.zero_grad()
    x = torch.randn(64, 4) * random.random()
    loss = nn.functional.cross_entropy(model(x), torch.randint(0, 3, (64,)))
    loss.backward()
    first.step()
    other.step()
    print("iteration", number, loss.item(), flush=True)
digest = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
for value in model.state_dict().values():
    digest.update(value.numpy().tobytes())
print("sha256", digest.hexdigest(), random.random(), flush=True)
"""


@pytest.mark.usefixtures("started_anew")
@pytest.mark.parametrize("threads", some([None, "1"], 1))  # None: as many as there are cores
def test_the_end_has_the_bits_of_plain_python_whatever_was_run_again(
    threads: str | None, lead: Callable[[str], tuple[ScriptSession, bytearray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    plain = subprocess.run([sys.executable, "-c", LOOP], capture_output=True, text=True, check=True).stdout
    session, printed = lead(LOOP)
    for frame in session.run_until(session.end_of(3)):
        last = frame
    assert last.iteration == 3
    middle = session.run(parse_one(f"@{last.index - 8}"))
    assert middle.script is not None
    assert middle.script.output_muted
    assert session.newest == last.index
    assert session.run(Command("undo")).index == middle.index - 1
    marks = [middle.index - 1, 30, 40]
    assert session.run(parse_one("f")).iteration == 3
    for _ in session.run_free(session.end_of(12), lambda: False, every=0.05):
        pass
    far = session.frame
    assert session.run(parse_one("@5")).index == 5
    assert session.run(parse_one(f"@{far.index}")).index == far.index
    session.run(parse_one("@30"))
    assert not session.branches
    run_to_end(session)
    assert session.take_divergence() is None
    assert last_lines(printed, 1) == [plain.split("sha256")[1].strip()]
    # And back from the end.
    assert session.run(parse_one("@40")).index == 40
    run_to_end(session)
    assert last_lines(printed, 2) == [plain.split("sha256")[1].strip()] * 2
    # What was printed twice is told apart, and nothing stands where nothing was.
    words = [line for line in printed.decode().splitlines() if line.startswith("[")]
    assert words == [f"[taken back to frame {each}, it goes on from there]" for each in marks]


def test_another_learning_rate_makes_a_branch_that_can_be_taken_again(
    lead: Callable[[str], tuple[ScriptSession, bytearray]],
) -> None:
    session, _ = lead(LOOP)
    for _ in range(14):
        session.run(session.next_command())
    before = session.frame
    session.run(parse_one("@9"))
    session.run(parse_one("lr=0"))
    assert (session.newest, session.frame.learning_rate) == (10, 0.0)
    (branch,) = session.branches
    assert (branch.fork, len(branch)) == (9, before.index)
    for _ in range(6):
        session.run(session.next_command())
    other = session.frame
    again = session.run(parse_one(f"@{other.index - 2}"))  # sets the rate again on its way
    assert again.learning_rate == 0.0
    assert session.run(session.next_command()).same(session.look(again.index + 1))
    assert session.run(parse_one("branch=1")).params == before.params
    assert session.frame.index == before.index
    (left,) = session.branches
    assert len(left) == other.index
    assert session.run(parse_one(f"branch={left.number}")).params == other.params
    assert session.take_divergence() is None


REFUSED = {
    "other threads \\(watcher\\)": """
        import threading
        threading.Thread(target=threading.Event().wait, name="watcher", daemon=True).start()
    """,
    "worker processes \\(ForkProcess-1\\)": """
        import multiprocessing, time
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True).start()
    """,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_in_the_way_is_named(reason: str, lead: Callable[[str], tuple[ScriptSession, bytearray]]) -> None:
    session, _ = lead(textwrap.dedent(REFUSED[reason]) + LOOP)
    for _ in range(3):
        session.run(session.next_command())
    with pytest.raises(Refused, match=f"cannot be taken back: it has {reason}"):
        session.run(Command("undo"))
    assert session.run(session.next_command()).index == 4


def test_a_watchpoint_that_has_fired_is_gone_back_from(
    lead: Callable[[str], tuple[ScriptSession, bytearray]],
) -> None:
    session, _ = lead(
        LOOP.replace("    loss.backward", "    loss = loss * (float('nan') if number == 9 else 1)\n    loss.backward")
    )
    session.arm("nonfinite")
    for _ in session.run_free(Goal(), lambda: False, every=0.05):
        pass
    fired = session.take_fired()
    assert fired is not None
    assert session.frame.iteration == 10
    assert session.run(Command("undo")).index == fired.index - 1
    assert session.run(session.next_command()).index == fired.index


def test_what_a_watchpoint_fired_at_is_run_again_recorded(
    lead: Callable[[str], tuple[ScriptSession, bytearray]],
) -> None:
    """The line that made the NaN is named, though other calls come between the model's call and the stop."""
    scripts = Path(__file__).parents[2] / "support" / "scripts"
    text = (scripts / "turns_nan.py").read_text(encoding="utf-8").replace("from bits import print_bits", "")
    text = text.replace("    optimizer.step()", "    optimizer.step()\n    print(loss.item())")
    session, printed = lead(text.replace("print_bits(model)", "print(model.linear.weight.item())"))
    session.arm("nonfinite")
    fired = list(session.run_free(Goal(), bool, every=10.0))[-1]
    assert fired.iteration == 7
    trace = session.trace(fired.index)
    assert (session.frame.index, session.frame.params) == (fired.index, fired.params)
    operation = next(each for each in trace.built().ops if each.not_finite)
    assert operation.name == "log"
    assert len(printed.split()) == fired.iteration - 1  # no loss a second time


LATE = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(4):
    loss = model(torch.ones(4, 2)).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


def test_a_forward_that_had_begun_when_it_was_to_be_recorded(
    lead: Callable[[str], tuple[ScriptSession, bytearray]],
) -> None:
    session, _ = lead(LATE)
    for _ in range(9):
        session.run(session.next_command())
    assert session.frame.phase is Phase.ZERO_GRAD
    frame = session.run(replace(session.next_command(), recorded=True))
    assert (frame.index, frame.phase, session.frame.index) == (10, Phase.FORWARD, 10)
    assert frame.trace is not None
    assert [each.name for each in frame.trace.built().ops] == ["linear", "sum"]


ASKS = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for number in range(4):
    model(torch.ones(4, 2)).sum().backward()
    if number == 1:
        print("told", input("why? "))
    optimizer.step()
    optimizer.zero_grad()
raise RuntimeError("the end")
"""


class Answering:
    """Answers whatever the script asks for while it has the terminal."""

    times = 0

    def attach(self, process: ScriptProcess) -> None:
        self.process = process

    def lend(self) -> None:
        self.times += 1
        self.process.write(b"because\r")

    def take_back(self) -> None:
        pass


def test_a_script_that_was_taken_back_gets_the_terminal_again_and_is_held_where_it_raises(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(ASKS)
    terminal, printed = Answering(), bytearray()
    session = ScriptSession((str(script),), on_output=printed.extend, terminal=terminal)
    try:
        for _ in range(14):
            session.run(session.next_command())
        assert terminal.times == 1
        session.run(parse_one("@5"))
        assert terminal.times == 1
        session.run(parse_one("@8"))  # on the way it asks anew
        assert (session.frame.index, terminal.times) == (8, 2)
        for _ in range(9):
            session.run(session.next_command())
        assert session.frame.error is not None
        assert session.frame.error.message == "the end"
    finally:
        session.close(in_order=True)
