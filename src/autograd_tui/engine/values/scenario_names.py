"""The scenarios that a name alone opens: the built-in ones, and those that installed packages bring."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

BUILT_IN = {
    "linear": "a line, two parameters",
    "resnet18": "62 parameters, 11,689,512 values",
    "spiral": "two spirals, one hidden layer",
    "lstm": "a memory that continues sines",
    "transformer": "a tiny one that learns a text",
}
GROUP = "autograd_tui.scenarios"


def installed() -> dict[str, EntryPoint]:
    """Give the scenarios of other packages by name; nothing of theirs is imported."""
    return {each.name: each for each in entry_points(group=GROUP) if each.name not in BUILT_IN}
