"""Frames of a script, read from its live objects."""

from __future__ import annotations

import traceback
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from autograd_tui.core.command import Command
from autograd_tui.core.frame import Frame, TorchError
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.core.tensor_stats import ROW_WIDTH, Grads, StatsLayout, StatsTable
from autograd_tui.engine.script.call_site import call_site, call_words_at, site_of_error
from autograd_tui.engine.script.event_counts import GradHistory, Place, Seen, seen_grads
from autograd_tui.engine.script.module_calls import ModuleCall
from autograd_tui.engine.script.optimizer_reader import OptimizerReader
from autograd_tui.engine.script.registry import NamedModel, readable_group, untouched
from autograd_tui.engine.training.frame_reader import as_top, largest_outputs
from autograd_tui.engine.training.stats_reader import StatsReader, TensorGroup
from autograd_tui.engine.training.tensor_properties import has_shape

if TYPE_CHECKING:
    from autograd_tui.engine.script.loop_phases import Phases

Optimizer = torch.optim.Optimizer
NO_OPTIMIZER = "none"
OF_SCALED_GRADIENTS = ("backward", "unscale", "clip")  # events between a scaled loss and what GradScaler makes of it
MAX_NODES = 200_000  # of a loss's graph that are visited
FORGOTTEN: dict[str, Any] = {  # fields of a frame that events in between, which were not followed, have made untrue
    **dict.fromkeys(("loss", "loss_params", "prediction", "inputs", "targets", "before", "mover", "moves")),
    **dict.fromkeys(("added_to", "last_grads", "state_before", "step_rate", "grads_params", "buffers_before")),
    "step_rates": (),
    "top": (),
    "graph": "none",
    "moved": False,
    "unused": frozenset(),
}
Changes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BeforeStep:
    """What was read before an optimizer's step."""

    params: StatsTable
    state: StatsTable | None
    rates: tuple[float, ...]
    moves: Callable[[], array[float]]  # how far each parameter has gone by now
    moved_by_hand: tuple[str, ...]


