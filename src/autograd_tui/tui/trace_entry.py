"""The key that leads inside a phase."""

from __future__ import annotations

from dataclasses import replace

from autograd_tui.core.command import Commands
from autograd_tui.core.errors import Refused
from autograd_tui.text.prompt.parser import parse_prompt
from autograd_tui.text.prompt.words import Candidate, ScreenWord
from autograd_tui.tui.panels.status import Note
from autograd_tui.tui.requests import Prove, Record, Request, Training, Update, What
from autograd_tui.tui.trace_screen import TraceScreen
from autograd_tui.tui.training_screen import TrainingScreen

STAY = ("theme", "ascii", "unicode", "speed", "watch", "export", "quit")  # words that leave us inside


class TraceEntry(TrainingScreen):
    """Asks for a phase to be recorded; the screen inside it is there at once, and takes the next keys."""

    inside: TraceScreen | None = None  # the one on top of this screen
    _recording: What | None = None  # that it was opened for
    _seen_into: int | None = None  # the frame that was looked into last: from there on training goes on

    def action_inside(self) -> None:
        """Run the next phase recorded and step inside; look into that of the frame looked at, or where a fault is."""
        if self.inside is not None:
            return
        self._enter(Request(Record(None if self.place == "here" else self.place, seen=self._seen_into)))

    def ask(self, what: Training, *, pauses: bool = False) -> None:
        """Ask for something that trains; step inside where it is one phase to be recorded."""
        self._seen_into = None
        if isinstance(what, Commands) and len(what) == 1 and what[0].recorded:
            start, self.looking, self.awaited = self.place, None, ()
            self._enter(Request(Record(command=what[0]), start))
        else:
            super().ask(what, pauses=pauses)

    def _enter(self, request: Request) -> None:
        self.interrupted = False
        self.take_count()
        self._recording = request.what
        if not self.put_in_line(replace(request, in_sight=self.run_in_sight)):
            return
        self.inside = TraceScreen(
            picture=self.action_export,
            interrupt=self.action_interrupt,
            left=self._left_inside,
            prove=self._prove,
            give_up=self.stop,
            words=self._words_inside,
            offer=self.offer,
        )
        self.inside.unkept = self.unkept
        self.app.push_screen(self.inside)

    def show_trace(self, news: Update) -> None:
        """Show what was recorded, or leave where nothing was."""
        if self.inside is not None and isinstance(news.asked, Prove):
            self.inside.show_proof(news.asked, news.proof)
        if self.inside is None or news.asked is not self._recording:
            return
        self._seen_into = news.frame.index if news.trace is None else news.trace.index
        if news.trace is not None:
            self.inside.about = self.about
            self.inside.show(news.trace)
        else:
            inside, self.inside = self.inside, None
            inside.close()
            self.post_message(TraceScreen.Ready())

    def mark_unkept(self, news: Update) -> None:
        """Mark a run that is not kept where it is seen."""
        super().mark_unkept(news)
        if self.inside is not None:
            self.inside.unkept = self.unkept

    def _prove(self, what: Prove) -> None:
        self.interrupted = False
        self.put_in_line(Request(what))

    def say(self, note: Note | None) -> None:
        """Show a sentence where it is seen."""
        if self.inside is None:
            super().say(note)
        elif note is not None:
            self.inside.say(note)
        elif self.inside.awaits_an_answer and (patient := self.patient()):
            self.inside.say(patient)

    def _words_inside(self, text: str) -> bool:
        """Do what words ask for; what runs, or is seen on this screen alone, leads out of the phase first."""
        try:
            words = parse_prompt(text)
        except Refused as error:
            self.say(Note(str(error), "warn"))
            return False
        name = words.name if isinstance(words, ScreenWord) else ""
        if self.inside is not None and name == "help":
            self.inside.action_help()  # its own keys
            return True
        if self.inside is not None and words and name not in STAY:
            self.inside.action_out()
        return self.run_words(text)

    def run_words(self, text: str) -> bool:
        """Do what words ask for; False where they were not understood."""
        raise NotImplementedError

    def offer(self, text: str) -> tuple[str, list[Candidate]]:
        """Give a title and what could be typed."""
        raise NotImplementedError

    def action_export(self) -> None:
        """Write a picture."""
        raise NotImplementedError

    def action_interrupt(self) -> None:
        """Stop the phase or run."""
        raise NotImplementedError

    def _left_inside(self) -> None:
        proving = self.inside is not None and self.inside.walk is not None and self.inside.awaits_an_answer
        self.inside = None
        if proving:
            self.stop()
        self.say(None)
