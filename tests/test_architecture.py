"""The walls between the rooms: what a part may import, also inside its functions."""

from __future__ import annotations

import ast
import json
import re
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
    "export/tensorboard": {"torch.utils.tensorboard", "numpy", "autograd_tui.export", "autograd_tui.text", *PLAIN},
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


OPENED_ELSEWHERE = {"read_text": {"export/page.py"}, "load": {"engine/training/saved.py", "journal/tensors.py"}}
OPENERS = ("open", "write_text", "write_bytes", "read_text", "read_bytes", "touch", "save_screenshot", "mkstemp")
MODE = re.compile(r"[rwxa+bt]+")


def opens_a_file(call: ast.Call) -> str | None:
    """Give the name by which a call opens a file, by any way but that of `engine/values/files.py`."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    of, first = ast.unparse(call.func).rpartition(".")[0], ast.unparse(call.args[0]) if call.args else "''"
    if of == "os" and name == "open":
        return None if first == "os.devnull" else name
    if of and name == "open":  # of a path, which takes a mode, or of something else
        return name if MODE.fullmatch(first.strip("'")) or not call.args else None
    if of == "torch" and name in ("load", "save"):
        return "load"
    return name if name in OPENERS else None


@pytest.mark.parametrize(
    "written", ["open(path)", "path.open('w')", "path.open()", "os.open(path, 0)", "torch.save(a, b)"]
)
def test_the_ways_to_open_a_file_are_known(written: str) -> None:
    assert opens_a_file(ast.parse(written, mode="eval").body)  # type: ignore[arg-type]


def test_files_are_opened_in_one_place() -> None:
    """It follows no link to make one, and waits for no pipe."""
    for file in FILES:
        for node in ast.walk(ast.parse((SOURCE / file).read_text(encoding="utf-8"))):
            name = opens_a_file(node) if isinstance(node, ast.Call) else None
            known = file == "engine/values/files.py" or file in OPENED_ELSEWHERE.get(name or "", ())
            assert name is None or known, f"{file}, line {node.lineno}: {name} opens a file"  # type: ignore[attr-defined]


PRINTERS = ("engine/values/printed.py", "tui/watchdog.py")  # the latter nothing but what it holds itself


def prints(call: ast.Call) -> bool:
    """Tell whether a call writes to standard output or standard error."""
    called = ast.unparse(call.func)
    stream = re.fullmatch(r"(.*\.)?(__)?std(out|err)(__)?(\.buffer)?\.write(lines)?|os\.write", called)
    onto_one = called != "os.write" or ast.unparse(call.args[0]) in ("1", "2")
    return called in ("print", "pprint") or called.startswith("traceback.print_") or bool(stream and onto_one)


@pytest.mark.parametrize(
    "written", ["print(x)", "sys.stderr.write(x)", "sys.__stdout__.write(x)", "traceback.print_exc()", "os.write(2, x)"]
)
def test_the_ways_to_print_are_known(written: str) -> None:
    assert prints(ast.parse(written, mode="eval").body)  # type: ignore[arg-type]


def test_text_goes_to_a_terminal_in_one_place() -> None:
    """It takes out what a terminal would obey, whoever wrote it."""
    for file in FILES:
        for node in ast.walk(ast.parse((SOURCE / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and file not in PRINTERS:
                assert not prints(node), f"{file}, line {node.lineno} prints: `say` and `print_lines` do that"


def test_no_pattern_is_made_of_a_name_that_a_user_gave() -> None:
    for file in FILES:
        for node in ast.walk(ast.parse((SOURCE / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("glob", "rglob", "fnmatch", "filter"):
                names = {each.id for each in ast.walk(node.args[0]) if isinstance(each, ast.Name)} if node.args else {}
                assert all(map(str.isupper, names)), f"{file}, line {node.lineno}"
