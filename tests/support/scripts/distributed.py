"""One of several processes that average their gradients, as torchrun starts them."""

import os
import sys

import torch
import torch.distributed as dist
from bits import print_bits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(8)
model = DistributedDataParallel(nn.Linear(3, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
torch.manual_seed(80 + rank)

for _ in range(3):
    x = torch.randn(4, 3)
    optimizer.zero_grad()
    loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
    loss.backward()
    optimizer.step()
    sys.stdout.write(f"rank {rank} of {os.environ['WORLD_SIZE']}: {loss.item():.5f}\n")
    sys.stdout.flush()
dist.destroy_process_group()
print_bits(model)
