"""The law of equality for generated networks that mix all parts. AUTOGRAD_TUI_EXAMPLES=2000 asks for a long search."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_loop import Tensors, differing, named_tensors
from reach import open_with_many_checkpoints, tensors
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import ReduceLROnPlateau

from autograd_tui.engine.training.scenario import Parts, Scenario

ASKED = os.environ.get("AUTOGRAD_TUI_EXAMPLES")
WIDTH, ROWS = 4, 6
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "conv": lambda: nn.Sequential(nn.Unflatten(1, (1, WIDTH)), nn.Conv1d(1, 1, 3, padding=1), nn.Flatten()),
    "batch norm": lambda: nn.BatchNorm1d(WIDTH),
    "dropout": lambda: nn.Dropout(0.3),
    "tanh": nn.Tanh,
    "frozen": lambda: nn.Linear(WIDTH, WIDTH).requires_grad_(False),
}
LOSSES = {"mse": nn.functional.mse_loss, "l1": nn.functional.l1_loss, "smooth": nn.functional.smooth_l1_loss}
OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd,lr=0.05": partial(optim.SGD, lr=0.05),
    "sgd,lr=0.05,momentum=0.9": partial(optim.SGD, lr=0.05, momentum=0.9),
    "adam,lr=0.05": partial(optim.Adam, lr=0.05),
    "adamw,lr=0.05,weight_decay=0.1": partial(optim.AdamW, lr=0.05, weight_decay=0.1),
    "rmsprop,lr=0.01": partial(optim.RMSprop, lr=0.01),
}


@dataclass(frozen=True)
class Plan:
    """What a network is made of, and how it is trained."""

    layers: list[str]
    embedding: bool
    tied: bool
    unused: bool
    dtype: torch.dtype
    loss: str
    dicts: bool  # batches are dicts, and the loss is worked out by forward=
    fresh: bool
    groups: bool
    decay: bool
    optimizer: str
    seed: int


class Net(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.words = nn.Embedding(7, WIDTH) if plan.embedding else None
        self.first = nn.Linear(WIDTH, WIDTH)
        self.body = nn.Sequential(*(LAYERS[layer]() for layer in plan.layers))
        self.head = nn.Linear(WIDTH, WIDTH)
        if plan.tied:
            self.head.weight = self.first.weight
        if plan.unused:
            self.idle = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(self.first(x if self.words is None else self.words(x))))
        return y


def make(plan: Plan) -> tuple[Net, Callable[[int], Any], list[dict[str, Any]]]:
    net = Net(plan).to(plan.dtype)

    def batch(i: int) -> Any:
        generator = torch.Generator().manual_seed(plan.seed + i * plan.fresh)
        x = torch.rand(ROWS, WIDTH, generator=generator).to(plan.dtype)
        y = torch.rand(ROWS, WIDTH, generator=generator).to(plan.dtype)
        x = torch.randint(7, (ROWS,), generator=generator) if plan.embedding else x
        return {"x": x, "y": y} if plan.dicts else (x, y)

    own = [param for name, param in net.named_parameters() if not name.startswith("body")]
    rest = [param for name, param in net.named_parameters() if name.startswith("body")]
    groups: list[dict[str, Any]] = [{"params": own, "lr": 0.02}, {"params": rest}]
    return net, batch, [group for group in groups if group["params"]] if plan.groups else []


def measure(plan: Plan, model: nn.Module, batch: Any) -> Tensor:
    return LOSSES[plan.loss](model(batch["x"]), batch["y"])


def as_scenario(plan: Plan) -> Scenario:
    def build(options: Any) -> Parts:
        model, batch, groups = make(plan)
        form: dict[str, Any] = {"forward": partial(measure, plan)} if plan.dicts else {"loss": LOSSES[plan.loss]}
        return Parts(model=model, batch=batch, optimizer=plan.optimizer, groups=groups, **form)

    return Scenario("generated", build)


def plain(plan: Plan) -> Iterator[Tensors]:
    """Train by hand, and show the live tensors before each zero_grad."""
    torch.manual_seed(plan.seed)
    model, batch, groups = make(plan)
    optimizer = OPTIMIZERS[plan.optimizer](groups or model.parameters())
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=0, min_lr=1e-5) if plan.decay else None
    for i in range(1000):
        now = batch(i)
        loss = measure(plan, model, now if plan.dicts else {"x": now[0], "y": now[1]})
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if scheduler:
            scheduler.step(loss.detach())
        yield named_tensors(model, optimizer, loss, torch.get_rng_state())
        optimizer.zero_grad()


PLANS = st.builds(
    Plan,
    layers=st.lists(st.sampled_from(list(LAYERS)), max_size=4),
    embedding=st.booleans(),
    tied=st.booleans(),
    unused=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    loss=st.sampled_from(list(LOSSES)),
    dicts=st.booleans(),
    fresh=st.booleans(),
    groups=st.booleans(),
    decay=st.booleans(),
    optimizer=st.sampled_from(list(OPTIMIZERS)),
    seed=st.integers(0, 99),
)


@settings(max_examples=int(ASKED or 20), deadline=None, derandomize=ASKED is None)
@given(PLANS)
def test_a_generated_network_equals_the_plain_loop_also_when_rewound(plan: Plan) -> None:
    decay = "plateau:0.5:0" if plan.decay else None
    session = open_with_many_checkpoints(as_scenario(plan), seed=plan.seed, decay=decay, device="cpu")
    outer = torch.get_rng_state()
    for i, expected in enumerate(islice(plain(plan), 5)):
        rng = torch.get_rng_state()
        if i == 3:
            session.run("@6")  # the second backward, from a checkpoint
            list(session.run_all("szfbsz"))
        list(session.run_all("fbs"))
        assert differing(tensors(session), expected) == [], f"iteration {i + 1}"
        session.run("z")
        torch.set_rng_state(rng)
    torch.set_rng_state(outer)
