"""A run that ends in an exception of its own, in a function that the loop calls."""

import torch
from torch import nn

torch.manual_seed(12)
model = nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)


def check(loss):
    if not loss.isfinite():
        raise ValueError(f"the loss is {loss.item()}")


for i in range(4):
    x = torch.randn(4, 2) if i < 2 else torch.full((4, 2), float("nan"))
    optimizer.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    check(loss)
    optimizer.step()
    print(i, f"{loss.item():.4f}", flush=True)
