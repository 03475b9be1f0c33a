"""An optimizer's step for one parameter: its own formula, then in numbers, each checked against what PyTorch has."""

from __future__ import annotations

from autograd_tui.engine.values.optimizer_spec import OptimizerSpec
from autograd_tui.engine.values.trace import Op, Trace
from autograd_tui.text.inside.rows import headed, rows
from autograd_tui.text.inside.step.adam import adam
from autograd_tui.text.inside.step.descent import sgd
from autograd_tui.text.inside.step.rmsprop import rmsprop
from autograd_tui.text.inside.step.stepped import Stepped, StepRule
from autograd_tui.text.inside.value_words import value_words
from autograd_tui.text.line import Line, one_line

RULES: dict[str, StepRule] = {"sgd": sgd, "adam": adam, "adamw": adam, "rmsprop": rmsprop}


def step_lines(trace: Trace, op: Op, width: int) -> list[Line]:
    """Show how the optimizer moved one parameter; of many values, the first."""
    stepped = Stepped(trace, op)
    name = OptimizerSpec.parse(trace.optimizer).name if trace.optimizer else ""
    rule = RULES.get(name)
    if stepped.before("grad") is None:
        return [
            *_moved(stepped, width),
            *rows("Its gradient is None: the optimizer passed over it.", width, style="dim"),
        ]
    if rule is None or not stepped.known:
        said = f"No formula is known here for {name or 'this optimizer'}: before and after."
        return [*_moved(stepped, width), *_state(stepped, width), *rows(said, width, style="dim")]
    return [*rule(stepped).lines(stepped, width), *_whole(stepped, width)]


def _moved(stepped: Stepped, width: int) -> list[Line]:
    """Write the parameter before and after."""
    return _pair(stepped, "value", one_line(stepped.op.name), width)


def _state(stepped: Stepped, width: int) -> list[Line]:
    roles = dict.fromkeys(value.role for value in (*stepped.op.inputs, *stepped.op.output))
    return [line for role in roles if role != "value" for line in _pair(stepped, role, one_line(role), width)]


def _pair(stepped: Stepped, role: str, name: str, width: int) -> list[Line]:
    before, after = stepped.before(role), stepped.after(role)
    room = max(width // 2 - 4, 12)
    was, now = value_words(before, room), value_words(after, room)
    same = was == now and before and after and role != "value"
    return headed(name, now if same else f"{was} → {now}", width)


def _whole(stepped: Stepped, width: int) -> list[Line]:
    """Say what became of all values where only the first was worked."""
    value = stepped.after("value")
    return _moved(stepped, width) if value is not None and value.stats.size > 1 else []
