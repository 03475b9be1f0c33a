"""A run as a plain PyTorch script: the same losses, to the bit, without this program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, starmap

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.command_log import CommandLog, RanCommand
from autograd_tui.core.frame import Frame
from autograd_tui.core.optimizer_spec import GroupSpec, LrDecay, OptimizerSpec
from autograd_tui.core.run_config import RunConfig
from autograd_tui.export.script_parts import (
    PLAIN_SCENARIOS,
    OptimizerLines,
    RunProgress,
    ScenarioLines,
    comment,
    global_state_lines,
    phase_comment,
    phase_lines,
    scenario_lines,
    setting_lines,
    state_lines,
)
from autograd_tui.export.template import fill_section


def training_script(
    config: RunConfig, log: CommandLog, first: Frame, groups: Callable[[str], Sequence[GroupSpec]]
) -> str:
    """Return the script. `first`: frame 0, which knows the optimizer that the run begins with.

    groups: returns the parameter groups of an optimizer by its name.
    """
    scenario, loops = scenario_lines(config), find_loops(log)
    raising = {command.phase for loop in loops for command, raised in loop.commands if raised}
    user_forward_raises = scenario.is_user_model and Phase.FORWARD in raising
    needs_global_state = scenario.is_user_model and not raising.isdisjoint({Phase.FORWARD, Phase.BACKWARD})
    copies = Phase.STEP in raising or user_forward_raises
    names = {command.name for loop in loops for command, _ in loop.commands}
    host_rng = scenario.is_user_model and "seed" in names
    imports = import_lines(
        scenario,
        standard=["import copy"] * copies + import_of_os(config) + ["import random"] * host_rng,
        host_rng=host_rng,
        scheduler=bool(decay_line(config)),
        global_state=needs_global_state,
    )
    optimizer = OptimizerLines(None if first.groups is None else groups, decay_line(config))
    writer = _LoopWriter(scenario, optimizer)
    lines = fill_section(
        "script",
        "script",
        header=_header(config),
        imports=imports,
        threads=_threads(config),
        global_state=global_state_lines(config) if needs_global_state else [],
        buffer_functions=fill_section("phases", "buffer functions") if user_forward_raises else [],
        model=scenario.model,
        data=scenario.data,
        optimizer=optimizer.first(OptimizerSpec.parse(first.optimizer), first.learning_rates),
        state=state_lines(config),
        loops=[line for loop in loops for line in ("", *writer.write(loop))],
    )
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class LoopBlock:
    """One setting, or the phases from one forward to the next, run so many times."""

    commands: tuple[RanCommand, ...]
    times: int = 1


def find_loops(log: CommandLog) -> list[LoopBlock]:
    """Return the loops of a run; neighbours that are alike are one."""
    loops, start = [], 0
    for pattern, times in log.blocks():
        loops.append(LoopBlock(tuple(log.with_errors(start, start + len(pattern))), times))
        start += len(pattern) * times
    neighbours = groupby(loops, key=lambda loop: loop.commands)
    return [LoopBlock(commands, sum(loop.times for loop in alike)) for commands, alike in neighbours]


class _LoopWriter:
    """Writes one loop after the other, and knows how far the run has come."""

    def __init__(self, scenario: ScenarioLines, optimizer: OptimizerLines) -> None:
        self._scenario, self._optimizer = scenario, optimizer
        self._progress = RunProgress()

    def write(self, loop: LoopBlock) -> list[str]:
        """Return the lines of a loop, or of a pass that does not repeat."""
        start, comments = self._progress.next_iteration, self._comments(loop)
        if loop.times == 1:
            return self._pass(loop, str(start), comments)
        steps = sum(command.phase is Phase.STEP and not raised for command, raised in loop.commands)
        counts = steps > 0 and any(starmap(_prints_loss, loop.commands))  # whether each pass is an iteration of its own
        body = self._pass(loop, "{iteration}" if counts else str(start), self._comments_of_all(loop, comments))
        if counts:
            self._progress.iteration += loop.times - 1
            self._progress.steps += steps * (loop.times - 1)
            self._progress.loss_steps += steps * (loop.times - 1)
        head = f"for iteration in range({start}, {start + loop.times}):" if counts else f"for _ in range({loop.times}):"
        return [head, *(f"    {line}" for line in body)]

    def _comments_of_all(self, loop: LoopBlock, comments: list[str]) -> list[str]:
        """Return for each step what it does every time; `comments` are those of the first time."""
        after = replace(self._progress)
        for command, raised in loop.commands:
            after.advance(command, raised)
        return [
            later if later == first else f"{later}, after the first time"
            for first, later in zip(comments, self._comments(loop, after), strict=True)
        ]

    def _comments(self, loop: LoopBlock, start: RunProgress | None = None) -> list[str]:
        """Return for each step what it does, were the pass to begin at `start`."""
        progress, comments = replace(start or self._progress), []
        for command, raised in loop.commands:
            comments.append(phase_comment(command.phase, progress) if command.phase else "")
            progress.advance(command, raised)
        return comments

    def _pass(self, loop: LoopBlock, iteration: str, comments: list[str]) -> list[str]:
        lines: list[str] = []
        for (command, raised), comment_text in zip(loop.commands, comments, strict=True):
            if command.phase is None:
                lines += setting_lines(command, self._scenario, self._optimizer)
            else:
                scheduled = bool(self._optimizer.decay) and self._progress.has_loss
                lines += phase_lines(command, raised, self._scenario, comment_text=comment_text, scheduled=scheduled)
            if _prints_loss(command, raised):
                lines.append(f'print(f"iteration {iteration}  loss {{{self._scenario.loss}!r}}")')
            self._progress.advance(command, raised)
        return lines


def _prints_loss(command: Command, raised: str | None) -> bool:
    return command.phase is Phase.FORWARD and raised is None


def _header(config: RunConfig) -> list[str]:
    lines = [f"This run began as: {config.command_line}", versions_line(config)]
    if config.scenario not in PLAIN_SCENARIOS:
        lines.append(import_note(config))
    return list(map(comment, lines))


def versions_line(config: RunConfig) -> str:
    """Return the device and the versions that a run had."""
    versions = ", ".join(f"{name} {version}" for name, version in config.versions.items())
    return f"on {config.device}, with {versions}: other versions may round differently."


def import_note(config: RunConfig) -> str:
    """Return the note that a script imports its scenario."""
    return f"{config.scenario} is imported: run this where it can be found."


def import_lines(
    scenario: ScenarioLines, *, standard: Sequence[str], host_rng: bool, scheduler: bool, global_state: bool
) -> list[str]:
    """Return the imports: those of the standard library, of other packages, and of this one."""
    torch = ["import torch", *scenario.imports]
    torch += ["from torch.optim.lr_scheduler import ReduceLROnPlateau"] * scheduler
    ours = ["from autograd_tui.engine.training.global_state import GlobalState"] * global_state
    ours += [line for line in torch if "autograd_tui" in line]
    torch = [line for line in torch if line not in ours]
    return [*standard, *[""] * bool(standard), *["import numpy"] * host_rng, *torch, *[""] * bool(ours), *ours]


def _threads(config: RunConfig) -> list[str]:
    """Return the request for as many threads as the run had, and for deterministic algorithms: sums depend on both."""
    has_threads = config.scenario != "linear" or "threads" in config.arguments
    lines = fill_section("script", "threads", threads=repr(config.threads)) if has_threads else []
    return lines + deterministic_lines(config)


def import_of_os(config: RunConfig) -> list[str]:
    """Return the import that `deterministic_lines` need."""
    return ["import os"] if config.arguments.get("deterministic") else []


def deterministic_lines(config: RunConfig) -> list[str]:
    """Return the request for deterministic algorithms where the run had it."""
    return fill_section("script", "deterministic") if config.arguments.get("deterministic") else []


def decay_line(config: RunConfig) -> str:
    """Return the line that makes the scheduler; "" where there is none."""
    if (text := config.arguments.get("decay")) is None:
        return ""
    decay = LrDecay.parse(str(text))
    floor = f", min_lr={decay.min_lr!r}" if decay.min_lr else ""
    return f"scheduler = ReduceLROnPlateau(optimizer, factor={decay.factor!r}, patience={decay.patience!r}{floor})"
