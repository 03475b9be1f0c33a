from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from autograd_tui.core.tensor_stats import (
    KEY_COLUMNS,
    MAX_LISTED_VALUES,
    ROW_WIDTH,
    SAMPLE_SIZE,
    LazyStatsTable,
    StatsTable,
    TensorStats,
)
from autograd_tui.engine.training import stats_reader as stats
from autograd_tui.engine.training import tensor_properties
from autograd_tui.engine.training.stats_reader import MAX_WAITING_BYTES, StatsReader, TensorGroup
from float_tensors import FLOATS, SIZES, float_tensors
from suite_options import examples

INTS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def read(tensor: Tensor, *, exact: bool = True, sampled_range: bool = False) -> TensorStats:
    group = TensorGroup({"it": tensor}, exact=exact, sampled_range=sampled_range)
    row = StatsReader().read({"group": group})["group"][0]
    assert isinstance(row, TensorStats)
    return row


def close(one: float | None, other: Tensor | float) -> bool:
    assert one is not None
    return math.isclose(one, float(other), rel_tol=1e-5) or (math.isnan(one) and math.isnan(float(other)))


@given(float_tensors())
def test_norm_is_the_norm_that_torch_finds_in_double_precision(tensor: Tensor) -> None:
    wanted = torch.linalg.vector_norm(tensor.double())
    norm = read(tensor).norm
    assert close(norm, wanted) or not wanted.isfinite()
    assert norm is not None
    assert math.isfinite(norm) == wanted.isfinite()


