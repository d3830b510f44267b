"""Operators of opset 18 written in those of 17, by what ONNX Runtime makes of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from handmesh.errors import ExportError
from handmesh_converters.opset import to_17

CONSTANTS = {
    "last": np.array([-1]),
    "middle": np.array([1, 2]),
    "none": np.array([], np.int64),
    "lengths": np.array([1, 3]),
    "pads": np.array([0, 0, 1, 0, 0, 0, 2, 0]),
    "first_axis": np.array([0]),
    "doubled": np.array([1, 1, 2, 2], np.float32),
    "places": np.array([[0], [1]]),
    "row": np.zeros((2, 3, 4, 6), np.float32),
}


def _model(node: NodeProto, outputs: Sequence[str] = ("y",), opset: int = 18) -> onnx.ModelProto:
    def value(name: str, shape: list[int] | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [node],
        "one",
        [value("x", [2, 3, 4, 6])],
        [value(name, None) for name in outputs],
        [
            numpy_helper.from_array(each, name)
            for name, each in CONSTANTS.items()
            if name in node.input
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _run(model: onnx.ModelProto) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.random.default_rng(3).normal(size=(2, 3, 4, 6)).astype(np.float32)
    found: list[NDArray[np.float32]] = session.run(None, {"x": x})
    return found


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("ReduceMax", ["x", "last"], ["y"]),
        helper.make_node("ReduceMean", ["x", "middle"], ["y"], keepdims=0),
        helper.make_node("ReduceMean", ["x", "middle"], ["y"], noop_with_empty_axes=1),
        helper.make_node("ReduceMin", ["x"], ["y"]),
        helper.make_node("ReduceMin", ["x", ""], ["y"], keepdims=0),
        helper.make_node("ReduceL2", ["x", "none"], ["y"]),
        helper.make_node("ReduceSum", ["x", "last"], ["y"]),  # as it is since 13
        helper.make_node("Pad", ["x", "pads"], ["y"]),
        helper.make_node(
            "Resize", ["x", "", "doubled"], ["y"], mode="nearest", nearest_mode="floor",
            coordinate_transformation_mode="asymmetric", antialias=0,
            keep_aspect_ratio_policy="stretch",
        ),
        helper.make_node("ScatterND", ["x", "places", "row"], ["y"], reduction="add"),
    ],
    ids=lambda node: f"{node.op_type}-{'-'.join(node.input)}",
)  # fmt: skip
def test_says_the_same(node: NodeProto) -> None:
    model = _model(node)
    before = _run(model)

    to_17(model)

    assert model.opset_import[0].version == 17
    for got, wanted in zip(_run(model), before, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_parts_of_given_lengths() -> None:
    model = _model(helper.make_node("Split", ["x", "lengths"], ["y", "z"], axis=2), ("y", "z"))
    before = _run(model)

    to_17(model)

    for got, wanted in zip(_run(model), before, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_constants_of_others_stay() -> None:
    """Axes that became an attribute are dropped, but where another operator reads them as well."""
    model = _model(helper.make_node("ReduceMax", ["x", "middle"], ["y"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["y", "middle"], ["z"]))
    model.graph.output[0].name = "z"
    before = _run(model)
    to_17(model)
    np.testing.assert_array_equal(_run(model)[0], before[0])
    assert {each.name for each in model.graph.initializer} == {"middle"}

    alone = _model(helper.make_node("ReduceMax", ["x", "middle"], ["y"]))
    to_17(alone)
    assert not alone.graph.initializer


@pytest.mark.parametrize(
    ("node", "what"),
    [
        (helper.make_node("ReduceMax", ["x", "x"], ["y"]), "axes that are no constant"),
        (
            helper.make_node("ReduceMax", ["x", "none"], ["y"], noop_with_empty_axes=1),
            "reduces nothing",
        ),
        (helper.make_node("Pad", ["x", "pads", "", "first_axis"], ["y"]), "pads some axes only"),
        (helper.make_node("Split", ["x"], ["y"], num_outputs=1), "num_outputs = 1"),
        (helper.make_node("Resize", ["x", "", "doubled"], ["y"], antialias=1), "antialias = 1"),
        (helper.make_node("Resize", ["x", "", "doubled"], ["y"], axes=[0, 1, 2, 3]), "axes = "),
        (
            helper.make_node("ScatterND", ["x", "places", "row"], ["y"], reduction="max"),
            "larger or smaller",
        ),
        (helper.make_node("Mish", ["x"], ["y"]), "not known to be the same"),
    ],
    ids=lambda each: each if isinstance(each, str) else each.op_type,
)
def test_what_it_cannot_say_is_refused(node: NodeProto, what: str) -> None:
    with pytest.raises(ExportError, match=what):
        to_17(_model(node))


def test_only_from_18() -> None:
    with pytest.raises(ExportError, match="expected a model of opset 18 alone"):
        to_17(_model(helper.make_node("Relu", ["x"], ["y"]), opset=17))
