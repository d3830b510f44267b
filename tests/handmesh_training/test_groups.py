"""Groups of hands, against a hand whose sides are known by construction."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh.errors import InputError
from handmesh_training.groups import TONES, VIEWS, GroupTally, group_table, tone_of, view_of

Array = NDArray[np.float64]

# A right hand held up, its palm to the camera, by someone who faces it: the thumb's side is on the
# picture's right. +x right, +y down, +z away; metres.
PALM = np.zeros((21, 3))
PALM[[5, 9, 17]] = [(0.03, -0.08, 0), (0.0, -0.09, 0), (-0.03, -0.08, 0)]


def turned(axis: tuple[float, float, float], degrees: float) -> Array:
    turn = np.asarray(cv2.Rodrigues(np.deg2rad(degrees) * np.array(axis))[0])
    return np.asarray(PALM @ turn.T + (0, 0, 0.5))


@pytest.mark.parametrize(
    ("axis", "degrees", "view"),
    [
        ((0, 1, 0), 0, "palm"),
        ((0, 1, 0), 40, "palm"),
        ((0, 1, 0), 180, "back"),
        ((0, 1, 0), 90, "thumb's side"),  # +x turns to -z: nearer
        ((0, 1, 0), -90, "little finger's side"),
        ((1, 0, 0), 90, "fingertips"),  # -y turns to -z
        ((1, 0, 0), -90, "from the wrist"),
        ((0, 0, 1), 70, "palm"),  # rolled in the picture
    ],
)
def test_views_of_a_hand_turned_before_the_camera(
    axis: tuple[float, float, float], degrees: float, view: str
) -> None:
    joints = turned(axis, degrees)
    assert view in VIEWS

    assert view_of(joints, is_right=True) == view
    assert view_of(joints * (-1, 1, 1), is_right=False) == view, "its mirror image"


def test_a_hand_at_the_border_is_seen_along_its_own_ray() -> None:
    # Palm to the optical axis, 60 degrees off it: what is seen is the side towards the axis.
    joints = turned((0, 1, 0), 0) + (0.9, 0, 0)

    assert view_of(joints, is_right=True) == "little finger's side"
    assert view_of(joints, is_right=True, sight=np.array([0, 0, 1.0])) == "palm"


def test_every_tone_has_one_group() -> None:
    assert [tone_of(tone) for tone in range(1, 11)] == [
        *["Monk 1 to 3"] * 3, *["Monk 4 to 6"] * 3, *["Monk 7 to 10"] * 4,
    ]  # fmt: skip
    assert sum(len(tones) for tones in TONES.values()) == 10
    with pytest.raises(InputError, match="1 to 10"):
        tone_of(11)


def test_means_by_group_are_of_hands_that_have_the_figure() -> None:
    tally = GroupTally()
    tally.add({"view": "palm", "skin": "dark"}, {"image_share": 0.02, "joints_mm": 10.0})
    tally.add({"view": "back"}, {"image_share": 0.1})
    tally.add({"view": "back"}, {"image_share": 0.2, "joints_mm": 30.0})

    groups = list(tally.report())

    assert [(g.kind, g.name, g.hands) for g in groups] == [
        ("view", "back", 2), ("view", "palm", 1), ("skin", "dark", 1),
    ]  # fmt: skip
    assert groups[0].figures == pytest.approx({"image_share": 0.15, "joints_mm": 30.0})
    assert groups[1].figures == groups[2].figures
    assert group_table(groups).splitlines() == [
        "|  |  | hands | 2D, % of the box | joints, mm |",
        "| --- | --- | ---: | ---: | ---: |",
        "| view | back | 2 | 15.0 | 30.0 |",
        "|  | palm | 1 | 2.0 | 10.0 |",
        "| skin | dark | 1 | 2.0 | 10.0 |",
    ]


def test_hands_that_were_not_found_count_in_their_group() -> None:
    tally = GroupTally()
    tally.add({"view": "palm"}, {"found": 1.0, "image_share": 0.02})
    tally.add({"view": "fingertips"}, {"found": 1.0, "image_share": 0.05})
    for _ in range(3):
        tally.add({"view": "fingertips"}, {"found": 0.0}, compared=False)

    groups = list(tally.report())

    assert [(g.name, g.asked, g.hands) for g in groups] == [("fingertips", 4, 1), ("palm", 1, 1)]
    assert groups[0].figures == pytest.approx({"found": 0.25, "image_share": 0.05})
    assert group_table(groups).splitlines() == [
        "|  |  | asked | hands | found, % | 2D, % of the box |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| view | fingertips | 4 | 1 | 25.0 | 5.0 |",
        "|  | palm | 1 | 1 | 100.0 | 2.0 |",
    ]
