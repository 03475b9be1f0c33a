"""Reads the files in templates/: the text of exported scripts, and of the HTML page, with `$name` for what varies."""

from __future__ import annotations

from importlib.resources import files
from string import Template


def read_template(file: str) -> str:
    """Return the text of a file in templates/."""
    return files("autograd_tui.export").joinpath("templates", file).read_text(encoding="utf-8")


def fill_section(name: str, section: str, **fields: object) -> list[str]:
    """Return the lines between "# %% section" in a script's template and the next such line, with its fields filled in.

    A field that stands alone on its line can be a list of lines, which are indented as it is: none leave none behind.
    """
    _, start, text = read_template(f"{name}.template").partition(f"# %% {section}\n")
    assert start, f"{name}.template has no section {section!r}"
    filled: list[str] = []
    for line in text.partition("# %% ")[0].removesuffix("\n").split("\n"):
        indent, _, field = line.partition("$")
        block = fields.get(field)
        if isinstance(block, list) and not indent.strip():
            filled += [f"{indent}{each}" for each in block]
        else:
            filled.append(Template(line).substitute(fields))
    return filled
