"""The lines of a journal file: a header, then one entry for each command, and a closing line where the run was left.

Names of fields are those in the files, so they never change.
"""

from __future__ import annotations

import json
import os.path
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from autograd_tui.core.command import MAX_COMMAND_LENGTH, NEXT, Commands, parse_journal
from autograd_tui.core.command_log import ITERATION, CommandLog
from autograd_tui.core.errors import Refused, UnknownCommand
from autograd_tui.core.frame import Frame, TorchError
from autograd_tui.core.optimizer_spec import LrDecay
from autograd_tui.core.run_config import DIGEST_VERSION, RunConfig
from autograd_tui.core.tensor_stats import KEY_COLUMNS

FORMAT = 1
KEY_COLUMNS_VERSION = 3  # of digests, from which on they are of KEY_COLUMNS
COLUMNS = ("id", "parent", "command", "digest")
OPTIONAL_FIELDS = ("start", "raised", "said", "left", "loss")
NONFINITE_NAMES = ("NaN", "Infinity", "-Infinity")  # as strict JSON has them
_encode = json.JSONEncoder(separators=(",", ":")).encode  # made once: `json.dumps` makes one for each line
_DIGEST = re.compile("[0-9a-f]{16}")
_GOES_BACK = re.compile(r"@[0-9]{1,15}|branch=[1-9][0-9]{0,14}")
MAX_NAME_LENGTH = 4096  # characters of a path
MAX_IRREGULAR_COMMANDS = 100  # of one line, beside whole iterations: no run writes more than an iteration's


@dataclass(frozen=True, slots=True)
class Entry:
    """One command that ran, or a rewind.

    The line in the file is the JSON list [id, parent, command, digest], and behind these, where there is anything
    else to say, an object with the other fields.
    """

    id: int  # the number of the line, from 1
    parent: int  # the line that it goes on from; 0 for frame 0
    command: str  # its spelling; several where they ran freely: "fbsz*57", "next*9"; "@3" and "branch=2" run nothing
    digest: str  # of the frame that it led to
    start: int | None = None  # the frame that it goes on from, where that is not the parent's last one
    raised: str | None = None  # the type of what its one command raised
    said: Sequence[Any] | None = None  # and its message, file, line, call and code, in journals of old the first three
    left: float | str | None = None  # the last loss of the run that it leaves for another one, as strict JSON has it
    loss: float | str | None = None  # of the frame that it led to, where that is not the one of the line before

    @property
    def takes_branch(self) -> bool:
        """Whether it returns to the end of a branch."""
        return self.command.startswith("branch=")

    @property
    def goes_back(self) -> bool:
        """Whether it runs nothing, and only says where training stands."""
        return self.command.startswith(("@", "branch="))

    def commands(self) -> Commands:
        """Return the commands that ran; none for a rewind."""
        return Commands() if self.goes_back else _parse_commands(self.command)

    def append_to(self, log: CommandLog) -> None:
        """Add the commands that ran to a log, with what was raised."""
        for pattern, times in self.commands().blocks():
            if self.raised is None:
                log.append_block(pattern, times)
            else:
                log.append(pattern[0], self.error)

    @property
    def error(self) -> TorchError | None:
        """Return what its one command raised, as far as the line has it; None where nothing was."""
        if self.raised is None:
            return None
        return TorchError(self.raised, *(self.said or ("", "", 0)))

    def to_json_line(self) -> str:
        """Return the line of the file, with its newline."""
        more = {name: value for name in OPTIONAL_FIELDS if (value := getattr(self, name)) is not None}
        listed = [self.id, self.parent, self.command, self.digest, *([more] if more else [])]
        return _encode(listed) + "\n"

    @classmethod
    def from_json_line(cls, line: bytes) -> Entry:
        """Parse a line of the file; raises ValueError, which says why, where it is not an entry."""
        listed = _read_json(line)
        if not isinstance(listed, list) or len(listed) not in (4, 5):
            raise ValueError("no list of id, parent, command and digest")
        number, parent, command, digest, *more = listed
        fields = more[0] if more else {}
        if not (
            _is_index(number)
            and _is_index(parent)
            and isinstance(fields, dict)
            and fields.keys() <= set(OPTIONAL_FIELDS)
        ):
            raise ValueError("no id, parent, command and digest, nor an object with more")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ValueError("its digest is none")
        if not isinstance(command, str) or len(command) > MAX_COMMAND_LENGTH:
            raise ValueError("its command is none")
        entry = cls(number, parent, command, digest, **fields)
        entry._check()
        return entry

    def _check(self) -> None:
        """Raise ValueError where what a line says cannot be."""
        if not self.goes_back:
            _parse_commands(self.command)
        elif not _GOES_BACK.fullmatch(self.command):
            raise ValueError("it goes back nowhere")
        if self.start is not None and not _is_index(self.start):
            raise ValueError("its start is no frame")
        for name in ("left", "loss"):
            _check_number(name, getattr(self, name))
        if self.raised is not None and (not isinstance(self.raised, str) or len(self.commands()) != 1):
            raise ValueError("what it raised is no one command's error")
        if self.said is not None and not _is_error_message(self.said):
            raise ValueError("what its error said is no message, file and line")


