from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

from autograd_tui.cli import main
from autograd_tui.cli.program import RUN_COMMANDS
from autograd_tui.core.command import parse
from autograd_tui.core.run_config import BUILT_IN
from autograd_tui.engine.open import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import FLAGS
from autograd_tui.scenarios.find import find
from autograd_tui.text.prompt.parser import read
from autograd_tui.text.prompt.words import ALONE, READERS
from autograd_tui.tui.help_screen import key_rows
from autograd_tui.tui.keys import INSIDE_KEYS, KEYS

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = next(block for block in blocks("sh") if "pytest" in block).strip()
    assert command in (TOP / ".ci" / "run").read_text().splitlines()


def test_the_key_table_is_that_of_the_bindings() -> None:
    for bindings, heading in ((KEYS, "key"), (INSIDE_KEYS, "key inside")):
        rows = [f"| `{keys}` | {does} |" for keys, does in key_rows(bindings)]
        assert f"| {heading} | does |\n|---|---|\n" + "\n".join(rows) + "\n\n" in README


def test_the_model_of_the_readme_trains(tmp_path: Path) -> None:
    source = next(block for block in blocks("python") if "@scenario" in block)
    (tmp_path / "my_model.py").write_text(source)
    session = open_session(str(tmp_path / "my_model.py"))
    assert session.about.title == "two layers"
    frames = list(session.run_all("fbsz*20 f"))
    assert frames[-1].loss is not None
    assert frames[0].loss is not None
    assert frames[-1].loss < frames[0].loss


def test_the_library_example_runs() -> None:
    source = next(block for block in blocks("python") if "open_session(" in block)
    scope: dict[str, Session] = {}
    exec(source, scope)
    assert str(scope["frame"]).startswith("<Frame 2 after b")


def words_of_tables(heading: str) -> list[str]:
    """Give what stands in code style in the first column of a section's tables, each whole."""
    section = README.split(f"## {heading}")[1].split("\n##")[0]
    first_columns = "\n".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
    return re.findall(r"`([^`]+)`", first_columns)


def test_every_word_in_the_tables_of_words_is_understood() -> None:
    said = words_of_tables("Commands in words")
    assert {"fbsz*3", "sort update", "run loss<0.01", *ALONE} <= set(said)
    for words in said:
        assert read(words) if words.split()[0] in (*READERS, *ALONE) else parse(words)


def test_every_option_that_the_readme_names_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], *([command] for command in RUN_COMMANDS)):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
    said = capsys.readouterr().out
    for option in set(re.findall(r"`?(--[a-z][a-z-]+)", README.split("## For contributors")[0])) - {"--version"}:
        assert option in said, option


def test_the_options_of_the_small_networks_are_those_they_have() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| [^|]* \| (`.*`) \|$", README.split("## Small networks")[1].split("\n## ")[0], re.M
    )
    assert [name for name, _ in rows] == [name for name in BUILT_IN if name not in ("linear", "resnet18")]
    for name, said in rows:
        own = {option: value for option, value in find(name).defaults.items() if option not in ("device", *FLAGS)}
        assert re.findall(r"`(\w+=\w+)`", said) == [f"{option}={value}" for option, value in own.items()]


def test_what_contributors_are_told_of_is_there() -> None:
    package = TOP / "src" / "autograd_tui"
    there = {path.stem for path in package.rglob("*")} | {"platformdirs"}
    rows = [row for row in README.split("## For contributors")[1].split("\n") if row.startswith("| `")]
    assert rows
    for row in rows:
        for name in re.findall(r"`([^`]+)`", row):
            pattern = name.rstrip("/").removesuffix(".py").split("/")[-1]
            assert fnmatch.filter(there, pattern), f"{name} in {row}"
