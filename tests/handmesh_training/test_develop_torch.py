"""Focus, motion, colour and compression in torch against OpenCV, picture by picture."""

from __future__ import annotations

from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh.errors import InputError
from handmesh_training import augment, develop_torch
from handmesh_training.develop_torch import (
    FILTER_SIZES,
    blur_map,
    compress,
    develop,
    filtered,
    move,
    random_filters,
    relight,
    shift_colours,
    small_maps,
)

SIDE = 96


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """(96, 96, 3) uint8 with edges, gradients and grain."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.uniform(0, 255, (7, 7, 3)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    cv2.circle(image, (40, 50), 20, (200, 120, 90), -1)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def tensor(picture: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float()


def pixels(image: torch.Tensor) -> NDArray[np.float32]:
    return image[0].permute(1, 2, 0).numpy()


def through(lens: torch.Tensor, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    return pixels(lens[:, None] @ tensor(picture) @ lens[:, None].transpose(2, 3))


@pytest.mark.parametrize("sigma", [0.4, 1.0, 1.6])
def test_blur_is_opencvs(picture: NDArray[np.uint8], sigma: float) -> None:
    want = cv2.GaussianBlur(picture.astype(np.float64), (13, 13), sigma)
    got = through(blur_map(torch.tensor([sigma]), SIDE), picture)
    np.testing.assert_allclose(got, want, atol=0.01)


@pytest.mark.parametrize("small", [24, 31, 50, 76])
def test_lost_resolution_is_opencvs(picture: NDArray[np.uint8], small: int) -> None:
    less = cv2.resize(picture.astype(np.float64), (small, small), interpolation=cv2.INTER_AREA)
    want = cv2.resize(less, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    down, up = small_maps(torch.tensor([float(small)]), SIDE)
    got = through(up @ down, picture)
    np.testing.assert_allclose(got, want, atol=0.05)


def test_motion_runs_along_its_angle(picture: NDArray[np.uint8]) -> None:
    images = tensor(picture).expand(4, -1, -1, -1)
    length = torch.tensor([1, 5, 5, 7])
    angle = torch.tensor([0.3, 0.0, np.pi / 2, 0.8])
    moved = move(images, length, angle)
    assert torch.equal(moved[0], images[0])
    image = picture.astype(np.float64)
    for i, kernel in ((1, np.full((1, 5), 0.2)), (2, np.full((5, 1), 0.2))):
        want = cv2.filter2D(image, -1, kernel)
        np.testing.assert_allclose(pixels(moved[i : i + 1]), want, atol=0.01)
    assert moved[3].mean().item() == pytest.approx(images[3].mean().item(), rel=0.01)
    assert moved[3].std() < images[3].std()


@pytest.mark.parametrize(("turn", "saturation"), [(0, 1.0), (9, 0.6), (-15, 1.5)])
def test_colours_shift_as_in_opencvs_hsv(
    picture: NDArray[np.uint8], turn: int, saturation: float
) -> None:
    hsv = cv2.cvtColor((picture / 255).astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + turn) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
    want = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
    shifted = shift_colours(tensor(picture), torch.tensor([turn / 360]), torch.tensor([saturation]))
    np.testing.assert_allclose(pixels(shifted), want, atol=0.05)


@pytest.mark.parametrize("side", [SIDE, 90])
@pytest.mark.parametrize("quality", [20, 50, 84])
def test_compression_leaves_what_jpeg_leaves(
    picture: NDArray[np.uint8], quality: int, side: int
) -> None:
    image = np.ascontiguousarray(picture[:side, :side])
    packed = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    want = cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float64)
    got = pixels(compress(tensor(image), torch.tensor([quality])))
    ours, theirs = got - want, want - image
    assert np.sqrt((ours**2).mean()) < 0.35 * np.sqrt((theirs**2).mean()), "the same artefacts"


def test_compression_wants_square_colour_pictures() -> None:
    with pytest.raises(InputError, match="got"):
        compress(torch.zeros(1, 3, 16, 24), torch.tensor([50]))


def _small_and_packed(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """All pictures reduced to 36 pixels and compressed at quality 50, and nothing else."""
    settings = {
        "FILTERED_SHARE": 0.0, "RELIT_SHARE": 0.0, "BLURRED_SHARE": 0.0, "MOVED_SHARE": 0.0,
        "GRAINY_SHARE": 0.0, "SMALL_SHARE": 1.0, "SMALL": (36.5 / SIDE, 36.5 / SIDE),
        "PACKED_SMALL_SHARE": 1.0, "PACKED_SMALL": (50, 51),
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setattr(module, name, value)


def test_small_hands_are_compressed_before_they_are_enlarged(
    picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of JPEG are eight pixels of the small picture: by both twins, as by OpenCV's steps."""
    small = cv2.resize(picture, (36, 36), interpolation=cv2.INTER_AREA)
    packed = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    less = np.ascontiguousarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1])
    want = cv2.resize(less, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR).astype(float)
    uncompressed = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR).astype(float)

    _small_and_packed(monkeypatch, augment)
    monkeypatch.setattr(augment, "_tone_curve", lambda rng: np.arange(256, dtype=np.uint8)[None])
    monkeypatch.setattr(augment, "GREY_SHARE", 0.0)
    monkeypatch.setattr(augment, "SHIFTED_SHARE", 0.0)
    rng = np.random.default_rng(0)
    noise = np.zeros((SIDE + 32, SIDE + 32, 3), np.float32)
    np.testing.assert_array_equal(augment.develop(rng, picture, noise), want)

    _small_and_packed(monkeypatch, develop_torch)
    monkeypatch.setattr(develop_torch, "_tone", lambda generator, images: images)
    monkeypatch.setattr(develop_torch, "_colours", lambda generator, images: images)
    made = pixels(develop(torch.Generator().manual_seed(0), tensor(picture)))
    ours, theirs = made - want, want - uncompressed
    assert np.sqrt((ours**2).mean()) < 0.4 * np.sqrt((theirs**2).mean()), "the same artefacts"


