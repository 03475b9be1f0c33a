"""The training loop itself, on real PyTorch: four phases, and what may be set between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from autograd_tui.core.errors import Refused, UserCodeError
from autograd_tui.core.fork_guard import ForkGuard
from autograd_tui.core.optimizer_spec import LrDecay, OptimizerSpec
from autograd_tui.core.tensor_stats import MOST_VALUES
from autograd_tui.engine.training.global_state import GlobalState
from autograd_tui.engine.training.model_buffers import ModelBuffers
from autograd_tui.engine.training.optimizers import make_optimizer, make_scheduler
from autograd_tui.engine.training.param_groups import check_optimizer, places, read_groups
from autograd_tui.engine.training.predict import Losses, one_number, predict
from autograd_tui.engine.training.python_state import PythonState, ReachableState
from autograd_tui.engine.training.scenario import Parts
from autograd_tui.engine.training.stats_reader import MOST_MEASURED, in_memory, shape_of


class Loop:
    """One model with its data, its optimizer and the live graph.

    A phase raises Raised where PyTorch or the user's code raises, and then leaves parameters, gradients, buffers and
    random numbers as they were; a step alone may be left half done. Call it inside its `surroundings`.
    """

    def __init__(
        self, parts: Parts, spec: OptimizerSpec, *, device: str, decay: LrDecay | None, surroundings: GlobalState
    ) -> None:
        self.parts = parts
        self.device = torch.device(device)
        self.surroundings = surroundings
        self.model = parts.model.to(self.device)  # in the mode that it has, train unless somebody chose eval
        self.params: dict[str, nn.Parameter] = dict(self.model.named_parameters())
        if any(nn.parameter.is_lazy(param) for param in self.params.values()):
            raise Refused("the model has lazy parameters, which have no shape yet: run one batch through it in build.")
        if inference := [name for name, param in self.params.items() if param.is_inference()]:
            raise Refused(f"{inference[0]} was made in inference mode, in which nothing can be trained.")
        self._shapes = [param.shape for param in self.params.values()]
        self.names: dict[str, str] = _names(self.model)
        self.groups = read_groups(parts.groups, self.model)
        self.group_of = places(self.groups, self.params.values())  # the group of each parameter
        self.decay = decay
        self.optimizer: torch.optim.Optimizer
        self.scheduler: ReduceLROnPlateau | None
        self.start_optimizer(spec)
        self.buffers = ModelBuffers.of(self.model)  # as the last forward met them
        self.reach = ReachableState(parts)
        self.begun = self.attributes()
        self.carries: bool | None = None  # whether a graph went on from what the forward before left; None: not seen
        self._attached: list[Tensor] = []  # what that had left with a graph
        self.strange = self.begun.strange  # what the forward uses that cannot be put back, as last met
        self._kept_buffers: dict[str, Tensor] = {}  # room for a copy, used again by each forward
        self.loss: Tensor | None = None  # alive or spent, until the next forward succeeds
        self.graph: Literal["none", "alive", "freed"] = "none"
        self.batch: Any = None
        self.prediction: Any = None
        self.metrics: tuple[tuple[str, Tensor], ...] = ()
        self.frozen_in_graph: frozenset[int] = frozenset()  # places of parameters that were frozen in the last forward
        self.forwards = 0  # completed; the next one takes batch(forwards)
        self.backwards = [int(param.grad is not None) for param in self.params.values()]  # summed in each gradient
        self.used = [False] * len(self.params)  # whether a step has used it

    def forward(self, predict: Callable[[Any], tuple[Tensor, Any, Losses]] | None = None) -> None:
        """Predict and measure the loss; the old graph is let go once the new one stands.

        `predict` runs in place of `self.predict`, to look on at it.
        """
        with self._theirs(undo=self._keep_state()):
            batch = to_device(self.parts.batch(self.forwards), self.device)
            loss, prediction, losses = (predict or self.predict)(batch)
            metrics = self._metrics(prediction, batch, losses)
            prediction, follows = _detached(prediction), loss.requires_grad
            shape_of(loss)  # raises where there is none, as of what a lazy module holds
            self.check_parameters()
            self.check_buffers()
            both = batch if isinstance(batch, (tuple, list)) else (batch,)
            _check_memory([("the loss", loss), ("the prediction", prediction), *(("the batch", each) for each in both)])
        self.loss, self.batch, self.prediction, self.metrics = loss, batch, prediction, metrics
        self.graph = "alive" if follows else "none"
        if self._attached:
            self.carries = bool(self.carries) or _reaches(loss, self._attached)
        self.frozen_in_graph = frozenset(
            place for place, param in enumerate(self.params.values()) if not param.requires_grad
        )
        self.forwards += 1

    def backward(self, run: Callable[[Tensor], None] | None = None) -> None:
        """Compute the gradients; they add to what `.grad` holds. `run` does it in place of the loss, to look on."""
        count = self._counting(range(len(self.params)))
        if self.graph == "alive":
            self.graph = "freed"  # also where it raises half way
        with self._theirs(undo=self._keep_grads()):
            if self.loss is None:
                raise NameError("name 'loss' is not defined")  # as the script's line would
            if run is None:
                self.loss.backward()  # type: ignore[no-untyped-call]
            else:
                run(self.loss)
            self.check_parameters()
            _check_memory((f"{name}.grad", param.grad) for name, param in self.params.items())
        count()

    def step(self) -> bool:
        """Move the parameters, then let the scheduler see the loss; tell whether any parameter was touched."""
        before = [param._version for param in self.params.values()]
        with self._theirs(undo=self._sound_optimizer):
            self.optimizer.step()
            if self.scheduler is not None and self.loss is not None:
                self.scheduler.step(self.loss.detach())
            self.check_parameters()
            self.check_optimizer()
        for place, group in enumerate(self.group_of):
            self.used[place] |= group is not None and self.backwards[place] > 0
        return before != [param._version for param in self.params.values()]

    def zero_grad(self) -> None:
        """Clear the gradients of what the optimizer holds: each `.grad` is None again."""
        with self._theirs(undo=self._sound_optimizer):
            self.optimizer.zero_grad()
        for place, group in enumerate(self.group_of):
            if group is not None:
                self.backwards[place], self.used[place] = 0, False

    def iterations(self) -> Iterator[Tensor]:
        """Run the four phases again and again, and give each iteration's loss, detached.

        Nothing is kept to undo a phase that raises: whoever runs them must be able to return to where they began.
        """
        optimizer, scheduler, at_hand = self.optimizer, self.scheduler, None
        parts, model = self.parts, self.model
        self.loss = self.batch = self.prediction = None
        self.graph, self.metrics = "freed", ()
        outside = [place for place, group in enumerate(self.group_of) if group is None]  # whose gradients add up
        for place in set(range(len(self.params))).difference(outside):
            self.backwards[place], self.used[place] = 0, False  # as each iteration leaves them
        with ForkGuard() as process:
            while True:
                batch = parts.batch(self.forwards)
                if batch is not at_hand:
                    moved = to_device(batch, self.device)
                    at_hand, batch = (batch if moved is batch else None), moved
                loss, _, _ = predict(parts, model, parts.loss, batch)
                self.forwards += 1
                count = self._counting(outside) if outside else _nothing
                loss.backward()  # type: ignore[no-untyped-call]
                count()
                loss = loss.detach()
                optimizer.step()
                if scheduler is not None:
                    scheduler.step(loss)
                optimizer.zero_grad()
                process.check()
                yield loss

    def check_parameters(self) -> None:
        """Raise TypeError where a parameter has another shape than it was made with, or no values any more."""
        if [param.shape for param in self.params.values()] != self._shapes:
            for (name, param), shape in zip(self.params.items(), self._shapes, strict=True):
                if param.shape != shape:
                    now = f"has shape {tuple(param.shape)} now, in place of {tuple(shape)}"
                    raise TypeError(f"{name} {now}: a parameter that is trained keeps its shape.")
        _check_memory(self.params.items())

    def check_buffers(self) -> None:
        """Raise TypeError where a buffer has no values any more."""
        _check_memory(self.buffers.now().items())

    def check_optimizer(self) -> None:
        """Raise TypeError where the optimizer holds what cannot be copied, put back or read."""
        check_optimizer(self.optimizer, self.groups)
        if state := self.optimizer.state:
            _check_memory(
                (f"{name}.{key}", value)
                for name, param in self.params.items()
                for key, value in state.get(param, {}).items()
            )

    def _counting(self, at: Sequence[int]) -> Callable[[], None]:
        """Look at gradients before a backward; what is given back counts it for those that it has added to."""
        params = list(self.params.values()) if at else []
        before = [(place, grad := params[place].grad, grad is not None and grad._version) for place in at]

        def count() -> None:
            for place, grad, version in before:
                now = params[place].grad
                if now is not None and (now is not grad or now._version != version):
                    self.backwards[place] += 1
                    self.used[place] = False

        return count

    def set_lr(self, lr: float, group: int | None = None) -> None:
        """Set the learning rate of every parameter group, or of one; the scheduler's counters stay."""
        if not 0 <= lr < float("inf"):
            raise Refused(f"a learning rate must be a number from 0 up, not {lr}.")
        groups = self.optimizer.param_groups
        if group is not None and group >= len(groups):
            raise Refused(f"there is no parameter group {group}: {_there_are(len(groups))}.")
        for each in groups if group is None else [groups[group]]:
            each["lr"] = lr

    def set_optimizer(self, spec: OptimizerSpec) -> None:
        """Start another optimizer with empty state, and the scheduler anew; without an lr each group's stays."""
        rates = [group["lr"] if spec.lr is None else spec.lr for group in self.optimizer.param_groups]
        self.start_optimizer(spec if spec.lr is not None else spec.with_option("lr", rates[0]), rates)

    def start_optimizer(self, spec: OptimizerSpec, lrs: Sequence[float] | None = None) -> None:
        """Start an optimizer with empty state, and the scheduler anew; `lrs`: the learning rates of its groups."""
        self.optimizer = make_optimizer(spec, self.groups, lrs)
        self.spec = spec
        self.scheduler = make_scheduler(self.decay, self.optimizer) if self.decay else None

    @torch.no_grad()
    def set_value(self, target: str, value: float) -> None:
        """Set one value of a small parameter: "w", "b[0]", "weight[0,1]"."""
        name, bracket, at = target.partition("[")
        param = self.param(name)
        if param.numel() > MOST_VALUES:
            raise Refused(f"{name} has {param.numel():,} values: only parameters of up to {MOST_VALUES} can be set.")
        index = tuple(int(place) for place in at.rstrip("]").split(",")) if bracket else (0,) * param.dim()
        if not bracket and param.numel() > 1:
            first = ",".join("0" * param.dim())
            raise Refused(f"{name} has {param.numel()} values: name one, as in {name}[{first}]={value:g}.")
        inside = len(index) == param.dim() and all(i < n for i, n in zip(index, param.shape, strict=True))
        if not inside:
            raise Refused(f"{target} does not exist: {name} has shape {tuple(param.shape)}, counted from 0.")
        try:
            param[index] = value
        except RuntimeError:
            dtype = str(param.dtype).removeprefix("torch.")
            raise Refused(f"{value:g} does not fit in {dtype}, which {name} is made of.") from None

    def tied(self) -> dict[str, tuple[str, ...]]:
        """Give the other names of each parameter that has some."""
        others: dict[str, tuple[str, ...]] = {}
        for name, first in self.names.items():
            if name != first:
                others[first] = (*others.get(first, ()), name)
        return others

    def param(self, name: str) -> nn.Parameter:
        """Find a parameter by any of its names; raises Refused."""
        if name not in self.names:
            some = ", ".join(list(self.params)[:4])
            raise Refused(f'there is no parameter "{name}": this model has {some}{", ..." * (len(self.params) > 4)}.')
        return self.params[self.names[name]]

    def set_requires_grad(self, name: str, *, wanted: bool) -> None:
        """Freeze or unfreeze one parameter, all of a module, or with no name all there are; the next graphs see it."""
        named = [each for each in self.names if not name or each == name or each.startswith(f"{name}.")]
        params = [self.params[self.names[each]] for each in named] or [self.param(name)]
        for param in params:
            if wanted and not (param.is_floating_point() or param.is_complex()):
                dtype = str(param.dtype).removeprefix("torch.")
                raise Refused(f"{name} holds numbers of {dtype}, which have no gradient.")
        for param in params:
            param.requires_grad_(wanted)

    def predict(self, batch: Any) -> tuple[Tensor, Any, Losses]:
        """Run the model and the loss, in whichever form the scenario gives them."""
        return predict(self.parts, self.model, self.parts.loss, batch)

    def _metrics(self, prediction: Any, batch: Any, losses: Losses) -> tuple[tuple[str, Tensor], ...]:
        """Measure what the user asked for, without a trace in random numbers, graph, buffers and attributes."""
        known = tuple((name, one_number(name, _detached(each))) for name, each in losses)
        if not self.parts.metrics:
            return known
        come_back = self.remember()
        targets = batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else batch
        with torch.no_grad():
            # No generator: what a StopIteration of theirs would become in one is none of theirs.
            metrics = [
                (name, one_number(name, function(prediction, targets))) for name, function in self.parts.metrics.items()
            ]
        come_back()
        return (*known, *metrics)

    def attributes(self, buffers: ModelBuffers | None = None) -> PythonState:
        """Copy what the forwards have left in Python so far."""
        return PythonState(self.reach, (buffers or ModelBuffers.of(self.model)).modules)

    def remember(self) -> Callable[[], None]:
        """Copy all that a forward may change; what is given back puts it back."""
        mark, buffers = self.surroundings.mark(), ModelBuffers.of(self.model)
        attributes = self.attributes(buffers)
        copies = {
            name: buffer.detach() if buffer.numel() > MOST_MEASURED else buffer.detach().clone()
            for name, buffer in buffers.tensors().items()
        }

        def come_back() -> None:
            buffers.put_back(copies)
            attributes.put_back()
            self.surroundings.return_to(mark)

        return come_back

    def attached(self, buffers: Iterable[Tensor], attributes: PythonState) -> list[Tensor]:
        """Give the tensors that hang on the graph of a forward, save those that have since the beginning."""
        found = attributes.attached + [each for each in buffers if each.grad_fn is not None]
        begun = {id(each) for each in self.begun.attached} if found else set()
        return [each for each in found if id(each) not in begun]

    @contextmanager
    def _theirs(self, *, undo: Callable[[], None]) -> Iterator[None]:
        """Run other people's code: the one boundary where any exception of theirs becomes Raised."""
        try:
            with ForkGuard():
                yield
        except BaseException as error:
            undo()
            if not is_user_error(error):
                raise
            try:
                self.check_parameters()
            except TypeError as resized:
                raise UserCodeError(resized) from error
            raise UserCodeError(error) from error

    def _keep_state(self) -> Callable[[], None]:
        self.buffers = buffers = ModelBuffers.of(self.model)
        attributes = self.attributes(buffers)
        room = self._kept_buffers
        with torch._C.DisableTorchFunctionSubclass():  # of classes of tensors that may do anything
            tensors = buffers.tensors()
            self._attached, self.strange = self.attached(tensors.values(), attributes), attributes.strange
            for name, buffer in tensors.items():
                copy = room.get(name)
                if buffer.numel() > MOST_MEASURED:
                    room[name] = buffer
                    continue
                if buffer.is_nested or buffer.is_meta or buffer.layout is not torch.strided:
                    room[name] = buffer.detach().clone()
                    continue
                if copy is None or (copy.shape, copy.dtype, copy.device) != (buffer.shape, buffer.dtype, buffer.device):
                    room[name] = torch.empty_like(buffer, requires_grad=False)
                room[name].copy_(buffer.detach())
        mark = self.surroundings.mark()

        def undo() -> None:
            buffers.put_back(room)
            attributes.put_back()
            self.surroundings.return_to(mark)

        return undo

    def _sound_optimizer(self) -> None:
        """Start the optimizer anew where it was made unreadable; its state comes back from a checkpoint."""
        try:
            self.check_optimizer()
        except Exception:  # also what theirs raises when it is looked at
            self.start_optimizer(self.spec)

    def _keep_grads(self) -> Callable[[], None]:
        """Copy the gradients that there are: none, in the usual order of phases."""
        kept = [(param, None if param.grad is None else param.grad.clone()) for param in self.params.values()]
        mark = self.surroundings.mark()

        def undo() -> None:
            for param, grad in kept:
                try:
                    param.grad = grad
                except RuntimeError:  # somebody has made another kind of tensor of the parameter
                    param.grad = None
            self.surroundings.return_to(mark)

        return undo


