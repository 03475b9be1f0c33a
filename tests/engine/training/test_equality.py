"""The law of equality: a run in steps has the tensors of the plain loop, to the bit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch
from torch import nn, optim

import fork_server
import plain_scripts
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from plain_loop import Tensors, differing, line, line_fresh, plain_loop, resnet18, small_net, small_net_fresh
from session_internals import as_scenario, tensors
from suite_options import LONG

Make = Callable[[Iterator[nn.Parameter]], optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd,lr=0.1": partial(optim.SGD, lr=0.1),
    "sgd,lr=0.01,momentum=0.9": partial(optim.SGD, lr=0.01, momentum=0.9),
    "sgd,lr=0.01,momentum=0.9,nesterov=true": partial(optim.SGD, lr=0.01, momentum=0.9, nesterov=True),
    "adam,lr=0.1": partial(optim.Adam, lr=0.1),
    "adamw,lr=0.1,weight_decay=0.05": partial(optim.AdamW, lr=0.1, weight_decay=0.05),
    "rmsprop,lr=0.01": partial(optim.RMSprop, lr=0.01),
    "adagrad,lr=0.5": partial(optim.Adagrad, lr=0.5),
}
SGD_MOMENTUM, ADAM = "sgd,lr=0.01,momentum=0.9", "adam,lr=0.1"


def assert_equal(session: Session, plain: Iterator[Tensors], *, iterations: int) -> None:
    """Compare before each zero_grad."""
    for i, expected in enumerate(islice(plain, iterations)):
        for command in "fbs":
            session.run(command)
        assert differing(tensors(session), expected) == [], f"iteration {i + 1}"
        assert session.frame.loss == expected["loss"]
        assert session.frame.learning_rate == expected["learning rate"]
        session.run("z")


@pytest.mark.parametrize("spelling", OPTIMIZERS)
def test_200_iterations_of_the_line_equal_the_plain_loop(spelling: str) -> None:
    session = open_session("linear", optimizer=spelling)
    assert_equal(session, plain_loop(line, OPTIMIZERS[spelling]), iterations=200)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_the_line_on_fresh_data_equals_the_plain_loop(seed: int) -> None:
    session = open_session("linear", optimizer=ADAM, data="fresh", seed=seed)
    assert_equal(session, plain_loop(line_fresh, OPTIMIZERS[ADAM], seed=seed), iterations=50)


@pytest.mark.parametrize("spelling", OPTIMIZERS)
def test_plateau_decay_lowers_the_learning_rate_as_in_the_plain_loop(spelling: str) -> None:
    session = open_session("linear", optimizer=spelling, decay="plateau:0.5:0", data="fresh")
    assert_equal(session, plain_loop(line_fresh, OPTIMIZERS[spelling], plateau=(0.5, 0)), iterations=50)
    assert session.frame.learning_rate < 0.01


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("spelling", OPTIMIZERS)
def test_batch_norm_and_dropout_equal_the_plain_loop(spelling: str, seed: int) -> None:
    session = open_session(as_scenario(small_net), optimizer=spelling, seed=seed)
    assert_equal(session, plain_loop(small_net, OPTIMIZERS[spelling], seed=seed), iterations=50)


def test_batch_norm_and_dropout_on_fresh_data_equal_the_plain_loop() -> None:
    session = open_session(as_scenario(small_net_fresh), optimizer=ADAM, seed=5, decay="plateau:0.5:2")
    assert_equal(session, plain_loop(small_net_fresh, OPTIMIZERS[ADAM], seed=5, plateau=(0.5, 2)), iterations=50)


@pytest.mark.parametrize(("spelling", "seed"), [(SGD_MOMENTUM, 0), (ADAM, 4)])
def test_three_iterations_of_resnet18_equal_the_plain_loop(spelling: str, seed: int) -> None:
    """Two images: of 32 x 32 pixels one has nothing to normalise in the last batch norms."""
    session = open_session(
        "resnet18", optimizer=spelling, seed=seed, device="cpu", image_size=32, batch_size=2, weights="random"
    )
    plain = plain_loop(partial(resnet18, images=2, size=32), OPTIMIZERS[spelling], seed=seed)
    assert_equal(session, plain, iterations=3)


@pytest.mark.skipif(not LONG, reason="--long: ten iterations at full size")
@pytest.mark.usefixtures("all_threads")
@pytest.mark.parametrize(("spelling", "seed"), [(SGD_MOMENTUM, 0), (ADAM, 4)])
def test_10_iterations_of_resnet18_equal_the_plain_loop(spelling: str, seed: int) -> None:
    session = open_session("resnet18", optimizer=spelling, seed=seed, device="cpu")
    assert_equal(session, plain_loop(resnet18, OPTIMIZERS[spelling], seed=seed), iterations=10)


SHIPPED: dict[str, tuple[Make, Callable[..., torch.Tensor]]] = {
    "spiral": (partial(optim.Adam, lr=0.03), nn.functional.binary_cross_entropy_with_logits),
    "lstm": (partial(optim.Adam, lr=0.01), nn.functional.mse_loss),
    "transformer": (partial(optim.AdamW, lr=0.003), nn.functional.cross_entropy),
}


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("name", SHIPPED)
def test_20_iterations_of_a_shipped_scenario_equal_the_plain_loop(name: str, seed: int) -> None:
    make_optimizer, loss = SHIPPED[name]
    plain = plain_loop(getattr(plain_scripts, name), make_optimizer, seed=seed, loss_function=loss)
    assert_equal(open_session(name, seed=seed), plain, iterations=20)


@pytest.fixture(scope="module")
def lesson() -> list[dict[str, Any]]:
    """Run the lesson through the installed program."""
    words = ["-m", "autograd_tui", "linear", "--headless", "--do", "f b s z", "--repeat", "3", "--json"]
    done = fork_server.run([sys.executable, *words])
    return [json.loads(line) for line in done.stdout.splitlines()]


LESSON = [  # loss, dL/dw, dL/db, w after, b after
    (3.666667, 1.333333, 2.0, 1.866667, 5.8),
    (3.318520, -0.711111, 1.066667, 1.937778, 5.693334),
    (3.158808, -0.474072, 1.137779, 1.985185, 5.579556),
]


def value(rows: dict[str, Any], name: str) -> float:
    return round(float(rows[name]["values"][0]), 6)


@pytest.mark.parametrize("iteration", [1, 2, 3])
def test_the_line_gives_the_lesson_to_its_last_digit(lesson: list[dict[str, Any]], iteration: int) -> None:
    forward, backward, step, _ = lesson[4 * (iteration - 1) : 4 * iteration]
    grads = value(backward["grads"], "w"), value(backward["grads"], "b")
    after = value(step["params"], "w"), value(step["params"], "b")
    assert (round(forward["loss"], 6), *grads, *after) == LESSON[iteration - 1]


def test_momentum_carries_w_against_its_own_gradient() -> None:
    session = open_session("linear", momentum=0.9)
    frame = list(session.run_all("fbsz*2"))[-1]
    assert round(frame.params[0].values[0], 4) == 1.8178