class ScriptFrames:
    """Makes each frame from the one before and what the event has changed.

    Where events came in between that were not followed, nothing is said of what they changed.
    """

    def __init__(self, phases: Phases) -> None:
        self._phases = phases
        self._reader = StatsReader()
        self._calls_at: dict[Place, str] = {}  # of backward
        self._optimizers = OptimizerReader(phases.registry, self._reader)
        self._history = GradHistory()
        self._last: Frame | None = None
        self._models: list[NamedModel] = []  # of the last frame
        self._zeroed: frozenset[int] = frozenset()  # its parameters whose gradients are there, cleared to zeros
        self._grads_before: tuple[dict[int, Seen], list[Tensor | None]] = ({}, [])
        self._cleared: list[Tensor] = []  # by hand, since the last frame
        self._gone: set[int] = set()  # ids of optimizers that had stepped, and were let go by the last frame
        self._moved_before_step: tuple[str, ...] = ()
        self._steps: dict[int, BeforeStep] = {}  # of those that run, by the optimizer's id

    # Around the events, while they are followed.

    def take_up(self) -> None:
        """Begin to follow the gradients behind events that were only counted."""
        self._history.restart(self._params(), self._owners(), self._phases.counts)
        self._cleared, self._steps = [], {}

    def before_backward(self) -> None:
        """Look at the gradients that there are."""
        params = self._params()
        self._find_cleared(params)
        self._grads_before = seen_grads(params), [each.grad for each in params]

    def after_backward(self) -> None:
        """Count the gradients that a backward has made or added to."""
        self._history.count_backward(self._params(), self._grads_before[0])
        self._grads_before = {}, []

    def before_step(self, optimizer: Optimizer) -> None:
        """Read what the step will move."""
        params = self._phases.registry.params()
        self._find_cleared(list(params.values()))
        with untouched():
            group = readable_group(params)
            read = self._reader.read({"params": group})
            moves = self._reader.watch("params", group)
            state = self._optimizers.small_state(params)
        before, last = read["params"], self._last
        moved: tuple[str, ...] = ()
        if last is not None and last.params == before:
            before = last.params
        elif last is not None and last.index == self._phases.counts.index and not self._phases.inside_step:
            moved = _changed_rows(before, last.params)
        self._steps[id(optimizer)] = BeforeStep(before, state, self._optimizers.rates(), moves, moved)

    def after_step(self, optimizer: Optimizer) -> None:
        """Take note of the gradients that were used."""
        self._history.count_step(id(each) for group in optimizer.param_groups for each in group["params"])

    def before_call(self) -> None:
        """Look for gradients that somebody has cleared before a call that may change them itself."""
        self._find_cleared(self._params())

    def after_zero_grad(self, owner: Optimizer | nn.Module) -> None:
        """Take note of the gradients that were cleared."""
        owned = (
            (each for group in owner.param_groups for each in group["params"])
            if isinstance(owner, Optimizer)
            else owner.parameters()
        )
        for param in owned:
            self._history.clear(param)

    # The frame.

    def has_everything(self) -> bool:
        """Return whether the script still has the models, parameters and optimizers that the last frame showed.

        Also those of which only steps were counted since.
        """
        registry = self._phases.registry
        optimizers = {id(each) for each in registry.optimizers}
        if self._last is None or any(each.module is None for each in self._models):
            return False
        return registry.params().keys() >= set(self._last.params.layout.names) and all(
            each in optimizers or each in self._gone for each in self._phases.counts.step_counts
        )

    def read(self, name: str, stack: FrameType) -> Frame:
        """Return the frame behind the present event; its command is named, and "" for frame 0."""
        phases = self._phases
        event = phases.event
        nodes, leaves = _graph(event.loss) if event.loss is not None else (set(), [])
        loss = event.loss if name == "forward" else None
        calls = list(phases.calls.in_graph(nodes)) if nodes else []
        self._learn(stack, leaves, calls)
        phases.follow()
        if not phases.is_continuous:
            self.take_up()
        params = phases.registry.params()
        tensors = list(params.values())
        if name in ("", "forward"):
            self._find_cleared(tensors)
        last = self._last
        follows = last is not None and last.index == phases.counts.index - 1
        groups = {"params": readable_group(params)}
        if not follows or name == "forward":
            groups["buffers"] = readable_group(phases.registry.buffers())
        if not follows or name == "step":
            groups["optimizer_state"] = self._optimizers.state(params)
        if loss is not None:
            seen = self._seen(loss, calls)
            with untouched():
                groups["top"] = TensorGroup(largest_outputs(seen.get("prediction"), seen.get("targets")))
            groups["seen"] = readable_group(seen, sampled_range=False)
        grads_of = {each: param.grad for each, param in params.items()}
        groups["grads"] = readable_group({each: grad for each, grad in grads_of.items() if grad is not None})
        with untouched():
            read = self._reader.read(groups)
        table = read["params"]
        models = phases.registry.models
        if last is not None and (last.params.layout != table.layout or not _are_same(models, self._models)):
            last, follows = None, False  # other parameters: nothing can be compared
            with untouched():
                if "buffers" not in read:
                    read |= self._reader.read({"buffers": readable_group(phases.registry.buffers())})
                if "optimizer_state" not in read:
                    read |= self._reader.read({"optimizer_state": self._optimizers.state(params)})
        frame = self._frame(name, last, read, params, follows=follows)
        command = Command(name) if name else None
        changes: Changes = {
            "index": phases.counts.index,
            "command": command,
            "mover": command if frame.mover == command else frame.mover,
            "iteration": phases.counts.iteration,
            "steps": phases.counts.steps,
            "script": self._stop(name, stack, frame, last if follows else None, calls, leaves),
        }
        self._last, self._models = replace(frame, **changes), list(models)
        frame = self._last
        self._zeroed = frozenset(
            index
            for index, each in enumerate(tensors)
            if each.grad is not None and not self._history.backwards.get(id(each))
        )
        self._gone = self._phases.counts.step_counts.keys() - {id(each) for each in phases.registry.optimizers}
        self._history.note(tensors)
        self._cleared = []
        return frame

    def set(self, command: Command, carry_out: Callable[[], None]) -> Frame:
        """Carry out a setting where the script is held, and return the frame that it leads to."""
        last = self._last
        assert last is not None
        params = self._phases.registry.params()
        group = readable_group(params)
        with untouched():
            self._reader.read({"params": group})
            moves = self._reader.watch("params", group)
            carry_out()
            table = self._reader.read({"params": group})["params"]
        rates = self._optimizers.rates()
        changes: Changes = {
            "learning_rate": rates[0] if rates else 0.0,
            "groups": self._optimizers.groups(params, rates),
        }
        if command.kind != "lr":
            changes |= {"params": table, "before": last.params, "mover": command, "moves": moves(), "moved": True}
        if last.script is not None:
            changes["script"] = replace(last.script, moved_by_hand=(), cleared_by_hand=())
        self._last = replace(last, index=self._phases.counts.index, command=command, **changes)
        return self._last

    def _learn(self, stack: FrameType, leaves: list[Tensor], calls: list[ModuleCall]) -> None:
        """Bring the registry up to date."""
        registry = self._phases.registry
        called = [module for call in calls if call.has_params and (module := call.module()) is not None]
        if registry.knows(leaves, called):
            return
        before = registry.params()
        registry.scan(stack, leaves, called, self._phases.calls.arguments())
        if self._phases.is_continuous:
            new = [each for name, each in registry.params().items() if before.get(name) is not each]
            self._history.add(new, self._owners(), self._phases.counts)

    def _frame(
        self, name: str, last: Frame | None, read: dict[str, StatsTable], params: dict[str, Tensor], *, follows: bool
    ) -> Frame:
        phases = self._phases
        rates = self._optimizers.rates()
        grads = self._grads(read["grads"], params)
        table = read["params"]
        texts = self._optimizers.texts()
        fields: Changes = {
            "params": table if last is None or last.params != table else last.params,
            "grads": grads if last is None or not _are_equal(grads, last.grads) else last.grads,
            "frozen": frozenset(index for index, each in enumerate(params.values()) if not each.requires_grad),
            "optimizer": texts[0][0] if texts else NO_OPTIMIZER,
            "learning_rate": rates[0] if rates else 0.0,
            "groups": self._optimizers.groups(params, rates),
        }
        for each in ("buffers", "optimizer_state"):
            if each in read:
                old = getattr(last, each) if last is not None else None
                fields[each] = old if old == read[each] else read[each]
        if last is None:
            last = Frame(0, **fields)
        if not follows:
            fields |= FORGOTTEN
        if fields["frozen"] != last.frozen:
            fields["frozen_before"] = last.frozen
        frame = replace(last, **fields)
        if not follows and name != "forward":
            frame = replace(frame, **self._loss_that_was_not_seen(frame))
        changes = getattr(self, f"_{name}_changes", self._no_changes)(frame, last, read)
        if name != "step" and follows and frame.params is not last.params:  # by hand, or inside a step
            by_step = phases.inside_step
            changes |= {"before": last.params if by_step else None, "mover": Command("step") if by_step else None}
            changes |= {"moves": None, "moved": name != "forward"}
        if len(changes.get("step_rates", frame.step_rates)) != len(rates):  # a group was added or taken away
            changes |= {"step_rates": ()}
        return replace(frame, **changes)

    def _loss_that_was_not_seen(self, frame: Frame) -> Changes:
        """Return the loss of a forward that was only counted; where a step has moved parameters since, it is old."""
        phases = self._phases
        loss = phases.loss
        if loss is None or loss.numel() != 1 or not phases.is_loss_alone or not phases.registry.has_optimizer:
            return {}
        graph = "alive" if phases.is_graph_kept else "freed"
        changes: Changes = {"loss": loss.item(), "loss_steps": phases.counts.forward_steps, "graph": graph}
        return changes | ({"moved": True} if phases.has_stepped_since_forward else {"loss_params": frame.params})

    def _no_changes(self, frame: Frame, last: Frame, read: dict[str, StatsTable]) -> Changes:
        return {}

    def _forward_changes(self, frame: Frame, last: Frame, read: dict[str, StatsTable]) -> Changes:
        row = read["seen"].named
        loss = row("loss")
        event = self._phases.event
        is_number = loss is not None and loss.size == 1 and self._phases.is_loss_alone
        loss_value = loss.values[0] if is_number and loss is not None and loss.values else None
        return {
            "loss": loss_value,
            "prediction": row("prediction"),
            "inputs": row("inputs"),
            "targets": row("targets"),
            "top": as_top(read["top"]),
            "zero_shares": self._phases.take_zero_shares(),
            "graph": "alive" if event.loss is not None and event.loss.requires_grad else "none",
            "buffers_before": last.buffers if last.index == self._phases.counts.index - 1 else None,
            "loss_params": frame.params,
            "loss_steps": self._phases.counts.steps,
            "moved": False,
        }

    def _backward_changes(self, frame: Frame, last: Frame, read: dict[str, StatsTable]) -> Changes:
        before = _without(last.grads, self._zeroed)
        differ = before.state != "none" and last.grads_params != frame.loss_params
        grads = frame.grads
        empty = {index for index, count in enumerate(grads.backwards) if not count}
        found = any(before.backwards) and last.index == self._phases.counts.index - 1
        return {
            "graph": "alive" if self._phases.is_graph_kept else "freed",
            "grads_params": None if differ else frame.loss_params,
            "added_to": before if found else None,
            "strays": (),
            "unused": frozenset(empty - frame.frozen),
        }

    def _step_changes(self, frame: Frame, last: Frame, read: dict[str, StatsTable]) -> Changes:
        event = self._phases.event
        before = self._steps.pop(id(event.optimizer), None)
        unknown: Changes = {"mover": None, "before": None, "moves": None, "state_before": None, "moved": last.moved}
        if event.skipped:
            return unknown
        if before is None or before.params.layout != frame.params.layout:  # the step was only counted
            return {**unknown, "mover": Command("step"), "moved": True}
        params = before.params if before.params == frame.params else frame.params
        distances = before.moves()
        self._moved_before_step = before.moved_by_hand
        return {
            "params": params,
            "before": before.params,
            "mover": Command("step"),
            "moves": distances,
            "moved": last.moved or params is not before.params or any(distances),
            "state_before": before.state,
            "step_rate": before.rates[0] if before.rates else None,
            "step_rates": before.rates,
        }

    def _zero_grad_changes(self, frame: Frame, last: Frame, read: dict[str, StatsTable]) -> Changes:
        follows = last.index == self._phases.counts.index - 1
        return {"last_grads": last.grads if follows else None, "unused": frozenset(), "state_before": None}

    # The stop.

    def _stop(
        self,
        name: str,
        stack: FrameType,
        frame: Frame,
        last: Frame | None,
        calls: list[ModuleCall],
        leaves: list[Tensor],
    ) -> ScriptStop:
        phases = self._phases
        registry, event = phases.registry, phases.event
        site = call_site(stack)
        part = {id(each) for each in leaves}
        part |= {id(each) for call in calls if (module := call.module()) is not None for each in module.parameters()}
        models = registry.owners(part) if name == "forward" else last.script.models if last and last.script else ()
        scaled = None
        if event.loss is not None and phases.unscaled(event.loss) is not event.loss and event.loss.numel() == 1:
            scaled = float(event.loss.detach())
        elif name in OF_SCALED_GRADIENTS and last is not None and last.script is not None:
            scaled = last.script.scaled_loss
        return ScriptStop(
            **{**site.fields(), "call": site.call or self._call_name(name)},
            inside=tuple(self._inside()),
            device=", ".join(sorted(map(str, {each.device for each in registry.params().values()}))) or "cpu",
            models=models,
            optimizer=registry.optimizer_name(event.optimizer) if event.optimizer is not None else "",
            steps=tuple(
                (registry.optimizer_name(each), phases.counts.step_counts.get(id(each), 0))
                for each in registry.optimizers
            ),
            backwards=phases.counts.held_backwards,
            skipped=event.skipped,
            scaled_loss=scaled,
            norm=None if event.norm is None else float(event.norm),
            max_norm=None if event.max_norm is None else float(event.max_norm),
            rates_before=last.learning_rates if name == "scheduler" and last is not None else (),
            moved_by_hand=self._moved_by_hand(name, frame, last),
            cleared_by_hand=self._names_of(self._cleared),
            **self._losses(),
        )

    def _losses(self) -> dict[str, Any]:
        """Return what tells the losses of an iteration apart: where backward is called on each."""
        counts = self._phases.counts
        if len(counts.places_before) < 2 and len(counts.places) < 2:
            return {}
        last = counts.places_before[-1] if counts.places_before and counts.ends_alike else None
        return {
            "has_several_losses": True,
            "loss_call": self._call_at(counts.last_place),
            "last_loss_call": self._call_at(last),
        }

    def _call_at(self, place: Place | None) -> str:
        if place is None:
            return ""
        if place not in self._calls_at:
            self._calls_at[place] = call_words_at(place)
        return self._calls_at[place]

    def _call_name(self, name: str) -> str:
        event = self._phases.event
        if event.optimizer is not None and name in ("step", "zero_grad"):
            return f"{self._phases.registry.optimizer_name(event.optimizer)}.{name}"
        return {"forward": "backward"}.get(name, name)

    def _inside(self) -> Iterator[str]:
        """Name the calls that the present one was made inside of."""
        for kind, subject, _ in self._phases.inside:
            if isinstance(subject, Optimizer):
                yield f"{self._phases.registry.optimizer_name(subject)}.{kind}"
            else:
                yield kind

    def _moved_by_hand(self, name: str, frame: Frame, last: Frame | None) -> tuple[str, ...]:
        """Name the parameters that changed since the frame before, by no optimizer's step."""
        moved, self._moved_before_step = self._moved_before_step, ()
        if name == "step" and not self._phases.event.skipped:
            return moved
        if last is None or self._phases.inside_step or self._phases.stepped_in_backward or frame.params is last.params:
            return ()
        return _changed_rows(frame.params, last.params)

    def _names_of(self, tensors: Iterable[Tensor]) -> tuple[str, ...]:
        ids = {id(each) for each in tensors}
        return tuple(name for name, param in self._phases.registry.params().items() if id(param) in ids)

    # Parts of the frame.

    def _params(self) -> list[Tensor]:
        return list(self._phases.registry.params().values())

    def _owners(self) -> dict[int, list[int]]:
        """Return the ids of the optimizers and models that have each parameter, by its id."""
        owners: dict[int, list[int]] = {}
        registry = self._phases.registry
        for optimizer in registry.optimizers:
            for group in optimizer.param_groups:
                for param in group["params"]:
                    owners.setdefault(id(param), []).append(id(optimizer))
        for model in registry.models:
            module = model.module
            for param in module.parameters() if module is not None else ():
                owners.setdefault(id(param), []).append(id(module))
        return owners

    def _find_cleared(self, params: Sequence[Tensor]) -> None:
        """Find gradients that went by no zero_grad, or that somebody has filled with zeros."""
        for param in params:
            if not self._history.backwards.get(id(param)) or not self._history.changed(param):
                continue
            grad = param.grad
            if grad is None or (self._history.was_written(param) and not self._is_any(grad)):
                self._cleared.append(param)
                self._history.clear(param)

    @staticmethod
    def _is_any(grad: Tensor) -> bool:
        with untouched():
            return grad.layout is not torch.strided or bool(grad.detach().any())

    def _grads(self, table: StatsTable, params: dict[str, Tensor]) -> Grads:
        held = {id(each) for group in self._phases.registry.groups for each in group["params"]}
        names = set(table.layout.names)
        history = self._history  # a gradient of zeros is there, though no backward is summed in it
        return Grads(
            table,
            tuple(max(1, history.backwards.get(id(each), 0)) if name in names else 0 for name, each in params.items()),
            tuple(history.used.get(id(each), False) if name in names else False for name, each in params.items()),
            frozenset(index for index, each in enumerate(params.values()) if id(each) not in held),
        )

    def _seen(self, loss: Tensor, calls: list[ModuleCall]) -> dict[str, Tensor]:
        """Return the loss, and what the last model that took part in it was given and gave, as far as it is held."""
        seen = {"loss": self._phases.unscaled(loss)}
        model = next((each for each in calls if each.has_params), None)
        if model is not None and model.output is not None:
            if loss.grad_fn is None or model.output.numel() > 1 or loss.grad_fn._sequence_nr() not in model.nodes:
                seen["prediction"] = model.output
            if model.arguments:
                seen["inputs"] = model.arguments[0]
        measure = next((each for each in calls if not each.has_params and each.has_target), None)
        if measure is not None and len(measure.arguments) > 1:
            seen["targets"] = measure.arguments[1]
        return {name: each for name, each in seen.items() if has_shape(each)}


