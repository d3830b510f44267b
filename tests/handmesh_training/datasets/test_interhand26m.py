"""InterHand2.6M: made here in the set's own layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from handmesh import JOINT_NAMES
from handmesh.errors import InputError
from handmesh_training.datasets import open_dataset

FINGERS = {
    "thumb": ("tip", "ip", "mcp", "cmc"),
    **dict.fromkeys(("index", "middle", "ring", "little"), ("tip", "dip", "pip", "mcp")),
}
THEIR_NAMES = [f"{finger}_{joint}" for finger, joints in FINGERS.items() for joint in joints]
TURN = cv2.Rodrigues(np.array([0.4, -0.7, 0.2]))[0]
POSITION = np.array([300.0, -200.0, 100.0])


@pytest.fixture
def interhand(tmp_path: Path, known_hand: Any, write_picture: Any) -> Path:
    """A right hand, a left hand, and both; of the left one alone a joint is not labelled."""
    images, annotations, frames = [], [], {}
    for k, sides in enumerate(("right", "left", "interacting")):
        world, valid = np.ones((42, 3)), np.zeros((42, 1))
        for first, side in ((0, "right"), (21, "left")):
            if side in sides or sides == "interacting":
                hand = known_hand(side == "right", k)
                camera = np.array([hand[name] for name in (*THEIR_NAMES, "wrist")]) * 1000
                world[first : first + 21] = camera @ TURN + POSITION
                valid[first : first + 21] = 1
        if sides == "left":
            valid[21 + 4] = 0  # the tip of the index finger
        picture = {"id": 7 + k, "file_name": f"image{k}.jpg", "capture": 2, "camera": "400"}
        images.append(picture | {"frame_idx": k})
        annotations.append({"id": k, "image_id": 7 + k, "joint_valid": valid.tolist()})
        frames[str(k)] = {"world_coord": world.tolist(), "joint_valid": valid.tolist()}
        write_picture(tmp_path / f"image{k}.jpg", np.full((300, 300, 3), 80 * k, dtype=np.uint8))
    camera = {
        "campos": {"400": POSITION.tolist()},
        "camrot": {"400": TURN.tolist()},
        "focal": {"400": [900.0, 910.0]},
        "princpt": {"400": [150.0, 140.0]},
    }
    for what, labels in (
        ("data", {"images": images, "annotations": annotations}),
        ("camera", {"2": camera}),
        ("joint_3d", {"2": frames}),
    ):
        (tmp_path / f"InterHand_test_{what}.json").write_text(json.dumps(labels))
    return tmp_path


def test_each_hand_is_a_sample(interhand: Path, known_hand: Any, assert_sound: Any) -> None:
    data = open_dataset("interhand26m", interhand, "test")

    assert [sample.is_right for sample in data] == [True, False, True, False]
    assert len({sample.key for sample in data}) == 4
    assert [data.group_of(i) for i in range(4)] == [0, 1, 2, 2]
    for sample, k in zip(data, (0, 1, 2, 2), strict=True):
        hand = known_hand(sample.is_right, k)
        truth = np.array([hand[name] for name in JOINT_NAMES])
        known = sample.joint_known
        assert sample.joints_m is not None
        np.testing.assert_allclose(sample.joints_m[known], truth[known], atol=1e-9)
        assert sample.image.mean() == pytest.approx(80 * k, abs=2)
        if k == 1:
            assert [JOINT_NAMES[j] for j in np.nonzero(~known)[0]] == ["index_tip"]
            assert np.isnan(sample.joints_px[8]).all()
        else:
            assert known.all()
            assert_sound(sample)


def test_damaged_sets_are_told(interhand: Path) -> None:
    def damage(what: str, old: str, new: str) -> None:
        file = interhand / f"InterHand_test_{what}.json"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    for what, old, new, message in (
        ("camera", '"400"', '"500"', "lacks labels or its camera"),
        ("joint_3d", '"2": {"world', '"9": {"world', "image2.jpg lacks labels"),
        ("data", '"image_id": 8', '"image_id": 99', "not as expected"),
    ):
        damage(what, old, new)
        with pytest.raises(InputError, match=message):
            list(open_dataset("interhand26m", interhand, "test"))
        damage(what, new, old)
    file = interhand / "InterHand_test_joint_3d.json"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(InputError, match="not complete JSON"):
        open_dataset("interhand26m", interhand, "test")[0]
    file.unlink()
    with pytest.raises(InputError, match="joint_3d"):
        open_dataset("interhand26m", interhand, "test")
