"""Reads a training state as fields of a frame: its numbers, and what its gradients reach beside the parameters."""

from __future__ import annotations

import dis
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.core.frame import MAX_TOP_SAMPLES, TOP_COUNT, Frame, ParamGroups, StrayLeaf
from autograd_tui.core.tensor_stats import MAX_LISTED_VALUES, Grads, StatsTable
from autograd_tui.engine.training.captured_variables import is_user_written, read_variable
from autograd_tui.engine.training.optimizers import optimizer_text
from autograd_tui.engine.training.scenario import Parts
from autograd_tui.engine.training.state import TrainingState, graph_nodes
from autograd_tui.engine.training.stats_reader import StatsReader, TensorGroup
from autograd_tui.engine.training.tensor_properties import (
    has_shape,
    in_memory,
    is_number_or_tensor,
    tensors_in,
    version_of,
)
from autograd_tui.engine.training.user_code import is_out_of_memory

MAX_WORKED_VALUES = 2  # parameters of one value each, of which a step's arithmetic is shown
_LOADS_AND_RETURNS = {  # all that a function may do which does no more than return what it holds
    "RESUME",
    "NOP",
    "COPY_FREE_VARS",
    "LOAD_CONST",
    "LOAD_DEREF",
    "LOAD_GLOBAL",
    "LOAD_FAST",
    "LOAD_FAST_LOAD_FAST",
    "LOAD_FAST_BORROW",
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW",
    "BUILD_TUPLE",
    "RETURN_VALUE",
}
Changes = dict[str, Any]  # the fields of the frame that a command changed; all others stay
MAX_STRAY_DEPTH = 4  # levels of lists, dicts and objects that are searched


