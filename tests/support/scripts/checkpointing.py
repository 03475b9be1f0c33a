"""Parts of the forward that are computed again in the backward, in both of PyTorch's ways."""

import torch
from bits import print_bits
from torch import nn
from torch.utils.checkpoint import checkpoint


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 6), nn.Dropout(0.2), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.2), nn.ReLU())
        self.last = nn.Linear(6, 1)

    def forward(self, x):
        x = checkpoint(self.first, x, use_reentrant=False)
        x = checkpoint(self.second, x, use_reentrant=True)
        return self.last(x)


torch.manual_seed(9)
model = Net()
optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)

for i in range(3):
    optimizer.zero_grad()
    loss = model(torch.randn(5, 3)).square().mean()
    loss.backward()
    optimizer.step()
    print(i, f"{loss.item():.5f}")
print_bits(model)
