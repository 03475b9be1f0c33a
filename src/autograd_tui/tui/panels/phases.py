"""The four phases: which one ran, which one is next, and the key number of each."""

from __future__ import annotations

import math

from textual import events
from textual.message import Message

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.phase_order import next_phase
from autograd_tui.core.run_config import size_in_words
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.core.tensor_stats import SAMPLE_SIZE
from autograd_tui.text.nonfinite import shows_nonfinite
from autograd_tui.text.numbers import duration, measured, number
from autograd_tui.text.script_lines import call_rows, cut_call_rows, numbers_with_room
from autograd_tui.text.story import losses_of
from autograd_tui.text.styled_text import Line, Span, justified, length, plain
from autograd_tui.text.table.gradient_status import norm_over
from autograd_tui.tui.panels.panel import Panel

MAX_NUMBER = 18  # characters of a number below a script's call
MOST_NAMED = 2  # parameters whose own numbers are written, in place of a norm
CELL = max(len(phase.value) + 2 for phase in Phase) + 2
NARROW = 3 * (CELL + 3) + CELL - 1  # columns below which each phase has only as many as its name needs


class PhasesPanel(Panel):
    """forward → backward → STEP → zero_grad, and a number under each."""

    DRAWN_FROM = (*Panel.DRAWN_FROM, "newest_history", "calls", "ended")

    DEFAULT_CSS = "PhasesPanel { height: 2; }"

    class Clicked(Message):
        """The mouse has chosen a phase."""

        def __init__(self, phase: Phase) -> None:
            super().__init__()
            self.phase = phase

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        if frame.script is not None:
            return self._draw_script(frame, frame.script, width)
        next_one = next_phase(frame)
        if width < NARROW:
            return self._draw_narrow(frame, next_one, width)
        hint: Line = [("space: ", "dim"), (next_one.value if self.view.hidden is None else "show", "strong"), (" ", "")]
        names, numbers = self._columns(frame, next_one, room=width - length(hint) - 1)
        (last, style), used = numbers[-1], length(numbers[:-1])
        taken = next((each for each in _taken(frame) if used + len(last.rstrip()) + len(each) < width), "")
        if taken:
            numbers = justified([*numbers[:-1], (last.rstrip(), style)], [(taken, "dim")], width)
        return [justified(names, hint, width), numbers]

    def _draw_script(self, frame: Frame, stop: ScriptStop, width: int) -> list[Line]:
        """Draw the kinds of calls that a script makes: what it does next is known to nobody before it does it."""
        next_one = "next stop" if frame.error is None else "its end"
        hint: Line = [("it has ended ", "dim")]
        if not self.view.ended:
            hint = [("space: ", "dim"), (next_one, "strong"), (" ", "")]
        numbers = {phase.value: key_number(frame, phase, MAX_NUMBER) for phase in Phase}
        change = self._loss_change(frame, MAX_NUMBER + 8) if frame.phase is Phase.FORWARD and not frame.error else ""
        numbers["forward"] += change
        room = width - length(hint) - 1
        names, below = call_rows(frame, stop, self.view.calls, room, numbers)
        if length(names) > room:
            names, below = cut_call_rows(frame, stop, self.view.calls, width, numbers)
        taken = next((each for each in _taken(frame) if length(below) + len(each) < width), "")
        return [justified(names, hint, width), justified(below, [(taken, "dim")], width)]

    def on_click(self, event: events.Click) -> None:
        """Post which phase was clicked; the words at the end of the row press their key."""
        offset = self.under(event)
        names = "" if offset is None or self.frame is None else plain(self.lines(self.content_size.width, 2)[0])
        hint = names.rfind("space: ")
        if offset is not None and 0 <= hint <= offset.x and not offset.y:
            self.post_message(self.KeysClicked(["space"]))
            return
        for phase in Phase:
            start = names.lower().find(phase.value)
            if offset is not None and start - 1 <= offset.x <= start + len(phase.value) and start >= 0:
                self.post_message(self.Clicked(phase))
                return

    def _draw_narrow(self, frame: Frame, next_one: Phase, width: int) -> list[Line]:
        """Draw all four phases close together; a number that would reach below another one is left out."""
        labels = [_label(frame, phase, next_one) for phase in Phase]
        arrow = "─" * ((width - 1 - length(labels)) // 3 - 2) + "▶"
        names: Line = [(" ", "")]
        starts: dict[str, int] = {}
        for phase, label in zip(Phase, labels, strict=True):
            starts[phase.value] = length(names) + 1
            names += [label, ("" if phase is Phase.ZERO_GRAD else f"{arrow} " if len(arrow) > 1 else arrow, "dim")]
        texts = {phase.value: key_number(frame, phase, MAX_NUMBER) for phase in Phase}
        if frame.phase is Phase.FORWARD and not frame.error:
            texts["forward"] += self._loss_change(frame, MAX_NUMBER + 8)
        present = frame.phase.value if frame.phase else None
        return [names, numbers_with_room(starts, texts, width, present, raised=frame.error is not None)]

    def _columns(self, frame: Frame, next_one: Phase, *, room: int) -> tuple[Line, Line]:
        stretch = min(max((room - 1) // 4, CELL + 3), 24)
        names: Line = [(" ", "")]
        numbers: Line = [(" ", "")]
        for phase in Phase:
            ran = frame.phase is phase
            label, style = _label(frame, phase, next_one)
            arrow = "" if phase is Phase.ZERO_GRAD else "─" * max(stretch - len(label) - 2, 1) + "▶ "
            names += [(label, style), (arrow, "dim")]
            room = stretch - 2 if phase is not Phase.ZERO_GRAD else 0
            number_text = f" {key_number(frame, phase, room):<{stretch - 1}}"
            if ran and phase is Phase.FORWARD and not frame.error:
                number_text = f" {key_number(frame, phase, room)}{self._loss_change(frame, room)}".ljust(stretch)
            wrong = (ran and frame.error) or shows_nonfinite(number_text) or (ran and "▲" in number_text)
            numbers.append((number_text, "error" if wrong else "" if ran else "dim"))
        return names, numbers

    def _loss_change(self, frame: Frame, room: int) -> str:
        """Write how a loss that was just measured compares with the one before, in as many characters as there are."""
        losses = losses_of(frame, self.view.newest_history)
        if losses is None or losses[0].value == losses[1].value:
            return ""
        before, now = (each.value for each in losses)
        sign, share = "▲" if now > before else "▼", abs(now - before) / before if before > 0 else math.inf
        left = room - len(key_number(frame, Phase.FORWARD, room))
        forms = (f" {sign}{share:.1%}" if 0.0005 <= share < 10 else f" {sign}", f" {sign}", "")
        return next(each for each in forms if len(each) <= left or not each)


def _label(frame: Frame, phase: Phase, next_one: Phase) -> Span:
    """Return the name of a phase: in capitals where it led to the frame, strong where it is the next."""
    if frame.phase is phase:
        return f"▌{phase.value.upper()}▐", "error" if frame.error else "now"
    return f" {phase.value} ", "strong" if phase is next_one else "dim"


def key_number(frame: Frame, phase: Phase, room: int) -> str:
    """Return the one number that a phase is about, with its age; "" where it does not fit."""
    if frame.error is not None and frame.phase is phase:
        return "raised"
    if phase is Phase.FORWARD and frame.loss is not None:
        return f"loss {number(frame.loss)}{' old' if frame.loss_is_old else ''}"
    if phase is Phase.BACKWARD and (frame.grads.state != "none" or (frame.script and any(frame.grads.backwards))):
        few = frame.grads if len(frame.grads) <= MOST_NAMED else ()
        each = [(f"d{row.name}", row.values[0]) for row in few if row and row.size == 1 and row.values]
        return _short(each, len(frame.params), room) or f"|grad| {norm_over(frame.grads.table)}"
    if phase is Phase.STEP and frame.before is not None and frame.mover and frame.mover.phase is Phase.STEP:
        pairs = zip(frame.before, frame.params, strict=True) if len(frame.params) <= MOST_NAMED else ()
        each = [(n.name, n.values[0] - o.values[0]) for o, n in pairs if n.size == 1 and n.values and o.values]
        return _short(each, len(frame.params), room) or _move(frame)
    return ""


def _taken(frame: Frame) -> list[str]:
    """Return how long the phase took and what it left in memory, as far as that was measured: the longest first."""
    if not frame.seconds:
        return [] if frame.memory is None else [f"{size_in_words(frame.memory)} held "]
    time = f"took {duration(frame.seconds)} "
    return [*([] if frame.memory is None else [f"{time.rstrip()}, {size_in_words(frame.memory)} held "]), time]


def _move(frame: Frame) -> str:
    estimated = any(math.prod(shape) > SAMPLE_SIZE for shape in frame.params.layout.shapes)
    known = [way for way in frame.move_norms or () if way is not None]
    moved = math.hypot(*known) if known else None
    partly = len(known) < len(frame.params)
    least = "≥" * (partly and moved is not None)
    return f"|move| {least}{measured(moved, sampled=estimated)}" if frame.moves else ""


def _short(each: list[tuple[str, float]], parameters: int, room: int) -> str:
    """Write the numbers of a few parameters side by side as panels do, with as many digits as fit."""
    if len(each) != parameters:
        return ""
    written = (
        " ".join(f"{name} {number(value, signed=True, digits=digits)}" for name, value in each) for digits in (4, 3, 2)
    )
    return next((text for text in written if len(text) <= room), "")
