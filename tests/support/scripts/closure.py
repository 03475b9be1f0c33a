"""An optimizer that calls the forward and the backward itself."""

import torch
from bits import print_bits
from torch import nn

torch.manual_seed(3)
seq = nn.Linear(3, 1).double()
inputs = torch.randn(10, 3, dtype=torch.double)
targets = inputs.prod(1, keepdim=True)
optimizer = torch.optim.LBFGS(seq.parameters(), lr=0.8, max_iter=4)

for _ in range(2):

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(seq(inputs), targets)
        loss.backward()
        return loss

    print(f"{optimizer.step(closure).item():.6f}")
print_bits(seq)
