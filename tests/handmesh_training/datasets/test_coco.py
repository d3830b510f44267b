"""Key points in COCO form: made here as the samples of four sets are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh import JOINT_NAMES
from handmesh.errors import InputError
from handmesh_training.datasets import Dataset, open_dataset

FOCAL, SIDE = 300.0, 320


def tip_first(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([rows[:1], *(rows[1 + 4 * f : 5 + 4 * f][::-1] for f in range(5))])


def coco(
    folder: Path,
    write_picture: Any,
    description: str,
    names: list[str],
    hands: list[dict[str, Any]],
) -> Dataset:
    images = [
        {"file_name": name, "id": k, "height": SIDE, "width": SIDE} for k, name in enumerate(names)
    ]
    for image, hand in zip(images, hands, strict=True):
        image |= hand.pop("picture", {})
    for k, hand in enumerate(hands):
        hand |= {"image_id": k, "id": 1000 + k}
    for k, name in enumerate(names):
        write_picture(folder / name, np.full((SIDE, SIDE, 3), k, dtype=np.uint8))
    labels = {"info": {"description": description}, "images": images, "annotations": hands}
    # Annotations need not be in the order of the pictures.
    labels["annotations"] = hands[::-1]
    (folder / "test_some.json").write_text(json.dumps(labels))
    return open_dataset("coco", folder, "test")


def test_rhd_style(tmp_path: Path, known_hand: Any, assert_sound: Any, write_picture: Any) -> None:
    hands, truth = [], []
    for k, is_right in enumerate((True, False)):
        hand = known_hand(is_right, k)
        joints = np.array([hand[name] for name in JOINT_NAMES])
        truth.append(joints)
        pixels = FOCAL * joints[:, :2] / joints[:, 2:] + SIDE / 2
        hands.append(
            {
                "keypoints": tip_first(np.column_stack([pixels, np.ones(21)])).tolist(),
                "joint_cam": tip_first(joints * 1000).tolist(),
                "hand_type": "right" if is_right else "left",
                "picture": {"cam_param": {"focal": [FOCAL] * 2, "princpt": [SIDE / 2] * 2}},
            }
        )
    data = coco(tmp_path, write_picture, "RHD", ["00001.png", "00002.png"], hands)

    for sample, joints, is_right, k in zip(data, truth[::-1], (False, True), (1, 0), strict=True):
        np.testing.assert_allclose(sample.joints_m, joints)
        assert sample.is_right is is_right
        assert (sample.image == k).all()
        assert_sound(sample)


def flat(seed: int, unknown: list[int]) -> list[float]:
    rows = np.column_stack([np.random.default_rng(seed).uniform(50, 250, (21, 2)), np.ones(21)])
    rows[unknown] = 0
    return list(rows.ravel())


@pytest.mark.parametrize(
    ("description", "names", "sides"),
    [
        ("FreiHand", ["1.png", "2.png"], [True, True]),
        ("OneHand10K", ["1.png", "2.png"], [None, None]),
        ("panoptic", ["a_01_l.png", "b_r.png"], [False, True]),
    ],
)
def test_2d_sets(
    tmp_path: Path, write_picture: Any, description: str, names: list[str], sides: list[Any]
) -> None:
    hands = [{"keypoints": flat(k, [0, 7] if k else [])} for k in range(2)]
    data = coco(tmp_path, write_picture, description, names, hands)

    assert len(data) == 2
    partly, wholly = data
    assert [wholly.is_right, partly.is_right] == sides
    assert wholly.joint_known.all()
    np.testing.assert_array_equal(np.nonzero(~partly.joint_known)[0], [0, 7])
    assert np.isnan(partly.joints_px[[0, 7]]).all()
    expected = np.array(flat(1, [])).reshape(21, 3)[:, :2]
    np.testing.assert_allclose(partly.joints_px[8:], expected[8:])
    assert partly.joints_m is None
    assert partly.intrinsics is None


def test_labels_that_are_none_are_told(tmp_path: Path, write_picture: Any) -> None:
    good = {"keypoints": flat(0, [])}
    coco(tmp_path, write_picture, "FreiHand", ["1.png"], [good])
    file = tmp_path / "test_some.json"
    whole = file.read_text()

    for broken, message in (
        (whole[:50], "not complete JSON"),
        ("[]", "no COCO annotation"),
        (whole.replace("FreiHand", "Feet"), "calls itself 'feet'"),
        (whole.replace('"image_id": 0', '"image_id": 5'), "annotation 0"),
        (whole.replace("1.0]", "1.0, 2.0]"), "annotation 0"),
        (whole.replace("FreiHand", "RHD"), "annotation 0"),
        (whole.replace("FreiHand", "Panoptic"), "annotation 0"),
    ):
        file.write_text(broken)
        with pytest.raises(InputError, match=message):
            list(open_dataset("coco", tmp_path, "test"))
    (tmp_path / "test_other.json").write_text(whole)
    with pytest.raises(InputError, match="expected one label file"):
        open_dataset("coco", tmp_path, "test")
    with pytest.raises(InputError, match="expected one label file"):
        open_dataset("coco", tmp_path, "val")
