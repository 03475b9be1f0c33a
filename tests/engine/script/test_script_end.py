"""What is shown of a script that has ended in a free run."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from autograd_tui.core.command import parse_one
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.engine.script.script_session import ScriptSession
from autograd_tui.text.explain_script import explain_script
from autograd_tui.text.script_lines import code_title

LOOP = """
import os, sys
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for number in range(500):
    x = torch.randn(8, 3)
    loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("end", loss.item(), *(each.norm(dtype=torch.float64).item() for each in model.parameters()), flush=True)
"""
MAIN = LOOP.partition("torch.manual_seed")
IN_MAIN = MAIN[0] + "def main():\n" + textwrap.indent(MAIN[1] + MAIN[2], "    ") + "main()\n"
UNKNOWN = {  # what was only seen in passing, at the end of a free run
    *("step_rate", "step_rates", "loss_params", "buffers_before", "inputs", "targets", "prediction", "top"),
    *("before", "moves", "grads_params", "last_grads", "seconds", "script"),
}
UNKNOWN_OF_STOP = {"file", "line", "function", "first_line", "source", "models", "backwards", "at_end"}
Start = Callable[[str], tuple[ScriptSession, bytearray]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    sessions: list[ScriptSession] = []

    def start_one(text: str) -> tuple[ScriptSession, bytearray]:
        printed = bytearray()
        (tmp_path / "train.py").write_text(text)
        sessions.append(ScriptSession((str(tmp_path / "train.py"),), on_output=printed.extend))
        return sessions[-1], printed

    yield start_one
    for each in sessions:
        each.close(in_order=True)


def run_freely(session: ScriptSession) -> str:
    """Run to the script's end, with few frames, and return what is said there."""
    with pytest.raises(Refused) as refused:
        for _ in session.run_free(Goal(), bool, every=30.0):
            pass
    return str(refused.value)


def same(one: Frame, other: Frame, *, but: set[str]) -> bool:
    known = {each.name: getattr(other, each.name) for each in fields(Frame) if each.name in but}
    return replace(one, **known).same(other)


def test_the_last_frame_is_that_of_a_held_run(start: Start) -> None:
    free, printed = start(LOOP)
    assert run_freely(free) == "train.py has ended after 2,000 events."
    last = free.frame
    assert (last.index, len(free.log()), free.newest, free.history.last_loss) == (2000, 2000, 2000, last.loss)
    free.close(in_order=True)
    words = printed.decode().split()
    assert [float(word) for word in words[1:]] == [last.loss, *(row.norm for row in last.params)]
    assert last.loss_is_old
    held, _ = start(LOOP)
    for _ in held.run_free(Goal(499), bool, every=30.0):
        pass
    while held.frame.index < last.index:
        held.run(held.next_command())
    then = held.frame
    assert same(last, then, but=UNKNOWN)
    stop, held_stop = last.script, then.script
    assert stop is not None
    assert held_stop is not None
    assert stop.at_end
    assert code_title(stop) == "Code   the line of the call was not looked at"
    assert explain_script(last, stop)[-1].startswith("This was read when the script had ended")
    known = [each.name for each in fields(ScriptStop) if each.name not in UNKNOWN_OF_STOP]
    assert [getattr(stop, each) for each in known] == [getattr(held_stop, each) for each in known]


def test_the_memory_of_the_scripts_own_process_is_told(start: Start) -> None:
    session, printed = start(LOOP.replace("for number", "print(os.getpid(), flush=True)\nfor number"))
    load = session.device_load
    assert load is not None
    assert load.memory is not None
    pages = int(Path(f"/proc/{printed.decode().split()[0]}/statm").read_text().split()[1])
    assert load.memory == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE"), rel=0.05)
    assert load.total is None
    run_freely(session)
    session.close(in_order=True)
    assert session.device_load is None


def test_a_script_that_has_let_go_of_its_model_is_taken_to_its_last_event(start: Start) -> None:
    session, printed = start(IN_MAIN)
    said = run_freely(session)
    drawn = re.fullmatch(
        r"train\.py has ended after 2,000 events; frame ([\d,]+) is the last one drawn, "
        r"and :@2000 goes on to its last event\.",
        said,
    )
    assert drawn, said
    assert (session.newest, len(session.log())) == (int(drawn[1].replace(",", "")), 2000)
    last = session.run(parse_one("@2000"))
    assert last.script is not None
    assert (last.index, last.script.output_muted, last.script.at_end) == (2000, True, False)
    assert (session.newest, session.take_divergence(), session.branches) == (2000, None, ())
    words = printed.decode().split()
    assert [float(word) for word in words[1:]] == [last.loss, *(row.norm for row in last.params)]
    with pytest.raises(Refused, match="has ended after 2,000 events"):
        session.run(session.next_command())
    with pytest.raises(Refused, match="there is no frame 2001 to go back to: the last one is frame 2000"):
        session.run(parse_one("@2001"))


def test_of_one_that_ends_without_a_word_nobody_claims_how_far_it_came(start: Start) -> None:
    session, _ = start(LOOP + "os._exit(3)\n")
    said = run_freely(session)
    assert said == f"train.py has ended (exit code 3); frame {session.newest:,} is the last one drawn."
    assert session.notice == said


def test_one_that_exits_in_the_middle_shows_where(start: Start) -> None:
    step = "    optimizer.step()\n"
    session, _ = start(LOOP.replace(step, f"{step}    number < 300 or sys.exit(4)\n"))
    assert run_freely(session).startswith("train.py has ended after 1,204 events")
    assert (session.frame.index, session.frame.iteration) == (1204, 301)


def test_what_a_script_changes_behind_its_last_event_is_no_other_way(start: Start) -> None:
    session, _ = start(
        LOOP.replace("500", "20") + "model.load_state_dict({k: v * 0 for k, v in model.state_dict().items()})"
    )
    assert run_freely(session) == "train.py has ended after 80 events."
    assert {row.norm for row in session.frame.params} == {0.0}
    last = session.run(parse_one("@79")), session.run(session.next_command())
    assert (last[1].index, session.take_divergence(), session.branches) == (80, None, ())
    assert all(row.norm for row in session.look(80).params)


def test_neither_a_setting_nor_the_exception_at_its_end_is_an_event(start: Start) -> None:
    session, _ = start(LOOP.replace("500", "2") + "raise ValueError('the end')\n")
    session.run(session.next_command())
    session.run(parse_one("lr=0.01"))
    while session.frame.error is None:
        session.run(session.next_command())
    with pytest.raises(Refused, match="has ended after 8 events by an exception"):
        session.run(session.next_command())
