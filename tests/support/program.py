"""The program run in this process, as its command line runs it."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from autograd_tui.cli import main


@dataclass(frozen=True)
class Done:
    code: int
    out: list[str]
    err: list[str]
    text: str = ""  # both, as they were written


Run = Callable[..., Done]
Do = Callable[..., Done]  # which also looks at the exit code


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run the program in this process; its stdout and its signals are put back."""
    on_interrupt = signal.getsignal(signal.SIGINT)

    def program(*arguments: str, stdin: str | bytes = "") -> Done:
        raw = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        stdout = os.dup(1)  # here: pytest leads it elsewhere between a test's set-up and its call
        try:
            code = main(list(arguments))
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
        captured = capfd.readouterr()
        return Done(code, captured.out.splitlines(), captured.err.splitlines(), captured.out + captured.err)

    yield program
    signal.signal(signal.SIGINT, on_interrupt)


@pytest.fixture
def do(run: Run) -> Do:
    """Run the program; its exit code is 0 unless another one is expected."""

    def program(*words: str, code: int = 0) -> Done:
        done = run(*words)
        assert done.code == code, done.err
        return done

    return program
