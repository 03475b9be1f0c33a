"""The training loop, on real PyTorch: a batch into a loss, and a training state driven through the four phases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from autograd_tui.core.errors import UserCodeError
from autograd_tui.core.frame import Frame
from autograd_tui.core.trace import Trace
from autograd_tui.engine.training.interruption import Interrupt, interruptible
from autograd_tui.engine.training.scenario import Parts
from autograd_tui.engine.training.state import TrainingState, check_memory
from autograd_tui.engine.training.tensor_properties import shape_of
from autograd_tui.engine.training.user_code import ForkGuard, in_call, is_out_of_memory, is_user_error

Losses = tuple[tuple[str, Any], ...]  # one number each
Result = TypeVar("Result")
ForwardResult = dict[str, Any]  # what `TrainingState.end_forward` takes
Predict = Callable[[Any], tuple[Tensor, Any, Losses]]  # a batch into the loss, the prediction and losses by name
LOSS = ("loss", "total_loss")  # what a dict calls the loss itself, if it does
OUTPUTS = ("logits", "prediction", "predictions", "output")  # what an output object calls the prediction


class TrainingLoop:
    """Runs the phases of one iteration, one at a time or all at full speed; call it inside the state's `global_state`.

    A phase raises UserCodeError where PyTorch or the user's code raises, and then leaves parameters, gradients, buffers
    and random numbers as they were; a step alone may be left half done. It raises Interrupt where it was to end.
    """

    def __init__(self, state: TrainingState) -> None:
        self.state = state

    def forward(self, run: Predict | None = None) -> None:
        """Predict and measure the loss; the old graph is let go once the new one stands.

        `run` is called in place of `predict`, to trace it.
        """
        state = self.state
        undo = _begin(state.begin_forward)
        result = _call_user_code(state, partial(self._forward, run), undo=undo)
        state.end_forward(**result)

    def _forward(self, run: Predict | None) -> ForwardResult:
        state = self.state
        batch = to_device(draw_batch(state.parts, state.forwards), state.device)
        if run is None:
            loss, prediction, losses = predict(state.parts, state.model, state.parts.loss, batch)
        else:
            loss, prediction, losses = run(batch)
        metrics = self._metrics(prediction, batch, losses)
        prediction, has_graph = _detached(prediction), loss.requires_grad
        shape_of(loss)  # raises where there is none, as of what a lazy module holds
        state.check_parameters()
        state.check_buffers()
        tensors = batch if isinstance(batch, (tuple, list)) else (batch,)
        check_memory([("the loss", loss), ("the prediction", prediction), *(("the batch", each) for each in tensors)])
        return {"loss": loss, "batch": batch, "prediction": prediction, "metrics": metrics, "has_graph": has_graph}

    def backward(self, run: Callable[[Tensor], None] | None = None) -> None:
        """Compute the gradients; they add to what `.grad` holds. `run` is called in place of `loss.backward`."""
        state = self.state
        undo = _begin(state.begin_backward)
        count = state.watch_grads(range(len(state.params)))
        if state.graph == "alive":
            state.graph = "freed"  # also where it raises half way
        _call_user_code(state, partial(self._backward, run), undo=undo)
        count()

    def _backward(self, run: Callable[[Tensor], None] | None) -> None:
        state = self.state
        if state.loss is None:
            raise NameError("name 'loss' is not defined")  # as the script's line would
        if run is None:
            state.loss.backward()  # type: ignore[no-untyped-call]
        else:
            run(state.loss)
        state.check_parameters()
        check_memory((f"{name}.grad", param.grad) for name, param in state.params.items())

    def step(self) -> bool:
        """Move the parameters, then let the scheduler see the loss; tell whether any parameter was touched."""
        state = self.state
        before = [param._version for param in state.params.values()]
        _call_user_code(state, self._step, undo=state.repair_optimizer)
        state.end_step()
        return before != [param._version for param in state.params.values()]

    @in_call("optimizer")
    def _step(self) -> None:
        state = self.state
        state.optimizer.step()
        if state.scheduler is not None and state.loss is not None:
            _schedule(state.scheduler, state.loss.detach())
        state.check_parameters()
        state.check_optimizer()

    def zero_grad(self) -> None:
        """Clear the gradients of what the optimizer holds: each `.grad` is None again."""
        state = self.state
        _call_user_code(state, state.optimizer.zero_grad, undo=state.repair_optimizer)
        state.end_zero_grad()

    def iterations(self, watch: PhaseWatch | None = None) -> Iterator[Tensor]:
        """Run the four phases again and again, and yield each iteration's loss; `watch` looks at the phases.

        A loss has its graph, freed by its backward: who keeps losses must detach them. Nothing is kept to undo a phase
        that raises: whoever runs them must be able to return to where they began.
        """
        state, last_batch = self.state, None
        optimizer, scheduler, parts, model = state.optimizer, state.scheduler, state.parts, state.model
        outside = state.begin_iterations()
        sees_forward, sees_backward, sees_step = (
            (watch.sees_forward, watch.sees_backward, watch.sees_step) if watch is not None else (False, False, False)
        )
        with ForkGuard() as process:
            while True:
                batch = parts.batch(state.forwards)
                if batch is not last_batch:
                    moved = to_device(batch, state.device)
                    last_batch, batch = (batch if moved is batch else None), moved
                loss, prediction, losses = predict(parts, model, parts.loss, batch)
                state.forwards += 1
                if sees_forward and watch is not None:
                    measures = watch.measures_metrics
                    watch.after_forward(prediction, self._metrics(prediction, batch, losses) if measures else ())
                del prediction
                count = state.watch_grads(outside) if outside else _nothing
                loss.backward()  # type: ignore[no-untyped-call]
                count()
                if sees_backward and watch is not None:
                    watch.after_backward()
                optimizer.step()
                if sees_step and watch is not None:
                    watch.after_step()
                if scheduler is not None:
                    scheduler.step(loss.detach())
                optimizer.zero_grad()
                process.check()
                yield loss

    @in_call("metric")
    def _metrics(self, prediction: Any, batch: Any, losses: Losses) -> tuple[tuple[str, Tensor], ...]:
        """Measure what the user asked for, without a trace in random numbers, graph, buffers and attributes."""
        named_losses = tuple((name, one_number(name, _detached(each))) for name, each in losses)
        functions = self.state.parts.metrics
        if not functions:
            return named_losses
        before = self.state.snapshot()
        targets = batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else batch
        with torch.no_grad():
            # No generator: what a StopIteration of theirs would become in one is none of theirs.
            metrics = [(name, one_number(name, function(prediction, targets))) for name, function in functions.items()]
        before.restore()
        return (*named_losses, *metrics)


class PhaseWatch(Protocol):
    """Looks at what each phase of iterations that run without frames has computed; it changes nothing."""

    sees_forward: bool  # whether it is to be called behind each forward, and so on
    sees_backward: bool
    sees_step: bool
    measures_metrics: bool  # whether it needs the metrics of each forward

    def after_forward(self, prediction: Any, metrics: Iterable[tuple[str, Tensor]]) -> None:
        """Look at the prediction, the buffers and the metrics."""

    def after_backward(self) -> None:
        """Look at the gradients."""

    def after_step(self) -> None:
        """Look at the parameters and the optimizer's state."""


