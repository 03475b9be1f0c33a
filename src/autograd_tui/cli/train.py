"""The command without a name: a scenario into a session that trains."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from autograd_tui import __version__
from autograd_tui.cli.arguments import (
    add_journal_arguments,
    add_run_arguments,
    new_journal_path,
    new_parser,
    with_journal,
)
from autograd_tui.cli.running import initial_commands, run_session
from autograd_tui.core.errors import Refused
from autograd_tui.core.run_config import BUILT_IN, installed

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session
    from autograd_tui.text.prompt.word_table import Group

# What the command line hands on to `open_session`, under the same names.
SESSION_OPTIONS: tuple[str, ...] = ("seed", "device", "threads", "optimizer", "lr", "momentum", "weight_decay", "decay")
SESSION_OPTIONS += ("deterministic",)
SESSION_OPTIONS += ("memory", "state", "batch_size", "image_size", "data", "weights", "hub_dir", "image")


def train(words: list[str], *, others: Iterable[str]) -> int:
    """Open what is asked for and run it; `others`: the commands with names, to be told of."""
    _check_command(words, others)
    options = _parser(others).parse_args(words)
    first, path = initial_commands(options), new_journal_path(options)
    return run_session(options, lambda: _open(options, path), commands=first, title=options.scenario)


def _check_command(words: list[str], others: Iterable[str]) -> None:
    """Raise Refused where the first word is no scenario, and nearly the name of another command."""
    name = words[0] if words else ""
    if name in BUILT_IN or not name.isidentifier():  # no file, nor an option
        return
    from difflib import get_close_matches

    close = get_close_matches(name, others, n=1)
    if close and name not in installed():
        raise Refused(f'there is no command "{name}": the nearest is {close[0]}.')


def _parser(others: Iterable[str]) -> argparse.ArgumentParser:
    description = "See training happen, one step at a time: real PyTorch, one phase a key press."
    parser = new_parser("", description, more_help=lambda: _words_and_commands(others))
    parser.add_argument("--version", action="version", version=f"autograd-tui {__version__}")
    parser.add_argument(
        "scenario",
        nargs="?",
        default="linear",
        help=f"{', '.join(BUILT_IN)}, an installed one, or your own my_model.py[:name] (default: linear)",
    )
    training = parser.add_argument_group("training")
    training.add_argument("--seed", type=int, default=0, help="of all random numbers (default 0)")
    training.add_argument(
        "--device",
        help="auto (the accelerator where there is one), cpu, cuda, cuda:1, mps, xpu (default: the scenario's or auto)",
    )
    training.add_argument(
        "--deterministic",
        action="store_true",
        default=None,
        help="algorithms that give the same bits each time, also on CUDA; an operation that has none raises",
    )
    training.add_argument("--threads", type=int, help="that PyTorch may use on the CPU")
    training.add_argument("--optimizer", help="any of torch.optim by name: adam, or sgd,momentum=0.9,nesterov=true")
    training.add_argument("--lr", type=float, help="learning rate")
    training.add_argument("--momentum", type=float)
    training.add_argument("--weight-decay", type=float)
    training.add_argument(
        "--decay",
        metavar="plateau[:factor[:patience[:min_lr]]]",
        help="lower the learning rate on a plateau (default 0.1:10:1e-5), not below min_lr",
    )
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
    add_run_arguments(parser)
    add_journal_arguments(parser)
    return parser


def _words_and_commands(others: Iterable[str]) -> str:
    """Return the end of the help: the words of the prompt, and the commands with names."""
    from autograd_tui.text.prompt.word_table import COMMANDS

    return f"""\
commands, after --do, in session.run and after : on screen:
{_word_list(*COMMANDS)}

words after : on screen alone:
{_word_list("screen")}

autograd-tui {", ".join(others)}:
what has been run before; each has a --help of its own."""


def _word_list(*groups: Group) -> str:
    """Return words of the prompt as argparse lists options: 80 columns, what each does from the 29th on."""
    from autograd_tui.text.prompt.word_table import word_rows

    rows = word_rows(*groups)
    return "\n".join(fill(f"  {syntax:<26}{does}", 80, subsequent_indent=" " * 28) for syntax, does in rows)


def _open(options: argparse.Namespace, path: Path | None) -> Session:
    """Open the session; torch is imported here, and no sooner."""
    from autograd_tui.engine.open_session import open_session

    wanted = {name: getattr(options, name) for name in SESSION_OPTIONS}
    arguments = {name: value for name, value in wanted.items() if value is not None}
    return with_journal(open_session(options.scenario, **arguments, **_scenario_options(options)), options, path)


def _scenario_options(options: argparse.Namespace) -> dict[str, Any]:
    """Read what --option gives for the scenario's own options."""
    own: dict[str, Any] = {}
    for word in options.option or ():
        name, equals, own[name] = word.partition("=")
        if not (equals and name.isidentifier()):
            raise Refused(f"--option {word} is not understood: use --option NAME=VALUE, such as --option width=8.")
        if name == "scenario":
            raise Refused(f"--option {word}: the scenario stands by itself, as in autograd-tui my_model.py.")
        if name in SESSION_OPTIONS:
            raise Refused(f"--option {word}: {name} has a flag of its own, --{name.replace('_', '-')}.")
    return own