def error_frame(phases: Phases, error: BaseException) -> Frame:
    """Return the frame behind an exception: the line of the user's that raised it, or called what did."""
    frame, site = phases.make_frame(""), site_of_error(error)
    lines = [each.strip() for each in traceback.format_exception_only(error)]
    kind = type(error).__qualname__
    message = "\n".join(lines).partition(f"{kind}: ")[2]
    code = site.source[site.line - site.first_line].strip() if site.source else ""
    stop = replace(frame.script or ScriptStop("", "", 0), **site.fields(), models=(), inside=(), optimizer="")
    return replace(frame, command=None, error=TorchError(kind, message, site.file, site.line, code=code), script=stop)


def _without(grads: Grads, indices: frozenset[int]) -> Grads:
    """Return the gradients without those of some parameters."""
    if not indices:
        return grads
    held = [index for index, backwards in enumerate(grads.backwards) if backwards]
    kept = [row for row, index in enumerate(held) if index not in indices]
    layout, numbers = grads.table.layout, grads.table.numbers
    rows = StatsLayout(
        tuple(layout.names[row] for row in kept),
        tuple(layout.shapes[row] for row in kept),
        tuple(layout.dtypes[row] for row in kept),
        tuple(layout.measurable[row] for row in kept),
        layout.exact,
        frozenset(place for place, row in enumerate(kept) if row in layout.sparse),
        layout.sampled_range,
    )
    values = array("d")
    for row in kept:
        values += numbers[row * ROW_WIDTH : (row + 1) * ROW_WIDTH]
    backwards = tuple(0 if index in indices else each for index, each in enumerate(grads.backwards))
    used = tuple(index not in indices and each for index, each in enumerate(grads.used))
    return Grads(StatsTable(rows, values), backwards, used, grads.outside)


