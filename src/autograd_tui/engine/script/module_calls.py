"""The outermost calls of modules in a script, and the zeros in what they give, followed by global hooks."""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.hooks import RemovableHandle

from autograd_tui.engine.training.phase_tests import count_zeros
from autograd_tui.engine.training.tensor_properties import tensors_in

if TYPE_CHECKING:
    from autograd_tui.engine.script.recording import ScriptRecorder

MAX_CALLS = 1024  # of which it is remembered whose output they made
MAX_HELD_CALLS = 8  # whose tensors are held until the next stop
MAX_COUNTED_CALLS = 4096  # since the last forward that a backward followed


@dataclass(slots=True)
class ModuleCall:
    """One call: its output is known by the number of the node that made it."""

    module: weakref.ref[nn.Module]
    nodes: tuple[int, ...]  # of the output's tensors
    has_params: bool
    output: Tensor | None  # its first tensor, detached
    arguments: tuple[Tensor, ...]  # the tensors that it was called with, detached
    has_target: bool  # whether it was called with two tensors, and the second needs no gradient
    argument_refs: tuple[weakref.ref[Tensor], ...]


class ModuleCalls:
    """Follows the calls of modules in grad mode whose output has a graph."""

    def __init__(self) -> None:
        self.calls: deque[ModuleCall] = deque(maxlen=MAX_CALLS)
        self.is_paused = False  # inside a backward
        self._depth = 0
        self.recorder: ScriptRecorder | None = None  # that hears of each call too
        self._handles: list[RemovableHandle] = []
        self.more_hooks: frozenset[int] = frozenset()  # ids of other global hooks of ours

    def install(self) -> None:
        """Add the hooks."""
        if not self._handles:
            self._handles = [
                nn.modules.module.register_module_forward_pre_hook(self._enter),
                nn.modules.module.register_module_forward_hook(self._leave, always_call=True),
            ]

    @property
    def is_installed(self) -> bool:
        """Whether there are global hooks of ours."""
        return bool(self._handles or self.more_hooks)

    def has_others(self) -> bool:
        """Return whether there are global hooks besides these."""
        ours = {*self.more_hooks, *(handle.id for handle in self._handles)}
        module = nn.modules.module
        backward = module._global_backward_pre_hooks or module._global_backward_hooks
        forward = {*module._global_forward_pre_hooks, *module._global_forward_hooks}
        return bool(backward or forward - ours)

    def remove(self) -> None:
        """Take the hooks away, and forget the calls."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.calls.clear()
        self._depth = 0

    def reset(self) -> None:
        """Begin outside of every module: a KeyboardInterrupt leaves one without a hook."""
        self._depth = 0

    def let_go(self) -> None:
        """Hold no tensors any more."""
        for call in self.calls:
            call.output, call.arguments = None, ()

    def arguments(self) -> list[Tensor]:
        """Return all tensors that modules were called with, as far as they still exist."""
        given = (reference() for call in self.calls for reference in call.argument_refs)
        return [each for each in given if each is not None]

    def in_graph(self, nodes: set[int]) -> Iterator[ModuleCall]:
        """Yield the calls whose output is in a graph, given by the numbers of its nodes; newest first."""
        return (call for call in reversed(self.calls) if any(each in nodes for each in call.nodes))

    def _enter(self, module: nn.Module, arguments: Any) -> None:
        if not torch.compiler.is_compiling():
            self._depth += 1
            if self.recorder is not None and not self.is_paused:
                self.recorder.enter_module(module, arguments, sys._getframe(1), outermost=self._depth == 1)

    def _leave(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        self._depth = max(0, self._depth - 1)
        if self.recorder is not None:
            self.recorder.leave_module(module, output, outermost=self._depth == 0)
        if self._depth or self.is_paused or not torch.is_grad_enabled():
            return
        if torch._C._are_functorch_transforms_active():
            return
        try:
            self._add(module, arguments, output)
        except Exception:  # an output that cannot be read: the call is left out
            return

    def _add(self, module: nn.Module, arguments: Any, output: Any) -> None:
        with without_modes(), torch.no_grad():
            made = [each for each in tensors_in(_plain(output)) if each.grad_fn is not None]
            if not made:
                return
            given = list(tensors_in(arguments))
            self.calls.append(
                ModuleCall(
                    weakref.ref(module),
                    tuple(each.grad_fn._sequence_nr() for each in made if each.grad_fn is not None),
                    any(True for _ in module.parameters()),
                    _first(made).detach(),
                    tuple(each.detach() for each in given[:2]),
                    len(given) == 2 and not given[1].requires_grad,
                    tuple(weakref.ref(each) for each in given),
                )
            )
            if len(self.calls) > MAX_HELD_CALLS:
                old = self.calls[-1 - MAX_HELD_CALLS]
                old.output, old.arguments = None, ()


@contextmanager
def without_modes() -> Iterator[None]:
    """Let the modes that the script may have entered, which see every call of PyTorch, see nothing of this."""
    with torch._C.DisableTorchFunction():
        if not torch._C._len_torch_dispatch_stack():
            yield
            return
        with _disable_current_modes():
            yield


def _first(made: list[Tensor]) -> Tensor:
    """Return the first tensor that is no single number, as a loss beside a prediction is; else the first."""
    return next((each for each in made if each.numel() > 1), made[0])


def _plain(output: Any) -> Any:
    """Return an output object, as of a library's models, as a dict."""
    if isinstance(output, (Tensor, dict, tuple, list)):
        return output
    return vars(output) if hasattr(output, "__dict__") else ()


class ActivationCounts:
    """Counts zeros in calls in grad mode; the modules themselves stay as they are, whoever pickles or copies them.

    `calls`: of each call, the module's name, how many values are 0, and how many there are.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        """Begin to follow the calls of some modules, by name."""
        self._names = {id(module): (weakref.ref(module), name) for name, module in modules.items()}
        self.calls: deque[tuple[str, Tensor, int]] = deque(maxlen=MAX_COUNTED_CALLS)
        self._handle = nn.modules.module.register_module_forward_hook(self._count)
        self.hook_id: int = self._handle.id

    def remove(self) -> None:
        """Take the hook away."""
        self._handle.remove()

    def shares(self) -> tuple[tuple[str, float], ...]:
        """Return the share of zeros in each call so far, with the module's name."""
        return tuple((name, zeros.item() / size) for name, zeros, size in self.calls)

    def _count(self, module: nn.Module, arguments: Any, output: Any) -> None:
        known = self._names.get(id(module))
        if known is None or known[0]() is not module or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        if torch._C._are_functorch_transforms_active():
            return
        try:
            with without_modes():
                counted = count_zeros(output)
        except Exception:  # an output that cannot be read
            return
        if counted is not None:
            self.calls.append((known[1], *counted))
