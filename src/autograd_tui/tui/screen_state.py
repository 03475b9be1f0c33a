"""What the main screen shows and remembers, without Textual."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.errors import Refused, clipped
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.history import History
from autograd_tui.core.loss_surface import LossSurface
from autograd_tui.core.picture import Picture
from autograd_tui.core.session_protocol import DeviceLoad, Interruption, SessionInfo
from autograd_tui.core.tensor_stats import Inspection
from autograd_tui.text.hidden_results import STAGES, HiddenResults, hide_results
from autograd_tui.text.messages import progress_line, script_runs_line
from autograd_tui.text.numbers import duration
from autograd_tui.text.plot_view import USUAL, PlotView
from autograd_tui.text.script_lines import learn_order
from autograd_tui.text.styled_text import one_line
from autograd_tui.text.table.layers import (
    MAX_PARAMETER_ROWS,
    Layers,
    ParameterColumns,
    TableView,
    find_parameter,
    list_rows,
    move_cursor,
)
from autograd_tui.text.trace.trace_position import TracePosition
from autograd_tui.tui.captured_output import CapturedOutput, headline, newest_message
from autograd_tui.tui.requests import Inspect, Look, Place, Train, Training
from autograd_tui.tui.run_speed import pace_in_words, speed_in_words
from autograd_tui.tui.trainer_status import SCRIPT_RUNS, Status, Update

MIN_PLOT_SECONDS, MAX_PLOT_SECONDS = 0.09, 1.0  # between the plots of a run
MIN_PLOT_GROWTH = 0.02  # of a run, from which on it shows: a column of fifty
SILENCE = 3.0  # seconds without a new frame before a run is said to wait for one
MAX_PRINTED_WIDTH = 160  # characters of what was printed, in the note
PATIENCE = 0.25  # seconds before a phase that still runs is said to run
QUITS_NEXT = "ctrl+c once more quits"
INTERRUPTS_NEXT = "ctrl+c once more interrupts it"
STOPS = f"stops after what runs now; {INTERRUPTS_NEXT}"


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence above the last row, its style, and of one that stays what is said of it in a single row."""

    text: str
    style: str = ""
    short: str = ""  # in place of a text that needs more than a row, cut where it needs more itself; "": rows as needed


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """All that the panels of a screen draw; a panel redraws when a field that it reads is another object."""

    frame: Frame | None = None
    about: SessionInfo | None = None
    newest: int = 0  # the index of the branch's last frame
    history: History | None = None  # to be plotted: in a run it may lag behind the frame
    newest_history: History | None = None
    surface: LossSurface | None = None  # over the model's two parameter values
    pictures: tuple[Picture, ...] = ()  # of what the model has learned, the newest last
    branches: tuple[Branch, ...] = ()  # the runs that were left
    table: TableView = field(default_factory=TableView)
    inspection: Inspection | None = None  # exact numbers of the parameter that enter was pressed on last
    hidden: HiddenResults | None = None  # what the veil covers of the frame
    log_scale: bool = False
    plot: PlotView = field(default_factory=PlotView)
    sample: int = 0  # of the batch, whose largest outputs are shown
    printed: tuple[str, ...] = ()  # the last lines that the model printed
    note: Note | None = None
    unkept: str = ""  # a word in the status row while the run is not kept on disk
    load: DeviceLoad | None = None  # what is in use of the device now
    ended: bool = False  # whether a script runs no more
    calls: tuple[str, ...] = ()  # the kinds of calls that a script's loop was seen to make, in its order
    trace_position: TracePosition | None = None  # on the trace screen
    gradcheck: GradCheck | None = None  # of the operation at hand


