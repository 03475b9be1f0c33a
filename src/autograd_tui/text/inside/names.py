"""What the walk can run to, by name."""

from __future__ import annotations

from autograd_tui.engine.values.trace import Trace
from autograd_tui.text.inside.walk import names_of
from autograd_tui.text.line import one_line
from autograd_tui.text.numbers import count
from autograd_tui.text.word_list import Candidate, listed


def names_to_find(trace: Trace, part: str) -> list[Candidate]:
    """Give the modules, operations and parameters with a part in their names, each with where it first comes."""
    first: dict[str, int] = {}
    for op in trace.ops:
        for path in (*_around(op.module), *names_of(op)):
            first.setdefault(path, op.number)
    wanted = part.casefold()
    places = len(trace.ops)
    fitting = {one_line(name): place for name, place in first.items() if wanted in name.casefold()}
    return listed({name: f"operation {count(place + 1)} of {count(places)}" for name, place in fitting.items()}, "/")


def _around(module: str) -> list[str]:
    """Give the modules around one: layer1, layer1.0 of layer1.0.bn1."""
    parts = module.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]