def test_shares_of_small_shaken_and_compressed_pictures_are_those_told(
    picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, torch.Tensor] = {}

    def keep(name: str, place: int) -> None:
        does = getattr(develop_torch, name)

        def kept(*arguments: torch.Tensor) -> object:
            asked[name] = arguments[place]
            return does(*arguments)

        monkeypatch.setattr(develop_torch, name, kept)

    for name, place in (("small_maps", 0), ("move", 1), ("compress", 1)):
        keep(name, place)
    count = 600
    batch = tensor(picture[:32, :32].copy()).expand(count, -1, -1, -1)
    develop(torch.Generator().manual_seed(2), batch)
    size, length, quality = (asked[name] for name in ("small_maps", "move", "compress"))
    small = size < 32
    assert int(small.sum()) == pytest.approx(0.3 * count, abs=45)
    assert 6 <= float(size.min()) <= 7
    assert float(size[small].max()) >= 23
    assert int((length > 1).sum()) == pytest.approx(0.12 * count, abs=35)
    assert 13 <= float(length.max()) <= 15
    assert torch.equal(length, length.floor())
    assert 30 <= float(quality[small].min()) < 36
    assert 84 < float(quality[small].max()) < 90
    assert 20 <= float(quality[~small].min()) < 24
    assert 80 < float(quality[~small].max()) < 85


def test_developed_pictures_are_whole_levels_and_differ(picture: NDArray[np.uint8]) -> None:
    images = tensor(picture).expand(40, -1, -1, -1)
    seen = develop(torch.Generator().manual_seed(0), images)
    again = develop(torch.Generator().manual_seed(0), images)
    assert torch.equal(seen, again)
    assert torch.equal(seen, seen.round())
    assert seen.min() >= 0
    assert seen.max() <= 255
    assert (seen.flatten(1)[1:] != seen.flatten(1)[:1]).any(dim=1).all()
    # On average the brightness stays about what it was.
    assert seen.mean().item() == pytest.approx(images.mean().item(), rel=0.1)


