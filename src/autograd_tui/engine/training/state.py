"""The live state of a training run: model, optimizer, loss, graph and counters; what may be set, checked and undone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from autograd_tui.core.errors import Refused, first_few
from autograd_tui.core.optimizer_spec import LrDecay, OptimizerSpec
from autograd_tui.core.tensor_stats import MAX_LISTED_VALUES
from autograd_tui.engine.training.accelerator import Accelerator
from autograd_tui.engine.training.forward_snapshot import BufferCopies, ForwardSnapshot, ModelBuffers
from autograd_tui.engine.training.global_state import GlobalState
from autograd_tui.engine.training.optimizers import (
    check_optimizer,
    group_indices,
    make_optimizer,
    make_scheduler,
    read_groups,
)
from autograd_tui.engine.training.python_state import PythonState, ReachableState
from autograd_tui.engine.training.scenario import Parts
from autograd_tui.engine.training.tensor_properties import CopyBatch, in_memory
from autograd_tui.engine.training.user_code import in_call


class TrainingState:
    """One model with its data, its optimizer, the last loss and its graph. Whoever trains it reports each phase here.

    A phase begins with a `begin_...` method, which returns the function that undoes the phase where it raises, and
    ends with the `end_...` method of the same phase. Use it inside its `global_state`.
    """

    def __init__(
        self, parts: Parts, spec: OptimizerSpec, *, device: str, decay: LrDecay | None, global_state: GlobalState
    ) -> None:
        """Move the model to `device`, and make its optimizer; raises Refused where it cannot be trained."""
        self.parts = parts
        self.device = torch.device(device)
        self.accelerator = Accelerator.of(device)
        self.global_state = global_state
        self.model = parts.model.to(self.device)  # in the mode that it has, train unless somebody chose eval
        self.params: dict[str, nn.Parameter] = dict(self.model.named_parameters())
        if any(nn.parameter.is_lazy(param) for param in self.params.values()):
            raise Refused("the model has lazy parameters, which have no shape yet: run one batch through it in build.")
        if inference := [name for name, param in self.params.items() if param.is_inference()]:
            raise Refused(f"{inference[0]} was made in inference mode, in which nothing can be trained.")
        self._shapes = [param.shape for param in self.params.values()]
        self.names: dict[str, str] = _first_names(self.model)  # each name's first name: tied weights have several
        self.groups = read_groups(parts.groups, self.model)
        self.group_of = group_indices(self.groups, self.params.values())  # the group of each parameter
        self.decay = decay
        self.optimizer: torch.optim.Optimizer
        self.scheduler: ReduceLROnPlateau | None
        self.start_optimizer(spec)
        self.buffers = ModelBuffers.of(self.model)  # as they were when the last forward began
        self.reachable = ReachableState(parts)
        self.initial_python = self.python_state()
        self.unrestorable = self.initial_python.unrestorable  # what the last forward used that cannot be put back
        self.graph_carries_over: bool | None = None  # whether a forward built on an earlier graph; None: not known yet
        self._carried: list[Tensor] = []  # what the forward before left with a graph
        self._buffer_copies = BufferCopies()
        self.loss: Tensor | None = None  # alive or spent, until the next forward succeeds
        self.graph: Literal["none", "alive", "freed"] = "none"
        self.batch: Any = None
        self.prediction: Any = None
        self.metrics: tuple[tuple[str, Tensor], ...] = ()
        self.frozen_in_graph: frozenset[int] = frozenset()  # indices of parameters that the last forward met frozen
        self.code_started = 0.0  # by `perf_counter`, when the last phase had copied what it may change
        self.forwards = 0  # completed; the next one takes batch(forwards)
        self.backwards = [int(param.grad is not None) for param in self.params.values()]  # summed in each gradient
        self.used = [False] * len(self.params)  # whether a step has used each gradient

    # The phases, as whoever runs them reports them.

    def begin_forward(self) -> Callable[[], None]:
        """Copy what a forward may change; what is returned puts it back."""
        self.buffers = buffers = ModelBuffers.of(self.model)
        python = self.python_state(buffers)
        with torch._C.DisableTorchFunctionSubclass():  # of classes of tensors that may do anything
            tensors = buffers.tensors()
            self._carried, self.unrestorable = self.carried(tensors.values(), python), python.unrestorable
            copies = self._buffer_copies.update(tensors)
        return ForwardSnapshot(buffers, copies, python, self.global_state, self.global_state.snapshot()).restore

    def end_forward(
        self, loss: Tensor, *, batch: Any, prediction: Any, metrics: tuple[tuple[str, Tensor], ...], has_graph: bool
    ) -> None:
        """Hold what a forward gave; the graph of the one before is let go."""
        self.loss, self.batch, self.prediction, self.metrics = loss, batch, prediction, metrics
        self.graph = "alive" if has_graph else "none"
        if self._carried:
            self.graph_carries_over = bool(self.graph_carries_over) or _reaches(loss, self._carried)
        self.frozen_in_graph = frozenset(
            index for index, param in enumerate(self.params.values()) if not param.requires_grad
        )
        self.forwards += 1

    def begin_backward(self) -> Callable[[], None]:
        """Copy the gradients that there are, which are none in the usual order; what is returned puts them back."""
        batch = CopyBatch()
        grads = [(param, _copied(param.grad, batch)) for param in self.params.values()]
        batch.run()
        snapshot = self.global_state.snapshot()

        def undo() -> None:
            for param, grad in grads:
                try:
                    param.grad = grad
                except RuntimeError:  # somebody has made another kind of tensor of the parameter
                    param.grad = None
            self.global_state.restore(snapshot)

        return undo

    def watch_grads(self, indices: Sequence[int]) -> Callable[[], None]:
        """Look at the gradients of some parameters before a backward; what is returned counts those it has added to."""
        params = list(self.params.values()) if indices else []
        before = [(index, grad := params[index].grad, grad is not None and grad._version) for index in indices]

        def count() -> None:
            for index, grad, version in before:
                now = params[index].grad
                if now is not None and (now is not grad or now._version != version):
                    self.backwards[index] += 1
                    self.used[index] = False

        return count

    def end_step(self) -> None:
        """Take note that the optimizer has used the gradients of its parameters."""
        for index, group in enumerate(self.group_of):
            self.used[index] |= group is not None and self.backwards[index] > 0

    def end_zero_grad(self) -> None:
        """Take note that the optimizer's parameters have no gradients any more."""
        for index, group in enumerate(self.group_of):
            if group is not None:
                self.backwards[index], self.used[index] = 0, False

    def repair_optimizer(self) -> None:
        """Start the optimizer anew where it was made unreadable; its state comes back from a checkpoint."""
        try:
            self.check_optimizer()
        except Exception:  # also what theirs raises when it is looked at
            self.start_optimizer(self.spec)

    def begin_iterations(self) -> list[int]:
        """Drop what the last phases left; return the indices of parameters in no group, whose gradients add up."""
        self.loss = self.batch = self.prediction = None
        self.graph, self.metrics = "freed", ()
        self.end_zero_grad()  # as each iteration leaves them
        return [index for index, group in enumerate(self.group_of) if group is None]

    # What is checked after other people's code has run.

    @in_call("parameter")
    def check_parameters(self) -> None:
        """Raise TypeError where a parameter has another shape than it was made with, or no values any more."""
        if [param.shape for param in self.params.values()] != self._shapes:
            for (name, param), shape in zip(self.params.items(), self._shapes, strict=True):
                if param.shape != shape:
                    now = f"has shape {tuple(param.shape)} now, in place of {tuple(shape)}"
                    raise TypeError(f"{name} {now}: a parameter that is trained keeps its shape.")
        check_memory(self.params.items())

    def check_buffers(self) -> None:
        """Raise TypeError where a buffer has no values any more."""
        check_memory(self.buffers.current().items())

    @in_call("optimizer")
    def check_optimizer(self) -> None:
        """Raise TypeError where the optimizer holds what cannot be copied, put back or read."""
        check_optimizer(self.optimizer, self.groups)
        if state := self.optimizer.state:
            check_memory(
                (f"{name}.{key}", value)
                for name, param in self.params.items()
                for key, value in state.get(param, {}).items()
            )

    # What may be set between phases.

    def set_lr(self, lr: float, group: int | None = None) -> None:
        """Set the learning rate of every parameter group, or of one; the scheduler's counters stay."""
        for each in groups_to_set(self.optimizer.param_groups, lr, group):
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

    def set_value(self, target: str, value: float) -> None:
        """Set one value of a small parameter: "w", "b[0]", "weight[0,1]"."""
        name = target.partition("[")[0]
        write_value(name, self.param(name), target, value)

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

    # Names.

    def tied_names(self) -> dict[str, tuple[str, ...]]:
        """Return the other names of each parameter that has some."""
        others: dict[str, tuple[str, ...]] = {}
        for name, first in self.names.items():
            if name != first:
                others[first] = (*others.get(first, ()), name)
        return others

    def param(self, name: str) -> nn.Parameter:
        """Find a parameter by any of its names; raises Refused."""
        if name not in self.names:
            raise Refused(f'there is no parameter "{name}": this model has {first_few(list(self.params))}.')
        return self.params[self.names[name]]

    # What a forward may change: copied, and put back.

    def python_state(self, buffers: ModelBuffers | None = None) -> PythonState:
        """Copy what the forwards have left in Python so far."""
        return PythonState(self.reachable, (buffers or ModelBuffers.of(self.model)).modules)

    def snapshot(self) -> ForwardSnapshot:
        """Copy all that a forward may change."""
        buffers = ModelBuffers.of(self.model)
        copies = BufferCopies().update(buffers.tensors())
        python = self.python_state(buffers)
        return ForwardSnapshot(buffers, copies, python, self.global_state, self.global_state.snapshot())

    def carried(self, buffers: Iterable[Tensor], python: PythonState) -> list[Tensor]:
        """Return the tensors that hang on the graph of a forward, save those that did before the first one."""
        tensors = python.attached + [each for each in buffers if each.grad_fn is not None]
        initial = {id(each) for each in self.initial_python.attached} if tensors else set()
        return [each for each in tensors if id(each) not in initial]


