"""The first line of a file of drawn frames: what the run is, and how it went before them."""

from __future__ import annotations

import json
from array import array
from base64 import b64decode, b64encode
from dataclasses import asdict
from typing import Any

from autograd_tui.engine.values.about import About
from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.history import History, Series
from autograd_tui.engine.values.opening import Opening


def first_line(about: About, history: History, *, run: str) -> str:
    """Write what the run is, and how it went so far; `run` tells it from others of the same name."""
    first = {"autograd-tui frames": 2, "run": run, "about": asdict(about), "history": columns(history)}
    return json.dumps(first) + "\n"


def read_first_line(line: bytes, *, run: str) -> tuple[About, History]:
    """Read it back; raises Refused where it is none, or of another run."""
    try:
        first = json.loads(line)
        if first.get("run", run) != run:  # older versions did not say
            raise Refused("the frames that lie beside this journal are those of another run, which had its name.")
        about = first["about"]
        listing, tied = (
            {name: tuple(texts) for name, texts in about.pop(what).items()} for what in ("listing", "tied")
        )
        opening = Opening(**about.pop("opening"))
        tuples = {name: tuple(value) for name, value in about.items() if isinstance(value, list)}
        return About(**about | tuples, opening=opening, listing=listing, tied=tied), read_columns(first["history"])
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"this is no run that can be followed: {error}.") from None


def columns(history: History) -> dict[str, Any]:
    """Write all columns."""
    series = {name: getattr(history, name) for name in ("loss", "grad_norm", "learning_rate")}
    metrics = {name: written(column) for name, column in history.metrics.items()}
    return {name: written(column) for name, column in series.items()} | {"metrics": metrics}


def read_columns(plain: dict[str, Any]) -> History:
    """Read them back."""
    metrics = {name: read_series(*column) for name, column in plain["metrics"].items()}
    loss, grad_norm, learning_rate = (read_series(*plain[name]) for name in ("loss", "grad_norm", "learning_rate"))
    return History(loss, grad_norm, learning_rate, metrics)


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
