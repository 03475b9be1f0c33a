"""Checks of `device.py` that compare bits, frames and sentences: what the program promises whatever the device."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import torch
from device_runs import (
    ADAM,
    FOREACH,
    FUSED,
    MOMENTUM,
    PLAIN_SGD,
    Batch,
    Findings,
    PlainRun,
    Setting,
    Skipped,
    deterministic_algorithms,
    differing,
    line,
    losses_of,
    network,
    resnet,
    run_all,
    run_freely,
    run_to,
    scenario_of,
    state_of,
    tensors_in,
    trained_tensors,
)
from torch import Tensor, nn

from autograd_tui import Parts, open_session
from autograd_tui.core.errors import Refused
from autograd_tui.engine.training.accelerator import choose_device, device_versions
from autograd_tui.engine.training.scenario import Scenario
from session_internals import open_with_many_checkpoints

CASES = (
    (line, PLAIN_SGD),
    (network, ADAM),
    (network, FUSED),
    (network, FOREACH),
    (resnet(2), MOMENTUM),
    (resnet(2), ADAM),
)


def equality(setting: Setting, findings: Findings) -> None:
    """Stepped equals plain, bit for bit, wherever two plain runs equal each other."""
    _compare_with_plain(setting, findings, must_be_equal=setting.on_cpu)


def equality_deterministic(setting: Setting, findings: Findings) -> None:
    """The same with PyTorch's deterministic algorithms, where plain runs are equal too."""
    with deterministic_algorithms(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _compare_with_plain(setting, findings, must_be_equal=True)
    odd = {str(each.message)[:60] for each in caught if "determin" in str(each.message)}
    if odd:
        findings.say(f"warned of {sorted(odd)}")


def _compare_with_plain(setting: Setting, findings: Findings, *, must_be_equal: bool) -> None:
    for build, optimizer in CASES:
        iterations = 3 if build.__name__ == "resnet18" and setting.is_quick else 8
        plain, again = PlainRun(setting, build, optimizer), None
        plain.iterate(iterations)
        again = PlainRun(setting, build, optimizer)
        again.iterate(iterations)
        session = setting.open(build, optimizer)
        losses = losses_of(run_all(session, f"fbsz*{iterations}"))
        wanted = plain.tensors()
        noise, wrong = differing(wanted, again.tensors()), differing(wanted, tensors_in(session))
        name = f"{build.__name__} {optimizer}"
        if must_be_equal or not noise:
            findings.require_equal(wrong, name)
            findings.require(torch.stack(plain.losses).tolist() == losses, f"{name}: the losses differ")
        itself = "equals itself" if not noise else f"differs from itself in {len(noise)} tensors"
        findings.say(f"{name}: stepped {'=' if not wrong else '≠'} plain, which {itself}")


def rewinding(setting: Setting, findings: Findings) -> None:
    """Go back to many frames, and on: the same frames and tensors, dropout included. And to a branch."""
    with deterministic_algorithms():
        for build, optimizer in ((network, ADAM), (resnet(2), MOMENTUM)):
            name, iterations = build.__name__, 3 if setting.is_quick else 8
            device = str(setting.device)
            session = open_with_many_checkpoints(scenario_of(build), device=device, optimizer=optimizer)
            frames = {frame.index: frame for frame in run_all(session, f"fbsz*{iterations}")}
            end, wanted = session.frame.index, tensors_in(session)
            for index in (0, 1, 2, 3, 7, 9, end - 3):
                arrived = session.rewind(index)
                findings.require(not index or arrived.same(frames[index]), f"{name}: frame {index} is another")
                run_to(session, end)
                findings.require(session.frame.same(frames[end]), f"{name}: after frame {index} the end is another")
                findings.require_equal(differing(wanted, tensors_in(session)), f"{name} after frame {index}")
                findings.require(session.take_divergence() is None, f"{name}: the session tells of another frame")
            session.rewind(4)
            run_all(session, "lr=0.5 fbsz")
            arrived = session.take_branch(session.branches[-1].number)
            findings.require(arrived.same(frames[end]), f"{name}: the branch ends in another frame")
            findings.require_equal(differing(wanted, tensors_in(session)), f"{name} at the end of its branch")
            findings.say(f"{name}: 7 ways back, and a branch")


def free_and_watched(setting: Setting, findings: Findings) -> None:
    """A free run, watched or not, ends in the bits of a stepped one; a watchpoint is found at the same frame."""
    iterations = 12 if setting.is_quick else 60
    with deterministic_algorithms():
        for build, optimizer in ((line, PLAIN_SGD), (network, ADAM)):
            stepped, free, watched = (setting.open(build, optimizer) for _ in range(3))
            run_all(stepped, f"fbsz*{iterations}")
            wanted = tensors_in(stepped)
            run_freely(free, iterations)
            findings.require_equal(differing(wanted, tensors_in(free)), f"{build.__name__}, free")
            for condition in (
                "nonfinite",
                "loss > 1e9",
                "grad_norm > 1e9",
                "still 50",
                "loss rises 50",
                "update > 1e9",
            ):
                watched.arm(condition)
            if build is network:
                for condition in ("*.grad > 1e9", "dead body.2 > 0.999"):
                    watched.arm(condition)
            run_freely(watched, iterations)
            findings.require(watched.take_fired() is None, f"{build.__name__}: a watchpoint fired: {watched.fired}")
            findings.require_equal(differing(wanted, tensors_in(watched)), f"{build.__name__}, watched")
    cases = (
        (line, PLAIN_SGD, "loss < 2"),
        (line, PLAIN_SGD, "grad_norm < 1"),
        (line, PLAIN_SGD, "w.update < 0.01"),
        (_line_that_gives_nan, PLAIN_SGD, "nonfinite"),
        (network, ADAM, "body.4.*.grad < 0.05"),
        (network, ADAM, "dead body.2 > 0.5"),
    )
    for build, optimizer, condition in cases:
        held = []
        for freely in (False, True):
            session = setting.open(build, optimizer)
            session.arm(condition)
            if freely:
                run_freely(session, 40)
            else:
                for _ in session.run_until(session.end_of(40)):
                    pass
            held.append((session.frame.index, str(session.take_fired())))
        findings.require(held[0] == held[1] and "None" not in held[0], f"{condition}: held at {held}")
        findings.say(f"{condition}: frame {held[0][0]}")


def _line_that_gives_nan(seed: int) -> tuple[nn.Module, Batch]:
    """Return the line whose batch is not a number in its tenth iteration alone."""
    model, batch = line(seed)
    x, y = batch(0)
    return model, lambda i: (x * float("nan") if i == 9 else x, y)


def recorded(setting: Setting, findings: Findings) -> None:
    """Recorded phases change no bit, and show their operations."""
    with deterministic_algorithms():
        for build, optimizer in ((network, ADAM), (resnet(2), MOMENTUM)):
            bare, inside = setting.open(build, optimizer), setting.open(build, optimizer)
            run_all(bare, "fbsz*2")
            counts = {}
            for letter in "fbsz" * 2:
                inside.run(f"i:{letter}")
                counts[letter] = len(list(inside.trace(inside.frame.index).ops))
            findings.require_equal(differing(tensors_in(bare), tensors_in(inside)), build.__name__)
            findings.require(bare.frame.same(inside.frame), f"{build.__name__}: the frames differ")
            findings.require(all(counts[letter] for letter in "fbs"), f"{build.__name__}: {counts} operations")
            findings.say(f"{build.__name__}: operations {counts}")


class _HungryNetwork(nn.Module):
    """Asks, when told to, for more memory than there is."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, 8))
        self.hungry: str | None = None

    def forward(self, x: Tensor) -> Any:
        if self.hungry == "forward":
            _take_all_memory(x)
        output = self.body(x)
        if self.hungry == "backward":
            output.register_hook(_take_all_memory)
        return output


def _take_all_memory(like: Tensor) -> None:
    if like.device.type == "cpu":
        raise torch.OutOfMemoryError("as if: the CPU has no such error")
    held, size = [], 2**30
    while size > 2**20:
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device=like.device))
        except torch.OutOfMemoryError:
            size //= 2
    held.append(torch.empty(2**31, dtype=torch.uint8, device=like.device))


def _hungry(seed: int) -> tuple[nn.Module, Batch]:
    x, y = torch.rand(32, 64), torch.rand(32, 8)
    return _HungryNetwork(), lambda i: (x, y)


def out_of_memory(setting: Setting, findings: Findings) -> None:
    """Running out of memory in a phase is an error in its frame; all is as before, and the next smaller thing works."""
    session, twin = setting.open(_hungry, ADAM), setting.open(_hungry, ADAM)
    for each in (session, twin):
        run_all(each, "fbsz*2")
    model: Any = state_of(session).model
    for phase, words in (("forward", "f"), ("backward", "fb")):
        before, held = tensors_in(session), setting.allocated()
        model.hungry = phase
        *_, frame = session.run_all(words)
        model.hungry = None
        error = frame.error
        findings.require(error is not None and "OutOfMemory" in error.type, f"{phase}: the frame's error is {error}")
        findings.require_equal(differing(before, tensors_in(session)), f"{phase} that ran out of memory")
        kept = (setting.allocated() - held) / 2**20
        findings.require(kept < 64, f"{phase}: {kept:.0f} MiB are still held")
        findings.say(f"{phase}: {error.type if error else None}, {kept:.1f} MiB more held afterwards")
    session.rewind(8)
    for each in (session, twin):
        run_all(each, "fbsz*2")
    findings.require_equal(differing(tensors_in(twin), tensors_in(session)), "after running out of memory")


def gradient_check(setting: Setting, findings: Findings) -> None:
    """A gradient agrees with finite differences in float64, computed on the device."""
    cases = (
        (line, PLAIN_SGD, ("w", "b")),
        (resnet(2), MOMENTUM, ("fc.bias",)),
        (network, ADAM, ("body.0.weight", "body.4.bias")),
    )
    for build, optimizer, names in cases[:: 2 if setting.is_quick else 1]:
        session = setting.open(build, optimizer)
        run_all(session, "fb")
        for name in names:
            result = session.check_gradient(session.frame.index, name)
            findings.require(result.verdict in ("agrees", "kink"), f"{name}: {result.verdict}")
            findings.say(f"{name}: {result.verdict} in {len(result.numeric)} {result.kind}")


class _HangingNetwork(nn.Module):
    """Goes on for ever, when told to, with one operation after the other on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.hangs = nn.Linear(64, 8), False

    def forward(self, x: Tensor) -> Any:
        while self.hangs:
            x = x + 0
        return self.body(x)


def hung_phase(setting: Setting, findings: Findings) -> None:
    """A forward that never ends is left, and leaves all as it was."""

    def hanging(seed: int) -> tuple[nn.Module, Batch]:
        x, y = torch.rand(32, 64), torch.rand(32, 8)
        return _HangingNetwork(), lambda i: (x, y)

    session = setting.open(hanging, ADAM)
    run_all(session, "fbsz")
    before, raised = tensors_in(session), []

    def run() -> None:
        try:
            session.run("f")
        except BaseException as error:
            raised.append(f"{type(error).__name__}: {error}")

    model: Any = state_of(session).model
    model.hangs = True
    thread = Thread(target=run, daemon=True)
    thread.start()
    assert thread.ident is not None
    deadline = monotonic() + 10
    while thread.is_alive() and monotonic() < deadline:
        sleep(0.3)
        session.interrupt(thread.ident)
    model.hangs = False
    thread.join(5)
    findings.require(bool(raised) and raised[0].startswith("Interrupted"), f"it raised {raised}")
    findings.require_equal(differing(before, tensors_in(session)), "after the interrupt")
    run_all(session, "fbsz")
    findings.say(raised[0] if raised else "nothing was raised")


def looks(setting: Setting, findings: Findings) -> None:
    """Exact statistics of a parameter and the loss on a plane are had on the device, and change nothing."""
    session = setting.open(network, ADAM)
    run_all(session, "fbsz*2")
    before = tensors_in(session)
    session.inspect("body.0.weight")
    session.choose_surface(("body.4.bias[0]", "body.4.bias[1]"))
    surface = session.surface()
    findings.require(surface is not None, "there is no surface")
    findings.require_equal(differing(before, tensors_in(session)), "after looking")


def autocast(setting: Setting, findings: Findings) -> None:
    """A forward of the user's under autocast: stepped equals plain, and again after going back."""

    def forward(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.autocast(setting.device.type, dtype=torch.bfloat16):
            output = model(batch[0])
        return nn.functional.mse_loss(output.float(), batch[1]), output

    def parts(options: Any) -> Parts:
        model, batch = network(options.seed)
        return Parts(model=model, batch=batch, forward=forward)

    torch.manual_seed(0)
    model, batch = network(0)
    model = model.to(setting.device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    x, y = (each.to(setting.device) for each in batch(0))
    for _ in range(5):
        loss, _ = forward(model, (x, y))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    wanted = trained_tensors(model, optimizer)
    session = setting.open(Scenario("autocast", parts), ADAM)
    run_all(session, "fbsz*5")
    findings.require_equal(differing(wanted, tensors_in(session)), "autocast")
    session.rewind(6)
    run_to(session, 20)
    findings.require_equal(differing(wanted, tensors_in(session)), "autocast, after going back")
    frame = session.run("i:f")
    findings.say(f"{len(list(session.trace(frame.index).ops))} operations inside")


class _MovedBatch:
    """A batch with a `to` of its own, as libraries have them."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def to(self, device: Any) -> _MovedBatch:
        return _MovedBatch(self.x.to(device), self.y.to(device))


def batches(setting: Setting, findings: Findings) -> None:
    """A batch of a class of its own is moved to the device; so are those of a loader with workers, to be read again."""
    from torch.utils.data import DataLoader, TensorDataset

    from autograd_tui import from_loader

    def forward(model: nn.Module, batch: _MovedBatch) -> Tensor:
        return nn.functional.mse_loss(model(batch.x), batch.y)

    def moved(options: Any) -> Parts:
        model, batch = network(options.seed)
        return Parts(model=model, batch=lambda i: _MovedBatch(*batch(i)), forward=forward)

    def loaded(options: Any) -> Parts:
        model, _ = network(options.seed)
        data = TensorDataset(torch.rand(96, 64), torch.rand(96, 8))
        workers = 0 if setting.is_quick else 2
        loader = DataLoader(data, 32, shuffle=True, num_workers=workers, pin_memory=not setting.on_cpu)
        return Parts(model=model, batch=from_loader(loader), loss=nn.functional.mse_loss)

    for name, build in (("batch of its own class", moved), ("loader", loaded)):
        session = setting.open(Scenario(name, build), ADAM)
        *_, last = session.run_all("fbsz*4")
        findings.require(last.error is None, f"{name}: {last.error}")
        wanted = tensors_in(session)
        session.rewind(4)
        run_to(session, 16)
        findings.require_equal(differing(wanted, tensors_in(session)), f"{name}, after going back")


def state_of_another_device(setting: Setting, findings: Findings) -> None:
    """A state saved on the device opens on the CPU, and one saved there opens here."""
    with tempfile.TemporaryDirectory() as folder:
        for here, there in ((str(setting.device), "cpu"), ("cpu", str(setting.device))):
            path = str(Path(folder, f"{here.replace(':', '')}.pt"))
            session = open_session(scenario_of(network), device=here, optimizer=ADAM)
            run_all(session, "fbsz*2")
            state = state_of(session)
            torch.save({"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()}, path)
            taken = open_session(scenario_of(network), device=there, optimizer=ADAM, state=path)
            findings.require_equal(differing(tensors_in(session), tensors_in(taken)), f"from {here} to {there}")
            *_, last = taken.run_all("fbsz")
            findings.require(last.error is None, f"from {here} to {there}: {last.error}")


def compiled(setting: Setting, findings: Findings) -> None:
    """A compiled model: stepped equals plain, and a forward of it can be recorded."""
    if not setting.with_compiler:
        raise Skipped("not asked for: --compile")

    def compiled_network(seed: int) -> tuple[nn.Module, Batch]:
        model: Any = torch.compile(nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8)))
        x, y = torch.rand(32, 64), torch.rand(32, 8)
        return model, lambda i: (x, y)

    plain = PlainRun(setting, compiled_network, ADAM)
    plain.iterate(4)
    session = setting.open(compiled_network, ADAM)
    run_all(session, "fbsz*4")
    findings.require_equal(differing(plain.tensors(), tensors_in(session)), "compiled")
    for letter in "fbsz":
        frame = session.run(f"i:{letter}")
        findings.require(frame.error is None, f"i:{letter}: {frame.error}")
        if letter == "f":
            findings.say(f"inside: {len(list(session.trace(frame.index).ops))} operations")


def devices(setting: Setting, findings: Findings) -> None:
    """The device is chosen, named in a journal's versions, and refused with a sentence where there is none of it."""
    findings.require(choose_device("cpu") == "cpu", "the CPU cannot be chosen")
    kind = setting.device.type
    try:
        findings.say(f"auto is {choose_device('auto')}, cuda:9 is {choose_device('cuda:9')}")
        findings.require(False, "cuda:9 was taken")
    except Refused as refused:
        findings.say(str(refused))
    if not setting.on_cpu:
        findings.require(choose_device("auto") == choose_device(None) == kind, f"auto is {choose_device('auto')}")
        findings.say(f"versions {device_versions(kind)}")
        session = open_session(scenario_of(network), device=f"{kind}:0", optimizer=ADAM)
        run_all(session, "fbsz")
        findings.require(session.frame.memory == setting.allocated(), f"{kind}:0 has another memory than {kind}")


def other_thread(setting: Setting, findings: Findings) -> None:
    """A session that lives on a thread of its own, as the screen's does, ends in the same bits."""
    ends: list[Any] = []

    def train() -> None:
        session = setting.open(network, ADAM)
        run_all(session, "fbsz*2 i:f i:b i:s i:z")
        session.rewind(5)
        run_to(session, 12)
        run_freely(session, 4)
        ends.append(tensors_in(session))

    thread = Thread(target=train)
    thread.start()
    thread.join()
    train()
    findings.require(len(ends) == 2, "the thread raised")
    findings.require_equal(differing(ends[0], ends[-1]), "on a thread of its own")


def second_device(setting: Setting, findings: Findings) -> None:
    """On the second card random numbers, clock and memory are its own."""
    if setting.on_cpu or torch.accelerator.device_count() < 2:
        raise Skipped("there is no second card")
    device = f"{setting.device.type}:1"
    session = open_session(scenario_of(network), device=device, optimizer=ADAM)
    run_all(session, "fbsz*4")
    wanted = tensors_in(session)
    session.rewind(4)
    run_to(session, 16)
    findings.require_equal(differing(wanted, tensors_in(session)), f"on {device} after going back")
    memory = torch.accelerator.memory_allocated(torch.device(device))
    findings.require(session.frame.memory == memory, "the memory told is that of another card")
