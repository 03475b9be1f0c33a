"""A minimal reproducible iteration as a plain PyTorch script, with a file of tensors beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autograd_tui.core.command import Phase, parse_one
from autograd_tui.core.command_log import Step
from autograd_tui.core.errors import Refused
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.core.run_config import RunConfig
from autograd_tui.export.loop_finder import LoopProgress
from autograd_tui.export.script import decay_line, random_modules
from autograd_tui.export.script_model import (
    BUILT_IN,
    SURROUNDINGS,
    OptimizerLines,
    ScenarioLines,
    scenario_lines,
    to_device,
)
from autograd_tui.export.script_phases import (
    BUFFER_FUNCTIONS,
    comment,
    phase_comment,
    phase_lines,
    setting_lines,
    state_keeper_lines,
)

CLASS = ("", "", "class Model(nn.Module):", "    def __init__(self):", "        super().__init__()")


def repro_setup(config: RunConfig) -> ScenarioLines:
    """Write how the model is made, in plain PyTorch where it comes with this package, and how its loss is measured."""
    written = {**BUILT_IN, **SMALL}.get(config.scenario)
    return scenario_lines(config) if written is None else written(config)


def _small_setup(
    config: RunConfig, model: tuple[str, ...], loss: str, prediction: str, made: str = "Model()"
) -> ScenarioLines:
    imports = ("from torch import nn", f"from torch.nn.functional import {loss}")
    lines = (*model, "", *[""] * bool(model), f"model = {made}{to_device(config)}")
    predict = (f"{prediction} = model(x)", f"loss = {loss}({prediction}, y)")
    return ScenarioLines(imports, lines, (), "x, y", predict, has_fixed_batch=True)


def _spiral(config: RunConfig) -> ScenarioLines:
    width = _int_option(config.own, "width", 32)
    made = f"nn.Sequential(nn.Linear(2, {width}), nn.Tanh(), nn.Linear({width}, 1))"
    return _small_setup(config, (), "binary_cross_entropy_with_logits", "logits", made)


def _lstm(config: RunConfig) -> ScenarioLines:
    width = _int_option(config.own, "width", 16)
    model = (
        *CLASS,
        f"        self.lstm = nn.LSTM(1, {width}, batch_first=True)",
        f"        self.head = nn.Linear({width}, 1)",
        "",
        "    def forward(self, x):",
        "        hidden, _ = self.lstm(x)",
        "        return self.head(hidden)",
    )
    return _small_setup(config, model, "mse_loss", "prediction")


def _transformer(config: RunConfig) -> ScenarioLines:
    width, heads = _int_option(config.own, "width", 32), _int_option(config.own, "heads", 4)
    layers, context = _int_option(config.own, "layers", 1), _int_option(config.own, "context", 32)
    model = (
        *CLASS,
        f"        self.characters = nn.Embedding(CHARACTERS, {width})",
        f"        self.positions = nn.Embedding({context}, {width})",
        "        self.layers = nn.ModuleList(",
        f"            nn.TransformerEncoderLayer({width}, {heads}, {4 * width}, dropout=0.0, batch_first=True)",
        f"            for _ in range({layers})",
        "        )",
        f"        self.head = nn.Linear({width}, CHARACTERS)",
        "",
        "    def forward(self, x):",
        "        hidden = self.characters(x) + self.positions.weight",
        "        future = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)",
        "        for layer in self.layers:",
        "            hidden = layer(hidden, src_mask=future, is_causal=True)",
        "        return self.head(hidden).transpose(1, 2)",
    )
    characters = ("", 'CHARACTERS = len(case["params"]["head.bias"])')
    return _small_setup(config, (*characters, *model), "cross_entropy", "logits")


def _int_option(own: Mapping[str, Any], name: str, usual: int) -> int:
    return int(float(own.get(name, usual)))


SMALL: Mapping[str, Callable[[RunConfig], ScenarioLines]] = {
    "spiral": _spiral,
    "lstm": _lstm,
    "transformer": _transformer,
}


SAY = (
    "",
    "",
    "def first_nonfinite():",
    '    """Name the first gradient that is not finite."""',
    "    for name, param in model.named_parameters():",
    "        if param.grad is None:",
    "            continue",
    "        sparse = param.grad.layout is not torch.strided",
    "        grad = param.grad.to_sparse().coalesce().values() if sparse else param.grad",
    "        if not grad.isfinite().all():",
    "            count = (~grad.isfinite()).sum().item()",
    '            return f"{name}.grad has {count:,} of {param.numel():,} values that are NaN or infinite"',
    '    return "all gradients are finite"',
)
LOAD = ("", 'case = torch.load(Path(__file__).with_suffix(".pt"), weights_only=True)')
STATE = (
    "",
    "params = dict(model.named_parameters())",
    "with torch.no_grad():",
    "    for name, param in params.items():",
    '        param.copy_(case["params"][name])',
    '        param.requires_grad_(case["requires_grad"][name])',
    '        if name in case["grads"]:',
    '            param.grad = case["grads"][name].to(param.device)',
    'for name, buffer in case["buffers"].items():',
    '    module, _, key = name.rpartition(".")',
    "    setattr(model.get_submodule(module), key, buffer.to(next(model.parameters()).device))",
    "groups = [",
    '    {**options, "params": [params[name] for name in names]}',
    '    for names, options in zip(case["optimizer"]["params"], case["optimizer"]["groups"])',
    "]",
)
ATTRIBUTES = (
    'for name, attributes in case["attributes"].items():',
    "    vars(model.get_submodule(name)).update(attributes)",
)
OPTIMIZER_STATE = (
    'for name, state in case["optimizer"]["state"].items():',
    "    optimizer.state[params[name]] = state",
)
ON_DEVICE = (  # a count of steps stays on the host, as the optimizers keep it
    'for name, state in case["optimizer"]["state"].items():',
    "    for key, value in state.items():",
    '        moves = isinstance(value, torch.Tensor) and key != "step"',
    "        optimizer.state[params[name]][key] = value.to(params[name].device) if moves else value",
)
FOREIGN_RANDOM = (
    'version, numbers, gauss = case["rng"]["python"]',
    "random.setstate((version, tuple(numbers), gauss))",
    'if case["rng"]["numpy"] is not None:',
    '    kind, key, *rest = case["rng"]["numpy"]',
    '    numpy.random.set_state((kind, key.numpy().astype("uint32"), *rest))',
)


GENERATORS = (
    'for (loader, (place, _)), states in zip(around.mark().rewindables, case["generators"]):',
    "    if states is not None:",
    "        loader.put_back((place, states))",
)


def repro_script(config: RunConfig, repro: Mapping[str, Any]) -> str:
    """Write the script for a case that stands beside it under the same name. Raises Refused where it cannot be."""
    steps = [Step(parse_one(command), raised) for command, raised in repro["steps"]]
    scenario, decay = repro_setup(config), decay_line(config)
    new_optimizer = any(isinstance(step.command.value, OptimizerSpec) for step in steps)
    if new_optimizer and len(repro["optimizer"]["groups"]) > 1:
        raise Refused("a case in which an optimizer with several parameter groups is started cannot be written yet.")
    generators = scenario.is_user_model and any(states is not None for states in repro["generators"])
    marks = generators or (scenario.is_user_model and any(step.raised for step in steps[:-1]))
    lines = [*_header(config, repro, scenario), *_imports(scenario, steps, decay=decay, marks=marks), *LOAD]
    lines += ['torch.set_num_threads(case["threads"])']
    lines += state_keeper_lines(config) * marks + list(BUFFER_FUNCTIONS) * scenario.is_user_model
    lines += [*SAY, *scenario.model, *STATE, *ATTRIBUTES * bool(repro.get("attributes"))]
    lines += [f"optimizer = torch.optim.{repro['optimizer']['class']}(groups)"]
    lines += OPTIMIZER_STATE if config.device == "cpu" else ON_DEVICE
    lines += [decay, 'scheduler.load_state_dict(case["scheduler"])'] if decay else []
    lines += ['torch.set_rng_state(case["rng"]["torch"])', *FOREIGN_RANDOM * scenario.is_user_model]
    lines += GENERATORS * generators
    lines += [f'{module}.set_rng_state(case["rng"]["device"])' for module in random_modules(config)[1:]]
    return "\n".join([*lines, "", *_iteration(scenario, steps, repro, decay)]) + "\n"


def _iteration(scenario: ScenarioLines, steps: Sequence[Step], repro: Mapping[str, Any], decay: str) -> list[str]:
    """Write the steps; one that raised at the very end raises here too, so that a debugger can stand there."""
    lines: list[str] = []
    progress = LoopProgress(grads="fresh" if repro["grads"] else "none")
    for index, step in enumerate(steps):
        phase = step.command.phase
        if phase is None:
            one_group = OptimizerLines(None, decay)  # see `case_script`
            lines += setting_lines(step.command, scenario, one_group)
            continue
        last = index == len(steps) - 1
        lines += [comment(f"in the run this raised {step.raised}")] if last and step.raised else []
        written = Step(step.command) if last else step
        drawn = replace(scenario, predict=_predict(scenario, repro, int(progress.iteration > 0)), has_fixed_batch=True)
        lines += phase_lines(
            written, drawn, comment_text=phase_comment(phase, progress), scheduled=bool(decay) and progress.has_loss
        )
        if step.raised is None and phase is Phase.FORWARD:
            lines.append(f'print(f"iteration {repro["iteration"]}  loss {{{scenario.loss}!r}}")')
        if step.raised is None and phase is Phase.BACKWARD:
            lines.append("print(first_nonfinite())")
        progress.advance(step)
    return [*lines, 'print("in the run:", case["fault"])'] if repro["fault"] else lines


def _predict(scenario: ScenarioLines, repro: Mapping[str, Any], index: int) -> tuple[str, ...]:
    """Write a forward of the batch at a place among the case's own; where it has none the scenario draws it."""
    batches, batch = repro["batches"] or [], f'case["batches"][{index}]'
    stored = index < len(batches) and batches[index] is not None
    if scenario.is_user_model:
        drawn = batch if stored else f"parts.batch({repro['forwards'] + index})"
        return (f"loss = forward({drawn})",)
    if repro["device"] == "cpu":
        return (f"{scenario.names} = {batch}", *scenario.predict)
    return (f"{scenario.names} = (each.to({repro['device']!r}) for each in {batch})", *scenario.predict)


