"""The walls between the rooms: what a part may import, also inside its functions."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from autograd_tui.cli.torch_libraries import BEFORE, BESIDE

TOP = Path(__file__).parent.parent
SOURCE = TOP / "src" / "autograd_tui"
CORE = {"autograd_tui.core"}  # standard library only: anyone may import it
TRAINING = {"torch", "autograd_tui.engine.training", *CORE}
TRACING = {"autograd_tui.engine.tracing", *TRAINING}
REPLAY = {"autograd_tui.engine.replay", *TRAINING}
GRADCHECK = {"autograd_tui.engine.gradcheck", *TRACING, *REPLAY}
ENGINE = {"torch", "autograd_tui.engine", *CORE}
BUILDING = {"torch", "autograd_tui.engine.training.scenario"}  # what a user's own scenario imports
SCRIPT_LEADING = {  # in the screen's process, which waits for no torch
    "autograd_tui.engine.script.agent_client",
    "autograd_tui.engine.script.agent_messages",
    "autograd_tui.engine.script.script_process",
    "autograd_tui.engine.script.script_rewinder",
    "autograd_tui.engine.script.script_measurements",
    "autograd_tui.engine.script.script_timeline",
    *CORE,
}
WALLS = {  # by the longest beginning that fits
    "__": {"autograd_tui"},
    "cli": {"autograd_tui"},
    "cli/torch_libraries": set(),
    "headless": {"autograd_tui.engine.session", "autograd_tui.text", *CORE},
    "core/": CORE,
    "engine/training/": TRAINING,
    "engine/training/stats_reader": {"numpy", *TRAINING},
    "engine/training/still_counter": {"numpy", *TRAINING},
    "engine/training/accelerator": {"pynvml", *TRAINING},
    "engine/training/state_file": {"safetensors", *TRAINING},
    "engine/tracing/": TRACING,
    "engine/replay/": REPLAY,
    "engine/gradcheck/": GRADCHECK,
    "engine/repro": GRADCHECK,
    "engine/surface_sampler": {"autograd_tui.engine.surface_slice", *GRADCHECK},
    "engine/surface_slice": GRADCHECK,
    "engine/picture_taker": GRADCHECK,
    "engine/script/": {"autograd_tui.engine.script", *TRACING},
    "engine/script/agent_messages": CORE,
    "engine/script/agent_client": SCRIPT_LEADING,
    "engine/script/script_measurements": SCRIPT_LEADING,
    "engine/script/script_rewinder": SCRIPT_LEADING,
    "engine/script/script_session": {"autograd_tui.__version__", *SCRIPT_LEADING},
    "engine/script/script_timeline": SCRIPT_LEADING,
    "engine/script/script_process": {"autograd_tui.engine.script.agent_messages", *CORE},
    "engine/script/repeated_": {"autograd_tui.engine.script", *GRADCHECK},
    "engine/script/repeated_surface": {"autograd_tui.engine.script", "autograd_tui.engine.surface_slice", *GRADCHECK},
    "engine/script/sitecustomize/": {"autograd_tui.engine.script.agent"},
    "engine/session": ENGINE,
    "engine/open_session": {"autograd_tui.scenarios", "autograd_tui.__version__", *ENGINE},
    "scenarios/": {"torchvision", *BUILDING},
    "scenarios/find": {
        "autograd_tui.engine.training.interruption",
        "autograd_tui.engine.training.scenario",
        "autograd_tui.engine.training.user_code",
        "autograd_tui.scenarios.script_scenario",
        *CORE,
    },
    "scenarios/loop_check": set(),
    "scenarios/script_scenario": {"autograd_tui.scenarios.loop_check", *ENGINE},
    "scenarios/resnet18": {"torchvision", "PIL", "autograd_tui.scenarios.weights", *BUILDING, *CORE},
    "scenarios/spiral": {"autograd_tui.core.picture", *BUILDING},
    "scenarios/transformer": {"autograd_tui.core.errors", *BUILDING},
    "scenarios/weights": ENGINE,
    "text/": {"autograd_tui.text", *CORE},
    "text/loss_map": {"numpy", "autograd_tui.text", *CORE},
    "text/picture_lines": {"numpy", "autograd_tui.text", *CORE},
    "text/plot": {"plotext", "autograd_tui.text", *CORE},
    "journal/": {"autograd_tui.journal", *CORE},
    "journal/checkpoint_file": {"autograd_tui.journal", *ENGINE},
    "journal/paths": {"platformdirs", *CORE},
    "journal/resume_run": {"autograd_tui.journal", *ENGINE},
    "export/": {"autograd_tui.export", "autograd_tui.text", *CORE},
    "export/html_page": {"rich", "autograd_tui.tui.offscreen", "autograd_tui.export", "autograd_tui.text", *CORE},
    "export/formats": {"autograd_tui.tui.offscreen", "autograd_tui.export", "autograd_tui.text", *CORE},
    "export/live_export": {"autograd_tui.export", *ENGINE},
    "export/tensorboard": {"torch.utils.tensorboard", "numpy", "autograd_tui.export", "autograd_tui.text", *CORE},
    "tui/": {"textual", "rich", "autograd_tui.tui", "autograd_tui.text", *CORE},
    "tui/preferences": {"platformdirs", *CORE},
}
SHARED_NAMES: set[str] = set()
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


@cache
def parsed(file: str) -> ast.Module:
    return ast.parse((SOURCE / file).read_text(encoding="utf-8"))


def imports(node: ast.AST, *, types: bool = False) -> Iterator[str]:
    """Give what a file imports, at the top or in a function; what types alone need counts where `types` says so."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
        return
    if isinstance(node, ast.Import):
        yield from (each.name for each in node.names)
    if isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        yield from (f"{node.module}.{each.name}" for each in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imports(child, types=types)


def test_files_import_only_what_their_wall_allows() -> None:
    for file in FILES:
        wall = max((wall for wall in WALLS if file.startswith(wall)), key=len, default="no wall")
        tree = parsed(file)
        for name in imports(tree, types=wall == "core/"):
            inside = any(f"{name}.".startswith(f"{allowed}.") for allowed in WALLS[wall])
            assert inside or name.split(".")[0] in sys.stdlib_module_names, f"{file} imports {name}"


def imported_files(file: str) -> set[str]:
    """Give the files of ours that a file imports, also inside its functions."""
    names = list(imports(parsed(file)))
    paths = [name.removeprefix("autograd_tui").strip(".").replace(".", "/") for name in names]
    parts = {part for path in paths for part in (path, path.rpartition("/")[0])}
    return {f"{part}.py" for part in parts if f"{part}.py" in FILES}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Give the groups of files that import each other, directly or by way of others."""
    reached = {file: set(others) for file, others in graph.items()}
    for by in graph:
        for others in reached.values():
            if by in others:
                others |= reached[by]
    return sorted(
        {tuple(sorted(b for b in graph if b in reached[a] and a in reached[b])) for a in graph if a in reached[a]}  # type: ignore[misc]
    )


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [("a", "b", "c")]


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles({file: imported_files(file) for file in FILES}) == []


def test_no_two_files_have_one_name() -> None:
    names = [Path(file).stem for file in FILES if not file.endswith("__init__.py")]
    assert {name for name in names if names.count(name) > 1} <= SHARED_NAMES


FRESH = """
import contextlib, json, sys
import autograd_tui, autograd_tui.cli
for word in ("--help", "--version", "sessions"):
    with contextlib.suppress(SystemExit):
        autograd_tui.cli.main([word])
first = sorted(sys.modules)
autograd_tui.cli.main(["linear", "--headless", "--do", "fbsz", "--json"])
print(json.dumps([first, sorted(sys.modules)]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def modules() -> tuple[set[str], set[str]]:
    """Give what a fresh interpreter has after help and the list of runs, and after running the line headless."""
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    first, then = json.loads(done.stderr.splitlines()[-1])
    return set(first), set(then)


@pytest.mark.parametrize("library", ["torch", "numpy", "textual", "rich", "plotext"])
def test_the_command_line_is_ready_without(library: str, modules: tuple[set[str], set[str]]) -> None:
    assert library not in modules[0]


@pytest.mark.parametrize("library", ["torchvision", "textual", "rich", "plotext"])
def test_the_line_runs_headless_without(library: str, modules: tuple[set[str], set[str]]) -> None:
    assert library not in modules[1]


def test_what_is_imported_while_libraries_are_loaded_is_imported_anyway(modules: tuple[set[str], set[str]]) -> None:
    assert {*BEFORE, *BESIDE} <= modules[1]


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    places = ["/" + name + "/" for name in ("work", "root")]
    for path in [*SOURCE.rglob("*.py"), *(TOP / "tests").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not [place for place in places if place in text], path


OPENED_ELSEWHERE = {
    "read_text": {"export/template.py"},
    "open": {
        "engine/script/sitecustomize/sitecustomize.py",  # in Pythons that may not have this package
        "engine/script/snapshot.py",  # the terminal
    },
    "load": {
        "engine/script/pickled_object.py",  # in memory, and into a file that is open
        "engine/training/state_file.py",
        "journal/checkpoint_file.py",
    },
}
OPENERS = ("open", "write_text", "write_bytes", "read_text", "read_bytes", "touch", "save_screenshot", "mkstemp")
MODE = re.compile(r"[rwxa+bt]+")


def opens_a_file(call: ast.Call) -> str | None:
    """Give the name by which a call opens a file, by any way but that of `core/files.py`."""
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
        for node in ast.walk(parsed(file)):
            name = opens_a_file(node) if isinstance(node, ast.Call) else None
            known = file == "core/files.py" or file in OPENED_ELSEWHERE.get(name or "", ())
            assert name is None or known, f"{file}, line {node.lineno}: {name} opens a file"  # type: ignore[attr-defined]


PRINTERS = ("core/terminal_text.py", "tui/terminal_watchdog.py")  # the latter nothing but what it holds itself


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
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Call) and file not in PRINTERS:
                assert not prints(node), f"{file}, line {node.lineno} prints: `say` and `print_lines` do that"


def test_no_pattern_is_made_of_a_name_that_a_user_gave() -> None:
    for file in FILES:
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("glob", "rglob", "fnmatch", "filter"):
                names = {each.id for each in ast.walk(node.args[0]) if isinstance(each, ast.Name)} if node.args else {}
                assert all(map(str.isupper, names)), f"{file}, line {node.lineno}"