class ScreenState:
    """What the main screen remembers between two keys, and the view that follows from it.

    Methods change the state and leave a new `view`; whoever owns the state hands that to the panels.
    """

    def __init__(self) -> None:
        self.view = View()
        self.status = Status(None, 0.0)  # of the trainer thread, as it was drawn last
        self.commands = CommandLog()  # that led to the latest frame
        self.latest: Frame | None = None  # where training stands
        self.looking: int | None = None  # the frame looked at, where it is not the latest
        self.pending_looks: tuple[Look, ...] = ()  # asked for since the last command, and not answered yet
        self.traced: int | None = None  # the frame whose phase was walked through last; a command clears it
        self.count = ""  # the digits typed so far, for the next key
        self.greeting: str | None = None  # shown with the first update
        self.dropped_keys: Note | None = None  # shown until the next key
        self.interrupted = False  # ctrl+c was pressed, and nothing was asked for since
        self.script_interrupted = False  # so was the script by then, as it had come to no stop
        self.quits_next = False  # whether ctrl+c once more quits, as was said
        self.veiled = False  # whether new numbers are covered until space shows them
        self.stage = 0  # how much of the latest frame has been uncovered
        self._plot_time = 0.0
        self._patience: Note | None = None  # the last note about something that takes long

    def change(self, **fields: Any) -> None:
        """Replace fields of the view."""
        self.view = replace(self.view, **fields)

    # What a key asks for.

    def take_count(self) -> int:
        """Return the count typed before a key, by default 1, and forget it."""
        count, self.count = int(self.count or 1), ""
        return count

    def train(self, what: Training, *, pauses: bool = False) -> Train:
        """Return the request to train from the frame looked at, which the next update replaces by the latest."""
        request = Train(what, self.start, self.take_count(), pauses=pauses)
        self.looking, self.pending_looks, self.traced = None, (), None
        self.forget_interrupts()
        return request

    def forget_interrupts(self) -> None:
        """Have ctrl+c begin anew."""
        self.interrupted = self.script_interrupted = self.quits_next = False

    @property
    def start(self) -> Place:
        """The frame that a key goes on from: the one looked at, or where training stands when the key's turn comes."""
        if self.pending_looks:
            return "looked at"
        return "here" if self.looking is None else self.looking

    @property
    def run_in_sight(self) -> bool:
        """Whether a run has been on the screen for long enough to be meant by a key."""
        return self.status.run is not None and monotonic() - self.status.run_since > PATIENCE

    # What the trainer thread answers.

    def begin(self, sentence: str) -> None:
        """Show what is being opened, until that is there or there is something else to say."""
        self._patience = Note(sentence, "accent")
        self.change(note=self._patience)

    def open(self, about: SessionInfo, update: Update) -> None:
        """Show a session that was just opened."""
        self.commands, self.latest, self.looking, self.pending_looks = update.log, update.frame, None, ()
        self.change(
            about=about,
            frame=update.frame,
            newest=update.newest,
            history=update.history,
            newest_history=update.history,
            surface=None,
            pictures=(),
            branches=update.branches,
            table=TableView(),
            plot=PlotView(tuple(name for name in self.view.plot.names if name in USUAL) or ("loss",)),
            sample=0,
            inspection=None,
            note=None if self.is_patient else self.view.note,
            unkept=update.unkept,
            calls=learn_order((), None, update.frame),
        )

    def take(self, update: Update) -> None:
        """Show what an update brings: the latest frame, or the one that a look was answered with."""
        request = update.request
        inspection = self.view.inspection if self.latest is update.frame else None
        if isinstance(request, Inspect):
            inspection = request.inspection
        if self.latest is not update.frame:
            self.stage = STAGES if update.goes_on else 0  # questions would stop a run
        calls = learn_order(self.view.calls, self.latest, update.frame)
        self.latest, self.commands = update.frame, update.log
        self.change(
            calls=calls,
            newest=update.newest,
            history=self._next_history(update),
            newest_history=update.history,
            branches=update.branches,
            inspection=inspection,
            unkept=update.unkept,
        )
        if any(look is request for look in self.pending_looks):
            assert isinstance(request, Look)
            self.pending_looks = self.pending_looks[1:]
            if request.frame is not None:
                self.show_frame(request.frame)
        if self.looking is None:
            self.show_frame(update.frame)

    def update_note(self, update: Update) -> Note | None:
        """Return what an update has to say: a refusal or a warning first, and an answer behind it.

        The greeting is said with the first update that has nothing else to say.
        """
        sentence = getattr(update.request, "sentence", None)
        if update.refused:
            return Note(update.refused, "warn")
        if update.warning and self.view.hidden is not None and f"frame {update.frame.index}: " in update.warning:
            place = update.warning.partition(": ")[0]
            return Note(f"{place}, where what is watched holds: space shows the numbers", "warn")
        if update.warning:
            return Note(f"{update.warning} {sentence}" if sentence else update.warning, "warn")
        if not sentence:
            sentence, self.greeting = self.greeting, None
        return Note(sentence, "accent") if sentence else None

    def _next_history(self, update: Update) -> History:
        """Return the history to plot; during a run only where a change shows, since plotting is slow."""
        now, plotted = monotonic(), self.view.history
        if update.goes_on and plotted is not None:
            visible = update.history.loss.share_since(plotted.loss) > MIN_PLOT_GROWTH
            if now - self._plot_time < (MIN_PLOT_SECONDS if visible else MAX_PLOT_SECONDS):
                return plotted
        self._plot_time = now
        return update.history

    # Which frame is shown, and how much of it.

    def show_frame(self, frame: Frame) -> None:
        """Show a frame, which may be the latest."""
        latest = self.latest is not None and frame.index == self.latest.index
        self.looking = None if latest else frame.index
        self.change(frame=self.latest if latest else frame)
        self._cover()

    def _cover(self) -> None:
        """Cover the results of the latest frame that have not been asked for yet."""
        covered = self.veiled and self.looking is None and self.view.frame is not None
        self.change(hidden=hide_results(self.view.frame, self.stage) if covered and self.view.frame else None)

    def toggle_veil(self) -> None:
        """Cover new results from now on, or show all; what is on the screen already stays."""
        self.veiled, self.stage = not self.veiled, STAGES
        self._cover()

    def lift_veil(self) -> None:
        """Show the next part of what is covered."""
        self.stage += 1
        self._cover()

    # The samples of the batch.

    def show_sample(self, sample: int) -> None:
        """Show the outputs of another sample, counted from 0; raises Refused where they are not known."""
        frame = self.view.frame
        known = frame.top_samples if frame is not None else 0
        if known < 2:
            raise Refused("there are no outputs of another sample to show here.")
        if not 0 <= sample < known:
            raise Refused(f"the outputs of samples 1 to {known} are known.")
        self.change(sample=sample)

    # The table of parameters.

    def select_row(self, by: int) -> None:
        """Move the cursor of the table by so many rows."""
        layers, columns = self._table()
        rows = list_rows(layers, columns, self.view.table)
        self.change(table=move_cursor(self.view.table, rows, by))

    def sort_table(self, column: str) -> None:
        """Sort the table by a column, "model" for the model's order; raises Refused where it has few rows."""
        frame = self.view.frame
        if frame is not None and len(frame.params) <= MAX_PARAMETER_ROWS:
            raise Refused(f"a table of {len(frame.params)} rows stays in the model's order.")
        self.change(table=replace(self.view.table, column=column))

    def find_parameter(self, text: str) -> None:
        """Move the cursor to the next parameter with `text`, or what was looked for last, in its name; else Refused."""
        text = text or self.view.table.search
        if not text or self.view.frame is None:
            raise Refused("give a part of a parameter's name behind the /.")
        layers, columns = self._table()
        table = find_parameter(layers, columns, self.view.table, text)
        if table is None:
            raise Refused(f'no parameter has "{clipped(text)}" in its name.')
        self.change(table=table)

    def _table(self) -> tuple[Layers, ParameterColumns]:
        assert self.view.frame is not None
        return Layers.of(self.view.frame.params.layout.names), ParameterColumns.of(self.view.frame)

    @property
    def gone_back(self) -> bool:
        """Whether there are frames after the one where training stands."""
        return self.latest is not None and self.latest.index != self.view.newest

    # The note: what the frame does not show.

    def say(self, note: Note | None, status: Status, output: CapturedOutput) -> None:
        """Show a note; without one, the note of the mode the screen is in."""
        self.status = status
        self.change(note=note or self._mode(status, output), ended=status.can.ended)

    def _mode(self, status: Status, output: CapturedOutput) -> Note | None:
        if self.dropped_keys is not None:
            return self.dropped_keys
        if self.count:
            return Note(f"{self.count}_", "accent")
        waiting = self.waiting_note(status, output)
        if status.progress is not None and waiting:
            return waiting
        if self.looking is not None:
            on = "a command goes on from here, " if status.can.run and not status.can.script else ""
            return Note(f"frame {self.looking} of {self.view.newest}: {on}escape returns", "now")
        if status.run is not None:
            return Note(*self._run_sentences(status, status.run, output))
        if waiting:
            return waiting
        if status.notice:
            last = next((line for line in reversed(self.view.printed) if line.strip()), "")
            if self.view.ended and last:
                sentence = f"{status.notice} Its last line: {one_line(headline(last), MAX_PRINTED_WIDTH)}"
                return Note(sentence, "accent", sentence)
            return Note(status.notice, "accent")
        if self.gone_back:
            assert self.latest is not None
            return _gone_back_note(self.latest)
        return self._veil_note() or self._printed_note(output)

    def waiting_note(self, status: Status, output: CapturedOutput) -> Note | None:
        """Return what has run for longer than a moment, with its progress where that is known."""
        if not status.busy or monotonic() - status.since < PATIENCE:
            return None
        if status.progress is not None:
            text = progress_line(status.progress, monotonic() - status.since)
        elif status.busy == SCRIPT_RUNS:
            text = self._script_runs(status.silent, output)
        else:
            bar = output.unfinished(status.since)  # of a download, say
            text = f"{f'{bar} so far' if bar else status.busy}: {duration(monotonic() - status.since)}"
        self._patience = Note(text + _queue_words(status), "accent")
        return self._patience

    def _script_runs(self, seconds: float, output: CapturedOutput) -> str:
        title = self.view.about.title if self.view.about is not None else "the script"
        return script_runs_line(title, seconds, output.unfinished(monotonic() - seconds))

    def _run_sentences(self, status: Status, goal: str, output: CapturedOutput) -> tuple[str, str, str]:
        """Return what is said of a run, its style, and what is said where that has no room in a row."""
        if status.can.script and status.silent > SILENCE:
            silent = self._script_runs(status.silent, output)
            if status.stops:
                return f"{silent}: it is held at its next", "accent", f"{silent}: is held next"
            return f"{silent}: space holds it at its next", "accent", f"{silent}: space holds"
        return _run_sentences(status, goal)

    @property
    def is_patient(self) -> bool:
        """Whether the note is about something that takes long."""
        return self.view.note is self._patience

    def _veil_note(self) -> Note | None:
        if not self.veiled:
            return None
        if self.view.hidden is not None:
            return Note("behind the veil: space shows it", "now")
        keys = "space runs and hides the new numbers, v takes it away"
        return Note(f"the veil is drawn: {keys}", "accent", keys)

    def _printed_note(self, output: CapturedOutput) -> Note | None:
        printed = self.view.printed
        if self.status.can.script and (bar := output.unfinished(0)):  # of a loop that is held in the middle
            return Note(one_line(bar, MAX_PRINTED_WIDTH), "dim", bar)
        if not printed:
            return None
        line = one_line(headline(printed[newest_message(printed)]), MAX_PRINTED_WIDTH)
        count, them = ("1 line", "it") if output.count == 1 else (f"{output.count:,} lines", "them")
        sentence = f"{count} printed, :console shows {them}: {line}"
        return Note(sentence, "dim", sentence)


