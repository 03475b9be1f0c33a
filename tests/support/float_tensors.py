"""A Hypothesis strategy for tensors of every floating-point dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SIZES = (1, 2, 16, 17, 1024, 1025, 3000)


@st.composite
def float_tensors(draw: st.DrawFn, sizes: Sequence[int] = SIZES) -> Tensor:
    """Normal values at a chosen scale, some replaced by zero or by what is not finite."""
    size, dtype = draw(st.sampled_from(sizes)), draw(st.sampled_from(FLOATS))
    values = torch.randn(size, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    values *= draw(st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e30]))
    for place in draw(st.lists(st.integers(0, size - 1), max_size=3)):
        values[place] = draw(st.sampled_from([0.0, math.nan, math.inf, -math.inf]))
    return values.to(dtype)
