"""A loss that holds the norm of a gradient: one gradient is computed within the forward of another."""

import torch
from bits import print_bits
from torch import nn

torch.manual_seed(19)
critic = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
opt = torch.optim.Adam(critic.parameters(), lr=0.01)

for i in range(3):
    real, fake = torch.randn(6, 2) + 1, torch.randn(6, 2)
    between = torch.lerp(real, fake, torch.rand(6, 1)).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty = (slope.norm(dim=1) - 1).square().mean()
    opt.zero_grad()
    loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
    loss.backward()
    opt.step()
    print(i, f"{loss.item():.5f}")
print_bits(critic)
