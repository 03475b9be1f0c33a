"""The lines of an exported script before its loop: model, data, loss and optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autograd_tui.core.optimizer_spec import GroupSpec, OptimizerSpec
from autograd_tui.core.run_config import RunConfig
from autograd_tui.export.template import fill_section
from autograd_tui.text.optimizer_words import OPTIMIZER_NAMES

MAX_LINE_WIDTH = 100  # columns
PLAIN_SCENARIOS = ("linear", "resnet18")  # which are written without this package; all others are imported
BATCH_NAMES = {"resnet18": "data, labels"}  # "x, y" in the other scenarios of this package
OPTION_DEFAULTS: Mapping[str, Mapping[str, int]] = {  # of the scenarios that have a template
    "linear": {"batch_size": 3},
    "resnet18": {"batch_size": 1, "image_size": 64},
    "spiral": {"width": 32},
    "lstm": {"width": 16},
    "transformer": {"width": 32, "heads": 4, "layers": 1, "context": 32},
}


@dataclass(frozen=True, slots=True)
class OptimizerLines:
    """Writes optimizers. `groups` returns the parameter groups of one by its name, where there is more than one."""

    groups: Callable[[str], Sequence[GroupSpec]] | None
    decay: str = ""  # the line that makes the scheduler, where there is one

    def first(self, spec: OptimizerSpec, rates: Sequence[float]) -> list[str]:
        """Return the optimizer that a run begins with; `rates` are the learning rates of its groups."""
        return [*self._group_names(spec), *self._new_optimizer(spec, [literal(rate) for rate in rates])]

    def change(self, spec: OptimizerSpec) -> list[str]:
        """Return one that takes the place of another, whose learning rates it keeps unless it has its own."""
        count = len(self.groups(spec.name)) if self.groups else 1
        rates = [f'optimizer.param_groups[{index}]["lr"]' for index in range(count)]
        return self._new_optimizer(spec, rates if spec.lr is None else [literal(spec.lr)] * count)

    def _new_optimizer(self, spec: OptimizerSpec, rates: Sequence[str]) -> list[str]:
        options = [f"lr={rates[0]}", *(f"{name}={literal(value)}" for name, value in spec.options)]
        scheduler = [self.decay] if self.decay else []
        name = OPTIMIZER_NAMES[spec.name]
        if self.groups is None:
            return [f"optimizer = torch.optim.{name}(model.parameters(), {', '.join(options)})", *scheduler]
        pairs = enumerate(zip(self.groups(spec.name), rates, strict=True))
        groups = [f"{_group(index, group, rate, first=rates[0])}," for index, (group, rate) in pairs]
        options = [f"{option}," for option in options]
        section = "optimizer of several groups"
        return [*fill_section("script", section, optimizer=name, groups=groups, options=options), *scheduler]

    def _group_names(self, spec: OptimizerSpec) -> list[str]:
        """Return which parameters each group holds."""
        if self.groups is None:
            return []
        lines = fill_section("script", "named function")
        for index, group in enumerate(self.groups(spec.name)):
            lines += fill_section("script", "group", index=index, names=_pack_rows(map(repr, group.names)))
        return lines


def _pack_rows(values: Iterable[str]) -> list[str]:
    """Return rows with as many values side by side as fit; none of them is taken apart."""
    rows: list[str] = []
    for value in values:
        if rows and len(rows[-1]) + len(value) + 2 <= MAX_LINE_WIDTH:
            rows[-1] += f" {value},"
        else:
            rows.append(f"{value},")
    return rows


def _group(index: int, group: GroupSpec, rate: str, *, first: str) -> str:
    own = [f'"lr": {rate}'] * (rate != first) + [f'"{name}": {literal(each)}' for name, each in group.options.items()]
    return "{" + ", ".join([f'"params": named(group_{index})', *own]) + "}"


def state_lines(config: RunConfig) -> list[str]:
    """Return how the file that a run began with is put into model and optimizer; nothing where there was none."""
    path = config.arguments.get("state")
    if path is None:
        return []
    overrides = [
        (name, config.arguments[name]) for name in ("lr", "momentum", "weight_decay") if name in config.arguments
    ]
    changes = [f'    group["{name}"] = {literal(float(value))}' for name, value in overrides]
    if changes:
        changes.insert(0, "for group in optimizer.param_groups:")
    return fill_section("script", "state", load_state=_load_lines(str(path)), group_changes=changes)


def _load_lines(path: str) -> list[str]:
    if path.endswith(".safetensors"):
        return ["from safetensors.torch import load_file", "", f"saved = load_file({path!r})"]
    return [f'saved = torch.load({path!r}, map_location="cpu", weights_only=True)']


def literal(value: object) -> str:
    """Return a value as Python reads it back, also where it is not finite."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(literal, value)) + ",)"[len(value) > 1 :]
    text = repr(value)
    return f'float("{text}")' if isinstance(value, float) and not text[-1].isdigit() else text


