"""The lines of an exported script before its loop: model, data, loss and optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autograd_tui.core.optimizer_spec import GroupSpec, OptimizerSpec
from autograd_tui.core.run_config import RunConfig
from autograd_tui.text.optimizer_rules import NAMES

MODEL_KEYS = ("model", "model_state_dict", "state_dict", "model_state")  # where files keep a model beside other things
OPTIMIZER_KEYS = ("optimizer", "optimizer_state_dict", "optim", "optimizer_state")
MAX_LINE_WIDTH = 100  # columns


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
        rates = [f'optimizer.param_groups[{index}]["lr"]' for index in range(count)]
        return self._made(spec, rates if spec.lr is None else [literal(spec.lr)] * count)

    def _made(self, spec: OptimizerSpec, rates: Sequence[str]) -> list[str]:
        options = [f"lr={rates[0]}", *(f"{name}={literal(value)}" for name, value in spec.options)]
        scheduler = [self.decay] if self.decay else []
        start = f"optimizer = torch.optim.{NAMES[spec.name]}("
        if self.groups is None:
            return [f"{start}model.parameters(), {', '.join(options)})", *scheduler]
        groups = enumerate(zip(self.groups(spec.name), rates, strict=True))
        listed = [f"        {_group(index, group, rate, first=rates[0])}," for index, (group, rate) in groups]
        return [start, "    [", *listed, "    ],", *(f"    {option}," for option in options), ")", *scheduler]

    def _members(self, spec: OptimizerSpec) -> list[str]:
        """Write which parameters each group holds."""
        if self.groups is None:
            return []
        lines = ["", "", "def named(names):", "    return [model.get_parameter(name) for name in names]", "", ""]
        for index, group in enumerate(self.groups(spec.name)):
            lines += [f"group_{index} = [", *(f"    {line}" for line in _pack_rows(map(repr, group.names))), "]"]
        return lines


def _pack_rows(values: Iterable[str]) -> list[str]:
    """Put the values of a list side by side, as many as fit; none of them is taken apart."""
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
    """Write how the file that a run began with is put into model and optimizer; nothing where there was none."""
    path = config.arguments.get("state")
    if path is None:
        return []
    overrides = [
        (name, config.arguments[name]) for name in ("lr", "momentum", "weight_decay") if name in config.arguments
    ]
    changes = [f'        group["{name}"] = {literal(float(value))}' for name, value in overrides]
    return [
        "",
        "# What model and optimizer begin with, from where this run was started.",
        *_load_lines(str(path)),
        f"model.load_state_dict(next((saved[name] for name in {MODEL_KEYS} if name in saved), saved))",
        f"for name in {OPTIMIZER_KEYS}:",
        f"    if name in saved and any(each in saved for each in {MODEL_KEYS}):",
        "        optimizer.load_state_dict(saved[name])",
        *(["        for group in optimizer.param_groups:", *(f"    {line}" for line in changes)] if changes else []),
    ]


def _load_lines(path: str) -> list[str]:
    if path.endswith(".safetensors"):
        return ["from safetensors.torch import load_file", "", f"saved = load_file({path!r})"]
    return [f'saved = torch.load({path!r}, map_location="cpu", weights_only=True)']


def literal(value: object) -> str:
    """Write a value as Python reads it back, also where it is not finite."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(literal, value)) + ",)"[len(value) > 1 :]
    text = repr(value)
    return f'float("{text}")' if isinstance(value, float) and not text[-1].isdigit() else text


@dataclass(frozen=True, slots=True)
class ScenarioLines:
    """Lines of a script; those of `predict` measure `loss` of the tensors `names`, of batch `i` where not `fixed`."""

    imports: tuple[str, ...]
    model: tuple[str, ...]
    data: tuple[str, ...]
    names: str
    predict: tuple[str, ...]
    has_fixed_batch: bool
    is_user_model: bool = False  # whether its model may do anything, as one does that this package has not made
    loss: str = "loss.item()"

    @property
    def build(self) -> tuple[str, ...]:
        """Give what stands before the loop."""
        return (*self.model, *self.data)

    @property
    def forward(self) -> tuple[str, ...]:
        """Give what a forward is."""
        return self.predict if self.has_fixed_batch or not self.names else (f"{self.names} = batch(i)", *self.predict)


SURROUNDINGS = "from autograd_tui.engine.training.global_state import GlobalState"


def scenario_lines(config: RunConfig) -> ScenarioLines:
    """Write what a scenario builds: in plain PyTorch where it is built in."""
    written = BUILT_IN.get(config.scenario)
    if config.own.get("weights", "random") != "random" or "image" in config.own:
        written = None  # only the scenario knows how to come by these
    return _user_scenario(config) if written is None else written(config)


MSE = ("", "", "def mse(prediction, target):", "    return ((target - prediction) ** 2).mean()")


