"""Find a scenario by what the command line calls it: "linear", "resnet18", "my_model.py", "my_model.py:name"."""

from __future__ import annotations

import importlib
import importlib.util
import os.path
import sys
from pathlib import Path
from types import ModuleType

from autograd_tui.engine.errors import Refused
from autograd_tui.engine.loop import theirs
from autograd_tui.engine.raised import in_words
from autograd_tui.engine.scenario import Scenario

BUILT_IN = ("linear", "resnet18")


def find(name: str) -> Scenario:
    """Give the scenario; raises Refused with one sentence where there is none."""
    if name in BUILT_IN:
        return _scenarios(importlib.import_module(f"autograd_tui.scenarios.{name}"))[name]
    path, colon, wanted = name.rpartition(":")
    if not (colon and path.endswith(".py")):
        path, wanted = name, ""
    if not path.endswith(".py"):
        raise Refused(f'there is no scenario "{name}": use linear, resnet18, or a file such as my_model.py.')
    if not os.path.isfile(path):  # which, unlike Path, has an answer for any text
        raise Refused(f'there is no file "{path}".')
    found = _scenarios(_load(Path(path)))
    if not found:
        raise Refused(f"{path} holds no scenario: put @scenario(...) above its build function.")
    if wanted:
        if wanted not in found:
            raise Refused(f'{path} holds no scenario "{wanted}": it has {", ".join(found)}.')
        return found[wanted]
    if len(found) > 1:
        raise Refused(f"{path} holds several scenarios: name one, as in {path}:{next(iter(found))}.")
    return next(iter(found.values()))


def _load(path: Path) -> ModuleType:
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise Refused(f"{path} cannot be read as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # as `python my_model.py` would: its neighbours can be imported
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        if not theirs(error):
            raise
        raise Refused(f"{path.name} could not be read: {in_words(error)}") from error
    return module


def _scenarios(module: ModuleType) -> dict[str, Scenario]:
    """Give the module's own scenarios by the names of their build functions."""
    found = (each for each in vars(module).values() if isinstance(each, Scenario))
    return {each.build.__name__: each for each in found if each.build.__module__ == module.__name__}
