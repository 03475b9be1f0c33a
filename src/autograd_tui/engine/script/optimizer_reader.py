"""What a frame says of all optimizers of a script: how they are spelled, their rates, parameter groups and state."""

from __future__ import annotations

import re
import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import ParamGroups
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.core.tensor_stats import StatsTable
from autograd_tui.engine.script.registry import Registry, readable_group
from autograd_tui.engine.training.frame_reader import MAX_WORKED_VALUES
from autograd_tui.engine.training.optimizers import optimizer_classes, optimizer_text, optimizer_to_spec
from autograd_tui.engine.training.stats_reader import StatsReader, TensorGroup
from autograd_tui.engine.training.tensor_properties import is_number_or_tensor

Optimizer = torch.optim.Optimizer
PLAIN = {bool, int, float, str, type(None), tuple}  # types of options that can be compared


class OptimizerReader:
    """Reads the optimizers that are registered, in their order, as if they were one."""

    def __init__(self, registry: Registry, reader: StatsReader) -> None:
        self._registry, self._reader = registry, reader
        self._spelled: dict[int, tuple[weakref.ref[Optimizer], Any, tuple[str, tuple[str, ...]]]] = {}

    def rates(self) -> tuple[float, ...]:
        """Return the learning rate of each group of all optimizers."""
        return tuple(float(group.get("lr", 0.0)) for group in self._registry.groups)

    def groups(self, params: dict[str, Tensor], rates: tuple[float, ...]) -> ParamGroups | None:
        texts = [text for _, of_groups in self.texts() for text in of_groups]
        group_of: dict[int, int] = {}
        for number, group in enumerate(self._registry.groups):
            for param in group["params"]:
                group_of.setdefault(id(param), number)
        of = tuple(group_of.get(id(param)) for param in params.values())
        if len(texts) == 1 and None not in of:
            return None
        return ParamGroups(of, rates, tuple(texts)) if texts else None

    def texts(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return each optimizer as a command spells it, and each of its groups with the options of its own."""
        texts = []
        for optimizer in self._registry.optimizers:
            options = [
                [(name, each) for name, each in group.items() if name not in ("params", "lr")]
                for group in optimizer.param_groups
            ]
            reference, spelled, text = self._spelled.get(id(optimizer), (None, None, None))
            is_plain = all(type(each) in PLAIN for group in options for _, each in group)
            if text is None or reference is None or reference() is not optimizer or not is_plain or spelled != options:
                own = str(replace(spec_of(optimizer), lr=None))
                text = own, tuple(_group_text(optimizer, group) for group in optimizer.param_groups)
                self._spelled[id(optimizer)] = weakref.ref(optimizer), options if is_plain else None, text
            texts.append(text)
        return texts

    def state(self, params: dict[str, Tensor]) -> TensorGroup:
        """Return the state of all optimizers by rows: "w.momentum_buffer"."""
        optimizers = self._registry.optimizers
        rows = {}
        for name, param in params.items():
            entry: Any = next((state for each in optimizers if (state := dict.get(each.state, param))), {})
            for key, value in entry.items() if isinstance(entry, dict) else ():
                if is_number_or_tensor(value):
                    rows[f"{name}.{key}"] = torch.as_tensor(value)
        return readable_group(rows, exact=False)

    def small_state(self, params: dict[str, Tensor]) -> StatsTable | None:
        """Return the optimizers' state where the parameters are MAX_WORKED_VALUES at most, else None."""
        if len(params) > MAX_WORKED_VALUES or not all(each.numel() == 1 for each in params.values()):
            return None
        return self._reader.read({"state_before": self.state(params)})["state_before"]


def spec_of(optimizer: Optimizer) -> OptimizerSpec:
    """Return an optimizer's spec; of one that is none of PyTorch's the name alone, which none of those has."""
    cls = type(optimizer)
    known = optimizer_classes()
    name = re.sub(r"[^a-z0-9_]", "", cls.__name__.lower()).lstrip("_0123456789")
    if known.get(name) is not cls:
        return OptimizerSpec(name if name and name not in known else f"own_{name}")
    try:
        return optimizer_to_spec(optimizer)
    except (Refused, ValueError, TypeError, KeyError):
        return OptimizerSpec(name)


def _group_text(optimizer: Optimizer, group: dict[str, Any]) -> str:
    spec = spec_of(optimizer)
    if optimizer_classes().get(spec.name) is not type(optimizer):
        return spec.name
    try:
        return optimizer_text(spec, group)
    except (Refused, ValueError, TypeError):
        return spec.name
