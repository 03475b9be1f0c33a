from __future__ import annotations

import gc
import tracemalloc

import pytest

from autograd_tui import Session, open_session
from autograd_tui.core.command import Command, parse
from autograd_tui.core.errors import Refused, UnknownCommand
from autograd_tui.core.trace import Trace, Value
from suite_options import LONG


def line(commands: str = "") -> Session:
    session = open_session("linear")
    for _ in session.run_all(commands):
        pass
    return session


def trace_of(session: Session, command: str) -> Trace:
    trace = session.run(command).trace
    assert trace is not None
    return trace


def numbers(values: tuple[Value | None, ...]) -> list[list[float] | None]:
    return [None if each is None else [round(number, 4) for number in each.stats.values or ()] for each in values]


def named(values: tuple[Value, ...]) -> dict[str, list[float] | None]:
    return dict(zip((value.role for value in values), numbers(values), strict=True))


def test_the_forward_is_five_calls() -> None:
    trace = trace_of(line(), "i:f")
    assert [op.name for op in trace.ops] == ["mul", "add", "sub", "pow", "mean"]
    assert [op.source and op.source.text for op in trace.ops][:3] == [
        "return self.w * x + self.b",
        "return self.w * x + self.b",
        "return ((target - prediction) ** 2).mean()",
    ]


def test_a_call_has_its_arguments_by_name() -> None:
    mul, add, sub, power, _ = trace_of(line(), "i:f").ops
    assert [(value.role, value.name) for value in mul.inputs] == [("self", "w"), ("other", "x")]
    assert [(value.role, value.name, value.maker) for value in add.inputs] == [("self", "", 0), ("other", "b", None)]
    assert [value.name for value in (*add.output, *sub.inputs)] == ["Q", "y", "Q"]
    assert power.settings == (("exponent", "2"),)


def test_the_backward_runs_in_the_engines_order_with_its_numbers() -> None:
    trace = trace_of(line("f"), "i:b")
    assert [(op.name, op.accumulates_into, numbers(op.grad_in), numbers(op.grad_out)) for op in trace.ops] == [
        ("MeanBackward0", None, [[1.0]], [[0.3333] * 3]),
        ("PowBackward0", None, [[0.3333] * 3], [[-2.0, -0.6667, 0.6667]]),
        ("SubBackward0", None, [[-2.0, -0.6667, 0.6667]], [None, [2.0, 0.6667, -0.6667]]),
        ("AddBackward0", None, [[2.0, 0.6667, -0.6667]], [[2.0, 0.6667, -0.6667], [2.0]]),
        ("AccumulateGrad", "b", [[2.0]], []),
        ("MulBackward0", None, [[2.0, 0.6667, -0.6667]], [[1.3333], None]),
        ("AccumulateGrad", "w", [[1.3333]], []),
    ]


def test_a_call_and_its_nodes_point_at_each_other() -> None:
    trace = trace_of(line("f"), "i:b")
    assert trace.forward is not None
    for op in trace.ops:
        if op.made_by is not None:
            assert op.node in trace.forward.ops[op.made_by].nodes
    assert [op.nodes for op in trace.forward.ops] == [(4,), (3,), (2,), (1,), (0,)]


def test_a_multiplication_saves_what_the_other_factor_needs_alone() -> None:
    mul = trace_of(line(), "i:f").nodes[4]
    assert mul.name == "MulBackward0"
    assert mul.saved is not None
    assert [(value.role, value.name) for value in mul.saved] == [("other", "x")]


def test_a_second_backward_without_zero_grad_adds() -> None:
    session = line("fb")
    session.run("f")
    op = trace_of(session, "i:b").ops[-1]
    assert op.accumulates_into == "w"
    assert op.grad_before is not None
    assert op.grad_after is not None
    assert numbers((op.grad_before, op.grad_after)) == [[1.3333], [2.6667]]


def test_a_spent_graph_raises_at_its_first_node_that_saved_something() -> None:
    session = line("fb")
    frame = session.run(Command("backward", forced=True, recorded=True))
    assert frame.error is not None
    assert "second time" in frame.error.message
    assert frame.trace is not None
    assert frame.trace.ops[-1].name == "PowBackward0"


