"""Two ranks that wait for each other no longer than four seconds."""

from datetime import timedelta

import torch
import torch.distributed as dist
from bits import print_bits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo", timeout=timedelta(seconds=4))
torch.manual_seed(8)
model = DistributedDataParallel(nn.Linear(3, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(2):
    optimizer.zero_grad()
    model(torch.randn(4, 3)).square().mean().backward()
    optimizer.step()
dist.destroy_process_group()
print_bits(model)