@pytest.mark.parametrize("size", [9_408, 9_409, 2_359_296, 2_359_301])
@pytest.mark.parametrize("strides", ["contiguous", "transposed", "apart"])
def test_the_norm_of_a_large_tensor_is_right_to_more_digits_than_are_shown(size: int, strides: str) -> None:
    tensor = normal(size) ** 2  # all of one sign: errors add up
    if strides == "transposed":
        tensor = tensor[: size // 2 * 2].view(2, -1).t()
    if strides == "apart":
        tensor = tensor[::2]
    norm = read(tensor).norm
    assert norm == pytest.approx(float(torch.linalg.vector_norm(tensor.double())), rel=1e-6)


@given(float_tensors())
def test_min_and_max_are_those_of_torch(tensor: Tensor) -> None:
    row, wanted = read(tensor), torch.stack(torch.aminmax(tensor)).double()
    assert torch.tensor([row.min, row.max], dtype=torch.float64).allclose(wanted, rtol=0, atol=0, equal_nan=True)


@given(float_tensors())
def test_nonfinite_counts_nan_and_infinities(tensor: Tensor) -> None:
    assert read(tensor).nonfinite == int((~tensor.isfinite()).sum())


@given(float_tensors(sizes=[size for size in SIZES if size <= SAMPLE_SIZE]))
def test_mean_and_std_of_up_to_1024_values_are_exact(tensor: Tensor) -> None:
    row, doubles = read(tensor), tensor.double()
    largest = float(doubles.abs().max())
    for one, other in ((row.mean, doubles.mean()), (row.std, doubles.std(correction=0))):
        assert one is not None
        assert close(one, other) or abs(one - float(other)) <= 1e-12 * largest


@given(float_tensors(sizes=[1, 2, 16]))
def test_up_to_16_values_are_all_given(tensor: Tensor) -> None:
    assert repr(read(tensor).values) == repr(tuple(tensor.tolist()))


@given(float_tensors(sizes=[17, 1024]))
def test_the_histogram_of_up_to_1024_values_is_that_of_torch(tensor: Tensor) -> None:
    finite = tensor[tensor.isfinite()].double()
    counts = torch.histc(finite, bins=16) if len(finite) and finite.min() < finite.max() else None
    histogram = read(tensor).histogram
    assert histogram is not None
    assert sum(histogram) == len(finite)
    if counts is not None:  # a value on an edge may fall to either side, and 16 bits put many there
        places = (finite - finite.min()) / (finite.max() - finite.min()) * 16
        on_edges = int((places - places.round()).abs().lt(1e-6).sum())
        assert sum(abs(one - other) for one, other in zip(histogram, counts.tolist(), strict=True)) <= 2 * on_edges


@examples(30)
@given(float_tensors(sizes=[1025, 3000]))
def test_the_histogram_of_a_sample_counts_its_finite_values(tensor: Tensor) -> None:
    row = read(tensor)
    assert row.histogram is not None
    assert sum(row.histogram) == SAMPLE_SIZE or (row.nonfinite and sum(row.histogram) < SAMPLE_SIZE)


def test_mean_and_std_of_a_large_tensor_are_near_the_exact_ones() -> None:
    row = read(normal(100_000))
    assert row.mean == pytest.approx(0, abs=0.1)
    assert row.std == pytest.approx(1, abs=0.1)


def test_the_bins_of_a_large_tensor_go_from_its_least_to_its_greatest_value() -> None:
    tensor = torch.zeros(100_000)
    tensor[7] = 16.0  # hardly in the sample
    assert read(tensor).histogram == (1024, *[0] * 15)
    assert read(tensor - 1).max == 15.0


@pytest.mark.parametrize("size", SIZES)
def test_only_what_comes_from_a_sample_is_marked_so(size: int) -> None:
    assert read(normal(size)).sampled == (size > SAMPLE_SIZE)


@pytest.mark.parametrize(("size", "values", "histogram"), [(1, True, False), (16, True, False), (17, False, True)])
def test_a_row_has_either_values_or_a_histogram(size: int, values: bool, histogram: bool) -> None:
    row = read(normal(size))
    assert (row.values is not None, row.histogram is not None) == (values, histogram)


@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize("size", [3, 100, 2000])
def test_whole_numbers_are_measured(dtype: torch.dtype, size: int) -> None:
    tensor = (torch.arange(size) % 100).to(dtype)
    row = read(tensor)
    assert (row.min, row.max, row.dtype) == (0, min(size, 100) - 1, str(dtype).removeprefix("torch."))
    assert close(row.norm, tensor.double().norm())


@pytest.mark.parametrize(
    "tensor",
    [
        torch.empty(0),
        torch.empty(3, 0, dtype=torch.float16),
        torch.ones(3, dtype=torch.bool),
        torch.ones(2000, dtype=torch.bool),
        torch.ones(3, device="meta"),
    ],
    ids=["empty", "empty2d", "bool", "large bool", "meta"],
)
def test_what_cannot_be_measured_has_a_row_of_none(tensor: Tensor) -> None:
    row = read(tensor)
    dtype = str(tensor.dtype).removeprefix("torch.")
    assert row == TensorStats("it", tuple(tensor.shape), dtype)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_a_quantized_tensor_has_a_row_of_none() -> None:
    assert read(torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)) == TensorStats("it", (3,), "qint8")


COMPLEX = (torch.complex32, torch.complex64, torch.complex128)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("size", [1, 3, 16, 600, 1024, 1025])
@pytest.mark.parametrize("bad", [False, True])
def test_a_complex_tensor_has_the_norm_that_torch_finds(dtype: torch.dtype, size: int, bad: bool) -> None:
    tensor = torch.complex(normal(size).double(), normal(size, 2)[:, 1].double())
    tensor[0] = complex(math.nan, math.inf) if bad else tensor[0]  # type: ignore[assignment]
    row = read(tensor.to(dtype))
    plain = tensor.to(dtype).to(torch.complex128)
    assert close(row.norm, torch.linalg.vector_norm(plain)) or (bad and row.norm != row.norm)
    assert (row.nonfinite, row.size) == (int(bad), size)
    assert (row.min, row.max, row.mean, row.std, row.values, row.histogram) == (None,) * 6


