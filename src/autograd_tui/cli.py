"""The command line: arguments into a session, on a screen or without one."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from autograd_tui import __version__
from autograd_tui.cli_runs import RUN_COMMANDS, add_journal, kept, run_command
from autograd_tui.engine.command import MOST_COMMANDS, Command, Commands, parse
from autograd_tui.engine.errors import NotUnderstood, Refused
from autograd_tui.engine.scenario_names import BUILT_IN
from autograd_tui.engine.watchpoint import parse_watchpoint
from autograd_tui.text.line import one_line

# What the command line hands on to `open_session`, under the same names.
OPTIONS: tuple[str, ...] = ("seed", "device", "threads", "optimizer", "lr", "momentum", "weight_decay", "decay")
OPTIONS += ("memory", "state", "batch_size", "image_size", "data", "weights", "hub_dir", "image")

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session


def main(arguments: list[str] | None = None) -> int:
    """Run the program and give its exit code."""
    _mend_descriptors()
    before = threading.enumerate()
    code = _run(arguments)
    if any(not each.daemon and each not in before for each in threading.enumerate()):
        for file in (sys.stdout, sys.stderr):
            with suppress(Exception):  # whatever a scenario has made of it
                file.flush()
        os._exit(code)  # Python would wait for a scenario's threads, which may never end
    return code


def _mend_descriptors() -> None:
    """Lead standard descriptors that are closed nowhere, before a file of ours or theirs gets their numbers."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _run(arguments: list[str] | None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words and words[0] in RUN_COMMANDS:
            return run_command(words)
        options = _parser().parse_args(words)
        first = given_commands(options)
        return train(options, lambda: _open(options), commands=first, title=options.scenario)
    except Refused as error:
        print(f"autograd-tui: {one_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our lines has left, as `head` does: not an error, and nothing more to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        print(f"autograd-tui: the lines could not be written: {error.strerror}", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message} (--help lists all options)")


def new_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Make a parser that refuses in a sentence."""
    return _Parser(prog=f"autograd-tui {command}".strip(), description=description)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("", "See training happen, one step at a time: real PyTorch, one phase a key press.")
    parser.epilog = f"autograd-tui {', '.join(RUN_COMMANDS)}: what has been run before; each has a --help of its own."
    parser.add_argument("--version", action="version", version=f"autograd-tui {__version__}")
    parser.add_argument(
        "scenario",
        nargs="?",
        default="linear",
        help=f"{', '.join(BUILT_IN)}, an installed one, or your own my_model.py[:name] (default: linear)",
    )
    training = parser.add_argument_group("training")
    training.add_argument("--seed", type=int, default=0, help="of all random numbers (default 0)")
    training.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: the accelerator where there is one)")
    training.add_argument("--threads", type=int, help="that PyTorch may use on the CPU")
    training.add_argument("--optimizer", help="any of torch.optim by name: adam, or sgd,momentum=0.9,nesterov=true")
    training.add_argument("--lr", type=float, help="learning rate")
    training.add_argument("--momentum", type=float)
    training.add_argument("--weight-decay", type=float)
    training.add_argument("--decay", metavar="plateau[:factor[:patience]]", help="lower the learning rate on a plateau")
    training.add_argument("--batch-size", type=int)
    training.add_argument("--image-size", type=int, help="height and width in pixels")
    training.add_argument("--data", choices=["fixed", "fresh"], help="one batch for all, or a new one each forward")
    training.add_argument(
        "--weights",
        metavar="auto|random|pretrained|FILE",
        help="of resnet18: pretrained ones are fetched once, and auto uses them from then on",
    )
    training.add_argument("--hub-dir", metavar="FOLDER", help="where torch.hub keeps pretrained weights")
    training.add_argument("--image", metavar="FILE", help="a JPEG or PNG picture in place of resnet18's dummy image")
    training.add_argument("--state", metavar="FILE", help="what the model, and the optimizer, begin with")
    training.add_argument("--option", action="append", metavar="NAME=VALUE", help="one of the scenario's own")
    add_running(parser)
    add_journal(parser)
    return parser


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add what is asked for in every run, new or resumed."""
    running = parser.add_argument_group("running")
    running.add_argument("--do", metavar="COMMANDS", help='run these first, such as "fbsz*3 lr=0.01 fb"; - reads stdin')
    running.add_argument("--repeat", type=int, metavar="N", help="run what --do says N times")
    running.add_argument("--memory", metavar="SIZE", help="for checkpoints (default 1GiB)")
    running.add_argument(
        "--watch",
        action="append",
        metavar="CONDITION",
        help='pause a run there: nonfinite, "grad_norm > 10", "w still", "loss rises 5"; may be said several times',
    )
    add_looks(running)
    running.add_argument("--headless", action="store_true", help="no screen: one line a command")
    running.add_argument("--json", action="store_true", help="with --headless: one JSON object a command")


def add_looks(parser: argparse._ActionsContainer) -> None:
    """Add how the screen looks."""
    parser.add_argument("--theme", help="light, dark, ansi, or one of Textual's; remembered")
    parser.add_argument(
        "--ascii",
        action=argparse.BooleanOptionalAction,
        help="draw with ASCII characters alone; remembered (default: where the locale is not UTF-8)",
    )


