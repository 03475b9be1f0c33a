"""The loop of most tutorials, with arguments of its own."""

import argparse
import os
import sys

import torch
from bits import print_bits
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("words", nargs="*")
args = parser.parse_args()
print(__name__, os.path.basename(__file__), sys.argv[1:], args.lr, args.words)

torch.manual_seed(0)
inputs = torch.randn(16, 3)
targets = inputs.sum(1, keepdim=True)
model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

for epoch in range(args.epochs):
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(inputs), targets)
    loss.backward()
    optimizer.step()
    print(f"epoch {epoch}: loss {loss.item():.4f}")
print_bits(model)
