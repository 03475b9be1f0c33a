from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

from autograd_tui.cli import main
from autograd_tui.cli.program import RUN_COMMANDS
from autograd_tui.core.run_config import BUILT_IN, FLAG_OPTIONS
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.scenarios.find import find
from autograd_tui.text.prompt.parser import parse_prompt
from autograd_tui.text.prompt.word_table import WORDS, find_word
from autograd_tui.tui.help_screen import key_rows
from autograd_tui.tui.keys import KEYS

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = next(block for block in blocks("sh") if "pytest" in block)
    assert (TOP / ".ci" / "run").read_text().endswith(f"\n{command}")


def tables(heading: str) -> list[list[str]]:
    """Give the tables of a section, each as its rows below the head."""
    section = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [table.strip().splitlines() for table in re.findall(r"^\|---.*\n((?:\|.*\n)+)", section, re.M)]


def test_the_keys_of_the_readme_do_what_it_says() -> None:
    bound = {f"| `{keys}` | {does} |" for keys, does in key_rows(KEYS)}
    assert len(tables("Keys")[0]) >= 8
    assert set(tables("Keys")[0]) <= bound


def test_the_model_of_the_readme_trains(tmp_path: Path) -> None:
    source = next(block for block in blocks("python") if "@scenario" in block)
    (tmp_path / "my_model.py").write_text(source)
    session = open_session(str(tmp_path / "my_model.py"))
    assert session.about.title == "two layers"
    frames = list(session.run_all("fbsz*20 f"))
    assert frames[-1].loss is not None
    assert frames[0].loss is not None
    assert frames[-1].loss < frames[0].loss


def test_the_picture_of_the_readme_can_be_drawn(tmp_path: Path) -> None:
    source = next(block for block in blocks("python") if "@scenario" in block)
    picture = next(block for block in blocks("python") if "def sum_of_two" in block)
    head, end, tail = source.partition("    return Parts(")
    (tmp_path / "my_model.py").write_text(f"{head}{picture}{end}picture=sum_of_two, {tail}")
    session = open_session(str(tmp_path / "my_model.py"))
    assert session.about.picture == "Sum of two"
    (drawn,) = session.pictures()
    assert drawn.problem == ""
    assert [len(points) for points in drawn.points.values()] == [20, 20]


def test_the_library_example_runs() -> None:
    source = next(block for block in blocks("python") if "open_session(" in block)
    scope: dict[str, Session] = {}
    exec(source, scope)
    assert str(scope["frame"]).startswith("<Frame 2 after b")


def test_every_word_of_the_readme_is_understood_and_in_the_table_of_words() -> None:
    lines = [line for row in tables("Keys")[1] for line in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(lines) > 12
    for line in lines:
        assert parse_prompt(line)
        assert find_word(line) in WORDS.values()


def test_every_section_is_in_the_table_of_contents() -> None:
    contents = README.split("\n## ")[0]
    headings = re.findall(r"^## (.*)$", README, re.M)
    links = {title: "#" + re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in headings}
    assert re.findall(r"\]\((#[^)]*)\)", contents) == list(links.values())


def test_every_option_that_the_readme_names_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], *([command] for command in RUN_COMMANDS)):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
    said = capsys.readouterr().out
    for option in set(re.findall(r"`?(--[a-z][a-z-]+)", README.split("## For contributors")[0])) - {"--version"}:
        assert option in said, option


def test_the_options_of_the_small_networks_are_those_they_have() -> None:
    (table,) = tables("resnet18 and small networks")
    rows = [re.findall(r"^\| `(\w+)` \| [^|]* \| (`.*`) \|$", row)[0] for row in table]
    assert [name for name, _ in rows] == [name for name in BUILT_IN if name not in ("linear", "resnet18")]
    for name, said in rows:
        own = {
            option: value for option, value in find(name).defaults.items() if option not in ("device", *FLAG_OPTIONS)
        }
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