def test_a_conjugate_is_measured_as_it_is_said_and_not_as_it_is_kept() -> None:
    assert close(read(torch.randn(3, dtype=torch.complex64).conj()).norm, read(torch.ones(1)).norm or 0) is False
    tensor = torch.full((3,), 3 + 4j)
    assert close(read(tensor.conj()).norm, 5 * math.sqrt(3))


def in_layout(layout: str, values: Tensor) -> Tensor:
    """Give a matrix with these values on its diagonal, and nothing else."""
    matrix = torch.diag(values)
    if layout == "coo twice":  # each value in two halves, as an embedding that was asked twice for a row gives them
        at = torch.arange(len(values)).repeat(2).expand(2, -1)
        halves = torch.cat([values / 2, values / 2])
        return torch.sparse_coo_tensor(at, halves, matrix.shape, check_invariants=True)
    if layout == "bsr":
        return matrix.to_sparse_bsr(1)
    return {"coo": matrix.to_sparse, "csr": matrix.to_sparse_csr, "csc": matrix.to_sparse_csc}[layout]()  # type: ignore[operator]


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state")
@pytest.mark.parametrize("layout", ["coo", "coo twice", "csr", "csc", "bsr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("bad", [False, True])
def test_a_sparse_tensor_has_norm_and_range_of_what_it_holds(layout: str, dtype: torch.dtype, bad: bool) -> None:
    values = torch.tensor([3.0, -4.0, math.inf if bad else 0.5]).to(dtype)
    row = read(in_layout(layout, values))
    assert (row.shape, row.stored, row.nonfinite) == ((3, 3), 3, int(bad))
    assert row.norm is not None
    assert not math.isfinite(row.norm) if bad else row.norm == pytest.approx(5.0249379)
    ends = (None, None) if dtype.is_complex else (-4.0, math.inf if bad else 3.0)
    assert (row.min, row.max) == ends
    assert (row.mean, row.std, row.values, row.histogram) == (None,) * 4


def test_a_sparse_tensor_that_holds_nothing_is_zero() -> None:
    row = read(torch.zeros(3, 3).to_sparse())
    assert (row.norm, row.min, row.max, row.stored) == (0.0, 0.0, 0.0, 0)


def test_sparse_tensors_are_read_beside_others_however_much_they_hold() -> None:
    reader = StatsReader()
    for held in (1, 2, 3):
        sparse = torch.diag(torch.arange(3) < held).float().to_sparse()
        table = reader.read({"group": TensorGroup({"a": normal(3000), "it": sparse, "b": normal(5)})})["group"]
        assert (table[1].norm, table[1].stored) == (pytest.approx(math.sqrt(held)), held)
        assert (table[0], table[2]) == (replace(read(normal(3000)), name="a"), replace(read(normal(5)), name="b"))


def test_what_was_not_compared_has_no_way_it_went() -> None:
    tensors = {
        "a": torch.zeros(3, dtype=torch.complex64),
        "bool": torch.ones(2, dtype=torch.bool),
        "none": torch.ones(0),
    }
    reader = StatsReader()
    reader.read({"params": TensorGroup(tensors)})
    moves = reader.watch("params", TensorGroup(tensors))
    tensors["a"] += 3 + 4j
    reader.read({"params": TensorGroup(tensors)})
    assert repr(moves().tolist()) == repr([math.sqrt(75), math.nan, 0.0])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_a_nested_tensor_has_a_count_of_values_alone(layout: torch.layout) -> None:
    row = read(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout))
    assert row == TensorStats("it", (5,), "float32")


FEW_BITS = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu)


@pytest.mark.parametrize("dtype", FEW_BITS)
@pytest.mark.parametrize("size", [3, 100, 2000])
@pytest.mark.parametrize("bad", [False, True])
def test_numbers_of_eight_bits_are_measured(dtype: torch.dtype, size: int, bad: bool) -> None:
    tensor = torch.full((size,), 2.0)
    tensor[1] = math.nan if bad else 4.0
    row = read(tensor.to(dtype))
    assert row.nonfinite == int(bad)
    assert bad or (close(row.norm, tensor.norm()) and (row.min, row.max) == (2.0, 4.0))


