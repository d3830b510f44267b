"""How thick a mesh's fingers are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh.graph import Topology
from handmesh.types import FINGERS
from handmesh_training.girth import FingerGirth

Array = NDArray[np.float64]
TOPOLOGY = Topology.default()
REST = np.float64(TOPOLOGY.template_vertices_m)
JOINTS = TOPOLOGY.joint_regressor @ REST
TURN = np.asarray(cv2.Rodrigues(np.array([0.5, 1.1, -0.2]))[0])


@pytest.fixture(scope="module")
def girth() -> FingerGirth:
    return FingerGirth(TOPOLOGY)


def around(finger: str) -> tuple[NDArray[np.intp], Array]:
    """Vertices of a finger's two last bones, and 4,001 points along each of these, (8002, 3)."""
    _, a, b, c = FINGERS[finger]
    share = np.linspace(0, 1, 4001)[:, None]
    line = np.concatenate(
        [JOINTS[i] + share * (JOINTS[j] - JOINTS[i]) for i, j in ((a, b), (b, c))]
    )
    return np.flatnonzero((TOPOLOGY.parts == a) | (TOPOLOGY.parts == b)), line


@pytest.mark.parametrize("finger", list(FINGERS))
def test_girth_is_the_mean_distance_to_points_along_the_bones(
    girth: FingerGirth, finger: str
) -> None:
    rows, line = around(finger)
    away = np.linalg.norm(REST[rows][:, None] - line[None], axis=2).min(axis=1)
    unit = np.linalg.norm(JOINTS[9] - JOINTS[10])
    assert girth.template[list(FINGERS).index(finger)] == pytest.approx(
        away.mean() / unit, rel=1e-5
    )
    # A finger is some 15 to 20 mm thick, its first bone of the middle finger some 45 mm long.
    assert 0.10 < away.mean() / unit < 0.22


def test_girth_is_the_same_wherever_a_hand_is_and_whichever(girth: FingerGirth) -> None:
    for move in (lambda x: 3.0 * x @ TURN.T + 1.0, lambda x: x * (-1, 1, 1)):
        np.testing.assert_allclose(girth(move(REST), move(JOINTS)), girth.template, rtol=1e-9)
        np.testing.assert_allclose(girth.shares(move(REST), move(JOINTS)), 1, rtol=1e-9)


def test_a_finger_drawn_to_its_bones_is_as_much_thinner_and_no_other(girth: FingerGirth) -> None:
    rows, line = around("ring")
    nearest = np.linalg.norm(REST[rows][:, None] - line[None], axis=2).argmin(axis=1)
    sliver = REST.copy()
    sliver[rows] += 0.7 * (line[nearest] - REST[rows])
    np.testing.assert_allclose(girth.shares(sliver, JOINTS), [1, 1, 1, 0.3, 1], rtol=1e-3)


def test_a_labelled_hand_s_own_girth_is_what_counts(girth: FingerGirth) -> None:
    thick = JOINTS[9] + 1.5 * (REST - JOINTS[9])  # its joints stay: thicker, and not where they are
    expected = girth(REST, JOINTS) / girth(thick, JOINTS)
    np.testing.assert_allclose(girth.shares(REST, JOINTS, thick, JOINTS), expected)
    # Not where its mesh is not known, or not all of its joints.
    np.testing.assert_allclose(girth.shares(REST, JOINTS, None, JOINTS), 1, rtol=1e-6)
    unknown = np.where(np.arange(21)[:, None] == 4, np.nan, JOINTS)
    np.testing.assert_allclose(girth.shares(REST, JOINTS, thick, unknown), 1, rtol=1e-6)
