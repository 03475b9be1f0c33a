"""Two models and two optimizers that train each other, each with batch normalization."""

import torch
from bits import print_bits
from torch import nn


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))

    def forward(self, noise):
        return self.main(noise)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(nn.Linear(2, 6), nn.LeakyReLU(0.2), nn.Linear(6, 1), nn.Sigmoid())

    def forward(self, points):
        return self.main(points).squeeze(1)


torch.manual_seed(2)
netG, netD = Generator(), Discriminator()
criterion = nn.BCELoss()
fixed_noise = torch.randn(4, 3)
optimizerD = torch.optim.Adam(netD.parameters(), lr=0.01, betas=(0.5, 0.999))
optimizerG = torch.optim.Adam(netG.parameters(), lr=0.01, betas=(0.5, 0.999))

for batch in range(3):
    netD.zero_grad()
    errD_real = criterion(netD(torch.randn(8, 2) + 2.0), torch.ones(8))
    errD_real.backward()
    fake = netG(torch.randn(8, 3))
    errD_fake = criterion(netD(fake.detach()), torch.zeros(8))
    errD_fake.backward()
    optimizerD.step()

    netG.zero_grad()
    errG = criterion(netD(fake), torch.ones(8))
    errG.backward()
    optimizerG.step()
    netG(fixed_noise)
    print(f"{batch}: {errD_real.item() + errD_fake.item():.4f} {errG.item():.4f}")
print_bits(netD, netG)
