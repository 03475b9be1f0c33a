"""The program: the words of a command line into an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

from autograd_tui.cli.train import train
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import working_folder
from autograd_tui.core.terminal_text import print_traceback, print_warnings_as_lines, say


def _imported(module: str, name: str) -> Callable[[list[str]], int]:
    """Return a command that is imported when it is run: the others are not waited for."""

    def run(words: list[str]) -> int:
        command: Callable[[list[str]], int] = getattr(import_module(f"autograd_tui.cli.{module}"), name)
        return command(words)

    return run


RUN_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "resume": _imported("journal_commands", "resume"),
    "replay": _imported("journal_commands", "replay"),
    "follow": _imported("journal_commands", "follow"),
    "export": _imported("export", "export"),
    "script": _imported("script_command", "script"),
    "sessions": _imported("sessions", "sessions"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the program and give its exit code."""
    _open_closed_descriptors()
    _escape_unknown_characters()
    _fix_working_folder()
    print_warnings_as_lines()
    before = threading.enumerate()
    code = _run(arguments)
    if any(not each.daemon and each not in before for each in threading.enumerate()):
        for file in (sys.stdout, sys.stderr):
            with suppress(Exception):  # whatever a scenario has made of it
                file.flush()
        os._exit(code)  # Python would wait for a scenario's threads, which may never end
    return code


def _open_closed_descriptors() -> None:
    """Lead standard descriptors that are closed nowhere, before a file of ours or theirs gets their numbers."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _escape_unknown_characters() -> None:
    """Write what a terminal's encoding does not know as \\xe9 is: a name with an accent must not stop a run."""
    for file in (sys.stdout, sys.stderr):
        if isinstance(file, io.TextIOWrapper) and file.errors in ("strict", "surrogateescape"):
            file.reconfigure(errors="backslashreplace")


def _fix_working_folder() -> None:
    """Mean names, also of what is imported, from the folder that this is now: a scenario may go to another one."""
    if working_folder() is None:  # without one, libraries that torch loads late end the program
        os.chdir(os.sep)
        say("this folder has been removed: names of files are meant from / now.")
    if "" in sys.path and (folder := working_folder()):
        sys.path[sys.path.index("")] = folder


def _run(arguments: list[str] | None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    try:
        command = RUN_COMMANDS.get(words[0]) if words else None
        return command(words[1:]) if command else train(words, others=RUN_COMMANDS)
    except Refused as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our lines has left, as `head` does: not an error, and nothing more to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        of_a_file = error.filename is not None or error.errno in (errno.EMFILE, errno.ENFILE)
        unnamed = "no file can be opened" if of_a_file else "the lines could not be written"
        say(f"{unnamed if error.filename is None else error.filename}: {error.strerror}")
        return 2 if of_a_file else 1
    except Exception as error:  # a bug of ours, as Python would show it, but for what its words may do to a terminal
        print_traceback(error)
        return 1