class FrameReader:
    """Reads a state, inside its `global_state`, with one copy to the host a command."""

    def __init__(self, state: TrainingState, *, sampled_range: bool = True) -> None:
        self._state, self._sampled_range = state, sampled_range
        self._reader = StatsReader()
        self._batch_read: list[Any] = []  # the tensors of the last batch read, with their versions

    def first_frame(self) -> Frame:
        """Return the frame before any command, with the batch where the loop holds it already."""
        state = self._state
        batch = dict(zip(("inputs", "targets"), held_batch(state.parts) or (), strict=False))
        groups = {"params": self._params(), "buffers": self._buffers()}
        read: Changes = {**self._reader.read(groups | {"optimizer_state": self._optimizer_state()})}
        read |= {row.name: row for row in self._reader.read({"batch": TensorGroup(batch)})["batch"]}
        return Frame(
            index=0, grads=self.grads(), optimizer=self._optimizer(), frozen=self.frozen(), **self.rates(), **read
        )

    def forward(self, frame: Frame) -> Changes:
        """Return loss, prediction, metrics, buffers and, where it is another one than was read last, the batch."""
        state = self._state
        seen: dict[str, Any] = {"loss": state.loss, "prediction": state.prediction}
        top = largest_outputs(state.prediction, state.batch[1] if state.parts.loss else None)
        batch = dict(zip(("inputs", "targets"), state.batch, strict=True)) if state.parts.loss else {}
        fresh = self._is_fresh(batch)
        if fresh:
            seen |= batch
        seen = {name: value for name, value in seen.items() if has_shape(value)}
        named = {"seen": seen, "top": top, "metrics": dict(state.metrics)}
        groups = {name: TensorGroup(tensors) for name, tensors in named.items() if tensors}
        read = self._reader.read({**groups, "buffers": self._buffers()})
        row = read["seen"].named
        loss = row("loss")
        changes = {
            "loss": loss.values[0] if loss and loss.size == 1 and loss.values else None,
            "prediction": row("prediction"),
            "top": as_top(read["top"]) if top else (),
            "metrics": tuple((each.name, each.mean) for each in read.get("metrics", ()) if each.mean is not None),
            "buffers": _shared(read["buffers"], frame.buffers),
            "buffers_before": frame.buffers,
        }
        return changes | ({"inputs": row("inputs"), "targets": row("targets")} if fresh else {})

    def grads(self, launched: Mapping[int, Sequence[Tensor]] | None = None) -> Grads:
        """Return the gradients; `launched`: what `launch_large` gave of some already, by the parameter's identity."""
        state = self._state
        grads_by_name = {name: param.grad for name, param in state.params.items() if param.grad is not None}
        known = {}
        if launched and self._sampled_range:
            known = {name: launched[id(param)] for name, param in state.params.items() if id(param) in launched}
        group = TensorGroup(grads_by_name, sampled_range=self._sampled_range, launched=known)
        table = self._reader.read({"grads": group})["grads"]
        outside = frozenset(index for index, group in enumerate(state.group_of) if group is None)
        return Grads(table, tuple(state.backwards), tuple(state.used), outside)

    def watch_params(self) -> Callable[[], array[float]]:
        """Return a function that, once the parameters were read again, returns how far each has moved: (params,)."""
        return self._reader.watch("params", self._params())

    def params(self, frame: Frame, *, optimizer_state: bool) -> Changes:
        """Return the parameters, the very table of `frame` where none has changed, and maybe the optimizer's state."""
        groups = {"params": self._params()}
        if optimizer_state:
            groups["optimizer_state"] = self._optimizer_state()
        read = self._reader.read(groups)
        return {**read, "params": _shared(read["params"], frame.params)}

    def small_optimizer_state(self) -> StatsTable | None:
        """Return the optimizer's state where the parameters are MAX_WORKED_VALUES at most, else None."""
        params = self._state.params.values()
        if len(params) > MAX_WORKED_VALUES or not all(has_shape(each) and each.numel() == 1 for each in params):
            return None
        return self._reader.read({"state_before": self._optimizer_state()})["state_before"]

    def after_many(self) -> Changes:
        """Return what a frame after iterations without frames must hold."""
        self._batch_read = []
        read = self._reader.read({"params": self._params(), "buffers": self._buffers()})
        return {**read, "grads": self.grads(), **self.rates()}

    def reset(self) -> None:
        """Read the parameters of a state that was restored: moves are measured from here."""
        self._batch_read = []
        self._reader.read({"params": self._params()})

    def optimizer(self) -> Changes:
        """Return the fields of an optimizer that has just been started."""
        read = self._reader.read({"optimizer_state": self._optimizer_state()})
        return {**read, "optimizer": self._optimizer(), **self.rates()}

    def rates(self) -> Changes:
        """Return the learning rates, and the parameter groups that have them."""
        rates = self.learning_rates()
        return {"learning_rate": rates[0], "groups": self._groups(rates)}

    def learning_rates(self) -> tuple[float, ...]:
        """Return the learning rate of each parameter group."""
        return tuple(float(group["lr"]) for group in self._state.optimizer.param_groups)

    def frozen(self) -> frozenset[int]:
        """Return the indices of parameters with requires_grad=False."""
        params = self._state.params.values()
        return frozenset(index for index, param in enumerate(params) if not param.requires_grad)

    def unused(self) -> frozenset[int]:
        """Return the indices of parameters that a backward has not reached, though nothing froze them."""
        state = self._state
        empty = {index for index, param in enumerate(state.params.values()) if param.grad is None}
        return frozenset(empty - self.frozen() - state.frozen_in_graph)

    def _is_fresh(self, batch: dict[str, Any]) -> bool:
        """Return whether a batch is another than the one read last, or has been changed since."""
        versions = [(each, version_of(each)) for each in batch.values() if isinstance(each, Tensor)]
        before, self._batch_read = self._batch_read, versions
        return len(versions) != len(before) or any(
            new is not old or now != then for (new, now), (old, then) in zip(versions, before, strict=True)
        )

    def _groups(self, rates: tuple[float, ...]) -> ParamGroups | None:
        state = self._state
        if len(rates) == 1 and None not in state.group_of:
            return None
        return ParamGroups(state.group_of, rates, tuple(optimizer_text(state.spec, group) for group in state.groups))

    def _params(self) -> TensorGroup:
        return TensorGroup(self._state.params, sampled_range=self._sampled_range)

    def _buffers(self) -> TensorGroup:
        return TensorGroup(self._state.buffers.current(), sampled_range=self._sampled_range)

    def _optimizer_state(self) -> TensorGroup:
        """Return the optimizer's state by rows: "w.momentum_buffer"."""
        entries = self._state.optimizer.state
        rows = {
            f"{name}.{key}": torch.as_tensor(value)
            for name, param in self._state.params.items()
            for key, value in entries.get(param, {}).items()
            if is_number_or_tensor(value)
        }
        return TensorGroup(rows, exact=False)

    def _optimizer(self) -> str:
        return str(replace(self._state.spec, lr=None))


def _shared(new: StatsTable, old: StatsTable) -> StatsTable:
    """Return the old table where nothing has changed."""
    return old if new == old else new


def largest_outputs(prediction: Any, targets: Any) -> dict[str, Tensor]:
    """Return the classes and values of the five largest outputs of the first samples, with targets of the same shape.

    Each is a flat tensor of three samples at most, so that the reader lists all of its values. {} unless there are more
    than MAX_LISTED_VALUES classes.
    """
    if not isinstance(prediction, Tensor) or prediction.layout is not torch.strided or prediction.is_nested:
        return {}
    if prediction.dim() != 2 or not prediction.is_floating_point() or prediction.itemsize < 2:
        return {}
    if prediction.shape[1] <= MAX_LISTED_VALUES or not prediction.shape[0]:
        return {}
    with torch.no_grad():
        first = prediction[:MAX_TOP_SAMPLES]
        has_targets = isinstance(targets, Tensor) and targets.shape == prediction.shape and not targets.is_complex()
        wanted = targets[:MAX_TOP_SAMPLES] if has_targets else None
        try:
            top = _top(first, wanted)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            top = _top(first.cpu(), None if wanted is None else wanted.cpu())  # the host has room
        samples = MAX_LISTED_VALUES // TOP_COUNT
        return {
            f"{name}{index}": part.reshape(-1)
            for name, tensor in top.items()
            for index, part in enumerate(torch.split(tensor, samples))
        }


