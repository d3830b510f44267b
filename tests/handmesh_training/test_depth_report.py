"""Rendered scenes with known cameras, and the errors measured on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from handmesh import Camera, Hand
from handmesh.geometry import ADULT_BONE_LENGTH_M
from handmesh.graph import Topology
from handmesh_training import depth_report
from handmesh_training.depth_report import Errors, Scene, measure, scenes, to_table


@pytest.fixture(scope="module")
def shown() -> list[Scene]:
    return list(scenes(24))


def test_scenes_show_the_hand_where_the_camera_sees_it(shown: list[Scene]) -> None:
    assert len(shown) >= 6
    for scene in shown:
        height, width = scene.image.shape[:2]
        camera = scene.camera
        assert (camera.width, camera.height) == (width, height)
        assert (camera.cx, camera.cy) == pytest.approx(((width - 1) / 2, (height - 1) / 2), abs=1)
        fov = np.degrees(2 * np.arctan(width / 2 / camera.fx))
        assert 54 < fov < 76
        at = np.round(camera.project(scene.joints_m)).astype(int)
        assert (scene.image[at[:, 1], at[:, 0]] > 0).any(axis=-1).mean() > 0.9
        assert 0.02 < scene.bone_length_m < 0.07


@dataclass
class Knowing:
    """A predictor that sees everything rightly, and assumes what it is not given."""

    truth: dict[int, Scene]

    def predict(
        self, image: Any, box: Any, camera: Camera | None, handedness: str, bone_length_m: Any
    ) -> list[Hand]:
        scene = self.truth[id(image)]
        size = (bone_length_m or ADULT_BONE_LENGTH_M) / scene.bone_length_m
        used = camera or Camera.default(scene.camera.width, scene.camera.height)
        joints = scene.joints_m * size * (1, 1, used.fx / scene.camera.fx)
        topology = Topology.default()
        count = topology.vertex_count
        return [
            Hand(
                np.zeros((count, 3)), topology.faces, joints, np.zeros((21, 2)),
                np.zeros((count, 2)), np.ones(21), 1.0, "right", "metric", box, used,
                bone_length_m=bone_length_m or ADULT_BONE_LENGTH_M,
            )
        ]  # fmt: skip


def test_errors_are_those_of_what_is_assumed(shown: list[Scene]) -> None:
    predictor: Any = Knowing({id(scene.image): scene for scene in shown})
    errors = measure(predictor, shown)
    bones = np.array([ADULT_BONE_LENGTH_M / s.bone_length_m for s in shown])
    cameras = [Camera.default(s.camera.width, s.camera.height).fx / s.camera.fx for s in shown]
    expected = {
        "camera given, bone length given": np.ones(len(shown)),
        "camera given, bone length assumed": bones,
        "camera assumed, bone length given": cameras,
        "camera assumed, bone length assumed": bones * cameras,
    }
    assert list(errors.depth) == list(expected)
    for name, ratio in expected.items():
        np.testing.assert_allclose(errors.depth[name] + 1, ratio, rtol=1e-5)
    for name, values in errors.calibrated.items():
        # A known depth needs the camera; a card beside the palm does not.
        known = name.endswith("camera given") or name.startswith("card")
        right = np.ones(len(shown)) if known else 1 / np.array(cameras)
        np.testing.assert_allclose(values + 1, right, rtol=5e-3)


def test_the_table_tells_figures_in_percent() -> None:
    values = np.array([0.02, -0.02, 0.1] * 10)
    text = to_table(Errors({"camera given": values}, {"card": values}))
    rows = [line.split() for line in text.splitlines()]
    assert rows[0][-3:] == ["30", "rendered", "hands"]
    assert rows[2][2:] == ["2.0", "4.7", "10.0", "2.0"]
    assert rows[-1][1:] == ["2.0", "10.0", "2.0"]


@pytest.mark.slow
def test_the_shipped_network_finds_depths(capsys: pytest.CaptureFixture[str]) -> None:
    assert depth_report.main(["--hands", "40"]) == 0
    text = capsys.readouterr().out
    given = next(line for line in text.splitlines() if "camera given, bone length given" in line)
    assert 0 < float(given.split()[5]) < 20
