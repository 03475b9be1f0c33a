"""The first line of a file of drawn frames: what the run is, and how it went before them."""

from __future__ import annotations

import json
from array import array
from base64 import b64encode
from dataclasses import asdict, fields
from typing import Any

from autograd_tui.engine.values.about import About
from autograd_tui.engine.values.history import History, Series
from autograd_tui.engine.values.opening import Opening
from autograd_tui.journal.checked import made, strict, unpacked

FORMAT = 2


def first_line(about: About, history: History, *, run: str) -> str:
    """Write what the run is, and how it went so far; `run` tells it from others of the same name."""
    first = {"autograd-tui frames": FORMAT, "run": run, "about": asdict(about), "history": columns(history)}
    return json.dumps(first) + "\n"


def read_first_line(line: bytes, *, run: str) -> tuple[About, History]:
    """Read it back; raises ValueError where it is none, or of another run."""
    try:
        first = strict(line)
        if first["autograd-tui frames"] != FORMAT:
            raise ValueError(f"it is of another format than {FORMAT}, which this version reads")
        if first.get("run", run) != run:  # older versions did not say
            raise ValueError("the frames are those of another run, which had its name")
        about = first["about"]
        listing, tied = (
            {name: tuple(texts) for name, texts in about.pop(what).items()} for what in ("listing", "tied")
        )
        opening = made(Opening, about.pop("opening"))
        tuples = {name: tuple(value) for name, value in about.items() if isinstance(value, list)}
        rest = {"opening": opening, "listing": listing, "tied": tied}
        return made(About, {**about, **tuples, **rest}), read_columns(first["history"])
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no first line: {error}") from None


def columns(history: History) -> dict[str, Any]:
    """Write all columns."""
    series = {name: getattr(history, name) for name in ("loss", "grad_norm", "learning_rate")}
    metrics = {name: written(column) for name, column in history.metrics.items()}
    return {name: written(column) for name, column in series.items()} | {"metrics": metrics}


def read_columns(plain: Any) -> History:
    """Read them back; raises ValueError where they are none."""
    try:
        metrics = {name: read_series(column) for name, column in plain["metrics"].items()}
        loss, grad_norm, learning_rate = (read_series(plain[name]) for name in ("loss", "grad_norm", "learning_rate"))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no history: {error}") from None
    return History(loss, grad_norm, learning_rate, metrics)


def written(series: Series) -> list[Any]:
    """Write a column."""
    return [
        series.capacity,
        series.stretch,
        *(_packed(each) for each in (series.indices, series.iterations, series.values)),
    ]


def read_series(column: Any) -> Series:
    """Read a column back; raises ValueError where it is none."""
    if not isinstance(column, list) or len(column) != len(fields(Series)):
        raise ValueError("no column")
    capacity, stretch, *columns = column
    indices, iterations, values = map(unpacked, "qqd", columns)
    names = (each.name for each in fields(Series))
    return made(Series, dict(zip(names, (capacity, stretch, indices, iterations, values), strict=True)))


def _packed(column: array[Any]) -> str:
    return b64encode(column.tobytes()).decode()
