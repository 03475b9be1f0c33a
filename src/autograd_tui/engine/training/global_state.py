"""What a plain script has around its lines: random numbers, grad mode, default dtype, loaders half read."""

from __future__ import annotations

import pickle
import random
import sys
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor


class Rewindable(Protocol):
    """Something of a script's that moves on while it runs, such as a loader: its state can be put back."""

    def state(self) -> Any:
        """Return the state as a value that nobody changes."""

    def put_back(self, state: Any) -> None:
        """Be as `state` says."""


class GlobalState:
    """A script's own globals, in force inside `with` and out of everybody else's way otherwise.

    The random states of Python and NumPy are slow to read: once some time inside has drawn from neither, they are left
    in place, and looked at by `mark_closely` alone.
    """

    def __init__(self) -> None:
        self._accelerator: Any = None
        self._trial: int | None = None  # how often they are still swapped; None: always
        self._rewindables: dict[Rewindable, Any] = {}  # and the state in which each became known
        self._own = GlobalSnapshot(self._read_torch(), HostRng.read())
        self._outer: list[tuple[GlobalSnapshot, GlobalState | None]] = []

    def __enter__(self) -> None:
        self._outer.append((self._read(), _in_force.get()))
        _in_force.set(self)
        self._write(self._own)

    def __exit__(self, *_: object) -> None:
        before, self._own = self._own.foreign, self._read()
        outer, around = self._outer.pop()
        _in_force.set(around)
        if self._trial:
            self._trial = self._trial - 1 if self._own.foreign.same(before) else None
        self._write(outer)

    def copy(self) -> GlobalState:
        """Give others that begin as these are now."""
        other = GlobalState()
        other._accelerator, other._own = self._accelerator, self._own
        other._rewindables = self._rewindables.copy()
        return other

    @staticmethod
    def take_in(rewindable: Rewindable) -> None:
        """Have the global state in force, if any, snapshot an object from here on; before, it was as it is now."""
        here = _in_force.get()
        if here is not None and rewindable not in here._rewindables:
            here._rewindables[rewindable] = rewindable.state()

    def follow(self, device: str) -> None:
        """Take in the device's own random numbers from here on."""
        self._accelerator = None if torch.device(device).type == "cpu" else torch.get_device_module(device)

    def try_without_foreign(self, times: int) -> None:
        """Swap Python's and NumPy's states so often yet, and no longer if nobody inside has drawn from them by then."""
        self._trial = times

    def seed(self, seed: int) -> None:
        """Start all random numbers anew, inside `with`; Python's and NumPy's are swapped from here on."""
        torch.manual_seed(seed)
        HostRng.seed(seed)
        self._trial = None

    def mark(self) -> GlobalSnapshot:
        """Remember what is in force now, inside `with`."""
        return self._read()

    def mark_closely(self) -> GlobalSnapshot:
        """Remember it for good; where somebody draws from Python's or NumPy's numbers after all, swap them again."""
        if self._trial == 0 and not (foreign := HostRng.read()).same(self._own.foreign):
            self._own, self._trial = replace(self._own, foreign=foreign), None
        return self._read()

    def return_to(self, mark: GlobalSnapshot) -> None:
        """Put back what `mark` remembers, inside `with`."""
        self._write(mark)
        if self._trial == 0 and mark.foreign is not self._own.foreign:
            mark.foreign.write()
            self._own = replace(self._own, foreign=mark.foreign)

    def _read(self) -> GlobalSnapshot:
        foreign = self._own.foreign if self._trial == 0 else HostRng.read()
        others = tuple((each, each.state()) for each in self._rewindables) if self._rewindables else ()
        return GlobalSnapshot(self._read_torch(), foreign, others)

    def _read_torch(self) -> tuple[Any, ...]:
        on_device = self._accelerator.get_rng_state() if self._accelerator else None
        return torch.get_rng_state(), on_device, torch.is_grad_enabled(), torch.get_default_dtype()

    def _write(self, mark: GlobalSnapshot) -> None:
        rng, on_device, grad_enabled, dtype = mark.torch
        torch.set_rng_state(rng)
        if on_device is not None:
            self._accelerator.set_rng_state(on_device)
        torch.set_grad_enabled(grad_enabled)
        torch.set_default_dtype(dtype)
        if self._trial != 0:
            mark.foreign.write()
        if self._rewindables:
            known = dict(mark.rewindables)
            for each, start in reversed(self._rewindables.items()):  # the first one last: they may share a generator
                each.put_back(known.get(each, start))


_in_force: ContextVar[GlobalState | None] = ContextVar("global state in force", default=None)


@dataclass(frozen=True, slots=True)
class GlobalSnapshot:
    """Random states, grad mode and default dtype at one moment."""

    torch: tuple[Any, ...]
    foreign: HostRng
    rewindables: tuple[tuple[Any, Any], ...] = ()  # each with its state

    def same(self, other: GlobalSnapshot) -> bool:
        """Tell whether nothing has changed in between, above all that nobody has drawn a number."""
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
        """Start both anew."""
        random.seed(seed)
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed(seed % 2**32)

    def same(self, other: HostRng) -> bool:
        """Tell whether nobody has drawn a number in between."""
        if self.python != other.python or (self.numpy is None) != (other.numpy is None):
            return False
        return self.numpy is None or pickle.dumps(self.numpy) == pickle.dumps(other.numpy)

    def write(self) -> None:
        """Put both back."""
        random.setstate(self.python)
        if self.numpy is not None:
            sys.modules["numpy"].random.set_state(self.numpy)
