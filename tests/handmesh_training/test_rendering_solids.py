"""Things beside the hand against brute force, and the surface behind it against closed forms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from ball_scene import (
    CAMERA,
    MESH,
    PLACES,
    SIZE,
    SKINS,
    ball_at,
    ball_rays,
    levels,
    plain,
    renderer,
)
from scipy.spatial.transform import Rotation

from handmesh.errors import InputError
from handmesh_training.rendering import EnvironmentSet, Renderer
from handmesh_training.rendering.grounds import ENDLESS_M, ground
from handmesh_training.rendering.solids import Material, Pattern, Shape, hidden, meet, solid

Array = npt.NDArray[np.float64]
SHAPES = [Shape.BALL, Shape.BOX, Shape.CYLINDER, Shape.CAPSULE]
GREY = np.full(3, 0.5)
PLAIN = Material(GREY)


def inside(
    shape: Shape, points: Array, centre: Array, axes: Array, half: Array, taper: float
) -> npt.NDArray[np.bool_]:
    """(...,) whether points (..., 3) lie in a solid, from its definition."""
    x, y, z = np.moveaxis((points - centre) @ axes.T, -1, 0)
    a, b, c = half
    if shape is Shape.BALL:
        return np.asarray((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 <= 1)
    if shape is Shape.BOX:
        return np.asarray((abs(x) <= a) & (abs(y) <= b) & (abs(z) <= c))
    radius = 1 + (taper - 1) * (y / b + 1) / 2  # from one at -y to the taper at +y
    tube = (abs(y) <= b) & ((x / a) ** 2 + (z / c) ** 2 <= radius**2)
    if shape is Shape.CYLINDER:
        return np.asarray(tube)
    low = (x / a) ** 2 + ((y + b) / a) ** 2 + (z / c) ** 2 <= 1
    high = (x / a) ** 2 + ((y - b) / a) ** 2 + (z / c) ** 2 <= taper**2
    return np.asarray(tube | low | high)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("taper", [1.0, 0.3, 1.4])
def test_rays_meet_solids_where_their_definition_says(shape: Shape, taper: float) -> None:
    rng = np.random.default_rng(int(shape) * 10 + int(taper * 5))
    hits = 0
    for _ in range(6):
        axes = Rotation.random(random_state=rng).as_matrix()
        half = rng.uniform(0.004, 0.1, 3)
        centre = rng.uniform([-0.2, -0.2, 0.4], [0.2, 0.2, 1.2])
        row = solid(shape, centre, axes, half, PLAIN, taper=taper).astype(np.float32)
        centre, half = row[1:4].astype(float), row[13:16].astype(float)
        axes, exact = row[4:13].astype(float).reshape(3, 3), float(row[16])
        reach = 2 * float(np.linalg.norm(half)) + half.max() * taper
        target = centre + rng.uniform(-0.25, 0.25, (60, 3)) * reach
        origins = np.where(rng.random((60, 1)) < 0.5, 0.0, rng.normal(0, 0.5, (60, 3)))
        rays = target - origins
        enters, leaves = meet(row.astype(float), origins, rays)
        # March in fine steps, then bisect both ends.
        t = np.linspace(0, 2.5, 6001)
        along = origins[:, None] + rays[:, None] * t[None, :, None]  # (60, steps, 3)
        within = inside(shape, along, centre, axes, half, exact)
        seen = within.any(1) & ~within[:, 0] & ~within[:, -1]
        hits += int(seen.sum())
        for i in np.flatnonzero(seen):
            first, last = np.flatnonzero(within[i])[[0, -1]]
            for got, (low, high) in (
                (enters[i], (t[first - 1], t[first])),
                (leaves[i], (t[last + 1], t[last])),
            ):
                for _ in range(50):
                    middle = 0.5 * (low + high)
                    point = origins[i] + rays[i] * middle
                    if inside(shape, point, centre, axes, half, exact):
                        high = middle
                    else:
                        low = middle
                assert got == pytest.approx(high, abs=1e-6)
        missed = ~within.any(1)
        # What is thinner than a step is found by the formula alone.
        assert ((leaves - enters)[missed] < 2 * 2.5 / 6000).all()
    assert hits > 60


def test_rows_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(InputError, match="row"):
        meet(np.zeros(7), np.zeros((1, 3)), np.ones((1, 3)))


def test_a_solid_ball_is_drawn_lit_and_cut_by_the_hand() -> None:
    look = plain()
    slope = np.array([0.5, -0.3, -0.4])
    look.irradiance[0, 1:4] = (slope[[1, 2, 0]] / 0.488603)[:, None]
    look.solids[0, 3] = solid(
        Shape.BALL, [0, 0, 0.5], np.eye(3), [0.1, 0.1, 0.1], Material([0.5, 0.25, 0.1])
    )
    # The hand is a small ball that looks out of the solid's right side.
    vertices = ball_at(radius=0.03) + [0.1, 0, -0.03]
    got = renderer().render(vertices, CAMERA, look, depth=True)
    alone = renderer().render(vertices, CAMERA, plain(), depth=True)
    normals, hit, depth = ball_rays()
    assert got.depth is not None
    assert alone.depth is not None
    shown = got.mask[0] > 0
    # The hand is seen where, and only where, it is nearer.
    both = hit & (alone.mask[0] == 255) & (normals[..., 2] < -0.3)
    nearer = alone.depth[0] < depth - 0.002
    farther = alone.depth[0] > depth + 0.002
    assert (both & nearer).sum() > 20
    assert (both & farther).sum() > 20
    assert shown[both & nearer].all()
    assert not shown[both & farther].any()
    assert (got.depth[0][both & farther] == 0).all()
    inner = hit & (alone.mask[0] == 0) & (normals[..., 2] < -0.45)
    for channel, albedo in enumerate((0.5, 0.25, 0.1)):
        error = np.abs(got.image[0, ..., channel] - levels(albedo * (1 + normals @ slope)))[inner]
        assert error.max() < 4
    # Coverage is that of the disc: the background is black, the light even.
    even = plain()
    even.solids[0] = look.solids[0]
    even.solids[0, 3, 18:24] = 0.5
    image = renderer().render(ball_at() + [60.0, 0, 0], CAMERA, even).image[0, ..., 0] / 255
    light = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    assert light.sum() / 0.5 == pytest.approx(np.pi * 150**2 * 0.1**2 / (0.5**2 - 0.1**2), rel=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_normals_of_solids_are_square_to_their_surface(shape: Shape) -> None:
    # Three pictures, each lit linearly along one axis, read the normal off.
    rng = np.random.default_rng(int(shape))
    axes = Rotation.random(random_state=rng).as_matrix()
    half = np.array([0.06, 0.08, 0.045])
    row = solid(shape, [0.01, 0, 0.5], axes, half, PLAIN, taper=0.7)
    look = plain(3)
    look.solids[:, 0] = row
    for axis, place in enumerate((3, 1, 2)):
        look.irradiance[axis, place] = 0.8 / 0.488603
    away = np.repeat(ball_at() + [60.0, 0, 0], 3, 0)
    image = renderer().render(away, np.repeat(CAMERA, 3, 0), look).image[..., 0] / 255
    light = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    normal = np.moveaxis((light / 0.5 - 1) / 0.8, 0, -1)  # (S, S, 3)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-12
    fx, _, cx, cy = CAMERA[0]
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    step = 0.2

    def depth(dx: float, dy: float) -> tuple[Array, Array]:
        rays = np.stack([(x + dx - cx) / fx, (y + dy - cy) / fx, np.ones((SIZE, SIZE))], -1)
        enters, _ = meet(row, np.zeros((SIZE * SIZE, 3)), rays.reshape(-1, 3))
        return rays * enters.reshape(SIZE, SIZE, 1), enters.reshape(SIZE, SIZE)

    points = [depth(*d) for d in ((step, 0), (-step, 0), (0, step), (0, -step))]
    solid_there = np.all([z > 0 for _, z in points], axis=0)
    expected = np.cross(points[2][0] - points[3][0], points[0][0] - points[1][0])
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True) + 1e-12
    calm = solid_there & (expected[..., 2] < -0.35)
    angle = np.degrees(np.arccos(np.clip((normal * expected).sum(-1), -1, 1)))[calm]
    assert calm.sum() > 400
    assert np.median(angle) < 1.5
    assert np.quantile(angle, 0.8) < 3  # broken edges lie elsewhere


def test_points_behind_a_solid_are_hidden() -> None:
    row = solid(Shape.BOX, [0, 0, 0.5], np.eye(3), [0.05, 0.05, 0.01], PLAIN)
    points = np.array([[0, 0, 0.6], [0, 0, 0.4], [0.2, 0, 0.6], [0.055, 0, 0.6], [0, 0, 0.495]])
    # 0.055 at 0.6 m passes the box's edge at 0.05 of 0.49 m.
    np.testing.assert_array_equal(hidden([row], points), [True, False, False, True, False])


def test_solids_cast_shadow_on_the_hand() -> None:
    look = plain()
    look.irradiance[:] = 0
    look.key_light[0] = 1.0
    look.solids[0, 0] = solid(
        Shape.CYLINDER, [0.075, -0.3, 0.3], np.eye(3), [0.02, 0.35, 0.02], PLAIN, casts=True
    )
    look.key_direction[0] = np.array([0.6, 0, -0.8])
    draw = Renderer(MESH, SKINS, PLACES, size=SIZE, shadow_size=256)
    image = draw.render(ball_at(), CAMERA, look).image[0, ..., 0].astype(int)
    look.solids[0, 0, 17] = 0
    free = draw.render(ball_at(), CAMERA, look).image[0, ..., 0].astype(int)
    normals, hit, depth = ball_rays()
    fx, _, cx, cy = CAMERA[0]
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    points = np.stack([(x - cx) / fx, (y - cy) / fx, np.ones(x.shape)], -1) * depth[..., None]
    # Distance in plan (y is the cylinder's axis) from its axis to the ray towards the light.
    light = np.array([0.6, -0.8])
    offset = points[..., [0, 2]] - [0.075, 0.3]
    gap = np.abs(offset[..., 0] * light[1] - offset[..., 1] * light[0])
    seen = hit & (normals[..., 2] < -0.4) & (normals @ [0.6, 0, -0.8] > 0.2)
    seen &= (points[..., 1] < 0.04) & (x < 70)  # above the cylinder's end, and left of it
    dark, lit = seen & (gap < 0.013), seen & (gap > 0.027)
    assert dark.sum() > 25
    assert lit.sum() > 200
    assert image[dark].max() <= 2
    np.testing.assert_array_equal(image[lit], free[lit])


WALL = 0.62  # metres away


def wall(**changes: object) -> Array:
    given = {
        "normal": [0, 0, -1.0],
        "offset": -WALL,
        "right": [1.0, 0, 0],
        "centre": [0, 0, WALL],
        "half": (ENDLESS_M, ENDLESS_M),
        "material": PLAIN,
    } | changes
    return ground(**given)  # type: ignore[arg-type]


def plan() -> Array:
    """(S, S, 3) points of the wall that the pixels' middles see."""
    fx, _, cx, cy = CAMERA[0]
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    return np.stack([(x - cx) / fx, (y - cy) / fx, np.ones(x.shape)], -1) * WALL


