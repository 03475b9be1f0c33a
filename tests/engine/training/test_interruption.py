"""Other people's code that is interrupted from another thread."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import get_ident
from typing import Any

import pytest
import torch

from autograd_tui.engine.training.interruption import Interrupt, Uninterrupted, interrupt, interruptible


def interrupted(function: Callable[[], Any], *, reached: str = "sent") -> None:
    """Call a function that is interrupted once it has set `hangs`, and check that it was."""
    thread = get_ident()
    hangs.clear()

    def work() -> None:
        hangs.wait()
        results.append(interrupt(thread))
        while interrupt(thread, begin=False) != "none":  # again where it was lost
            pass

    results: list[str] = []
    worker = threading.Thread(target=work)
    worker.start()
    try:
        with pytest.raises(Interrupt):
            interruptible(function)
    finally:
        hangs.set()
        worker.join()
    assert results == [reached]
    assert interrupt(thread) == "none"


hangs = threading.Event()


def loop() -> None:
    hangs.set()
    while True:
        pass


def test_a_loop_that_never_ends_is_left() -> None:
    interrupted(loop)


def test_no_handler_of_exceptions_keeps_it() -> None:
    def stubborn() -> None:
        while True:
            with suppress(Exception):
                loop()

    interrupted(stubborn)


def test_what_turns_it_into_another_error_or_a_result_was_interrupted_all_the_same() -> None:
    def turned() -> None:
        try:
            loop()
        except BaseException as error:
            raise ValueError("mine") from error

    def caught() -> int:
        try:
            loop()
        except BaseException:
            return 3
        return 4

    interrupted(turned)
    interrupted(caught)


def test_nothing_is_raised_outside_of_it() -> None:
    assert interrupt(get_ident()) == "none"
    assert interruptible(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0)


def test_one_that_is_lost_in_a_del_is_raised_again() -> None:
    class Hanging:
        def __del__(self) -> None:
            loop()

    def dropping() -> None:
        Hanging()
        loop()

    before = sys.unraisablehook
    interrupted(dropping)
    assert sys.unraisablehook is before


def test_what_runs_uninterrupted_is_whole_and_it_is_raised_behind_it() -> None:
    done = []

    def work() -> None:
        with Uninterrupted():
            hangs.set()
            for _ in range(1_000_000):
                pass
            done.append(True)
        loop()

    thread = get_ident()
    hangs.clear()

    def send() -> None:
        hangs.wait()
        while interrupt(thread) == "none":
            pass

    worker = threading.Thread(target=send)
    worker.start()
    with pytest.raises(Interrupt):
        interruptible(work)
    worker.join()
    assert done == [True]


def test_modes_that_were_left_half_way_are_put_back() -> None:
    def leave_modes() -> None:
        torch.set_grad_enabled(False)
        torch.set_autocast_enabled("cpu", True)
        torch.set_default_dtype(torch.float64)
        sys.stdout = sys.stderr
        torch.overrides.BaseTorchFunctionMode().__enter__()
        loop()

    out = sys.stdout
    interrupted(leave_modes)
    assert sys.stdout is out
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert torch.get_default_dtype() is torch.float32
    assert torch._C._len_torch_function_stack() == 0


def test_a_with_block_that_was_half_left_changes_no_mode_once_it_is_collected() -> None:
    @contextmanager
    def block() -> Iterator[None]:
        try:
            yield
        finally:
            torch.set_grad_enabled(False)

    def leave_half() -> None:
        half_left = block()
        half_left.__enter__()
        loop()

    interrupted(leave_half)
    gc.collect()
    is_enabled = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert is_enabled


def test_functions_can_be_traced_behind_an_interrupted_one() -> None:
    """Python 3.11 looked for a taken back exception for ever where a traced function began."""

    def traced() -> None:
        with suppress(Interrupt):
            interrupted(loop)
        sys.settrace(lambda frame, event, arg: None)
        try:
            seen.append("a")
            (lambda: seen.append("b"))()
        finally:
            sys.settrace(None)

    seen: list[str] = []
    thread = threading.Thread(target=traced, daemon=True)
    thread.start()
    thread.join(30)
    assert seen == ["a", "b"]
