from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh import geometry as geometry_module
from handmesh.errors import InputError
from handmesh.geometry import (
    ADULT_BONE_LENGTH_M,
    lift,
    place,
    solve_root_depth,
    upright_angle,
    vertex_normals,
)
from handmesh.graph import Topology
from handmesh.types import BONES, JOINT_PARENTS, Box, Camera

Array = NDArray[np.float64]


def _rotation(rng: np.random.Generator) -> Array:
    """Uniform over all rotations: a random orthonormal frame, made right-handed."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    q[:, 0] *= np.linalg.det(q)
    return np.asarray(q)


def _random_joints(rng: np.random.Generator, ratios: Array) -> Array:
    """(21, 3) in bone lengths, the wrist at 0: flexed fingers, any view, the given proportions."""
    fan = np.radians([-45, -18, 0, 14, 28])
    joints = np.zeros((21, 3))
    for finger in range(5):
        flexion = np.cumsum([0, *(rng.uniform(0, 1, 3) * np.radians([60, 80, 50]))])
        for k in range(4):
            j = 1 + 4 * finger + k
            sin, cos = np.sin(flexion[k]), np.cos(flexion[k])
            direction = (np.sin(fan[finger]) * cos, -np.cos(fan[finger]) * cos, sin)
            joints[j] = joints[JOINT_PARENTS[j]] + np.array(direction) * ratios[j - 1]
    return joints @ _rotation(rng).T


def _random_camera(rng: np.random.Generator) -> Camera:
    width, height = (int(side) for side in rng.integers(200, 4000, 2))
    focal = rng.uniform(0.6, 2.5) * max(width, height)
    centre = rng.uniform(0.3, 0.7, 2) * (width, height)
    return Camera(focal, focal * rng.uniform(0.9, 1.1), centre[0], centre[1], width, height)


def _placed(rng: np.random.Generator, ratios: Array) -> tuple[Camera, Array, float]:
    """A camera, a hand before it in bone lengths, and its wrist's depth."""
    camera, depth = _random_camera(rng), float(rng.uniform(6, 40))
    return camera, _random_joints(rng, ratios) + (*rng.uniform(-0.2, 0.2, 2) * depth, depth), depth


@pytest.fixture(scope="module")
def ratios(topology: Topology) -> Array:
    return topology.bone_ratios.astype(np.float64)


def test_root_depth_of_exact_observations_is_exact(ratios: Array) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        camera, joints, depth = _placed(rng, ratios)
        found = solve_root_depth(camera.project(joints), joints[:, 2] - depth, camera, ratios)
        assert found == pytest.approx(depth, rel=1e-6)


def test_round_trip_through_the_image_recovers_camera_space(ratios: Array) -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        camera, joints, depth = _placed(rng, ratios)
        unit = float(rng.uniform(0.03, 0.06))
        truth = joints * unit
        pixels, depths = camera.project(truth), joints[:, 2] - depth
        root = solve_root_depth(pixels, depths, camera, ratios)
        np.testing.assert_allclose(
            lift(pixels, depths, camera, place(root, bone_length_m=unit)), truth, atol=1e-6
        )
        # Who knows the depth instead gets the size.
        placement = place(root, root_depth_m=depth * unit)
        assert placement.bone_length_m == pytest.approx(unit, rel=1e-6)
        np.testing.assert_allclose(lift(pixels, depths, camera, placement), truth, atol=1e-6)


