"""Making the frozen hand: decimation, its parts against the committed files, and a full rebuild."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handmesh.errors import MissingExtra
from handmesh.graph import Topology
from handmesh_training.hand import HAND_PATH, HandAsset
from handmesh_training.template import build, skeleton
from handmesh_training.template.decimate import Decimator
from handmesh_training.template.source import load_anny

if TYPE_CHECKING:
    from handmesh_training.template.source import BodyPart

Array = NDArray[np.float64]
Faces = NDArray[np.int64]


def grid(side: int, height: float = 0.0) -> tuple[Array, Faces]:
    """A square sheet [0, 1] x [0, 1] of side x side vertices, faces up (+z), with bumps."""
    rows, columns = np.mgrid[:side, :side]
    x, y = columns.ravel() / (side - 1), rows.ravel() / (side - 1)
    z = height * np.sin(7 * x + 1) * np.cos(5 * y)
    first = (rows * side + columns)[:-1, :-1].ravel()
    faces = np.concatenate(
        [
            np.stack([first, first + 1, first + side + 1], axis=1),
            np.stack([first, first + side + 1, first + side], axis=1),
        ]
    )
    return np.stack([x, y, z], axis=1), faces


def ball(side: int = 6) -> tuple[Array, Faces]:
    """A closed mesh: an octahedron whose faces are cut into side^2 triangles, made round."""
    points: dict[tuple[int, ...], int] = {}
    faces = []
    for signs in itertools.product((1, -1), repeat=3):
        for i, j in itertools.product(range(side), repeat=2):
            low, high = (i, j), (i + 1, j + 1)
            for triangle in ((low, (i + 1, j), (i, j + 1)), ((i + 1, j), high, (i, j + 1))):
                if any(a + b > side for a, b in triangle):
                    continue
                keys = [
                    (signs[0] * a, signs[1] * b, signs[2] * (side - a - b)) for a, b in triangle
                ]
                corner = [points.setdefault(key, len(points)) for key in keys]
                faces.append(corner if np.prod(signs) > 0 else corner[::-1])
    vertices = np.array(list(points), dtype=np.float64)
    return vertices / np.linalg.norm(vertices, axis=1, keepdims=True), np.array(faces)


def rim_edges(faces: Faces) -> list[tuple[int, int]]:
    """Directed edges without an opposite, after checking that the mesh is manifold."""
    directed = Counter(
        (int(a), int(b)) for face in faces for a, b in zip(face, np.roll(face, -1), strict=True)
    )
    assert max(directed.values()) == 1, "each edge once in each direction at most"
    for vertex in np.unique(faces):
        # The faces around a vertex form one fan: their far edges make one path or loop.
        following = {}
        for face in faces[(faces == vertex).any(axis=1)].tolist():
            at = face.index(vertex)
            following[face[(at + 1) % 3]] = face[(at + 2) % 3]
        starts = set(following) - set(following.values())
        assert len(starts) <= 1
        walker, steps = (starts or set(following)).pop(), 0
        while walker in following and steps < len(following):
            walker, steps = following[walker], steps + 1
        assert steps == len(following)
    return [edge for edge in directed if edge[::-1] not in directed]


def area_vectors(vertices: Array, faces: Faces) -> Array:
    corners = vertices[faces]
    return 0.5 * np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def no_keep(vertices: Array) -> NDArray[np.bool_]:
    return np.zeros(len(vertices), dtype=bool)


@pytest.mark.parametrize("height", [0.0, 0.15])
def test_an_open_mesh_stays_a_disc_with_its_outline(height: float) -> None:
    vertices, faces = grid(9, height)
    remaining = len(vertices)
    for current in Decimator(vertices, faces, no_keep(vertices)):
        remaining -= 1
        used = np.unique(current)
        assert len(used) == remaining, "one vertex goes at a time, and none is new"
        if remaining % 8 == 0:
            rim = rim_edges(current)
            following = dict(rim)
            start = walker = rim[0][0]
            for _ in rim:
                walker = following[walker]
            assert walker == start
            assert len(used) - (3 * len(current) + len(rim)) // 2 + len(current) == 1, "Euler"
            # The rim keeps to the outline of the square.
            edge = vertices[[a for a, _ in rim]]
            on_outline = np.isclose(abs(edge[:, :2] - 0.5).max(axis=1), 0.5)
            assert on_outline.all()
            if height == 0.0:
                assert (area_vectors(vertices, current)[:, 2] > 0).all(), "none turns over"
            if height == 0.0 and remaining >= 16:
                assert area_vectors(vertices, current)[:, 2].sum() == pytest.approx(1.0)
                corners = {0, 8, 72, 80}
                assert corners <= set(used.tolist())
        if remaining == 12:
            break
    assert remaining == 12


def test_a_closed_mesh_stays_closed_and_round() -> None:
    vertices, faces = ball()
    assert rim_edges(faces) == []
    volume = np.linalg.det(vertices[faces]).sum() / 6
    assert volume > 3.5

    sizes = []
    for current in Decimator(vertices, faces, no_keep(vertices)):
        sizes.append(len(np.unique(current)))
        if len(sizes) % 20 == 0:
            assert rim_edges(current) == []
            assert sizes[-1] - len(current) / 2 == 2, "Euler"
        if sizes[-1] == 40:
            assert np.linalg.det(vertices[current]).sum() / 6 > 0.75 * volume

    assert sizes == list(range(len(vertices) - 1, sizes[-1] - 1, -1))
    assert 4 <= sizes[-1] < 20, "ends by itself when nothing more may go"


def test_a_thin_tube_is_not_pinched_off() -> None:
    """Across its waist edges are short and cheap, but three of them enclose no face."""
    ring = np.array([[0.0, 1.0], [0.87, -0.5], [-0.87, -0.5]]) * 0.01
    vertices = np.concatenate([np.column_stack([ring, np.full(3, z)]) for z in range(7)])
    faces = []
    for k, i in itertools.product(range(6), range(3)):
        a, b = 3 * k + i, 3 * k + (i + 1) % 3
        faces += [(a, b, b + 3), (a, b + 3, a + 3)]

    for current in Decimator(vertices, np.array(faces), no_keep(vertices)):
        assert len(rim_edges(current)) == 6, "a tube has two rims, of three edges each"


def test_flat_parts_go_first() -> None:
    vertices, faces = grid(13)
    bump = np.exp(-((vertices[:, :2] - 0.5) ** 2).sum(axis=1) / 0.02)
    vertices[:, 2] = 0.3 * bump

    current = next(itertools.islice(Decimator(vertices, faces, no_keep(vertices)), 89, None))

    kept = np.unique(current)
    steep = bump > 0.1
    assert np.isin(np.flatnonzero(steep), kept).mean() > 0.8
    assert np.isin(np.flatnonzero(~steep), kept).mean() < 0.5


def test_vertices_to_keep_are_kept() -> None:
    vertices, faces = grid(7)
    keep = np.random.default_rng(0).random(len(vertices)) < 0.4

    *_, last = Decimator(vertices, faces, keep)

    assert np.isin(np.flatnonzero(keep), last).all()
    assert len(np.unique(last)) < 0.6 * len(vertices)


def test_decimation_is_deterministic() -> None:
    vertices, faces = grid(8, 0.1)

    runs = [[c.tobytes() for c in Decimator(vertices, faces, no_keep(vertices))] for _ in range(2)]

    assert runs[0] == runs[1]


def test_a_tetrahedron_stays() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])

    assert list(Decimator(vertices, faces, no_keep(vertices))) == []


@pytest.fixture(scope="module")
def asset() -> HandAsset:
    return HandAsset.load()


@pytest.fixture(scope="module")
def frame(asset: HandAsset) -> skeleton.Skeleton:
    """Joints, weights and axes as the committed file has them."""
    joints = asset.joint_regressor.astype(np.float64) @ asset.vertices_m
    axes = skeleton.motion_axes(joints)
    return skeleton.Skeleton(joints, asset.weights.astype(np.float64), *axes)


def test_the_committed_axes_follow_from_the_joints(
    asset: HandAsset, frame: skeleton.Skeleton
) -> None:
    for name in ("flexion_axes", "abduction_axes", "twist_axes"):
        np.testing.assert_allclose(getattr(frame, name), getattr(asset, name), atol=1e-4)


def test_the_committed_blend_and_regressors_follow_from_the_joints(
    asset: HandAsset, frame: skeleton.Skeleton
) -> None:
    topology = Topology.default()
    points = asset.vertices_m.astype(np.float64)
    small = points[asset.template_subset]

    blend = build.joint_blend(points, frame)[asset.template_subset]
    np.testing.assert_allclose(blend, topology.joint_blend, atol=1e-4)
    np.testing.assert_allclose(blend.sum(axis=1), 1, atol=1e-5)
    for mesh, committed in ((points, asset.joint_regressor), (small, topology.joint_regressor)):
        regressor = build.joint_regressor(mesh, frame.joints)
        np.testing.assert_allclose(regressor.sum(axis=1), 1, atol=1e-12)
        np.testing.assert_allclose(regressor @ mesh, frame.joints, atol=1e-12)
        np.testing.assert_allclose(regressor, committed, atol=1e-3)
        assert (np.count_nonzero(regressor, axis=1) == 24).all(), "local"


def test_the_committed_finger_lengths_follow_from_the_joints(
    asset: HandAsset, frame: skeleton.Skeleton
) -> None:
    made = build.finger_length_directions(asset.vertices_m.astype(np.float64), frame)

    assert len(made) == 5
    for name, direction in made.items():
        committed = asset.shape_directions_m[asset.shape_names.index(name)]
        np.testing.assert_allclose(direction, committed, atol=1e-5)


def test_the_template_frame_is_right_handed(frame: skeleton.Skeleton) -> None:
    turned = frame.joints @ Rotation.from_rotvec([0.4, -1.0, 2.0]).as_matrix().T

    rotation = skeleton.template_frame(turned)

    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    hand = (turned - turned[0]) @ rotation.T
    assert hand[9, 1] < -0.05
    np.testing.assert_allclose(hand[9, [0, 2]], 0, atol=1e-9)
    assert hand[5, 0] > hand[17, 0]


def test_the_source_is_not_needed_until_it_is_used() -> None:
    code = (
        "import sys, handmesh_training.template.source as s; "
        "print([n for n in ('torch', 'anny', 'scipy', 'cv2') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_without_anny_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anny", None)
    with pytest.raises(MissingExtra, match=r"anny.*\.\[training\]"):
        load_anny()


def test_check_compares_and_writes_nothing(
    asset: HandAsset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    topology = Topology.default()
    changed = dataclasses.replace(asset, vertices_m=asset.vertices_m + 1)
    before = HAND_PATH.read_bytes()
    monkeypatch.setattr(build, "load_anny", lambda: None)

    for built, code, verdict in ((asset, 0, "same"), (changed, 1, "DIFFERENT")):
        monkeypatch.setattr(build, "build", lambda _, built=built: (topology, built))
        assert build.main(["--check"]) == code
        printed = capsys.readouterr().out
        assert f"{topology.sha256} same" in printed
        assert f"hand.npz: {built.sha256} {verdict}" in printed
    assert HAND_PATH.read_bytes() == before


def test_building_writes_both_files(
    asset: HandAsset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "load_anny", lambda: None)
    monkeypatch.setattr(build, "build", lambda _: (Topology.default(), asset))
    monkeypatch.setattr(build, "DEFAULT_PATH", tmp_path / "topology.npz")
    monkeypatch.setattr(build, "HAND_PATH", tmp_path / "hand.npz")

    assert build.main([]) == 0

    assert Topology.load(tmp_path / "topology.npz").sha256 == Topology.default().sha256
    assert HandAsset.load(tmp_path / "hand.npz").sha256 == asset.sha256


@pytest.mark.slow
def test_the_body_becomes_an_anatomical_hand(body_part: BodyPart) -> None:
    points, frame, directions = build.canonical(body_part)
    joints = frame.joints

    def between(a: int, b: int) -> float:
        return float(np.linalg.norm(joints[a] - joints[b]))

    assert between(0, 9) / between(9, 10) == pytest.approx(skeleton.WRIST_TO_BONE_RATIO, abs=0.02)
    chain = sum(between(a, b) for a, b in itertools.pairwise((0, 9, 10, 11, 12)))
    assert between(5, 17) / chain == pytest.approx(skeleton.PALM_WIDTH_RATIO, abs=0.01)
    assert len(points) == len(frame.weights) == len(body_part.vertices)
    np.testing.assert_allclose(frame.weights.sum(axis=1), 1)
    assert all(direction.shape == points.shape for direction in directions.values())


@pytest.mark.slow
def test_rebuilding_gives_the_frozen_files(body_part: BodyPart) -> None:
    topology, asset = build.build(body_part)

    assert topology.sha256 == Topology.default().sha256
    assert asset.sha256 == HandAsset.load().sha256
