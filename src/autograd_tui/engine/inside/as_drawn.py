"""Random numbers in float64 that are those of float32: so that noise and masks are the ones of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_MADE = (torch.rand, torch.randn, torch.rand_like, torch.randn_like)
_FILLED = ("normal_", "uniform_", "exponential_", "log_normal_", "cauchy_", "geometric_")


class DrawnAsInFloat32(TorchFunctionMode):
    """Draws in float32 what would be drawn in float64 inside `with`, and makes it float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _MADE and kwargs.get("dtype") in (None, torch.float64):
            like = args[0].dtype if args and isinstance(args[0], Tensor) else torch.float64
            drawn = func(*args, **{**kwargs, "dtype": torch.float32 if like is torch.float64 else like})
            return drawn.to(like) if not drawn.requires_grad else drawn.detach().to(like).requires_grad_()
        if getattr(func, "__name__", "") in _FILLED and args[0].dtype is torch.float64:
            room = torch.empty_like(args[0], dtype=torch.float32)
            return args[0].copy_(func(room, *args[1:], **kwargs))
        return func(*args, **kwargs)