def _are_equal(grads: Grads, before: Grads) -> bool:
    """Return whether two frames have the same gradients with the same history."""
    history = grads.backwards, grads.used, grads.outside
    return history == (before.backwards, before.used, before.outside) and grads.table == before.table


def _are_same(models: list[NamedModel], before: list[NamedModel]) -> bool:
    return len(models) == len(before) and all(one is other for one, other in zip(models, before, strict=True))


def _changed_rows(now: StatsTable, before: StatsTable) -> tuple[str, ...]:
    """Name the tensors whose numbers are others than before; none where they are other tensors."""
    if now.layout != before.layout:
        return ()
    names = now.layout.names
    rows, old = now.numbers.tobytes(), before.numbers.tobytes()
    width = len(rows) // max(1, len(names))
    starts = range(0, len(rows), width or 1)
    return tuple(name for name, at in zip(names, starts, strict=True) if rows[at : at + width] != old[at : at + width])


def _graph(loss: Tensor) -> tuple[set[int], list[Tensor]]:
    """Return the numbers of the nodes of a loss's graph, and its leaves."""
    numbers: set[int] = set()
    leaves: dict[int, Tensor] = {}
    seen: set[Any] = set()
    waiting: list[Any] = [loss.grad_fn]
    if loss.grad_fn is None and loss.requires_grad:
        return set(), [loss]
    while waiting and len(seen) < MAX_NODES:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "AccumulateGrad":
            leaves[id(node.variable)] = node.variable
        else:
            numbers.add(node._sequence_nr())
        waiting += [each for each, _ in node.next_functions]
    return numbers, list(leaves.values())
