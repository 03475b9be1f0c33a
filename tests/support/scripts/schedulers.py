"""Three learning rates that change: after each batch, after each epoch, and where the loss no longer falls."""

import torch
from bits import print_bits
from torch import nn
from torch.optim import lr_scheduler

torch.manual_seed(5)
encoder, head = nn.Linear(3, 3), nn.Linear(3, 1)
adamw = torch.optim.AdamW(encoder.parameters(), lr=0.01)
sgd = torch.optim.SGD([{"params": head.weight}, {"params": head.bias, "lr": 0.2}], lr=0.1)
cycle = lr_scheduler.OneCycleLR(adamw, max_lr=0.1, total_steps=10)
decay = lr_scheduler.ExponentialLR(sgd, 0.9)
plateau = lr_scheduler.ReduceLROnPlateau(sgd, patience=0)

for epoch in range(2):
    for _ in range(2):
        batch = torch.randn(6, 3)
        loss = (head(encoder(batch)) - batch.sum(1, keepdim=True)).abs().mean()
        adamw.zero_grad()
        sgd.zero_grad()
        loss.backward()
        adamw.step()
        sgd.step()
        cycle.step()
    decay.step()
    plateau.step(loss.item())
    print(epoch, [group["lr"] for optimizer in (adamw, sgd) for group in optimizer.param_groups])
print_bits(encoder, head)
