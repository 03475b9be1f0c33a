"""A run as a plain PyTorch script: the same losses, to the bit, without this program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from autograd_tui.core.command import Phase
from autograd_tui.core.command_log import Recording, Step
from autograd_tui.core.frame import Frame
from autograd_tui.core.optimizer_spec import GroupSpec, LrDecay, OptimizerSpec
from autograd_tui.core.run_config import RunConfig
from autograd_tui.export.loop_finder import LoopPass, LoopProgress, passes
from autograd_tui.export.script_model import BUILT_IN, SURROUNDINGS, OptimizerLines, Setup, setup, state_lines
from autograd_tui.export.script_phases import ANY_BUFFERS, around, comment, phase_lines, remark, setting_lines


def script(recording: Recording, first: Frame, groups: Callable[[str], Sequence[GroupSpec]]) -> str:
    """Write the script. `first`: frame 0, which knows the optimizer that the run begins with.

    groups: tells the parameter groups of an optimizer by its name.
    """
    opening, setting_up = recording.opening, setup(recording.opening)
    run = passes(recording)
    decay = decay_line(opening)
    optimizer = OptimizerLines(None if first.groups is None else groups, decay)
    lines = [*_heading(opening), *_imports(run, setting_up, decay=bool(decay)), *_threads(opening)]
    if setting_up.foreign and _marks(run):
        lines += around(opening)
    if setting_up.foreign and _raises(run, Phase.FORWARD):
        lines += ANY_BUFFERS
    lines += setting_up.build
    lines += optimizer.first(OptimizerSpec.parse(first.optimizer), first.learning_rates)
    lines += state_lines(opening)
    writer = _Loops(setting_up, optimizer)
    for each in run:
        lines += ["", *writer.write(each)]
    return "\n".join(lines) + "\n"


class _Loops:
    """Writes one pass after the other, and knows how far the run has come."""

    def __init__(self, setting_up: Setup, optimizer: OptimizerLines) -> None:
        self._setup, self._optimizer = setting_up, optimizer
        self._progress = LoopProgress()

    def write(self, one: LoopPass) -> list[str]:
        """Write a pass, as a loop where it repeats."""
        start, firsts = self._progress.next_iteration, self._remarks(one)
        if one.times == 1:
            return self._once(one, str(start), firsts)
        counts = self._counts(one)
        body = self._once(one, "{iteration}" if counts else str(start), self._repeated(one, firsts))
        if counts:
            steps = sum(step.command.phase is Phase.STEP and not step.raised for step in one.steps) * (one.times - 1)
            self._progress.iteration += one.times - 1
            self._progress.steps += steps
            self._progress.loss_steps += steps
        head = f"for iteration in range({start}, {start + one.times}):" if counts else f"for _ in range({one.times}):"
        return [head, *(f"    {line}" for line in body)]

    def _counts(self, one: LoopPass) -> bool:
        """Tell whether each pass is an iteration of its own."""
        return any(_measures(step) for step in one.steps) and any(
            step.command.phase is Phase.STEP and not step.raised for step in one.steps
        )

    def _repeated(self, one: LoopPass, firsts: list[str]) -> list[str]:
        """Say for each step what it does every time."""
        after = replace(self._progress)
        for step in one.steps:
            after.take(step)
        later = self._remarks(one, after)
        return [
            said if said == first else f"{said}, after the first time"
            for first, said in zip(firsts, later, strict=True)
        ]

    def _remarks(self, one: LoopPass, start: LoopProgress | None = None) -> list[str]:
        """Say for each step what it does, were the pass to begin at `start`."""
        progress, said = replace(start or self._progress), []
        for step in one.steps:
            said.append(remark(step.command.phase, progress) if step.command.phase else "")
            progress.take(step)
        return said

    def _once(self, one: LoopPass, iteration: str, remarks: list[str]) -> list[str]:
        lines: list[str] = []
        for step, said in zip(one.steps, remarks, strict=True):
            if step.command.phase is None:
                lines += setting_lines(step.command, self._setup, self._optimizer)
            else:
                scheduled = bool(self._optimizer.decay) and self._progress.has_loss
                lines += phase_lines(step, self._setup, said=said, scheduled=scheduled)
            if _measures(step):
                lines.append(f'print(f"iteration {iteration}  loss {{{self._setup.loss}!r}}")')
            self._progress.take(step)
        return lines


def _measures(step: Step) -> bool:
    return step.command.phase is Phase.FORWARD and step.raised is None


def _raises(run: Sequence[LoopPass], phase: Phase) -> bool:
    return any(step.raised and step.command.phase is phase for one in run for step in one.steps)


def _marks(run: Sequence[LoopPass]) -> bool:
    return _raises(run, Phase.FORWARD) or _raises(run, Phase.BACKWARD)


def _heading(opening: RunConfig) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in opening.versions.items())
    lines = [
        f"This run began as: {opening.command_line}",
        f"on {opening.device}, with {versions}: other versions may round differently.",
    ]
    if opening.scenario not in BUILT_IN:
        lines.append(f"{opening.scenario} is imported: run this where it can be found.")
    return list(map(comment, lines))


def _imports(run: Sequence[LoopPass], setting_up: Setup, *, decay: bool) -> list[str]:
    copies = _raises(run, Phase.STEP) or (setting_up.foreign and _raises(run, Phase.FORWARD))
    marks = [SURROUNDINGS] * (setting_up.foreign and _marks(run))
    theirs = [*marks, *setting_up.imports, *["from torch.optim.lr_scheduler import ReduceLROnPlateau"] * decay]
    ours = ["", *(each for each in theirs if "autograd_tui" in each)] if setting_up.foreign else []
    seeds = setting_up.foreign and any(step.command.name == "seed" for one in run for step in one.steps)
    library = ["import copy"] * copies + ["import random"] * seeds
    library += [""] * bool(library) + ["import numpy"] * seeds
    return [
        "",
        *library,
        "import torch",
        *(each for each in theirs if each not in ours),
        *ours,
    ]


def _threads(opening: RunConfig) -> list[str]:
    """Ask for as many threads as the run had: sums of many floats depend on it."""
    if opening.scenario == "linear" and "threads" not in opening.arguments:
        return []
    return ["", f"torch.set_num_threads({opening.threads!r})  # as in the run: sums of many numbers depend on it"]


def decay_line(opening: RunConfig) -> str:
    """Write the line that makes the scheduler; "" where there is none."""
    if (text := opening.arguments.get("decay")) is None:
        return ""
    decay = LrDecay.parse(str(text))
    floor = f", min_lr={decay.min_lr!r}" if decay.min_lr else ""
    return f"scheduler = ReduceLROnPlateau(optimizer, factor={decay.factor!r}, patience={decay.patience!r}{floor})"


def random_modules(opening: RunConfig) -> list[str]:
    """Name the modules of PyTorch that random numbers come from."""
    return ["torch"] if opening.device == "cpu" else ["torch", f"torch.get_device_module({opening.device!r})"]
