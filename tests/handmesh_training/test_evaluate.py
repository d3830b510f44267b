"""Evaluation against predictors whose errors are known in advance."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest

from handmesh import Box, Camera, Predictor
from handmesh.errors import InputError
from handmesh_training.datasets import Dataset, Sample
from handmesh_training.evaluate import (
    evaluate_labelled,
    evaluate_photos,
    evaluate_rendered,
    to_table,
)
from handmesh_training.rendered import HandRenderer, RenderSettings


def _photo_set(folder: Path, count: int) -> dict[str, Any]:
    """Black photos with made-up joints; every other hand is a right one."""
    rng = np.random.default_rng(3)
    labels = {}
    for i in range(count):
        name = f"{i}.png"
        cv2.imwrite(str(folder / name), np.zeros((120, 160, 3), dtype=np.uint8))
        uv = rng.uniform(20, 100, (21, 2))
        side = "Left" if i % 2 == 0 else "Right"
        labels[name] = {
            "hands": [
                {
                    "uv": uv.tolist(),
                    "world_m": rng.normal(0, 0.05, (21, 3)).tolist(),
                    "handedness_as_reported": side,
                }
            ]
        }
    (folder / "pseudo_labels.json").write_text(json.dumps(labels))
    return labels


class _Shifted:
    """Answers with the labels, a tenth of the box too far right, turned and scaled in 3D."""

    def __init__(self, labels: dict[str, Any]) -> None:
        self.labels = labels

    def predict(self, path: Path, box: Box | None = None) -> list[SimpleNamespace]:
        hand = self.labels[path.name]["hands"][0]
        uv = np.array(hand["uv"]) - 0.5
        side = np.ptp(uv, axis=0).max()
        if box is not None:
            assert box.size == pytest.approx(1.5 * side)
        turn, _ = cv2.Rodrigues(np.array([0.3, -1.0, 0.4]))
        return [
            SimpleNamespace(
                joints_px=uv + [0.1 * side, 0],
                joints_m=1.7 * np.array(hand["world_m"]) @ turn.T + 0.3,
                handedness="right",
                presence=0.9,
            )
        ]


def test_photo_report_states_the_planted_errors(tmp_path: Path) -> None:
    labels = _photo_set(tmp_path, 6)
    predictor = cast(Predictor, _Shifted(labels))
    report = evaluate_photos(predictor, [tmp_path], search=True)
    assert report.count == 6
    assert report.image_share == pytest.approx(0.1)
    assert report.image_share_median == pytest.approx(0.1)
    assert report.joints_pa_mm == pytest.approx(0.0, abs=1e-9)  # a similarity is aligned away
    assert report.handedness == pytest.approx(0.5)
    assert report.presence == 1.0
    assert report.found == 1.0
    assert "10.00 %" in to_table({"set": report})


def test_limit_spreads_over_the_set(tmp_path: Path) -> None:
    labels = _photo_set(tmp_path, 6)
    report = evaluate_photos(cast(Predictor, _Shifted(labels)), [tmp_path], limit=3)
    assert report.count == 3
    assert np.isnan(report.found)
    assert "found" not in to_table({"set": report})


def test_no_labelled_photo_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pseudo_labels.json").write_text("{}")
    with pytest.raises(InputError, match="no labelled hand"):
        evaluate_photos(cast(Predictor, _Shifted({})), [tmp_path])


class _KnowsTheTruth:
    """Answers with the rendered truth, 5 mm too far away."""

    def __init__(self, settings: RenderSettings, seed: int, counts: list[int]) -> None:
        renderer = HandRenderer(settings, seed)
        subset = renderer.model.asset.template_subset
        self.answers = []
        first = 0
        for count in counts:
            views = renderer.draw(range(first, first + count)).views
            first += count
            for i in range(count):
                fx, fy, cx, cy = views.intrinsics[i].astype(float)
                joints = views.joints_m[i].astype(float)
                projected = joints[:, :2] / joints[:, 2:] * [fx, fy] + [cx, cy]
                self.answers.append((projected, joints, views.vertices_m[i, subset]))

    def predict(self, image: np.ndarray, **options: Any) -> list[SimpleNamespace]:
        px, joints, vertices = self.answers.pop(0)
        away = np.array([0, 0, 0.005])
        assert options["root_depth_m"] == pytest.approx(joints[0, 2])
        assert options["camera"].width == image.shape[1]
        return [SimpleNamespace(joints_px=px, joints_m=joints + away, vertices_m=vertices + away)]


def test_rendered_report_states_the_planted_error() -> None:
    settings = RenderSettings(crop_px=48, empty=0.0)
    predictor = cast(Predictor, _KnowsTheTruth(settings, 11, [4, 2]))
    report = evaluate_rendered(predictor, settings, 6, seed=11, chunk=4)
    assert report.count == 6
    assert report.joints_mm == pytest.approx(5.0, abs=1e-3)
    assert report.mesh_mm == pytest.approx(5.0, abs=1e-3)
    assert report.joints_pa_mm == pytest.approx(0.0, abs=1e-3)
    # The labels' (u, v) and the projection through the intrinsics are one and the same.
    assert report.image_share == pytest.approx(0.0, abs=1e-4)
    assert report.auc_20_50 == pytest.approx(1.0)


class _Made(Dataset):
    """Random hands; the fourth of each five has joints that are not known, the fifth no 3D label,
    no camera and no side."""

    splits = ("test",)

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(folder, "test")
        self.count = count

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return False

    def __len__(self) -> int:
        return self.count

    def _read(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        joints_m = rng.normal(0, 0.05, (21, 3)) + (0, 0, 1.0)
        K = np.array([[100.0 + index, 0, 80], [0, 100.0 + index, 60], [0, 0, 1]])
        projected = joints_m @ K.T
        known = np.ones(21, dtype=bool)
        joints_px = projected[:, :2] / projected[:, 2:]
        if index % 5 == 3:
            known[:7] = False
            joints_px[:7] = joints_m[:7] = np.nan
        flat = index % 5 == 4
        return Sample(
            key=str(index),
            image=np.full((120, 160, 3), index, dtype=np.uint8),
            is_right=None if flat else index % 2 == 0,
            joints_px=joints_px,
            joint_known=known,
            intrinsics=None if flat else K,
            joints_m=None if flat else joints_m,
        )


class _AlmostRight:
    """Answers with the labels: right hands all, a tenth of the box too low, in 3D turned and
    scaled; where they are not known, with nonsense."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.asked: list[int] = []

    def predict(self, image: Any, box: Box, camera: Camera | None) -> list[SimpleNamespace]:
        index = int(image[0, 0, 0])
        self.asked.append(index)
        sample = self.data[index]
        known = sample.joint_known
        px = np.where(known[:, None], sample.joints_px, 1e6)  # what is not known does not count
        side = np.ptp(px[known], axis=0).max()
        assert box.size == pytest.approx(1.5 * side)
        assert (camera is None) == (sample.intrinsics is None)
        if camera is not None:
            assert (camera.fx, camera.width, camera.height) == (100.0 + index, 160, 120)
        turn, _ = cv2.Rodrigues(np.array([0.3, -1.0, 0.4]))
        joints = np.ones((21, 3)) if sample.joints_m is None else 0.6 * sample.joints_m @ turn.T
        return [
            SimpleNamespace(
                joints_px=px + [0, 0.1 * side],
                joints_m=np.where(known[:, None], joints, 9.0),
                handedness="right",
                presence=0.9 if index else 0.1,
            )
        ]


