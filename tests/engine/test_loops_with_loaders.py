"""Four loops as people write them around a DataLoader: the run is the script's for three epochs, rewound or not."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from reach import loop_of, open_with_many_checkpoints
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from autograd_tui import Options, Parts, from_loader, open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import Scenario

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
            loss.backward()  # type: ignore[no-untyped-call]
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
        return self.head(hidden).transpose(1, 2)  # type: ignore[no-any-return]


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
        loss.backward()  # type: ignore[no-untyped-call]
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
                loss.backward()  # type: ignore[no-untyped-call]
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


def run_of_script(case: Case) -> tuple[list[float], list[Tensor]]:
    torch.manual_seed(5)
    losses, model = case.script()
    return losses, list(model.state_dict().values())


def state_of(session: Session) -> list[Tensor]:
    return list(loop_of(session).model.state_dict().values())


@pytest.mark.parametrize("close", [True, False], ids=["checkpoints", "one checkpoint"])
@pytest.mark.parametrize("name", CASES)
def test_three_epochs_are_the_scripts_to_the_bit_with_rewinds_and_looks(name: str, close: bool) -> None:
    losses, state = run_of_script(CASES[name])
    scenario = Scenario(name, CASES[name].parts)
    session = open_with_many_checkpoints(scenario, seed=5) if close else open_session(scenario, seed=5)
    for each in losses:
        assert [session.run(command).loss for command in "fbsz"] == [each] * 4
    assert all(map(torch.equal, state_of(session), state))
    places = random.Random(name)
    for _ in range(8):
        start = places.randrange(session.newest)  # into the middle of iterations too
        session.run(f"@{start}")
        begun = -(-start // 4)  # iterations, the one that start is in included
        for each in losses[begun : begun + places.randrange(1, 12)]:
            while session.next_command().name != "forward":
                session.run(session.next_command())
            assert session.run("f").loss == each
        look = places.randrange(1, session.newest)
        assert session.look(look).loss == losses[(look - 1) // 4]
        assert session.trace(4 * (session.newest // 8) + 1).ops
    session.run("@0")
    for frame in session.run_all(f"fbsz*{len(losses)}"):
        assert frame.loss == losses[(frame.index - 1) // 4]
    assert all(map(torch.equal, state_of(session), state))


@pytest.mark.parametrize("name", CASES)
def test_a_free_run_of_three_epochs_is_the_scripts_to_the_bit(name: str) -> None:
    losses, state = run_of_script(CASES[name])
    session = open_session(Scenario(name, CASES[name].parts), seed=5)
    list(session.run_free(session.end_of(len(losses)), lambda: False))
    assert session.history.loss.values.tolist() == losses
    assert all(map(torch.equal, state_of(session), state))
    assert session.look(4 * (len(losses) // 2) + 1).loss == losses[len(losses) // 2]
    assert all(map(torch.equal, state_of(session), state))


def test_a_loader_of_the_whole_file_begins_anew_in_each_session_and_wherever_all_is_built_again() -> None:
    own = torch.Generator().manual_seed(2)
    rows = TensorDataset(torch.arange(44.0).reshape(11, 4), torch.arange(11) % 3)
    shared = DataLoader(rows, batch_size=4, shuffle=True, generator=own)
    take = from_loader(shared)

    def build(_: Options) -> Parts:
        model = nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 3))
        return Parts(model=model, batch=lambda i: take(i), loss=F.cross_entropy, optimizer="sgd,lr=0.01")

    scenario = Scenario("shared", build)
    one, other = open_session(scenario), open_session(scenario, memory=1)  # which has no checkpoint
    losses = [frame.loss for frame in one.run_all("fbsz*4")]
    assert [frame.loss for frame in other.run_all("fbsz*7")][:16] == losses  # in turns, too
    losses += [frame.loss for frame in one.run_all("fbsz*5")]
    for session in (other, one):
        list(session.run_all("@10 sz fbsz*6"))
        assert [session.look(index).loss for index in range(1, 37)] == losses
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 3))
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    script = []
    for _ in range(3):
        for x, y in shared:
            loss = F.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            script += [loss.item()] * 4
    assert script == losses
