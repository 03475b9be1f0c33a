"""What a plain script has around its lines: random numbers, grad mode, default dtype."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from typing import Any

import torch


class Surroundings:
    """A script's own globals, in force inside `with` and out of everybody else's way otherwise."""

    def __init__(self) -> None:
        self._accelerator: Any = None
        self._own = self._read()
        self._outer: list[tuple[Any, ...]] = []

    def __enter__(self) -> None:
        self._outer.append(self._read())
        self._write(self._own)

    def __exit__(self, *_: object) -> None:
        self._own = self._read()
        self._write(self._outer.pop())

    def copy(self) -> Surroundings:
        """Give others that begin as these are now."""
        other = Surroundings()
        other._accelerator, other._own = self._accelerator, self._own
        return other

    def follow(self, device: str) -> None:
        """Take in the device's own random numbers from here on."""
        self._accelerator = None if torch.device(device).type == "cpu" else torch.get_device_module(device)

    def _read(self) -> tuple[Any, ...]:
        on_device = self._accelerator.get_rng_state() if self._accelerator else None
        return torch.get_rng_state(), on_device, torch.is_grad_enabled(), torch.get_default_dtype()

    def _write(self, state: tuple[Any, ...]) -> None:
        rng, on_device, grad_enabled, dtype = state
        torch.set_rng_state(rng)
        if on_device is not None:
            self._accelerator.set_rng_state(on_device)
        torch.set_grad_enabled(grad_enabled)
        torch.set_default_dtype(dtype)

    def mark(self) -> Mark:
        """Remember what is in force now, inside `with`."""
        return Mark(self._read())

    def return_to(self, mark: Mark) -> None:
        """Put back what `mark` remembers, inside `with`."""
        self._write(mark.torch)


@dataclass(frozen=True, slots=True)
class Mark:
    """PyTorch's random state, grad mode and default dtype at one moment."""

    torch: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ForeignRandom:
    """The random states of Python and NumPy, which a model may use too; for checkpoints, since reading them is slow."""

    python: Any
    numpy: Any

    @classmethod
    def read(cls) -> ForeignRandom:
        numpy = sys.modules.get("numpy")
        return cls(random.getstate(), numpy and numpy.random.get_state())

    def same(self, other: ForeignRandom) -> bool:
        """Tell whether nobody has drawn a number in between."""
        if self.python != other.python or (self.numpy is None) != (other.numpy is None):
            return False
        return self.numpy is None or _bits(self.numpy) == _bits(other.numpy)

    def write(self) -> None:
        """Put both back."""
        random.setstate(self.python)
        if self.numpy is not None:
            sys.modules["numpy"].random.set_state(self.numpy)


def _bits(state: Any) -> tuple[Any, ...]:
    """Give NumPy's state, in whose second place stands an array, as something that can be compared."""
    name, words, *rest = state
    return (name, words.tobytes(), *rest)