def test_labelled_report_states_the_planted_errors(tmp_path: Path) -> None:
    data = _Made(tmp_path, 10)
    report = evaluate_labelled(cast(Predictor, _AlmostRight(data)), data)
    assert report.count == 10
    assert report.image_share == pytest.approx(0.1)
    assert report.image_share_median == pytest.approx(0.1)
    assert report.joints_pa_mm == pytest.approx(0.0, abs=1e-9)
    assert report.handedness == pytest.approx(4 / 8)  # 0 2 6 8 of all but 4 and 9
    assert report.presence == pytest.approx(0.9)


def test_a_part_of_a_set_is_spread_over_it(tmp_path: Path) -> None:
    data = _Made(tmp_path, 10)
    predictor = _AlmostRight(data)
    assert evaluate_labelled(cast(Predictor, predictor), data, limit=3).count == 3
    assert predictor.asked == [0, 3, 6]
    with pytest.raises(InputError, match="no labelled hand"):
        evaluate_labelled(cast(Predictor, predictor), _Made(tmp_path, 0))


def test_figures_that_do_not_exist_are_left_out(tmp_path: Path) -> None:
    data = _Made(tmp_path, 10)
    flat = [data[4], data[9]]
    flat_set = _Made(tmp_path, 2)
    flat_set._read = lambda index: flat[index]  # type: ignore[method-assign]
    report = evaluate_labelled(cast(Predictor, _AlmostRight(data)), flat_set)
    assert np.isnan(report.joints_pa_mm)
    assert np.isnan(report.handedness)
    table = to_table({"set": report})
    assert "image_share" in table
    assert "joints_pa_mm" not in table
    assert "handedness" not in table


def test_no_rendered_hand_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one"):
        evaluate_rendered(cast(Predictor, None), RenderSettings(), 0, seed=1)