def test_answer_does_not_depend_on_the_size_of_the_photo(ratios: Array) -> None:
    rng = np.random.default_rng(2)
    joints = _random_joints(rng, ratios) + (0.5, 0.5, 12)
    small = Camera(300, 300, 160, 120, 320, 240)
    large = Camera(3000, 3000, 1600, 1200, 3200, 2400)
    noise = rng.normal(0, 0.002, (21, 2))
    depths = joints[:, 2] - 12 + rng.normal(0, 0.1, 21)
    found = [
        solve_root_depth(camera.project(joints) + noise * camera.fx, depths, camera, ratios)
        for camera in (small, large)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def _relative_errors(
    ratios: Array, image: float, depth: float, people: float, wrong_joints: int = 0
) -> Array:
    """Errors of the solved depth under noise in bone lengths; the last joints may be nonsense."""
    rng, errors = np.random.default_rng(3), []
    for _ in range(300):
        own = ratios * np.exp(rng.normal(0, people, 20))
        camera, joints, root = _placed(rng, own)
        pixels = camera.project(joints)
        depths = joints[:, 2] - root
        pixel = camera.fx / root  # a bone length at the wrist
        pixels = pixels + rng.normal(0, image, (21, 2)) * pixel
        depths = depths + rng.normal(0, depth, 21)
        for j in rng.choice(20, wrong_joints, replace=False) + 1:
            pixels[j] += rng.normal(0, 1, 2) * pixel
            depths[j] += rng.normal()
        errors.append(solve_root_depth(pixels, depths, camera, ratios) / root - 1)
    return np.array(errors)


@pytest.mark.parametrize(
    ("image", "depth", "people", "median", "bias"),
    [(0.02, 0.05, 0.0, 0.03, 0.03), (0.05, 0.1, 0.05, 0.05, 0.05), (0.1, 0.2, 0.08, 0.1, 0.08)],
)
def test_depth_degrades_gently_with_noise(
    ratios: Array, image: float, depth: float, people: float, median: float, bias: float
) -> None:
    errors = _relative_errors(ratios, image, depth, people)
    assert np.median(abs(errors)) < median
    assert abs(np.median(errors)) < bias


def test_a_few_joints_that_are_nonsense_are_outvoted(ratios: Array) -> None:
    errors = _relative_errors(ratios, 0.05, 0.1, 0.05, wrong_joints=4)
    assert np.median(abs(errors)) < 0.08


def test_several_bones_beat_the_one_that_defines_the_unit(ratios: Array) -> None:
    rng, robust, single = np.random.default_rng(4), [], []
    for _ in range(300):
        camera, joints, root = _placed(rng, ratios)
        pixels = camera.project(joints) + rng.normal(0, 0.05, (21, 2)) * camera.fx / root
        depths = joints[:, 2] - root + rng.normal(0, 0.1, 21)
        robust.append(solve_root_depth(pixels, depths, camera, ratios) / root - 1)
        # The middle finger's first bone alone, by weak perspective.
        span = np.linalg.norm((pixels[10] - pixels[9]) / (camera.fx, camera.fy))
        across = np.sqrt(max(1 - (depths[10] - depths[9]) ** 2, 1e-6))
        single.append(across / span / root - 1)
    assert np.median(np.abs(robust)) < 0.5 * np.median(np.abs(single))


def test_joints_that_are_not_believed_do_not_matter(ratios: Array) -> None:
    rng = np.random.default_rng(5)
    camera, joints, root = _placed(rng, ratios)
    pixels, depths = camera.project(joints), joints[:, 2] - root
    wrong = list(range(5, 21))  # four fingers of five, seen too large: a majority, in agreement
    pixels[wrong] = pixels[0] + (pixels[wrong] - pixels[0]) * 1.5
    depths[wrong] *= 1.5
    confidence = np.ones(21)
    assert solve_root_depth(pixels, depths, camera, ratios, confidence) < 0.8 * root
    confidence[wrong] = 0.0
    found = solve_root_depth(pixels, depths, camera, ratios, confidence)
    assert found == pytest.approx(root, rel=1e-6)


def test_depth_does_not_jump_where_little_changes(ratios: Array) -> None:
    rng, steps = np.random.default_rng(6), []
    for _ in range(40):
        camera, joints, root = _placed(rng, ratios)
        pixels = camera.project(joints) + rng.normal(0, 0.1, (21, 2)) * camera.fx / root
        depths = joints[:, 2] - root + rng.normal(0, 0.2, 21)
        start, end = rng.uniform(0.2, 1, (2, 21))
        path = [
            solve_root_depth(pixels, depths, camera, ratios, start + way * (end - start))
            for way in np.linspace(0, 1, 401)
        ]
        steps.append(np.abs(np.diff(path)).max() / root)

    assert max(steps) < 0.01, "the bones' answers lie several percent apart"


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e6])
def test_nonsense_still_gives_a_finite_depth_before_the_camera(ratios: Array, scale: float) -> None:
    rng = np.random.default_rng(6)
    camera = Camera.default(640, 480)
    depths = rng.normal(0, 5, 21)
    found = solve_root_depth(rng.normal(320, scale, (21, 2)), depths, camera, ratios)
    assert np.isfinite(found)
    assert found + depths.min() > 0


