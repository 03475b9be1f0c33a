"""What the main screen does for a line of the prompt: commands for the trainer thread, words, pictures written."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from autograd_tui.core.command import Commands
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import absolute, replacing
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.run_config import BUILT_IN, DEFAULT_MEMORY, installed
from autograd_tui.core.watchpoint import Watchpoint
from autograd_tui.text.messages import watch_line
from autograd_tui.text.plot_view import parse_plot
from autograd_tui.text.prompt.completion import Candidate, complete, completion_heading
from autograd_tui.text.prompt.parser import ScreenCommand, parse_prompt
from autograd_tui.text.prompt.word_table import NOT_OF_SCRIPTS, word_of_command
from autograd_tui.tui.preferences import THEMES
from autograd_tui.tui.requests import Arm, ChooseSurface, Export, Open, Record
from autograd_tui.tui.screen_state import Note
from autograd_tui.tui.terminal import ReadableApp
from autograd_tui.tui.themes import theme_named

if TYPE_CHECKING:
    from autograd_tui.tui.main_screen import MainScreen


class PromptActions:
    """Completes the lines of the prompt, and does what they ask for."""

    def __init__(self, main: MainScreen) -> None:
        self._main = main

    def offer(self, text: str) -> tuple[str, list[Candidate]]:
        """Return a title and candidates for what is typed."""
        view, trainer, app = self._main.state.view, self._main.trainer, self._main.app
        candidates = complete(
            text,
            view.frame,
            newest=view.newest,
            history=view.history,
            themes=(*THEMES, *app.available_themes),
            models=_models(trainer.runner.folder) if text.startswith("model ") else {},
            branches=trainer.session.branches if trainer.session else (),
            script=trainer.can.script,
        )
        return completion_heading(
            text, view.frame, memory=view.about.memory if view.about else DEFAULT_MEMORY
        ), candidates

    def run(self, text: str) -> bool:
        """Do what words ask for; False where they were not understood."""
        self._main.say(None)
        try:
            words = parse_prompt(text)
            if self._main.trainer.can.script:
                _check_script_takes(words)
            if isinstance(words, ScreenCommand):
                self._run_screen_command(words)
            elif words:
                self._train(words)
        except Refused as error:
            self._main.say(Note(str(error), "warn"))
            return False
        return True

    def _train(self, commands: Commands) -> None:
        """Run commands; a single phase to be recorded leads to the trace screen."""
        main = self._main
        request = main.state.train(commands)
        if len(commands) == 1 and commands[0].recorded:
            main.open_trace(Record(command=commands[0], start=request.start))
        else:
            main.ask(request)

    def _run_screen_command(self, command: ScreenCommand) -> None:
        """Do what the screen is asked for; raises Refused."""
        main, state = self._main, self._main.state
        match command.name, command.value:
            case "run", int(times):
                state.count = str(times)
                main.ask(state.train("iteration"))
            case "run", Goal() as goal:
                main.ask(state.train(goal))
            case "speed", float() | None as speed:
                main.set_speed(speed)
            case "theme", str(name):
                main.app.theme = theme_named(name)
            case "ascii" | "unicode", _:
                assert isinstance(main.app, ReadableApp)
                main.app.ascii_only = command.name == "ascii"
            case "log" | "linear", _:
                main.set_log_scale(command.name == "log")
            case "watch", Watchpoint() as watchpoint:
                main.ask(Arm(watchpoint))
            case "watch", "off":
                main.ask(Arm(None))
            case "watch", _:
                session = main.trainer.session
                main.say(Note(watch_line(session.watchpoints if session else ()), "accent"))
            case "surface", ("usual" | "off") | (str(), str()) as choice:
                main.ask(ChooseSurface(choice))
            case "export", str(name) if not name.endswith(".svg"):
                main.ask(Export(Path(name).expanduser()))
            case "export", str() | None as name:
                main.refresh(layout=True)
                act = partial(main.write_picture, Path(name).expanduser()) if name else main.write_picture_and_line
                main.call_after_refresh(main.in_turn, act)  # a picture without the prompt
            case "help", str(line):
                main.say(Note(line))
            case "help", _:
                main.action_help()
            case "/", str(part):
                state.find_parameter(part)
                main.draw()
            case "quit", _:
                main.app.exit(0)
            case "plot", str(name):
                self._plot(name)
            case "sort", str(column):
                state.sort_table(column)
                main.draw()
            case "model", str(scenario):
                main.ask(state.train(Open(scenario)))
            case "image", int(number):
                state.show_sample(number - 1)
                main.draw()
            case "console", _:
                main.show_console()
            case "inside", _:
                main.action_inside()
            case "veil", _:
                main.action_veil()
            case _:
                raise AssertionError(command)

    def _plot(self, text: str) -> None:
        """Plot what words ask for; raises Refused where there is nothing of a name."""
        view = self._main.state.view
        if view.frame is None or view.history is None:
            raise Refused("there is nothing to plot yet.")
        plot = parse_plot(text, view.plot, view.frame, list(view.history.metrics))
        self._main.state.change(plot=plot)
        self._main.draw()


def _check_script_takes(words: Commands | ScreenCommand) -> None:
    """Raise Refused, with the reason, where words ask for what cannot be done with a script."""
    if isinstance(words, ScreenCommand):
        names = [words.name]
        if words.name == "export" and str(words.value).endswith(".py"):
            raise Refused("a script is its own file already: run.html, run.csv, run.jsonl or run.tb keep what it did.")
    else:
        names = [word_of_command(command).name for pattern, _ in words.blocks() for command in pattern]
    for name in names:
        if name in NOT_OF_SCRIPTS:
            raise Refused(NOT_OF_SCRIPTS[name])


def _models(folder: str | None) -> dict[str, str]:
    """Return what can be trained from here, each with a line about it."""
    files = (path.name for path in sorted(Path(folder).glob("*.py"))) if folder else ()
    own = dict.fromkeys(files, "your own, where it holds a @scenario or a model")
    return BUILT_IN | {name: f"from {each.module.partition('.')[0]}" for name, each in installed().items()} | own


def write_screenshot(svg: str, path: Path, *, folder: str | None) -> Note:
    """Write a picture where no file is, a relative path in `folder`; return a note that says so, or why not."""
    try:
        _write_new(path, svg, folder)
    except FileExistsError:
        return Note(f"{path} exists: give another name.", "warn")
    except OSError as error:
        return Note(f"the picture could not be written: {error.strerror}", "error")
    return Note(f"written: {path}", "accent")


def write_screenshot_and_line(svg: str, line: str, *, folder: str | None, script: bool = False) -> Note:
    """Write a picture, named by the time, and beside it the command line that repeats the run, or runs a `script`."""
    path = Path(f"autograd-tui_{datetime.now():%Y-%m-%dT%H_%M_%S_%f}.svg")
    try:
        _write_new(path, svg, folder)
        _write_new(path.with_suffix(".txt"), line + "\n", folder)
    except OSError as error:
        return Note(f"the picture could not be written: {error.strerror}", "error")
    more = ":export run.html gives a page" if script else ":export run.py gives a script"
    return Note(f"written: {path.name}; {more}. {line}", "accent")


def _write_new(path: Path, text: str, folder: str | None) -> None:
    with replacing(Path(absolute(str(path), folder)), over=False) as file:
        file.write(text.encode())
