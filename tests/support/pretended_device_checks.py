"""Train on the pretended accelerator, in a process of its own; print what was found as JSON."""

from __future__ import annotations

import gc
import json
import math
import warnings
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from autograd_tui import Options, Parts, Session, open_session
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import StatsTable
from autograd_tui.engine.replay import free_run
from autograd_tui.engine.tracing import measurement_batch
from autograd_tui.engine.training.accelerator import choose_device
from autograd_tui.engine.training.checkpoint import restore_checkpoint
from autograd_tui.engine.training.scenario import Scenario
from autograd_tui.engine.training.stats_reader import StatsReader, TensorGroup
from pretended_accelerator import NAME, counted, counted_launches, limit_memory, memory_held, register
from session_internals import checkpoints_of, state_of, trainer_of

ITERATIONS = 4


class Network(nn.Module):
    """Buffers that each forward changes, random numbers of the device's own, and parameters that are sampled."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(16, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Dropout(0.3), nn.Linear(96, 4), nn.Linear(4, 2)
        )

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


def _network(options: Options) -> Parts:
    model = Network()
    x, y = torch.rand(16, 16), torch.rand(16, 2)
    return Parts(model=model, batch=lambda _: (x, y), loss=nn.functional.mse_loss, optimizer="adam,lr=0.01")


class NarrowResNet(ResNet):
    """A resnet18 with a quarter of its channels: as many tensors and operations, and a sixteenth of the numbers."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=10)
        self.fc = nn.Linear(512 // 4, 10)

    def _make_layer(self, block: Any, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
        return super()._make_layer(block, planes // 4, *args, **kwargs)


def _resnet18(options: Options) -> Parts:
    model = NarrowResNet()
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 10)
    return Parts(model=model, batch=lambda _: (x, y), loss=nn.functional.mse_loss, optimizer="sgd,lr=0.01,momentum=0.9")


def _captured(options: Options) -> Parts:
    """Train on batches that the scenario itself has brought to the device."""
    model = Network()
    batches = [(torch.rand(16, 16).to(NAME), torch.rand(16, 2).to(NAME))]
    return Parts(model=model, batch=lambda _: batches[0], loss=nn.functional.mse_loss, optimizer="adam,lr=0.01")


class Doubled(torch.autograd.Function):
    """Changes its input in place, unseen by torch functions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 2


class Spoiled(nn.Module):
    """Makes NaN and infinity in tensors of more values than are copied whole, and changes those in place afterwards."""

    def __init__(self, *, unseen: bool) -> None:
        super().__init__()
        self.first, self.second, self.unseen = nn.Linear(16, 96), nn.Linear(96, 2), unseen

    def forward(self, x: Tensor) -> Any:
        h = self.first(x).log()
        if self.unseen:
            h = Doubled.apply(h)
        h.view(-1).clamp_(min=-2)
        h = nn.functional.relu(h, inplace=True)
        g = self.first(x).relu() * 0 + x.repeat(1, 6) / torch.zeros(96, device=x.device)
        torch.nan_to_num(g.detach(), out=g.detach())
        return self.second(h + g)


def _spoiled(*, unseen: bool) -> Scenario:
    def build(options: Options) -> Parts:
        model = Spoiled(unseen=unseen)
        x, y = torch.rand(16, 16), torch.rand(16, 2)
        return Parts(model=model, batch=lambda _: (x, y), loss=nn.functional.mse_loss, optimizer="sgd,lr=0.01")

    return Scenario("spoiled", build)


def opened(name: str, device: str = NAME) -> Session:
    """Open "linear", "network", "captured" or a narrow resnet18 of two small images on a device."""
    own = {"network": _network, "captured": _captured, "resnet18": _resnet18}
    return open_session(Scenario(name, own[name]) if name in own else name, device=device)


def iterations(name: str) -> int:
    """Return how many iterations a scenario is run for."""
    return 2 if name == "resnet18" else ITERATIONS


def on_host(session: Session) -> dict[str, Tensor]:
    """Return copies of all that training has changed."""
    state = state_of(session)
    named = {**dict(state.model.named_parameters()), **dict(state.model.named_buffers())}
    for name, param in state.params.items():
        named |= {f"{name}.{key}": each for key, each in state.optimizer.state.get(param, {}).items()}
    return {name: tensor.detach().cpu().clone() for name, tensor in named.items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    return [name for name in one if not torch.equal(one[name], other[name])]


def plain_tensors(name: str) -> dict[str, Tensor]:
    """Return what the loop that anyone would write has trained on the device."""
    session = opened(name)
    state = state_of(session)
    with state.global_state:
        for _ in range(iterations(name)):
            x, y = state.parts.batch(0)
            assert state.parts.loss is not None
            state.parts.loss(state.model(x.to(NAME)), y.to(NAME)).backward()
            state.optimizer.step()
            state.optimizer.zero_grad()
    return on_host(session)


def equal_to_the_plain_loop(name: str) -> list[str]:
    """Return which tensors of a stepped, a free and a recorded run differ from the plain loop's."""
    wanted = plain_tensors(name)
    stepped, recorded, free = opened(name), opened(name), opened(name)
    list(stepped.run_all(f"fbsz*{iterations(name)}"))
    for letter in "fbsz" * iterations(name):
        recorded.run(f"i:{letter}")
    for _ in free.run_free(free.end_of(iterations(name)), lambda: False):
        pass
    sessions = {"stepped": stepped, "recorded": recorded, "free": free}
    return [f"{how} {each}" for how, session in sessions.items() for each in differing(wanted, on_host(session))]


def rewound(name: str) -> list[str]:
    """Go back to several frames and on again; return what is not as it was."""
    session = opened(name)
    frames = {frame.index: frame for frame in session.run_all(f"fbsz*{iterations(name)}")}
    end, wanted = session.frame.index, on_host(session)
    wrong = []
    for index in (1, 2, 6, 0, end - 3):
        if index and not session.rewind(index).same(frames[index]):
            wrong.append(f"frame {index}")
        if not index:
            session.rewind(0)
        while session.frame.index < end:
            session.run(session.next_command())
        wrong += [f"from {index}: {each}" for each in differing(wanted, on_host(session))]
    return wrong


def readbacks(name: str) -> dict[str, dict[str, int]]:
    """Return how often each command waits for the device, by line, once all has been looked at before."""
    session = opened(name)
    list(session.run_all("fbsz*2"))
    for letter in "fbsz":
        session.run(f"i:{letter}")
    found = {}
    for command in (*"fbsz", *(f"i:{letter}" for letter in "fbsz")):
        with counted() as places:
            session.run(command)
        found[command] = dict(places)
    return found


def not_finite(*, unseen: bool = False, held_bytes: int = measurement_batch.MAX_HELD_BYTES) -> list[list[str]]:
    """Return what a recorded forward and backward tell of NaN and infinity, on the device and on the CPU."""
    measurement_batch.MAX_HELD_BYTES = held_bytes
    told: list[list[str]] = []
    for device in (NAME, "cpu"):
        session = open_session(_spoiled(unseen=unseen), device=device)
        traces = [session.run("i:f").trace, session.run("i:b").trace]
        told.append([])
        for trace in traces:
            assert trace is not None
            told[-1] += trace.notes
            for op in trace.ops:
                values = [each for each in (*op.output, *op.grad_out) if each is not None]
                # A norm is computed in parts on the CPU alone: its last digits differ.
                counts = [(each.nonfinite, f"{each.stats.norm:.6g}", each.stats.min, each.stats.max) for each in values]
                told[-1].append(f"{op.name} {counts} {op.not_finite}")
    return told


def measured_without_room(name: str) -> list[str]:
    """Have no memory left when the phases of every second iteration are measured; return what is not as with plenty."""
    session, other, room = opened(name), opened(name), 1 << 50
    trainer, clock = trainer_of(session), trainer_of(session)._clock

    def fill() -> None:
        clock()
        limit_memory(0 if session.frame.iteration % 2 else room)

    trainer._clock = fill  # type: ignore[method-assign]  # called when a phase has run, and before it is measured
    wrong = []
    for letter in "fbsz" * iterations(name):
        frame = session.run(letter)
        limit_memory(room)
        wanted = other.run(letter)
        pairs = [(table.numbers, same.numbers) for table, same in zip(_tables(frame), _tables(wanted), strict=True)]
        alike = all(_alike(*pair) for pair in pairs)
        wrong += [f"frame {frame.index} {frame.error or ''}"] * (frame.loss != wanted.loss or not alike)
    return wrong + differing(on_host(other), on_host(session))


def _tables(frame: Frame) -> tuple[StatsTable, ...]:
    return frame.params, frame.grads.table, frame.buffers, frame.optimizer_state


def _alike(numbers: array[float], others: array[float]) -> bool:
    """Return whether numbers are the same but for the last digits of a norm in float32."""
    return len(numbers) == len(others) and all(map(partial(math.isclose, rel_tol=1e-4), numbers, others))


def added_launches(name: str) -> dict[str, int]:
    """Return how many more operations a command launches than the plain loop's phase, once all has been looked at."""
    session = opened(name)
    list(session.run_all("fbsz*3"))
    stepped = {}
    for letter in "fbsz":
        with counted_launches() as calls:
            session.run(letter)
        stepped[letter] = sum(calls.values())
    state = state_of(session)
    x, y = (each.to(NAME) for each in state.parts.batch(0))
    loss: Any = None

    def forward() -> None:
        nonlocal loss
        assert state.parts.loss is not None
        loss = state.parts.loss(state.model(x), y)

    plain: dict[str, Callable[[], Any]] = {
        "f": forward,
        "b": lambda: loss.backward(),
        "s": state.optimizer.step,
        "z": state.optimizer.zero_grad,
    }
    added = {}
    with state.global_state:
        for letter, phase in plain.items():
            with counted_launches() as calls:
                phase()
            added[letter] = stepped[letter] - sum(calls.values())
    return added


NEVER_MET = (
    "nonfinite",
    "grad_norm > 1e6",
    "*.grad > 1e6",
    "*.update > 1e6",
    "update > 1e6",
    "dead body.2 > 0.99",
    "still 90",
)


def readbacks_of_a_watched_run(name: str) -> list[int]:
    """Return how often free runs of some and of more iterations wait for the device while a watchpoint is armed."""
    counts = []
    free_run.MAX_FRAME_INTERVAL = 100.0  # on a machine however busy there is no frame between
    for times in (6, 30):
        session = opened(name)
        list(session.run_all("fbsz*3"))
        for watchpoint in NEVER_MET:
            session.arm(watchpoint)
        with counted() as places:
            for _ in session.run_free(session.end_of(times), lambda: False, every=100):
                pass
        counts.append(sum(places.values()))
    return counts


def watched(name: str) -> dict[str, list[int]]:
    """Return the frames at which a run with each condition armed was held, on the device and on the CPU."""
    held: dict[str, list[int]] = {}
    for watchpoint in ("loss < 2", "update < 0.02", "*.update < 0.015", "*.grad < 0.5"):
        for device in (NAME, "cpu"):
            session = opened(name, device=device)
            session.arm(watchpoint)
            for _ in session.run_free(session.end_of(20), lambda: False):
                pass
            held.setdefault(watchpoint, []).append(session.frame.index)
    return held


def memory_and_device(name: str) -> list[Any]:
    """Return what the session and its newest frame tell of the device."""
    session = opened(name)
    frame = session.run("f")
    return [session.about.device, (frame.memory or 0) > 0, choose_device("auto"), choose_device(f"{NAME}:0")]


def launches_of_a_table(count: int) -> int:
    """Return how many operations a table of so many large tensors takes on the device."""
    tensors = {str(index): torch.rand(64, 64 + index, device=NAME) for index in range(count)}
    reader, group = StatsReader(), TensorGroup(tensors, sampled_range=True)
    reader.read({"all": group})
    with counted_launches() as launched:
        table = reader.read({"all": group})["all"]
    host = TensorGroup({name: tensor.cpu() for name, tensor in tensors.items()}, sampled_range=True)
    for row, wanted in zip(table, StatsReader().read({"all": host})["all"], strict=True):
        assert math.isclose(row.norm or 0, wanted.norm or 0, rel_tol=1e-4)
        assert row.histogram == wanted.histogram
    return launched.total()


def checkpoints(name: str) -> dict[str, Any]:
    """Return where checkpoints lie, what each kind reads back, launches when taken and restored, and has wrong."""
    session = opened(name)
    list(session.run_all("fbsz*2"))
    trainer, wanted = trainer_of(session), on_host(session)
    found: dict[str, Any] = {"kept on the device": [each.is_on_device for each in checkpoints_of(session)]}
    for place in ("device", "host"):
        with counted_launches() as taken, counted() as read:
            checkpoint = trainer.checkpoint(on_device=place == "device")
        list(session.run_all("fbsz"))
        with counted_launches() as restored, trainer.state.global_state:
            restore_checkpoint(trainer.state, checkpoint)
        found[place] = [
            sum(read.values()),
            checkpoint.is_on_device,
            differing(wanted, on_host(session)),
            [sum(calls[each] for each in ("aten::_foreach_copy_", "aten::_copy_from")) for calls in (taken, restored)],
        ]
        assert all(each.device.type == "cpu" for each in checkpoint.on_host().tensors())
        trainer.restore(checkpoint)
    limit_memory(0)
    found["without room"] = trainer.checkpoint(on_device=True).is_on_device
    limit_memory(1 << 50)
    return found


def out_of_memory(name: str) -> list[Any]:
    """Run out of memory in forward and backward; return which raised, and what is not as it should be."""
    wanted, session = plain_tensors(name), opened(name)
    list(session.run_all(f"fbsz*{iterations(name) - 1}"))
    start, wrong, raised = session.frame.index, [], ""
    for letter in "fb":
        gc.collect()
        before, held = on_host(session), memory_held()
        limit_memory(0)
        frame = session.run(letter)
        limit_memory(1 << 50)
        if frame.error is None:
            continue
        raised += letter
        gc.collect()
        wrong += [f"{letter}: {frame.error.type}"] * (not frame.error.is_out_of_memory)
        wrong += [f"{letter}: {each}" for each in differing(before, on_host(session))]
        wrong += [f"{letter}: {memory_held() - held} bytes more"] * (memory_held() > held)
        wrong += [f"{letter}: checkpoints on the device"] * any(each.is_on_device for each in checkpoints_of(session))
        if letter == "b":  # its graph is gone
            session.rewind(start)
            session.run("f")
        again = session.run(letter)
        wrong += [f"{letter} again: {again.error}"] * (again.error is not None)
    list(session.run_all("sz"))
    return [raised, wrong + differing(wanted, on_host(session))]


def main() -> None:
    """Print each check's result, by its name and the scenario's."""
    register()
    torch.set_num_threads(1)  # small tensors gain nothing from more
    warnings.simplefilter("ignore")
    gc.freeze()  # each collection would look through all that has been imported
    results = {
        f"{check.__name__} {name}": check(name)
        for check in (equal_to_the_plain_loop, rewound, readbacks, memory_and_device, checkpoints, out_of_memory)
        for name in ("linear", "network")
    }
    results["measured_without_room resnet18"] = measured_without_room("resnet18")
    for check in (equal_to_the_plain_loop, rewound, readbacks, checkpoints):
        results[f"{check.__name__} resnet18"] = check("resnet18")
    for name in ("network", "resnet18"):
        results[f"added_launches {name}"] = added_launches(name)
    results["readbacks_of_a_watched_run network"] = readbacks_of_a_watched_run("network")
    results["launches of a table"] = [launches_of_a_table(count) for count in (2, 12)]
    results |= {f"{check.__name__} captured": check("captured") for check in (rewound, readbacks)}
    results["watched linear"] = watched("linear")
    results["not finite"] = not_finite()
    results["not finite, changed unseen"] = not_finite(unseen=True)
    results["not finite, little held"] = not_finite(unseen=True, held_bytes=0)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