@pytest.mark.parametrize("value", [2.5, math.nan, math.inf])
def test_a_single_number_has_no_shape_and_one_value(value: float) -> None:
    row = read(torch.tensor(value))
    assert (row.shape, repr(row.values), row.size) == ((), repr((value,)), 1)


def test_a_transposed_tensor_is_read_in_its_own_order() -> None:
    assert read(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t()).values == (1.0, 3.0, 2.0, 4.0)


@pytest.mark.parametrize(
    "tensor",
    [
        normal(2, 3, 4, 4).to(memory_format=torch.channels_last),
        normal(4, 8, 8, 8).to(memory_format=torch.channels_last),
        normal(50, 60).t(),
        normal(5000)[::2],
        normal(1).expand(3000),
    ],
)
def test_a_tensor_of_any_strides_is_measured_as_its_copy_is(tensor: Tensor) -> None:
    row, copied = read(tensor), read(tensor.clone(memory_format=torch.contiguous_format))
    assert close(row.norm, copied.norm or 0)  # added up in another order
    assert replace(row, norm=None) == replace(copied, norm=None)


def test_a_tensor_that_requires_grad_is_measured() -> None:
    assert read(torch.ones(2, requires_grad=True) * 2).values == (2.0, 2.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [3, 100, 2000])
@pytest.mark.parametrize("share", [0.9, 0.5])
def test_a_norm_whose_squares_leave_the_range_is_still_right(dtype: torch.dtype, size: int, share: float) -> None:
    information = torch.finfo(dtype)
    for extreme in (information.max**share, information.tiny**share):
        tensor = torch.full((size,), extreme, dtype=dtype)
        row = read(tensor)
        assert close(row.norm, extreme * math.sqrt(size))
        assert row.nonfinite == 0


def test_a_range_wider_than_the_largest_number_has_a_histogram() -> None:
    tensor = torch.tensor([-1.7e308] * 10 + [1.7e308] * 10, dtype=torch.float64)
    assert read(tensor).histogram == (10, *[0] * 14, 10)


@pytest.mark.parametrize("size", [17, 1025])
def test_equal_values_fill_the_first_bin(size: int) -> None:
    assert read(torch.full((size,), 3.0)).histogram == (min(size, SAMPLE_SIZE), *[0] * 15)


@pytest.mark.parametrize("size", [17, 1025])
def test_a_tensor_of_nan_alone_has_an_empty_histogram(size: int) -> None:
    assert read(torch.full((size,), math.nan)).histogram == (0,) * 16


@pytest.mark.parametrize("size", [100, 2000])
def test_a_tensor_is_measured_alike_alone_and_beside_others(size: int) -> None:
    tensor = normal(size)
    beside = {"first": normal(3000), "it": tensor, "nan": torch.full((50,), math.nan)}
    assert StatsReader().read({"group": TensorGroup(beside)})["group"].named("it") == read(tensor)


@pytest.mark.parametrize("size", SIZES)
def test_the_first_value_is_kept_of_what_is_too_large_for_its_row(size: int) -> None:
    tensor = normal(size)
    table = StatsReader().read({"group": TensorGroup({"one": normal(3), "it": tensor}, exact=False)})["group"]
    assert table.first(0) is None
    assert table.first(1) == (tensor[0].item() if size > MAX_LISTED_VALUES else None)


