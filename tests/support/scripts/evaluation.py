"""Epochs of training with an evaluation after each, and the best state kept and put back."""

import copy

import torch
from bits import print_bits
from torch import nn

torch.manual_seed(11)
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
inputs, labels = torch.randn(24, 4), torch.randint(3, (24,))


def train():
    model.train()
    for rows in torch.randperm(16).split(8):
        optimizer.zero_grad()
        loss = criterion(model(inputs[rows]), labels[rows])
        loss.backward()
        optimizer.step()


@torch.no_grad()
def evaluate():
    model.eval()
    return criterion(model(inputs[16:]), labels[16:]).item()


best, best_state = float("inf"), None
for epoch in range(3):
    train()
    validation = evaluate()
    if validation < best:
        best, best_state = validation, copy.deepcopy(model.state_dict())
    print(epoch, f"{validation:.4f}")
model.load_state_dict(best_state)
print_bits(model)
