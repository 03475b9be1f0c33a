"""A run that uses a model and does not train it."""

import torch
from bits import print_bits
from torch import nn

torch.manual_seed(17)
model = nn.Linear(2, 1)
with torch.no_grad():
    print(f"{model(torch.randn(4, 2)).mean().item():.4f}")
print_bits(model)
