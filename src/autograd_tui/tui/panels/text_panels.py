"""The panels of sentences: the status row, the note, what happened, and what the model printed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import prod

from rich.cells import cell_len, chop_cells

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.text.explain import explain, without_reason
from autograd_tui.text.explain_script import message_lines
from autograd_tui.text.frame_summary import status_line
from autograd_tui.text.hidden_results import HiddenResults
from autograd_tui.text.nonfinite import nonfinite_warnings
from autograd_tui.text.story import story
from autograd_tui.text.styled_text import Line, Span, one_line, wrapped
from autograd_tui.text.table.table_rows import shorten_name
from autograd_tui.tui.captured_output import headline, newest_message
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.screen_state import Note

MIN_NAME = 12  # characters of a name that is cut
CONSOLE_ROWS = 3


class StatusPanel(Panel):
    """One row; before the session is open it says what is being opened."""

    DRAWN_FROM = ("frame", "about", "newest", "unkept", "load")

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        view = self.view
        if self.about is None:
            return []
        return [status_line(frame, self.about, view.newest, width, unkept=view.unkept, load=view.load)]

    def cover(self, hidden: HiddenResults, width: int, height: int) -> list[Line]:
        """Draw the row as it is: it holds no results."""
        assert self.frame is not None
        return self.draw(self.frame, width, height)


class NotePanel(Panel):
    """Shows the note, or nothing; a long sentence lies over the panels, but not one that stays."""

    DEFAULT_CSS = "NotePanel { height: auto; }"

    DRAWN_FROM = ("note",)

    def rows_wanted(self) -> int:
        """Take as many rows as the sentence needs."""
        return max(len(self._sentence(self.app.size.width)), 1)

    def lines(self, width: int, height: int) -> list[Line]:
        """Draw the sentence, whether or not there is a frame yet."""
        return self._sentence(width)

    def _sentence(self, width: int) -> list[Line]:
        return [] if self.view.note is None else note_lines(self.view.note, width)


def note_lines(note: Note, width: int) -> list[Line]:
    """Write a note in as many rows as it needs, one that stays in one row."""
    text = one_line(note.text)
    if note.short and cell_len(text) > width - 2:
        text = one_line(note.short)
        text = text if cell_len(text) <= width - 2 else f"{chop_cells(text, width - 3)[0]}…"
    return [[(" ", note.style), *row] for row in wrapped(text, width - 2, style=note.style)]


class ExplanationPanel(Panel):
    """A few sentences about the command that led to this frame, in as many rows as the longest of late has taken."""

    DRAWN_FROM = (*Panel.DRAWN_FROM, "newest_history", "surface")
    DEFAULT_CSS = "ExplanationPanel { height: auto; max-height: 50%; }"
    MIN_ROWS = 4
    WORKED_ROWS = 8  # kept free in the first frames of a model whose gradients are worked out: of two values at most
    RECENT = 12  # frames whose longest text counts: panels below must not jump at each key, nor keep a run's rows

    def __init__(self, *, title: str = "") -> None:
        super().__init__(title=title)
        self._recent: deque[tuple[Frame, int]] = deque(maxlen=self.RECENT)  # each with the rows of its text
        self._width = 0  # at which they were counted

    def rows_wanted(self) -> int:
        """Take the rows of the longest of the latest texts."""
        if self._width != self.offered_width:
            self._recent.clear()
            self._width = self.offered_width
        if self.frame is None:
            return self.MIN_ROWS
        rows = len(self.lines(self.offered_width, 0))
        if self._recent and self._recent[-1][0] is self.frame:
            rows = max(rows, self._recent.pop()[1])  # a veil has covered it
        self._recent.append((self.frame, rows))
        is_new = len(self._recent) < self.RECENT
        least = self.WORKED_ROWS if is_new and _is_worked_out(self.frame) else self.MIN_ROWS
        return max(least, *(rows for _, rows in self._recent))

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw sentences wrapped, arithmetic set off, an error in its own colour."""
        if self.about is None:
            return []
        warnings = 1 if frame.error else len(nonfinite_warnings(frame))  # sentences that come first
        sentences = [
            (
                sentence,
                "error" if index < warnings else "strong" if sentence.startswith("  ") and sentence[2] != " " else "",
            )
            for index, sentence in enumerate(explain(frame))
        ]
        # The story stands behind the arithmetic, before what is the same each time.
        arithmetic = [index for index, (sentence, _) in enumerate(sentences) if sentence.startswith("  ")]
        at = arithmetic[-1] + 1 if arithmetic else 0 if frame.phase is Phase.ZERO_GRAD else warnings + 1
        sentences[at:at] = story(frame, self.view.newest_history, self.view.surface)
        if height > 0:
            raised = message_lines(frame.error) if frame.error else []
            sentences = _fitting(sentences, width, height, but=raised)
        lines = wrapped_sentences(sentences, width)
        if len(lines) > height > 0:
            (text, style), *_ = lines[height - 1]
            lines[height - 1] = [(f"{text[: width - 2].rstrip('.')} …", style)]  # there is more to say
        return lines

    def cover(self, hidden: HiddenResults, width: int, height: int) -> list[Line]:
        """Ask in place of an answer."""
        return wrapped(hidden.question, width, style="strong")