def test_lifted_points_project_back(ratios: Array) -> None:
    rng = np.random.default_rng(7)
    camera = _random_camera(rng)
    pixels, depths = rng.uniform(0, 500, (100, 2)), rng.normal(0, 2, 100)
    points = lift(pixels, depths, camera, place(12.0))
    np.testing.assert_allclose(camera.project(points), pixels, atol=1e-9)
    np.testing.assert_allclose(points[:, 2] / ADULT_BONE_LENGTH_M, 12 + depths)


def test_points_behind_the_camera_are_held_before_it() -> None:
    points = lift([[0, 0]], [-50], Camera.default(64, 64), place(3.0))
    assert points[0, 2] == pytest.approx(1e-3)


def test_mirroring_image_and_camera_mirrors_space(ratios: Array) -> None:
    rng = np.random.default_rng(8)
    camera, joints, root = _placed(rng, ratios)
    pixels, depths = camera.project(joints), joints[:, 2] - root + rng.normal(0, 0.1, 21)
    flipped = pixels * (-1, 1) + (camera.width - 1, 0)
    z = solve_root_depth(pixels, depths, camera, ratios)
    z_flipped = solve_root_depth(flipped, depths, camera.mirrored(), ratios)
    assert z_flipped == pytest.approx(z)
    np.testing.assert_allclose(
        lift(flipped, depths, camera.mirrored(), place(z_flipped)),
        lift(pixels, depths, camera, place(z)) * (-1, 1, 1),
        atol=1e-9,
    )


def test_both_given_are_both_believed() -> None:
    placement = place(10.0, bone_length_m=0.05, root_depth_m=0.7)
    assert (placement.bone_length_m, placement.root_depth_m) == (0.05, 0.7)


@pytest.mark.parametrize("value", [0, -0.05, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["bone_length_m", "root_depth_m"])
def test_impossible_lengths_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        place(10.0, **{name: value})


def test_assumed_hand_is_that_of_the_template(topology: Topology) -> None:
    joints = topology.joint_regressor @ topology.template_vertices_m
    assert np.linalg.norm(joints[10] - joints[9]) == pytest.approx(ADULT_BONE_LENGTH_M, abs=5e-4)
    lengths = [np.linalg.norm(joints[child] - joints[parent]) for parent, child in BONES]
    # The network's prior knowledge of proportions agrees with the hand it was trained on.
    np.testing.assert_allclose(
        topology.bone_ratios, np.array(lengths) / lengths[9], rtol=0.05, atol=0.02
    )


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.2, 3.0])
def test_upright_angle_is_that_of_the_box_in_which_the_hand_points_up(
    ratios: Array, angle: float
) -> None:
    points = np.zeros((21, 2))
    points[1:] = np.random.default_rng(9).normal((0, -80), (20, 20), (20, 2))
    points[[5, 9, 13, 17]] = [(-30, -90), (-10, -90), (10, -90), (30, -90)]
    turned = Box(0, 0, 1, angle).to_image(points + 0.5)  # turned by the angle about the wrist
    assert upright_angle(turned) == pytest.approx(angle)
    upright = Box.from_points(turned, angle=angle).to_crop(turned)
    knuckles = upright[[5, 9, 13, 17]].mean(axis=0) - upright[0]
    assert knuckles[0] == pytest.approx(0, abs=1e-9)
    assert knuckles[1] < 0