def _header(config: RunConfig, repro: Mapping[str, Any], scenario: ScenarioLines) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in config.versions.items())
    lines = [
        f"Iteration {repro['iteration']}, from frame {repro['frame']} to frame {repro['end']}" + _fault_note(repro),
        f"of a run that began as: {config.command_line}",
        f"on {config.device}, with {versions}: other versions may round differently.",
    ]
    if scenario.is_user_model:
        lines.append(f"{config.scenario} is imported: run this where it can be found.")
    return list(map(comment, lines))


def _fault_note(repro: Mapping[str, Any]) -> str:
    return f": {repro['fault']}" if repro["fault"] else ""


def _imports(scenario: ScenarioLines, steps: Sequence[Step], *, decay: str, marks: bool) -> list[str]:
    others = [
        *[SURROUNDINGS] * marks,
        *scenario.imports,
        *["from torch.optim.lr_scheduler import ReduceLROnPlateau"] * bool(decay),
    ]
    ours = ["", *(each for each in others if "autograd_tui" in each)] if scenario.is_user_model else []
    copies = scenario.is_user_model or any(step.raised and step.command.phase is Phase.STEP for step in steps)
    library = ["import copy"] * copies + ["import random"] * scenario.is_user_model + ["from pathlib import Path", ""]
    numpy = ["import numpy"] * scenario.is_user_model
    return ["", *library, *numpy, "import torch", *(each for each in others if each not in ours), *ours]
