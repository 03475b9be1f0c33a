"""Commands that are interrupted at any instant: all is as before them, and the run goes on to the same bits."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.modules import module

from autograd_tui.core.command import Phase, parse_one
from autograd_tui.core.errors import Refused
from autograd_tui.core.run_observer import Interrupted
from autograd_tui.engine.session import Session
from autograd_tui.journal.reader import read_journal
from autograd_tui.journal.resume_run import verify_journal
from autograd_tui.journal.writer import JournalWriter
from generated_networks import PLANS, Plan, as_scenario, plain
from interrupter import Interrupter
from plain_loop import Tensors, copied, differing
from session_internals import open_with_many_checkpoints, tensors
from suite_options import search

MAX_SECONDS = {False: 0.001, True: 0.004}  # of a phase of such a network, by whether it is recorded


def open_plan(plan: Plan) -> Session:
    decay = "plateau:0.5:0" if plan.decay else None
    return open_with_many_checkpoints(as_scenario(plan), seed=plan.seed, decay=decay, device="cpu")


def plain_tensors(plan: Plan, count: int) -> list[Tensors]:
    rng = torch.get_rng_state()
    try:
        return [copied(each) for each in islice(plain(plan), count)]
    finally:
        torch.set_rng_state(rng)


def check_nothing_is_left_behind() -> None:
    assert not module._global_forward_hooks
    assert not module._global_forward_pre_hooks
    assert torch._C._len_torch_function_stack() == torch._C._len_torch_dispatch_stack() == 0
    assert torch.is_grad_enabled()


@search(8)
@given(PLANS, st.integers(0, 1 << 30))
def test_a_phase_that_is_interrupted_leaves_all_as_it_was(plan: Plan, seed: int) -> None:
    chance, interrupter, session = random.Random(seed), Interrupter(), open_plan(plan)
    for expected in plain_tensors(plan, 5):
        for letter in "fbsz":
            for _ in range(3):
                before, frame, commands = copied(tensors(session)), session.frame, session.commands()
                recorded = chance.random() < 0.4
                try:
                    with interrupter.at(chance.random() * MAX_SECONDS[recorded]):
                        session.run(replace(parse_one(letter), recorded=recorded))
                    break
                except Interrupted:
                    assert session.frame.same(frame)
                    assert session.commands() == commands
                    assert differing(tensors(session), before) == [], letter
                    check_nothing_is_left_behind()
            else:
                session.run(letter)
            if letter == "s":
                assert differing(tensors(session), expected) == []


def free_run(session: Session, chance: random.Random) -> None:
    for _ in session.run_free(session.end_of(chance.randrange(2, 9)), lambda: False, every=0.02):
        pass


def watched_free_run(session: Session, chance: random.Random) -> None:
    session.arm("nonfinite")
    free_run(session, chance)


def rewind(session: Session, chance: random.Random) -> None:
    session.rewind(chance.randrange(session.newest + 1))


def look(session: Session, chance: random.Random) -> None:
    session.look(chance.randrange(session.newest + 1))


def trace(session: Session, chance: random.Random) -> None:
    session.trace(chance.randrange(1, session.newest + 1))


def check_gradient(session: Session, chance: random.Random) -> None:
    session.check_gradient(session.frame.index - 2, "first.weight")


@pytest.mark.parametrize("act", [free_run, watched_free_run, rewind, look, trace, check_gradient])
def test_whatever_is_interrupted_the_run_goes_on_as_the_plain_loop_and_its_journal_is_true(
    act: Any, tmp_path: Path
) -> None:
    chance, interrupter, count = random.Random(act.__name__), Interrupter(), 0
    layers = ["batch norm", "linear", "dropout"]
    options = {"loss": "mse", "dicts": False, "fresh": True, "groups": False, "decay": True, "seed": 3}
    plan = Plan(layers, False, False, False, torch.float32, optimizer="adam,lr=0.05", **options)  # type: ignore[arg-type]
    session, expected = open_plan(plan), plain_tensors(plan, 200)
    session.observer = JournalWriter(tmp_path / "journal", session.about, private=True)
    list(session.run_all("fbsz*20"))
    session._timeline.frames.truncate_after(1)  # so that looking at one runs it again
    longest = 0.03  # seconds until it is interrupted: less where it has ended before
    while session.frame.steps < 180 and count < 12:
        here = session.frame.index
        try:
            with interrupter.at(chance.random() * longest):
                act(session, chance)
            longest *= 0.6
        except Interrupted:
            count += 1
            assert act in (free_run, watched_free_run) or session.frame.index == here
        except Refused:
            pass
        session.disarm()
        check_nothing_is_left_behind()
        assert session.take_divergence() is None
        session.rewind(session.newest)
        while session.frame.phase is not Phase.STEP:
            session.run(session.next_command())
        assert differing(tensors(session), expected[session.frame.steps - 1]) == []
        session.run("z")
    assert count
    session.close(in_order=True)
    checks = list(verify_journal(open_plan(plan), read_journal(tmp_path / "journal")))
    assert checks
    assert all(each.matches for each in checks)
