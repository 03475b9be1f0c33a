"""A forward of a script that runs by itself: the text of the parts that a file is made of, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScriptRepro:
    """What a script needs besides the file of tensors beside it. Each line is Python, without indentation around it."""

    frame: int  # that the forward led to
    iteration: int
    loss: str  # as Python writes the number: "0.6931471824645996", "nan"
    python: str  # the interpreter that has run the script
    versions: Mapping[str, str]  # by package
    future: tuple[str, ...]  # imports from __future__, of the script's own
    imports: tuple[str, ...]
    folders: Mapping[str, list[str]]  # that modules of the user's own are imported from, with their names
    definitions: tuple[str, ...]  # of the script's own: classes, functions, constants
    names: tuple[str, ...]  # of what the file of tensors holds, each a variable
    settings: tuple[str, ...]
    calls: tuple[str, ...]  # that make the loss, from the model's on
    result: str  # the variable of the loss
    parameters: tuple[str, ...]  # expressions, each an item of a dict of the parameters by name
    notes: tuple[str, ...] = ()  # sentences on what it leaves out
