"""The seams: wrappers and hooks on PyTorch's own functions, by which a script's phases hear what it calls.

Nothing of ours is raised into the script. Where a seam fails, all of them are off for good, and the agent is told.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from autograd_tui.engine.script.lending import leave_our_frames_out
from autograd_tui.engine.script.loop_phases import Event, Phases
from autograd_tui.engine.script.module_calls import without_modes

Optimizer = torch.optim.Optimizer
Function = Callable[..., Any]
# Named as Python's own frames of an import are, the wrappers are no level of `warnings.warn(..., stacklevel=2)`: what
# PyTorch warns of names the script's line, as it does without them.
SKIPPED_FILE = f"{__file__} (as importlib._bootstrap)"
MAX_REASON_LENGTH = 200  # characters of an error of ours that are told
MAX_EVENTS = 4096  # that pass before they are counted
PASSED_BACKWARD = ("backward", 0)
_cuda = torch.cuda
_get_ident = threading.get_ident
_function_modes = torch._C._len_torch_function_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_is_compiling = torch.compiler.is_compiling
_is_traced = torch.compiler.is_dynamo_compiling  # which costs less; what else compiles is on the stack of modes
_getframe = sys._getframe
_in_transform = torch._C._are_functorch_transforms_active  # to look at the stack itself would slow each backward down


def install(phases: Phases) -> Seams:
    """Have the phases hear of every backward, step and other call of training from now on, in this process."""
    seams = Seams(phases)
    seams.install()
    return seams


def _around(method: Function) -> Callable[[Seams, Function], Function]:
    """Return what makes a wrapper of a method that reports a call and makes it; the method runs where we listen."""
    method.__code__ = method.__code__.replace(co_filename=SKIPPED_FILE)

    def make(seams: Seams, original: Function) -> Function:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if _is_compiling():
                return original(*args, **kwargs)
            try:
                if not seams._listens():
                    return original(*args, **kwargs)
                return method(seams, original, *args, **kwargs)
            except BaseException as error:
                leave_our_frames_out(error)
                raise

        return wrapper

    return make


class Seams:
    """The wrappers and hooks of one process; they listen to the first thread that trains."""

    def __init__(self, phases: Phases) -> None:
        self._phases = phases
        self._is_on = True
        self.stays_on_in_forks = False  # while a snapshot is forked
        self._passes = False  # whether nothing is listened to: off, or inside a backward
        self._thread: int | None = None
        self._in_scheduler = False
        self._wrapped: list[tuple[Any, str, Function | None]] = []
        self._handles: list[Any] = []
        self._autograd_backward = self._autograd_wrapper = torch.autograd.backward  # PyTorch's own, and what wraps it

    def install(self) -> None:
        """Put the wrappers and hooks in place."""
        self._autograd_backward = torch.autograd.backward
        self._wrap(Tensor, "backward", self._backward)
        self._wrap(torch.autograd, "backward", self._backward)
        self._autograd_wrapper = torch.autograd.backward
        self._wrap(Optimizer, "__init__", self._optimizer_init)
        for owner in (Optimizer, nn.Module):
            self._wrap(owner, "zero_grad", self._zero_grad)
        self._wrap(torch.autograd, "grad", self._grad)
        for name in ("clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_"):
            for module in (nn.utils, nn.utils.clip_grad):
                if name in vars(module):
                    self._wrap(module, name, self._clip)
        self._wrap(GradScaler, "scale", self._scale)
        self._wrap(GradScaler, "unscale_", self._unscale)
        self._wrap(GradScaler, "step", self._scaler_step)
        for scheduler in _with_subclasses(LRScheduler):
            self._wrap_scheduler(scheduler)
        self._wrap_coming_schedulers()
        self._wrap(nn.modules.module, "_has_any_global_hook", self._has_any_global_hook)
        self._handles = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_fork)

    def _leave_fork(self) -> None:
        """Do nothing in a process that the script has forked."""
        if not self.stays_on_in_forks:
            self.turn_off()

    def turn_off(self) -> None:
        """Look at nothing any more: every wrapper only calls what it wraps. The hooks on modules go."""
        self._is_on, self._passes = False, True
        self._phases.calls.remove()
        self._phases.watch_activations(())
        if self._phases.recorder is not None:
            self._phases.recorder.disarm()

    def uninstall(self) -> None:
        """Take the wrappers and hooks away."""
        self.turn_off()
        for owner, name, original in reversed(self._wrapped):
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)
        for handle in self._handles:
            handle.remove()
        self._wrapped, self._handles = [], []

    def _wrap(self, owner: Any, name: str, make: Callable[[Function], Function]) -> None:
        original = vars(owner)[name]
        self._wrapped.append((owner, name, original))
        wrapper = make(original)
        wrapper.__code__ = wrapper.__code__.replace(co_filename=SKIPPED_FILE)
        setattr(owner, name, functools.wraps(original)(wrapper))

    def _listens(self) -> bool:
        """Return whether a call is one of the script's training: not one inside a backward, a transform, a capture."""
        if self._passes or _is_compiling() or _in_transform():
            return False
        if _cuda._initialized and _cuda.is_current_stream_capturing():
            return False
        return self._thread == _get_ident() or self._is_first_thread()

    def _is_first_thread(self) -> bool:
        if self._thread is None:
            self._thread = _get_ident()
        return self._thread == _get_ident()

    def _fail(self, error: Exception) -> None:
        """Turn everything off, and tell the agent."""
        self.turn_off()
        self._phases.inside.clear()
        text = " ".join(str(error).split())[:MAX_REASON_LENGTH]
        try:
            self._phases.agent.give_up(f"a seam has failed ({type(error).__name__}: {text})")
        except Exception:
            return

    def tell(self, report: Function, *args: Any) -> None:
        """Call a method of the phases, if the seams are on; a KeyboardInterrupt of the user's passes."""
        if self._is_on:
            try:
                self._phases.count_passed()
                if _function_modes() or _dispatch_modes():
                    with without_modes():
                        report(*args)
                else:
                    report(*args)
            except Exception as error:
                self._fail(error)

    # The wrappers. What torch.compile traces is the call that each of them wraps alone. An exception leaves each as
    # if it was not there: a bare `raise` adds no frame to the traceback that has been cut.

    def _optimizer_init(self, original: Function) -> Function:
        def __init__(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            if _is_compiling():
                original(optimizer, *args, **kwargs)
                return
            try:
                original(optimizer, *args, **kwargs)
                self.tell(self._phases.add_optimizer, optimizer)
            except BaseException as error:
                leave_our_frames_out(error)
                raise

        return __init__

    def _backward(self, original: Function) -> Function:
        phases, calls, autograd = self._phases, self._phases.calls, torch.autograd
        is_method = getattr(original, "__globals__", {}).get("__name__") == "torch._tensor"  # PyTorch's own

        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if _is_traced():
                return original(tensors, *args, **kwargs)
            try:
                if self._passes:
                    return original(tensors, *args, **kwargs)
                passed = phases.passed
                if not (passed is None or args or kwargs) and passed.takes_forward(tensors, _getframe(1)):
                    self._passes = True
                    try:
                        if is_method and autograd.backward is self._autograd_wrapper:
                            result = self._autograd_backward(tensors)  # which the method would call by its wrapper
                        else:
                            result = original(tensors)
                    finally:
                        self._passes = not self._is_on
                    if (
                        passed is phases.passed
                        and not passed.pause[0]
                        and (passed.may_hold_of_grads is None or not passed.may_hold_of_grads())
                    ):
                        passed.events.append(PASSED_BACKWARD)
                        return result
                elif self._listens():
                    loss = tensors if isinstance(tensors, Tensor) else _first_tensor(tensors)
                    if loss is None:
                        return original(tensors, *args, **kwargs)
                    if type(loss) is Tensor:
                        self.tell(phases.begin_backward, loss, tensors, _getframe(1))
                    else:
                        with torch._C.DisableTorchFunctionSubclass():  # which would be called for what is read of it
                            self.tell(phases.begin_backward, loss, tensors, _getframe(1))
                    self._passes = calls.is_paused = True
                    try:
                        result = original(tensors, *args, **kwargs)
                    finally:
                        self._passes, calls.is_paused = not self._is_on, False
                        if phases.recorder is not None:
                            phases.recorder.end_backward()
                else:
                    return original(tensors, *args, **kwargs)
                self.tell(phases.end_backward, args, kwargs)
                return result
            except BaseException as error:
                leave_our_frames_out(error)
                raise

        return backward

    def _zero_grad(self, original: Function) -> Function:
        phases = self._phases

        def zero_grad(owner: Any, set_to_none: bool = True) -> None:
            if _is_traced():
                original(owner, set_to_none)
                return
            try:
                passed = phases.passed
                if self._passes:
                    original(owner, set_to_none)
                elif passed is not None and (key := id(owner)) in passed.zero_grads and _get_ident() == passed.thread:
                    original(owner, set_to_none)
                    if passed.pause[0] or len(passed.events) >= MAX_EVENTS:
                        self.tell(phases.end_zero_grad, owner)
                    else:
                        passed.events.append(passed.zero_grads[key])
                elif self._listens():
                    if not phases.passes(owner):
                        self.tell(phases.begin_zero_grad, owner)
                    original(owner, set_to_none)
                    self.tell(phases.end_zero_grad, owner)
                else:
                    original(owner, set_to_none)
            except BaseException as error:
                leave_our_frames_out(error)
                raise

        return zero_grad

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        phases = self._phases
        if len(args) == 1 and not kwargs:
            passed = phases.passed
            if (passed is not None and id(optimizer) in passed.steps) or phases.passes(optimizer):
                if phases.before_step is not None and self._listens():
                    self.tell(phases.before_step, phases)
                return  # nothing can be called inside
        if self._listens():
            self.tell(phases.begin_step, optimizer, sys._getframe(1))

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        phases = self._phases
        passed = phases.passed
        if (
            passed is not None
            and not self._passes
            and (key := id(optimizer)) in passed.steps
            and _get_ident() == passed.thread
            and not passed.pause[0]
            and (passed.may_hold_of_params is None or not passed.may_hold_of_params())
            and len(passed.events) < MAX_EVENTS
        ):
            passed.events.append(passed.steps[key])
        elif self._listens():
            self.tell(phases.end_step, optimizer)
        elif self._is_on and self._passes:  # inside a backward
            self.tell(phases.add_step_in_backward, optimizer)

    @_around
    def _grad(self, original: Function, *args: Any, **kwargs: Any) -> Any:
        calls = self._phases.calls
        self.tell(self._phases.begin)
        self._passes = calls.is_paused = True
        try:
            result = original(*args, **kwargs)
        finally:
            self._passes, calls.is_paused = not self._is_on, False
        self.tell(self._phases.end_call, Event("grad"))
        return result

    @_around
    def _clip(self, original: Function, *args: Any, **kwargs: Any) -> Any:
        self.tell(self._phases.begin)
        result = original(*args, **kwargs)
        self.tell(self._phases.end_clip, original.__name__, result, args, kwargs)
        return result

    @_around
    def _scale(self, original: Function, scaler: GradScaler, outputs: Any, *args: Any, **kwargs: Any) -> Any:
        scaled = original(scaler, outputs, *args, **kwargs)
        self.tell(self._phases.note_scaled, scaled, outputs)
        return scaled

    @_around
    def _unscale(self, original: Function, scaler: GradScaler, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if not scaler.is_enabled():
            return original(scaler, optimizer, *args, **kwargs)
        self.tell(self._phases.begin)
        result = original(scaler, optimizer, *args, **kwargs)
        self.tell(self._phases.end_call, Event("unscale", optimizer=optimizer))
        return result

    @_around
    def _scaler_step(
        self, original: Function, scaler: GradScaler, optimizer: Optimizer, *args: Any, **kwargs: Any
    ) -> Any:
        phases = self._phases
        if not scaler.is_enabled():
            return original(scaler, optimizer, *args, **kwargs)
        self.tell(phases.begin)
        steps = phases.counts.step_events
        self.tell(phases.enter, "GradScaler.step", scaler, sys._getframe())
        try:
            result = original(scaler, optimizer, *args, **kwargs)
        finally:
            phases.leave(scaler)
        if phases.counts.step_events == steps and _found_inf(scaler, optimizer):
            self.tell(phases.end_skipped_step, optimizer)
        return result

    @_around
    def _scheduler_step(self, original: Function, scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        if self._in_scheduler:
            return original(scheduler, *args, **kwargs)
        is_first = sys._getframe(2).f_code.co_name == "_initial_step"  # by its own __init__
        self._in_scheduler = True
        try:
            if is_first:
                return original(scheduler, *args, **kwargs)
            self.tell(self._phases.begin)
            result = original(scheduler, *args, **kwargs)
        finally:
            self._in_scheduler = False
        optimizer = getattr(scheduler, "optimizer", None)
        event = Event("scheduler", optimizer=optimizer if isinstance(optimizer, Optimizer) else None)
        self.tell(self._phases.end_call, event)
        return result

    def _wrap_scheduler(self, cls: type) -> None:
        if isinstance(vars(cls).get("step"), FunctionType):
            self._wrap(cls, "step", self._scheduler_step)

    def _wrap_coming_schedulers(self) -> None:
        """Wrap also those that the script itself, or a library that it imports later, derives."""
        seams = self

        def __init_subclass__(cls: type, **kwargs: Any) -> None:
            super(LRScheduler, cls).__init_subclass__(**kwargs)  # type: ignore[misc]
            if seams._is_on:
                seams._wrap_scheduler(cls)

        if "__init_subclass__" not in vars(LRScheduler):
            self._wrapped.append((LRScheduler, "__init_subclass__", None))
            LRScheduler.__init_subclass__ = classmethod(__init_subclass__)  # type: ignore[assignment, arg-type]

    def _has_any_global_hook(self, original: Function) -> Function:
        """Ours are none that a compiled model should warn of."""

        def _has_any_global_hook() -> Any:
            return self._phases.calls.has_others() if self._phases.calls.is_installed else original()

        return _has_any_global_hook


def _first_tensor(tensors: Any) -> Tensor | None:
    """Return the first of the tensors that a backward starts from."""
    if isinstance(tensors, (tuple, list)) and tensors and isinstance(tensors[0], Tensor):
        return tensors[0]
    return None


def _found_inf(scaler: GradScaler, optimizer: Optimizer) -> bool:
    """Return whether a scaler has left out an optimizer's step, for gradients that are not finite."""
    found = scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"]
    return any(each.item() for each in found.values())


def _with_subclasses(cls: type) -> list[type]:
    """Return a class and all that are derived from it, each once."""
    found: dict[type, None] = {cls: None}
    subclasses: list[type] = cls.__subclasses__()
    for derived in subclasses:
        found |= dict.fromkeys(_with_subclasses(derived))
    return list(found)
