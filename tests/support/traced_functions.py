"""Traces of small functions: real autograd, recorded as training is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui import Session, open_session
from autograd_tui.core.trace import Trace
from autograd_tui.engine.training.scenario import Options, Parts, scenario
from autograd_tui.text.styled_text import Line, plain

Function = Callable[..., Tensor]


class Made(nn.Module):
    """A function of its parameters; what it gives is weighted, so that each value has an upstream of its own."""

    def __init__(self, function: Function, given: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.function = function
        self.names = tuple(given)
        for name, tensor in given.items():
            self.register_parameter(name, nn.Parameter(tensor)) if tensor.is_floating_point() else None
            if not tensor.is_floating_point():
                self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(*(getattr(self, name) for name in self.names))


def weighted(prediction: Tensor, _: Tensor) -> Tensor:
    """Give a sum in which no two values weigh the same."""
    if prediction.dim() == 0:
        return prediction * 1.5
    weights = torch.linspace(-1.0, 2.0, prediction.numel()).reshape(prediction.shape)
    return (prediction * weights).sum()


def open_made(function: Function, given: Mapping[str, Tensor], **options: Any) -> Session:
    """Open a session that trains a function of given tensors; integers among them are no parameters."""

    @scenario("made", device="cpu")
    def build(_: Options) -> Parts:
        x = torch.zeros(1)
        return Parts(model=Made(function, given), batch=lambda i: (x, x), loss=weighted)

    return open_session(build, **options)


def backward_of(function: Function, given: Mapping[str, Tensor]) -> Trace:
    """Record forward and backward of a function of tensors."""
    session = open_made(function, given)
    for letter in "fb":
        frame = session.run(f"i:{letter}")
        assert frame.error is None, frame.error
    assert frame.trace is not None
    return frame.trace


def text(lines: list[Line]) -> str:
    """Give lines as they stand on the screen."""
    return "\n".join(map(plain, lines))


def warnings(lines: list[Line]) -> str:
    """Give what is styled as a warning."""
    return text([line for line in lines if any(style == "warn" for _, style in line)])
