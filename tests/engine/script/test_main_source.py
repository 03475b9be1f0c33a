"""The parts of a script's file that some of its classes need."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from autograd_tui.engine.script.main_source import MainSource, user_folders

TEXT = """
from __future__ import annotations
import math, os
from dataclasses import dataclass
from .nets import Head as Top, Other
from string import *
try:
    import json as codec
except ImportError:
    codec = None

x = 3
width, height = 4, float("inf")
names = {"a": [1, 2]}
lock = object()
unused = 5

def scale(value):
    return value * width * math.pi

if os.environ:
    @dataclass
    class Config:
        size: int = 2

class Net(Top):
    limit = height

    def forward(self, x):
        unused = scale(x)
        return [codec.dumps(names), Config(), lock, unused, self.width]
"""


def main_of(tmp_path: Path) -> ModuleType:
    path = tmp_path / "train.py"
    path.write_text(TEXT)
    (tmp_path / "__init__.py").touch()
    (tmp_path / "nets.py").write_text("class Head: pass\nclass Other: pass\n")
    module = ModuleType("__main__")
    module.__file__, module.__package__ = str(path), tmp_path.name
    sys.path.insert(0, str(tmp_path.parent))
    try:
        exec(compile(TEXT, str(path), "exec"), vars(module))
    finally:
        sys.path.remove(str(tmp_path.parent))
    return module


def test_a_class_is_found_with_all_that_it_needs_and_nothing_else(tmp_path: Path) -> None:
    main = main_of(tmp_path)
    source = MainSource(main)
    parts = source.parts(["Net"])
    assert parts.future == ["from __future__ import annotations"]
    assert set(parts.imports) == {
        "from dataclasses import dataclass",
        "from string import *",
        f"from {tmp_path.name}.nets import Head as Top",
        "import json as codec",
        "import math",
    }
    text = "\n".join(parts.definitions)
    assert text.startswith("height = float(\"inf\")\nwidth = 4\nnames = {'a': [1, 2]}\n")
    definitions = "def scale(", "@dataclass\nclass Config:\n    size: int = 2\n", "class Net("
    assert sorted(definitions, key=text.index) == list(definitions)
    assert "unused = 5" not in text
    assert "x = 3" not in text
    assert parts.values == {"lock": main.lock}
    assert source.binds("Net")
    assert not source.binds("Missing")
    assert user_folders([f"{tmp_path.name}.nets", "json", "torch"]) == {str(tmp_path.parent): [tmp_path.name]}
