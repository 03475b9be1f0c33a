"""The way of one key, from its binding to the model's own forward, short enough to be read from file to file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import autograd_tui
from app_screen import screen
from autograd_tui.scenarios.linear import Line
from autograd_tui.tui.requests import RequestQueue

SOURCE = Path(autograd_tui.__file__).parent
MAX_FUNCTIONS, MAX_FOLDERS = 13, 4


def calls_of_ours() -> list[tuple[str, str]]:
    """Return the file and function of each running call of this package, outermost first."""
    calls, frame = [], sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(SOURCE) and path.parent.name != "scenarios":
            calls.append((path.relative_to(SOURCE).as_posix(), frame.f_code.co_name))
        frame = frame.f_back  # type: ignore[assignment]
    return calls[::-1]


async def test_a_key_comes_to_the_model_through_few_functions_and_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    paths: dict[str, list[tuple[str, str]]] = {}
    forward, put = Line.forward, RequestQueue.put

    def traced_forward(*arguments: object) -> object:
        paths.setdefault("to the model", calls_of_ours())
        return forward(*arguments)  # type: ignore[arg-type]

    def traced_put(*arguments: object, **options: object) -> object:
        paths.setdefault("to the queue", calls_of_ours())
        return put(*arguments, **options)  # type: ignore[arg-type]

    async with screen("linear") as shown:
        monkeypatch.setattr(Line, "forward", traced_forward)
        monkeypatch.setattr(RequestQueue, "put", traced_put)
        await shown.press("f")
    asked = paths["to the queue"]
    action = next(index for index, (_, name) in enumerate(asked) if name.startswith("action_"))
    path = [*asked[action:], ("tui/requests.py", "put"), *paths["to the model"]]
    assert paths["to the model"][-1][0].startswith("engine/training/"), path
    assert len(path) <= MAX_FUNCTIONS, path
    assert len({Path(file).parent for file, _ in path}) <= MAX_FOLDERS, path
