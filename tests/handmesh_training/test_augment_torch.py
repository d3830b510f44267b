"""Batched augmentation against the NumPy version: same labels, same pixels, same shares."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh.geometry import upright_angle
from handmesh_training import augment as reference
from handmesh_training import augment_torch
from handmesh_training.augment import Augmentation
from handmesh_training.augment_torch import (
    Batch,
    Geometry,
    augment,
    before,
    draw_geometry,
    move_labels,
    occlude,
    on_other_grounds,
    parts_of,
    upright_angles,
    warp,
)
from handmesh_training.hand import HandModel
from handmesh_training.samples import OUTLINE_POINTS, Crops
from handmesh_training.sampling import sample_views

STORED, INPUT, COUNT = 160, 128, 48
NONE = torch.zeros(COUNT, dtype=torch.bool)
STILL = Augmentation(
    margin_spread=0, wide=0, upright=0, rotation=0, anyhow=0, shift=0, left=0, misses=0,
    occluders=0, grounds=0, cut=0,
)  # fmt: skip


def smooth_picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 12, 12)))
    picture = torch.nn.functional.interpolate(coarse, size=(STORED, STORED), mode="bicubic")
    return picture[0].permute(1, 2, 0).clamp(0, 255).to(torch.uint8).numpy()


@pytest.fixture(scope="module")
def crops(hand_model: HandModel) -> Crops:
    rng = np.random.default_rng(0)
    views = sample_views(rng, hand_model, COUNT, STORED, 1.9)
    made = Crops.empty(COUNT, STORED, views.vertices.shape[1])
    for name in ("joints", "vertices", "crop_in_bones"):
        getattr(made, name)[:] = getattr(views, name)
    for name in ("has_hand", "has_joints", "has_depth", "has_mesh", "is_right"):
        getattr(made, name)[:] = True
    made.taught[::3, 2:5] = False
    turn = np.arange(OUTLINE_POINTS) / OUTLINE_POINTS * 2 * np.pi
    wave = 0.2 + 0.05 * np.sin(5 * turn)
    made.outline[:] = 0.5 + np.stack([wave * np.cos(turn), 1.3 * wave * np.sin(turn)], axis=1)
    made.outline_known[::2, ::3] = True
    for i in range(COUNT):
        made.images[i] = smooth_picture(rng)
    return made


def batch_of(crops: Crops) -> Batch:
    return {f.name: torch.from_numpy(getattr(crops, f.name).copy()) for f in fields(Crops)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_matrices() -> NDArray[np.float64]:
    """(COUNT, 2, 3) turned, zoomed and shifted about the middle."""
    rng = np.random.default_rng(5)
    turn, zoom = rng.uniform(-3, 3, COUNT), np.exp(rng.uniform(-0.6, 0.5, COUNT))
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * zoom
    linear = np.moveaxis(linear, -1, 0)
    offset = 0.5 + rng.normal(0, 0.05, (COUNT, 2)) - linear @ [0.5, 0.5]
    return np.concatenate([linear, offset[..., None]], axis=-1)


def test_labels_move_as_in_the_numpy_version(crops: Crops) -> None:
    matrices = some_matrices()
    mirrored = np.arange(COUNT) % 3 == 0
    expected = crops.take(np.arange(COUNT))
    for i in range(COUNT):
        reference._move_labels(expected, i, matrices[i])
        if mirrored[i]:
            reference._mirror(expected, i)

    never = torch.zeros(COUNT, dtype=torch.bool)
    geometry = Geometry(torch.from_numpy(matrices), never, torch.from_numpy(mirrored))
    moved = move_labels(batch_of(crops), geometry)

    assert set(moved) == {f.name for f in fields(Crops)} - {"images"}
    for name, values in moved.items():
        want = getattr(expected, name)
        assert values.numpy().dtype == want.dtype, name
        np.testing.assert_allclose(values.numpy(), want, rtol=0, atol=2e-6, err_msg=name)


def test_crops_that_miss_lose_their_labels(crops: Crops) -> None:
    missed = torch.arange(COUNT) % 2 == 0
    geometry = Geometry(torch.from_numpy(some_matrices()), missed, torch.zeros_like(missed))
    moved = move_labels(batch_of(crops), geometry)
    for name in ("has_hand", "has_joints", "has_depth", "has_mesh"):
        assert torch.equal(moved[name], ~missed), name
    known = torch.from_numpy(crops.outline_known)
    assert torch.equal(moved["outline_known"], known & ~missed[:, None])


def numpy_matrices(settings: Augmentation, crops: Crops, seed: int = 0) -> NDArray[np.float64]:
    out = crops.take(np.arange(len(crops)))
    rng = np.random.default_rng(seed)
    return np.stack([settings._draw_geometry(rng, out, i, True) for i in range(len(crops))])


@pytest.mark.parametrize("upright", [0.0, 1.0])
@pytest.mark.parametrize("labelled", [False, True])
def test_geometry_without_chance_is_that_of_the_numpy_version(
    crops: Crops, upright: float, labelled: bool
) -> None:
    settings = replace(STILL, upright=upright, upright_spread=0.0, margin=1.4)
    some = replace(crops, has_joints=np.full(COUNT, labelled))
    drawn = draw_geometry(settings, seeded(), batch_of(some))
    expected = numpy_matrices(settings, some)
    np.testing.assert_allclose(drawn.matrix.numpy(), expected, rtol=0, atol=1e-5)
    assert not drawn.missed.any()
    assert not drawn.mirrored.any()


def test_upright_angles_are_those_of_the_sdk(crops: Crops) -> None:
    joints = crops.joints.copy()
    joints[0, :, :2] = np.random.default_rng(1).uniform(0.45, 0.55, (21, 2))
    joints[0, [5, 9, 13, 17], :2] = joints[0, 0, :2]  # pointing at the camera
    angles, known = upright_angles(torch.from_numpy(joints[..., :2]).double())
    expected = [upright_angle(hand) for hand in joints]
    assert known.tolist() == [angle is not None for angle in expected]
    assert not known[0]
    for angle, want in zip(angles.tolist(), expected, strict=True):
        assert want is None or angle == pytest.approx(want, abs=1e-9)


def test_drawn_geometry_has_the_same_distribution(crops: Crops) -> None:
    """Quantiles of zoom, turn and shift over both versions, with everything on."""
    settings = Augmentation()
    many = crops.take(np.tile(np.arange(COUNT), 240))
    small = replace(many, images=np.zeros((len(many), 1, 1, 3), np.uint8))

    def described(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        zoom = np.log(np.hypot(matrix[:, 0, 0], matrix[:, 1, 0]))
        turn = np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0])
        middle = matrix[:, :, :2] @ [0.5, 0.5] + matrix[:, :, 2]
        rows = [zoom, np.cos(turn), np.sin(turn), middle[:, 0], middle[:, 1]]
        return np.quantile(rows, [0.12, 0.25, 0.5, 0.75, 0.88], axis=1)

    drawn = draw_geometry(settings, seeded(1), batch_of(small))
    expected = described(numpy_matrices(settings, small, seed=1))
    np.testing.assert_allclose(described(drawn.matrix.numpy()), expected, atol=0.08)
    assert drawn.missed.float().mean().item() == pytest.approx(settings.misses, abs=0.02)
    assert drawn.mirrored.float().mean().item() == pytest.approx(settings.left, abs=0.03)


def test_warped_pixels_are_those_of_opencv(crops: Crops, monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = some_matrices()
    stored = torch.from_numpy(crops.images).permute(0, 3, 1, 2).float()

    class Always:
        """Stands in for the generator that chooses the border."""

        def __init__(self, border: int) -> None:
            self.border = border

        def integers(self, choices: int) -> int:
            return self.border

    for border in (0, 1):
        warped = warp(
            stored, torch.from_numpy(matrices), INPUT, torch.full((COUNT,), border)
        ).permute(0, 2, 3, 1)
        for i in range(COUNT):
            want = STILL._warp(Always(border), crops.images[i], matrices[i])  # type: ignore[arg-type]
            error = np.abs(warped[i].numpy() - want)
            assert error.mean() < 1.5, (border, i)
            # Black borders shift by part of a pixel where OpenCV shrinks in another way.
            assert np.quantile(error, 0.95) < 8, (border, i)


def test_a_mirrored_border_reflects_about_the_last_pixel() -> None:
    picture = torch.rand(1, 3, 16, 16, generator=seeded()) * 255
    shifted = torch.tensor([[[1.0, 0.0, 5 / 16], [0.0, 1.0, 0.0]]], dtype=torch.float64)
    seen = warp(picture, shifted, 16, torch.tensor([2]))
    assert torch.allclose(seen[..., 5:], picture[..., :-5], atol=0.01)
    assert torch.allclose(seen[..., :5], picture[..., 1:6].flip(3), atol=0.01)


def test_a_shrunk_checkerboard_turns_grey_and_not_to_moire() -> None:
    board = ((torch.arange(160)[:, None] + torch.arange(160)) % 2 * 255.0).expand(1, 3, -1, -1)
    half = torch.tensor([[[0.4, 0.0, 0.3], [0.0, 0.4, 0.3]]], dtype=torch.float64)
    seen = warp(board, half, 128, torch.tensor([1]))
    assert (seen[..., 45:83, 45:83] - 127.5).abs().max() < 1


def test_a_dot_stays_on_its_joint(crops: Crops, monkeypatch: pytest.MonkeyPatch) -> None:
    """Independent of the NumPy version: the brightness lies where the label says."""
    rows, columns = np.mgrid[:STORED, :STORED]
    dots = crops.take(np.arange(COUNT))
    for i in range(COUNT):
        u, v = dots.joints[i, i % 21, :2]
        squared = (columns + 0.5 - u * STORED) ** 2 + (rows + 0.5 - v * STORED) ** 2
        dots.images[i] = np.round(250 * np.exp(-squared / (2 * 2.5**2)))[..., None]
    monkeypatch.setattr(augment_torch, "develop", lambda _, images: images)
    monkeypatch.setattr(  # black borders
        augment_torch, "warp", lambda image, m, side, _: warp(image, m, side, torch.zeros(len(m)))
    )
    out = augment(Augmentation(occluders=0, misses=0, grounds=0), seeded(), batch_of(dots))
    checked = 0
    for i in range(COUNT):
        u, v = out["joints"][i, i % 21, :2].tolist()
        if not (0.1 < u < 0.9 and 0.1 < v < 0.9):
            continue
        grey = out["images"][i, ..., 0].double()
        grey[grey < 3] = 0
        place = (torch.arange(INPUT) + 0.5) / INPUT
        found = torch.stack([(grey.sum(0) * place).sum(), (grey.sum(1) * place).sum()])
        error = (found / grey.sum() - torch.tensor([u, v])).norm() * INPUT
        assert error < 0.5, i
        checked += 1
    assert checked > COUNT // 2


def test_occluders_cover_a_part_and_leave_the_rest() -> None:
    pictures = torch.full((64, 3, 64, 64), 100.0)
    others = torch.full((64, 3, 32, 32), 200.0)
    covered = occlude(seeded(), pictures, others)
    changed = (covered != 100).any(dim=1).float().mean(dim=(1, 2))
    # Half axes of 6 to 22 % of the side, the centre perhaps at the border.
    assert changed.max() < 0.25
    assert changed.median() > 0.02
    assert ((covered >= 0) & (covered <= 255)).all()
    assert (covered[0] != covered[1]).any()


def test_other_grounds_are_those_of_the_numpy_version(crops: Crops) -> None:
    images, grounds = crops.images[:6], crops.images[6:12]
    pairs = zip(images, crops.outline[:6], grounds, strict=True)
    expected = np.stack([reference.before(*each) for each in pairs]).astype(np.float64)
    there = (
        torch.from_numpy(part.copy()).permute(0, 3, 1, 2).float() for part in (images, grounds)
    )
    first, second = there
    made = before(first, torch.from_numpy(crops.outline[:6]), second)
    off = np.abs(made.permute(0, 2, 3, 1).numpy() - expected)
    # Pixels on the outline are counted as a whole here, in sixteenths there.
    assert off.mean() < 0.4
    assert np.quantile(off, 0.98) < 4
    apart = np.abs(images.astype(np.float64) - grounds)
    assert apart.mean() > 40


def test_known_hands_come_before_the_grounds_of_crops_without(crops: Crops) -> None:
    batch = batch_of(crops)
    batch["has_hand"][40:] = False
    stored = torch.full((COUNT, 3, STORED, STORED), 200.0)
    stored[40:, :, :, : STORED // 2] = 40
    stored[40:, :, :, STORED // 2 :] = 90
    settings = replace(STILL, grounds=1.0, busy=0.0)
    made = on_other_grounds(settings, seeded(), batch, stored, NONE)

    assert (made[:40, :, STORED // 2, STORED // 2] == 200).all()
    corner = made[:40, 0, 2, 2]
    assert torch.equal(corner != 200, batch["outline_known"][:40].any(dim=1))
    assert set(corner[::2].tolist()) == {40.0, 90.0}
    kept = on_other_grounds(replace(STILL, grounds=0.0), seeded(), batch, stored, NONE)
    assert torch.equal(kept, stored)
    half = on_other_grounds(replace(settings, grounds=0.5), seeded(), batch, stored, NONE)
    assert 4 <= int((half[:40:2, 0, 2, 2] != 200).sum()) <= 16
    batch["has_hand"][:] = True  # now there is nothing to take
    assert torch.equal(on_other_grounds(settings, seeded(), batch, stored, NONE), stored)


def test_known_hands_come_before_parts_of_other_crops(crops: Crops) -> None:
    """With hands in them or not, but never of their own."""
    batch = batch_of(crops)
    batch["outline_known"][:] = True
    stored = torch.arange(COUNT).float()[:, None, None, None].expand(-1, 3, STORED, STORED) * 4
    busy = replace(STILL, grounds=1.0, busy=1.0)
    corners = on_other_grounds(busy, seeded(), batch, stored, NONE)[:, 0, 2, 2]
    nearest = (corners / 4).round()
    assert (corners - 4 * nearest).abs().max() < 1e-3
    assert (nearest != torch.arange(COUNT)).all()
    assert len(set(nearest.tolist())) > COUNT // 3
    batch["has_hand"][1:] = True
    batch["has_hand"][0] = False  # the only one without
    some = [
        on_other_grounds(replace(busy, busy=0.3), seeded(k), batch, stored, NONE)[1:, 0, 2, 2] == 0
        for k in range(6)
    ]
    share = torch.stack(some).float().mean()
    assert float(share) == pytest.approx(0.7 + 0.3 / (COUNT - 1), abs=0.1)
    # Nor where a crop is to miss its hand, nor where there is no other crop.
    assert torch.equal(on_other_grounds(busy, seeded(), batch, stored, ~NONE), stored)
    one = {name: values[:1] for name, values in batch.items()}
    ramp = torch.arange(STORED).float()[:, None].expand(1, 3, STORED, STORED)
    for k in range(4):
        assert torch.equal(on_other_grounds(busy, seeded(k), one, ramp, NONE[:1]), ramp)


def test_grounds_are_parts_of_pictures_not_the_whole(crops: Crops) -> None:
    """Of a ramp, the ground rises as slowly as the part is small."""
    batch = batch_of(crops)
    batch["outline_known"][:] = True
    ramp = torch.arange(STORED).float()[:, None].expand(COUNT, 3, STORED, STORED)
    busy = replace(STILL, grounds=1.0, busy=1.0)
    edge = on_other_grounds(busy, seeded(), batch, ramp, NONE)[:, 0, :, 1]
    slopes = (edge[:, -8] - edge[:, 8]) / (STORED - 16)
    assert float(slopes.min()) > reference.PARTS[0] - 0.03
    assert float(slopes.max()) < reference.PARTS[1] + 0.03
    assert float(slopes.max() - slopes.min()) > 0.3


def test_parts_are_those_of_the_numpy_version(crops: Crops) -> None:
    share = torch.tensor([0.4, 0.55, 0.7, 0.9, 1.0])
    corner = torch.tensor([[0.0, 1.0], [0.3, 0.6], [0.5, 0.5], [1.0, 0.0], [0.2, 0.9]])
    smooth = [reference.cv2.GaussianBlur(image, (0, 0), 2.0) for image in crops.images[:5]]
    images = torch.from_numpy(np.stack(smooth)).permute(0, 3, 1, 2).float()
    made = parts_of(images, share, corner).permute(0, 2, 3, 1).numpy()
    rows = zip(smooth, share.tolist(), corner.double().numpy(), strict=True)
    expected = np.stack([reference.part_of(*row) for row in rows]).astype(np.float64)
    # OpenCV's places are in 32nds of a pixel.
    assert np.abs(made - expected).mean() < 0.6
    assert np.quantile(np.abs(made - expected), 0.99) < 3


def test_the_batch_has_those_grounds(crops: Crops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment_torch, "develop", lambda _, images: images)
    batch = batch_of(crops)
    batch["images"][:] = 200
    batch["has_hand"][40:] = False
    batch["images"][40:] = 40
    made = augment(replace(STILL, margin=1.9, grounds=1.0, busy=0.0), seeded(), batch)["images"]
    corners = made[:40, 8, 8, 0]
    assert torch.equal(corners < 100, batch["outline_known"][:40].any(dim=1))
    assert Augmentation().grounds > 0


def test_borders_cut_where_the_twin_cuts(crops: Crops) -> None:
    rng = np.random.default_rng(5)
    angles, shares = rng.uniform(-np.pi, np.pi, COUNT), rng.uniform(0, 0.4, COUNT)
    batch = batch_of(crops)
    batch["has_joints"][::5] = False
    beyond = augment_torch.beyond_border(
        batch, INPUT, torch.from_numpy(angles).float(), torch.from_numpy(shares).float()
    )
    for i in range(COUNT):
        image = np.full((INPUT, INPUT, 3), 9, dtype=np.uint8)
        reference.cut(image, crops.joints[i] if i % 5 else None, angles[i], shares[i])
        # The twins round the same line apart.
        assert (beyond[i].numpy() != (image[..., 0] == 0)).mean() < 0.001, i


def test_the_batch_has_those_borders(crops: Crops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment_torch, "develop", lambda _, images: images)
    batch = batch_of(crops)
    batch["images"][:] = 200
    black = []
    for seed in range(6):
        made = augment(replace(STILL, margin=1.9, cut=0.3), seeded(seed), batch)
        black.append((made["images"] == 0).all(dim=3).float().mean(dim=(1, 2)))
        torch.testing.assert_close(made["joints"], batch["joints"], atol=1e-5, rtol=0)
    share = torch.cat(black)
    assert int((share > 0).sum()) == pytest.approx(0.3 * len(share), abs=26)
    assert float(share.max()) < 0.75
    assert Augmentation().cut > 0


def test_borders_cross_the_hand_as_the_input_shows_it(
    crops: Crops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turned, shifted and mirrored hands, each cut by a border of its own, after the camera."""
    monkeypatch.setattr(augment_torch, "develop", lambda _, images: torch.full_like(images, 255))
    mixed = replace(STILL, anyhow=1, shift=0.05, margin=1.5, left=0.5, cut=1)
    out = augment(mixed, seeded(1), batch_of(crops))
    black = (out["images"] == 0).all(dim=3).numpy()  # (B, S, S)
    shares = []
    for beyond, joints in zip(black, out["joints"].numpy(), strict=True):
        gradient = np.array([np.diff(beyond.astype(float), axis=1 - k).sum() for k in (0, 1)])
        direction = gradient / np.linalg.norm(gradient)
        along = joints[:, :2] @ direction
        place = ((np.argwhere(~beyond)[:, ::-1] + 0.5) / INPUT @ direction).max()
        shares.append((along.max() - place) / (along.max() - along.min()))
    assert min(shares) > -0.02
    assert 0.3 < max(shares) < 0.42
    assert np.mean(shares) == pytest.approx(0.2, abs=0.06)


def test_the_same_seed_gives_the_same_batch(crops: Crops) -> None:
    batch = batch_of(crops)
    one, two, other = (augment(Augmentation(), seeded(s), batch) for s in (3, 3, 4))
    assert set(one) == {f.name for f in fields(Crops)}
    for name in one:
        assert torch.equal(one[name], two[name]), name
    assert not torch.equal(one["images"], other["images"])
    assert one["images"].dtype == torch.uint8
    assert one["images"].shape == (COUNT, INPUT, INPUT, 3)
    assert torch.equal(batch["images"], torch.from_numpy(crops.images)), "input unchanged"