def _fitting(sentences: list[Span], width: int, height: int, *, but: Sequence[str] = ()) -> list[Span]:
    """Leave out sentences until the others fit: from the end what is the same each time, then arithmetic of two rows.

    Of the steps of a calculation, set in by four, all that are of the same parameter go. What introduces rows stays,
    and what is in `but`.
    What then fits after all comes back, or at least what it says before its colon.
    """
    same = [text for text, style in reversed(sentences) if not style and not text.endswith(":") and text not in but]
    long = [
        each[0]
        for each in reversed(sentences)
        if each[0].startswith("  ") and len(wrapped_sentences([each], width)) > 1
    ]
    spare: list[set[str]] = []
    for text in [*same, *long]:
        name = text.split()[0] if text.startswith("    ") else None
        steps = {each for each, _ in sentences if each.startswith("    ") and each.split()[0] == name}
        spare.append(steps or {text})
    left_out: list[set[str]] = []

    def kept(but: Sequence[set[str]], short: Sequence[str] = ()) -> list[Span]:
        shown = [span for span in sentences if span[0] in short or not any(span[0] in texts for texts in but)]
        return [(without_reason(text), style) if text in short else (text, style) for text, style in shown]

    for texts in spare:
        if len(wrapped_sentences(kept(left_out), width)) <= height:
            break
        left_out.append(texts)
    for texts in reversed(left_out):
        others = [each for each in left_out if each is not texts]
        if len(wrapped_sentences(kept(others), width)) <= height:
            left_out = others
    short: list[str] = []
    for text in (text for texts in reversed(left_out) for text in texts if without_reason(text)):
        if len(wrapped_sentences(kept(left_out, [*short, text]), width)) <= height:
            short.append(text)
    return kept(left_out, short)


def _is_worked_out(frame: Frame) -> bool:
    shapes = frame.params.layout.shapes
    return len(shapes) <= 2 and sum(map(prod, shapes)) <= 2


def wrapped_sentences(sentences: Sequence[Span], width: int) -> list[Line]:
    """Break sentences into rows; of arithmetic that needs more than one, what it means is left out."""
    lines: list[Line] = []
    for sentence, style in sentences:
        indent = sentence[: len(sentence) - len(sentence.lstrip())]
        if indent and len(sentence) > width:
            worked = sentence.partition(": ")[0]
            sentence = worked if "=" in worked or "→" in worked else _with_short_name(sentence, width)
        rows = wrapped(sentence, width, style=style, indent=indent)
        lines += [[(text.replace("\N{NO-BREAK SPACE}", " "), style) for text, style in row] for row in rows]
    return lines


def _with_short_name(sentence: str, width: int) -> str:
    """Cut the beginning of the longest name where the sentence then fits into a row."""
    name = max(sentence.split(), key=len)
    room = len(name) - (len(sentence) - width)
    return sentence.replace(name, shorten_name(name, room)) if room >= MIN_NAME else sentence


class ConsolePanel(Panel):
    """The last lines, the newest at the bottom; of one that is longer than the panel its beginning."""

    DRAWN_FROM = ("printed",)

    def rows_wanted(self) -> int:
        """Ask for the same rows, however much is printed: the panels around stay where they are."""
        return CONSOLE_ROWS

    def is_text(self) -> bool:
        """Leave to pictures the rows that are left over."""
        return True

    def lines(self, width: int, height: int) -> list[Line]:
        """Draw as many as fit, whether or not there is a frame."""
        printed = self.view.printed
        start = newest_message(printed)
        newest = list(islice(_rows(printed[start:], width), height + 1))
        if len(newest) <= height:
            return [*_rows(printed[max(start - height, 0) : start], width), *newest][-height:]
        first = list(islice(_rows([headline(printed[start]), *printed[start + 1 :]], width - 2), height + 1))
        return first if len(first) <= height else [*first[: height - 1], [*first[height - 1], (" …", "")]]


def _rows(lines: Iterable[str], width: int) -> Iterator[Line]:
    for line in lines:
        if cell_len(line) == len(line):
            yield from wrapped(line, width) or [[]]
        else:  # characters that take two cells, or none
            yield from ([(row, "")] for row in chop_cells(line, width))
