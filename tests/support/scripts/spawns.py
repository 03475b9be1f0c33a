"""Two processes that are started anew, each of which trains a model of its own; this one trains none."""

import torch
import torch.multiprocessing as mp
from bits import print_bits
from torch import nn


def work(rank, results):
    torch.manual_seed(160 + rank)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        loss = model(torch.randn(4, 2)).square().mean()
        loss.backward()
        optimizer.step()
    results.put((rank, loss.item(), model.weight.tolist()))


if __name__ == "__main__":
    torch.manual_seed(16)
    results = mp.get_context("spawn").SimpleQueue()
    mp.spawn(work, args=(results,), nprocs=2)
    print_bits(*sorted(results.get() for _ in range(2)))
