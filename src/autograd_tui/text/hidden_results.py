"""The veil: a frame as far as it is known already, and the question to ask before the rest is shown."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from math import nan

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import MAX_LISTED_VALUES, ROW_WIDTH, StatsTable, TensorStats
from autograd_tui.text.numbers import short
from autograd_tui.text.styled_text import Line, plain

COVER = "▒"
WORD = re.compile(r"\w\w|^[\w→▲▼]$|\|")  # also the bar of a number with a sign, from its axis
BAR_CHARACTERS = set("█▏▎▍▌▋▊▉◀|▶")
MAX_NAMED_VALUES = 4  # numbers that a sentence may hold
QUESTIONS = {  # by phase, one for each stage
    Phase.FORWARD: (
        "forward has run. What does it predict? space shows the prediction.",
        "How far off is that prediction, how large is the loss? space shows it.",
    ),
    Phase.BACKWARD: ("backward has run. Which sign has each gradient, and which one is larger? space shows them.",),
    Phase.STEP: ("step has run. Which way did each parameter move, and how far? space shows it.",),
}
STAGES = max(map(len, QUESTIONS.values()))  # from this one on, nothing is hidden


@dataclass(frozen=True, slots=True, eq=False)
class HiddenResults:
    """What may be shown of a frame, and what to ask about the rest."""

    known: Frame
    question: str


def hide_results(frame: Frame, stage: int) -> HiddenResults | None:
    """Hide what a frame's phase has brought, from `stage` 0 on; None where nothing is hidden any more."""
    questions = QUESTIONS.get(frame.phase, ()) if frame.phase and not frame.error else ()
    if stage >= len(questions):
        return None
    return HiddenResults(visible_part(frame, stage), questions[stage].replace("that prediction", _prediction(frame)))


def _prediction(frame: Frame) -> str:
    """Write the few numbers predicted: a small screen shows them nowhere else."""
    values = frame.prediction.values if frame.prediction else None
    if not values or len(values) > MAX_NAMED_VALUES:
        return "that prediction"
    return f"the prediction {', '.join(map(short, values))}"


def visible_part(frame: Frame, stage: int) -> Frame:
    """Return the frame with NaN for every number that is still hidden at this stage."""
    if frame.phase is Phase.BACKWARD:
        return replace(frame, grads=replace(frame.grads, table=_blank_table(frame.grads.table)))
    if frame.phase is Phase.STEP:
        moves = array("d", [nan] * len(frame.moves)) if frame.moves else None
        state = _blank_table(frame.optimizer_state)
        return replace(frame, params=_blank_table(frame.params), moves=moves, optimizer_state=state)
    metrics = tuple((name, nan) for name, _ in frame.metrics)
    unmeasured = replace(frame, loss=None if frame.loss is None else nan, metrics=metrics)
    if stage:
        return unmeasured
    prediction = frame.prediction and _blank_row(frame.prediction)
    top = tuple((index, nan, target) for index, _, target in frame.top)
    return replace(unmeasured, prediction=prediction, top=top, buffers=_blank_table(frame.buffers))


def cover_hidden(lines: list[Line], known_lines: list[Line]) -> list[Line]:
    """Cover what is not the same in both, in the lines as they truly are: all but words where nothing stood.

    What stands elsewhere in a row, since a column has another width, is the same too, if it is no part of a drawing.
    """
    known_texts = [plain(line) for line in known_lines] + [""] * len(lines)
    return [_cover(line, known_text) for line, known_text in zip(lines, known_texts, strict=False)]


def _cover(line: Line, known_text: str) -> Line:
    text = plain(line)
    covers: dict[int, str] = {}
    words = list(re.finditer(r"\S+", text))
    same = _same_words([word[0] for word in words], known_text.split())
    for index, word in enumerate(words):
        instead = known_text[word.start() : word.end()]
        if index not in same and instead != word[0] and (instead.strip() or not word[0].isalpha()):
            bar = set(word[0]) <= BAR_CHARACTERS  # whose length and side would tell
            covers |= dict.fromkeys(range(*word.span()), " " if bar else COVER)
    styles = [style for span, style in line for _ in span]
    return [
        (covers[at], "dim") if at in covers else (character, style)
        for at, (character, style) in enumerate(zip(text, styles, strict=True))
    ]


def _same_words(words: Sequence[str], known: Sequence[str]) -> set[int]:
    """Return the indices of the words that come in both rows in the same order, but for parts of drawings."""
    blocks = SequenceMatcher(None, words, known, autojunk=False).get_matching_blocks()
    indices = {index for block in blocks for index in range(block.a, block.a + block.size)}
    return {index for index in indices if WORD.search(words[index])}


def _blank_table(table: StatsTable) -> StatsTable:
    """Return a table of the same tensors without their numbers."""
    numbers = array("d")
    for row in table:
        listed = row.size <= MAX_LISTED_VALUES
        numbers.extend([nan, nan, nan, 0, nan, nan, *([nan if listed else 0.0] * (ROW_WIDTH - 6))])
    return StatsTable(table.layout, numbers)


def _blank_row(row: TensorStats) -> TensorStats:
    values = row.values and (nan,) * len(row.values)
    return replace(row, norm=nan, min=nan, max=nan, mean=nan, std=nan, values=values, histogram=None)
