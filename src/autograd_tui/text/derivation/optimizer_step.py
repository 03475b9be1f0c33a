"""One parameter in an optimizer step: tensors before and after, and each optimizer's equations between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.derivation.derivation import finite_example_lines
from autograd_tui.text.derivation.rule_context import first_value
from autograd_tui.text.derivation.small_tensor import FLOAT32_TOLERANCE, is_close, tolerance_of
from autograd_tui.text.equation import evaluated, exact, parenthesized, with_digits, wrapped_rows
from autograd_tui.text.numbers import parse_float, terse
from autograd_tui.text.styled_text import Line, one_line

MAX_NAME_LENGTH = 12  # characters; a parameter with a longer name is called p in formulas


@dataclass(frozen=True, slots=True)
class ParameterUpdate:
    """A parameter, its gradient and the optimizer's state for it, before and after `Optimizer.step`.

    Numbers are the first elements of these tensors, by role: "value", "grad", "exp_avg".
    """

    name: str  # the parameter's symbol in formulas
    optimizer: str  # as a command spells it
    settings: Mapping[str, str]  # the options of its group, the learning rate among them
    numbers_before: Mapping[str, float | None]
    numbers_after: Mapping[str, float | None]
    tolerance: float = FLOAT32_TOLERANCE  # relative, within which PyTorch's numbers are those of the formula
    of_first_value: bool = False  # whether the tensor has others

    @classmethod
    def traced(cls, trace: Trace, op: Operation) -> ParameterUpdate:
        """Return the update of one parameter as a step that was recorded has it."""
        short, value = one_line(op.name).rpartition(".")[2], op.named_output("value")
        return cls(
            name=short if len(short) <= MAX_NAME_LENGTH else "p",
            optimizer=trace.optimizer,
            settings=dict(op.settings),
            numbers_before={each.role: first_value(each) for each in reversed(op.inputs)},
            numbers_after={each.role: first_value(each) for each in reversed(op.output)},
            tolerance=tolerance_of((*op.inputs, *op.output)),
            of_first_value=value is not None and value.stats.size > 1,
        )

    def before(self, role: str) -> float | None:
        """Return a number of the optimizer's state as it was before the step; None where it was not recorded."""
        return self.numbers_before.get(role)

    def after(self, role: str) -> float | None:
        """Return a number of the optimizer's state as it is after the step; None where it was not recorded."""
        return self.numbers_after.get(role)

    @property
    def value(self) -> float:
        """The parameter before the step."""
        return self.before("value") or 0.0

    @property
    def grad(self) -> float:
        """The gradient, negated with `maximize`."""
        grad = self.before("grad") or 0.0
        return -grad if self.option("maximize") else grad

    @property
    def grad_symbol(self) -> str:
        """The gradient in formulas: "grad", or "g" if the optimizer negates it or adds weight decay first."""
        return "g" if self.option("maximize") or self.option("weight_decay") else "grad"

    @property
    def has_numbers(self) -> bool:
        """Whether everything that each formula needs was recorded."""
        lr = parse_float(self.settings.get("lr", "0"))
        return None not in (self.before("value"), self.after("value"), self.before("grad"), lr)

    def option(self, name: str) -> float:
        """Return an option of the parameter's group as a number, 1 for True; 0 where it has none."""
        return parse_float(self.settings.get(name)) or 0.0

    def option_pair(self, name: str) -> tuple[float, float]:
        """Return an option of two numbers, such as `betas`; NaN in place of what is not a number."""
        words = self.settings.get(name, "").strip("()[] ").split(",")
        first, second = [*(parse_float(word.strip()) for word in words), None, None][:2]
        return (math.nan if first is None else first, math.nan if second is None else second)