def frame_digest(frame: Frame, version: int = DIGEST_VERSION) -> str:
    """Return 16 hexadecimal digits that differ where a frame's loss or a number that they are of does.

    It hashes bit for bit what the frame holds, and what was raised. version: `RunConfig.digest_version`. From 3 on the
    numbers of a tensor are its norm, its mean and its first value, for which nothing else is computed; before, all.
    """
    hashed = blake2b(digest_size=8)
    loss = (0.0, False) if frame.loss is None else (frame.loss, True)
    hashed.update(struct.pack("<d?qqd", *loss, frame.iteration, frame.steps, frame.learning_rate))
    if frame.groups is not None:
        hashed.update(struct.pack(f"<{len(frame.learning_rates)}d", *frame.learning_rates))
    for table in (frame.params, frame.grads.table, frame.optimizer_state, frame.buffers):
        for numbers in (table.numbers,) if version < KEY_COLUMNS_VERSION else map(table.column, KEY_COLUMNS):
            hashed.update(numbers)
    hashed.update(bytes(map(bool, frame.grads.backwards)))
    if frame.prediction is not None:
        hashed.update(struct.pack("<2d", *(each or 0.0 for each in (frame.prediction.norm, frame.prediction.mean))))
    if frame.error is not None:
        hashed.update(frame.error.type.encode())
    return hashed.hexdigest()


def _is_index(value: object) -> bool:
    """Return whether a value is a number of a line or of a frame."""
    return type(value) is int and 0 <= value < 1 << 62


def _is_error_message(value: object) -> bool:
    kinds = (str, str, int, str, str)
    return (
        isinstance(value, list)
        and 3 <= len(value) <= len(kinds)
        and all(type(each) is kind for each, kind in zip(value, kinds, strict=False))
    )


def _check_number(name: str, value: object) -> None:
    """Raise ValueError where a value is not a number as strict JSON has it, or None."""
    if isinstance(value, bool) or not (value is None or value in NONFINITE_NAMES or isinstance(value, (int, float))):
        raise ValueError(f"its {name} is no number")
    if isinstance(value, int) and abs(value) >= 1 << 62:
        raise ValueError(f"its {name} is no number that was measured")


def _read_json(line: bytes) -> Any:
    """Read one line; raises ValueError where it is no JSON in UTF-8, or nests deeper than anything written here."""
    try:
        return json.loads(line.decode())
    except RecursionError:
        raise ValueError("no JSON that was written here") from None
    except ValueError:
        raise ValueError("no JSON") from None


@lru_cache(maxsize=256)
def _parse_commands(command: str) -> Commands:
    """Read commands that run; a journal holds the same few again and again. Raises ValueError where they are none."""
    try:
        commands = parse_journal(command)
    except UnknownCommand:
        raise ValueError("its command is none") from None
    blocks = list(commands.blocks())
    irregular = sum(
        len(pattern) * times for pattern, times in blocks if pattern != ITERATION and pattern[0].name != NEXT
    )
    if (
        not blocks
        or irregular > MAX_IRREGULAR_COMMANDS
        or any(each.goes_back for pattern, _ in blocks for each in pattern)
    ):
        raise ValueError("its commands are not such as run in one line")
    return commands


def closing_line(when: float, loss: float | str | None) -> str:
    """Return the line that says when the run was left in order, in seconds since the epoch, and with which loss."""
    return json.dumps({"left": when, "loss": loss}) + "\n"


def header_line(config: RunConfig, *, started: float) -> str:
    """Return the first line; `started` is a time in seconds since the epoch."""
    fields = asdict(config)
    if all(map(os.path.isabs, config.named.values())):
        del fields["folder"]  # which nobody needs to know
    if not config.script:
        del fields["script"]
    elif config.folder:
        fields["folder"] = config.folder  # where its command line is meant
    return json.dumps({"autograd-tui journal": FORMAT, "columns": COLUMNS, "started": started, **fields}) + "\n"


def parse_closing_line(line: bytes) -> Mapping[str, Any]:
    """Read the line that says when the run was left, and with which loss; raises ValueError where it is none."""
    left = _read_json(line)
    if not isinstance(left, dict) or not isinstance(left.get("left"), (int, float)):
        raise ValueError("it does not say when the run was left")
    _check_number("loss", left.get("loss"))
    return left


