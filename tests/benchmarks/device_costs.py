"""Checks of `device.py` that measure: times beside the plain loop, waits and launches, memory, checkpoints."""

from __future__ import annotations

import cProfile
import platform
import pstats
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from device_runs import (
    ADAM,
    FUSED,
    MOMENTUM,
    PLAIN_SGD,
    Build,
    Findings,
    PlainRun,
    Setting,
    Skipped,
    line,
    network,
    resnet,
    run_all,
    state_of,
)

from autograd_tui import Session
from autograd_tui.engine.training.checkpoint import Checkpoint
from autograd_tui.engine.training.stats_reader import StatsReader, TensorGroup
from session_internals import trainer_of

MIB = 2**20
RECORDED_GOALS = {"f": 2.0, "b": 1.7, "s": 1.5, "z": 3.0}  # beside the plain phase
FREE_GOALS = {"line": 0.93, "resnet18": 0.97}  # of the plain loop's speed
WATCHED_GOALS = {"line": 0.85, "resnet18": 0.95}
CONDITIONS = ("nonfinite", "loss > 1e9", "still 100000", "loss rises 100000")
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")


def machine(setting: Setting, findings: Findings) -> None:
    """What this is."""
    import torchvision

    absent = [name for name in ("textual", "plotext", "platformdirs") if find_spec(name) is None]
    findings.say(
        f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}"
    )
    findings.say(f"device {setting.device}, without {', '.join(absent) or 'nothing'}")
    if setting.device.type == "cuda":
        properties = torch.cuda.get_device_properties(setting.device)
        free, total = torch.cuda.mem_get_info(setting.device)
        findings.say(f"{properties.name}, {free / MIB:.0f} of {total / MIB:.0f} MiB free")
        findings.say(f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")


def waits_and_launches(setting: Setting, findings: Findings) -> None:
    """How often each command waits for the device, by line, and how many kernels it starts beside the plain loop."""
    if setting.device.type != "cuda":
        raise Skipped("only CUDA tells of its waits")
    build = setting.placed(resnet())
    plain, session = PlainRun(setting, build, MOMENTUM), setting.open(build, MOMENTUM)
    plain.iterate(2)
    run_all(session, "fbsz*2")
    for letter in "fbsz":
        session.run(f"i:{letter}")
    for command in (*"fbsz", *(f"i:{letter}" for letter in "fbsz")):
        places = _waits(session, command)
        findings.figure(f"waits of {command}", places.total(), at_most=2 if command.startswith("i:") else 1)
        findings.require(places.total() <= 2, f"{command} waits {places.total()} times, at {places.most_common(5)}")
        if places:
            findings.say(f"{command} waits at {dict(places.most_common(4))}")
    for letter, phase in plain.phases.items():
        alone = _launches(setting, phase)
        ours = _launches(setting, lambda letter=letter: session.run(letter))  # type: ignore[misc]
        findings.figure(f"launches of {letter} beyond plain, resnet18", ours[0] - alone[0])
        findings.say(f"{letter}: {alone[0]} launches plain, {ours[0]} stepped; {ours[1]} copies to the host")
    for letter in "fbsz":
        inside = _launches(setting, lambda letter=letter: session.run(f"i:{letter}"))  # type: ignore[misc]
        findings.say(f"i:{letter}: {inside[0]} launches, {inside[1]} copies to the host")


def _waits(session: Session, command: str) -> Counter[str]:
    """Return how often a command waits, by the line that asks, as PyTorch warns of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            session.run(command)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    asked = [each for each in caught if "called a synchronizing" in str(each.message)]
    return Counter(f"{'/'.join(Path(each.filename).parts[-2:])}:{each.lineno}" for each in asked)


def _launches(setting: Setting, function: Callable[[], object]) -> tuple[int, int]:
    """Return how many kernels a call starts, and how many copies to the host."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiled:
        function()
        setting.synchronize()
    names = [event.name for event in profiled.events()]
    return sum(name in LAUNCHES for name in names), sum("Memcpy DtoH" in name for name in names)


def stepped(setting: Setting, findings: Findings) -> None:
    """What stepping costs with all its frames and checkpoints, beside the plain loop."""
    cases: list[tuple[str, Build, str, float, int]] = [
        ("resnet18, SGD", resnet(), MOMENTUM, 1.15, 30),
        ("resnet18, Adam", resnet(), ADAM, 1.12, 30),
        ("resnet18, fused Adam", resnet(), FUSED, 1.12, 30),
        ("resnet18, 8 of 96 x 96", resnet(8, 96), MOMENTUM, 1.05, 20),
    ]
    if not setting.is_quick:
        cases.append(("resnet18, 64 of 224 x 224", resnet(64, 224), MOMENTUM, 1.05, 8))
    for name, build, optimizer, goal, iterations in cases[: 1 if setting.is_quick else None]:
        build = setting.placed(build)
        plain, session = PlainRun(setting, build, optimizer), setting.open(build, optimizer)
        turns = 3 if setting.is_quick else iterations

        def iterate(session: Session = session) -> None:
            run_all(session, "fbsz")

        pairs = _in_turns(setting, lambda plain=plain: plain.iterate(1), iterate, turns)  # type: ignore[misc]
        findings.figure(f"stepped / plain, {name}", _ratio(pairs), at_most=goal)
        findings.say(f"{name}: plain {median(pair[0] for pair in pairs) * 1e3:.2f} ms")


def free(setting: Setting, findings: Findings) -> None:
    """How fast a free run is, in the plain loop's speed, with nothing armed and with watchpoints armed."""
    for build, optimizer, iterations in ((line, PLAIN_SGD, 1000), (resnet(), MOMENTUM, 60)):
        name, build = build.__name__, setting.placed(build)
        iterations = (100 if name == "line" else 3) if setting.is_quick else iterations
        plain = PlainRun(setting, build, optimizer)
        for conditions, goals, kind in (((), FREE_GOALS, "free"), (CONDITIONS, WATCHED_GOALS, "watched")):
            session = setting.open(build, optimizer)
            for condition in conditions:
                session.arm(condition)

            def iterate(session: Session = session, iterations: int = iterations) -> None:
                for _ in session.run_free(session.end_of(iterations), lambda: False):
                    pass

            pairs = _in_turns(setting, lambda plain=plain, n=iterations: plain.iterate(n), iterate, 3)  # type: ignore[misc]
            findings.figure(f"{kind} speed / plain, {name}", 1 / _ratio(pairs), at_least=goals[name])
            plain.losses.clear()
            if session.take_fired() is not None:
                findings.require(False, f"{name}: {session.fired} fired")
        findings.say(f"{name}: plain {median(pair[0] for pair in pairs) / iterations * 1e6:.0f} microseconds")


def recorded_times(setting: Setting, findings: Findings) -> None:
    """What recording a phase of resnet18 costs beside the plain one."""
    build = setting.placed(resnet())
    plain, session = PlainRun(setting, build, MOMENTUM), setting.open(build, MOMENTUM)
    pairs: dict[str, list[tuple[float, float]]] = {letter: [] for letter in "fbsz"}
    for turn in range(4 if setting.is_quick else 13):
        for letter, phase in plain.phases.items():
            alone = setting.seconds(phase)
            pair = alone, setting.seconds(lambda letter=letter: session.run(f"i:{letter}"))  # type: ignore[misc]
            if turn >= 2:
                pairs[letter].append(pair)
    for letter, times in pairs.items():
        findings.figure(f"recorded {letter} / plain, resnet18", _ratio(times), at_most=RECORDED_GOALS[letter])


def true_times(setting: Setting, findings: Findings) -> None:
    """A phase's seconds are those of its kernels, not of launching them."""
    size = (2, 32) if setting.is_quick else (128, 224)
    build = setting.placed(resnet(*size))
    plain, session = PlainRun(setting, build, MOMENTUM), setting.open(build, MOMENTUM)
    plain.iterate(2)
    run_all(session, "fbsz*2")
    rows: dict[str, list[tuple[float, float, float]]] = {letter: [] for letter in "fbsz"}
    for _ in range(3 if setting.is_quick else 7):
        for letter, phase in plain.phases.items():
            rows[letter].append((*_launch_and_device_seconds(setting, phase), session.run(letter).seconds))
    for letter, times in rows.items():
        launched, on_device, told = (median(column) for column in zip(*times, strict=True))
        findings.say(
            f"{letter}: frame {told * 1e3:.2f} ms, device {on_device * 1e3:.2f}, launching {launched * 1e3:.2f}"
        )
        if letter in "fb" and not setting.is_quick:
            findings.require(0.9 < told / on_device < 1.25, f"{letter}: frame / device = {told / on_device:.2f}")


def _launch_and_device_seconds(setting: Setting, function: Callable[[], object]) -> tuple[float, float]:
    """Return how long a call takes, and how long the device does, by its own clock."""
    if setting.on_cpu:
        seconds = setting.seconds(function)
        return seconds, seconds
    begin, end = (torch.Event(setting.device.type, enable_timing=True) for _ in range(2))
    setting.synchronize()
    started = perf_counter()
    begin.record()
    function()
    end.record()
    launched = perf_counter() - started
    setting.synchronize()
    return launched, begin.elapsed_time(end) / 1000


def memory(setting: Setting, findings: Findings) -> None:
    """The memory that a frame tells of is what tensors hold then, and follows the phases."""
    build = setting.placed(resnet() if setting.is_quick else resnet(64, 224))
    session = setting.open(build, MOMENTUM)
    run_all(session, "fbsz*2")
    told: dict[str, int] = {}
    for letter in "fbsz":
        frame = session.run(letter)
        if setting.on_cpu:
            findings.require(frame.memory is None, f"{letter}: on a CPU it tells of {frame.memory} bytes")
            continue
        told[letter] = frame.memory or 0
        actual = setting.allocated()
        difference = abs(actual - told[letter])
        findings.require(difference < 8 * MIB, f"{letter}: the frame says {told[letter]}, PyTorch {actual}")
    if told:
        params = sum(param.nbytes for param in state_of(session).params.values())
        freed = told["s"] - told["z"]
        findings.require(0.9 * params < freed < 1.3 * params, f"zero_grad freed {freed}, the gradients are {params}")
        findings.require(told["f"] > told["b"], "a forward holds no more than a backward leaves")
        findings.say(", ".join(f"{letter} {value / MIB:.1f} MiB" for letter, value in told.items()))


def checkpoints(setting: Setting, findings: Findings) -> None:
    """What a checkpoint costs to take and to put back, beside a copy on the device and one to pinned memory."""
    build, times = setting.placed(resnet()), 2 if setting.is_quick else 7
    session = setting.open(build, ADAM)
    run_all(session, "fbsz*2")
    trainer, state = trainer_of(session), state_of(session)
    plain = PlainRun(setting, build, ADAM)
    iteration = setting.median_seconds(lambda: plain.iterate(1), times)
    for place, on_device in (("on the device", True), ("on the host", False)):
        before = setting.allocated()
        kept = trainer.checkpoint(on_device=on_device)
        held_there = setting.allocated() - before
        recycled = [trainer.checkpoint(on_device=on_device)]

        def recycle(recycled: list[Checkpoint] = recycled, on_device: bool = on_device) -> None:
            recycled[0] = trainer.checkpoint(recycled[0], on_device=on_device)

        def put_back(kept: Checkpoint = kept) -> None:
            trainer.restore(kept)

        seconds = setting.median_seconds(recycle, times), setting.median_seconds(put_back, times)
        findings.figure(f"checkpoint {place} / iteration", seconds[0] / iteration)
        findings.figure(f"checkpoint {place} put back / iteration", seconds[1] / iteration)
        findings.say(f"{kept.bytes / MIB:.0f} MiB {place}, {held_there / MIB:.0f} of them there")
    entries = [each for entry in state.optimizer.state.values() for each in entry.values()]
    tensors = [each.detach() for each in (*state.model.parameters(), *state.model.buffers(), *entries)]
    tensors = [each for each in tensors if each.device.type == setting.device.type and each.is_floating_point()]
    copies = [torch.empty_like(each) for each in tensors]
    foreach = setting.median_seconds(lambda: torch._foreach_copy_(copies, tensors), times)
    findings.say(f"by foreach on the device {foreach * 1e3:.2f} ms")
    if setting.device.type == "cuda":
        pinned = torch.empty(sum(each.nbytes for each in tensors), dtype=torch.uint8, pin_memory=True)

        def pack() -> None:
            pinned.copy_(torch.cat([each.reshape(-1).view(torch.uint8) for each in tensors]), non_blocking=True)

        findings.say(f"packed into pinned memory {setting.median_seconds(pack, times) * 1e3:.1f} ms")


def statistics(setting: Setting, findings: Findings) -> None:
    """What the numbers about 62 parameters cost, and what fewer kernels would."""
    session, times = setting.open(setting.placed(resnet()), MOMENTUM), 3 if setting.is_quick else 15
    params = {name: param.detach() for name, param in state_of(session).params.items()}
    reader, group = StatsReader(), TensorGroup(params, sampled_range=True)
    table = reader.read({"params": group})["params"]
    for row, param in zip(table, params.values(), strict=True):
        exact = float(torch.linalg.vector_norm(param.double()))
        findings.require(abs((row.norm or 0) - exact) <= 1e-6 * exact, f"the norm of {row.name}: {row.norm}, {exact}")
    whole = setting.median_seconds(lambda: reader.read({"params": group}), times)
    plan = reader._plan("params", group)
    launch = setting.median_seconds(lambda: plan.launch(list(params.values()), {}), times)
    norms = setting.median_seconds(lambda: torch._foreach_norm(list(params.values())), times)
    findings.say(f"read {whole * 1e3:.2f} ms, of which launching {launch * 1e3:.2f}; foreach norms {norms * 1e3:.2f}")
    small = setting.open(network, ADAM)
    run_all(small, "fbsz*2")
    costs = {letter: [] for letter in "fbsz"}  # type: ignore[var-annotated]
    for _ in range(times):
        for letter in "fbsz":
            costs[letter].append(setting.seconds(lambda letter=letter: small.run(letter)))  # type: ignore[misc]
    told = ", ".join(f"{letter} {median(seconds) * 1e3:.2f}" for letter, seconds in costs.items())
    findings.say(f"a network of six tensors, ms a phase: {told}")


def _in_turns(
    setting: Setting, plain: Callable[[], object], ours: Callable[[], object], turns: int
) -> list[tuple[float, float]]:
    """Return the seconds of both, one after the other, in so many turns behind two that warm up."""
    pairs = [(setting.seconds(plain), setting.seconds(ours)) for _ in range(turns + 2)]
    return pairs[2:]


def _ratio(pairs: list[tuple[float, float]]) -> float:
    return median(ours / plain for plain, ours in pairs)


def profile(setting: Setting, findings: Findings) -> None:
    """Which functions a stepped resnet18, and a network of six tensors, spend the host's time in."""
    if not setting.with_profile:
        raise Skipped("not asked for: --profile")
    for build, times in ((resnet(), 20), (network, 50)):
        session = setting.open(setting.placed(build), MOMENTUM)
        run_all(session, "fbsz*4")
        profiler = cProfile.Profile()
        profiler.enable()
        run_all(session, f"fbsz*{times}")
        profiler.disable()
        rows = sorted(pstats.Stats(profiler).get_stats_profile().func_profiles.items(), key=lambda row: -row[1].tottime)
        told = [f"{name} {each.tottime / times * 1e3:.2f}" for name, each in rows[:45]]
        findings.say(f"{build.__name__}, ms an iteration: {', '.join(told)}")