@pytest.mark.parametrize(("exact", "sampled_range"), [(True, False), (True, True), (False, False)])
def test_what_is_measured_at_once_is_what_all_numbers_say(exact: bool, sampled_range: bool) -> None:
    tensors = {f"{size} {dtype}": normal(size).to(dtype) for size in SIZES for dtype in (torch.float32, torch.float64)}
    others = {"complex": torch.view_as_complex(normal(700, 2)), "sparse": normal(30).to_sparse(), "bool": normal(3) > 0}
    group = TensorGroup({**tensors, **others}, exact=exact, sampled_range=sampled_range)
    table = StatsReader().read({"group": group})["group"]
    assert isinstance(table, LazyStatsTable)
    at_once = [table.column(each).tobytes() for each in KEY_COLUMNS]
    assert at_once == [table.numbers[each::ROW_WIDTH].tobytes() for each in KEY_COLUMNS]
    assert table == StatsTable(table.layout, table.numbers)


def test_values_that_take_much_more_memory_than_their_numbers_are_not_kept_for_later() -> None:
    many = {str(index): normal(2000) for index in range(MAX_WAITING_BYTES // (8 * SAMPLE_SIZE) + 1)}
    table = StatsReader().read({"group": TensorGroup(many)})["group"]
    assert table.bytes == len(table.numbers) * 8


def test_sampling_is_the_same_each_time() -> None:
    tensor = normal(5000)
    assert read(tensor) == read(tensor)


def test_reading_leaves_the_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    read(torch.ones(5000))
    assert torch.equal(torch.get_rng_state(), before)


def test_reading_leaves_no_graph() -> None:
    tensor = torch.ones(5000, requires_grad=True)
    read(tensor)
    assert tensor._version == 0
    assert tensor.grad_fn is None


@pytest.mark.parametrize("size", [16, 100])
def test_an_inexact_group_spares_small_tensors_nothing(size: int) -> None:
    tensor = normal(size)
    assert read(tensor, exact=False) == read(tensor)


def test_an_inexact_group_spares_large_tensors_all_but_mean_and_std() -> None:
    tensor = normal(2000)
    row, exact = read(tensor, exact=False), read(tensor)
    assert (row.norm, row.min, row.max, row.nonfinite, row.histogram) == (None,) * 5
    assert (row.mean, row.std) == (exact.mean, exact.std)


def unsampled_index(size: int) -> int:
    """Give an index that is in no sample of tensors of this size."""
    sampled = set(stats.draw_sample_indices(size, torch.device("cpu")).tolist())
    return next(index for index in range(size) if index not in sampled)


@pytest.mark.parametrize("size", [16, 1024])
def test_the_range_of_a_small_tensor_is_never_of_a_sample(size: int) -> None:
    assert read(normal(size), sampled_range=True) == read(normal(size))


def test_a_sampled_range_is_that_of_the_sample_and_all_else_as_it_was() -> None:
    tensor = normal(5000)
    tensor[unsampled_index(5000)] = 100.0
    row, exact = read(tensor, sampled_range=True), read(tensor)
    sample = tensor[stats.draw_sample_indices(5000, tensor.device)[1:]]
    assert (row.min, row.max, row.range_sampled) == (float(sample.min()), float(sample.max()), True)
    assert (exact.max, exact.range_sampled) == (100.0, False)
    assert (row.norm, row.mean, row.std, row.nonfinite) == (exact.norm, exact.mean, exact.std, 0)
    assert row.histogram is not None
    assert sum(row.histogram) == SAMPLE_SIZE
    assert min(row.histogram[0], row.histogram[-1]) > 0  # from its least to its greatest value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_value_outside_of_the_sample_that_is_not_finite_is_seen(dtype: torch.dtype, bad: float) -> None:
    tensor = normal(5000).to(dtype)
    tensor[unsampled_index(5000)] = bad
    row, exact = read(tensor, sampled_range=True), read(tensor)
    assert (row.nonfinite, row.range_sampled) == (1, False)
    assert repr((row.norm, row.min, row.max)) == repr((exact.norm, exact.min, exact.max))
    assert row.norm is not None
    assert not math.isfinite(row.norm)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-42, 1e30, -3e38])
