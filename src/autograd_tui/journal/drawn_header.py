"""The first line of a file of drawn frames: what the run is, and how it went before them."""

from __future__ import annotations

import json
from array import array
from base64 import b64decode, b64encode
from dataclasses import asdict, fields
from typing import Any

from autograd_tui.engine.about import About
from autograd_tui.engine.errors import Refused
from autograd_tui.engine.history import History, Series
from autograd_tui.engine.opening import Opening


def first_line(about: About, history: History) -> str:
    """Write what the run is, and how it went so far."""
    columns = {field.name: written(getattr(history, field.name)) for field in fields(History)}
    return json.dumps({"autograd-tui frames": 1, "about": asdict(about), "history": columns}) + "\n"


def read_first_line(line: bytes) -> tuple[About, History]:
    """Read it back; raises Refused where it is none."""
    try:
        first = json.loads(line)
        about, columns = first["about"], first["history"]
        listing = {phase: tuple(source) for phase, source in about.pop("listing").items()}
        opening = Opening(**about.pop("opening"))
        tuples = {name: tuple(value) for name, value in about.items() if isinstance(value, list)}
        history = History(**{name: read_series(*column) for name, column in columns.items()})
        return About(**about | tuples, opening=opening, listing=listing), history
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"this is no run that can be followed: {error}.") from None


def written(series: Series) -> list[Any]:
    """Write a column."""
    return [
        series.capacity,
        series.stretch,
        *(_packed(each) for each in (series.indices, series.iterations, series.values)),
    ]


def read_series(capacity: int, stretch: int, indices: str, iterations: str, values: str) -> Series:
    """Read a column back."""
    return Series(capacity, stretch, _unpacked("q", indices), _unpacked("q", iterations), _unpacked("d", values))


def _packed(column: array[Any]) -> str:
    return b64encode(column.tobytes()).decode()


def _unpacked(typecode: str, text: str) -> array[Any]:
    column: array[Any] = array(typecode)
    column.frombytes(b64decode(text))
    return column
