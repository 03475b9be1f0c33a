"""A bar on the error stream that is written over, as progress bars do, with colors where there is a terminal."""

import sys

import torch
from bits import print_bits
from torch import nn

torch.manual_seed(15)
model = nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
green, plain = ("\x1b[32m", "\x1b[0m") if sys.stderr.isatty() else ("", "")

for i in range(4):
    optimizer.zero_grad()
    loss = model(torch.randn(4, 2)).square().mean()
    loss.backward()
    optimizer.step()
    done = 100 * (i + 1) // 4
    sys.stderr.write(f"\r{done:3}%|{green}{'█' * (done // 10):10}{plain}| {i + 1}/4 loss={loss.item():.3f}")
    sys.stderr.flush()
sys.stderr.write("\n")
print_bits(model)