@dataclass(frozen=True, slots=True)
class StepEquation:
    """One equation of a step, and what PyTorch has for its result."""

    text: str  # "v = 0.9 × 2 + 1", its numbers in full
    computed: float
    recorded: float | None  # None where PyTorch keeps no such number
    magnitude: float  # of the largest number that entered: rounding is judged by it
    baseline: float | None  # the number that it changes: the result is written with enough digits to differ from it

    @property
    def result(self) -> float:
        """PyTorch's result, if it keeps one, else that of the formula."""
        return self.computed if self.recorded is None else self.recorded

    def agrees(self, tolerance: float) -> bool:
        """Return whether PyTorch's result, if it keeps one, is that of the formula."""
        if self.recorded is None:
            return True
        return is_close(self.computed, self.recorded, tolerance=tolerance, magnitude=self.magnitude)

    def lines(self, width: int, *, tolerance: float) -> list[Line]:
        """Write the equation with PyTorch's result; a warning if it differs by more than `tolerance`, relative."""
        if self.recorded is None:
            return wrapped_rows(evaluated(self.text, [self.computed], terse(self.computed)), width, indent="  ")
        if not self.agrees(tolerance):
            message = f"but PyTorch has {terse(self.recorded)}: something else was computed."
            warning = f"{with_digits(self.text)} gives {terse(self.computed)}, {message}"
            return wrapped_rows(warning, width, indent="  ", style="warn")
        digits = _digits_to_differ(self.recorded, self.baseline)
        written = evaluated(
            self.text, [self.recorded], terse(self.recorded, digits), shown=lambda value: terse(value, digits)
        )
        return wrapped_rows(written, width, indent="  ", style="now")


def _digits_to_differ(value: float, other: float | None) -> int:
    """Return the fewest digits, from four on, that print two numbers differently."""
    if other is None or value == other:
        return 4
    return next((digits for digits in range(4, 9) if terse(value, digits) != terse(other, digits)), 9)


@dataclass(slots=True)
class StepDerivation:
    """An optimizer's formula worked out for the first element of one parameter."""

    formula: str  # "w = w - lr × grad"
    update: ParameterUpdate
    notes: list[str] = field(default_factory=list)
    equations: list[StepEquation] = field(default_factory=list)

    def add(
        self,
        text: str,
        computed: float,
        recorded: float | None = None,
        *,
        magnitude: float = 0.0,
        baseline: float | None = None,
    ) -> float:
        """Append an equation and return its result: PyTorch's own if recorded, so that rounding does not add up."""
        self.equations.append(StepEquation(text, computed, recorded, magnitude, baseline))
        return computed if recorded is None else recorded

    def finish(self, text: str, change: float, *, start: float | None = None) -> StepDerivation:
        """Append the last equation, parameter - change, and return this derivation.

        `text` writes `change`. `start` is the parameter's value if earlier equations changed it (weight decay).
        """
        before = self.update.value if start is None else start
        equation, magnitude = f"{self.update.name} = {exact(before)} - {text}", max(abs(before), abs(change))
        self.add(equation, before - change, self.update.after("value"), magnitude=magnitude, baseline=before)
        return self

    def lines(self, op: Operation, width: int) -> list[Line]:
        """Write the formula, the equations below it, and the notes; `op` is the traced step of the parameter."""
        lines = wrapped_rows(self.formula, width, style="strong")
        if self.update.of_first_value:
            lines += wrapped_rows("of the first value:", width, style="dim")
        for equation in self.equations:
            lines += equation.lines(width, tolerance=self.update.tolerance)
        value, after = op.named_output("value"), self.update.after("value")
        if value is not None and after is not None:
            lines += finite_example_lines(after, value, [(each.role, each) for each in op.inputs], width)
        for note in self.notes:
            lines += wrapped_rows(note, width, style="dim")
        return lines


def signed(value: float) -> str:
    """Write a number as a further term of a sum, in full: "+ 2" or "- 2"."""
    return f"- {exact(abs(value))}" if value < 0 else f"+ {exact(value)}"


StepRule = Callable[[ParameterUpdate], StepDerivation]