def test_a_norm_is_exact_also_where_the_sample_has_nothing_but_zeros(value: float) -> None:
    tensor = torch.zeros(5000)
    tensor[unsampled_index(5000)] = value
    row = read(tensor, sampled_range=True)
    assert close(row.norm, abs(float(tensor.double().sum())))
    assert (row.min, row.max, row.nonfinite, row.range_sampled) == (0.0, 0.0, 0, True)


class CountsPasses(TorchDispatchMode):
    """Counts the functions that read all values of a tensor of a size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.names = size, list[str]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        is_view = name in ("view", "detach", "slice", "index_select")
        if not is_view and any(isinstance(each, Tensor) and each.numel() == self.size for each in args):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def test_a_large_tensor_whose_range_is_sampled_is_read_once() -> None:
    with CountsPasses(1 << 16) as mode:
        read(normal(1 << 16) * 1.0, sampled_range=True)
    assert mode.names[-1:] == ["linalg_vector_norm"]
    assert not {"aminmax", "isfinite"} & {*mode.names}


def test_an_empty_group_gives_an_empty_table() -> None:
    table = StatsReader().read({"group": TensorGroup({})})["group"]
    assert (len(table), table.norm()) == (0, 0.0)


def test_a_reader_follows_shapes_that_change() -> None:
    reader = StatsReader()
    for size in range(1, 100):
        row = reader.read({"group": TensorGroup({"it": torch.ones(size)})})["group"][0]
        assert row.shape == (size,)


class CountsCopies(TorchDispatchMode):
    """Counts what leaves the meta device, which here stands for an accelerator, and answers with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        to_host = function is torch.ops.aten._to_copy.default and kwargs.get("device") == torch.device("cpu")
        if to_host and args[0].is_meta:
            self.copies += 1
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        return function(*args, **kwargs)


def test_a_command_copies_once_from_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_properties, "is_measurable", lambda tensor: True)
    sizes = (1, 16, 17, 1024, 1025, 5000)
    params = {f"{size} {dtype}": torch.ones(size, dtype=dtype, device="meta") for size in sizes for dtype in FLOATS}
    groups = {"params": TensorGroup(params), "state": TensorGroup(params, exact=False), "none": TensorGroup({})}
    with CountsCopies() as mode:
        tables = StatsReader().read(groups)
    assert mode.copies == 1
    assert tables["params"][0].values == (0.0,)


def test_zeros_on_an_accelerator_are_told_from_small_numbers_with_one_more_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tensor_properties, "is_measurable", lambda tensor: True)
    grads = {str(size): torch.zeros(size, device="meta") for size in (16, 2000, 3000, 4000)}
    with CountsCopies() as mode:
        table = StatsReader().read({"grads": TensorGroup(grads, sampled_range=True)})["grads"]
    assert mode.copies == 2
    assert [row.norm for row in table] == [0.0] * 4


class Away(torch.Tensor):
    """A host tensor that says it is on an accelerator, and counts the copies from there."""

    copies = 0

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 0)

    def cpu(self) -> Tensor:  # type: ignore[override]
        Away.copies += 1
        return self.as_subclass(Tensor)


@given(st.lists(float_tensors(sizes=[1, 5, 17]), min_size=1, max_size=5))
def test_tensors_of_any_dtypes_come_to_the_host_whole_in_one_copy(tensors: list[Tensor]) -> None:
    Away.copies = 0
    arrived = stats.to_host([tensor.as_subclass(Away) for tensor in tensors])
    assert Away.copies == 1
    for one, other in zip(arrived, tensors, strict=True):
        assert one.dtype is other.dtype
        assert torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def test_tensors_on_the_host_are_not_copied() -> None:
    tensors = [torch.ones(3), torch.ones(2000)]
    assert all(one is other for one, other in zip(stats.to_host(tensors), tensors, strict=True))