def _linear(config: RunConfig) -> ScenarioLines:
    size, device, fixed = int(config.own.get("batch_size", 3)), to_device(config), _is_fixed(config.own)
    model = (
        "",
        "",
        "class Line(nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        "        self.w = nn.Parameter(torch.tensor([2.0]))",
        "        self.b = nn.Parameter(torch.tensor([6.0]))",
        "",
        "    def forward(self, x):",
        "        return self.w * x + self.b",
    )
    drawn = f"1 + 2 * torch.rand({size}, generator=generator)  # in [1, 3)"
    data = (
        (f"x = torch.arange(1.0, {size + 1})", "y = 4 * x + 1", *_move_lines("x, y", device))
        if fixed
        else _batch_function(config, f"x = {drawn}", "y = 4 * x + 1", f"return x{device}, y{device}")
    )
    return ScenarioLines(
        ("from torch import nn",),
        (*model, *MSE, *_seed_lines(config), f"model = Line(){device}"),
        data,
        "x, y",
        ("Q = model(x)", "loss = mse(Q, y)"),
        fixed,
    )


def _resnet18(config: RunConfig) -> ScenarioLines:
    # Where pretrained weights are to be had, `opening.own` says which: they belong behind weights=.
    own, device, fixed = config.own, to_device(config), _is_fixed(config.own)
    size, pixels = int(own.get("batch_size", 1)), int(own.get("image_size", 64))
    draw = "data = torch.rand({}, 3, {}, {}{})", "labels = torch.rand({}, 1000{})"
    lines = (draw[0].format(size, pixels, pixels, "{}"), draw[1].format(size, "{}"))
    data = (
        (*(line.format("") for line in lines), *_move_lines("data, labels", device))
        if fixed
        else _batch_function(
            config,
            *(line.format(", generator=generator") for line in lines),
            f"return data{device}, labels{device}",
        )
    )
    return ScenarioLines(
        ("from torchvision.models import resnet18",),
        (*MSE, *_seed_lines(config), f"model = resnet18(weights=None){device}"),
        data,
        "data, labels",
        ("prediction = model(data)", "loss = mse(prediction, labels)"),
        fixed,
    )


def _user_scenario(config: RunConfig) -> ScenarioLines:
    """Write how to build a scenario of somebody else's: its code stays where it is."""
    options = f"{_seed(config)}, {dict(config.own)!r}, device={config.device!r}"
    model = (
        *_seed_lines(config)[not to_device(config) :],
        f"scenario = find({config.scenario!r})",
        f"torch.manual_seed({_seed(config)})  # once more: reading it may have drawn random numbers",
        f"parts = scenario.build(scenario.options({options}))",
        f"model = parts.model.to({config.device!r})",
        "",
        "",
        "def forward(batch):",
        '    """Give the loss of a batch."""',
        *(f"    batch = moved(batch, {config.device!r})",) * bool(to_device(config)),
        "    loss, _, _ = predict(parts, model, parts.loss, batch)",
        "    return loss",
    )
    data = ("", "", "i = 0  # counts the batches")
    imports = (
        "from autograd_tui.engine.training.predict import predict",
        "from autograd_tui.scenarios.find import find",
    )
    shown = "loss.detach().squeeze().tolist()"  # also where it is not one number
    predict = ("loss = forward(parts.batch(i))",)
    return ScenarioLines(
        imports,
        (*_move_function(config), *model),
        data,
        "",
        predict,
        has_fixed_batch=False,
        is_user_model=True,
        loss=shown,
    )


def _move_function(config: RunConfig) -> tuple[str, ...]:
    if not to_device(config):
        return ()
    return (
        "",
        "",
        "def moved(value, device):",
        '    """Bring a batch of any shape to the device."""',
        "    if isinstance(value, torch.Tensor):",
        "        return value.to(device)",
        "    if isinstance(value, dict):",
        "        return type(value)((key, moved(each, device)) for key, each in value.items())",
        '    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):',
        "        return type(value)(moved(each, device) for each in value)",
        "    return value",
    )


def _batch_function(config: RunConfig, *lines: str) -> tuple[str, ...]:
    """Write a function that draws another batch each time, from a generator of its own."""
    return (
        "",
        "",
        "def batch(i):",
        f"    generator = torch.Generator().manual_seed({_seed(config)} * 1_000_003 + i)",
        *(f"    {line}" for line in lines),
        "",
        "",
        "i = 0  # counts the batches",
    )


def _seed_lines(config: RunConfig) -> tuple[str, ...]:
    return "", "", f"torch.manual_seed({_seed(config)})"


def _seed(config: RunConfig) -> str:
    return repr(config.arguments.get("seed", 0))


def _is_fixed(own: Mapping[str, Any]) -> bool:
    return bool(own.get("data", "fixed") == "fixed")


def to_device(config: RunConfig) -> str:
    """Write what brings a tensor or model to the device of the run: "" on the CPU."""
    return "" if config.device == "cpu" else f".to({config.device!r})"


def _move_lines(names: str, device: str) -> tuple[str, ...]:
    moved = ", ".join(f"{name}{device}" for name in names.split(", "))
    return (f"{names} = {moved}",) if device else ()


# A scenario that comes with this package stands here once it can be written without it; all others are imported.
BUILT_IN: Mapping[str, Callable[[RunConfig], ScenarioLines]] = {"linear": _linear, "resnet18": _resnet18}
