"""Where fingers end beside their labelled tips, on drawings whose ends are known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh.types import FINGERS
from handmesh_training.finger_ends import finger_end, main, measure, to_table
from handmesh_training.photos import LABELS, TIP_REACH, read_labels

SIDE, SKIN, GROUND, RADIUS = 400, (205, 150, 125), (40, 70, 60), 7


def drawn(reach: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """An open hand, (S, S, 3) RGB and joints (21, 2): its fingers end ``reach`` last bones on."""
    picture = np.full((SIDE, SIDE, 3), GROUND, dtype=np.uint8)
    joints = np.zeros((21, 2))
    joints[0] = 200, 330
    for angle, chain in zip((-60, -25, 0, 25, 50), FINGERS.values(), strict=True):
        way = np.array([np.sin(np.deg2rad(angle)), -np.cos(np.deg2rad(angle))])
        for joint, far in zip(chain, (80, 120, 145, 165), strict=True):
            joints[joint] = joints[0] + far * way
        # The drawn stroke has a round end, of its radius.
        end = joints[0] + (145 + 20 * reach - RADIUS) * way
        ends = [tuple(round(8 * x) for x in point) for point in (joints[0], end)]
        cv2.line(picture, *ends, SKIN, 2 * RADIUS, cv2.LINE_AA, shift=3)
    return picture, joints


def measured(picture: NDArray[np.uint8], joints: NDArray[np.float64]) -> list[float | None]:
    lab = np.float32(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB))
    return [finger_end(lab, joints, finger) for finger in FINGERS]


@pytest.mark.parametrize("reach", [1.05, 1.2, 1.4])
def test_ends_are_found_where_they_are_drawn(reach: float) -> None:
    # A pixel is a twentieth of the last bone here.
    np.testing.assert_allclose(np.float64(measured(*drawn(reach))), reach, atol=0.06)


def test_fingers_that_do_not_show_their_end_are_not_measured() -> None:
    picture, joints = drawn(1.3)
    bent, beside, short = joints.copy(), joints.copy(), joints.copy()
    bent[4] = bent[3] + 20 * np.array([-0.5, -1]) / np.hypot(0.5, 1)
    crooked = np.full_like(picture, GROUND)
    stroke = [bent[0], bent[3], bent[3] + 0.95 * (bent[4] - bent[3])]
    cv2.polylines(crooked, [np.int32(np.round(stroke))], False, SKIN, 2 * RADIUS)
    assert measured(crooked, bent)[0] is None
    beside[20] = joints[12] + [4, -4]  # a tip before another finger's end
    assert measured(picture, beside)[2] is None
    # Foreshortened, and of the others free.
    way = np.array([-1.0, -0.4]) / np.hypot(1, 0.4)
    short[1:5] = joints[0] + np.array([6, 14, 22, 30])[:, None] * way
    stump = np.full_like(picture, GROUND)
    cv2.polylines(
        stump, [np.int32(np.round([joints[0], joints[0] + 27 * way]))], False, SKIN, 2 * RADIUS
    )
    assert measured(stump, short)[0] is None
    restless = picture.copy()
    restless[: SIDE // 2 : 4] = 255
    assert measured(restless, joints)[2] is None
    assert measured(np.full_like(picture, SKIN), joints) == [None] * 5
    assert measured(picture[150:], joints - [0, 150])[2] is None  # its end is cut off
    assert measured(picture, joints)[2] is not None


def test_the_command_tells_what_labels_say_and_what_the_teacher_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, joints = drawn(TIP_REACH * 1.1)
    cv2.imwrite(str(tmp_path / "a.png"), picture[..., ::-1])
    hand = {
        "uv": (joints + 0.5).tolist(),
        "world_m": np.zeros((21, 3)).tolist(),
        "handedness_as_reported": "Left",
    }
    (tmp_path / LABELS).write_text(json.dumps({"a.png": {"hands": [hand]}}))
    found = measure(list(read_labels(tmp_path)))
    assert found["middle"] == [pytest.approx(1.1, abs=0.06)]
    assert main([str(tmp_path)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "middle" in line).split()
    assert row[1] == "1"
    assert float(row[2]) == pytest.approx(1.1, abs=0.06)
    assert float(row[3]) == pytest.approx(TIP_REACH * 1.1, abs=0.08)


def test_a_set_with_nothing_to_measure_says_so() -> None:
    assert "no photo shows a straight finger" in to_table(measure([]))
