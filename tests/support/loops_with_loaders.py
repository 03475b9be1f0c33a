"""Four training loops as people write them around a DataLoader, each as a script and as a scenario."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from autograd_tui import Options, Parts, from_loader

# A classifier with dropout, its data shuffled.


def classifier() -> tuple[nn.Module, DataLoader[Any]]:
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
    rows = TensorDataset(torch.randn(22, 4), torch.randint(3, (22,)))
    return model, DataLoader(rows, batch_size=6, shuffle=True)


def classifier_script() -> tuple[list[float], nn.Module]:
    model, loader = classifier()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(3):
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses, model


def classifier_parts(_: Options) -> Parts:
    model, loader = classifier()
    return Parts(model=model, batch=from_loader(loader), loss=F.cross_entropy, optimizer="sgd,lr=0.1,momentum=0.9")


# A variational autoencoder, which draws noise in its forward; its data come in order.


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 8), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        mean, spread = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (spread / 2).exp()
        divergence = -0.5 * (1 + spread - mean**2 - spread.exp()).sum()
        return F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum") + divergence


def autoencoder() -> tuple[nn.Module, DataLoader[Any]]:
    return Autoencoder(), DataLoader(TensorDataset(torch.rand(20, 6)), batch_size=8)


def autoencoder_script() -> tuple[list[float], nn.Module]:
    model, loader = autoencoder()
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        for (x,) in loader:
            loss = model(x)
            optimizer.zero_grad()
            loss.backward()
            losses.append(loss.item())
            optimizer.step()
    return losses, model


def autoencoder_parts(_: Options) -> Parts:
    model, loader = autoencoder()
    take = from_loader(loader)
    return Parts(model=model, batch=lambda i: take(i)[0], forward=lambda m, x: m(x), optimizer="adam,lr=0.01")


# A character model, whose loader practically never ends: no epoch of it does.

TEXT = torch.tensor([ord(character) % 32 for character in "the quick brown fox jumps over the lazy dog"])


class Characters(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return len(TEXT) - 5

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return TEXT[index : index + 5], TEXT[index + 1 : index + 6]


class CharacterModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(32, 8), nn.Dropout(0.2)
        self.lstm, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 32)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.dropout(self.embedding(x)))
        return self.head(hidden).transpose(1, 2)


class InfiniteLoader:
    def __init__(self) -> None:
        rows = Characters()
        self.loader = DataLoader(rows, sampler=RandomSampler(rows, replacement=True, num_samples=10**10), batch_size=8)
        self.batches = iter(self.loader)

    def next(self) -> Any:
        return next(self.batches)


def characters_script() -> tuple[list[float], nn.Module]:
    model, loader = CharacterModel(), InfiniteLoader()
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        x, y = loader.next()
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model


def characters_parts(_: Options) -> Parts:
    model, loader = CharacterModel(), InfiniteLoader()
    return Parts(model=model, batch=from_loader(loader), loss=F.cross_entropy, optimizer="adamw,lr=0.01")


# A GAN: the discriminator's turn and the generator's on the same real batch, an iteration each.


def gan() -> tuple[nn.ModuleDict, DataLoader[Any]]:
    discriminator = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(8, 1))
    generator = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    rows = TensorDataset(torch.randn(18, 2) + 3)
    return nn.ModuleDict({"D": discriminator, "G": generator}), DataLoader(rows, batch_size=5, shuffle=True)


def discriminator_loss(nets: Any, real: Tensor) -> Tensor:
    fake = nets["G"](torch.randn(len(real), 3)).detach()
    scores = nets["D"](real), nets["D"](fake)
    return F.binary_cross_entropy_with_logits(
        scores[0], torch.ones_like(scores[0])
    ) + F.binary_cross_entropy_with_logits(scores[1], torch.zeros_like(scores[1]))


def generator_loss(nets: Any, real: Tensor) -> Tensor:
    score = nets["D"](nets["G"](torch.randn(len(real), 3)))
    return F.binary_cross_entropy_with_logits(score, torch.ones_like(score))


def gan_script() -> tuple[list[float], nn.Module]:
    nets, loader = gan()
    optimizers = {each: optim.Adam(nets[each].parameters(), lr=0.02, betas=(0.5, 0.999)) for each in "DG"}
    losses = []
    for _ in range(3):
        for (real,) in loader:
            for turn, loss_of in (("D", discriminator_loss), ("G", generator_loss)):
                loss = loss_of(nets, real)
                optimizers[turn].zero_grad()
                loss.backward()
                optimizers[turn].step()
                losses.append(loss.item())
    return losses, nets


def gan_parts(_: Options) -> Parts:
    nets, loader = gan()
    take = from_loader(loader)

    def forward(nets: Any, batch: tuple[str, Tensor]) -> Tensor:
        turn, real = batch
        for name, net in nets.items():
            net.requires_grad_(name == turn)
        return (discriminator_loss if turn == "D" else generator_loss)(nets, real)

    return Parts(
        model=nets,
        batch=lambda i: ("DG"[i % 2], take(i // 2)[0]),
        forward=forward,
        optimizer="adam,lr=0.02,betas=(0.5,0.999)",
    )


@dataclass(frozen=True)
class Case:
    script: Callable[[], tuple[list[float], nn.Module]]
    parts: Callable[[Options], Parts]


CASES = {
    "classifier": Case(classifier_script, classifier_parts),
    "autoencoder": Case(autoencoder_script, autoencoder_parts),
    "characters": Case(characters_script, characters_parts),
    "GAN": Case(gan_script, gan_parts),
}
