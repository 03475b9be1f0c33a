"""The walls between the rooms: what a part may import, also inside its functions."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
SOURCE = TOP / "src" / "autograd_tui"
PLAIN = {"autograd_tui.engine.values"}  # standard library only: anyone may import them
ENGINE = {"torch", "autograd_tui.engine"}
ROOMS = {  # by the longest beginning that fits
    "__": {"autograd_tui"},
    "cli": {"autograd_tui"},
    "headless": {"autograd_tui.engine.session", "autograd_tui.text", *PLAIN},
    "open": {*ENGINE, "autograd_tui.scenarios", "autograd_tui.__version__"},
    "engine/": ENGINE,
    "engine/values/": PLAIN,
    "engine/training/saved": {*ENGINE, "safetensors"},
    "engine/training/stats": {*ENGINE, "numpy"},
    "scenarios/": {
        "torch",
        "torchvision",
        "autograd_tui.engine.training.scenario",
        "autograd_tui.engine.training.options",
    },
    "journal/": {"autograd_tui.journal", *PLAIN},
    "journal/check": {*ENGINE, "autograd_tui.journal"},
    "journal/resuming": {*ENGINE, "autograd_tui.journal"},
    "journal/tensors": {*ENGINE, "autograd_tui.journal"},
    "journal/plain_state": ENGINE,
    "journal/folder": {"platformdirs", *PLAIN},
    "scenarios/find": {
        "autograd_tui.engine.values.errors",
        "autograd_tui.engine.values.files",
        "autograd_tui.engine.training.loop",
        "autograd_tui.engine.values.process",
        "autograd_tui.engine.training.raised",
        "autograd_tui.engine.training.scenario",
        "autograd_tui.engine.values.scenario_names",
        "autograd_tui.scenarios.plain_names",
    },
    "scenarios/picture": {"torch", "PIL", *PLAIN},
    "scenarios/left_out": set(),
    "scenarios/plain_names": {*ENGINE, "autograd_tui.scenarios.left_out"},
    "scenarios/resnet18": {
        "torch",
        "torchvision",
        "autograd_tui.engine.training.options",
        "autograd_tui.engine.training.scenario",
        "autograd_tui.scenarios.picture",
        "autograd_tui.scenarios.weights",
    },
    "scenarios/transformer": {
        "torch",
        "autograd_tui.engine.values.errors",
        "autograd_tui.engine.training.options",
        "autograd_tui.engine.training.scenario",
    },
    "scenarios/weights": ENGINE,
    "text/": {"autograd_tui.text", *PLAIN},
    "text/plot": {"autograd_tui.text", "plotext", *PLAIN},
    "export/": {"autograd_tui.export", "autograd_tui.text", *PLAIN},
    "export/beside": {*ENGINE, "autograd_tui.export", "autograd_tui.open"},
    "export/screens": {"textual", "rich", "autograd_tui.export", "autograd_tui.tui", *PLAIN},
    "export/markup": {"rich", "autograd_tui.export"},
    "export/tensorboard": {"torch.utils.tensorboard", "numpy", "autograd_tui.export", *PLAIN},
    "tui/": {"textual", "rich", "autograd_tui.tui", "autograd_tui.text", *PLAIN},
    "tui/trainer_thread": {"autograd_tui.export.beside", "autograd_tui.tui", "autograd_tui.text", *PLAIN},
    "tui/choices": {"platformdirs", *PLAIN},
}
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


def imports(node: ast.AST) -> Iterator[str]:
    """Give what a file imports, at the top or in a function; what types alone need does not count."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (each.name for each in node.names)
    if isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        yield from (f"{node.module}.{each.name}" for each in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imports(child)


def test_files_stay_in_their_rooms() -> None:
    for file in FILES:
        room = max((room for room in ROOMS if file.startswith(room)), key=len, default="no room")
        for name in imports(ast.parse((SOURCE / file).read_text(encoding="utf-8"))):
            inside = any(f"{name}.".startswith(f"{allowed}.") for allowed in ROOMS[room])
            assert inside or name.split(".")[0] in sys.stdlib_module_names, f"{file} imports {name}"


FRESH = """
import json, sys
import autograd_tui, autograd_tui.cli
first = sorted(sys.modules)
autograd_tui.cli.main(["linear", "--headless", "--do", "fbsz", "--json"])
print(json.dumps([first, sorted(sys.modules)]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def modules() -> tuple[set[str], set[str]]:
    """Give what a fresh interpreter has after importing the command line, and after running the line headless."""
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    first, then = json.loads(done.stderr.splitlines()[-1])
    return set(first), set(then)


@pytest.mark.parametrize("library", ["torch", "numpy", "textual", "rich", "plotext"])
def test_the_command_line_is_ready_without(library: str, modules: tuple[set[str], set[str]]) -> None:
    assert library not in modules[0]


@pytest.mark.parametrize("library", ["torchvision", "textual", "rich", "plotext"])
def test_the_line_runs_headless_without(library: str, modules: tuple[set[str], set[str]]) -> None:
    assert library not in modules[1]


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    places = ["/" + name + "/" for name in ("work", "root")]
    for path in [*SOURCE.rglob("*.py"), *(TOP / "tests").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not [place for place in places if place in text], path