def interrupt_note(reached: Interruption, *, is_late: bool, is_kept: bool) -> Note:
    """Return what is said while what runs is interrupted; `is_late`: it should have ended by now."""
    if not is_late:
        return Note(f"KeyboardInterrupt is raised in what runs; {QUITS_NEXT}", "warn")
    kept = "; the journal keeps the run" * is_kept
    end, short_end = QUITS_NEXT + kept, "ctrl+c quits" + kept
    if reached == "raised":
        return Note(f"KeyboardInterrupt was raised, and what runs goes on; {end}", "warn", f"it goes on; {short_end}")
    if reached == "sent":
        long, short = "what runs has not returned to Python", "not returned"
        return Note(f"{long}; {end}", "warn", f"{short}; {short_end}")
    return Note(f"what runs has not ended; {end}", "warn", f"it has not ended; {short_end}")


def _gone_back_note(latest: Frame) -> Note:
    """Return where training stands again; of a script also that it does again what it did between its stops."""
    frame = f"frame {latest.index}"
    if latest.script is None:
        later = "later ones stay until a command"
        return Note(f"gone back to {frame}: the {later} runs", "accent", f"back at {frame}: {later}")
    if latest.script.output_muted:
        again = "files are written again"
        return Note(f"gone back to {frame}: on the way {again}, prints are not", "accent", f"back at {frame}: {again}")
    again = f"{frame} has come again"
    return Note(f"{again}, and what the script prints and writes comes again too", "accent", again)


def _run_sentences(status: Status, goal: str) -> tuple[str, str, str]:
    """Return what is said of a run, its style, and what is said where that has no room in a row."""
    if status.silent > SILENCE:
        silent = f"this iteration has run for {duration(status.silent)}"
        pauses = "the run pauses" if status.stops else "space pauses"
        return f"{silent}: {pauses} behind it", "accent", f"{silent}: {pauses}"
    until, watched = f" until {goal}" if goal else "", ", watched" * status.watched
    if status.pace is not None:
        pace = pace_in_words(status.pace)
        whole = f"running at {pace}, rising{watched}{_queue_words(status)}: + full speed, space pauses"
        return whole, "accent", f"running at {pace}: + full speed, space pauses"
    speed = speed_in_words(status.speed)
    whole = f"running at {speed}{watched}{until}{_queue_words(status)}: space pauses, + - change it"
    return whole, "accent", f"running at {speed}: space pauses, + - change it"


def _queue_words(status: Status) -> str:
    what = "1 command waits" if status.waiting == 1 else f"{status.waiting:,} commands wait"
    return f", {what}" if status.waiting else ""