@torch.no_grad()
def write_value(name: str, param: Tensor, target: str, value: float) -> None:
    """Set one value of a small parameter of a name, "b[0]" or "weight[0,1]"; raises Refused where it cannot be."""
    at = target.removeprefix(name)
    if param.numel() > MAX_LISTED_VALUES:
        raise Refused(f"{name} has {param.numel():,} values: only parameters of up to {MAX_LISTED_VALUES} can be set.")
    index = tuple(int(place) for place in at.strip("[]").split(",")) if at else (0,) * param.dim()
    if not at and param.numel() > 1:
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


def _first_names(model: nn.Module) -> dict[str, str]:
    """Return for each name of a parameter the first name of the same tensor: another one where weights are tied."""
    first: dict[nn.Parameter, str] = {}
    return {name: first.setdefault(param, name) for name, param in model.named_parameters(remove_duplicate=False)}


def _copied(grad: Tensor | None, batch: CopyBatch) -> Tensor | None:
    """Return a copy of a gradient, one with the others of the batch unless it has a graph of its own."""
    if grad is None or grad.requires_grad:
        return None if grad is None else grad.clone()
    return batch.clone(grad, grad.device)


def _reaches(loss: Tensor, tensors: Sequence[Tensor]) -> bool:
    """Return whether the graph of a loss goes on into that of some other tensors."""
    wanted = {each.grad_fn for each in tensors}
    return any(node in wanted for node in graph_nodes(loss))


def graph_nodes(tensor: Tensor) -> Iterator[Any]:
    """Yield each node of a tensor's autograd graph once, breadth first from its `grad_fn`."""
    seen, waiting = set(), deque([tensor.grad_fn])
    while waiting:
        node: Any = waiting.popleft()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(each for each, _ in node.next_functions)


def check_memory(named: Iterable[tuple[str, Any]]) -> None:
    """Raise TypeError where a tensor, named as the sentence calls it, has no values any more."""
    for name, value in named:
        if not in_memory(value):
            raise TypeError(f"the memory of {name} was given back, and so it has no values any more.")


def groups_to_set(groups: list[dict[str, Any]], lr: float, group: int | None) -> list[dict[str, Any]]:
    """Return the groups whose learning rate is set to `lr`: all, or one; raises Refused where there is none."""
    if not 0 <= lr < float("inf"):
        raise Refused(f"a learning rate must be a number from 0 up, not {lr}.")
    if group is None:
        return groups
    if group >= len(groups):
        there_are = "there is one, group 0" if len(groups) == 1 else f"there are {len(groups)}, counted from 0"
        raise Refused(f"there is no parameter group {group}: {there_are}.")
    return [groups[group]]
