"""The training loop, on real PyTorch: it drives a training state through the four phases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from autograd_tui.core.errors import UserCodeError
from autograd_tui.core.frame import Frame
from autograd_tui.core.trace import Trace
from autograd_tui.engine.training.interruption import Interrupt, interruptible
from autograd_tui.engine.training.predict import Losses, draw_batch, one_number, predict, to_device
from autograd_tui.engine.training.state import TrainingState, check_memory
from autograd_tui.engine.training.tensor_properties import shape_of
from autograd_tui.engine.training.user_code import ForkGuard, in_call, is_out_of_memory, is_user_error

Result = TypeVar("Result")
ForwardResult = dict[str, Any]  # what `TrainingState.end_forward` takes
Predict = Callable[[Any], tuple[Tensor, Any, Losses]]  # a batch into the loss, the prediction and losses by name


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
