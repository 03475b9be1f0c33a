"""The seams: wrappers and hooks on PyTorch's own functions, by which a script's phases hear what it calls.

Nothing of ours is raised into the script. Where a seam fails, all of them are off for good, and the agent is told.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from autograd_tui.engine.script.loop_phases import Phases

Optimizer = torch.optim.Optimizer
Function = Callable[..., Any]
_is_compiling = torch.compiler.is_compiling
_functorch_level = torch._C._functorch.peek_interpreter_stack


def install(phases: Phases) -> Seams:
    """Have the phases hear of every backward, step and other call of training from now on, in this process."""
    seams = Seams(phases)
    seams.install()
    return seams


class Seams:
    """The wrappers and hooks of one process; they listen to the first thread that trains."""

    def __init__(self, phases: Phases) -> None:
        self._phases = phases
        self._is_on = True
        self._in_backward = False
        self._thread: int | None = None
        self._steps_seen: list[int] = []  # for each GradScaler.step that runs: how many steps were counted inside
        self._wrapped: list[tuple[Any, str, Function]] = []
        self._handles: list[Any] = []

    def install(self) -> None:
        """Put the wrappers and hooks in place."""
        self._wrap(Tensor, "backward", self._backward)
        self._wrap(torch.autograd, "backward", self._backward)
        self._wrap(Optimizer, "__init__", self._optimizer_init)
        for owner in (Optimizer, nn.Module):
            self._wrap(owner, "zero_grad", self._zero_grad)
        self._handles = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.turn_off)

    def turn_off(self) -> None:
        """Look at nothing any more: every wrapper only calls what it wraps. The hooks on modules go."""
        self._is_on = False
        self._phases.calls.remove()

    def turn_on(self) -> None:
        """Go on in a process that was forked to be the script."""
        self._is_on = True

    def uninstall(self) -> None:
        """Take the wrappers and hooks away."""
        self.turn_off()
        for owner, name, original in reversed(self._wrapped):
            setattr(owner, name, original)
        for handle in self._handles:
            handle.remove()
        self._wrapped, self._handles = [], []

    def _wrap(self, owner: Any, name: str, make: Callable[[Function], Function]) -> None:
        original = vars(owner)[name]
        self._wrapped.append((owner, name, original))
        setattr(owner, name, functools.wraps(original)(make(original)))

    def _listens(self) -> bool:
        """Return whether a call is one of the script's training: not one inside a backward, a transform, a capture."""
        if not self._is_on or self._in_backward or _functorch_level() is not None:
            return False
        if torch.cuda._initialized and torch.cuda.is_current_stream_capturing():
            return False
        thread = threading.get_ident()
        if self._thread is None:
            self._thread = thread
        return self._thread == thread

    def _fail(self, error: Exception) -> None:
        """Turn everything off, and tell the agent."""
        self.turn_off()
        self._phases.inside.clear()
        text = " ".join(str(error).split())[:200]
        try:
            self._phases.agent.give_up(
                f"A seam has failed ({type(error).__name__}: {text}): the script goes on as under plain Python."
            )
        except Exception:
            return

    def _tell(self, report: Function, *args: Any, **kwargs: Any) -> None:
        """Call a method of the phases, if the seams are on; a KeyboardInterrupt of the user's passes."""
        if self._is_on:
            try:
                report(*args, **kwargs)
            except Exception as error:
                self._fail(error)

    # The wrappers. Each looks at `_is_compiling` first: what torch.compile traces is the call that it wraps alone.

    def _optimizer_init(self, original: Function) -> Function:
        def __init__(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            if not _is_compiling():
                self._tell(self._phases.add_optimizer, optimizer)

        return __init__

    def _backward(self, original: Function) -> Function:
        phases = self._phases

        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if _is_compiling() or not self._listens() or (loss := _loss_of(tensors)) is None:
                return original(tensors, *args, **kwargs)
            depth = len(phases.inside)
            try:
                self._tell(phases.begin_backward, loss, sys._getframe(1))
                self._in_backward = phases.calls.is_paused = True
                result = original(tensors, *args, **kwargs)
                self._in_backward = phases.calls.is_paused = False
                self._tell(phases.end_backward, retained=_retains(args, kwargs))
                return result
            finally:
                self._in_backward = phases.calls.is_paused = False
                del phases.inside[depth:]

        return backward

    def _zero_grad(self, original: Function) -> Function:
        phases = self._phases

        def zero_grad(owner: Any, *args: Any, **kwargs: Any) -> Any:
            if _is_compiling() or not self._listens():
                return original(owner, *args, **kwargs)
            depth = len(phases.inside)
            try:
                self._tell(phases.begin_zero_grad, owner)
                result = original(owner, *args, **kwargs)
                self._tell(phases.end_zero_grad, owner)
                return result
            finally:
                del phases.inside[depth:]

        return zero_grad

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not _is_compiling() and self._listens():
            self._tell(self._phases.begin_step, optimizer, sys._getframe(1))

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not _is_compiling() and self._listens():
            self._tell(self._phases.end_step, optimizer)


def _loss_of(tensors: Any) -> Tensor | None:
    """Return the tensor that a backward starts from, the first of several."""
    if isinstance(tensors, Tensor):
        return tensors
    if isinstance(tensors, (tuple, list)) and tensors and isinstance(tensors[0], Tensor):
        return tensors[0]
    return None


def _retains(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a backward keeps its graph: both functions have the same arguments behind the first."""
    retain = kwargs.get("retain_graph", args[1] if len(args) > 1 else None)
    create = kwargs.get("create_graph", args[2] if len(args) > 2 else False)
    return bool(create if retain is None else retain)


def without_seams(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of the seams, as the script's own would be."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    kept = traceback
    while kept is not None:
        following = kept.tb_next
        while following is not None and following.tb_frame.f_code.co_filename == __file__:
            following = following.tb_next
        kept.tb_next = following
        kept = following
    return traceback
