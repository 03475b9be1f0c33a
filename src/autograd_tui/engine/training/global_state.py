"""A script's global state: random numbers, grad mode, default dtype, and loaders half read."""

from __future__ import annotations

import pickle
import random
import sys
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from autograd_tui.engine.training.accelerator import Accelerator


class Rewindable(Protocol):
    """Something of a script's that moves on while it runs, such as a loader."""

    def state(self) -> Any:
        """Return the state as a value that nobody changes."""

    def restore(self, state: Any) -> None:
        """Return to a state."""


class GlobalState:
    """A script's own global state: in force inside `with`, and put away otherwise, so that nobody else changes it.

    The random states of Python and NumPy are slow to read. Once nobody inside has drawn from them for some time they
    are no longer swapped, and only `exact_snapshot` looks at them.
    """

    def __init__(self) -> None:
        self._accelerator: Accelerator | None = None
        self._host_rng_swaps: int | None = None  # that are left for Python's and NumPy's states; None: no end
        self._rewindables: dict[Rewindable, Any] = {}  # each with its state when it was registered
        self._inside = GlobalSnapshot(self._read_torch(), HostRng.read())
        self._outside: list[tuple[GlobalSnapshot, GlobalState | None]] = []
        self._outer_indices: list[int | None] = []  # of the accelerator that was current on the thread

    def __enter__(self) -> None:
        self._outer_indices.append(self._accelerator.make_current() if self._accelerator else None)
        self._outside.append((self.snapshot(), _in_force.get()))
        _in_force.set(self)
        self._write(self._inside)

    def __exit__(self, *_: object) -> None:
        before, self._inside = self._inside.host_rng, self.snapshot()
        snapshot, outer = self._outside.pop()
        _in_force.set(outer)
        if self._host_rng_swaps:
            self._host_rng_swaps = self._host_rng_swaps - 1 if self._inside.host_rng.same(before) else None
        self._write(snapshot)
        outer_index = self._outer_indices.pop()
        if self._accelerator and outer_index is not None:
            self._accelerator.leave(outer_index)

    def copy(self) -> GlobalState:
        """Return another one that begins where this one is now."""
        other = GlobalState()
        other._accelerator, other._inside = self._accelerator, self._inside
        other._rewindables = self._rewindables.copy()
        return other

    @staticmethod
    def register(rewindable: Rewindable) -> None:
        """Make `rewindable` part of the global state in force, if any; in earlier snapshots it is as it is now."""
        current = _in_force.get()
        if current is not None and rewindable not in current._rewindables:
            current._rewindables[rewindable] = rewindable.state()

    def add_device(self, device: str) -> None:
        """Make the device the current one inside `with`, and its own random numbers part of the state from here on."""
        self._accelerator = Accelerator.of(device)
        if self._accelerator and self._outer_indices:
            outer_index = self._accelerator.make_current()
            if self._outer_indices[-1] is None:
                self._outer_indices[-1] = outer_index

    def limit_host_rng_swaps(self, count: int) -> None:
        """Swap Python's and NumPy's states `count` more times, and no longer if nobody inside has drawn from them."""
        self._host_rng_swaps = count

    def seed(self, seed: int) -> None:
        """Seed all random numbers, inside `with`; Python's and NumPy's states are swapped from here on."""
        torch.manual_seed(seed)
        HostRng.seed(seed)
        self._host_rng_swaps = None

    def snapshot(self) -> GlobalSnapshot:
        """Return what is in force now; of Python's and NumPy's states what was read last, once they are not swapped."""
        host_rng = self._inside.host_rng if self._host_rng_swaps == 0 else HostRng.read()
        states = tuple((each, each.state()) for each in self._rewindables) if self._rewindables else ()
        return GlobalSnapshot(self._read_torch(), host_rng, states)

    def exact_snapshot(self) -> GlobalSnapshot:
        """Return what is in force now, inside `with`, to the bit.

        Where somebody has drawn from Python's or NumPy's numbers after all, they are swapped from here on.
        """
        if self._host_rng_swaps == 0 and not (host_rng := HostRng.read()).same(self._inside.host_rng):
            self._inside, self._host_rng_swaps = replace(self._inside, host_rng=host_rng), None
        return self.snapshot()

    def restore(self, snapshot: GlobalSnapshot) -> None:
        """Put `snapshot` in force, inside `with`."""
        self._write(snapshot)
        if self._host_rng_swaps == 0 and snapshot.host_rng is not self._inside.host_rng:
            snapshot.host_rng.write()
            self._inside = replace(self._inside, host_rng=snapshot.host_rng)

    mark, return_to, follow = snapshot, restore, add_device  # the names by which exported scripts call them

    def _read_torch(self) -> tuple[Any, ...]:
        on_device = self._accelerator.rng_state() if self._accelerator else None
        return torch.get_rng_state(), on_device, torch.is_grad_enabled(), torch.get_default_dtype()

    def _write(self, snapshot: GlobalSnapshot) -> None:
        rng, on_device, grad_enabled, dtype = snapshot.torch
        torch.set_rng_state(rng)
        if on_device is not None and self._accelerator is not None:
            self._accelerator.set_rng_state(on_device)
        torch.set_grad_enabled(grad_enabled)
        torch.set_default_dtype(dtype)
        if self._host_rng_swaps != 0:
            snapshot.host_rng.write()
        if self._rewindables:
            states = dict(snapshot.rewindables)
            for each, first in reversed(self._rewindables.items()):  # the first one last: they may share a generator
                each.restore(states.get(each, first))


_in_force: ContextVar[GlobalState | None] = ContextVar("global state in force", default=None)


@dataclass(frozen=True, slots=True)
class GlobalSnapshot:
    """The global state at one moment."""

    torch: tuple[Any, ...]  # random states of CPU and accelerator, grad mode, default dtype
    host_rng: HostRng
    rewindables: tuple[tuple[Any, Any], ...] = ()  # each with its state

    def same(self, other: GlobalSnapshot) -> bool:
        """Return whether PyTorch's part is the same, so that nobody has drawn a number of PyTorch's in between."""
        pairs = zip(self.torch, other.torch, strict=True)
        return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


@dataclass(frozen=True, slots=True)
class HostRng:
    """The random states of Python and NumPy, which a model may use too."""

    python: Any
    numpy: Any

    @classmethod
    def read(cls) -> HostRng:
        numpy = sys.modules.get("numpy")
        return cls(random.getstate(), numpy and numpy.random.get_state(legacy=False))

    @staticmethod
    def seed(seed: int) -> None:
        random.seed(seed)
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed(seed % 2**32)

    def same(self, other: HostRng) -> bool:
        """Return whether nobody has drawn a number in between."""
        if self.python != other.python or (self.numpy is None) != (other.numpy is None):
            return False
        return self.numpy is None or pickle.dumps(self.numpy) == pickle.dumps(other.numpy)

    def write(self) -> None:
        random.setstate(self.python)
        if self.numpy is not None:
            sys.modules["numpy"].random.set_state(self.numpy)
