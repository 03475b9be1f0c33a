"""What is not finite and stays so: one look behind many iterations tells whether any of them brought it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim import optimizer as hooks

from autograd_tui.core.tensor_stats import SAMPLE_SIZE
from autograd_tui.engine.training.phase_tests import joint_norm
from autograd_tui.engine.training.state import TrainingState

OPTIMIZERS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
UNCOUNTED = {"data", "numpy", "untyped_storage", "from_dlpack", "vector_to_parameters"}  # by which no version counts up
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class LastingFaults:
    """Tells whether gradients, parameters, running statistics and the optimizer's small values stayed finite.

    These optimizers add to each parameter what comes from its gradient, so a NaN or an infinity in a gradient, or in
    what they keep of earlier ones, makes the parameter one that no later step brings back. Batch norm's running
    statistics are as lasting. Versions tell whether somebody else has written into them. SGD without momentum keeps
    nothing: there a forward that clips parameters through `.data` would bring them back unseen.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._versions = [each._version for each in state.params.values()]
        self.batch_norms = [module._buffers for module in state.model.modules() if type(module) in BATCH_NORMS]
        self._statistics = _floats(self.batch_norms)
        self._statistics_versions = [each._version for each in self._statistics]

    @classmethod
    def of(cls, state: TrainingState) -> LastingFaults | None:
        """Return what looks at a state behind some iterations; None where faults need not last."""
        optimizer = state.optimizer
        is_usual = (
            type(optimizer) in OPTIMIZERS
            and "step" not in vars(optimizer)
            and not (optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)
            and not (hooks._global_optimizer_pre_hooks or hooks._global_optimizer_post_hooks)
            and all(group["lr"] > 0 for group in optimizer.param_groups)
        )
        if _keeps_nothing(optimizer) and not UNCOUNTED.isdisjoint(state.reachable.captured.names):
            return None
        all_are_moved = None not in state.group_of and all(each.requires_grad for each in state.params.values())
        return cls(state) if is_usual and all_are_moved else None

    def are_absent(self, iterations: int) -> bool:
        """Return whether all is finite, and has been in each of so many iterations since this was made."""
        try:
            return self._are_absent(self._state, iterations)
        except Exception:  # as of tensors that an iteration which raised has left behind
            return False

    def _are_absent(self, state: TrainingState, iterations: int) -> bool:
        writes = iterations * (2 if type(state.optimizer) is torch.optim.AdamW else 1)  # weight decay is one of its own
        counts = [each._version - version for each, version in zip(state.params.values(), self._versions, strict=True)]
        if not all(0 <= count <= writes for count in counts):
            return False
        if _keeps_nothing(state.optimizer) and not {0, writes}.issuperset(counts):  # some may be somebody else's
            return False
        statistics = _floats(self.batch_norms)
        if [(id(each), each._version) for each in statistics] != [
            (id(each), version) for each, version in zip(self._statistics, self._statistics_versions, strict=True)
        ]:
            return False
        values, numbers = optimizer_values(state)
        if not all(map(math.isfinite, numbers)):
            return False
        with torch.no_grad():
            tensors = [*state.params.values(), *statistics, *values]
            return not tensors or math.isfinite(joint_norm(tensors).item())


def _keeps_nothing(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether a step remembers nothing of a gradient but what it adds to the parameter."""
    return type(optimizer) is torch.optim.SGD and not all(group["momentum"] for group in optimizer.param_groups)


def optimizer_values(state: TrainingState) -> tuple[list[Tensor], list[float]]:
    """Return those tensors and numbers of the optimizer's state of which a frame would tell whether they are finite."""
    tensors, numbers, entries = [], [], state.optimizer.state
    for param in state.params.values() if entries else ():
        for key, value in entries.get(param, {}).items():
            if isinstance(value, Tensor):
                if key != "step" and value.is_floating_point() and 0 < value.numel() <= SAMPLE_SIZE:
                    tensors.append(value)
            elif isinstance(value, float):
                numbers.append(value)
    return tensors, numbers


def _floats(owners: list[dict[str, Tensor | None]]) -> list[Tensor]:
    buffers = (buffer for each in owners for buffer in each.values())
    return [buffer for buffer in buffers if buffer is not None and buffer.is_floating_point() and buffer.numel()]
