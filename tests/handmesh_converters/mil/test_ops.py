"""Each MIL operation against torch's own, or NumPy's, over its attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from handmesh_converters.mil.ops import OPERATIONS


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _ints(*values: int) -> Tensor:
    return torch.tensor(values)


def _same(found: Tensor, expected: Any) -> None:
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_conv(groups: int, stride: int, dilation: int) -> None:
    x, weight, bias = _random(2, 4, 9, 8), _random(8, 4 // groups, 3, 3), _random(8)
    given: dict[str, Any] = {
        "strides": _ints(stride, stride),
        "dilations": _ints(dilation, dilation),
        "groups": torch.tensor(groups),
    }
    conv = OPERATIONS["conv"]
    usual: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups}
    _same(conv(x, weight, bias=bias, **given), F.conv2d(x, weight, bias, **usual))
    # Before and after the first axis, then the second.
    found = conv(x, weight, pad_type="custom", pad=_ints(1, 2, 0, 3), **given)
    _same(found, F.conv2d(F.pad(x, (0, 3, 1, 2)), weight, **usual))


@pytest.mark.parametrize(
    ("pad_type", "size", "stride", "pads"),
    [
        ("same", 8, 2, (0, 1)),
        ("same_lower", 8, 2, (1, 0)),
        ("same", 9, 2, (1, 1)),
        ("same", 8, 1, (1, 1)),
        ("valid", 8, 2, (0, 0)),
    ],
)
def test_kinds_of_padding(pad_type: str, size: int, stride: int, pads: tuple[int, int]) -> None:
    x, weight = _random(1, 2, size, size), _random(3, 2, 3, 3)
    strides = _ints(stride, stride)
    found = OPERATIONS["conv"](x, weight, strides=strides, pad_type=pad_type)
    _same(found, F.conv2d(F.pad(x, pads * 2), weight, stride=stride))
    pooled = OPERATIONS["max_pool"](x - 10, _ints(3, 3), strides, pad_type)
    _same(pooled, F.max_pool2d(F.pad(x - 10, pads * 2, value=-torch.inf), 3, stride))


def test_unknown_padding_is_refused() -> None:
    with pytest.raises(ValueError, match="most"):
        OPERATIONS["conv"](_random(1, 1, 4, 4), _random(1, 1, 3, 3), pad_type="most")


def test_conv_of_one_axis() -> None:
    x, weight = _random(1, 2, 9), _random(3, 2, 3)
    _same(OPERATIONS["conv"](x, weight), F.conv1d(x, weight))


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_max_pool(ceil_mode: bool) -> None:
    x = _random(1, 3, 7, 7) - 10
    found = OPERATIONS["max_pool"](x, _ints(2, 2), _ints(2, 2), ceil_mode=torch.tensor(ceil_mode))
    _same(found, F.max_pool2d(x, 2, ceil_mode=ceil_mode))


@pytest.mark.parametrize("factors", [(2.0, 2.0), (3.0, 1.0)])
def test_upsampling(factors: tuple[float, float]) -> None:
    x = _random(1, 2, 3, 4)
    found = OPERATIONS["upsample_nearest_neighbor"](x, *map(torch.tensor, factors))
    _same(found, F.interpolate(x, scale_factor=factors, mode="nearest"))


def test_linear() -> None:
    x, weight, bias = _random(2, 5, 4), _random(3, 4), _random(3)
    _same(OPERATIONS["linear"](x, weight, bias), x @ weight.T + bias)
    _same(OPERATIONS["linear"](x, weight), x @ weight.T)


@pytest.mark.parametrize("transpose_x", [False, True])
@pytest.mark.parametrize("transpose_y", [False, True])
def test_matmul(transpose_x: bool, transpose_y: bool) -> None:
    x, y = _random(2, 3, 4), _random(4, 5)
    found = OPERATIONS["matmul"](
        x.mT if transpose_x else x,
        y.mT if transpose_y else y,
        torch.tensor(transpose_x),
        torch.tensor(transpose_y),
    )
    _same(found, x.double().numpy() @ y.double().numpy())


@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm(affine: bool) -> None:
    x, mean, variance = _random(2, 3, 4, 4), _random(3), _random(3).square() + 0.1
    pair = (_random(3), _random(3)) if affine else (None, None)
    found = OPERATIONS["batch_norm"](x, mean, variance, *pair, epsilon=torch.tensor(1e-3))
    _same(found, F.batch_norm(x, mean, variance, *pair, eps=1e-3))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("add", np.add),
        ("sub", np.subtract),
        ("mul", np.multiply),
        ("real_div", np.divide),
    ],
)
def test_arithmetic_broadcasts(kind: str, expected: Callable[..., Any]) -> None:
    x, y = _random(2, 3, 4), _random(3, 1)
    _same(OPERATIONS[kind](x, y), expected(x.numpy(), y.numpy()))


def test_activations() -> None:
    x = _random(3, 4) * 3
    _same(OPERATIONS["relu"](x), np.maximum(x.numpy(), 0))
    _same(OPERATIONS["sigmoid"](x), 1 / (1 + np.exp(-x.double().numpy())))
    _same(OPERATIONS["clip"](x, torch.tensor(-1.0), torch.tensor(0.5)), np.clip(x.numpy(), -1, 0.5))
    for axis in (0, -1):
        powers = np.exp(x.double().numpy())
        expected = powers / powers.sum(axis, keepdims=True)
        _same(OPERATIONS["softmax"](x, torch.tensor(axis)), expected)


def test_cast() -> None:
    assert OPERATIONS["cast"](torch.tensor([1.7, -1.7]), "int32").tolist() == [1, -1]
    assert OPERATIONS["cast"](_ints(3), "fp16").dtype == torch.float32


@pytest.mark.parametrize("kind", ["sum", "mean", "max"])
@pytest.mark.parametrize("axes", [(1,), (-1, 0), None])
@pytest.mark.parametrize("keep", [False, True])
def test_reductions(kind: str, axes: tuple[int, ...] | None, keep: bool) -> None:
    x = _random(2, 3, 4)
    found = OPERATIONS[f"reduce_{kind}"](
        x, None if axes is None else _ints(*axes), torch.tensor(keep)
    )
    _same(found, getattr(x.numpy(), kind)(axis=axes, keepdims=keep))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(axis: int) -> None:
    x, indices = _random(4, 5, 6), torch.tensor([[0, -1, 2], [3, 1, -2]])
    found = OPERATIONS["gather"](x, indices, torch.tensor(axis), validate_indices=torch.tensor(0))
    _same(found, np.take(x.numpy(), indices.numpy(), axis))


def test_gather_by_batch() -> None:
    x, indices = _random(2, 5, 3), torch.tensor([[0, -1], [4, 2]])
    found = OPERATIONS["gather"](x, indices, torch.tensor(1), torch.tensor(1))
    _same(found, np.stack([x[i].numpy()[indices[i].numpy()] for i in range(2)]))


def test_gather_outside_fails() -> None:
    with pytest.raises((IndexError, RuntimeError)):
        OPERATIONS["gather"](_random(3, 2), _ints(3), torch.tensor(0))


def test_gather_along_an_axis_counts_from_its_end_too() -> None:
    x, rows = _random(2, 3, 4), _ints(-1, 0).reshape(1, 2, 1).expand(2, 2, 4)
    _same(OPERATIONS["gather_along_axis"](x, rows, torch.tensor(-2)), x[:, [2, 0]])


@pytest.mark.parametrize("ascending", [False, True])
def test_the_largest_and_the_smallest(ascending: bool) -> None:
    x = _random(3, 7)
    given: dict[str, Any] = {"k": torch.tensor(4), "ascending": torch.tensor(ascending)}
    values, places = OPERATIONS["topk"](x, axis=torch.tensor(1), **given)
    order = np.argsort(x.numpy() if ascending else -x.numpy(), axis=1)[:, :4]
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(values, np.take_along_axis(x.numpy(), order, axis=1))
    alone = OPERATIONS["topk"](x.T, axis=torch.tensor(0), return_indices=_ints(0)[0], **given)
    assert len(alone) == 1
    np.testing.assert_array_equal(alone[0], values.T)


def test_slices() -> None:
    x, cut = _random(4, 5, 6), OPERATIONS["slice_by_index"]
    _same(cut(x, _ints(1, 0, -3), _ints(3, 5, -1)), x[1:3, :, -3:-1])
    _same(cut(x, _ints(0, 4, 0), _ints(4, 0, 6), _ints(2, -1, 3)), x.numpy()[::2, 4:0:-1, ::3])
    masks = torch.tensor([True, False, False])
    _same(cut(x, _ints(2, 1, 0), _ints(3, 2, 6), begin_mask=masks), x[:3, 1:2])
    _same(cut(x, _ints(2, 1, 0), _ints(3, 2, 6), end_mask=masks), x[2:, 1:2])
    _same(cut(x, _ints(-1, 1, 0), _ints(0, 2, 6), squeeze_mask=masks), x[-1, 1:2])


def test_shapes() -> None:
    x = _random(2, 3, 4)
    _same(OPERATIONS["reshape"](x, _ints(0, -1)), x.reshape(2, 12))
    _same(OPERATIONS["transpose"](x, _ints(2, 0, 1)), x.permute(2, 0, 1))
    _same(OPERATIONS["expand_dims"](x, _ints(0, -1)), x[None, ..., None])
    _same(OPERATIONS["squeeze"](x[:, None, :, :1], _ints(1, -1)), x[..., 0])
    _same(OPERATIONS["squeeze"](x[:1, None]), x[0])
    _same(OPERATIONS["fill_like"](ref_tensor=x, value=torch.tensor(2.5)), np.full((2, 3, 4), 2.5))


@pytest.mark.parametrize("axis", [0, -1])
def test_joining(axis: int) -> None:
    a, b = _random(2, 3), _random(2, 3) + 1
    where = torch.tensor(axis)
    _same(OPERATIONS["concat"]([a, b], where), np.concatenate([a, b], axis))
    _same(OPERATIONS["stack"]([a, b], where), np.stack([a, b], axis))


def test_interleaving() -> None:
    a, b = torch.zeros(2, 2), torch.ones(2, 2)
    found = OPERATIONS["concat"]([a, b], torch.tensor(0), torch.tensor(True))
    assert found[:, 0].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("mode", "numpy_mode"),
    [("constant", "constant"), ("reflect", "reflect"), ("replicate", "edge")],
)
def test_pad(mode: str, numpy_mode: Any) -> None:
    x = _random(2, 3, 4)
    value: dict[str, Any] = {"constant_values": 2.0} if mode == "constant" else {}
    found = OPERATIONS["pad"](x, _ints(1, 2, 3, 0), mode, torch.tensor(2.0))
    _same(found, np.pad(x.numpy(), ((0, 0), (1, 2), (3, 0)), mode=numpy_mode, **value))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_palettes(bits: int) -> None:
    rng = np.random.default_rng(bits)
    places, lut = rng.integers(0, 2**bits, 15), _random(2**bits)
    unpacked = (places[:, None] >> np.arange(bits)) & 1
    packed = torch.from_numpy(np.packbits(unpacked.astype(np.uint8), bitorder="little"))
    found = OPERATIONS["constexpr_lut_to_dense"](packed, lut, _ints(3, 5))
    _same(found, lut.numpy()[places].reshape(3, 5))


def test_sparse_constants() -> None:
    dense = _random(3, 7) * (_random(3, 7) > 0.5)
    mask = np.packbits((dense != 0).numpy().ravel(), bitorder="little")
    found = OPERATIONS["constexpr_sparse_to_dense"](
        dense[dense != 0], torch.from_numpy(mask), _ints(3, 7)
    )
    _same(found, dense)


def test_quantised_constants() -> None:
    data = torch.randint(-127, 128, (3, 4), generator=torch.Generator().manual_seed(0))
    undo = OPERATIONS["constexpr_affine_dequantize"]
    _same(undo(data, torch.tensor(3), torch.tensor(0.5), torch.tensor(0)), (data - 3) * 0.5)
    zero, scale = _ints(1, 2, 3, 4), _random(4)
    _same(undo(data, zero, scale, torch.tensor(1)), (data - zero) * scale)
    _same(undo(data, _ints(0, 0, 0), scale[:3], torch.tensor(-2)), data * scale[:3, None])


X = np.linspace(-2, 3, 24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("reshape", {"x": X, "shape": [4, -1]}),
        ("transpose", {"x": X, "perm": [2, 0, 1]}),
        ("expand_dims", {"x": X, "axes": [0, -1]}),
        ("squeeze", {"x": X[:1], "axes": [0]}),
        ("slice_by_index", {"x": X, "begin": [0, 2, 1], "end": [2, 0, 4], "stride": [1, -1, 2]}),
        (
            "slice_by_index",
            {"x": X, "begin": [1, 1, 1], "end": [2, 2, 2], "begin_mask": [True, False, False],
             "end_mask": [False, False, True], "squeeze_mask": [False, True, False]},
        ),
        ("gather", {"x": X, "indices": np.array([[2, 0], [-1, 1]], np.int32), "axis": 1}),
        ("concat", {"values": [X, X + 1], "axis": -1}),
        ("stack", {"values": [X, X + 1], "axis": 1}),
        ("reduce_mean", {"x": X, "axes": [0, 2], "keep_dims": True}),
        ("reduce_max", {"x": X, "axes": [-1], "keep_dims": False}),
        ("reduce_sum", {"x": X, "axes": [1], "keep_dims": False}),
        ("sigmoid", {"x": X}),
        ("softmax", {"x": X, "axis": 1}),
        ("relu", {"x": X}),
        ("real_div", {"x": X, "y": np.float32(3)}),
        ("exp", {"x": X}),
        ("sqrt", {"x": np.abs(X)}),
        ("greater_equal", {"x": X, "y": X[::-1].copy()}),
        ("tile", {"x": X, "reps": [2, 1, 3]}),
        (
            "gather_along_axis",
            {"x": X, "indices": np.argsort(X, axis=1).astype(np.int32), "axis": 1},
        ),
        ("matmul", {"x": X, "y": X[:, :, :2], "transpose_x": True, "transpose_y": False}),
    ],
)  # fmt: skip
def test_as_coremltools_itself_computes(kind: str, arguments: dict[str, Any]) -> None:
    """Its builder computes what has constant inputs, in NumPy: another reading of the same op."""
    mb = pytest.importorskip("coremltools.converters.mil").Builder
    inferred: list[Any] = []

    @mb.program(input_specs=[mb.TensorSpec(shape=(1,))])  # type: ignore[untyped-decorator]
    def program(x: Any) -> Any:
        inferred.append(getattr(mb, kind)(**arguments).val)
        return x

    def given(value: Any) -> Any:
        if isinstance(value, list) and isinstance(value[0], np.ndarray):
            return [torch.from_numpy(each) for each in value]
        return torch.as_tensor(value)

    assert inferred[0] is not None
    found = OPERATIONS[kind](**{name: given(value) for name, value in arguments.items()})
    assert tuple(found.shape) == np.shape(inferred[0])
    _same(found, inferred[0])