def sgd(update: ParameterUpdate) -> StepDerivation:
    """Derive p - lr × grad, with a velocity in place of the gradient if there is momentum."""
    name, lr, momentum = update.name, update.option("lr"), update.option("momentum")
    symbol = update.grad_symbol
    if not momentum:
        derivation = StepDerivation(f"{name} = {name} - lr × {symbol}", update)
        grad = _regularized_gradient(derivation)
        return derivation.finish(f"{exact(lr)} × {parenthesized(grad)}", lr * grad)
    direction = f"{symbol} + momentum × v" if update.option("nesterov") else "v"
    dampening = update.option("dampening")
    term = f"{1 - dampening:g} × {symbol}" if dampening else symbol
    factor = f"({direction})" if " " in direction else direction
    derivation = StepDerivation(f"v = momentum × v + {term},  {name} = {name} - lr × {factor}", update)
    grad = _regularized_gradient(derivation)
    velocity = _velocity(derivation, grad, dampening)
    if update.option("nesterov"):
        text = f"{direction} = {exact(grad)} {signed(momentum)} × {parenthesized(velocity)}"
        velocity = derivation.add(text, grad + momentum * velocity)
    return derivation.finish(f"{exact(lr)} × {parenthesized(velocity)}", lr * velocity)


def _velocity(derivation: StepDerivation, grad: float, dampening: float) -> float:
    update = derivation.update
    before, after, momentum = (
        update.before("momentum_buffer"),
        update.after("momentum_buffer"),
        update.option("momentum"),
    )
    if before is None:
        derivation.notes.append("This is its first step: the velocity v starts as the gradient.")
        return derivation.add(f"v = {update.grad_symbol}", grad, after, magnitude=abs(grad))
    term = f"+ {exact(1 - dampening)} × {parenthesized(grad)}" if dampening else signed(grad)
    text = f"v = {exact(momentum)} × {parenthesized(before)} {term}"
    computed = momentum * before + (1 - dampening) * grad
    velocity = derivation.add(text, computed, after, magnitude=max(abs(momentum * before), abs(grad)))
    if velocity * grad < 0:
        derivation.notes.append("The velocity points the other way than the gradient: it carries on.")
    return velocity


def adam(update: ParameterUpdate) -> StepDerivation:
    """Derive p - lr × m_hat / (sqrt(v_hat) + eps); AdamW shrinks p by its weight decay first."""
    name, lr, eps = update.name, update.option("lr"), update.option("eps")
    decoupled = _has_decoupled_decay(update)
    symbol = ("-grad" if update.option("maximize") else "grad") if decoupled else update.grad_symbol
    moments = f"m = beta1 × m + (1 - beta1) × {symbol},  v = beta2 × v + (1 - beta2) × {symbol}^2"
    derivation = StepDerivation(f"{moments},  {name} = {name} - lr × m_hat / (sqrt(v_hat) + eps)", update)
    start = _decayed_parameter(derivation, lr) if decoupled else update.value
    grad = update.grad if decoupled else _regularized_gradient(derivation)
    m_hat, v_hat = _corrected_moments(derivation, grad)
    divisor = math.sqrt(v_hat) + eps if v_hat >= 0 else math.nan
    text = f"{exact(lr)} × {parenthesized(m_hat)} / (sqrt({exact(v_hat)}) + {exact(eps)})"
    return derivation.finish(text, lr * m_hat / divisor if divisor else math.nan, start=start)


def _has_decoupled_decay(update: ParameterUpdate) -> bool:
    """Return whether weight decay shrinks the parameter itself instead of joining the gradient."""
    optimizer = OptimizerSpec.parse(update.optimizer).name
    is_decoupled = optimizer == "adamw" or bool(update.option("decoupled_weight_decay"))
    return is_decoupled and bool(update.option("weight_decay"))


def _decayed_parameter(derivation: StepDerivation, lr: float) -> float:
    update, value, decay = derivation.update, derivation.update.value, derivation.update.option("weight_decay")
    product = f"{update.name} × (1 - lr × weight_decay) = {exact(value)} × (1 - {exact(lr)} × {exact(decay)})"
    return derivation.add(f"{update.name} = {product}", value * (1 - lr * decay))


def _corrected_moments(derivation: StepDerivation, grad: float) -> tuple[float, float]:
    """Return m_hat and v_hat: moving averages of the gradient and its square, corrected for their start at 0."""
    update = derivation.update
    (beta1, beta2), count = update.option_pair("betas"), update.after("step") or 1.0
    m = _moving_average(derivation, "m", "exp_avg", beta1, grad)
    v = _moving_average(derivation, "v", "exp_avg_sq", beta2, grad, squared=True)
    if update.option("amsgrad"):
        v = derivation.add("v = the greatest v so far", update.after("max_exp_avg_sq") or v)
    derivation.notes.append(f"m and v started at 0: dividing by 1 - beta^{count:g} makes up for that.")
    return _bias_corrected(derivation, "m", m, beta1, count), _bias_corrected(derivation, "v", v, beta2, count)


