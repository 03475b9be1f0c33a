"""Find a scenario by what the command line calls it: "linear", "resnet18", "my_model.py", "my_model.py:name"."""

from __future__ import annotations

import importlib
import importlib.util
import os.path
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import absolute, go_to, other_kind, working_folder
from autograd_tui.core.run_config import BUILT_IN, installed
from autograd_tui.core.run_observer import Interrupted
from autograd_tui.core.terminal_text import quoted
from autograd_tui.engine.training.interruption import Interrupt, interruptible
from autograd_tui.engine.training.scenario import Scenario
from autograd_tui.engine.training.user_code import ForkGuard, in_words, is_user_error, place_of
from autograd_tui.scenarios.script_scenario import script_scenario

MAX_NAME_LENGTH = 60  # characters of a name that is compared, or shown in a sentence


def find(name: str) -> Scenario:
    """Return the scenario; raises Refused with one sentence where there is none."""
    if name in BUILT_IN:
        return _own_scenarios(importlib.import_module(f"autograd_tui.scenarios.{name}"))[name]
    path, colon, wanted = name.rpartition(":")
    if not (colon and path.endswith(".py")):
        path, wanted = name, ""
    if path.endswith(".py"):
        return _in_file(path, wanted)
    if entry_point := installed().get(name):
        return _installed(entry_point)
    raise Refused(_unknown(name))


def _in_file(path: str, wanted: str) -> Scenario:
    if not os.path.exists(path):  # which, unlike Path, has an answer for any text
        raise Refused(f'there is no file "{path}"{_nearest(path, _python_files())}.')
    if kind := other_kind(os.stat(path).st_mode):
        raise Refused(f'"{path}" is {kind}, and no file.')
    folder = working_folder()  # which its code may leave
    file = Path(absolute(path, folder))
    module = _load(file)
    matches = _own_scenarios(module)
    if wanted and wanted not in matches:
        raise Refused(f'{path} holds no scenario "{wanted}"{": it has " + ", ".join(matches) if matches else ""}.')
    if len(matches) > 1 and not wanted:
        raise Refused(f"{path} holds several scenarios: name one, as in {path}:{next(iter(matches))}.")
    if matches:
        return matches[wanted or next(iter(matches))]
    try:
        return script_scenario(file.name, vars(module), lambda: vars(_load(file, folder)))
    except Refused as error:
        as_it_is = f"autograd-tui script {quoted(path)} steps a training script as it is"
        hint = "put @scenario(...) above its build function, or name the parts of the loop in it"
        raise Refused(f"{path} holds no scenario: {as_it_is}; or {hint}: {error}") from None


def _installed(entry_point: EntryPoint) -> Scenario:
    """Return the scenario that a package has registered."""
    title = f"the installed scenario {entry_point.name} ({entry_point.value})"
    try:
        with ForkGuard():
            loaded = entry_point.load()
    except BaseException as error:
        if not is_user_error(error):
            raise
        raise Refused(f"{title} could not be imported: {in_words(error)}") from error
    if not isinstance(loaded, Scenario):
        raise Refused(f"{title} is a {type(loaded).__name__}, not what @scenario makes.")
    return loaded


def _unknown(name: str) -> str:
    if name.endswith(".ipynb"):
        script = name.removesuffix("ipynb") + "py"
        return (
            f'"{name}" is a notebook: jupyter nbconvert --to script {name} makes {script} of it, which can be opened.'
        )
    if os.path.isdir(name):
        return f'"{name}" is a folder: name a file in it, such as {os.path.join(name, "my_model.py")}.'
    names = [*BUILT_IN, *installed()]
    short = name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"
    hint = _nearest(name, [*names, *_python_files()]) or f": use {', '.join(names)}, or a file such as my_model.py"
    return f'there is no scenario "{short}"{hint}.'


def _nearest(name: str, choices: Iterable[str]) -> str:
    """Return a hint at the name that was probably meant; "" where none is like it."""
    close = get_close_matches(name, choices, n=1) if len(name) <= MAX_NAME_LENGTH else []
    return f": the nearest is {close[0]}" if close else ""


def _python_files() -> list[str]:
    return [path.name for path in sorted(Path().glob("*.py"))]


def _load(path: Path, folder: str | None = None) -> ModuleType:
    go_to(folder)
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise Refused(f"{path} cannot be read as Python.")
    module, loader = importlib.util.module_from_spec(spec), spec.loader
    sys.path.insert(0, str(path.parent))  # as `python my_model.py` would: its neighbours can be imported
    sys.modules.setdefault(path.stem, module)
    try:
        with ForkGuard():
            interruptible(lambda: loader.exec_module(module))
    except Refused as error:
        raise Refused(f"{path.name} could not be read: {error}") from error
    except Interrupt as error:
        raise Interrupted(f"{path.name} was interrupted while it was read{place_of(error)}.") from error
    except BaseException as error:
        if not is_user_error(error):
            raise
        raise Refused(f"{path.name} could not be read: {in_words(error)}") from error
    return module


def _own_scenarios(module: ModuleType) -> dict[str, Scenario]:
    """Return the module's own scenarios by the names of their build functions."""
    matches = ((name, each) for name, each in vars(module).items() if issubclass(type(each), Scenario))
    own = ((name, each) for name, each in matches if getattr(each.build, "__module__", None) == module.__name__)
    return {getattr(each.build, "__name__", name): each for name, each in own}
