"""The lines of an exported script: model, data, loss and optimizer, and what each command does."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.optimizer_spec import GroupSpec, OptimizerSpec
from autograd_tui.core.run_config import RunConfig
from autograd_tui.export.template import fill_section
from autograd_tui.text.optimizer_words import OPTIMIZER_NAMES
from autograd_tui.text.styled_text import printable

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


@dataclass(slots=True)
class RunProgress:
    """How far a run has come, as far as it shows in the commands alone."""

    iteration: int = 0
    steps: int = 0
    loss_steps: int = 0
    graph: Literal["none", "alive", "freed"] = "none"
    grads: Literal["none", "fresh", "used"] = "none"
    has_loss: bool = False

    @property
    def next_iteration(self) -> int:
        """The iteration that a forward from here belongs to."""
        return self.iteration + (self.iteration == 0 or self.steps > self.loss_steps)

    def advance(self, command: Command, raised: str | None) -> None:
        """Go on by one command."""
        phase = command.phase
        if phase is Phase.BACKWARD and self.graph == "alive":
            self.graph = "freed"  # also where it raises
        if raised or phase is None:
            return
        if phase is Phase.FORWARD:
            self.iteration, self.loss_steps = self.next_iteration, self.steps
            self.graph, self.has_loss = "alive", True
        elif phase is Phase.BACKWARD:
            self.grads = "fresh"
        elif phase is Phase.STEP:
            self.steps += 1
            self.grads = "none" if self.grads == "none" else "used"
        else:
            self.grads = "none"


def phase_comment(phase: Phase, progress: RunProgress) -> str:
    """Return a comment on what a phase does after what has been run."""
    if phase is Phase.FORWARD:
        twice = "the graph of the one before goes unused" if progress.graph == "alive" else ""
        return f"forward: {twice or 'predict, and measure the loss'}"
    if phase is Phase.BACKWARD:
        adds = "there was no zero_grad, so it adds to the gradients"
        return f"backward: {'compute the gradients' if progress.grads == 'none' else adds}"
    if phase is Phase.STEP:
        moves = {"none": "there are no gradients, so nothing moves", "fresh": "move the parameters by their gradients"}
        return f"step: {moves.get(progress.grads, 'once more on gradients that a step has used already')}"
    return f"zero_grad: {'there is no gradient to clear' if progress.grads == 'none' else 'clear the gradients'}"


def phase_lines(
    command: Command, raised: str | None, scenario: ScenarioLines, *, comment_text: str, scheduled: bool
) -> list[str]:
    """Return the lines of a phase. `scheduled`: a scheduler sees the loss in a step."""
    phase = command.phase
    assert phase is not None
    scheduler_step = ["scheduler.step(loss.detach())"] * scheduled
    lines = {
        Phase.FORWARD: list(scenario.forward),
        Phase.BACKWARD: ["loss.backward()"],
        Phase.STEP: ["optimizer.step()", *scheduler_step],
        Phase.ZERO_GRAD: ["optimizer.zero_grad()"],
    }[phase]
    if raised is None:
        lines[-1 if phase is Phase.FORWARD else 0] += f"  # {comment_text}"
        return lines + ["i += 1"] * (phase is Phase.FORWARD and not scenario.has_fixed_batch)
    section = _section_that_raises(phase, raised, is_user_model=scenario.is_user_model)
    fields = {"phase_lines": lines, "scheduler_step": scheduler_step, "exception": exception_name(raised)}
    return [f"# {phase.value}: it raises, and leaves everything as it was", *fill_section("phases", section, **fields)]


def _section_that_raises(phase: Phase, raised: str, *, is_user_model: bool) -> str:
    if phase is Phase.STEP:
        return "step that raises"
    if phase is Phase.FORWARD or (phase is Phase.BACKWARD and raised != "NameError"):
        return f"{phase.value}{' of a user model' * is_user_model} that raises"
    return "phase that raises and changes nothing"


def global_state_lines(config: RunConfig) -> list[str]:
    """Return what marks random numbers, and where a loader stands, for phases that raise."""
    follow = [] if config.device == "cpu" else [f"around.add_device({config.device!r})"]
    return fill_section("phases", "global state", follow_device=follow)


def comment(text: str) -> str:
    """Return a comment of one line, whatever there is in the text."""
    return printable(f"# {' '.join(text.split())}")


def exception_name(raised: str) -> str:
    """Return the class that an except line names: PyTorch's and a user's own have one above them that Python knows."""
    builtin = getattr(builtins, raised, None)
    return raised if isinstance(builtin, type) and issubclass(builtin, BaseException) else "Exception"


def setting_lines(command: Command, scenario: ScenarioLines, optimizer: OptimizerLines) -> list[str]:
    """Return the lines of a setting."""
    if command.group is not None:
        return [f'optimizer.param_groups[{command.group}]["lr"] = {literal(command.value)}']
    if command.name == "lr":
        return ["for group in optimizer.param_groups:", f'    group["lr"] = {literal(command.value)}']
    if command.name == "seed":
        of_host = [f"random.seed({command.value})", f"numpy.random.seed({command.value} % 2**32)"]
        return [f"torch.manual_seed({command.value})", *of_host * scenario.is_user_model]
    if isinstance(command.value, OptimizerSpec):
        return optimizer.change(command.value)
    if command.kind == "requires_grad":
        if not command.target:
            return [f"model.requires_grad_({command.value})"]
        return fill_section("script", "freeze", prefix=repr(f"{command.target}."), value=command.value)
    name, bracket, indices = command.name.partition("[")
    parts = name.split(".")
    plain = all(part.isascii() and part.isidentifier() and not keyword.iskeyword(part) for part in parts)
    target = f"model.{name}" if plain else f"model.get_parameter({name!r})"
    index, value = indices.rstrip("]").replace(",", ", "), literal(command.value)
    sets = f"{target}[{index}] = {value}" if bracket else f"{target}.fill_({value})"
    return ["with torch.no_grad():", f"    {sets}"]
