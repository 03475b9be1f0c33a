"""What a plain script has around its lines: random numbers, grad mode, default dtype."""

from __future__ import annotations

import pickle
import random
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class Surroundings:
    """A script's own globals, in force inside `with` and out of everybody else's way otherwise."""

    def __init__(self) -> None:
        self._accelerator: Any = None
        self._own = self._read()
        self._outer: list[Mark] = []

    def __enter__(self) -> None:
        self._outer.append(self._read())
        self._write(self._own)

    def __exit__(self, *_: object) -> None:
        self._own = self._read()
        self._write(self._outer.pop())

    def follow(self, device: str) -> None:
        """Take in the device's own random numbers from here on."""
        self._accelerator = None if torch.device(device).type == "cpu" else torch.get_device_module(device)

    def mark(self) -> Mark:
        """Remember what is in force now, inside `with`."""
        return self._read()

    def return_to(self, mark: Mark) -> None:
        """Put back what `mark` remembers, inside `with`."""
        self._write(mark)

    def _read(self) -> Mark:
        on_device = self._accelerator.get_rng_state() if self._accelerator else None
        modes = torch.is_grad_enabled(), torch.get_default_dtype()
        return Mark((torch.get_rng_state(), on_device, *modes), ForeignRandom.read())

    def _write(self, mark: Mark) -> None:
        rng, on_device, grad_enabled, dtype = mark.torch
        torch.set_rng_state(rng)
        if on_device is not None:
            self._accelerator.set_rng_state(on_device)
        torch.set_grad_enabled(grad_enabled)
        torch.set_default_dtype(dtype)
        mark.foreign.write()


@dataclass(frozen=True, slots=True)
class Mark:
    """Random states, grad mode and default dtype at one moment."""

    torch: tuple[Any, ...]
    foreign: ForeignRandom

    def same(self, other: Mark) -> bool:
        """Tell whether nothing has changed in between, above all that nobody has drawn a number."""
        pairs = zip(self.torch, other.torch, strict=True)
        return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


@dataclass(frozen=True, slots=True)
class ForeignRandom:
    """The random states of Python and NumPy, which a model may use too."""

    python: Any
    numpy: Any

    @classmethod
    def read(cls) -> ForeignRandom:
        numpy = sys.modules.get("numpy")
        return cls(random.getstate(), numpy and numpy.random.get_state(legacy=False))

    @staticmethod
    def seed(seed: int) -> None:
        """Start both anew."""
        random.seed(seed)
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed(seed % 2**32)

    def same(self, other: ForeignRandom) -> bool:
        """Tell whether nobody has drawn a number in between."""
        if self.python != other.python or (self.numpy is None) != (other.numpy is None):
            return False
        return self.numpy is None or pickle.dumps(self.numpy) == pickle.dumps(other.numpy)

    def write(self) -> None:
        """Put both back."""
        random.setstate(self.python)
        if self.numpy is not None:
            sys.modules["numpy"].random.set_state(self.numpy)
