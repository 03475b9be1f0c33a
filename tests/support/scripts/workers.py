"""Batches that two other processes make, with modules and random numbers of their own."""

import torch
from bits import print_bits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Normalize(nn.Module):
    def forward(self, values):
        return (values - 0.5) / 0.25


class Points(Dataset):
    def __init__(self):
        self.transform = nn.Sequential(Normalize(), nn.Dropout(0.1))

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return self.transform(torch.rand(3)), torch.tensor(index % 2)


def main():
    torch.manual_seed(6)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(2):
        for points, labels in DataLoader(Points(), batch_size=4, shuffle=True, num_workers=2):
            loss = nn.functional.cross_entropy(model(points), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(epoch, f"{loss.item():.4f}")
    print_bits(model)


if __name__ == "__main__":
    main()
