"""A minimal reproducible iteration as a plain PyTorch script, with a file of tensors beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autograd_tui.core.command import Phase, parse_one
from autograd_tui.core.command_log import RanCommand
from autograd_tui.core.errors import Refused
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.core.run_config import RunConfig
from autograd_tui.export.script import (
    decay_line,
    deterministic_lines,
    import_lines,
    import_note,
    import_of_os,
    versions_line,
)
from autograd_tui.export.script_parts import (
    OPTION_DEFAULTS,
    OptimizerLines,
    RunProgress,
    ScenarioLines,
    comment,
    global_state_lines,
    phase_comment,
    phase_lines,
    plain_model_lines,
    setting_lines,
    user_scenario_lines,
)
from autograd_tui.export.template import fill_section


def repro_script(config: RunConfig, repro: Mapping[str, Any]) -> str:
    """Return the script of a repro that stands beside it under the same name. Raises Refused where it cannot be."""
    commands = [(parse_one(command), raised) for command, raised in repro["steps"]]
    new_optimizer = any(isinstance(command.value, OptimizerSpec) for command, _ in commands)
    if new_optimizer and len(repro["optimizer"]["groups"]) > 1:
        raise Refused("a repro in which an optimizer with several parameter groups is started cannot be written yet.")
    scenario = (plain_model_lines if config.scenario in OPTION_DEFAULTS else user_scenario_lines)(config)
    decay, is_user_model, on_host = decay_line(config), scenario.is_user_model, config.device == "cpu"
    generators = is_user_model and any(states is not None for states in repro["generators"])
    needs_global_state = generators or (is_user_model and any(raised for _, raised in commands[:-1]))
    copies = is_user_model or any(raised and command.phase is Phase.STEP for command, raised in commands)
    imports = import_lines(
        scenario,
        standard=[
            *["import copy"] * copies,
            *import_of_os(config),
            *["import random"] * is_user_model,
            "from pathlib import Path",
        ],
        host_rng=is_user_model,
        scheduler=bool(decay),
        global_state=needs_global_state,
    )

    def section_if(present: object, section: str) -> list[str]:
        return fill_section("repro_script", section, new_scheduler=decay) if present else []

    lines = fill_section(
        "repro_script",
        "script",
        header=_header(config, repro, scenario),
        imports=imports,
        deterministic=deterministic_lines(config),
        global_state=global_state_lines(config) if needs_global_state else [],
        buffer_functions=fill_section("phases", "buffer functions") if is_user_model else [],
        model=scenario.model,
        attributes=section_if(repro.get("attributes"), "attributes"),
        optimizer=repro["optimizer"]["class"],
        optimizer_state=section_if(True, "optimizer state" if on_host else "optimizer state on a device"),
        scheduler=section_if(decay, "scheduler"),
        host_rng=section_if(is_user_model, "host rng"),
        generators=section_if(generators, "generators"),
        device_rng=[] if on_host else fill_section("repro_script", "device rng", device=repr(config.device)),
        iteration=_iteration(scenario, commands, repro, decay),
    )
    return "\n".join(lines) + "\n"


def _iteration(
    scenario: ScenarioLines, commands: Sequence[RanCommand], repro: Mapping[str, Any], decay: str
) -> list[str]:
    """Return the commands; one that raised at the very end raises here too, so that a debugger can stand there."""
    lines: list[str] = []
    progress = RunProgress(grads="fresh" if repro["grads"] else "none")
    for index, (command, raised) in enumerate(commands):
        phase = command.phase
        if phase is None:
            one_group = OptimizerLines(None, decay)  # `repro_script` has refused several
            lines += setting_lines(command, scenario, one_group)
            continue
        last = index == len(commands) - 1
        lines += [comment(f"in the run this raised {raised}")] if last and raised else []
        drawn = replace(scenario, predict=_predict(scenario, repro, int(progress.iteration > 0)), has_fixed_batch=True)
        lines += phase_lines(
            command,
            None if last else raised,
            drawn,
            comment_text=phase_comment(phase, progress),
            scheduled=bool(decay) and progress.has_loss,
        )
        if raised is None and phase is Phase.FORWARD:
            lines.append(f'print(f"iteration {repro["iteration"]}  loss {{{scenario.loss}!r}}")')
        if raised is None and phase is Phase.BACKWARD:
            lines.append("print(first_nonfinite())")
        progress.advance(command, raised)
    return [*lines, 'print("in the run:", case["fault"])'] if repro["fault"] else lines


def _predict(scenario: ScenarioLines, repro: Mapping[str, Any], index: int) -> list[str]:
    """Return a forward of one of the repro's own batches; where it has none the scenario draws it."""
    batches, batch = repro["batches"] or [], f'case["batches"][{index}]'
    if scenario.is_user_model:
        stored = index < len(batches) and batches[index] is not None
        drawn = f"parts.batch({repro['forwards'] + index})"
        return [f"loss = forward({batch if stored else drawn})"]
    if repro["device"] != "cpu":
        batch = f"(each.to({repro['device']!r}) for each in {batch})"
    return [f"{scenario.names} = {batch}", *scenario.predict]


def _header(config: RunConfig, repro: Mapping[str, Any], scenario: ScenarioLines) -> list[str]:
    fault = f": {repro['fault']}" if repro["fault"] else ""
    lines = [
        f"Iteration {repro['iteration']}, from frame {repro['frame']} to frame {repro['end']}{fault}",
        f"of a run that began as: {config.command_line}",
        versions_line(config),
    ]
    if scenario.is_user_model:
        lines.append(import_note(config))
    return list(map(comment, lines))
