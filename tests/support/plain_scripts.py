"""The shipped scenarios as scripts: their models and formulas, with data drawn and trained by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autograd_tui.scenarios.lstm import NextValue, waves
from autograd_tui.scenarios.spiral import spirals
from autograd_tui.scenarios.transformer import CHARACTERS, TEXT, LanguageModel
from plain_loop import Batch


def spiral(seed: int) -> tuple[nn.Module, Batch]:
    model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
    x, y = spirals(128)
    return model, lambda i: (x, y)


def lstm(seed: int) -> tuple[nn.Module, Batch]:
    return NextValue(16), lambda i: waves(16, 24, torch.Generator().manual_seed(seed * 1_000_003 + i))


def transformer(seed: int) -> tuple[nn.Module, Batch]:
    text = torch.tensor([CHARACTERS.index(character) for character in TEXT])

    def batch(i: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + i)
        starts = torch.randint(len(text) - 32, (16, 1), generator=generator).flatten().tolist()
        x = torch.stack([text[start : start + 32] for start in starts])
        y = torch.stack([text[start + 1 : start + 33] for start in starts])
        return x, y

    return LanguageModel(width=32, heads=4, layers=1, context=32), batch
