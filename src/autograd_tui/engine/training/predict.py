"""One forward of a scenario: its batch, and what its functions return, read as loss, prediction and named losses.

Scripts that were exported import it from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.engine.training.scenario import Parts
from autograd_tui.engine.training.user_code import in_call

Losses = tuple[tuple[str, Any], ...]  # one number each
LOSS = ("loss", "total_loss")  # what a dict calls the loss itself, if it does
OUTPUTS = ("logits", "prediction", "predictions", "output")  # what an output object calls the prediction


@in_call("batch")
def draw_batch(parts: Parts, index: int) -> Any:
    """Return the batch of forward `index`, counted from 0, as the scenario gives it."""
    return parts.batch(index)


@in_call("batch")
def to_device(value: Any, device: torch.device) -> Any:
    """Bring a batch of any shape to the device; what is there already is returned as it is.

    An object of another class is moved by its own `to`, as a library's batches have one, and stays as it is on a CPU.
    """
    if isinstance(value, Tensor):
        return value.to(device)
    if device.type != "cpu" and _moves_itself(value):
        return value.to(device)
    if isinstance(value, (tuple, list)):
        parts = [to_device(each, device) for each in value]
        if isinstance(value, tuple) and all(one is other for one, other in zip(parts, value, strict=True)):
            return value
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return type(value)((key, to_device(each, device)) for key, each in value.items())
    return value


def _moves_itself(value: Any) -> bool:
    """Return whether an object has a method `to` of its own; a class that has one is no batch."""
    return not isinstance(value, type) and callable(getattr(value, "to", None))


@in_call("model")
def predict(parts: Parts, model: nn.Module, loss_function: Any, batch: Any) -> tuple[Tensor, Any, Losses]:
    """Return the loss of a batch, the prediction, and the losses and metrics by name that a dict of losses holds.

    Without a loss function, `parts.forward` calls the model and measures the loss. Raises TypeError, in one sentence,
    where the scenario's functions return something else.
    """
    if loss_function is None:
        return _from_forward(parts, model, batch)
    inputs, targets = batch if type(batch) is tuple and len(batch) == 2 else _pair(batch)
    prediction = model(inputs)
    loss = _measure(loss_function, prediction, targets)
    if isinstance(loss, Tensor):
        return loss, prediction, ()
    loss, _, losses = _take(loss, "loss= gave {}: return the loss.")
    return loss, prediction, losses


@in_call("loss")
def _measure(loss_function: Any, prediction: Any, targets: Any) -> Any:
    return loss_function(prediction, targets)


@in_call("forward")
def _from_forward(parts: Parts, model: nn.Module, batch: Any) -> tuple[Tensor, Any, Losses]:
    assert parts.forward is not None
    result = parts.forward(model, batch)
    if isinstance(result, Tensor):
        return result, None, ()
    sentence = "forward= gave {}: return the loss, or (loss, output)."
    if isinstance(result, tuple) and len(result) == 2 and not hasattr(result, "loss"):
        loss, _, losses = _take(result[0], sentence)
        return loss, result[1], losses
    return _take(result, sentence)


def one_number(name: str, value: Any) -> Tensor:
    """Return what a metric gave as a tensor without dimensions; raises TypeError, in one sentence."""
    try:
        number = torch.as_tensor(value).reshape(())
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f'metrics["{name}"] gave {_what(value)}: return one number.') from None
    return number.float() if number.dtype is torch.bool else number


@in_call("loss")
def _take(value: Any, sentence: str) -> tuple[Tensor, Any, Losses]:
    """Find the loss in what was given: itself, under its name in an output object, or the sum of a dict of losses."""
    if isinstance(value, Tensor):
        return value, None, ()
    named = dict(value) if isinstance(value, Mapping) else {}
    whole = next((name for name in LOSS if name in named), None)
    losses = tuple((str(name), each) for name, each in named.items() if name != whole and _is_number(each))
    loss = getattr(value, "loss", None) if whole is None else named[whole]
    if isinstance(loss, Tensor):
        outputs = (named.get(name, getattr(value, name, None)) for name in OUTPUTS)
        return loss, next((each for each in outputs if each is not None), None), losses
    if losses and len(losses) == len(named):
        total = sum(named[name] for name in _summed(named))  # as a script does
        if isinstance(total, Tensor):
            return total, None, losses
    raise TypeError(sentence.format(_what(value)))


def _summed(named: Mapping[Any, Any]) -> list[Any]:
    """Return the names of what a loss is the sum of: where some are called losses, the others are metrics."""
    return [name for name in named if "loss" in str(name).lower()] or list(named)


@in_call("batch")
def _pair(batch: Any) -> tuple[Any, Any]:
    """Return the batch as (inputs, targets); raises TypeError, in one sentence, where it is no pair."""
    is_pair = (
        batch.shape[:1] == (2,) if isinstance(batch, Tensor) else isinstance(batch, (tuple, list)) and len(batch) == 2
    )
    if is_pair:
        inputs, targets = batch
        return inputs, targets
    raise TypeError(f"the batch is {_what(batch)}: loss= needs (inputs, targets), forward= takes any batch.")


def _is_number(value: Any) -> bool:
    return value.numel() == 1 if isinstance(value, Tensor) else type(value) in (int, float)


def _what(value: Any) -> str:
    """Return what a value is, in words: "a tuple of 3", "a dict of logits and labels"."""
    kind = type(value).__name__
    named = f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        keys = list(map(str, value))
        return f"{named} of {', '.join(keys[:3])}{', …' * (len(keys) > 3)}" if keys else f"an empty {kind}"
    if isinstance(value, (tuple, list)):
        return f"{named} of {len(value)}"
    if hasattr(value, "loss"):
        return f"{named} whose loss is {_what(value.loss)}"
    return named