def test_a_ball_throws_its_shadow_on_the_wall_behind() -> None:
    look = plain()
    look.irradiance[:] = 0
    light = np.array([0.45, -0.3, -0.85])
    light /= np.linalg.norm(light)
    look.key_direction[0], look.key_light[0] = light, 1.0
    look.ground[0] = wall(spread=0.001)
    centre, radius = np.array([0, 0, 0.5]), 0.05
    draw = Renderer(MESH, SKINS, PLACES, size=SIZE, shadow_size=256)
    got = draw.render(ball_at(radius=radius), CAMERA, look)
    image = got.image[0, ..., 0].astype(float)
    points = plan()
    offset = points - centre
    gap = np.linalg.norm(offset - (offset @ light)[..., None] * light, axis=-1)
    free = got.mask[0] == 0
    shadow, bright = free & (gap < radius - 0.004), free & (gap > radius + 0.004)
    assert shadow.sum() > 150
    assert image[shadow].max() <= 3
    facing = -light[2]
    # A ground is uneven by six per cent.
    even = levels(0.5 * facing * np.array([0.93, 1.07]))
    assert (image[bright] >= even[0]).all()
    assert (image[bright] <= even[1]).all()
    # A larger light blurs the shadow's border, the same in the mean.
    look.ground[0] = wall(spread=0.5)
    soft = draw.render(ball_at(radius=radius), CAMERA, look).image[0, ..., 0].astype(float)
    border = free & (np.abs(gap - radius) < 0.012)
    between = (soft > 20) & (soft < even[0] - 15)
    assert (between & border).sum() > 3 * ((image > 20) & (image < even[0] - 15) & border).sum()