def parse_header_line(line: bytes, *, path: str) -> tuple[RunConfig, float]:
    """Read the first line; raises Refused where it is no journal's."""
    try:
        header = _read_json(line)
        number = header["autograd-tui journal"] if isinstance(header, dict) else None
        if type(number) is int and number != FORMAT:
            raise Refused(f"{path} is a journal of format {number}, and this version reads format {FORMAT}.")
        if number != FORMAT:
            raise ValueError("it names no format")
        return _run_config(header), _time(header["started"])
    except (ValueError, KeyError, UnknownCommand) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise Refused(f"{path} is no journal: its first line says nothing that opens a run ({why}).") from None


# What the header's fields may hold. A scenario's own options are plain values, and never bear the name of an argument.
_NUMBER = (int, float)
_ARGUMENT_TYPES: dict[str, tuple[type, ...]] = {
    "seed": (int,),
    "device": (str,),
    "threads": (int,),
    "optimizer": (str,),
    "lr": _NUMBER,
    "momentum": _NUMBER,
    "weight_decay": _NUMBER,
    "decay": (str,),
    "memory": (int, str),
    "state": (str,),
    "deterministic": (bool,),
}
_HASH = "[0-9a-f]{64}"
_MAX_TIME = 253402214400  # seconds since the epoch: the last day that a calendar of ours has


def _run_config(header: Mapping[str, Any]) -> RunConfig:
    """Return what opens the run; raises ValueError or KeyError where the header does not say it."""
    arguments, own, versions, sha256 = (header[name] for name in ("arguments", "own", "versions", "sha256"))
    if not (isinstance(arguments, dict) and isinstance(own, dict) and isinstance(versions, dict)):
        raise ValueError("it lists no options")
    for name, value in arguments.items():
        if type(value) not in _ARGUMENT_TYPES.get(name, ()) or not _is_plain(value):
            raise ValueError("an option of it is none")
    if any(name in _ARGUMENT_TYPES or name == "scenario" for name in own):
        raise ValueError("an option of its scenario is none")
    if not all(map(_is_plain, own.values())) or not all(isinstance(each, str) for each in versions.values()):
        raise ValueError("an option of its scenario, or a version, is none")
    if not (sha256 is None or _is_hash(sha256)):
        raise ValueError("its scenario's hash is none")
    scenario, device, threads = header["scenario"], header["device"], header["threads"]
    if not (_is_name(scenario) and _is_name(device) and _is_index(threads)):
        raise ValueError("its scenario, device or number of threads is none")
    folder = header.get("folder")
    if not (folder is None or _is_name(folder)):
        raise ValueError("its folder is none")
    environment: dict[str, Any] = {"device": device, "threads": threads, "versions": versions, "sha256": sha256}
    script = header.get("script", [])
    if not (isinstance(script, list) and all(isinstance(each, str) for each in script)):
        raise ValueError("the words of its script are none")
    environment |= {"hashes": _hashes(header.get("hashes")), "folder": folder, "script": tuple(script)}
    environment |= {"digest_version": _digest_version(header.get("digest_version", 1))}
    return RunConfig(scenario, _with_min_lr(arguments), own, **environment)


def _digest_version(value: object) -> int:
    """Read which numbers the digests are of; journals did not say it while there was one version."""
    if type(value) is not int or not 1 <= value <= DIGEST_VERSION:
        raise ValueError(
            f"its digests are of version {value}, and this version of autograd-tui reads 1 to {DIGEST_VERSION}"
        )
    return value


def _time(value: object) -> float:
    if type(value) not in _NUMBER or not 0 <= value < _MAX_TIME:  # type: ignore[operator]
        raise ValueError("it does not say when it was begun")
    return float(value)  # type: ignore[arg-type]


def _is_name(value: object) -> bool:
    """Return whether a value is a text as paths and names are."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_LENGTH and "\0" not in value


def _is_plain(value: object, depth: int = 4) -> bool:
    """Return whether a value is one that an option has: a number, a text, or a few of them."""
    if isinstance(value, (list, dict)):
        inside = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_plain(each, depth - 1) for each in inside)
    return not isinstance(value, int) or abs(value) < 1 << 62


def _hashes(value: Any) -> Mapping[str, str | None] | None:
    """Read which options name files, and their hashes; None where a journal of old does not say."""
    if value is None:
        return None
    if not isinstance(value, dict) or not all(each is None or _is_hash(each) for each in value.values()):
        raise ValueError("a hash of its files is none")
    return value


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(_HASH, value) is not None


def _with_min_lr(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with the decay's min_lr, which is 0 where an older version wrote none."""
    decay = arguments.get("decay")
    return {**arguments, **({} if decay is None else {"decay": str(LrDecay.parse(decay, min_lr=0.0))})}