class Tracer(Protocol):
    """Runs phases of a loop in the loop's place, and records what happens in them."""

    @property
    def knows_forward(self) -> bool:
        """Whether the forward that the loss is from was recorded."""

    @property
    def leaves_no_trace(self) -> bool:
        """Whether recording changes nothing in how this model is run."""

    def forget(self) -> None:
        """Let the recorded forward go, and its graph with it."""

    def abandon(self) -> None:
        """Take away what a phase that was ended midway has left, if it was recorded."""

    def take(self, frame: Frame) -> Trace | None:
        """Return, once, the trace of the phase that was recorded last; `frame`: what it led to."""

    def begin(self, frame: Frame, *, note: str | None) -> None:
        """Record the phase that runs next, from `frame` on; `note`: a sentence for a backward without its forward."""

    def forward(self) -> None:
        """Run the loop's forward; raises as it does."""

    def backward(self) -> None:
        """Run the loop's backward; raises as it does."""

    def launched_grads(self) -> dict[int, Sequence[Tensor]]:
        """Return what `launch_large` gave of the gradients of the backward just recorded, by the leaf's identity."""

    def step(self) -> bool:
        """Run the loop's step; raises as it does."""

    def zero_grad(self) -> None:
        """Run the loop's zero_grad; raises as it does."""

    def raised_step(self, frame: Frame) -> Trace:
        """Return the trace of a step that raised, and has left all as it was."""


def _call_user_code(state: TrainingState, function: Callable[[], Result], *, undo: Callable[[], None]) -> Result:
    """Run other people's code: the one boundary where any exception of theirs becomes UserCodeError.

    Raises Interrupt, undone likewise, where `interrupt` has ended it.
    """
    try:
        with ForkGuard():
            state.code_started = perf_counter()
            return interruptible(function)
    except BaseException as error:
        undo()
        if isinstance(error, Interrupt) or not is_user_error(error):
            raise
        try:
            state.check_parameters()
        except TypeError as resized:
            raise UserCodeError(resized) from error
        raise UserCodeError(error) from error


def _begin(copy: Callable[[], Callable[[], None]]) -> Callable[[], None]:
    """Copy what a phase may change, and return what puts it back; where that has no memory, the phase has none."""
    try:
        return copy()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserCodeError(error) from error


@in_call("scheduler")
def _schedule(scheduler: Any, loss: Tensor) -> None:
    scheduler.step(loss)


def _nothing() -> None:
    """Count nothing, where every parameter is in a group."""


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


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
