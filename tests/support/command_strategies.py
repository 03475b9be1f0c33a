"""Hypothesis strategies for commands."""

from __future__ import annotations

from hypothesis import strategies as st

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.optimizer_spec import OptimizerSpec

finite = st.floats(allow_nan=False)  # a NaN is unequal to itself, so lists with one cannot be compared
phases = st.builds(Command, st.sampled_from([phase.value for phase in Phase]), forced=st.booleans())
options = st.lists(
    st.tuples(
        st.sampled_from(["momentum", "betas", "nesterov", "foreach", "mode"]),
        st.one_of(
            st.booleans(),
            st.none(),
            st.integers(-(10**15) + 1, 10**15 - 1),
            finite,
            st.lists(finite, min_size=1, max_size=3).map(tuple),
            st.sampled_from(["min", "strong_wolfe"]),
        ),
    ),
    unique_by=lambda pair: pair[0],
    max_size=3,
).map(tuple)
specs = st.builds(OptimizerSpec, st.sampled_from(["sgd", "adam", "rprop"]), st.none() | finite, options)
names = st.sampled_from(["lr", "w", "b[0]", "0.weight[1,2]", "layer1.0.bn1.bias[3]", "f", "größe"])
settings = st.one_of(st.builds(Command, names, finite), st.builds(Command, st.just("optimizer"), specs))
run_commands = phases | settings  # those that lead to a frame of their own
commands = run_commands | st.just(Command("undo")) | st.integers(0, 10**15 - 1).map(lambda index: Command("@", index))
