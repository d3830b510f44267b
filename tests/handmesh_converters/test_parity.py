"""What parity measures, against differences that were put there."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh.backends import RawOutput
from handmesh.errors import ExportError, ParityError
from handmesh.geometry import solve_root_depth
from handmesh.graph import Topology
from handmesh.nn import LightNetwork
from handmesh.types import Box, Camera
from handmesh_converters.parity import (
    TOLERANCES,
    Deviation,
    Parity,
    Tolerance,
    measure,
    network_outputs,
)
from handmesh_converters.request import Precision

Crops = Callable[..., NDArray[np.uint8]]
CROPS = 14
_EXPORTING = Path(__file__).parents[2] / "docs" / "exporting.md"


@pytest.fixture(scope="module")
def expected(topology: Topology) -> RawOutput:
    """The template seen from the front, of one size, at different places in the crop."""
    rng = np.random.default_rng(0)
    rest = (
        topology.template_vertices_m - (topology.joint_regressor @ topology.template_vertices_m)[0]
    )
    vertices = np.tile(rest / 0.27, (CROPS, 1, 1))
    vertices[..., :2] += rng.uniform(0.4, 0.6, (CROPS, 1, 2))
    vertices[..., 2] *= 0.27 / 0.047
    joints = topology.joint_regressor @ vertices
    scores = rng.random((CROPS, 23))
    arrays = vertices, joints, scores[:, :21], scores[:, 21], scores[:, 22]
    return RawOutput(*(array.astype(np.float32) for array in arrays))


class _Replay:
    """A runtime that gives prepared outputs, and notes the batches it was given."""

    def __init__(self, outputs: RawOutput) -> None:
        self.outputs, self.batches, self.done = outputs, list[int](), 0

    def run(self, images: NDArray[np.uint8]) -> RawOutput:
        self.batches.append(len(images))
        part = slice(self.done, self.done + len(images))
        self.done += len(images)
        return RawOutput(*(array[part] for array in self.outputs))


def _measure(found: RawOutput, expected: RawOutput, topology: Topology) -> Parity:
    images = np.zeros((CROPS, 128, 128, 3), dtype=np.uint8)
    return measure(_Replay(found).run, "replay", images, expected, topology.bone_ratios)


def test_equal_outputs_differ_by_nothing(expected: RawOutput, topology: Topology) -> None:
    found = _measure(expected, expected, topology)

    assert found.crops == CROPS
    worst = [found.tensor, found.scores, found.crop_px, found.photo_px, found.mm]
    assert [each.worst for each in worst] == [0.0] * 5
    found.check(Tolerance(0, 0, 0, 0, 0, 0))


def test_a_shifted_vertex_in_every_unit(expected: RawOutput, topology: Topology) -> None:
    vertices = expected.vertices.copy()
    vertices[3, 500, 0] += 0.01
    found = _measure(expected._replace(vertices=vertices), expected, topology)

    assert found.tensor.worst == pytest.approx(0.01, rel=1e-4)
    assert found.crop_px.worst == pytest.approx(0.01 * 128, rel=1e-4)
    assert found.photo_px.worst == pytest.approx(0.01 * 320, rel=1e-4)
    # At that vertex's depth Z, a pixel is Z / f metres.
    camera = Camera.default(640, 480)
    pixels = Box(319.5, 239.5, 320).to_image(expected.joints[3, :, :2])
    z0 = solve_root_depth(pixels, expected.joints[3, :, 2], camera, topology.bone_ratios)
    depth_mm = 47.0 * (z0 + expected.vertices[3, 500, 2])
    assert found.mm.worst == pytest.approx(3.2 * depth_mm / camera.fx, rel=1e-3)
    # One point of many: the 99th percentile does not see it.
    assert found.tensor.p99 == 0
    assert found.mm.p99 == 0


def test_accuracy_is_of_labelled_crops_alone(expected: RawOutput, topology: Topology) -> None:
    """The network is right; its artifact puts every joint 0.01 crops to the right."""
    labels = np.full((CROPS, 21, 3), np.nan, dtype=np.float32)
    labels[[2, 5]] = expected.joints[[2, 5]]
    joints = expected.joints + np.float32([0.01, 0, 0])
    moved = expected._replace(joints=joints)
    images = np.zeros((CROPS, 128, 128, 3), dtype=np.uint8)

    found = measure(
        _Replay(moved).run, "replay", images, expected, topology.bone_ratios, labels
    ).accuracy

    assert found is not None
    assert found.crops == 2
    assert found.network_px == found.network_mm == 0
    assert found.artifact_px == pytest.approx(1.28, rel=1e-4)
    assert 0 < found.artifact_mm < 1  # all moved alike: hardly anything with the wrists aligned
    nobody = np.full_like(labels, np.nan)
    unknown = measure(_Replay(moved).run, "", images, expected, topology.bone_ratios, nobody)
    assert unknown.accuracy is None


def test_a_reader_is_told_which_crops_the_error_is_of(
    expected: RawOutput, topology: Topology
) -> None:
    labels = np.full((CROPS, 21, 3), np.nan, dtype=np.float32)
    labels[[2, 5]] = expected.joints[[2, 5]]
    images = np.zeros((CROPS, 128, 128, 3), dtype=np.uint8)

    line = measure(
        _Replay(expected).run, "replay", images, expected, topology.bone_ratios, labels
    ).render()

    assert line.endswith(
        "+0.00 mm of 0.0 mm error of the joints in 2 crops with labels (others than those of "
        "docs/models.md)"
    )


def test_percentile_is_over_points_and_crops(expected: RawOutput, topology: Topology) -> None:
    vertices = expected.vertices.copy()
    vertices[:, ::10, 2] += 0.02
    found = _measure(expected._replace(vertices=vertices), expected, topology)

    assert found.tensor.p99 == pytest.approx(0.02, rel=1e-3)
    assert found.mm.p99 == pytest.approx(0.02 * 47, rel=0.1)
    assert found.crop_px.worst == 0


def test_a_point_that_is_always_off_is_found(expected: RawOutput, topology: Topology) -> None:
    """A finger tip 4 mm too far in every crop: too few points for a percentile to see."""
    joints = expected.joints.copy()
    joints[:, 20, 2] += 4 / 47
    found = _measure(expected._replace(joints=joints), expected, topology)

    assert found.mm.p99 < 0.5
    assert found.point_mm == pytest.approx(4, rel=0.1)
    with pytest.raises(ParityError, match=r"one point in most crops .* \(allowed 1\)"):
        found.check(replace(TOLERANCES["int8"], tensor=1.0))


def test_a_point_counts_by_the_middle_crop(expected: RawOutput, topology: Topology) -> None:
    """Off by 4 mm in 9 crops of 14, not at all in the others."""
    joints = expected.joints.copy()
    joints[:9, 20, 2] += 4 / 47
    found = _measure(expected._replace(joints=joints), expected, topology)
    assert found.point_mm == pytest.approx(4, rel=0.1)
    joints[5:9, 20, 2] -= 4 / 47
    found = _measure(expected._replace(joints=joints), expected, topology)
    assert found.point_mm < 0.01, "in 5 crops of 14"


def test_batches_of_several_sizes_are_run(expected: RawOutput, topology: Topology) -> None:
    replay = _Replay(expected)
    images = np.zeros((CROPS, 8, 8, 3), dtype=np.uint8)
    measure(replay.run, "replay", images, expected, topology.bone_ratios)

    assert replay.batches == [1, 3, 8, 2]


@pytest.mark.parametrize(
    ("field", "index", "value", "named"),
    [
        ("vertices", (2, 7, 1), 2e-4, "tensor"),
        ("joints", (0, 20, 2), np.nan, "tensor"),
        ("joints", (1, 5, 0), np.inf, "tensor"),
        ("confidence", (4, 3), 1e-3, "scores"),
        ("presence", (4,), 1e-3, "scores"),
        ("handedness", (4,), np.nan, "scores"),
    ],
)
def test_past_tolerance(
    expected: RawOutput,
    topology: Topology,
    field: str,
    index: tuple[int, ...],
    value: float,
    named: str,
) -> None:
    changed = getattr(expected, field).copy()
    changed[index] += value
    found = _measure(expected._replace(**{field: changed}), expected, topology)

    with pytest.raises(ParityError, match=rf"replay .* {named} "):
        found.check(TOLERANCES["fp32"])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("past", [None, "tensor", "scores", "px", "mm", "p99_mm", "point_mm"])
def test_each_limit_of_a_precision_holds_by_itself(precision: Precision, past: str | None) -> None:
    """A hundredth past one limit and at all others; where the limit of p99 is that of the worst,
    p99 alone could not be past it."""
    allowed = TOLERANCES[precision]
    found = {
        name: value * (1.01 if name == past else 1.0) for name, value in allowed.to_dict().items()
    }
    tensor, scores, px = (Deviation(found[name], 0.0) for name in ("tensor", "scores", "px"))
    mm = Deviation(found["mm"], found["p99_mm"])
    parity = Parity("some", 1, tensor, scores, px, px, mm, found["point_mm"])

    if past is None:
        parity.check(allowed)
        return
    named = {"p99_mm": "p99 of mm", "point_mm": "mm of one point in most crops"}.get(past, past)
    limit = re.escape(f"{getattr(allowed, past):g}")
    with pytest.raises(ParityError, match=rf"by {named} [^,]* \(allowed {limit}\);"):
        parity.check(allowed)


def test_the_limits_are_those_that_are_documented() -> None:
    rows = {
        cells[0]: [float(cell) for cell in cells[1:]]
        for line in _EXPORTING.read_text(encoding="utf-8").splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 7
        and cells[0] in TOLERANCES
    }
    # In the order of the table's columns.
    assert rows == {
        name: [each.tensor, each.scores, each.px, each.mm, each.p99_mm, each.point_mm]
        for name, each in TOLERANCES.items()
    }


def test_network_outputs_need_fitting_crops(light: LightNetwork, random_crops: Crops) -> None:
    for wrong in (
        random_crops(2, 64),
        random_crops(2, 32).astype(np.float32),
        random_crops(2, 32)[0],
        random_crops(2, 32)[:0],
    ):
        with pytest.raises(ExportError, match=r"reference crops"):
            network_outputs(light, wrong)


def test_network_outputs_leave_the_mode(light: LightNetwork, random_crops: Crops) -> None:
    crops = random_crops(2, 32)
    evaluated = network_outputs(light, crops)
    try:
        light.train()
        trained = network_outputs(light, crops)
        assert light.training
    finally:
        light.eval()
    for one, other in zip(evaluated, trained, strict=True):
        np.testing.assert_array_equal(one, other)
