"""The oracle: plain PyTorch told the same commands, which goes back by starting over and never by a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import ReduceLROnPlateau

from plain_loop import Build, Tensors, copied, mse, named_tensors

OPTIMIZERS: dict[str, Callable[[Iterable[Any], float], optim.Optimizer]] = {
    "sgd": lambda params, lr: optim.SGD(params, lr=lr),
    "sgd,momentum=0.9": lambda params, lr: optim.SGD(params, lr=lr, momentum=0.9),
    "adam": lambda params, lr: optim.Adam(params, lr=lr),
    "adam,lr=0.05,amsgrad=true": lambda params, lr: optim.Adam(params, lr=0.05, amsgrad=True),
    "adagrad": lambda params, lr: optim.Adagrad(params, lr=lr),
    "rmsprop,momentum=0.5": lambda params, lr: optim.RMSprop(params, lr=lr, momentum=0.5),
}


def two_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Divide the parameters: every other one has a learning rate of its own."""
    params = list(model.parameters())
    return [{"params": params[::2]}, {"params": params[1::2], "lr": 0.01}]  # the second may be empty


class PlainRun:
    """Runs commands one at a time; those that raised change nothing, but a backward spends its graph."""

    def __init__(
        self,
        build: Build,
        optimizer: str,
        *,
        lr: float,
        seed: int,
        decay: tuple[float, int] | None,
        groups: Callable[[nn.Module], Sequence[Any]] = lambda model: list(model.parameters()),
    ) -> None:
        self._groups = groups
        self._start: Callable[[], None] = partial(self._build, build, optimizer, lr, seed, decay)
        self._commands: list[tuple[str, bool]] = []  # and whether each raised
        self._stale = False
        self.left: dict[int, tuple[list[tuple[str, bool]], list[Tensors]]] = {}  # branches by number
        self._numbers = count(1)
        self.index = 0
        self._start()
        self.past = [copied(self.tensors())]

    def _build(self, build: Build, optimizer: str, lr: float, seed: int, decay: tuple[float, int] | None) -> None:
        self._rng = torch.get_rng_state()
        with self._own_random_numbers():
            torch.manual_seed(seed)
            self.model, self._batch = build(seed)
            self.model.train()
        self._decay = decay
        self.params = dict(self.model.named_parameters())
        self._use(OPTIMIZERS[optimizer](self._groups(self.model), lr))
        self._reached = dict.fromkeys(self.params, False)  # by the graph of the last forward
        self.loss: Tensor | None = None
        self.graph = "none"
        self.steps = self._forwards = 0
        self.backwards = dict.fromkeys(self.params, 0)
        self.used = dict.fromkeys(self.params, False)

    @property
    def now(self) -> Tensors:
        """Give what every tensor should be."""
        return self.past[self.index]

    def tensors(self) -> Tensors:
        return named_tensors(self.model, self.optimizer, self.loss, self._rng)

    def rewind(self, index: int) -> None:
        """Stand at another moment; the live tensors are made anew only when the next command needs them."""
        self.index = index
        self._stale = True

    def take_branch(self, number: int) -> None:
        """Stand at the end of a run that was left, and leave this one."""
        commands, past = self.left.pop(number)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._commands, commands, strict=False)))
        self._leave(shared)
        self._commands, self.past = commands, past
        self.rewind(len(commands))

    def _leave(self, fork: int) -> None:
        if fork < len(self._commands):
            self.left[next(self._numbers)] = self._commands[:], self.past[:]

    def catch_up(self) -> None:
        """Start over and run all that did not raise."""
        if not self._stale:
            return
        self._stale = False
        self._start()
        for command, raised in self._commands[: self.index]:
            if not raised:
                self._do(command)
            elif command in "bB":
                self._backward_that_raises()

    def run(self, command: str) -> BaseException | None:
        """Run one command and give what it raised."""
        self.catch_up()
        self._leave(self.index)
        del self._commands[self.index :], self.past[self.index + 1 :]
        error: BaseException | None = None
        try:
            if command in "bB":
                self._backward_or_nothing()
            else:
                self._do(command)
        except Exception as raised:
            error = raised
            self._stale = command not in "bB"
        self._commands.append((command, error is not None))
        self.past.append(self.now if error else copied(self.tensors()))
        self.index += 1
        return error

    def _backward_or_nothing(self) -> None:
        grads, rng = {name: copy(param.grad) for name, param in self.params.items()}, self._rng
        try:
            self._do("b")
        except Exception:
            self._rng = rng
            for name, param in self.params.items():
                param.grad = grads[name]
            raise

    def _backward_that_raises(self) -> None:
        try:
            self._backward_or_nothing()
        except Exception:
            return
        raise AssertionError("it raised before")

    def _do(self, command: str) -> None:
        with self._own_random_numbers():
            if command in "fF":
                self._forward()
            elif command in "bB":
                self._backward()
            elif command in "sS":
                self._step()
            elif command in "zZ":
                self.optimizer.zero_grad()
                self.backwards, self.used = dict.fromkeys(self.params, 0), dict.fromkeys(self.params, False)
            else:
                self._set(*command.split("=", 1))

    def _forward(self) -> None:
        inputs, targets = self._batch(self._forwards)
        self.loss = mse(self.model(inputs), targets)
        self.graph = "alive" if self.loss.requires_grad else "none"
        self._reached = {name: param.requires_grad for name, param in self.params.items()}
        self._forwards += 1

    def _backward(self) -> None:
        if self.loss is None:
            raise NameError("name 'loss' is not defined")
        self.graph = "freed" if self.graph == "alive" else self.graph
        self.loss.backward()
        for name, param in self.params.items():
            if self._reached[name] and param.requires_grad:
                self.backwards[name] += 1
                self.used[name] = False

    def _step(self) -> None:
        self.optimizer.step()
        if self._scheduler and self.loss is not None:
            self._scheduler.step(self.loss.detach())
        self.used = {name: used or self.backwards[name] > 0 for name, used in self.used.items()}
        self.steps += 1

    def _set(self, name: str, value: str) -> None:
        if name == "lr":
            for group in self.optimizer.param_groups:
                group["lr"] = float(value)
        elif name.startswith("lr["):
            self.optimizer.param_groups[int(name[3:-1])]["lr"] = float(value)
        elif name.endswith("requires_grad"):
            target = name.removesuffix("requires_grad").removesuffix(".")
            for each, param in self.params.items():
                if not target or each == target or each.startswith(f"{target}."):
                    param.requires_grad_(value == "True")
        elif name == "optimizer":
            groups = [
                {"params": group["params"]} | ({} if "lr=" in value else {"lr": group["lr"]})
                for group in self.optimizer.param_groups
            ]
            self._use(OPTIMIZERS[value](groups, 0.1))
        else:
            with torch.no_grad():
                self.params[name.split("[")[0]].view(-1)[0] = float(value)

    def _use(self, optimizer: optim.Optimizer) -> None:
        self.optimizer = optimizer
        factor, patience = self._decay or (0.1, 10)
        scheduler = ReduceLROnPlateau(optimizer, factor=factor, patience=patience, min_lr=1e-5)
        self._scheduler: Any = scheduler if self._decay else None

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        outer = torch.get_rng_state()
        torch.set_rng_state(self._rng)
        try:
            yield
            self._rng = torch.get_rng_state()
        finally:
            torch.set_rng_state(outer)


def copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()
