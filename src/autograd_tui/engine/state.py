"""The state that a model and its optimizer begin with, where that comes from a file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from autograd_tui.engine.errors import Refused
from autograd_tui.engine.loop import Loop
from autograd_tui.engine.made_optimizer import words_of
from autograd_tui.engine.saved import model_state, optimizer_state, read_saved

BY_FACTORS = ("row_var", "col_var")  # an optimizer's tensors that rightly differ in shape from their parameter


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
        try:
            # Copied, since `load_state_dict` shares its tensors, which the steps to come would change.
            loop.optimizer.load_state_dict(deepcopy(dict(self._optimizer)))
            self._check(loop)
            for group in loop.optimizer.param_groups:
                group.update(self._asked)
            loop.spec = words_of(loop.optimizer)
        except Refused:
            raise
        except Exception as error:
            raise Refused(f'"{self._path}" does not fit the optimizer: {error}') from error

    def _check(self, loop: Loop) -> None:
        """See that what was loaded is of this optimizer and these parameters, since PyTorch does not."""
        name = type(loop.optimizer).__name__
        missing = [option for option in loop.optimizer.defaults if option not in loop.optimizer.param_groups[0]]
        if missing:
            raise Refused(f'"{self._path}" is from another optimizer than {name}: it has no {", ".join(missing)}.')
        for param_name, param in loop.params.items():
            for key, value in loop.optimizer.state.get(param, {}).items():
                if isinstance(value, Tensor) and value.dim() and key not in BY_FACTORS and value.shape != param.shape:
                    raise Refused(
                        f'"{self._path}" does not fit {name}: {key} of {param_name} has shape {tuple(value.shape)}.'
                    )


def put_into_model(model: nn.Module, state: Mapping[str, Any], path: str) -> None:
    """Load a state dict, copied; raises Refused, saying which names do not fit."""
    own = {name: value.shape for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    reshaped = [
        f"{name} {tuple(state[name].shape)} in place of {tuple(shape)}"
        for name, shape in own.items()
        if isinstance(state.get(name), Tensor) and state[name].shape != shape
    ]
    foreign = [name for name in own if name in state and not isinstance(state[name], Tensor)]
    if reshaped or foreign:
        raise Refused(_unfit(path, {"of another shape": reshaped, "no tensors": foreign}))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            missing, unexpected = model.load_state_dict(state, strict=False)
    except Exception as error:
        raise Refused(f'"{path}" does not fit the model: {error}') from error
    if missing or unexpected:
        raise Refused(_unfit(path, {"missing": missing, "unexpected": unexpected}))


def _unfit(path: str, wrong: Mapping[str, list[str]]) -> str:
    parts = [f"{len(names)} {what} ({_first(names)})" for what, names in wrong.items() if names]
    return f'"{path}" does not fit the model: {"; ".join(parts)}.'


def _first(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + ", …" * (len(names) > most)
