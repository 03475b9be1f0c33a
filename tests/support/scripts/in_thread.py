"""A run that trains in a thread of its own while the main thread waits."""

import threading

import torch
from bits import print_bits
from torch import nn

torch.manual_seed(18)
model = nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)


def train():
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(torch.randn(4, 2)).square().mean()
        loss.backward()
        optimizer.step()


thread = threading.Thread(target=train)
thread.start()
thread.join()
print_bits(model)