def test_a_slanted_ground_ends_at_its_border() -> None:
    normal = np.array([0, -0.6, -0.8])
    centre = np.array([0, 0.02, 0.6])
    row = wall(normal=normal, offset=float(normal @ centre), centre=centre, half=(0.08, 0.1))
    look = plain()
    look.ground[0] = row
    image = renderer().render(ball_at() + [60.0, 0, 0], CAMERA, look).image[0, ..., 0]
    fx, _, cx, cy = CAMERA[0]
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    rays = np.stack([(x - cx) / fx, (y - cy) / fx, np.ones(x.shape)], -1)
    points = rays * (normal @ centre / (rays @ normal))[..., None]
    u = (points - centre) @ [1.0, 0, 0]
    v = (points - centre) @ np.cross(normal, [1.0, 0, 0])
    margin = np.minimum(0.08 - np.abs(u), 0.1 - np.abs(v))  # metres inside the border
    assert image[margin < -0.005].max() == 0
    assert image[margin > 0.008].min() > 150
    assert ((margin > 0.008).sum() > 500) & ((margin < -0.005).sum() > 500)


def test_solids_behind_the_ground_are_hidden_and_before_it_seen() -> None:
    look = plain(2)
    look.ground[:] = wall()
    for i, z in enumerate((WALL + 0.1, WALL - 0.1)):
        look.solids[i, 0] = solid(
            Shape.BALL, [0, 0, z], np.eye(3), [0.03, 0.03, 0.03], Material([0.9, 0.0, 0.0])
        )
    away = np.repeat(ball_at() + [60.0, 0, 0], 2, 0)
    image = renderer().render(away, np.repeat(CAMERA, 2, 0), look).image
    middle = SIZE // 2
    assert image[0, middle, middle, 1] > 150
    assert image[1, middle, middle, 1] < 5


