"""The parts of a script's own file that its pickled objects need: classes, functions, constants, imports."""

from __future__ import annotations

import ast
import linecache
import os
import symtable
import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch

from autograd_tui.engine.training.user_code import is_user_file

MAX_LITERAL_LENGTH = 300  # characters of a constant that is written into the text
PLAIN = (type(None), bool, int, float, str, torch.device, torch.dtype)
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(slots=True)
class SourceParts:
    """What a list of names needs of a script's file."""

    future: list[str] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    definitions: list[str] = field(default_factory=list)  # constants first, with empty lines between
    values: dict[str, Any] = field(default_factory=dict)  # variables that no text can make
    names: set[str] = field(default_factory=set)  # that all of these bind


class MainSource:
    """Knows what each name at the top of a script's file is bound to."""

    def __init__(self, main: ModuleType) -> None:
        self._main = main
        file = getattr(main, "__file__", None) or ""
        self._lines = linecache.getlines(file)
        self._bindings: dict[str, ast.stmt] = {}
        self._order: dict[int, int] = {}  # of statements, by their ids
        self._stars: list[ast.ImportFrom] = []
        self._future: list[str] = []
        try:
            tree = ast.parse("".join(self._lines))
        except (SyntaxError, ValueError, RecursionError):
            return
        for statement in _top_statements(tree.body):
            self._bind(statement)

    def _bind(self, statement: ast.stmt) -> None:
        self._order[id(statement)] = len(self._order)
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            self._future.append(ast.unparse(statement))
        elif isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
            self._stars.append(statement)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            for alias in statement.names:
                self._bindings[alias.asname or alias.name.partition(".")[0]] = _import_of(statement, alias)
        elif isinstance(statement, DEFINITIONS):
            self._bindings[statement.name] = statement
        else:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    self._bindings[node.id] = statement

    def binds(self, name: str) -> bool:
        """Return whether the file has a statement at its top that binds a name."""
        return name in self._bindings

    def parts(self, names: Iterable[str]) -> SourceParts:
        """Return what these names need, and what that needs in turn."""
        waiting = list(names)
        constants: list[tuple[int, str]] = []  # lines, with the place of their statements in the file
        definitions: list[tuple[int, list[str]]] = []
        parts = SourceParts(future=list(self._future), imports=[self._absolute(each) for each in self._stars])
        while waiting:
            name = waiting.pop()
            statement = self._bindings.get(name)
            if name in parts.names or statement is None:
                continue
            parts.names.add(name)
            index = self._order.get(id(statement), 0)
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                parts.imports.append(self._absolute(statement))
            elif isinstance(statement, DEFINITIONS):
                lines = self._text(statement)
                definitions.append((index, lines))
                waiting += _global_names("\n".join(lines))
            elif name in vars(self._main):
                value = vars(self._main)[name]
                if isinstance(value, ModuleType):
                    parts.imports.append(f"import {value.__name__} as {name}")
                    continue
                text = _written(value)
                if text is None:
                    parts.values[name] = value
                    continue
                constants.append((index, f"{name} = {text}"))
                if isinstance(value, Namespace):
                    parts.imports.append("import argparse")
        parts.definitions = [line for _, line in sorted(constants)]
        for _, lines in sorted(definitions):
            parts.definitions += ["", "", *lines]
        return parts

    def _text(self, statement: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
        first = min([statement.lineno, *(each.lineno for each in statement.decorator_list)])
        text = "".join(self._lines[first - 1 : statement.end_lineno])
        return textwrap.dedent(text).rstrip("\n").split("\n")

    def _absolute(self, statement: ast.Import | ast.ImportFrom) -> str:
        if isinstance(statement, ast.ImportFrom) and statement.level:
            package = (getattr(self._main, "__package__", None) or "").split(".")
            package = package[: len(package) - statement.level + 1]
            module = ".".join(filter(None, [*package, statement.module]))
            statement = ast.ImportFrom(module=module, names=statement.names, level=0)
        return ast.unparse(statement)


def user_folders(modules: Iterable[str]) -> dict[str, list[str]]:
    """Return the folders that modules of the user's own are imported from, each with their names."""
    folders: dict[str, list[str]] = {}
    for name in sorted({each.partition(".")[0] for each in modules}):
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if name != "__main__" and file and is_user_file(os.path.abspath(file)):
            folder = os.path.dirname(os.path.abspath(file))
            folders.setdefault(os.path.dirname(folder) if hasattr(module, "__path__") else folder, []).append(name)
    return folders


def imported_modules(imports: Iterable[str]) -> Iterator[str]:
    """Yield the names of the modules that lines import."""
    for node in ast.walk(ast.parse("\n".join(imports))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _top_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module that bind its own names, also those under `if`, `try`, `with` and loops."""
    for statement in body:
        inner = [getattr(statement, each, []) for each in ("body", "orelse", "finalbody")]
        if isinstance(statement, (ast.If, ast.Try, ast.With, ast.For, ast.While)):
            for each in (*inner, *(handler.body for handler in getattr(statement, "handlers", ()))):
                yield from _top_statements(each)
            if isinstance(statement, (ast.For, ast.With)):
                yield _bindings_of(statement)
        else:
            yield statement


def _bindings_of(statement: ast.For | ast.With) -> ast.stmt:
    """Return a statement that binds what the head of a loop or a `with` does."""
    targets = [statement.target] if isinstance(statement, ast.For) else [each.optional_vars for each in statement.items]
    names = [node for each in targets if each is not None for node in ast.walk(each) if isinstance(node, ast.Name)]
    return ast.Assign(targets=[*names], value=ast.Constant(value=None))


def _import_of(statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    if isinstance(statement, ast.Import):
        return ast.Import(names=[alias])
    return ast.ImportFrom(module=statement.module, names=[alias], level=statement.level)


def _global_names(source: str) -> set[str]:
    """Return the names that the text of a class or function takes from its module."""
    waiting, names = [symtable.symtable(source, "", "exec")], set[str]()
    while waiting:
        table = waiting.pop()
        waiting += table.get_children()
        is_module = table.get_type() == "module"
        names |= {each.get_name() for each in table.get_symbols() if each.is_global() or is_module}
    return names


def _written(value: Any, depth: int = 3) -> str | None:
    """Return a value as Python writes it, None for one that is too long, or is no plain value."""

    def inside(each: Any) -> str:
        text = _written(each, depth - 1)
        if text is None:
            raise ValueError
        return text

    if type(value) not in PLAIN and not (depth and type(value) in (list, tuple, dict, Namespace)):
        return None
    try:
        if isinstance(value, Namespace):
            items = [f"{name}={inside(each)}" for name, each in vars(value).items()]
            return f"argparse.Namespace({', '.join(items)})" if all(map(str.isidentifier, vars(value))) else None
        text = literal(value, inside)
    except ValueError:
        return None
    return text if len(text) <= MAX_LITERAL_LENGTH else None


def literal(value: Any, spell: Callable[[Any], str]) -> str:
    """Return a value as Python writes it; `spell` writes what is inside a list, a tuple, a dict or a slice."""
    if type(value) is list:
        return f"[{', '.join(map(spell, value))}]"
    if type(value) is tuple:
        return f"({', '.join(map(spell, value))}{',' * (len(value) == 1)})"
    if type(value) is dict:
        return "{" + ", ".join(f"{spell(key)}: {spell(each)}" for key, each in value.items()) + "}"
    if type(value) is slice:
        return f"slice({', '.join(map(spell, (value.start, value.stop, value.step)))})"
    if type(value) is float and value - value != 0:
        return f'float("{value}")'
    if type(value) is torch.device:
        return f'torch.device("{value}")'
    return "..." if value is ... else repr(value)
