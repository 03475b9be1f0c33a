"""The lines of a journal: a header, then one for each command that ran."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from autograd_tui.engine.values.command import Commands, parse
from autograd_tui.engine.values.errors import NotUnderstood, Refused
from autograd_tui.engine.values.frame import TorchError
from autograd_tui.engine.values.opening import Opening
from autograd_tui.engine.values.optimizer_spec import Decay
from autograd_tui.engine.values.recording import Step, Stretch

FORMAT = 1
COLUMNS = ("id", "parent", "command", "digest")
MORE = ("start", "raised", "said", "left", "loss")


@dataclass(frozen=True, slots=True)
class Entry:
    """What ran, or where training went back to.

    The line in the file is the JSON list [id, parent, command, digest], and behind these, where there is anything
    else to say, an object with the other fields.
    """

    id: int  # the number of the line, from 1
    parent: int  # the line that it goes on from; 0 for frame 0
    command: str  # its spelling; several where they ran freely: "fbsz*57"; "@3" and "branch=2" run nothing
    digest: str  # of the frame that it led to
    start: int | None = None  # the frame that it goes on from, where that is not the parent's last one
    raised: str | None = None  # the type of what its one command raised
    said: Sequence[Any] | None = None  # and its message, file, line, call and code, in journals of old the first three
    left: float | str | None = None  # the last loss of the run that it leaves for another one, as strict JSON has it
    loss: float | str | None = None  # of the frame that it led to, where that is not the one of the line before

    @property
    def goes_back(self) -> bool:
        """Whether it runs nothing, and only says where training stands."""
        return self.command.startswith(("@", "branch="))

    def commands(self) -> Commands:
        """Give what ran."""
        return Commands() if self.goes_back else _parsed(self.command)

    def stretches(self) -> list[Stretch]:
        """Give what ran with what it raised."""
        blocks = self.commands().blocks()
        return [Stretch(tuple(Step(each, self.raised) for each in pattern), times) for pattern, times in blocks]

    @property
    def error(self) -> TorchError | None:
        """Give what its one command raised, as far as the line tells."""
        if self.raised is None:
            return None
        message, file, line, *where = self.said or ("", "", 0)
        return TorchError(self.raised, str(message), str(file), int(line), *map(str, where[:2]))

    def line(self) -> str:
        """Write it as a line of the file."""
        more = {name: value for name in MORE if (value := getattr(self, name)) is not None}
        listed = [self.id, self.parent, self.command, self.digest, *([more] if more else [])]
        return json.dumps(listed, separators=(",", ":")) + "\n"

    @classmethod
    def read(cls, line: str) -> Entry:
        """Read a line; raises ValueError where it is none."""
        listed = json.loads(line)
        if not isinstance(listed, list) or len(listed) not in (4, 5):
            raise ValueError("no list of id, parent, command and digest")
        number, parent, command, digest, *more = listed
        entry = cls(int(number), int(parent), str(command), str(digest), **(more[0] if more else {}))
        try:
            entry.commands()
        except NotUnderstood as error:
            raise ValueError(str(error)) from None
        return entry


@lru_cache(maxsize=256)
def _parsed(command: str) -> Commands:
    """Read commands; a journal holds the same few again and again."""
    return parse(command)


def left_line(when: float, loss: float | str | None) -> str:
    """Write that the run was left in order at a time, in seconds since the epoch, and with which loss."""
    return json.dumps({"left": when, "loss": loss}) + "\n"


def header_line(opening: Opening, *, started: float) -> str:
    """Write the first line; `started` is a time in seconds since the epoch."""
    return (
        json.dumps({"autograd-tui journal": FORMAT, "columns": COLUMNS, "started": started, **asdict(opening)}) + "\n"
    )


def read_header(line: str, *, path: str) -> tuple[Opening, float]:
    """Read the first line; raises Refused where it is no journal's."""
    try:
        header: Mapping[str, Any] = json.loads(line)
        number = header["autograd-tui journal"]
        if number != FORMAT:
            raise Refused(f"{path} is a journal of format {number}, and this version reads format {FORMAT}.")
        opening = Opening(
            str(header["scenario"]),
            _with_least_rate(header["arguments"]),
            dict(header["own"]),
            device=str(header["device"]),
            threads=int(header["threads"]),
            versions=dict(header["versions"]),
            sha256=header["sha256"],
        )
        return opening, float(header["started"])
    except (ValueError, KeyError, TypeError):
        raise Refused(f"{path} is no journal: its first line says nothing that opens a run.") from None


def _with_least_rate(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Name the decay's least learning rate: 0 in journals from before there was one."""
    decay = arguments.get("decay")
    return {**arguments, **({} if decay is None else {"decay": str(Decay.parse(str(decay), min_lr=0.0))})}
