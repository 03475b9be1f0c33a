"""A run that hears ctrl+c and signals itself, and ends in order."""

import os
import signal

import torch
from bits import print_bits
from torch import nn

torch.manual_seed(21)
model = nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
heard = []
signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
try:
    for i in range(100):
        optimizer.zero_grad()
        loss = model(torch.randn(4, 2)).square().mean()
        loss.backward()
        optimizer.step()
        if i == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        if i == 3:
            signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("stopped early", i, heard)
print_bits(model)
