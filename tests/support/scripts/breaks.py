"""A run with a breakpoint in its loop."""

import torch
from bits import print_bits
from torch import nn

torch.manual_seed(14)
model = nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

for i in range(3):
    loss = model(torch.randn(4, 2)).square().mean()
    loss.backward()
    if i == 1:
        breakpoint()
    optimizer.step()
    optimizer.zero_grad()
print_bits(model)
