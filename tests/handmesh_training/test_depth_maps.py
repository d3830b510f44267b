"""Reference depth maps: scenes of known geometry, resampling pixel by pixel, and the renderer that
they are compared with in L_D, in the stored crop and after augmentation."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh.graph import Topology
from handmesh.types import Box
from handmesh_training.augment import Augmentation
from handmesh_training.cropped_set import CroppedSet, build
from handmesh_training.cropped_stream import CroppedSettings, CroppedStream
from handmesh_training.datasets import Sample
from handmesh_training.depth_maps import REACH_BONES, reference_depth, warp_depth
from handmesh_training.depth_renderer import DepthRenderer
from handmesh_training.rendered import RenderSettings
from handmesh_training.stand_in import RenderedSamples
from handmesh_training.surface import Surface

torch.set_num_threads(1)
Array = NDArray[np.float64]
HEIGHT, WIDTH, SIDE = 90, 120, 16
ROOT_M, BONE_M, WALL_M = 0.6, 0.05, 1.5
WRIST, KNUCKLES = (50.0, 60.0), (50.0, 40.0)  # fingers up, the palm 20 px long


def joints_px(
    wrist: tuple[float, float] = WRIST, knuckles: tuple[float, float] = KNUCKLES
) -> Array:
    joints = np.full((21, 2), np.nan)  # the others are not looked at
    joints[0] = wrist
    joints[[5, 9, 13, 17]] = np.array(knuckles) + [[-6, 1], [-2, -1], [2, -1], [6, 1]]
    return joints


def picture(metres: float = WALL_M) -> NDArray[np.float32]:
    return np.full((HEIGHT, WIDTH), metres, dtype=np.float32)


def cut(depth_m: NDArray[np.float32], box: Box, joints: Array | None = None) -> NDArray[np.float32]:
    joints = joints_px() if joints is None else joints
    return reference_depth(depth_m, box, joints, ROOT_M, BONE_M, SIDE)


class Place(NamedTuple):
    """Where a cell of the crop is in the picture, and its nearest pixel."""

    x: float
    y: float
    column: int
    row: int

    @property
    def inside(self) -> bool:
        return 0 <= self.column < WIDTH and 0 <= self.row < HEIGHT


def places(box: Box) -> list[list[Place]]:
    """Of every cell, by angle and distance from the box's centre."""
    rows = []
    for i in range(SIDE):
        rows.append([])
        for j in range(SIDE):
            dx, dy = ((k + 0.5 - SIDE / 2) * box.size / SIDE for k in (j, i))
            distance, angle = math.hypot(dx, dy), math.atan2(dy, dx) + box.angle
            x, y = box.cx + distance * math.cos(angle), box.cy + distance * math.sin(angle)
            rows[-1].append(Place(x, y, math.floor(x + 0.5), math.floor(y + 0.5)))
    return rows


BOX = Box(50.2, 45.3, 60.0)


