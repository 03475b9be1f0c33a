"""Whatever a model's names, classes and files are called: what is exported says so, and does nothing else."""

from __future__ import annotations

import ast
import csv
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autograd_tui.core.errors import Refused
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.scenario import Options, Parts, Scenario
from autograd_tui.export import formats as file
from autograd_tui.export.formats import FORMULA_PREFIXES, export_file, export_repro
from suite_options import some

CODE = "import os\nos.mkdir('ran')  # "
HOSTILE = [f"\n{CODE}", "two words " * 30, f"'\n{CODE}", "\\", f'"""\n{CODE}', "\udcff", "{x}", "\u2028import os"]
HOSTILE += [
    "two words",
    "it's",
    'say "x"',
    "'''",
    '"""',
    "\\'",
    "#",
    "\r\nimport os",
    "\x85import os",
    "\x0cimport os",
    "\x1b[2J",
]
HOSTILE += ["=1+1", "-", "@x", "\ufb01"]


def odd(name: str, *, title: str | None = None) -> Scenario:
    """Make a scenario in which all that can have a name has this one; its second forward raises."""
    kind = type(name if name.isascii() else "Bad", (Exception,), {})

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._parameters.update({name: nn.Parameter(torch.tensor([-0.5])), "other": nn.Parameter(torch.ones(1))})
            self._buffers[f"buffer {name}"] = torch.ones(1)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 1:
                raise kind(name)
            return x * sum(self.parameters())

    def build(options: Options) -> Parts:
        groups = [{"params": [name], "weight_decay": np.float64(0.5)}, {"params": ["other"], "lr": 0.2}]
        return Parts(
            model=Net(),
            batch=lambda i: (torch.ones(3), torch.ones(3)),
            loss=nn.functional.mse_loss,
            groups=groups,
            listing={"setup": name, "forward": name},
            names=(name, name, name),
            metrics={name: lambda prediction, target: prediction.mean()},
            class_names=(name,),
        )

    return Scenario(name if title is None else title, build)


def written(name: str, ending: str, folder: Path, *, title: str | None = None) -> Path:
    """Run such a scenario until it raises, and export that."""
    made, path = odd(name, title=title), folder / f"run{ending}"
    session = open_session(made, device="cpu")
    list(session.run_all("fbsz F"))
    if ending == ".pt":
        export_repro(path, session)
        return path.with_suffix(".py")
    export_file(path, session.about.config, session.log(), lambda: open_session(made, device="cpu"))
    return path


def shape(path: Path) -> list[str]:
    """Give what a script is made of, without its texts."""
    return [type(node).__name__ for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]


@pytest.mark.parametrize("ending", [".py", ".pt"])
def test_no_name_becomes_code_of_a_script(ending: str, tmp_path: Path) -> None:
    (tmp_path / "tame").mkdir()
    wanted = shape(written("tame", ending, tmp_path / "tame"))
    for number, name in enumerate(some(HOSTILE, 8)):
        (tmp_path / str(number)).mkdir()
        assert shape(written(name, ending, tmp_path / str(number))) == wanted, name


@pytest.mark.parametrize("name", ['it\'s """ {x}', f"\n{CODE}", os.fsdecode(b"\xff"), "# -"])
def test_no_name_of_a_file_becomes_code_of_a_script(name: str, tmp_path: Path) -> None:
    text = (
        "import torch\nfrom autograd_tui import Parts, scenario\n@scenario('mine')\ndef build(options):\n    "
        "return Parts(model=torch.nn.Linear(1, 1), batch=lambda i: torch.ones(1), forward=lambda m, x: m(x).sum())\n"
    )
    shapes = []
    for number, each in enumerate(("tame", name)):
        folder = tmp_path / str(number)
        folder.mkdir()
        scenario = folder / f"{each.replace('/', '')}.py"
        scenario.write_text(text)
        session = open_session(str(scenario), device="cpu")
        list(session.run_all("fbsz f"))
        reopen = partial(open_session, str(scenario), device="cpu")
        export_file(folder / "run.py", session.about.config, session.log(), reopen)
        shapes.append(shape(folder / "run.py"))
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("ending", [".py", ".pt"])
def test_a_script_that_is_no_python_is_not_kept(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "training_script", lambda *_: "def (")
    monkeypatch.setattr(file, "repro_script", lambda *_: "x = '\0'")
    with pytest.raises(Refused, match="cannot be written as a script yet: it would be no Python"):
        written("w", ending, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_cell_of_a_table_is_a_formula_and_numbers_stay_numbers(tmp_path: Path) -> None:
    for number, name in enumerate(some([*FORMULA_PREFIXES, *HOSTILE], 5)):
        (tmp_path / str(number)).mkdir()
        path = written(name, ".csv", tmp_path / str(number))
        with path.open(encoding="utf-8", newline="") as opened:
            _, *rows = csv.reader(opened)
        texts = [cell for row in rows for cell in row if not is_number(cell)]
        assert not [text for text in texts if text.startswith(FORMULA_PREFIXES)]
        assert next(row[-1] for row in rows if row[6:8] == ["parameter", "min"]) == "-0.5"


def is_number(text: str) -> bool:
    try:
        return float(text) is not None
    except ValueError:
        return False


@pytest.mark.parametrize("name", ["=1+1", "+1", "-x", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_formula_has_an_apostrophe_before_it(name: str, tmp_path: Path) -> None:
    path = written(name, ".csv", tmp_path)
    with path.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert {row["tensor"] for row in rows if row["kind"] == "parameter"} == {f"'{name}", "other"}
    assert [row["value"] for row in rows if row["stat"] == "raised"] == [f"'{name}: {name}"]


def test_tags_of_tensorboard_are_one_printable_line(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    path = written("\x1b[2Jone\ntwo", ".tb", tmp_path)
    tags = events.EventAccumulator(str(path)).Reload().Tags()
    assert "one two" in tags["scalars"]
    assert "parameter/one two" in tags["histograms"]


def test_no_name_becomes_an_element_of_a_page(tmp_path: Path) -> None:
    path = written("</script><script>alert(1)</script><b>\udcff", ".html", tmp_path)
    text = path.read_text(encoding="utf-8")
    assert text.count("<script") == 2  # what it holds, and what shows it
    assert text.count("</script>") == 2
