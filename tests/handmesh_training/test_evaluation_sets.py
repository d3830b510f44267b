"""Samples for evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from handmesh.errors import InputError
from handmesh_training.evaluation_sets import photo_samples, rendered_samples, spread
from handmesh_training.groups import FREE_POSE, TONES
from handmesh_training.rendered import HandRenderer, RenderSettings


def test_a_part_of_a_set_is_spread_over_it() -> None:
    assert spread(10, 3) == [0, 3, 6]
    assert spread(3, 10) == spread(3, None) == [0, 1, 2]
    assert spread(0, None) == spread(0, 5) == []


@pytest.mark.usefixtures("quick_surroundings")
def test_rendered_samples_are_the_renderer_s_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handmesh_training.evaluation_sets.CHUNK", 2)
    settings = RenderSettings(crop_px=48, empty=0.0)

    samples = list(rendered_samples(settings, 11, 3))

    renderer = HandRenderer(settings, 11)
    views = renderer.draw(range(3)).views
    assert len(samples) == 3
    for i, sample in enumerate(samples):
        assert sample.is_right is True
        np.testing.assert_allclose(sample.joints_m, views.joints_m[i])
        assert sample.vertices_m is not None
        subset = renderer.model.asset.template_subset
        np.testing.assert_array_equal(sample.vertices_m, views.vertices_m[i, subset])
        # The labels' (u, v) and the projection through the intrinsics are one and the same.
        assert sample.joints_m is not None
        assert sample.intrinsics is not None
        projected = sample.joints_m @ sample.intrinsics.T
        np.testing.assert_allclose(sample.joints_px, projected[:, :2] / projected[:, 2:], atol=1e-2)
        record = renderer.records([i])[0]
        assert record.skin_tone in TONES[sample.groups["skin"]]
        kinds = dict(zip(renderer.library.names, renderer.library.kinds, strict=True))
        kind = FREE_POSE if record.gesture is None else kinds[record.gesture].replace("_", " ")
        assert sample.groups["gesture"] == kind
    np.testing.assert_array_equal(samples[2].image, renderer.crops([2]).images[0])
    # Of a block, who has another hand beside.
    company = ["with another" if has else "alone" for has in renderer.draw(range(64)).has_partner]
    told = [sample.groups["hands"] for sample in rendered_samples(settings, 11, 64)]
    assert told == company
    assert len(set(told)) == 2


def test_rendered_samples_must_show_hands() -> None:
    with pytest.raises(InputError, match="at least one"):
        rendered_samples(RenderSettings(empty=0.0), 1, 0)
    with pytest.raises(InputError, match="no hand"):
        rendered_samples(RenderSettings(empty=0.1), 1, 5)


def test_photos_come_with_the_teacher_s_joints(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = {}
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((120, 160, 3), dtype=np.uint8))
        labels[f"{i}.png"] = {
            "hands": [
                {
                    "uv": rng.uniform(20, 100, (21, 2)).tolist(),
                    "world_m": rng.normal(0, 0.05, (21, 3)).tolist(),
                    "handedness_as_reported": "Left" if i % 2 else "Right",
                }
            ]
        }
    (tmp_path / "pseudo_labels.json").write_text(json.dumps(labels))

    samples = list(photo_samples(tmp_path, limit=2))

    assert [sample.key for sample in samples] == ["0.png", "2.png"]
    for sample in samples:
        truth = labels[sample.key]["hands"][0]
        np.testing.assert_array_equal(sample.joints_m, truth["world_m"])
        inner = [joint for joint in range(21) if joint not in (4, 8, 12, 16, 20)]
        given = np.array(truth["uv"]) - 0.5  # tips are moved
        np.testing.assert_allclose(sample.joints_px[inner], given[inner])
        assert sample.intrinsics is None
        assert sample.is_right is False
    (tmp_path / "pseudo_labels.json").write_text("{}")
    with pytest.raises(InputError, match="no labelled hand"):
        photo_samples(tmp_path)