class TestReferenceDepth:
    def test_a_plane_before_a_wall(self) -> None:
        scene = picture()
        scene[30:58, 40:61] = ROOT_M + 0.03  # 3 cm behind the wrist: 0.6 bones
        found = cut(scene, BOX)
        assert found.dtype == np.float32
        hand = np.array(
            [[30 <= p.row < 58 and 40 <= p.column < 61 for p in r] for r in places(BOX)]
        )
        assert 20 < hand.sum() < 100
        np.testing.assert_allclose(found[hand], 0.6, atol=1e-5)
        assert np.all(np.isposinf(found[~hand]))

    @pytest.mark.parametrize("angle", [0.0, 0.4, -2.3])
    def test_every_cell_is_the_pixel_under_its_centre(self, angle: float) -> None:
        """A picture in which no two pixels are at one depth; the box turned, and off the centre."""
        rng = np.random.default_rng(0)
        scene = (ROOT_M + rng.uniform(-0.19, 0.19, (HEIGHT, WIDTH))).astype(np.float32)
        box = Box(57.2, 41.4, 40.3, angle)
        # The palm points to the left, and nothing of the crop is below the wrist.
        found = cut(scene, box, joints_px((119.0, 41.0), (99.0, 41.0)))
        for i, j in itertools.product(range(SIDE), range(SIDE)):
            place = places(box)[i][j]
            expected = (scene[place.row, place.column] - ROOT_M) / BONE_M
            assert found[i, j] == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("angle", [0.0, 0.7])
    def test_outside_the_picture_nothing_is_known(self, angle: float) -> None:
        box = Box(4.2, 7.3, 50.0, angle)
        found = cut(picture(), box, joints_px((4, 90), (4, 70)))
        inside = np.array([[place.inside for place in row] for row in places(box)])
        assert 0.2 < inside.mean() < 0.7
        assert np.all(np.isposinf(found[inside]))
        assert np.all(np.isnan(found[~inside]))

    def test_holes_and_what_is_far_in_front_are_unknown(self) -> None:
        scene = picture(ROOT_M)
        scene[:, 45:50] = 0
        scene[:, 55:60] = ROOT_M - (REACH_BONES + 0.1) * BONE_M
        scene[:, 60:65] = ROOT_M - (REACH_BONES - 0.1) * BONE_M  # may be a finger
        found = cut(scene, Box(50.2, 30.3, 50.0))
        columns = np.array([place.column for place in places(Box(50.2, 30.3, 50.0))[0]])
        unknown = ((columns >= 45) & (columns < 50)) | ((columns >= 55) & (columns < 60))
        nearer = (columns >= 60) & (columns < 65)
        assert unknown.sum() > 2
        assert nearer.any()
        np.testing.assert_array_equal(np.isnan(found), np.tile(unknown, (SIDE, 1)))
        np.testing.assert_allclose(found[:, nearer], 0.1 - REACH_BONES, atol=1e-5)
        np.testing.assert_allclose(found[:, ~unknown & ~nearer], 0, atol=1e-5)

    def test_a_hole_is_no_hand_even_close_to_the_camera(self) -> None:
        """With the wrist 10 cm away, a depth of 0 would be within reach of it."""
        found = reference_depth(picture(0.0), BOX, joints_px(), 0.1, BONE_M, SIDE)
        assert np.all(np.isnan(found))

    @pytest.mark.parametrize("turn", [0.0, 2.0])
    def test_the_forearm_is_unknown_but_the_wall_beside_it_is_far(self, turn: float) -> None:
        """An arm of one depth with the hand, as a stripe; in any direction in the picture."""
        wrist = np.array([60.0, 45.0])
        along = np.array([math.sin(turn), -math.cos(turn)])  # from wrist to knuckles
        across = np.array([-along[1], along[0]])
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        beside = np.abs((np.stack([columns, rows], axis=-1) - wrist) @ across)
        scene = np.where(beside < 8, ROOT_M, WALL_M).astype(np.float32)
        box = Box(60.2, 45.3, 80.0)
        found = cut(scene, box, joints_px(tuple(wrist), tuple(wrist + 20 * along)))
        counts = {"arm": 0, "hand": 0, "wall": 0}
        for i, j in itertools.product(range(SIDE), range(SIDE)):
            place = places(box)[i][j]
            offset = np.array([place.x, place.y]) - wrist
            palms = float(offset @ along) / 20
            if not place.inside or abs(palms + 0.08) < 0.1:
                continue
            if abs(scene[place.row, place.column] - WALL_M) < 1e-6:
                counts["wall"] += 1
                assert np.isposinf(found[i, j])
            elif palms < 0:
                counts["arm"] += 1
                assert np.isnan(found[i, j])
            else:
                counts["hand"] += 1
                assert found[i, j] == 0
        assert min(counts.values()) > 10


def a_map(scale: float, angle: float, shift: tuple[float, float]) -> Array:
    """(2, 3): zoom and turn about the middle, then shift; in crop fractions."""
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[c, -s], [s, c]])
    return np.column_stack([linear, np.array([0.5, 0.5]) + shift - linear @ [0.5, 0.5]])


# No cell's centre falls on the edge of two.
MAPS = {
    "hardly": a_map(1, 0, (0.003, 0.007)),
    "shift": a_map(1, 0, (0.21, -0.13)),
    "closer": a_map(1.7, 0, (0.02, 0.05)),
    "farther": a_map(0.45, 0, (-0.03, 0.01)),
    "turn": a_map(1, 0.6, (0.011, 0)),
    "all": a_map(1.3, -2.2, (0.1, 0.07)),
    "away": a_map(1, 0, (1.5, 0)),
}


