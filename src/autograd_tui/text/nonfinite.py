"""NaN and infinity in loss, gradients and parameters: said first, shown as errors."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.core.tensor_stats import NONFINITE_COLUMN, ROW_WIDTH, StatsTable
from autograd_tui.text.numbers import number

MAX_NAMED_TENSORS = 4  # tensors that are called by their names
_SHOWN = re.compile(r"(?<![\w.])[-+]?(NaN|inf)(?![\w.])")


def number_style(value: float | None, otherwise: str = "") -> str:
    """Return the style of a number: an error where it is NaN or infinite."""
    return otherwise if value is None or math.isfinite(value) else "error"


def shows_nonfinite(text: str) -> bool:
    """Return whether a number written in a text is NaN or infinite."""
    return _SHOWN.search(text) is not None


def nonfinite_warnings(frame: Frame) -> list[str]:
    """Return sentences on what is NaN or infinite, and what to press; nothing where all is finite."""
    wrong = frame.loss is not None and not math.isfinite(frame.loss)
    sentences = [f"The loss is {_value_words(frame.loss)}." for _ in range(wrong)]
    harmless = frame.frozen if frame.loss is not None and not wrong else ()  # a mask of infinities, as a rule
    if params := _holders(frame.params, but=harmless):
        way_back = "" if frame.script else ": u undoes one command a press, g goes back further"
        sentences.append(f"{params}{way_back}.")
    elif grads := _holders(frame.grads.table, ending=".grad"):
        if frame.script is not None:
            scaled = frame.script.scaled_loss is not None or (frame.command and frame.command.name == "unscale")
            return [*_in_words(sentences), _gradients_of_a_script(grads, frame.script, scaled=bool(scaled))]
        sentences.append(f"{grads}: a step would put that into the parameters. {_how_to_trace(frame, Phase.BACKWARD)}")
    elif wrong and frame.loss_params is not None and (then := _holders(frame.loss_params)):
        sentences.append(f"When it was measured, {then}: forward measures it anew.")
    elif wrong:
        how = "" if frame.script else f" {_how_to_trace(frame, Phase.FORWARD)}"
        sentences.append(f"All parameters were finite: it was made on the way.{how}")
    return _in_words(sentences)


def _in_words(sentences: list[str]) -> list[str]:
    return [" ".join(sentences)] if sentences else []


def _gradients_of_a_script(grads: str, stop: ScriptStop, *, scaled: bool) -> str:
    """Return a sentence on what comes of gradients that are not finite, as far as that is known of a script."""
    if stop.skipped:
        return f"{grads}: that is why the step was left out."
    if scaled:
        return f"{grads}: GradScaler leaves a step out for that, and makes its scale smaller."
    return f"{grads}: a step with that would put it into the parameters."


def _how_to_trace(frame: Frame, phase: Phase) -> str:
    """Return a sentence on which keys lead inside the phase that made it."""
    if frame.phase is phase:
        return f"u, then i, leads inside this {phase.value}, to where it began."
    return f"← to the {phase.value}, then i, leads inside, to where it began."


def _value_words(value: float | None) -> str:
    return "NaN, not a number" if value is None or math.isnan(value) else f"infinite ({number(value)})"


def _holders(table: StatsTable, *, but: Collection[int] = (), ending: str = "") -> str:
    """Name the tensors that hold NaN or infinity: "w and b hold NaN"; "" where none does."""
    counts = zip(table.numbers[NONFINITE_COLUMN::ROW_WIDTH], table.layout.measurable, strict=True)
    indices = [index for index, (count, measurable) in enumerate(counts) if measurable and count and index not in but]
    if not indices:
        return ""
    kinds = {"NaN" if math.isnan(table.numbers[index * ROW_WIDTH]) else "infinity" for index in indices}
    names = [f"{table.layout.names[index]}{ending}" for index in indices]
    listed = " and ".join(names) if len(names) <= 2 else ", ".join(names)
    listed = listed if len(names) <= MAX_NAMED_TENSORS else f"{len(names)} {'gradients' if ending else 'parameters'}"
    return f"{listed} {'holds' if len(names) == 1 else 'hold'} {' or '.join(sorted(kinds))}"
