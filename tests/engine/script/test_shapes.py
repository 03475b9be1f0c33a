"""Scripts of each shape end with the same bits, held at every stop or watched, and are shown as what they are."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from autograd_tui.core.command import Command
from autograd_tui.core.errors import Refused
from autograd_tui.engine.script.script_session import ScriptSession
from script_driver import SCRIPTS, Mode, ScriptRun, run_script
from suite_options import some

MODES: tuple[Mode, ...] = ("plain", "held", "free")
USUAL = ["Z", "FBSZ", "FBSZ", "FBS"]


@dataclass(frozen=True)
class Shape:
    """What a script is to be shown as: its events by iteration, its models and optimizers by its own names."""

    events: list[str]
    models: tuple[str, ...] = ("model",)
    optimizers: tuple[str, ...] = ("optimizer",)
    inside: tuple[str, ...] = ()  # the calls that others were made inside of
    moved: tuple[str, ...] = ()  # by hand
    cleared: tuple[str, ...] = ()
    fired: int = 0  # how often values that are not finite were met
    arguments: tuple[str, ...] = ()
    input: str = ""
    code: int = 0


SHAPES = {
    "plain": Shape(USUAL, arguments=("--lr", "0.3", "--epochs", "3", "a", "b")),
    "accumulation": Shape(
        ["FBFBUCSZL", "FBFBUCsZL", "FBFBUCSZL"], ("net",), ("opt",), inside=("GradScaler.step",), fired=2
    ),
    "gan": Shape(["Z", *["FBFBSZFBSZ"] * 2, "FBFBSZFBS"], ("netG", "netD"), ("optimizerD", "optimizerG")),
    "closure": Shape(["Z", "FBZFBZFBZFBSZ", "FBZFBZFBZFBS"], ("seq",), inside=("optimizer.step",)),
    "manual_update": Shape(["FB", "FBB", "FB"], (), (), moved=("b", "w"), cleared=("b", "w")),
    "schedulers": Shape(["ZZ", "FBSSLZZ", "FBSSLLLZZ", "FBSSLZZ", "FBSSLLL"], ("encoder", "head"), ("adamw", "sgd")),
    "workers": Shape(["Z", *["FBSZ"] * 5, "FBS"]),
    "compiled": Shape(["FBSZ"] * 3),
    "checkpointing": Shape(USUAL),
    "reinforcement": Shape(["Z", *["FBSZ"] * 3, "FBS"], ("policy",)),
    "evaluation": Shape(["Z", *["FBSZ"] * 5, "FBS"]),
    "crash": Shape(["Z", "FBSZ", "FBSZ", "FB"], fired=2, code=1),
    "asks": Shape(["FBSZ", "FBZ"], input="0.1\ny\nn\n"),
    "breaks": Shape(["FBSZ"] * 3, input="p i\nc\n"),
    "bar": Shape(["Z", *["FBSZ"] * 3, "FBS"]),
    "never_trains": Shape([], (), ()),
    "in_thread": Shape(USUAL),
    "gradient_penalty": Shape(["GZ", "FBSGZ", "FBSGZ", "FBS"], ("critic",), ("opt",)),
    "trainer_class": Shape(["Z", "FBCSLZ", "FBCSLZ", "FBCSL"], inside=("optimizer.step",)),
    "interrupted": Shape(["Z", *["FBSZ"] * 3, "FBS"]),
    "prints_tracebacks": Shape(["FFBFBU"], fired=1),
    "turns_nan": Shape(["Z", *["FBSZ"] * 9, "FBS"], fired=4),
}


def named(runs: ScriptRun, part: str) -> tuple[str, ...]:
    """Return what the stops of a run name, each once, in the order in which it was met."""
    return tuple(dict.fromkeys(name for stop in runs.stops for name in getattr(stop, part)))


@pytest.mark.parametrize("name", SHAPES)
def test_a_script_runs_as_without_seams_and_is_shown_as_what_it_is(name: str) -> None:
    shape = SHAPES[name]
    plain, held, free = (run_script(f"{name}.py", mode, *shape.arguments, input=shape.input) for mode in MODES)
    assert plain.exit_code == shape.code, plain.errors
    for run in (held, free):
        assert (run.output, run.errors, run.exit_code) == (plain.output, plain.errors, plain.exit_code)
        assert run.reasons == []
    assert held.by_iteration() == shape.events
    assert [frame.index for frame in held.frames] == list(range(len(held.frames)))
    assert set(named(held, "models")) == set(shape.models)
    assert tuple(dict.fromkeys(each for stop in held.stops for each, _ in stop.steps)) == shape.optimizers
    assert named(held, "inside") == shape.inside
    assert set(named(held, "moved_by_hand")) == set(shape.moved)
    assert set(named(held, "cleared_by_hand")) == set(shape.cleared)
    assert {stop.file for stop in held.stops} <= {str(SCRIPTS / f"{name}.py")}
    assert len(free.fired) == shape.fired
    for frame in free.frames:  # of the same events
        there = held.frames[frame.index]
        assert (frame.command, frame.iteration, frame.steps) == (there.command, there.iteration, there.steps)
        assert frame.script is not None
        assert frame.params == there.params or frame.script.at_end  # a script may put back earlier parameters then


def test_of_several_losses_in_an_iteration_it_is_said_which_is_which() -> None:
    held, free = (run_script("gan.py", mode).stops for mode in ("held", "free"))
    assert not any(stop.has_several_losses for stop in held[:4])  # before the second of them
    called = [stop.loss_call for stop in held if stop.has_several_losses and stop.call.endswith(".backward")]
    one = ["errD_fake.backward"] * 2 + ["errG.backward"] * 2
    assert called == [*one, *(["errD_real.backward"] * 2 + one) * 2]
    assert {stop.last_loss_call for stop in held[12:]} == {"errG.backward"}
    assert (free[-1].loss_call, free[-1].last_loss_call) == ("errG.backward", "errG.backward")
    assert not any(stop.has_several_losses for stop in run_script("accumulation.py", "held").stops)


def test_the_rank_that_is_shown_is_held_and_the_others_wait_for_it() -> None:
    def run(mode: Mode) -> list[ScriptRun]:
        with socket.create_server(("127.0.0.1", 0)) as free_port:
            port = str(free_port.getsockname()[1])
        with ThreadPoolExecutor() as pool:
            ranks = [pool.submit(run_script, "distributed.py", mode, environment=ranked(each, port)) for each in (0, 1)]
            return [each.result() for each in ranks]

    plain, held = run("plain"), run("held")
    assert [each.output for each in plain] == [each.output for each in held]
    assert [each.exit_code for each in held] == [0, 0]
    assert [each.by_iteration() for each in held] == [USUAL, []]
    assert held[0].hello is not None
    assert held[0].hello.rank == 0
    assert named(held[0], "models") == ("model",)


def ranked(rank: int, port: str) -> Mapping[str, str]:
    """Return what torchrun says to one of two processes."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }


# Started as a user does.


def lead(*words: str) -> tuple[str, ScriptRun]:
    """Start a script on a terminal, let it go on from each stop, and return what it printed."""
    printed, run = bytearray(), ScriptRun()
    session = ScriptSession(words, on_output=printed.extend)
    run.frames.append(session.frame)
    try:
        with suppress(Refused):  # once it has ended
            while True:
                run.frames.append(session.run(Command("next")))
    finally:
        session.close(in_order=True)
    run.exit_code = session.exit_code or 0
    return printed.decode().replace("\r\n", "\n"), run


def test_a_real_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('the sitecustomize of the user')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    printed, run = lead(str(SCRIPTS / "plain.py"), *SHAPES["plain"].arguments)
    plain = run_script("plain.py", "plain", *SHAPES["plain"].arguments)
    assert printed == "the sitecustomize of the user\n" + plain.output
    assert run.by_iteration() == USUAL
    assert run.exit_code == 0


CHILDREN = {
    "spawns": ((str(SCRIPTS / "spawns.py"),), ["Z", "FBSZ", "FBS"]),
    "torchrun": (
        ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(SCRIPTS / "distributed.py")),
        USUAL,
    ),
}


@pytest.mark.parametrize("name", some(list(CHILDREN), 0))
def test_a_process_that_the_script_starts_is_held(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words, events = CHILDREN[name]
    printed, run = lead(*words)
    assert run.by_iteration() == events
    assert run.exit_code == 0
    if name == "spawns":
        assert printed == run_script("spawns.py", "plain").output
    else:
        assert printed.count("sha256") == 2
