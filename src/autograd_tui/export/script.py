"""A run as a plain PyTorch script: the same losses, to the bit, without this program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from autograd_tui.core.command import Phase
from autograd_tui.core.command_log import Recording, Step
from autograd_tui.core.frame import Frame
from autograd_tui.core.optimizer_spec import GroupSpec, LrDecay, OptimizerSpec
from autograd_tui.core.run_config import RunConfig
from autograd_tui.export.loop_finder import LoopPass, LoopProgress, find_loops
from autograd_tui.export.script_model import (
    BUILT_IN,
    SURROUNDINGS,
    OptimizerLines,
    ScenarioLines,
    scenario_lines,
    state_lines,
)
from autograd_tui.export.script_phases import (
    BUFFER_FUNCTIONS,
    comment,
    phase_comment,
    phase_lines,
    setting_lines,
    state_keeper_lines,
)


def training_script(recording: Recording, first: Frame, groups: Callable[[str], Sequence[GroupSpec]]) -> str:
    """Write the script. `first`: frame 0, which knows the optimizer that the run begins with.

    groups: tells the parameter groups of an optimizer by its name.
    """
    config, scenario = recording.opening, scenario_lines(recording.opening)
    run = find_loops(recording)
    decay = decay_line(config)
    optimizer = OptimizerLines(None if first.groups is None else groups, decay)
    lines = [*_header(config), *_imports(run, scenario, decay=bool(decay)), *_threads(config)]
    if scenario.is_user_model and _needs_state(run):
        lines += state_keeper_lines(config)
    if scenario.is_user_model and _any_raises(run, Phase.FORWARD):
        lines += BUFFER_FUNCTIONS
    lines += scenario.build
    lines += optimizer.first(OptimizerSpec.parse(first.optimizer), first.learning_rates)
    lines += state_lines(config)
    writer = _LoopWriter(scenario, optimizer)
    for each in run:
        lines += ["", *writer.write(each)]
    return "\n".join(lines) + "\n"


class _LoopWriter:
    """Writes one pass after the other, and knows how far the run has come."""

    def __init__(self, scenario: ScenarioLines, optimizer: OptimizerLines) -> None:
        self._setup, self._optimizer = scenario, optimizer
        self._progress = LoopProgress()

    def write(self, loop: LoopPass) -> list[str]:
        """Write a pass, as a loop where it repeats."""
        start, firsts = self._progress.next_iteration, self._remarks(loop)
        if loop.times == 1:
            return self._once(loop, str(start), firsts)
        counts = self._counts(loop)
        body = self._once(loop, "{iteration}" if counts else str(start), self._repeated(loop, firsts))
        if counts:
            steps = sum(step.command.phase is Phase.STEP and not step.raised for step in loop.steps) * (loop.times - 1)
            self._progress.iteration += loop.times - 1
            self._progress.steps += steps
            self._progress.loss_steps += steps
        head = f"for iteration in range({start}, {start + loop.times}):" if counts else f"for _ in range({loop.times}):"
        return [head, *(f"    {line}" for line in body)]

    def _counts(self, loop: LoopPass) -> bool:
        """Tell whether each pass is an iteration of its own."""
        return any(_prints_loss(step) for step in loop.steps) and any(
            step.command.phase is Phase.STEP and not step.raised for step in loop.steps
        )

    def _repeated(self, loop: LoopPass, firsts: list[str]) -> list[str]:
        """Say for each step what it does every time."""
        after = replace(self._progress)
        for step in loop.steps:
            after.advance(step)
        later = self._remarks(loop, after)
        return [
            comment_text if comment_text == first else f"{comment_text}, after the first time"
            for first, comment_text in zip(firsts, later, strict=True)
        ]

    def _remarks(self, loop: LoopPass, start: LoopProgress | None = None) -> list[str]:
        """Say for each step what it does, were the pass to begin at `start`."""
        progress, comment_text = replace(start or self._progress), []
        for step in loop.steps:
            comment_text.append(phase_comment(step.command.phase, progress) if step.command.phase else "")
            progress.advance(step)
        return comment_text

    def _once(self, loop: LoopPass, iteration: str, remarks: list[str]) -> list[str]:
        lines: list[str] = []
        for step, comment_text in zip(loop.steps, remarks, strict=True):
            if step.command.phase is None:
                lines += setting_lines(step.command, self._setup, self._optimizer)
            else:
                scheduled = bool(self._optimizer.decay) and self._progress.has_loss
                lines += phase_lines(step, self._setup, comment_text=comment_text, scheduled=scheduled)
            if _prints_loss(step):
                lines.append(f'print(f"iteration {iteration}  loss {{{self._setup.loss}!r}}")')
            self._progress.advance(step)
        return lines


def _prints_loss(step: Step) -> bool:
    return step.command.phase is Phase.FORWARD and step.raised is None


def _any_raises(run: Sequence[LoopPass], phase: Phase) -> bool:
    return any(step.raised and step.command.phase is phase for loop in run for step in loop.steps)


def _needs_state(run: Sequence[LoopPass]) -> bool:
    return _any_raises(run, Phase.FORWARD) or _any_raises(run, Phase.BACKWARD)


def _header(config: RunConfig) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in config.versions.items())
    lines = [
        f"This run began as: {config.command_line}",
        f"on {config.device}, with {versions}: other versions may round differently.",
    ]
    if config.scenario not in BUILT_IN:
        lines.append(f"{config.scenario} is imported: run this where it can be found.")
    return list(map(comment, lines))


def _imports(run: Sequence[LoopPass], scenario: ScenarioLines, *, decay: bool) -> list[str]:
    copies = _any_raises(run, Phase.STEP) or (scenario.is_user_model and _any_raises(run, Phase.FORWARD))
    marks = [SURROUNDINGS] * (scenario.is_user_model and _needs_state(run))
    others = [*marks, *scenario.imports, *["from torch.optim.lr_scheduler import ReduceLROnPlateau"] * decay]
    ours = ["", *(each for each in others if "autograd_tui" in each)] if scenario.is_user_model else []
    seeds = scenario.is_user_model and any(step.command.name == "seed" for loop in run for step in loop.steps)
    library = ["import copy"] * copies + ["import random"] * seeds
    library += [""] * bool(library) + ["import numpy"] * seeds
    return [
        "",
        *library,
        "import torch",
        *(each for each in others if each not in ours),
        *ours,
    ]


def _threads(config: RunConfig) -> list[str]:
    """Ask for as many threads as the run had: sums of many floats depend on it."""
    if config.scenario == "linear" and "threads" not in config.arguments:
        return []
    return ["", f"torch.set_num_threads({config.threads!r})  # as in the run: sums of many numbers depend on it"]


def decay_line(config: RunConfig) -> str:
    """Write the line that makes the scheduler; "" where there is none."""
    if (text := config.arguments.get("decay")) is None:
        return ""
    decay = LrDecay.parse(str(text))
    floor = f", min_lr={decay.min_lr!r}" if decay.min_lr else ""
    return f"scheduler = ReduceLROnPlateau(optimizer, factor={decay.factor!r}, patience={decay.patience!r}{floor})"


def random_modules(config: RunConfig) -> list[str]:
    """Name the modules of PyTorch that random numbers come from."""
    return ["torch"] if config.device == "cpu" else ["torch", f"torch.get_device_module({config.device!r})"]
