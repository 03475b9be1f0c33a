"""Plain PyTorch told the keys of a screen: what is true at every frame, with none of the engine's numbers.

It goes back by starting over, and never by a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn, optim

from autograd_tui.scenarios.find import find

Named = dict[str, Tensor]
PHASES = {"f": "forward", "b": "backward", "s": "step", "z": "zero_grad"}
OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    "sgd": optim.SGD,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "rmsprop": optim.RMSprop,
    "adagrad": optim.Adagrad,
}


def copies(tensors: dict[str, Any]) -> Named:
    """Copy those that there are."""
    return {name: each.detach().clone() for name, each in tensors.items() if each is not None}


def same(one: Named | None, other: Named | None) -> bool:
    """Tell whether two sets hold the same numbers."""
    if one is other or one is None or other is None:
        return one is other
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@dataclass(frozen=True)
class Moment:
    """All that a frame may speak of; what a command leaves alone is that of the frame before."""

    index: int
    params: Named
    learning_rate: float
    optimizer: str  # "sgd,momentum=0.9"
    command: str = ""
    phase: str = ""
    raised: str = ""  # the type
    iteration: int = 0
    steps: int = 0
    loss_steps: int = 0
    graph: str = "none"
    grads: Named = field(default_factory=dict)
    backwards: dict[str, int] = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    slopes: dict[str, tuple[int, Named]] = field(default_factory=dict)  # each gradient's forward, and parameters there
    frozen: frozenset[str] = frozenset()
    cleared: Named | None = None  # what the last zero_grad found
    found: Named | None = None  # what the last backward found
    reached: frozenset[str] = frozenset()  # by the last backward
    loss: float | None = None
    loss_params: Named | None = None
    forward: int = 0  # the frame of the forward that the loss is from
    prediction: Tensor | None = None
    inputs: Tensor | None = None
    targets: Tensor | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    buffers: Named = field(default_factory=dict)
    buffers_before: Named | None = None
    before: Named | None = None  # the last step or setting
    mover: str = ""  # "step" or "you"
    moved_at: int = -1  # its frame
    step_rate: float | None = None
    state: dict[str, Named] = field(default_factory=dict)  # the optimizer's, by parameter

    @property
    def old(self) -> bool:
        """Whether a parameter differs from those that the loss was measured with."""
        return self.loss_params is not None and not same(self.params, self.loss_params)

    @property
    def next_phase(self) -> str:
        if self.graph == "alive":
            return "backward"
        if not self.grads:
            return "forward"
        return "zero_grad" if self.grads.keys() <= self.used else "step"


class PlainMoments:
    """Runs commands on a scenario of ours, and keeps a moment for each frame of the present branch."""

    def __init__(self, name: str, **options: Any) -> None:
        self._name, self._options = name, options
        self.commands: list[str] = []
        self.index = 0
        self._stale = False
        self._start()
        self.moments = [self._first()]
        self.left: list[Moment] = []  # of branches that were left

    @property
    def now(self) -> Moment:
        return self.moments[self.index]

    @property
    def newest(self) -> int:
        return len(self.moments) - 1

    def go_to(self, index: int) -> None:
        """Stand at another frame; the live tensors are made anew once a command needs them."""
        if index != self.index:
            self.index, self._stale = index, True

    def run(self, command: str, *, anew: bool = False) -> bool:
        """Run one command; tell whether it was not refused. One that ran from here before leads back to its frame.

        anew: leave that branch, as a run does.
        """
        if not anew and self.commands[self.index : self.index + 1] == [command]:
            self.go_to(self.index + 1)
            return True
        if self._refused(command):
            return False
        self._catch_up()
        self.left += self.moments[self.index + 1 :]
        del self.commands[self.index :], self.moments[self.index + 1 :]
        self.moments.append(self._do(command, self.now))
        self.commands.append(command)
        self.index += 1
        return True

    def run_next(self, *, anew: bool = False) -> bool:
        """Run the phase whose turn it is; tell whether others may follow."""
        return self.run(self.now.next_phase[0], anew=anew) and not self.now.raised

    def run_iterations(self, times: int, *, anew: bool) -> None:
        """Run to the end of so many iterations, one that has begun included."""
        goal = self.coming_iteration() + times - 1
        while self.coming_iteration() <= goal:
            if not self.run_next(anew=anew):
                return
            if self.now.phase == "zero_grad" and self.now.iteration >= goal:
                return

    def coming_iteration(self) -> int:
        """Give the iteration that the next phase belongs to."""
        now = self.now
        begins = now.next_phase == "forward" and (now.iteration == 0 or now.steps > now.loss_steps)
        return now.iteration + begins

    def slope_along(self, start: Named, end: Named) -> float:
        """Give the loss's derivative at `start` in the direction of `end`, on the batch that was measured last."""
        self._catch_up()
        now, params = copies(self.params), self.params
        with torch.no_grad():
            for name, param in params.items():
                param.copy_(start[name])
        buffers = copies(dict(self.model.named_buffers()))
        inputs, targets = self._parts.batch(max(self._forwards - 1, 0))
        loss = self._parts.loss(self.model(inputs), targets)  # type: ignore[misc]
        trained = {name: param for name, param in params.items() if param.requires_grad}
        grads = torch.autograd.grad(loss, list(trained.values()))
        slope = sum(float((g * (end[n] - start[n])).sum()) for n, g in zip(trained, grads, strict=True))
        with torch.no_grad():
            for name, param in params.items():
                param.copy_(now[name])
            for name, buffer in self.model.named_buffers():
                buffer.copy_(buffers[name])
        self._stale = True  # what was copied into has spoiled the graph
        return slope

    # The loop itself.

    def _start(self) -> None:
        torch.manual_seed(0)
        found = find(self._name)
        self._parts = found.build(found.options(0, self._options, device="cpu"))
        self.names = self._parts.names
        self.model: nn.Module = self._parts.model.train()
        self.params = dict(self.model.named_parameters())
        name, *options = self._parts.optimizer.split(",")
        self._use(name, options, None)
        self._forwards = 0
        self._loss: Tensor | None = None

    def _first(self) -> Moment:
        params, buffers = copies(self.params), copies(dict(self.model.named_buffers()))
        return Moment(0, params, self._rate, self._spelled, buffers=buffers, state=self._state())

    def _state(self) -> dict[str, Named]:
        state = ((name, self._optimizer.state.get(param, {})) for name, param in self._items())
        return {name: copies({k: each for k, each in held.items() if isinstance(each, Tensor)}) for name, held in state}

    def _use(self, name: str, options: list[str], rate: float | None) -> None:
        given = {key: float(value) for key, _, value in (each.partition("=") for each in options)}
        lr = given.pop("lr", rate)
        self._optimizer = OPTIMIZERS[name](self.model.parameters(), **given, **({} if lr is None else {"lr": lr}))  # type: ignore[arg-type]
        self._spelled = ",".join([name, *(each for each in options if not each.startswith("lr="))])

    def _items(self) -> Iterable[tuple[str, nn.Parameter]]:
        return self.params.items()

    @property
    def _rate(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def _refused(self, command: str) -> bool:
        now = self.now
        return (command == "b" and now.graph != "alive") or (command == "s" and not now.grads.keys() - now.used)

    def _catch_up(self) -> None:
        if self._stale:
            self._stale = False
            self._start()
            for command, moment in zip(self.commands[: self.index], self.moments, strict=False):
                self._do(command, moment)

    def _do(self, command: str, now: Moment) -> Moment:
        phase = PHASES.get(command.lower(), "")
        after = replace(now, index=now.index + 1, command=command, phase=phase, raised="")
        run: Callable[[Moment], Moment] = getattr(self, f"_{phase}") if phase else self._set
        try:
            return replace(run(after), index=now.index + 1)
        except Exception as error:
            return replace(after, raised=type(error).__name__, graph="freed" if now.graph == "alive" else now.graph)

    def _forward(self, now: Moment) -> Moment:
        inputs, targets = self._parts.batch(self._forwards)
        before = copies(dict(self.model.named_buffers()))
        prediction = self.model(inputs)
        self._loss = loss = self._parts.loss(prediction, targets)  # type: ignore[misc]
        self._forwards += 1
        with torch.no_grad():
            metrics = {name: float(each(prediction, targets)) for name, each in self._parts.metrics.items()}
        return replace(
            now,
            iteration=now.iteration + (now.iteration == 0 or now.steps > now.loss_steps),
            loss_steps=now.steps,
            graph="alive" if loss.requires_grad else "none",
            loss=loss.item(),
            loss_params=now.params,
            forward=now.index,
            prediction=prediction.detach(),
            inputs=inputs,
            targets=targets,
            metrics=metrics,
            buffers=copies(dict(self.model.named_buffers())),
            buffers_before=before,
        )

    def _backward(self, now: Moment) -> Moment:
        if self._loss is None:
            raise NameError("name 'loss' is not defined")
        before = {name: (param.grad, param.grad is not None and param.grad._version) for name, param in self._items()}
        self._loss.backward()
        after = {name: (param.grad, param.grad is not None and param.grad._version) for name, param in self._items()}
        reached = {name for name in after if after[name][0] is not before[name][0] or after[name][1] != before[name][1]}
        assert now.loss_params is not None
        return replace(
            now,
            graph="freed",
            grads=copies({name: param.grad for name, param in self.params.items()}),
            backwards={**now.backwards, **{name: now.backwards.get(name, 0) + 1 for name in reached}},
            used=now.used - reached,
            slopes={**now.slopes, **dict.fromkeys(reached, (now.forward, now.loss_params))},
            found=now.grads or None,
            reached=frozenset(reached),
        )

    def _step(self, now: Moment) -> Moment:
        rate = self._rate
        self._optimizer.step()
        moved = copies(self.params)
        return replace(
            now,
            params=moved,
            before=now.params,
            mover="step",
            moved_at=now.index,
            step_rate=rate,
            steps=now.steps + 1,
            used=now.used | now.grads.keys(),
            state=self._state(),
        )

    def _zero_grad(self, now: Moment) -> Moment:
        self._optimizer.zero_grad()
        return replace(now, grads={}, backwards={}, used=frozenset(), slopes={}, cleared=now.grads)

    def _set(self, now: Moment) -> Moment:
        name, _, value = now.command.partition("=")
        if name == "lr":
            for group in self._optimizer.param_groups:
                group["lr"] = float(value)
            return replace(now, learning_rate=float(value))
        if name == "optimizer":
            kind, *options = value.split(",")
            self._use(kind, options, self._rate)
            return replace(now, optimizer=self._spelled, learning_rate=self._rate, state=self._state())
        if name.endswith("requires_grad"):
            target = name.removesuffix("requires_grad").removesuffix(".")
            for each, param in self._items():
                if not target or f"{each}.".startswith(f"{target}."):
                    param.requires_grad_(value == "True")
            frozen = frozenset(each for each, param in self._items() if not param.requires_grad)
            return replace(now, frozen=frozen)
        with torch.no_grad():
            self.params[name.split("[")[0]].view(-1)[0] = float(value)
        return replace(now, params=copies(self.params), before=now.params, mover="you", moved_at=now.index)