def test_the_ground_throws_light_back_on_the_hand() -> None:
    # No light but from the camera's side: what faces the wall sees the wall alone.
    look = plain()
    look.ground[0] = wall(material=Material([0.8, 0.0, 0.0]))
    image = renderer().render(ball_at(radius=0.05), CAMERA, look).image[0].astype(float)
    middle = SIZE // 2
    np.testing.assert_allclose(image[middle, middle], levels(np.full(3, 0.5)), atol=2)
    # Towards the rim half of what lights the ball is red, of radiance 0.8.
    row = image[middle]
    rim = np.flatnonzero(
        renderer().render(ball_at(radius=0.05), CAMERA, look).mask[0, middle] == 255
    )[0]
    assert row[rim, 0] > row[rim, 1] + 15


def test_a_photo_lies_on_the_ground_upright_and_in_proportion() -> None:
    ramp = np.full((64, 128, 3), 0.02, np.float32)
    ramp[:, :64, 0] = 0.8  # left half red
    ramp[:32, :, 1] = 0.8  # upper half green
    places = EnvironmentSet.from_panoramas([ramp])
    look = plain()
    # Tiles of 30 cm from the wall's middle to the right and down: one whole picture.
    look.ground[0] = wall(material=Material(GREY, GREY, cells=1 / 0.3))
    look.ground_texture[0] = 0
    image = (
        Renderer(MESH, SKINS, places, size=SIZE)
        .render(ball_at() + [60.0, 0, 0], CAMERA, look)
        .image[0]
    )
    points = plan()
    at = lambda u, v: image[  # noqa: E731
        tuple(
            np.unravel_index(
                np.argmin(np.hypot(points[..., 0] - u, points[..., 1] - v)), (SIZE, SIZE)
            )
        )
    ].astype(int)
    red, green = (lambda c: c[0] > c[1] + 60), (lambda c: c[1] > c[0] + 60)
    # v runs along normal x right: upwards here, and mirrored below the middle.
    assert red(at(0.07, 0.17)) or red(at(0.07, -0.17))
    assert green(at(0.2, 0.05))
    assert green(at(-0.2, 0.05))  # mirrored


@pytest.mark.parametrize("pattern", [p for p in Pattern if p < Pattern.HEAD])
def test_patterns_mix_the_two_colours_and_nothing_else(pattern: Pattern) -> None:
    look = plain()
    look.ground[0] = wall(material=Material([0.6, 0.3, 0.1], [0.1, 0.3, 0.6], pattern, 25.0, 3))
    image = renderer().render(ball_at() + [60.0, 0, 0], CAMERA, look).image[0] / 255
    light = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    factor = light[..., 1] / 0.3  # the evenness of the surface
    assert factor.min() > 0.92
    assert factor.max() < 1.08
    share = (0.6 - light[..., 0] / factor) / 0.5
    assert share.min() > -0.03
    assert share.max() < 1.03
    np.testing.assert_allclose(light[..., 2] / factor, 0.1 + 0.5 * share, atol=0.03)
    if pattern is not Pattern.PLAIN:
        assert share.std() > 0.08
