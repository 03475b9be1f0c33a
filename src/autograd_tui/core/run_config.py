"""The configuration of a run: what opens a session at frame 0, enough to open the same one again."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import found_in, read_file, working_folder
from autograd_tui.core.optimizer_spec import format_number
from autograd_tui.core.terminal_text import quoted

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

FLAG_OPTIONS = (
    "batch_size",
    "image_size",
    "data",
    "weights",
    "hub_dir",
    "image",
)  # a scenario's own options that have a flag of their own
# Of the frames' digests: those of version 3 are of fewer columns, and in those of version 1 min and max are of all
# values, however many.
DIGEST_VERSION = 3


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A scenario and what was asked of it, and what it ran on; values that JSON can hold."""

    scenario: str  # as the command line names it
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of `open_session`, those alone that were given
    own: Mapping[str, Any] = field(default_factory=dict)  # the scenario's own options, those that were given
    device: str = "cpu"  # the one chosen
    threads: int = 1  # that PyTorch uses on the CPU
    versions: Mapping[str, str] = field(default_factory=dict)  # by package
    sha256: str | None = None  # of the scenario's file, where it is one
    # By option that names a file, the sha256 of that, and None for a folder; None where the journal does not know.
    hashes: Mapping[str, str | None] | None = None
    folder: str | None = field(default=None, compare=False)  # from where relative names of such files are meant
    script: tuple[str, ...] = ()  # the words behind "autograd-tui script", where a script of the user's own runs
    digest_version: int = DIGEST_VERSION  # which numbers its frames have, and its journal's digests are of

    @property
    def named(self) -> dict[str, str]:
        """The files and folders that options name, by option, as they were given."""
        both = {**self.arguments, **self.own}
        return {name: str(both[name]) for name in self.hashes or () if name in both}

    def changed(self, now: RunConfig) -> list[str]:
        """Return the names of the files that are not now as they were."""
        before, after = self.hashes or {}, now.hashes or {}
        scenario = [now.scenario] * (self.sha256 != now.sha256)
        return scenario + [file for name, file in self.named.items() if before[name] != after.get(name)]

    @property
    def command_line(self) -> str:
        """The command line that opens it."""
        if self.script:
            return " ".join(map(quoted, ("autograd-tui", "script", *self.script)))
        words = ["autograd-tui", self.scenario]
        flags = {**self.arguments, **{name: value for name, value in self.own.items() if name in FLAG_OPTIONS}}
        for name, value in flags.items():
            words += ["--" + name.replace("_", "-"), *([] if value is True else [_written(value)])]
        for name, value in self.own.items():
            words += [] if name in FLAG_OPTIONS else ["--option", f"{name}={_written(value)}"]
        return " ".join(map(quoted, words))

    @property
    def files(self) -> dict[str, Path]:
        """The paths of what may be files that the run is made of, by what they are to it; some lead nowhere."""
        options = {**self.arguments, **self.own}
        texts = {"the scenario's own file": str(_file_of(self.scenario))}
        texts |= {f"the file given as {name}": value for name, value in options.items() if isinstance(value, str)}
        folders = self.folder, working_folder()
        return {what: Path(found_in(folders, value)) for what, value in texts.items()}


def _written(value: Any) -> str:
    return format_number(value) if isinstance(value, float) else str(value)


def sha256(scenario: str) -> str | None:
    """Return the hash of a scenario's file, "my_model.py" or "my_model.py:name"; None for one that is no file."""
    import hashlib  # here, since few starts need it

    path = _file_of(scenario)
    return hashlib.sha256(read_file(path)).hexdigest() if path.suffix == ".py" and os.path.isfile(path) else None


def _file_of(scenario: str) -> Path:
    """Return the file of a scenario, "my_model.py" or "my_model.py:name"; a path to nothing for one of no file."""
    return Path(scenario.rpartition(":")[0] if ".py:" in scenario else scenario)


DEFAULT_MEMORY = 1 << 30  # bytes
UNIT_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?) ?([kmg]i?b|b|)", re.IGNORECASE)


def read_size(text: str) -> int:
    """Read "1GiB", "500MB", "64MiB" or a plain number of bytes; raises Refused."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise Refused(f'--memory must be a size such as 1GiB, 500MB or a number of bytes, not "{text}".')
    return int(float(match[1]) * UNIT_BYTES[match[2].upper()])


def size_in_words(size: int) -> str:
    """Write a size as briefly as it is meant: 1 GiB, 64 MiB, 47 MB."""
    for unit in ("GiB", "MiB"):
        if size and size % UNIT_BYTES[unit.upper()] == 0:
            return f"{size // UNIT_BYTES[unit.upper()]} {unit}"
    unit = next((unit for unit in ("GB", "MB", "KB") if size >= UNIT_BYTES[unit]), "B")
    return f"{size / UNIT_BYTES[unit]:.3g} {unit.replace('K', 'k')}"


BUILT_IN = {
    "linear": "a line, two parameters",
    "resnet18": "62 parameters, 11,689,512 values",
    "spiral": "two spirals, one hidden layer",
    "lstm": "a memory that continues sines",
    "transformer": "a tiny one that learns a text",
}
ENTRY_POINT_GROUP = "autograd_tui.scenarios"


def installed() -> dict[str, EntryPoint]:
    """Return the scenarios of other packages by name; nothing of theirs is imported."""
    from importlib.metadata import entry_points

    return {each.name: each for each in entry_points(group=ENTRY_POINT_GROUP) if each.name not in BUILT_IN}
