"""Numbers, boxes, cameras and hands' files that make no sense."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import ANY_NUMBER, JSON, changes, fuzz, only_our_errors
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from handmesh import JOINT_NAMES, Box, Camera, Hand, Predictor
from handmesh.backends import RawOutput
from handmesh.files import save
from handmesh.graph import Topology

WIDTH, HEIGHT = 64, 48
PHOTO = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


class Steady:
    """A network that sees the same hand in every crop."""

    name, description, threads = "steady", "always the same", 1

    def __init__(self, topology: Topology) -> None:
        joints = topology.joint_regressor @ topology.template_vertices_m
        scale = np.linalg.norm(joints[10] - joints[9])
        self._joints = (joints - joints[0]) / scale
        self._vertices = (topology.template_vertices_m - joints[0]) / scale
        for points in (self._joints, self._vertices):
            points[:, :2] = points[:, :2] / 6 + 0.5

    def run(self, images: np.ndarray) -> RawOutput:
        count = len(images)
        one = np.ones(count, np.float32)
        parts = (np.repeat(p[None], count, axis=0) for p in (self._vertices, self._joints))
        return RawOutput(*parts, np.ones((count, 21), np.float32), one * 0.9, one * 0.8)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    topology = Topology.default()
    return Predictor(backend=Steady(topology))


def _hand(vertices: int = 4) -> Hand:
    rng = np.random.default_rng(1)
    joints = rng.uniform(-0.1, 0.1, (21, 3)) + (0, 0, 0.5)
    camera = Camera.default(WIDTH, HEIGHT)
    mesh = joints[:vertices]
    return Hand(
        mesh, [[0, 1, 2], [0, 2, 3]], joints, camera.project(joints), camera.project(mesh),
        np.full(21, 0.5), 0.9, "left", "assumed", Box(30, 20, 25), camera, "none",
        {"crop": 0.1}, 1, 0.047,
    )  # type: ignore[arg-type]  # fmt: skip


DESCRIBED = _hand().to_dict()
ANY_LIST = st.one_of(
    st.lists(ANY_NUMBER, max_size=6),
    st.tuples(*[ANY_NUMBER] * 4),
    st.lists(st.floats(-100, 100), min_size=4, max_size=4),
    arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, object]),
        arrays.array_shapes(min_dims=0, max_dims=3, max_side=4),
    ),
    st.text(max_size=6),
    st.dictionaries(st.text(max_size=3), st.floats(), max_size=5),
    ANY_NUMBER,
)


@fuzz(2)
@given(ANY_NUMBER, ANY_NUMBER, ANY_NUMBER, ANY_NUMBER)
def test_boxes(cx: Any, cy: Any, size: Any, angle: Any) -> None:
    with only_our_errors():
        box = Box(cx, cy, size, angle)
        assert all(math.isfinite(v) for v in (box.cx, box.cy, box.size, box.angle))
        assert box.size > 0


@fuzz(2)
@given(ANY_LIST, ANY_NUMBER, ANY_NUMBER)
def test_boxes_around_points(points: Any, margin: Any, angle: Any) -> None:
    with only_our_errors():
        assert Box.from_points(points).size > 0
    with only_our_errors():
        assert Box.from_points(points, margin, angle).size > 0


@fuzz(2)
@given(st.tuples(*[st.one_of(ANY_NUMBER, ANY_LIST)] * 4), ANY_NUMBER)
def test_boxes_around_rectangles(corners: tuple[Any, ...], margin: Any) -> None:
    with only_our_errors():
        assert Box.from_xyxy(*corners).size > 0
    with only_our_errors():
        assert Box.from_xyxy(*corners, margin=margin).size > 0


WIDE = st.floats(-1e300, 1e300)
BOX_OBJECTS = st.one_of(
    st.builds(Box, WIDE, WIDE, st.floats(1e-300, 1e300), WIDE),
    st.builds(Box, st.floats(0, WIDTH), st.floats(0, HEIGHT), st.floats(4, 8 * WIDTH), WIDE),
)


@fuzz(2)
@given(st.one_of(ANY_LIST, BOX_OBJECTS))
def test_boxes_of_a_photo(predictor: Predictor, box: Any) -> None:
    with only_our_errors():
        for hand in predictor.predict(PHOTO, box=box):
            assert np.isfinite(hand.joints_m).all()
            assert hand.joints_m[0, 2] > 0


ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "handedness": st.one_of(st.sampled_from(["left", "right", None]), JSON, ANY_NUMBER),
        "bone_length_m": ANY_NUMBER,
        "root_depth_m": ANY_NUMBER,
        "max_hands": st.one_of(st.integers(-3, 3), ANY_NUMBER),
        "min_presence": ANY_NUMBER,
        "camera": st.one_of(
            st.builds(
                Camera,
                *[st.floats(1e-300, 1e300)] * 2,
                *[st.floats(-1e300, 1e300)] * 2,
                st.just(WIDTH),
                st.just(HEIGHT),
            ),
            ANY_NUMBER,
        ),
    },
)


@fuzz(2)
@given(ARGUMENTS)
def test_arguments_of_predict(predictor: Predictor, arguments: dict[str, Any]) -> None:
    with only_our_errors():
        for hand in predictor.predict(PHOTO, box=(10, 5, 50, 45), **arguments):
            assert np.isfinite(hand.vertices_m).all()


@fuzz()
@given(*[ANY_NUMBER] * 6)
def test_cameras(fx: Any, fy: Any, cx: Any, cy: Any, width: Any, height: Any) -> None:
    for size in ((width, height), (WIDTH, HEIGHT)):
        with only_our_errors():
            camera = Camera(fx, fy, cx, cy, *size)
            assert np.isfinite(camera.matrix()).all()


SIDES = st.one_of(st.integers(1, 5000), ANY_NUMBER)


@fuzz(2)
@given(SIDES, SIDES, *[st.one_of(st.none(), st.floats(0, 180), ANY_NUMBER)] * 3)
def test_cameras_from_angles(
    width: Any, height: Any, fov: Any, horizontal: Any, diagonal: Any
) -> None:
    with only_our_errors():
        Camera.from_fov(width, height, fov, horizontal_deg=horizontal, diagonal_deg=diagonal)
    with only_our_errors():
        Camera.from_fov(width, height, fov)
    with only_our_errors():
        assert Camera.default(width, height).fx > 0


@fuzz()
@given(
    st.one_of(
        ANY_LIST,
        st.lists(st.lists(ANY_NUMBER, min_size=3, max_size=3), min_size=3, max_size=3),
        st.tuples(ANY_NUMBER, ANY_NUMBER).map(lambda f: [[f[0], 0, 3], [0, f[1], 4], [0, 0, 1]]),
    ),
    SIDES,
    SIDES,
)
def test_cameras_from_matrices(matrix: Any, width: Any, height: Any) -> None:
    with only_our_errors():
        assert Camera.from_matrix(matrix, width, height).fx > 0


@fuzz(4)
@given(st.one_of(changes(DESCRIBED, most=3), JSON))
def test_changed_hands(description: Any) -> None:
    """Whatever is read can be written again, and says the same."""
    with only_our_errors():
        hand = Hand.from_dict(description)
        again = Hand.from_dict(json.loads(json.dumps(hand.to_dict(), allow_nan=False)))
        assert again.handedness == hand.handedness
        assert len(again.faces) == len(hand.faces)
        pickle.loads(pickle.dumps(hand))


TEXT = json.dumps(DESCRIBED)


@fuzz()
@given(st.integers(0, len(TEXT) - 1), st.text(max_size=4), st.integers(0, 4))
def test_hands_from_changed_text(place: int, text: str, length: int) -> None:
    """As a file comes: what is still JSON is a hand or an error of ours."""
    changed = TEXT[:place] + text + TEXT[place + length :]
    try:
        description = json.loads(changed)
    except ValueError:
        return
    with only_our_errors():
        Hand.from_dict(description)


NAMES = st.one_of(
    st.text(max_size=8), st.sampled_from(["\0", "a\0", "\ud800", "", ".", "/", "x" * 300])
)


@fuzz(0.3)
@given(NAMES, st.sampled_from([".obj", ".ply", ".glb", ".json", "", ".x"]))
def test_files_of_any_name(
    tmp_path_factory: pytest.TempPathFactory, name: str, suffix: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    with only_our_errors():
        written = save(_hand(), Path(f"{folder}/none/{name}{suffix}"))
        written.unlink()
    with only_our_errors():
        written = save(_hand(), Path(f"{folder}/{name.replace('/', '')}{suffix}"))
        written.unlink()


def test_the_description_is_a_hand() -> None:
    assert Hand.from_dict(copy.deepcopy(DESCRIBED)).handedness == "left"
    assert len(JOINT_NAMES) == 21
