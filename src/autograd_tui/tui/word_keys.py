"""The prompt, and what its words do."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path

from autograd_tui.core.errors import Refused, UnknownCommand, unknown
from autograd_tui.core.files import absolute, replacing
from autograd_tui.core.run_config import BUDGET, BUILT_IN, installed
from autograd_tui.core.session_view import Goal
from autograd_tui.core.watchpoint import Watchpoint
from autograd_tui.text.messages import watch_line
from autograd_tui.text.prompt.completion import complete, completion_heading
from autograd_tui.text.prompt.parser import parse_prompt
from autograd_tui.text.prompt.words import Candidate, ScreenWord
from autograd_tui.tui.help_screen import HelpScreen, first_rows, key_rows
from autograd_tui.tui.keys import FIRST_KEYS, KEYS
from autograd_tui.tui.panel_keys import PanelKeys
from autograd_tui.tui.panels.status import Note
from autograd_tui.tui.preferences import THEMES
from autograd_tui.tui.prompt import Prompt
from autograd_tui.tui.requests import Arm, Export, Open
from autograd_tui.tui.run_keys import RunKeys
from autograd_tui.tui.table_keys import TableKeys
from autograd_tui.tui.terminal import ReadableApp
from autograd_tui.tui.themes import theme_named
from autograd_tui.tui.trace_entry import TraceEntry


class WordKeys(PanelKeys, RunKeys, TableKeys, TraceEntry):
    """Reads words: commands for the trainer, and words for the screen alone."""

    prompt: Prompt

    def action_prompt(self, text: str) -> None:
        """Take a command in words, the first of them given."""
        self.prompt.open(text)

    def offer(self, text: str) -> tuple[str, list[Candidate]]:
        found = complete(
            text,
            self.frame,
            newest=self.newest,
            history=self.history,
            themes=(*THEMES, *self.app.available_themes),
            models=_models(self.trainer.folder) if text.startswith("model ") else {},
            branches=self.trainer.session.branches if self.trainer.session else (),
        )
        return completion_heading(text, self.frame, memory=self.about.memory if self.about else BUDGET), found

    def run_words(self, text: str) -> bool:
        """Do what words ask for; False where they were not understood."""
        self.say(None)
        try:
            words = None if text.startswith("/") else parse_prompt(text)
            if words is None:
                self.find_parameter(text[1:].strip())
            elif isinstance(words, ScreenWord):
                self._answer(words)
            elif words:
                self.ask(words)
        except Refused as error:
            self.say(Note(str(error), "warn"))
            return False
        return True

    def _answer(self, word: ScreenWord) -> None:
        """Do what a word for the screen asks; raises Refused."""
        match word.name, word.value:
            case "run", int(times):
                self.count = str(times)
                self.ask("iteration")
            case "run", Goal() as goal:
                self.ask(goal)
            case "speed", float() | None as pace:
                self.trainer.pace = pace
                self.say_pace()
            case "theme", str(name):
                self.app.theme = theme_named(name)
            case "ascii" | "unicode", _:
                assert isinstance(self.app, ReadableApp)
                self.app.ascii_only = word.name == "ascii"
            case "log" | "linear", _:
                self.log_scale = word.name == "log"
            case "watch", Watchpoint() as watchpoint:
                self.arm(watchpoint)
            case "watch", "off":
                self.arm(None)
            case "watch", _:
                session = self.trainer.session
                self.say(Note(watch_line(session.watchpoints if session else ()), "accent"))
            case "export", str(name) if not name.endswith(".svg"):
                self.ask_beside(Export(Path(name).expanduser()))
            case "export", str(name):
                self.refresh(layout=True)
                self.call_after_refresh(self.in_turn, partial(self.write_picture, Path(name).expanduser()))
            case "export", _:
                self.refresh(layout=True)
                self.call_after_refresh(self.in_turn, self.write_picture_and_line)  # a picture without the prompt
            case "help", _:
                self.action_help()
            case "quit", _:
                self.app.exit(0)
            case "plot", str(name):
                self.plot(name)
            case "sort", str(column):
                self.sort_table(column)
            case "model", str(scenario):
                self.ask(Open(scenario))
            case "console", _:
                self.show_console()
            case "inside", _:
                self.action_inside()
            case "veil", _:
                self.action_veil()
            case _:
                raise AssertionError(word)

    def arm(self, watchpoint: Watchpoint | None) -> None:
        """Have runs pause at one condition more, or at none."""
        self.ask_beside(Arm(watchpoint))

    def plot(self, name: str) -> None:
        """Plot another column beside the loss; raises Refused where there is none of that name."""
        known = ["loss", "grad", *(metric for metric, _ in (self.frame.metrics if self.frame else ()))]
        if name not in known:
            raise UnknownCommand(unknown(name, "plot", known))
        self.plotted = name

    def action_log_scale(self) -> None:
        """Draw the loss on the other scale."""
        self.log_scale = not self.log_scale

    def action_export(self) -> None:
        """Write a case where a watchpoint has fired, else a picture and the line that repeats the run."""
        self.in_turn(self._export)

    def _export(self) -> None:
        if self.fault is not None:
            self.ask_beside(Export(Path(f"case-{self.fault}.pt"), numbered=True))
        else:
            self.write_picture_and_line()

    def write_picture_and_line(self) -> None:
        """Write a picture into the current folder; the line that repeats the run goes to the clipboard too."""
        line = self.command_line()
        self.app.copy_to_clipboard(line)
        path = Path(f"autograd-tui_{datetime.now():%Y-%m-%dT%H_%M_%S_%f}.svg")
        try:
            self._write_new(path, self.app.export_screenshot())
            self._write_new(path.with_suffix(".txt"), line + "\n")
        except OSError as error:
            self.say(Note(f"the picture could not be written: {error.strerror}", "error"))
            return
        self.say(Note(f"written: {path.name}; :export run.py gives a script. {line}", "accent"))

    def write_picture(self, path: Path) -> None:
        """Write a picture of the screen, over nothing that is there."""
        try:
            self._write_new(path, self.app.export_screenshot())
        except FileExistsError:
            self.say(Note(f"{path} exists: give another name.", "warn"))
        except OSError as error:
            self.say(Note(f"the picture could not be written: {error.strerror}", "error"))
        else:
            self.say(Note(f"written: {path}", "accent"))

    def _write_new(self, path: Path, text: str) -> None:
        """Write a file where nothing is. Raises OSError, FileExistsError among it."""
        with replacing(Path(absolute(str(path), self.trainer.folder)), over=False) as file:
            file.write(text.encode())

    def action_help(self) -> None:
        """Show the keys."""
        self.app.push_screen(HelpScreen(first_rows(KEYS, FIRST_KEYS), key_rows(KEYS)))

    def command_line(self) -> str:
        """Give the line that repeats the run."""
        return self.about.repeated(self.commands) if self.about else f"autograd-tui {self.title_given}"

    def last_line(self) -> str:
        """Give the same as far as the run has come by now, which may be further than the screen got to know."""
        news = self.trainer.news
        return self.about.repeated(news.log) if self.about and news else self.command_line()


def _models(folder: str | None) -> dict[str, str]:
    """Give what can be trained from here, each with a line about it."""
    files = (path.name for path in sorted(Path(folder).glob("*.py"))) if folder else ()
    own = dict.fromkeys(files, "your own, where it holds a @scenario or a model")
    return BUILT_IN | {name: f"from {each.module.partition('.')[0]}" for name, each in installed().items()} | own
