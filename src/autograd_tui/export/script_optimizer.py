"""The lines of a script that make an optimizer, with its parameter groups, and what it begins with from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from autograd_tui.engine.values.opening import Opening
from autograd_tui.engine.values.optimizer_spec import GroupSpec, OptimizerSpec
from autograd_tui.text.rules import NAMES

MODEL = ("model", "model_state_dict", "state_dict", "model_state")  # where files keep a model beside other things
OPTIMIZER = ("optimizer", "optimizer_state_dict", "optim", "optimizer_state")
WIDTH = 100  # columns


@dataclass(frozen=True, slots=True)
class OptimizerLines:
    """Writes optimizers. `groups` tells the parameter groups of one by its name, where there is more than one."""

    groups: Callable[[str], Sequence[GroupSpec]] | None
    decay: str = ""  # the line that makes the scheduler, where there is one

    def first(self, spec: OptimizerSpec, rates: Sequence[float]) -> list[str]:
        """Write the optimizer that a run begins with; `rates` are the learning rates of its groups."""
        return [*self._members(spec), *self._made(spec, [literal(rate) for rate in rates])]

    def change(self, spec: OptimizerSpec) -> list[str]:
        """Write one that takes the place of another, whose learning rates it keeps unless it has its own."""
        count = len(self.groups(spec.name)) if self.groups else 1
        kept = [f'optimizer.param_groups[{place}]["lr"]' for place in range(count)]
        return self._made(spec, kept if spec.lr is None else [literal(spec.lr)] * count)

    def _made(self, spec: OptimizerSpec, rates: Sequence[str]) -> list[str]:
        options = [f"lr={rates[0]}", *(f"{name}={literal(value)}" for name, value in spec.options)]
        scheduler = [self.decay] if self.decay else []
        start = f"optimizer = torch.optim.{NAMES[spec.name]}("
        if self.groups is None:
            return [f"{start}model.parameters(), {', '.join(options)})", *scheduler]
        groups = enumerate(zip(self.groups(spec.name), rates, strict=True))
        listed = [f"        {_group(place, group, rate, first=rates[0])}," for place, (group, rate) in groups]
        return [start, "    [", *listed, "    ],", *(f"    {option}," for option in options), ")", *scheduler]

    def _members(self, spec: OptimizerSpec) -> list[str]:
        """Write which parameters each group holds."""
        if self.groups is None:
            return []
        lines = ["", "", "def named(names):", "    return [model.get_parameter(name) for name in names]", "", ""]
        for place, group in enumerate(self.groups(spec.name)):
            lines += [f"group_{place} = [", *(f"    {line}" for line in _in_rows(map(repr, group.names))), "]"]
        return lines


def _in_rows(values: Iterable[str]) -> list[str]:
    """Put the values of a list side by side, as many as fit; none of them is taken apart."""
    rows: list[str] = []
    for value in values:
        if rows and len(rows[-1]) + len(value) + 2 <= WIDTH:
            rows[-1] += f" {value},"
        else:
            rows.append(f"{value},")
    return rows


def _group(place: int, group: GroupSpec, rate: str, *, first: str) -> str:
    own = [f'"lr": {rate}'] * (rate != first) + [f'"{name}": {literal(each)}' for name, each in group.options.items()]
    return "{" + ", ".join([f'"params": named(group_{place})', *own]) + "}"


def state_lines(opening: Opening) -> list[str]:
    """Write how the file that a run began with is put into model and optimizer; nothing where there was none."""
    path = opening.arguments.get("state")
    if path is None:
        return []
    asked = [
        (name, opening.arguments[name]) for name in ("lr", "momentum", "weight_decay") if name in opening.arguments
    ]
    changes = [f'        group["{name}"] = {literal(float(value))}' for name, value in asked]
    return [
        "",
        "# What model and optimizer begin with, from where this run was started.",
        *_read(str(path)),
        f"model.load_state_dict(next((saved[name] for name in {MODEL} if name in saved), saved))",
        f"for name in {OPTIMIZER}:",
        f"    if name in saved and any(each in saved for each in {MODEL}):",
        "        optimizer.load_state_dict(saved[name])",
        *(["        for group in optimizer.param_groups:", *(f"    {line}" for line in changes)] if changes else []),
    ]


def _read(path: str) -> list[str]:
    if path.endswith(".safetensors"):
        return ["from safetensors.torch import load_file", "", f"saved = load_file({path!r})"]
    return [f'saved = torch.load({path!r}, map_location="cpu", weights_only=True)']


def literal(value: object) -> str:
    """Write a value as Python reads it back, also where it is not finite."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(literal, value)) + ",)"[len(value) > 1 :]
    text = repr(value)
    return f'float("{text}")' if isinstance(value, float) and not text[-1].isdigit() else text