class TestWarpDepth:
    @pytest.mark.parametrize("side", [12, 21])
    def test_against_every_pixel_by_itself(self, side: int) -> None:
        rng = np.random.default_rng(0)
        stored = rng.normal(size=(len(MAPS), 18, 18)).astype(np.float32)
        stored[rng.random(stored.shape) < 0.2] = np.nan
        stored[rng.random(stored.shape) < 0.2] = np.inf
        depth, known = warp_depth(stored, np.stack(list(MAPS.values())), side)
        assert (depth.dtype, known.dtype) == (np.float32, np.bool_)
        for b, matrix in enumerate(MAPS.values()):
            (a, c, e), (p, q, f) = matrix
            for i, j in itertools.product(range(side), range(side)):
                # Where in the stored crop this cell's centre comes from, by Cramer's rule.
                u, v = (j + 0.5) / side - e, (i + 0.5) / side - f
                x, y = (u * q - c * v) / (a * q - c * p), (a * v - p * u) / (a * q - c * p)
                column, row = (math.floor(t * 18) for t in (x, y))
                there = 0 <= column < 18 and 0 <= row < 18
                value = stored[b, row, column] if there else np.nan
                assert known[b, i, j] == (not np.isnan(value))
                assert depth[b, i, j] == (0 if np.isnan(value) else value)
        assert not known[list(MAPS).index("away")].any()

    def test_closed_forms(self) -> None:
        rng = np.random.default_rng(1)
        stored = np.repeat(rng.normal(size=(1, 8, 8)).astype(np.float32), 4, axis=0)
        quarter = a_map(1, math.pi / 2, (0, 0))  # x to y: clockwise as seen
        maps = [a_map(1, 0, (0, 0)), a_map(1, 0, (2 / 8, 1 / 8)), quarter, a_map(2, 0, (0, 0))]
        depth, known = warp_depth(stored, np.stack(maps), 8)
        plain = stored[0]
        np.testing.assert_array_equal(depth[0], plain)
        np.testing.assert_array_equal(depth[1, 1:, 2:], plain[:-1, :-2])
        np.testing.assert_array_equal(known[1, 0], False)
        np.testing.assert_array_equal(depth[2], np.rot90(plain, -1))
        np.testing.assert_array_equal(depth[3], plain[2:6, 2:6].repeat(2, 0).repeat(2, 1))


@pytest.fixture(scope="module")
def surface() -> Surface:
    return Surface.from_topology(Topology.default())


COUNT, MARGIN = 12, 1.9


@pytest.fixture
def hands(quick_surroundings: None, tmp_path: Path) -> tuple[CroppedSet, NDArray[np.float32]]:
    """Rendered hands before a wall, and their true meshes in network coordinates of the crops."""
    samples = RenderedSamples(RenderSettings(crop_px=160), 3, COUNT)
    count = Topology.default().vertex_count
    data = build([samples], tmp_path / "set", 64, MARGIN, 64, count)
    return data, np.stack([in_crop(samples[i]) for i in range(COUNT)])


def in_crop(sample: Sample) -> NDArray[np.float32]:
    """(V, 3): the true mesh through the camera, in fractions of the crop about the joints' box."""
    points, lens, joints_m = sample.vertices_m, sample.intrinsics, sample.joints_m
    assert points is not None
    assert lens is not None
    assert joints_m is not None
    seen = points @ lens.T
    pixels = seen[:, :2] / seen[:, 2:]
    low, high = sample.joints_px.min(axis=0), sample.joints_px.max(axis=0)
    uv = (pixels - (low + high) / 2) / (float((high - low).max()) * MARGIN) + 0.5
    depth = (points[:, 2:] - joints_m[0, 2]) / np.linalg.norm(joints_m[10] - joints_m[9])
    return np.concatenate([uv, depth], axis=1).astype(np.float32)