@dataclass(frozen=True, slots=True)
class ScenarioLines:
    """Lines of a script; those of `predict` measure `loss` of the tensors `names`, of batch `i` where not `fixed`."""

    imports: list[str]
    model: list[str]
    predict: list[str]
    names: str = ""
    data: list[str] = field(default_factory=list)
    has_fixed_batch: bool = True
    is_user_model: bool = False  # whether its model may do anything, as one does that this package has not made
    loss: str = "loss.item()"

    @property
    def forward(self) -> list[str]:
        """The lines of a forward."""
        return self.predict if self.has_fixed_batch or not self.names else [f"{self.names} = batch(i)", *self.predict]


def scenario_lines(config: RunConfig) -> ScenarioLines:
    """Return what a scenario builds, with its data: in plain PyTorch where that can be written."""
    own = config.own
    if config.scenario not in PLAIN_SCENARIOS or own.get("weights", "random") != "random" or "image" in own:
        return user_scenario_lines(config)  # only the scenario knows how to come by these
    fields, fixed = _fields(config), own.get("data", "fixed") == "fixed"
    data = fill_section(config.scenario, "fixed data" if fixed else "fresh data", **fields)
    if fixed and fields["to_device"]:
        data += fill_section(config.scenario, "fixed data to a device", **fields)
    return replace(plain_model_lines(config), data=data, has_fixed_batch=fixed)


def plain_model_lines(config: RunConfig) -> ScenarioLines:
    """Return the model and loss of a scenario that has a template, without its data."""
    name, fields = config.scenario, _fields(config)
    imports, model, predict = (fill_section(name, section, **fields) for section in ("imports", "model", "forward"))
    return ScenarioLines(imports, model, predict, BATCH_NAMES.get(name, "x, y"))


def _fields(config: RunConfig) -> dict[str, Any]:
    """Return the fields of a scenario's template: its own options as whole numbers, and what follows from them."""
    defaults = OPTION_DEFAULTS[config.scenario]
    sizes = {name: int(float(config.own.get(name, default))) for name, default in defaults.items()}
    derived = {"points_end": sizes.get("batch_size", 0) + 1, "feedforward": 4 * sizes.get("width", 0)}
    to_device = "" if config.device == "cpu" else f".to({config.device!r})"
    return {"seed": _seed(config), "to_device": to_device, **sizes, **derived}


def user_scenario_lines(config: RunConfig) -> ScenarioLines:
    """Return how to build a user's scenario: its code stays where it is."""
    on_host = config.device == "cpu"
    model = fill_section(
        "user_scenario",
        "model",
        move_function=[] if on_host else fill_section("user_scenario", "move function"),
        seed=_seed(config),
        scenario=repr(config.scenario),
        options=repr(dict(config.own)),
        device=repr(config.device),
        move_batch=[] if on_host else [f"batch = moved(batch, {config.device!r})"],
    )
    return ScenarioLines(
        fill_section("user_scenario", "imports"),
        model,
        fill_section("user_scenario", "forward"),
        data=fill_section("user_scenario", "fresh data"),
        has_fixed_batch=False,
        is_user_model=True,
        loss="loss.detach().squeeze().tolist()",  # also where it is not one number
    )


def _seed(config: RunConfig) -> str:
    return repr(config.arguments.get("seed", 0))