def test_a_step_tells_each_parameter_before_and_after() -> None:
    w, b = trace_of(line("fb"), "i:s").ops
    assert (w.name, named(w.inputs), named(w.output)["value"]) == ("w", {"value": [2.0], "grad": [1.3333]}, [1.8667])
    assert named(b.output)["value"] == [5.8]
    assert dict(b.settings)["lr"] == "0.1"


def test_a_step_tells_the_optimizers_state() -> None:
    session = line("optimizer=adam,lr=0.1 fbsz fb")
    w = trace_of(session, "i:s").ops[0]
    assert named(w.inputs)["step"] == [1.0]
    assert named(w.output)["step"] == [2.0]
    assert set(named(w.output)) == {"value", "grad", "step", "exp_avg", "exp_avg_sq"}


def test_zero_grad_tells_what_it_clears() -> None:
    w, _ = trace_of(line("fbs"), "i:z").ops
    assert "grad" in named(w.inputs)
    assert "grad" not in named(w.output)


def test_the_frame_and_the_run_know_nothing_of_recording() -> None:
    plain, recorded = line("fbszfb"), line("i:f i:b i:s i:z i:fb")
    assert recorded.frame.same(plain.frame)
    assert recorded.commands() == plain.commands() == "fbsz fb"


def test_the_phase_of_any_frame_can_be_recorded_later() -> None:
    session = line("fbsz*30 f")
    trace = session.trace(54)
    assert (trace.phase.value, trace.index, trace.iteration) == ("backward", 54, 14)
    assert session.frame.index == 121
    assert session.run("b").index == 122
    fresh = line("fbsz*13 f")
    assert ops(trace) == ops(trace_of(fresh, "i:b"))


def ops(trace: Trace) -> list[dict[str, object]]:
    return [op.plain() for op in trace.ops]


def test_looking_inside_changes_nothing_that_comes_after() -> None:
    plain, looked = line("fbsz*9"), line("fbsz*9")
    for index in (1, 6, 11, 16, 36):
        looked.trace(index)
    for letter in "fbsz":
        assert looked.run(letter).same(plain.run(letter))


def test_a_frame_that_no_phase_led_to_has_no_inside() -> None:
    session = line("lr=0.01")
    for index, reason in ((0, "the beginning"), (1, "lr=0.01")):
        with pytest.raises(Refused, match=reason):
            session.trace(index)


def test_out_of_turn_it_is_refused_before_anything_runs_again() -> None:
    with pytest.raises(Refused):
        line().run("i:b")


def test_recorded_phases_are_spelled_with_an_i() -> None:
    assert str(parse("i:fb i:s*2")[3]) == "i:s"
    assert [each.recorded for each in parse("i:fb z")] == [True, True, False]
    with pytest.raises(UnknownCommand):
        parse("i:lr=0.1")


def test_json_holds_every_operation() -> None:
    plain = line("f").run("i:b").plain()["trace"]
    assert plain["phase"] == "backward"
    keys = {"name", "module", "source", "inputs", "output", "grad_in", "grad_out", "accumulates_into"}
    assert all(keys <= set(op) for op in plain["ops"])
    assert plain["ops"][6]["accumulates_into"] == "w"


def test_recorded_iterations_take_no_more_memory_the_more_there_are() -> None:
    times = 100 if LONG else 10
    session = line()

    def run(iterations: int) -> int:
        for _ in session.run_all(f"i:fbsz*{iterations}"):
            pass
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    run(3 * times)
    tracemalloc.start()
    before = run(3 * times)
    growth = run(7 * times) - before
    tracemalloc.stop()
    assert growth < 7 * times * 4 * 2_000, growth  # frames are kept, traces are not: one takes 50 kB and more


def test_the_first_operation_that_makes_a_nan_is_found() -> None:
    session = line("w=3e38")
    trace = trace_of(session, "i:f")
    assert next(op.name for op in trace.ops if any(value and value.nonfinite for value in op.output)) == "mul"
