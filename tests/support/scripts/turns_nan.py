"""A run whose loss is not a number from the seventh iteration on: the logarithm of something below 0."""

import torch
from bits import print_bits
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x, i):
        level = self.linear(x).sigmoid()
        return torch.log(1.0 - level * (1.0 if i < 6 else 4.0)).mean()


torch.manual_seed(22)
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for i in range(10):
    loss = model(torch.ones(4, 1), i)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print_bits(model)