@pytest.mark.parametrize("size", FILTER_SIZES)
def test_filters_are_opencvs(picture: NDArray[np.uint8], size: int) -> None:
    rng = np.random.default_rng(size)
    weights = rng.normal(0, 0.4 / np.sqrt(3 * size * size), (2, 3, 3, size, size))
    weights[:, range(3), range(3), size // 2, size // 2] += 0.6
    both = torch.cat([tensor(picture), tensor(picture[::-1].copy())])
    got = filtered(both, torch.from_numpy(weights).float())
    for k, image in enumerate((picture, picture[::-1])):
        want = augment.filtered(image, weights[k]).astype(np.float64)
        # One keeps fractions, the other cuts them off.
        np.testing.assert_allclose(pixels(got[k : k + 1]) - 0.5, want, atol=0.51)


@pytest.mark.parametrize("evened", [0.0, 0.7])
def test_light_is_cast_as_by_opencv(picture: NDArray[np.uint8], evened: float) -> None:
    field = np.random.default_rng(1).normal(0, 0.3, (2, 4, 4))
    dark = picture[::-1] // 4
    both = torch.cat([tensor(picture), tensor(dark)])
    shares = [evened, 0.8 - evened]
    got = relight(both, torch.from_numpy(field).float(), torch.tensor(shares))
    for k, image in enumerate((picture, dark)):
        want = augment.relight(image, field[k], shares[k]).astype(np.float64)
        # One keeps fractions, the other cuts them off, here and in the cells it averages.
        np.testing.assert_allclose(pixels(got[k : k + 1]) - 0.5, want, atol=1.5)


def test_random_filters_are_of_every_size_and_as_strong_as_a_picture() -> None:
    weights = random_filters(torch.Generator().manual_seed(4), 4000)
    off = weights.clone()
    middle = FILTER_SIZES[-1] // 2
    off[:, range(3), range(3), middle, middle] = 0
    reach = [(off[:, :, :, middle, middle + k :].abs().amax(dim=(1, 2, 3)) > 0) for k in range(4)]
    widest = torch.stack([beyond.float() for beyond in reach]).sum(dim=0)  # 1 to 4: its half side
    assert [int((widest == n).sum()) for n in (1, 2, 3, 4)] == pytest.approx([1000] * 4, abs=120)
    # Noise of unit strength comes out with that of (1 - share) and share times noise, on average
    # the integral of (1 - a)^2 + a^2 over a: two thirds.
    power = weights.square().sum(dim=(2, 3, 4)).mean()
    assert float(power) == pytest.approx(2 / 3, abs=0.03)
    inside = weights.diagonal(dim1=1, dim2=2)[:, middle, middle].mean()
    assert float(inside) == pytest.approx(0.5, abs=0.03)


def test_a_fifth_of_the_pictures_is_filtered(
    picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the filters make of a picture is seen in as many as are told to go through them."""
    monkeypatch.setattr(develop_torch, "RELIT_SHARE", 0.0)
    inverted = -torch.eye(3).view(1, 3, 3, 1, 1)
    monkeypatch.setattr(
        develop_torch, "random_filters", lambda generator, count: inverted.expand(count, 3, 3, 1, 1)
    )
    batch = tensor(picture).expand(300, -1, -1, -1)
    made = develop(torch.Generator().manual_seed(0), batch).mean(dim=1).flatten(1)  # (B, S^2)
    plain = tensor(picture).mean(dim=1).flatten(1)
    likeness = torch.nn.functional.cosine_similarity(
        made - made.mean(dim=1, keepdim=True), plain - plain.mean(), dim=1
    )
    assert (likeness.abs() > 0.3).all()
    assert int((likeness < 0).sum()) == pytest.approx(60, abs=28)


def test_two_fifths_of_the_pictures_are_lit_anew(
    picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(develop_torch, "FILTERED_SHARE", 0.0)
    drawn = []
    monkeypatch.setattr(
        develop_torch,
        "relight",
        lambda images, field, evened: drawn.append((field, evened)) or images.flip(2),
    )
    batch = tensor(picture).expand(300, -1, -1, -1)
    made = develop(torch.Generator().manual_seed(0), batch).mean(dim=1).flatten(1)  # (B, S^2)

    def likeness(image: torch.Tensor) -> torch.Tensor:
        plain = image.mean(dim=1).flatten(1)
        off = made - made.mean(dim=1, keepdim=True)
        return torch.nn.functional.cosine_similarity(off, plain - plain.mean(), dim=1)

    turned = likeness(tensor(picture).flip(2)) > likeness(tensor(picture))
    assert int(turned.sum()) == pytest.approx(120, abs=35)
    ((field, evened),) = drawn
    assert field.shape == (300, 4, 4)
    spread = field.flatten(1).std(dim=1)
    assert float(spread.mean()) == pytest.approx(0.35 / 2, abs=0.02)
    assert float(spread.std()) > 0.07, "each picture's own"
    assert float(evened.mean()) == pytest.approx(0.4, abs=0.05)
    assert float(evened.std()) == pytest.approx(0.8 / 12**0.5, abs=0.03)