def _names(model: nn.Module) -> dict[str, str]:
    """Give for each name of a parameter the first name of the same tensor: another one where weights are tied."""
    first: dict[nn.Parameter, str] = {}
    return {name: first.setdefault(param, name) for name, param in model.named_parameters(remove_duplicate=False)}


def _check_memory(named: Iterable[tuple[str, Any]]) -> None:
    for name, value in named:
        if not in_memory(value):
            raise TypeError(f"the memory of {name} was given back, and so it has no values any more.")


def _there_are(groups: int) -> str:
    return "there is one, group 0" if groups == 1 else f"there are {groups}, counted from 0"


def is_user_error(error: BaseException) -> bool:
    """Tell whether other people's code raised this; on the main thread a KeyboardInterrupt is the user's ctrl+c."""
    return not isinstance(error, KeyboardInterrupt) or current_thread() is not main_thread()


def _reaches(loss: Tensor, tensors: Sequence[Tensor]) -> bool:
    """Tell whether the graph of a loss goes on into that of some other tensors."""
    wanted = {each.grad_fn for each in tensors}
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [each for each, _ in node.next_functions]
    return not seen.isdisjoint(wanted)


def _nothing() -> None:
    """Do nothing, as where a step is to be undone: what it leaves half done is restored from a checkpoint."""


def to_device(value: Any, device: torch.device) -> Any:
    """Bring a batch of any shape to the device; what is there already is given as it is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return type(value)((key, to_device(each, device)) for key, each in value.items())
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        moved = type(value)(to_device(each, device) for each in value)
        here = type(value) is tuple and all(one is other for one, other in zip(moved, value, strict=True))
        return value if here else moved
    return value


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