def disagreement(
    renderer: DepthRenderer, vertices: torch.Tensor, reference: torch.Tensor, known: torch.Tensor
) -> NDArray[np.float32]:
    """Absolute differences in bones over all pixels that are wholly inside the mesh and known.

    Left out are those that see the mesh from within, through its open wrist, where the picture
    shows an arm.
    """
    with torch.no_grad():
        found = renderer(vertices)
    face = found.face.clamp(min=0).flatten(1)
    corners = vertices[torch.arange(len(vertices))[:, None, None], renderer.faces[face]][..., :2]
    ab, ac = (corners[..., k, :] - corners[..., 0, :] for k in (1, 2))
    area = (ab[..., 0] * ac[..., 1] - ab[..., 1] * ac[..., 0]).view(found.face.shape)
    inside = found.coverage > 0.99
    outward = torch.sign(area[inside].median())
    front = inside & (area * outward > 0)
    assert front.sum() > 0.8 * inside.sum()
    assert (known & front).sum() > 0.8 * front.sum()
    return (found.depth - reference)[front & known].abs().numpy()


def outside_is_far(
    renderer: DepthRenderer, vertices: torch.Tensor, reference: torch.Tensor, known: torch.Tensor
) -> float:
    """Share of the known pixels wholly outside the mesh that are as far as the background."""
    with torch.no_grad():
        bare = known & (renderer(vertices).coverage < 0.01)
    return float((reference[bare] >= renderer.background).float().mean())


def check(
    renderer: DepthRenderer, vertices: torch.Tensor, reference: torch.Tensor, known: torch.Tensor
) -> None:
    """Half of the pixels agree to 0.03 bones (1.5 mm), 90 % to 0.12: what is left lies at fingers'
    edges, where nearest neighbours are of another surface. Mirrored, turned or shifted by a pixel,
    it would not be so."""
    right = disagreement(renderer, vertices, reference, known)
    assert np.median(right) < 0.03
    assert np.mean(right < 0.12) > 0.9
    assert outside_is_far(renderer, vertices, reference, known) > 0.97
    few = slice(6)
    right = disagreement(renderer, vertices[few], reference[few], known[few])
    u, v, d = vertices[few].unbind(-1)
    pixel = 1 / renderer.size
    wrong = {
        "u mirrored": (1 - u, v, d),
        "v mirrored": (u, 1 - v, d),
        "swapped": (v, u, d),
        "depth mirrored": (u, v, -d),
        "to the right": (u + pixel, v, d),
        "to the left": (u - pixel, v, d),
        "down": (u, v + pixel, d),
        "up": (u, v - pixel, d),
        "farther": (u, v, d + 0.1),
    }
    for name, axes in wrong.items():
        with torch.no_grad():
            found = renderer(torch.stack(axes, dim=-1))
        off = (found.depth - reference[few])[(found.coverage > 0.99) & known[few]].abs()
        assert float(off.median()) > 1.5 * np.median(right), name
        assert float(off.mean()) > 1.25 * right.mean(), name


def test_stored_maps_are_what_the_true_mesh_renders_to(
    surface: Surface, hands: tuple[CroppedSet, NDArray[np.float32]]
) -> None:
    data, meshes = hands
    renderer = DepthRenderer(surface, 64)
    stored = torch.from_numpy(np.array(data.depth_maps))
    known = ~stored.isnan()
    reference = stored.nan_to_num(0.0).clamp(max=renderer.background)
    check(renderer, torch.from_numpy(meshes), reference, known)


def test_augmented_maps_are_what_the_moved_mesh_renders_to(
    surface: Surface, hands: tuple[CroppedSet, NDArray[np.float32]], tmp_path: Path
) -> None:
    """The true mesh takes the place of the pseudo mesh, which moves with the crop."""
    data, meshes = hands
    pseudo = tmp_path / "true.npy"
    np.save(pseudo, meshes)
    origin = {"set_sha256": data.sha256, "weights_sha256": "0" * 64}
    pseudo.with_suffix(".json").write_text(json.dumps(origin))
    settings = CroppedSettings(
        data.folder, COUNT, pseudo, 32, augment=Augmentation(input_size=32, anyhow=0.3)
    )
    lane = CroppedStream(settings, 0).lane(0, 1, 0)
    drawn = [next(lane) for _ in range(3)]
    vertices, depth, known = (
        torch.cat([b[name][b["has_depth_map"] & b["has_pseudo"]] for b in drawn])
        for name in ("pseudo", "depth_map", "depth_known")
    )
    assert len(vertices) > COUNT
    check(DepthRenderer(surface, 32), vertices, depth, known)
