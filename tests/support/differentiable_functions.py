"""Functions whose every node is worked in numbers, with the shapes of their tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Shapes = tuple[tuple[int, ...], ...]
Case = tuple[Callable[..., Tensor], Shapes, str]  # function, shapes, the node that it is about
CLASSES = torch.tensor([2, 0, 1])


def _norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.batch_norm(x, torch.zeros(2), torch.ones(2), weight, bias, training=True)


def _rows(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.layer_norm(x, (3,), weight, bias)


def _pool(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 2, stride=1)


FUNCTIONS: dict[str, Case] = {
    "add": (lambda a, b: a + b, ((3,), (1,)), "AddBackward0"),
    "add alpha": (lambda a, b: torch.add(a, b, alpha=3), ((2, 3), (3,)), "AddBackward0"),
    "add number": (lambda a: a + 2, ((3,),), "AddBackward0"),
    "sub": (lambda a, b: a - b, ((2, 3), (2, 1)), "SubBackward0"),
    "sub alpha": (lambda a, b: torch.sub(a, b, alpha=2), ((3,), (3,)), "SubBackward0"),
    "rsub": (lambda a: 2 - a, ((3,),), "RsubBackward1"),
    "mul": (lambda a, b: a * b, ((3,), (1,)), "MulBackward0"),
    "mul broadcast": (lambda a, b: a * b, ((2, 1), (3,)), "MulBackward0"),
    "mul itself": (lambda a: a * a, ((3,),), "MulBackward0"),
    "mul number": (lambda a: 3 * a, ((3,),), "MulBackward0"),
    "div": (lambda a, b: a / b, ((2, 3), (3,)), "DivBackward0"),
    "div number": (lambda a: a / 4, ((3,),), "DivBackward0"),
    "number div": (lambda a: 4 / a, ((3,),), "ReciprocalBackward0"),
    "pow 2": (lambda a: a**2, ((3,),), "PowBackward0"),
    "pow 3": (lambda a: a**3, ((2, 2),), "PowBackward0"),
    "pow half": (lambda a: a.abs() ** 0.5, ((3,),), "PowBackward0"),
    "pow tensor": (lambda a, b: a.abs() ** b, ((3,), (1,)), "PowBackward1"),
    "number pow": (lambda a: 2**a, ((3,),), "PowBackward2"),
    "square": (lambda a: a.square(), ((3,),), "PowBackward0"),
    "neg": (lambda a: -a, ((3,),), "NegBackward0"),
    "exp": (torch.exp, ((3,),), "ExpBackward0"),
    "log": (lambda a: (a.abs() + 0.1).log(), ((3,),), "LogBackward0"),
    "sqrt": (lambda a: (a.abs() + 0.1).sqrt(), ((3,),), "SqrtBackward0"),
    "rsqrt": (lambda a: (a.abs() + 0.1).rsqrt(), ((3,),), "RsqrtBackward0"),
    "abs": (torch.abs, ((3,),), "AbsBackward0"),
    "sin": (torch.sin, ((3,),), "SinBackward0"),
    "cos": (torch.cos, ((3,),), "CosBackward0"),
    "mean": (lambda a: a.mean(), ((2, 3),), "MeanBackward0"),
    "mean dim": (lambda a: a.mean(1), ((2, 3),), "MeanBackward1"),
    "mean kept": (lambda a: a.mean(0, keepdim=True), ((2, 3),), "MeanBackward1"),
    "mean dims": (lambda a: a.mean((0, 2)), ((2, 2, 3),), "MeanBackward1"),
    "sum": (lambda a: a.sum(), ((2, 3),), "SumBackward0"),
    "sum dim": (lambda a: a.sum(-1), ((2, 3),), "SumBackward1"),
    "linear": (functional.linear, ((2, 3), (4, 3), (4,)), "AddmmBackward0"),
    "linear no bias": (functional.linear, ((2, 3), (4, 3)), "MmBackward0"),
    "linear transpose": (functional.linear, ((2, 3), (4, 3), (4,)), "TBackward0"),
    "matmul": (torch.matmul, ((2, 3), (3, 2)), "MmBackward0"),
    "addmm": (torch.addmm, ((2,), (2, 3), (3, 2)), "AddmmBackward0"),
    "bmm": (torch.bmm, ((2, 2, 2), (2, 2, 1)), "BmmBackward0"),
    "mv": (torch.mv, ((2, 3), (3,)), "MvBackward0"),
    "dot": (torch.dot, ((3,), (3,)), "DotBackward0"),
    "relu": (torch.relu, ((2, 3),), "ReluBackward0"),
    "relu in place": (lambda a: (a * 2).relu_(), ((2, 3),), "ReluBackward0"),
    "sigmoid": (torch.sigmoid, ((3,),), "SigmoidBackward0"),
    "tanh": (torch.tanh, ((3,),), "TanhBackward0"),
    "silu": (functional.silu, ((3,),), "SiluBackward0"),
    "gelu": (functional.gelu, ((3,),), "GeluBackward0"),
    "leaky relu": (lambda a: functional.leaky_relu(a, 0.2), ((3,),), "LeakyReluBackward0"),
    "relu6": (lambda a: functional.relu6(a * 5), ((3,),), "HardtanhBackward0"),
    "hardtanh": (functional.hardtanh, ((3,),), "HardtanhBackward0"),
    "softmax": (lambda a: functional.softmax(a, 1), ((2, 3),), "SoftmaxBackward0"),
    "log softmax": (lambda a: functional.log_softmax(a, -1), ((2, 3),), "LogSoftmaxBackward0"),
    "mse_loss": (functional.mse_loss, ((2, 3), (2, 3)), "MseLossBackward0"),
    "mse_loss sum": (lambda a, b: functional.mse_loss(a, b, reduction="sum"), ((3,), (3,)), "MseLossBackward0"),
    "mse_loss none": (lambda a, b: functional.mse_loss(a, b, reduction="none"), ((3,), (3,)), "MseLossBackward0"),
    "bce": (
        lambda a, b: functional.binary_cross_entropy_with_logits(a, b.sigmoid().detach()),
        ((3,), (3,)),
        "BinaryCrossEntropyWithLogitsBackward0",
    ),
    "cross entropy": (lambda a: functional.cross_entropy(a, CLASSES), ((3, 4),), "NllLossBackward0"),
    "cross entropy first half": (lambda a: functional.cross_entropy(a, CLASSES), ((3, 4),), "LogSoftmaxBackward0"),
    "cross entropy one": (lambda a: functional.cross_entropy(a, CLASSES[0]), ((4,),), "NllLossBackward0"),
    "ignored class": (
        lambda a: functional.cross_entropy(a, torch.tensor([1, -100, 0])),
        ((3, 4),),
        "NllLossBackward0",
    ),
    "nll sum": (lambda a: functional.nll_loss(a, CLASSES, reduction="sum"), ((3, 4),), "NllLossBackward0"),
    "conv2d": (functional.conv2d, ((1, 1, 4, 4), (1, 1, 2, 2), (1,)), "ConvolutionBackward0"),
    "conv2d strided": (
        lambda x, w: functional.conv2d(x, w, stride=2, padding=1),
        ((1, 2, 2, 2), (2, 2, 2, 2)),
        "ConvolutionBackward0",
    ),
    "conv1d dilated": (
        lambda x, w, b: functional.conv1d(x, w, b, dilation=2),
        ((2, 1, 5), (2, 1, 2), (2,)),
        "ConvolutionBackward0",
    ),
    "conv1d grouped": (lambda x, w: functional.conv1d(x, w, groups=2), ((1, 4, 3), (2, 2, 2)), "ConvolutionBackward0"),
    "batch norm": (_norm, ((4, 2), (2,), (2,)), "NativeBatchNormBackward0"),
    "batch norm of images": (_norm, ((2, 2, 2, 2), (2,), (2,)), "NativeBatchNormBackward0"),
    "layer norm": (
        lambda x, w, b: functional.layer_norm(x, (3,), w, b),
        ((2, 3), (3,), (3,)),
        "NativeLayerNormBackward0",
    ),
    "layer norm of two": (
        lambda x, w, b: functional.layer_norm(x, (2, 2), w, b),
        ((3, 2, 2), (2, 2), (2, 2)),
        "NativeLayerNormBackward0",
    ),
    "max pool": (_pool, ((1, 1, 4, 4),), "MaxPool2DWithIndicesBackward0"),
    "avg pool": (lambda x: functional.avg_pool2d(x, 2), ((1, 1, 4, 4),), "AvgPool2DBackward0"),
    "adaptive pool": (lambda x: functional.adaptive_avg_pool2d(x, 2), ((1, 1, 3, 3),), "AdaptiveAvgPool2DBackward0"),
    "global pool": (lambda x: functional.adaptive_avg_pool2d(x, 1), ((1, 2, 2, 2),), "MeanBackward1"),
    "view": (lambda a: a.view(3, 2), ((2, 3),), "ViewBackward0"),
    "reshape": (lambda a: a.reshape(-1), ((2, 3),), "ViewBackward0"),
    "flatten": (lambda a: a.flatten(1), ((2, 2, 2),), "ViewBackward0"),
    "unsqueeze": (lambda a: a.unsqueeze(1), ((3,),), "UnsqueezeBackward0"),
    "squeeze": (lambda a: a.squeeze(), ((3, 1),), "SqueezeBackward0"),
    "t": (lambda a: a.t(), ((2, 3),), "TBackward0"),
    "transpose": (lambda a: a.transpose(0, 2), ((2, 1, 3),), "TransposeBackward0"),
    "permute": (lambda a: a.permute(2, 0, 1), ((2, 1, 3),), "PermuteBackward0"),
    "expand": (lambda a: a.expand(2, 3), ((1, 3),), "ExpandBackward0"),
    "select": (lambda a: a.select(1, 2), ((2, 3),), "SelectBackward0"),
    "getitem": (lambda a: a[-1], ((2, 3),), "SelectBackward0"),
    "cat": (lambda a, b: torch.cat([a, b], 1), ((2, 1), (2, 3)), "CatBackward0"),
    "clone": (torch.clone, ((3,),), "CloneBackward0"),
}


def given(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """Draw tensors, of which each call with one seed gives the same."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in zip("abc", shapes, strict=False)}


EMBEDDING: tuple[Any, ...] = (
    lambda rows, weight: functional.embedding(rows, weight),
    {"rows": torch.tensor([[1, 0], [1, 2]]), "weight": torch.randn(4, 2)},
)