def _top(outputs: Tensor, targets: Tensor | None) -> dict[str, Tensor]:
    """Return the classes and values of the largest outputs of each sample, and their targets if there are some."""
    values, classes = outputs.topk(TOP_COUNT)
    top = {"classes": classes, "values": values}
    return top if targets is None else top | {"targets": targets.gather(1, classes)}


def as_top(read: StatsTable) -> tuple[tuple[int, float, float | None], ...]:
    """Return what `largest_outputs` picked as rows: class, output, target."""
    columns: dict[str, list[float]] = {"classes": [], "values": [], "targets": []}
    for row in read:
        columns[row.name.rstrip("0123456789")] += row.values or ()
    wanted: list[float | None] = [*columns["targets"]] or [None] * len(columns["classes"])
    rows = zip(columns["classes"], columns["values"], wanted, strict=True)
    return tuple((int(index), value, target) for index, value, target in rows)


def held_batch(parts: Parts) -> tuple[Tensor, Tensor] | None:
    """Return the inputs and targets of the first batch; None where a call would do more than return them.

    No random number is drawn, nothing is read, and no code runs but `return x, y`.
    """
    function = parts.batch
    if parts.loss is None or not isinstance(function, FunctionType):
        return None
    if any(each.opname not in _LOADS_AND_RETURNS for each in dis.get_instructions(function)):
        return None
    try:
        batch = function(0)
    except Exception:  # as where it names what is not there yet: the forward will raise it
        return None
    if type(batch) is not tuple or len(batch) != 2 or not all(map(_is_plain, batch)):
        return None
    return batch


def _is_plain(value: object) -> bool:
    """Return whether a value is a tensor that can be read without running any code of the user's."""
    return type(value) is Tensor and value.layout is torch.strided and not value.is_nested and in_memory(value)


def find_strays(state: TrainingState) -> tuple[StrayLeaf, ...]:
    """Return the stray leaves in the graph of the last loss, with what holds each; () where there is no loss."""
    if state.loss is None:
        return ()
    params = {id(param) for param in state.params.values()}
    batch = {_memory(each) for each in tensors_in(state.batch)}
    leaves = {id(leaf): leaf for leaf in _leaves(state.loss)}
    strays = {key: leaf for key, leaf in leaves.items() if key not in params and _memory(leaf) not in batch}
    if not strays:
        return ()
    holders: dict[int, tuple[str, str]] = {}  # kind and path, by the leaf's id
    held = sorted(_held_tensors(state), key=lambda each: each[2].grad_fn is not None)  # the leaves themselves first
    for kind, path, tensor in held:
        if tensor.grad_fn is None:
            holders.setdefault(id(tensor), (kind, path))
        elif (own := {id(each) for each in _leaves(tensor)}) <= strays.keys():  # not an output, which has them all
            for each in own:
                holders.setdefault(each, ("changed", path))
    # What nothing holds and is no nn.Parameter was made by the forward itself, to be differentiated by.
    return tuple(
        StrayLeaf(tuple(leaf.shape), *holders.get(key, ("", "")))
        for key, leaf in strays.items()
        if key in holders or isinstance(leaf, nn.Parameter)
    )


def _leaves(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the leaves of a tensor's graph, those nearest to its root first."""
    return (node.variable for node in graph_nodes(tensor) if hasattr(node, "variable"))


def _held_tensors(state: TrainingState) -> Iterator[tuple[str, str, Tensor]]:
    """Yield tensors that are no parameters of the model: the kind of holder, the path as code writes it, the tensor."""
    for name, module in state.model.named_modules():
        for attribute, value in vars(module).items():
            if attribute not in ("_parameters", "_modules"):
                yield from _inside(value, ".".join(filter(None, ("model", name, str(attribute)))), "attribute")
    loss = state.parts.loss
    if isinstance(loss, nn.Module):
        yield from (("loss", name, param) for name, param in loss.named_parameters())
    for variable in state.reachable.captured.variables.values():
        for value in read_variable(variable):
            yield from _inside(value, variable.path, "outside")


def _inside(value: Any, path: str, kind: str, depth: int = 0) -> Iterator[tuple[str, str, Tensor]]:
    if isinstance(value, Tensor):
        yield kind, path, value
    elif isinstance(value, nn.Module):
        yield from ((kind, path, param) for param in value.parameters())
    elif isinstance(value, (list, tuple, dict)) and depth < MAX_STRAY_DEPTH:
        container = ("dict of " if isinstance(value, dict) else "list of ") * (kind == "attribute")
        for each in value.values() if isinstance(value, dict) else value:
            content = "modules" if isinstance(each, nn.Module) else "tensors"
            yield from _inside(each, path, f"{container}{content}" if container else kind, depth + 1)
    elif is_user_written(type(value)) and depth < MAX_STRAY_DEPTH:
        for each in getattr(value, "__dict__", {}).values():
            yield from _inside(each, path, kind, depth + 1)


def _memory(tensor: Tensor) -> int:
    """Return a key of the tensor's memory, which a `detach` shares."""
    return tensor.data_ptr() if tensor.layout is torch.strided and tensor.numel() else -id(tensor)
