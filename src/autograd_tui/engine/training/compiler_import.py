"""`torch._dynamo`, which PyTorch imports with the first optimizer: put off until a session is open.

It takes as long as half of `import torch`, and a forward needs none of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import torch

# The compiler's own module, behind those of the modules it imports that take long by themselves.
PARTS = (
    "mpmath",
    "sympy",
    "torch.fx.experimental.symbolic_shapes",
    "triton",
    "torch.distributed.tensor",
    "torch.onnx.ops",
)
COMPILER = "torch._dynamo"
_DISABLED = "__dynamo_disable"  # the attribute in which `torch._disable_dynamo` keeps what it calls in place of it


@contextmanager
def without_compiler() -> Iterator[None]:
    """Have an optimizer made without importing the compiler, as long as nothing else has imported it.

    PyTorch imports it to keep it off the method that adds parameter groups. Where it is not imported nothing is
    compiled, so that the method is called as it is.
    """
    method = getattr(torch.optim.Optimizer.add_param_group, "__wrapped__", None)
    if method is None or COMPILER in sys.modules or hasattr(method, _DISABLED):
        yield
        return
    setattr(method, _DISABLED, method)
    try:
        yield
    finally:
        delattr(method, _DISABLED)


def import_compiler() -> None:
    """Import it whole, as the next step or zero_grad of an optimizer would, there in the phase's own time."""
    while import_part():
        pass


def import_part() -> bool:
    """Import a part of it that is not imported yet, so that no part takes long; return whether there was one."""
    if COMPILER in sys.modules:
        return False
    part = next((each for each in (*PARTS, COMPILER) if each not in sys.modules and each not in _failed), None)
    if part is None:
        return False
    try:
        import_module(part)
    except Exception:  # this PyTorch goes without it, or cannot import it, as its optimizers will say then
        _failed.add(part)
    return True


_failed: set[str] = set()  # names of parts
