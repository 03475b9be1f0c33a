"""The law of equality for generated networks that mix all parts. --examples 2000 asks for a long search."""

from __future__ import annotations

from itertools import islice

import torch
from hypothesis import given

from generated_networks import PLANS, Plan, as_scenario, plain
from plain_loop import differing
from session_internals import open_with_many_checkpoints, tensors
from suite_options import search


@search(20)
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
