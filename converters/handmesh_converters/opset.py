"""From the operators of ONNX opset 18 to those of 17, for readers that know no newer ones.

TensorRT 8.5, that of JetPack 5, reads to opset 17, and none before 10 takes the axes of a mean or
maximum as an input, as they are from 18 on. torch's exporter writes 18 at the least, and `onnx`
itself converts back only some operators.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from handmesh.errors import ExportError

__all__ = ["to_17"]

# What opset 18 made inputs of, and what it added.
_AXES_BECAME_INPUT = {
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
    *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"),
}
# Attributes new in 18, with the value at which an operator does what it did before. None: only
# without it, as 17 splits into equal parts alone.
_NEW_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "Pad": {},
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": b"stretch", "axes": None},
    "Split": {"num_outputs": None},
    "ScatterElements": {},
    "ScatterND": {},
}


def to_17(model: Any) -> None:
    """Rewrite a model of opset 18 in place so that it says the same in opset 17.

    Args:
        model: an `onnx.ModelProto`, simplified: axes and the like are constants.

    Raises:
        ExportError: it is of another opset, or an operator does what 17 has no words for.
    """
    from onnx import defs

    versions = {each.domain: each for each in model.opset_import}
    if set(versions) != {""} or versions[""].version != 18:
        found = {name: each.version for name, each in versions.items()}
        raise ExportError(f"expected a model of opset 18 alone, this one is of {found}")
    constants = {each.name: each for each in model.graph.initializer}
    freed = set()
    for node in model.graph.node:
        if node.op_type in _AXES_BECAME_INPUT:
            freed.update(node.input[1:])
            _axes_as_attribute(node, constants)
        elif node.op_type in _NEW_ATTRIBUTES:
            _without_new_attributes(node, _NEW_ATTRIBUTES[node.op_type])
        elif defs.get_schema(node.op_type, 18, "").since_version == 18:
            raise _no_words(node, "is not known to be the same in both")
    freed -= {name for node in model.graph.node for name in node.input}
    kept = [each for each in model.graph.initializer if each.name not in freed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    versions[""].version = 17


def _axes_as_attribute(node: Any, constants: dict[str, Any]) -> None:
    """The second input of a reduction, which may be missing or "", as its attribute."""
    from onnx import helper, numpy_helper

    values = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    name = node.input[1] if len(node.input) > 1 else ""
    if name and name not in constants:
        raise _no_words(node, "has axes that are no constant")
    axes = numpy_helper.to_array(constants[name]).astype(np.int64) if name else np.array([])
    if not axes.size and values.get("noop_with_empty_axes"):
        raise _no_words(node, "reduces nothing")
    del node.input[1:], node.attribute[:]
    node.attribute.append(helper.make_attribute("keepdims", values.get("keepdims", 1)))
    if axes.size:  # without any, both versions reduce over all
        node.attribute.append(helper.make_attribute("axes", axes.tolist()))


def _without_new_attributes(node: Any, new: dict[str, Any]) -> None:
    from onnx import helper

    if node.op_type == "Pad" and len(node.input) > 3 and node.input[3]:
        raise _no_words(node, "pads some axes only")
    if node.op_type.startswith("Scatter"):
        how = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if how.get("reduction", b"none") in (b"max", b"min"):
            raise _no_words(node, "keeps the larger or smaller value")
    kept = []
    for attribute in node.attribute:
        if attribute.name not in new:
            kept.append(attribute)
            continue
        value = helper.get_attribute_value(attribute)
        if new[attribute.name] is None or value != new[attribute.name]:
            raise _no_words(node, f"has {attribute.name} = {value!r}")
    del node.attribute[:]
    node.attribute.extend(kept)


def _no_words(node: Any, what: str) -> ExportError:
    return ExportError(
        f"{node.op_type} ({', '.join(node.output)}) {what}, which opset 17 cannot say: "
        "export format onnx, of opset 18"
    )