def _bias_corrected(derivation: StepDerivation, symbol: str, average: float, beta: float, count: float) -> float:
    divisor = 1 - beta**count
    corrected = average / divisor if divisor else math.nan
    return derivation.add(f"{symbol}_hat = {exact(average)} / (1 - {exact(beta)}^{count:g})", corrected)


def rmsprop(update: ParameterUpdate) -> StepDerivation:
    """Derive p - lr × grad / (root of the averaged square + eps), with a velocity if there is momentum."""
    name, lr, momentum = update.name, update.option("lr"), update.option("momentum")
    root = "sqrt(s - a^2)" if update.option("centered") else "sqrt(s)"
    quotient = f"{update.grad_symbol} / ({root} + eps)"
    move = f"{name} = {name} - lr × {'v' if momentum else quotient}"
    derivation = StepDerivation(f"v = momentum × v + {quotient},  {move}" if momentum else move, update)
    grad = _regularized_gradient(derivation)
    text, normalized = _normalized_gradient(derivation, grad)
    if not momentum:
        return derivation.finish(f"{exact(lr)} × {text}", lr * normalized)
    before, after = update.before("momentum_buffer") or 0.0, update.after("momentum_buffer")
    magnitude = max(abs(momentum * before), abs(normalized))
    text = f"v = {exact(momentum)} × {parenthesized(before)} + {text}"
    velocity = derivation.add(text, momentum * before + normalized, after, magnitude=magnitude)
    return derivation.finish(f"{exact(lr)} × {parenthesized(velocity)}", lr * velocity)


def _normalized_gradient(derivation: StepDerivation, grad: float) -> tuple[str, float]:
    """Divide the gradient by the root of its averaged square; return the calculation and its result."""
    update = derivation.update
    alpha, eps = update.option("alpha"), update.option("eps")
    square = _moving_average(derivation, "s", "square_avg", alpha, grad, squared=True)
    if update.option("centered"):
        mean = _moving_average(derivation, "a", "grad_avg", alpha, grad)
        square = derivation.add(f"s - a^2 = {exact(square)} - {parenthesized(mean)}^2", square - mean**2)
    divisor = math.sqrt(square) + eps if square >= 0 else math.nan
    text = f"{parenthesized(grad)} / (sqrt({exact(square)}) + {exact(eps)})"
    return text, grad / divisor if divisor else math.nan


def _regularized_gradient(derivation: StepDerivation) -> float:
    """Return the gradient with weight decay added, negated with `maximize`; add the equation unless it is trivial."""
    update = derivation.update
    grad, decay = update.grad, update.option("weight_decay")
    if update.option("maximize") and not decay:
        return derivation.add("g = -grad, to go uphill", grad)
    if not decay:
        return grad
    value, sign = update.value, "-" if update.option("maximize") else ""
    text = f"g = {sign}grad + weight_decay × {update.name} = {exact(grad)} {signed(decay)} × {parenthesized(value)}"
    return derivation.add(text, grad + decay * value)


def _moving_average(
    derivation: StepDerivation, symbol: str, role: str, beta: float, grad: float, *, squared: bool = False
) -> float:
    """Return the exponential moving average of the gradient, or of its square, that the state holds under `role`."""
    before, after = derivation.update.before(role) or 0.0, derivation.update.after(role)
    term = (1 - beta) * (grad**2 if squared else grad)
    product = f"{exact(1 - beta)} × {parenthesized(grad)}{'^2' if squared else ''}"
    text = f"{symbol} = {exact(beta)} × {parenthesized(before)} + {product}"
    return derivation.add(text, beta * before + term, after, magnitude=max(abs(beta * before), abs(term)))


STEP_RULES: dict[str, StepRule] = {"sgd": sgd, "adam": adam, "adamw": adam, "rmsprop": rmsprop}  # by optimizer
