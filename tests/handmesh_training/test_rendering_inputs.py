"""What goes into the renderer: random looks, skins, and everything that must be refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from ball_scene import levels

from handmesh.errors import BackendError, BackendUnavailable, ImageError, InputError
from handmesh_training.rendering import (
    BackgroundSet,
    EnvironmentSet,
    Renderer,
    RenderMesh,
    SkinSet,
    native,
    sample_appearance,
)
from handmesh_training.rendering.environments import LUMINANCE
from handmesh_training.rendering.paint import BakedSurface, lines, polish
from handmesh_training.rendering.textures import srgb_to_linear

# A tetrahedron: small, closed, and with an uv triangle for each face.
VERTICES = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]]) + [0, 0, 0.5]
FACES = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], np.int32)
UV = np.tile(np.array([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9]], np.float32), (4, 1, 1))
MESH = RenderMesh(FACES, UV, np.zeros(4, np.uint8))
SKINS = SkinSet.procedural(0, 10, MESH, size=32)
PLACES = EnvironmentSet.procedural(0, count=4, height=32)
CAMERA = np.array([[80.0, 80.0, 15.5, 15.5]])


def draw_with(**changes: object) -> None:
    look = sample_appearance(np.random.default_rng(0), 1, SKINS, PLACES)
    given = {"vertices": VERTICES[None], "camera": CAMERA, "appearance": look} | changes
    Renderer(MESH, SKINS, PLACES, size=32).render(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vertices", np.full((1, 4, 3), np.nan), "NaN"),
        ("vertices", np.full((1, 4, 3), 1e6), "at most"),
        ("vertices", np.zeros((1, 5, 3)), "shape"),
        ("vertices", np.zeros((4, 3)), "shape"),
        ("vertices", np.zeros((1, 4, 3), np.int64), "dtype"),
        ("vertices", [[0.0]], "array"),
        ("camera", np.zeros((1, 3)), "shape"),
        ("camera", np.array([[-80.0, 80.0, 15, 15]]), "focal"),
        ("camera", np.array([[80.0, np.inf, 15, 15]]), "infinite"),
    ],
)
def test_bad_geometry_is_refused(name: str, value: object, message: str) -> None:
    draw_with()
    with pytest.raises(InputError, match=message):
        draw_with(**{name: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("skin", np.array([10], np.int32)),
        ("skin", np.array([-1], np.int32)),
        ("skin", np.array([0.0], np.float32)),
        ("background", np.array([4], np.int32)),
        ("background_blur", np.array([99.0], np.float32)),
        ("irradiance", np.full((1, 9, 3), np.nan, np.float32)),
        ("key_light", np.full((1, 3), -1.0, np.float32)),
        ("tone", np.zeros((2, 2), np.float32)),
    ],
)
def test_bad_appearance_is_refused(field: str, value: np.ndarray) -> None:
    look = sample_appearance(np.random.default_rng(0), 1, SKINS, PLACES)
    with pytest.raises(InputError, match=f"appearance.{field}"):
        draw_with(appearance=replace(look, **{field: value}))


@pytest.mark.parametrize(
    ("faces", "uv", "parts", "arm"),
    [
        (FACES + 1, UV, np.zeros(4, np.uint8), None),
        (FACES - 1, UV, np.zeros(4, np.uint8), None),
        (FACES[:, :2], UV, np.zeros(4, np.uint8), None),
        (FACES.astype(float), UV, np.zeros(4, np.uint8), None),
        (FACES, UV[:2], np.zeros(4, np.uint8), None),
        (FACES, UV, np.full(4, 255, np.uint8), None),
        (FACES[:0], UV[:0], np.zeros(4, np.uint8), None),
        (FACES, UV, np.zeros(4, np.uint8), np.zeros(3, np.float32)),
    ],
)
def test_bad_meshes_are_refused(
    faces: np.ndarray, uv: np.ndarray, parts: np.ndarray, arm: np.ndarray | None
) -> None:
    with pytest.raises(InputError):
        RenderMesh(faces, uv, parts, arm)


@pytest.mark.parametrize("hand", [np.ones(3, dtype=bool), np.ones(len(FACES), dtype=np.uint8)])
def test_faces_of_the_hand_are_one_flag_each(hand: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"hand: expected"):
        RenderMesh(FACES, UV, np.zeros(4, np.uint8), hand=hand)


@pytest.mark.parametrize("setting", [{"size": 4}, {"threads": 0}, {"shadow_size": 10_000}])
def test_bad_settings_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        Renderer(MESH, SKINS, PLACES, **setting)


def test_appearance_is_random_reproducible_and_always_drawable() -> None:
    first = sample_appearance(np.random.default_rng(1), 400, SKINS, PLACES)
    again = sample_appearance(np.random.default_rng(1), 400, SKINS, PLACES)
    other = sample_appearance(np.random.default_rng(2), 400, SKINS, PLACES)
    np.testing.assert_array_equal(first.exposure, again.exposure)
    assert not np.allclose(first.exposure, other.exposure)
    image = (
        Renderer(MESH, SKINS, PLACES, size=32)
        .render(np.repeat(VERTICES[None], 400, 0), np.repeat(CAMERA, 400, 0), first)
        .image
    )
    spread = image.reshape(400, -1).astype(float)
    assert 60 < spread.mean() < 190  # a camera that exposes
    assert (spread.std(1) > 2).mean() > 0.95  # hardly a picture of one colour
    np.testing.assert_allclose(np.linalg.norm(first.key_direction, axis=1), 1, rtol=1e-5)


def test_skin_covers_the_range_of_tones() -> None:
    look = sample_appearance(np.random.default_rng(3), 3000, SKINS, PLACES)
    albedo = look.skin_gain * SKINS.reference[look.skin] ** look.skin_contrast[:, None]
    luminance = albedo @ LUMINANCE
    # Luminance of the Monk scale runs from 0.02 to 0.86; skin itself is a little darker.
    assert np.quantile(luminance, 0.03) < 0.04
    assert np.quantile(luminance, 0.97) > 0.5
    counts, _ = np.histogram(np.log(luminance), bins=8, range=(np.log(0.025), np.log(0.6)))
    assert counts.min() > 60
    assert (albedo[:, 0] > albedo[:, 2]).mean() > 0.97  # skin is never blue


def test_photos_are_used_where_given_and_cropped_inside() -> None:
    rng = np.random.default_rng(5)
    photos = BackgroundSet.from_images([np.full((50, 90, 3), 0.5, np.float32)] * 3)
    look = sample_appearance(rng, 500, SKINS, PLACES, photos, photo_share=0.5)
    chosen = look.background >= len(PLACES)
    assert 0.4 < chosen.mean() < 0.6
    corners = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]], np.float32)
    places = np.einsum("bij,kj->bki", look.background_map[chosen], corners)
    assert places[..., :2].min() > -1e-5
    assert places[..., :2].max() < 1 + 1e-5
    panorama = sample_appearance(rng, 50, SKINS, PLACES)
    assert (panorama.background < len(PLACES)).all()


def test_uv_off_the_skin_continue_from_its_border() -> None:
    # A strip of four quads; the last two lie elsewhere in the atlas, as a forearm does.
    x = np.repeat(np.arange(5), 2)
    points = np.column_stack([x, np.tile([0, 1], 5)]).astype(float)
    faces = np.array(
        [t for i in range(0, 8, 2) for t in ([i, i + 2, i + 1], [i + 1, i + 2, i + 3])], np.int32
    )
    uv = (points[faces] * [0.1, 0.2] + 0.1).astype(np.float32)
    uv[4:] += 0.5
    mesh = RenderMesh(faces, uv, np.zeros(10, np.uint8))
    skins = SkinSet.procedural(0, 1, RenderMesh(faces[:4], uv[:4], np.zeros(10, np.uint8)), 32)
    mapped = skins.map_uv(mesh)
    border = skins.map_uv(mesh)[3, 1:]  # corners of the last quad on the skin
    assert mapped.min() >= 0
    assert mapped.max() <= 1
    distance = np.linalg.norm(mapped[4:].reshape(-1, 1, 2) - border[None], axis=-1).min(1)
    assert distance.max() < np.linalg.norm(border[1] - border[0])
    assert np.allclose(mapped[4:, :, 0], border[0, 0], atol=1e-5)


def sheet_hand() -> tuple[RenderMesh, np.ndarray, np.ndarray]:
    """Two sheets, palm (-z) and back (+z), side by side in the atlas; joints as fingers up."""
    x, y = np.meshgrid(np.linspace(-0.06, 0.06, 13), np.linspace(-0.2, 0.02, 23))
    sheet = np.stack([x, y], -1).reshape(-1, 2)
    vertices = np.concatenate([np.c_[sheet, np.full(299, -0.01)], np.c_[sheet, np.full(299, 0.01)]])
    quads = np.array(
        [[r * 13 + c, r * 13 + c + 1, r * 13 + c + 14, r * 13 + c + 13]
         for r in range(22) for c in range(12)]
    )  # fmt: skip
    half = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    # Seen from -z (towards +z, +y down) the order x then y is clockwise: turn the palm.
    faces = np.concatenate([half[:, ::-1], half + 299]).astype(np.int32)
    corners = vertices[faces]
    u = (corners[..., 0] + 0.06) / 0.12 * 0.5 + 0.5 * (corners[..., 2] > 0)
    v = (corners[..., 1] + 0.2) / 0.22
    uv = np.stack([u, 1 - v], -1).astype(np.float32)
    joints = np.zeros((21, 3))
    for finger, base in enumerate((1, 5, 9, 13, 17)):
        for k, height in enumerate((0.08, 0.12, 0.15, 0.175)):
            joints[base + k] = [0.05 - 0.025 * finger, -height, -0.002 * k * k]
    return RenderMesh(faces, uv, np.zeros(598, np.uint8)), vertices, joints


def test_baking_finds_the_surface_under_each_texel() -> None:
    mesh, vertices, _ = sheet_hand()
    fractions = np.stack([mesh.uv[..., 0], 1 - mesh.uv[..., 1]], -1)
    surface = BakedSurface.bake(mesh, vertices, fractions, (64, 64))
    assert surface.known.all()
    at = (np.arange(64) + 0.5) / 64
    u, v = np.meshgrid(at, at)
    back = u > 0.5
    expected = np.stack([(u - 0.5 * back) * 0.24 - 0.06, v * 0.22 - 0.2, 0.02 * back - 0.01], -1)
    np.testing.assert_allclose(surface.points, expected.reshape(-1, 3), atol=1e-4)
    np.testing.assert_allclose(surface.normals[:, 2], np.where(back, 1, -1).reshape(-1), atol=1e-6)


def test_painted_palms_are_lighter_than_backs_most_of_all_on_dark_skin() -> None:
    mesh, vertices, joints = sheet_hand()
    skins = SkinSet.procedural(3, 10, mesh, vertices, joints, size=64)
    again = SkinSet.procedural(3, 10, mesh, vertices, joints, size=64)
    np.testing.assert_array_equal(skins.textures.texels, again.textures.texels)
    images = np.stack([skins.textures.image(i) for i in range(10)]) @ LUMINANCE  # (10, 64, 64)
    palm, back = np.median(images[:, 30:50, :28], (1, 2)), np.median(images[:, 30:50, 36:], (1, 2))
    assert (palm >= 0.97 * back).all()
    assert (palm / back)[-1] > 1.5
    assert (palm / back)[-1] > 1.3 * (palm / back)[0]
    assert (np.diff(back) < 0).all()  # light to dark


def test_creases_lie_in_the_palm_veins_and_nails_on_the_back() -> None:
    mesh, vertices, joints = sheet_hand()
    joints *= [1, 1, 0.3]  # tips within the sheets
    joints[0] = [0.0, 0.01, 0.0]
    fractions = np.stack([mesh.uv[..., 0], 1 - mesh.uv[..., 1]], -1)
    surface = BakedSurface.bake(mesh, vertices, fractions, (96, 128))
    change = lines(np.random.default_rng(1), surface, joints)
    palm = surface.normals[:, 2] < 0
    assert surface.points.shape == (96 * 128, 3)
    middle = palm & (np.abs(surface.points[:, 1] + 0.05) < 0.02)
    assert change[middle].min() < -0.15  # lines
    assert np.median(change[middle]) > -0.02  # on plain skin
    assert (change[palm, 1] <= 1e-9).all()
    assert change[~palm, 1].max() > 0.003  # veins: raised
    nail, _ = polish(np.random.default_rng(1), surface, joints)
    painted = surface.points[nail > 0.5]
    assert len(painted) > 20
    tips = joints[[4, 8, 12, 16, 20]]
    assert np.linalg.norm(painted[:, None] - tips, axis=-1).min(axis=1).max() < 0.022
    assert (surface.normals[nail > 0.5, 2] > 0).all()


def test_drawn_over_folder_skins_differ_in_lines_alone(tmp_path: Path) -> None:
    mesh, vertices, joints = sheet_hand()
    joints *= [1, 1, 0.3]
    for name in "abcde":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((64, 64, 3), 128, np.uint8))
    crop = {"atlas_size": [64, 64], "crop_xyxy": [0, 0, 64, 64]}
    (tmp_path / "crop.json").write_text(json.dumps(crop))
    plain = SkinSet.from_folder(tmp_path, mesh)
    drawn = SkinSet.from_folder(tmp_path, mesh, vertices_m=vertices, joints_m=joints, seed=1)
    again = SkinSet.from_folder(tmp_path, mesh, vertices_m=vertices, joints_m=joints, seed=1)
    np.testing.assert_array_equal(drawn.textures.texels, again.textures.texels)
    assert (len(plain), len(drawn)) == (5, 6)  # the fifth once more, with polish
    ratio = drawn.textures.image(0) / plain.textures.image(0)
    assert np.median(ratio) == pytest.approx(1, abs=0.03)
    assert ratio.min() < 0.93
    polished = np.abs(drawn.textures.image(5) - drawn.textures.image(4)).max(-1) > 0.01
    assert 0 < polished.mean() < 0.1


def test_skin_folder_is_read_and_its_gutters_filled(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[..., 1] = 255  # a screaming green outside
    # uv (0.1..0.5, v up) in an atlas of 128 px whose lower left quarter is the crop
    inside = np.zeros((64, 64), bool)
    inside[10:60, 5:55] = True
    pixels[inside] = [96, 128, 200]  # BGR
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    crop = {"atlas_size": [128, 128], "crop_xyxy": [0, 64, 64, 128]}
    (tmp_path / "crop.json").write_text(json.dumps(crop))
    uv = UV * 0.3 + 0.05
    skins = SkinSet.from_folder(tmp_path, RenderMesh(FACES, uv, np.zeros(4, np.uint8)))
    expected = srgb_to_linear(np.array([200, 128, 96]) / 255)
    np.testing.assert_allclose(skins.reference[0], expected, rtol=0.02)
    np.testing.assert_allclose(skins.textures.image(0, 3).reshape(-1, 3).min(0), expected, rtol=0.1)
    mapped = skins.map_uv(RenderMesh(FACES, uv, np.zeros(4, np.uint8)))
    np.testing.assert_allclose(mapped[0, 0], [0.08 * 2, (1 - 0.08 - 0.5) * 2], rtol=1e-5)


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="crop"):
        SkinSet.from_folder(tmp_path, MESH)
    (tmp_path / "crop.json").write_text('{"atlas_size": [64, 64], "crop_xyxy": [0, 0, 64, 64]}')
    with pytest.raises(InputError, match="png"):
        SkinSet.from_folder(tmp_path, MESH)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="64 x 64"):
        SkinSet.from_folder(tmp_path, MESH)
    with pytest.raises(InputError, match="hdr"):
        EnvironmentSet.from_folder(tmp_path)
    (tmp_path / "a.hdr").write_bytes(b"no panorama")
    with pytest.raises(ImageError, match="HDR"):
        EnvironmentSet.from_folder(tmp_path)
    with pytest.raises(ImageError, match="not an image"):
        BackgroundSet.from_folder(tmp_path)
    with pytest.raises(InputError, match="no photo"):
        BackgroundSet.from_folder(tmp_path / "nowhere")


def test_hdr_panorama_is_read(tmp_path: Path) -> None:
    panorama = np.full((32, 64, 3), 0.5, np.float32)
    panorama[:4] = 100.0  # light from above
    cv2.imwrite(str(tmp_path / "sky.hdr"), panorama)
    places = EnvironmentSet.from_folder(tmp_path, height=32)
    assert len(places) == 1
    assert places.key_direction[0, 1] < -0.95
    assert (places.key_light[0] > 0.1).all()


def test_srgb_is_undone() -> None:
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    np.testing.assert_allclose(levels(srgb_to_linear(values)) / 255, values, atol=1e-5)
    np.testing.assert_allclose(srgb_to_linear(0.5), 0.21404, atol=1e-4)


def test_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BackendUnavailable, match="apt install"):
        native.build(tmp_path)


def test_failing_compiler_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(BackendError, match="no such luck"):
        native.build(tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.so"))