def train(options: argparse.Namespace, open_session: Callable[[], Session], *, commands: Commands, title: str) -> int:
    """Run what is asked for on a screen or without one, from where the session stands."""
    watchpoints = [parse_watchpoint(text) for text in options.watch or ()]

    def armed() -> Session:
        session = open_session()
        for each in watchpoints:
            session.arm(each)
        return session

    if options.headless:
        return _headless(options, armed, commands)
    return _screen(options, armed, commands, title=title)


def _headless(options: argparse.Namespace, open_session: Callable[[], Session], commands: Commands) -> int:
    if sys.stdout is None:
        raise Refused("stdout is closed, and there the lines would go.")
    from_stdin = options.do == "-"
    if from_stdin and options.repeat is not None:
        raise Refused("--repeat needs commands that can be read twice: --do - reads them once.")
    if options.theme is not None:
        raise Refused("--theme is for the screen, and --headless has none.")
    if options.do is None:
        raise Refused('--headless needs commands: --do "fbsz", or --do - for standard input.')
    wanted = _from_stdin(sys.stdin or ()) if from_stdin else iter(commands)
    if from_stdin:
        sys.stdin = io.StringIO()  # a scenario's input() would take our commands
    for number, code in ((signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        signal.signal(number, _leave_with(code))
    # stdout is for data alone: what a model prints, even from C, goes to stderr.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        session = open_session()
        from autograd_tui.headless import run_headless

        code = run_headless(session, wanted, json_lines=options.json, out=out)
        session.close(in_order=True)
        return code


def _leave_with(code: int) -> Callable[[int, FrameType | None], NoReturn]:
    """Make a signal's answer: leave at once, since each line is flushed and a running phase cannot be interrupted."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        os._exit(code)

    return leave


def _screen(options: argparse.Namespace, open_session: Callable[[], Session], commands: Commands, *, title: str) -> int:
    if options.json:
        raise Refused("--json needs --headless: a screen prints no lines.")
    if options.do == "-":
        raise Refused("--do - needs --headless: with a screen, the keyboard gives the commands.")
    check_terminal()
    from autograd_tui.journal.waiting import waiting_run
    from autograd_tui.tui.app import run_on_screen

    def open_one(scenario: str | None) -> Session:
        return open_session() if scenario is None else _open_another(scenario, options)

    greeting = waiting_run() if len(sys.argv) == 1 else None
    looks = {"theme": options.theme, "ascii_only": options.ascii}
    return run_on_screen(open_one, commands, title=title, greeting=greeting, **looks)


def check_terminal() -> None:
    """Raise Refused where there is no terminal to draw on."""
    if sys.stdout is None:
        raise Refused("stdout is closed, and there the command line that repeats the run would go.")
    if not all(each and each.isatty() for each in (sys.stdin, sys.stderr)):
        raise Refused('this is no terminal, so there is no screen: use --headless --do "fbsz".')
    term = os.environ.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        raise Refused(f'TERM="{term}" names no terminal that can place text: use --headless --do "fbsz", or set it.')


def given_commands(options: argparse.Namespace) -> Commands:
    """Read what --do and --repeat ask for; nothing where commands come from stdin."""
    if options.do == "-":
        return Commands()
    if options.repeat is not None and options.repeat < 1:
        raise Refused(f"--repeat must be at least 1, not {options.repeat}.")
    commands, times = parse(options.do or ""), options.repeat or 1
    if len(commands) * times > MOST_COMMANDS:
        raise Refused(f"--repeat {times} asks for more than {MOST_COMMANDS:,} commands at once.")
    return commands * times


def _from_stdin(lines: Iterable[str]) -> Iterator[Command]:
    try:
        for line in lines:
            yield from parse(line)
    except UnicodeDecodeError:
        raise NotUnderstood("what comes from stdin is no text.") from None


def _open(options: argparse.Namespace) -> Session:
    """Open the session; torch is imported here, and no sooner."""
    from autograd_tui.open import open_session

    asked = {name: getattr(options, name) for name in OPTIONS}
    given = {name: value for name, value in asked.items() if value is not None}
    return kept(open_session(options.scenario, **given, **_own(options)), options)


def _own(options: argparse.Namespace) -> dict[str, Any]:
    """Read what --option gives for the scenario's own options."""
    own: dict[str, Any] = {}
    for word in options.option or ():
        name, equals, own[name] = word.partition("=")
        if not (equals and name.isidentifier()):
            raise Refused(f"--option {word} is not understood: use --option NAME=VALUE, such as --option width=8.")
        if name in OPTIONS:
            raise Refused(f"--option {word}: {name} has a flag of its own, --{name.replace('_', '-')}.")
    return own


def _open_another(scenario: str, options: argparse.Namespace) -> Session:
    """Open another scenario in the same place; how it is trained is its own again."""
    from autograd_tui.open import open_session

    asked = {name: getattr(options, name, None) for name in ("device", "threads", "memory")}
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    options.journal = None  # that one is the first session's
    return kept(open_session(scenario, seed=getattr(options, "seed", 0), **given), options)
