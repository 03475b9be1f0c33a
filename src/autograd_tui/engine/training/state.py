"""The state that a model and its optimizer begin with, where that comes from a file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from autograd_tui.engine.training.loop import Loop
from autograd_tui.engine.training.made_optimizer import words_of
from autograd_tui.engine.training.optimizer_fit import check_options, check_state
from autograd_tui.engine.training.raised import in_words
from autograd_tui.engine.training.saved import model_state, optimizer_state, read_saved, wrong_kind
from autograd_tui.engine.values.errors import Refused


class State:
    """What a file holds for a model and an optimizer: read once, and put in as often as the loop is built.

    `asked` are options of the optimizer that hold whatever the file says. Raises Refused, in one sentence.
    """

    def __init__(self, path: str, asked: Mapping[str, float]) -> None:
        saved = read_saved(path)
        self._path, self._asked = path, asked
        self._model = model_state(saved, path)
        self._optimizer = optimizer_state(saved, path)

    def put_into(self, loop: Loop) -> None:
        """Load both, copied, as a script does with `load_state_dict`. Raises Refused where they do not fit."""
        put_into_model(loop.model, self._model, self._path)
        if self._optimizer is None:
            return
        check_state(self._optimizer, loop, self._path)
        try:
            # Copied, since `load_state_dict` shares its tensors, which the steps to come would change.
            loop.optimizer.load_state_dict(deepcopy(dict(self._optimizer)))
            check_options(loop, self._path)
            for group in loop.optimizer.param_groups:
                group.update(self._asked)
            loop.spec = words_of(loop.optimizer)
        except Refused:
            raise
        except KeyError as error:
            raise Refused(f'"{self._path}" does not fit {type(loop.optimizer).__name__}: it lacks {error}.') from error
        except Exception as error:
            raise Refused(f'"{self._path}" does not fit the optimizer: {in_words(error)}.') from error


def put_into_model(model: nn.Module, state: Mapping[str, Any], path: str) -> None:
    """Load a state dict, copied; raises Refused, saying which names do not fit."""
    wrong = _misfits(model.state_dict(), state)
    if any(wrong.values()):
        raise Refused(_unfit(path, wrong))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            missing, unexpected = model.load_state_dict(state, strict=False)
    except Exception as error:
        raise Refused(f'"{path}" does not fit the model: {in_words(error)}.') from error
    if missing or unexpected:
        raise Refused(_unfit(path, {"missing": missing, "unexpected": unexpected}))


def _misfits(own: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, list[str]]:
    """Find by name what cannot be copied, by what is wrong with it."""
    pairs = {name: (value, state[name]) for name, value in own.items() if isinstance(value, Tensor) and name in state}
    tensors = {name: pair for name, pair in pairs.items() if isinstance(pair[1], Tensor)}
    return {
        "of another shape": [
            f"{name} {tuple(given.shape)} in place of {tuple(value.shape)}"
            for name, (value, given) in tensors.items()
            if given.shape != value.shape
        ],
        "of another kind": [
            f"{name} {kind}" for name, (value, given) in tensors.items() if (kind := wrong_kind(given, value))
        ],
        "no tensors": [name for name in pairs if name not in tensors],
    }


def _unfit(path: str, wrong: Mapping[str, list[str]]) -> str:
    parts = [f"{len(names)} {what} ({_first(names)})" for what, names in wrong.items() if names]
    return f'"{path}" does not fit the model: {"; ".join(parts)}.'


def _first(names: list[str], most: int = 3) -> str:
    return ", ".join(name or '""' for name in names[:most]) + ", …" * (len(names) > most)