def test_a_hand_that_points_at_the_camera_has_no_upright_angle() -> None:
    points = np.random.default_rng(10).normal(0, 50, (21, 2))
    points[0] = points[[5, 9, 13, 17]].mean(axis=0)
    assert upright_angle(points) is None
    assert upright_angle(np.zeros((21, 2))) is None


def test_normals_point_outward() -> None:
    # An octahedron, whose corners are their own normals.
    vertices = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    signs = [(a, b, c) for a in (0, 1) for b in (2, 3) for c in (4, 5)]
    faces = np.array([f if (f[0] + f[1] + f[2]) % 2 == 0 else f[::-1] for f in signs], np.int32)
    normals = vertex_normals(vertices, faces)
    np.testing.assert_allclose(normals, vertices, atol=1e-6)
    np.testing.assert_allclose(vertex_normals(vertices, faces[:, ::-1]), -vertices, atol=1e-6)


def test_normals_have_unit_length_even_where_there_is_no_face(topology: Topology) -> None:
    vertices = np.vstack([topology.template_vertices_m, [[0, 0, 0]]])
    normals = vertex_normals(vertices, topology.faces)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)


def test_a_bone_that_follows_is_as_long_as_one_given_may_be() -> None:
    with pytest.raises(InputError, match=r"bone of 9 metres.*not millimetres"):
        place(10.0, root_depth_m=90)
    with pytest.raises(InputError, match="taken by a tele lens, needs its camera"):
        place(3.8, root_depth_m=2)  # as of a hand 2 m away that fills the picture
    assert place(10.0, root_depth_m=4.9).bone_length_m == pytest.approx(0.49)
    assert place(10.0, bone_length_m=0.047, root_depth_m=90).root_depth_m == 90


def test_a_bone_between_two_doubtful_joints_counts_by_their_product(ratios: Array) -> None:
    """The weight of each answer, as the module's own mean of them takes it."""
    rng = np.random.default_rng(8)
    camera, joints, _ = _placed(rng, ratios)
    depths = (joints[:, 2] - joints[0, 2]) / np.linalg.norm(joints[10] - joints[9])
    pixels = camera.project(joints) + rng.normal(0, 3, (21, 2))
    trust = rng.uniform(0.05, 1, 21)
    parents, children = (np.array(ends) for ends in zip(*BONES, strict=True))
    seen: list[Array] = []
    original = geometry_module._middle_mean

    def watched(values: Array, weights: Array) -> float:
        seen.append(weights)
        return original(values, weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry_module, "_middle_mean", watched)
        solve_root_depth(pixels, depths, camera, ratios, trust)
        solve_root_depth(pixels, depths, camera, ratios)
    np.testing.assert_allclose(seen[0] / seen[1], trust[parents] * trust[children], rtol=1e-9)


def test_the_middle_is_the_mean_of_what_three_tenths_of_the_weight_lie_on() -> None:
    """In closed form: of the weight from 35 to 65 %, wherever a value's own share is cut."""
    mean = geometry_module._middle_mean
    values = np.array([64.0, 1, 2, 16, 4, 8, 32, 128, 256, 512])  # a tenth of the weight each
    assert mean(values, np.ones(10)) == pytest.approx((8 * 0.5 + 16 + 32 + 64 * 0.5) / 3)
    # The first value has the weight up to 60 %, the second that from there on.
    assert mean(np.array([1.0, 3]), np.array([6.0, 4])) == pytest.approx((25 * 1 + 5 * 3) / 30)
    assert mean(np.array([3.0, 1]), np.array([0.0, 2])) == 1
