"""A run that asks its user, before it trains and while it does."""

import torch
from bits import print_bits
from torch import nn

torch.manual_seed(13)
model = nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=float(input("learning rate? ")))

for _ in range(2):
    loss = model(torch.randn(4, 2)).square().mean()
    loss.backward()
    if input(f"loss {loss.item():.4f}, step? ") == "y":
        optimizer.step()
    optimizer.zero_grad()
print_bits(model)
