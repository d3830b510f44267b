"""Focus, motion, colour and compression in torch against OpenCV, picture by picture."""

from __future__ import annotations

import math
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh.errors import InputError
from handmesh_training import develop as numpy_twin
from handmesh_training import develop_torch
from handmesh_training.develop_torch import (
    FILTER_SIZES,
    blur_map,
    compress,
    develop,
    filtered,
    move,
    random_filters,
    relight,
    repeated,
    shift_colours,
    small_maps,
)

SIDE = 96
THIRTY_SIX = (36.5 / SIDE, 36.5 / SIDE)  # pixels, of so many


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


def test_small_pictures_end_with_their_last_pixel_repeated(picture: NDArray[np.uint8]) -> None:
    """As libjpeg fills a picture's last blocks; and a picture of full size is itself, exactly."""
    small = torch.tensor([19.0, SIDE])
    down, up = small_maps(small, SIDE)
    assert torch.equal(down[0, 19:], down[0, 18:19].expand(SIDE - 19, -1))
    torch.testing.assert_close(down.sum(dim=2), torch.ones(2, SIDE))
    assert torch.equal(down[1], torch.eye(SIDE))
    assert torch.equal(up[1], torch.eye(SIDE))
    both = tensor(picture).expand(2, -1, -1, -1)
    filled = repeated(both, small)
    want = picture[np.minimum(np.arange(SIDE), 18)][:, np.minimum(np.arange(SIDE), 18)]
    np.testing.assert_array_equal(pixels(filled[:1]), want)
    assert torch.equal(filled[1], both[1])


def test_motion_runs_along_its_angle(picture: NDArray[np.uint8]) -> None:
    images = tensor(picture).expand(5, -1, -1, -1)
    length = torch.tensor([1, 5, 5, 15, 7])
    angle = torch.tensor([0.3, 0.0, np.pi / 2, 0.0, 0.8])
    moved = move(images, length, angle)
    assert torch.equal(moved[0], images[0])
    image = picture.astype(np.float64)
    lines = (
        (1, np.full((1, 5), 1 / 5)),
        (2, np.full((5, 1), 1 / 5)),
        (3, np.full((1, 15), 1 / 15)),
    )
    for i, kernel in lines:
        want = cv2.filter2D(image, -1, kernel)
        np.testing.assert_allclose(pixels(moved[i : i + 1]), want, atol=0.01)
    assert moved[4].mean().item() == pytest.approx(images[4].mean().item(), rel=0.01)
    assert moved[4].std() < images[4].std()


@pytest.mark.parametrize("length", [3, 4, 8, 10, 15])
@pytest.mark.parametrize("angle", [0.0, 0.4, 0.8, 2.5])
def test_shaken_pictures_stay_in_place_and_are_those_of_opencv(length: int, angle: float) -> None:
    dot = np.zeros((61, 61, 3), dtype=np.uint8)
    dot[30, 30] = 255
    made = numpy_twin.shaken(dot, length, angle)[..., 0].astype(float)
    rows, columns = np.indices(made.shape)
    middle = (rows * made).sum() / made.sum(), (columns * made).sum() / made.sum()
    np.testing.assert_allclose(middle, (30, 30), atol=0.02)
    along = (columns - 30) * np.cos(angle) + (rows - 30) * np.sin(angle)
    # The variance of a line of that length, along it.
    spread = np.sqrt((made * along**2).sum() / made.sum())
    assert spread == pytest.approx(length / 12**0.5, abs=0.35)
    twin = move(tensor(dot), torch.tensor([length]), torch.tensor([angle]))
    np.testing.assert_allclose(pixels(twin)[..., 0], made, atol=0.51)


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
        "FILTERED_SHARE": 0.0, "RELIT_SHARE": 0.0, "PATTERNED_SHARE": 0.0,
        "BLURRED_SHARE": 0.0, "MOVED_SHARE": 0.0, "GRAINY_SHARE": 0.0,
        "SMALL_SHARE": 1.0, "SMALL": THIRTY_SIX,
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

    _small_and_packed(monkeypatch, numpy_twin)
    monkeypatch.setattr(numpy_twin, "_tone_curve", lambda rng: np.arange(256, dtype=np.uint8)[None])
    monkeypatch.setattr(numpy_twin, "GREY_SHARE", 0.0)
    monkeypatch.setattr(numpy_twin, "SHIFTED_SHARE", 0.0)
    rng = np.random.default_rng(0)
    noise = np.zeros((SIDE + 32, SIDE + 32, 3), np.float32)
    np.testing.assert_array_equal(numpy_twin.develop(rng, picture, noise, small=THIRTY_SIX), want)

    _small_and_packed(monkeypatch, develop_torch)
    monkeypatch.setattr(develop_torch, "_tone", lambda generator, images: images)
    monkeypatch.setattr(develop_torch, "_colours", lambda generator, images: images)
    made = pixels(develop(torch.Generator().manual_seed(0), tensor(picture)))
    ours, theirs = made - want, want - uncompressed
    assert np.sqrt((ours**2).mean()) < 0.4 * np.sqrt((theirs**2).mean()), "the same artefacts"


def test_grain_is_of_the_small_pictures_pixels(
    picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbours have grain in common where a picture of 36 pixels is enlarged to 96."""
    flat = np.full_like(picture, 128)
    same = np.arange(256, dtype=np.uint8)[None]
    for module in (numpy_twin, develop_torch):
        _small_and_packed(monkeypatch, module)
        for name, value in (("GRAINY_SHARE", 1.0), ("GRAIN", (10, 10)), ("PACKED_SMALL_SHARE", 0)):
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(numpy_twin, "_tone_curve", lambda rng: same)
    monkeypatch.setattr(develop_torch, "_tone", lambda generator, images: images)
    noise = np.random.default_rng(3).normal(0, 1, (160, 160, 3)).astype(np.float32)
    by_opencv = numpy_twin.develop(np.random.default_rng(0), flat, noise, small=THIRTY_SIX).astype(
        float
    )
    by_torch = pixels(develop(torch.Generator().manual_seed(0), tensor(flat)))
    for made in (by_opencv, by_torch):
        off = made.mean(axis=2) - made.mean()
        assert off.std() > 2
        assert (off[:, 1:] * off[:, :-1]).mean() / off.var() > 0.6


def test_stripes_and_dapples_are_those_of_the_twin() -> None:
    rng = np.random.default_rng(8)
    number, angle, phase = rng.uniform(2, 24, 6), rng.uniform(0, np.pi, 6), rng.uniform(0, 6, 6)
    waves = develop_torch.stripes(
        SIDE, *(torch.from_numpy(x).float() for x in (number, angle, phase))
    )
    heights = rng.normal(0, 1, (6, 16, 16)).astype(np.float32)
    cells = np.array([5, 6, 8, 11, 13, 16])
    spots = develop_torch.dapples(SIDE, torch.from_numpy(cells).float(), torch.from_numpy(heights))
    for k, n in enumerate(cells):
        want = numpy_twin.stripes(SIDE, number[k], angle[k], phase[k])
        np.testing.assert_allclose(waves[k].numpy(), want, atol=1e-3)
        want = numpy_twin.dapples(SIDE, np.ascontiguousarray(heights[k, :n, :n]))
        np.testing.assert_allclose(spots[k].numpy(), want, atol=1e-4)
    # So many crests along a line in the stripes' direction.
    across = numpy_twin.stripes(400, 7.0, 0.0, 0.0)[0]
    assert np.count_nonzero((across[:-1] < 0) & (across[1:] >= 0)) in (6, 7)


def test_as_many_pictures_as_told_lie_in_patterned_light(
    picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a white ground both twins: how many, how deep the shadows are, and that light stays."""
    count, white = 300, np.full((64, 64, 3), 250, dtype=np.uint8)
    for module in (numpy_twin, develop_torch):
        _small_and_packed(monkeypatch, module)
        monkeypatch.setattr(module, "PATTERNED_SHARE", 0.2)
        monkeypatch.setattr(module, "SMALL_SHARE", 0.0)
        monkeypatch.setattr(module, "PACKED_SHARE", 0.0)
    same = np.arange(256, dtype=np.uint8)[None]
    monkeypatch.setattr(numpy_twin, "_tone_curve", lambda rng: same)
    monkeypatch.setattr(numpy_twin, "GREY_SHARE", 0.0)
    monkeypatch.setattr(numpy_twin, "SHIFTED_SHARE", 0.0)
    monkeypatch.setattr(develop_torch, "_tone", lambda generator, images: images)
    monkeypatch.setattr(develop_torch, "_colours", lambda generator, images: images)
    rng, noise = np.random.default_rng(6), np.zeros((96, 96, 3), np.float32)
    by_opencv = np.stack([numpy_twin.develop(rng, white, noise) for _ in range(count)])
    batch = tensor(white).expand(count, -1, -1, -1)
    by_torch = develop(torch.Generator().manual_seed(6), batch).permute(0, 2, 3, 1).numpy()
    for made in (by_opencv.astype(float), by_torch):
        changed = made[(made != 250).any(axis=(1, 2, 3))]
        assert len(changed) == pytest.approx(0.2 * count, abs=25)
        assert changed.max(axis=(1, 2, 3)).min() > 200, "light stays somewhere"
        darkest = changed.min(axis=(1, 2, 3)) / 250
        assert 0.28 < darkest.min() < 0.6
        assert darkest.max() > 0.8


def test_shadows_are_as_deep_as_told_and_the_picture_as_bright(
    picture: NDArray[np.uint8],
) -> None:
    rng = np.random.default_rng(2)
    pattern = rng.uniform(0, 1, (2, SIDE, SIDE)).astype(np.float32)
    pattern[:, 0, :2] = 0, 1
    dim = (picture // 3 + 10).astype(np.uint8)  # nothing is clipped
    shadow = np.array([0.2, 0.7], np.float32)
    both = tensor(dim).expand(2, -1, -1, -1)
    made = develop_torch.shadowed(
        both, torch.from_numpy(pattern)[:, None], torch.from_numpy(shadow)
    )
    for k in range(2):
        gain = pixels(made[k : k + 1]) / dim
        np.testing.assert_allclose(gain[0, 0] / gain[0, 1], 1 - shadow[k], rtol=1e-5)
        assert gain.mean() == pytest.approx(1, abs=1e-4)
        want = numpy_twin.shadowed(dim, pattern[k], float(shadow[k])).astype(float)
        # One keeps fractions, the other cuts them off.
        np.testing.assert_allclose(pixels(made[k : k + 1]) - 0.5, want, atol=0.51)


def test_what_is_compressed_ends_with_its_last_grain_repeated(
    picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    _small_and_packed(monkeypatch, develop_torch)
    monkeypatch.setattr(develop_torch, "GRAINY_SHARE", 1.0)
    monkeypatch.setattr(develop_torch, "compress", lambda im, _: given.append(im) or im)
    develop(torch.Generator().manual_seed(0), tensor(picture))
    (images,) = given
    assert torch.equal(images[:, :, 36:], images[:, :, 35:36].expand(-1, -1, SIDE - 36, -1))
    assert torch.equal(images[..., 36:], images[..., 35:36].expand(-1, -1, -1, SIDE - 36))


def test_each_step_is_taken_by_its_share(
    picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both twins: which pictures are small, shaken, out of focus, compressed, and how strongly."""
    count = 900
    image = np.ascontiguousarray(picture[:64, :64])
    asked: dict[str, list[float]] = {"small": [], "length": [], "sigma": [], "quality": []}
    packed_small: list[bool] = []

    def resize(source: NDArray[np.uint8], size: tuple[int, int], **how: int) -> NDArray[np.uint8]:
        if how["interpolation"] == cv2.INTER_AREA:
            asked["small"].append(size[0] / 64)
        return cv2.resize(source, size, **how)

    def blur(source: NDArray[np.uint8], size: tuple[int, int], sigma: float) -> object:
        asked["sigma"].append(sigma)
        return cv2.GaussianBlur(source, size, sigma)

    recorded = SimpleNamespace(**(vars(cv2) | {"resize": resize, "GaussianBlur": blur}))

    def compressed(source: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
        packed_small.append(len(source) < 64)
        asked["quality"].append(quality)
        return source

    shaken = numpy_twin.shaken
    monkeypatch.setattr(numpy_twin, "cv2", recorded)
    monkeypatch.setattr(numpy_twin, "compress", compressed)
    monkeypatch.setattr(
        numpy_twin, "shaken", lambda im, n, a: asked["length"].append(n) or shaken(im, n, a)
    )
    monkeypatch.setattr(numpy_twin, "RELIT_SHARE", 0.0)
    rng, noise = np.random.default_rng(1), np.zeros((160, 160, 3), np.float32)
    for _ in range(count):
        numpy_twin.develop(rng, image, noise)
    numpys = {name: np.array(values) for name, values in asked.items()}
    is_small = np.array(packed_small)
    _check_shares(count, numpys, int(is_small.sum()), int((~is_small).sum()))
    assert numpys["quality"][is_small].min() >= 30
    assert numpys["quality"][~is_small].max() < 85

    kept: dict[str, torch.Tensor] = {}

    def keep(name: str, place: int) -> None:
        does = getattr(develop_torch, name)

        def kept_too(*arguments: torch.Tensor) -> object:
            kept[name] = arguments[place]
            return does(*arguments)

        monkeypatch.setattr(develop_torch, name, kept_too)

    for name, place in (("small_maps", 0), ("move", 1), ("blur_map", 0)):
        keep(name, place)
    marked: list[torch.Tensor] = []
    monkeypatch.setattr(
        develop_torch, "compress", lambda im, q: marked.append(q) or torch.full_like(im, -1.0)
    )
    # What is not compressed is above 0 somewhere; what is comes out black.
    monkeypatch.setattr(develop_torch, "_tone", lambda generator, images: images.clamp(min=9))
    made = develop(torch.Generator().manual_seed(2), tensor(image).expand(count, -1, -1, -1))
    packed = (made.flatten(1) == 0).all(dim=1)
    size, length = kept["small_maps"] / 64, kept["move"]
    small = size < 1
    torchs = {
        "small": size[small].numpy(), "length": length[length > 1].numpy(),
        "quality": marked[0].numpy(), "sigma": kept["blur_map"].numpy(),
    }  # fmt: skip
    _check_shares(count, torchs, int((packed & small).sum()), int((packed & ~small).sum()))
    assert float(marked[0][small].min()) >= 30
    assert float(marked[0][~small].max()) < 85


def _check_shares(
    count: int, asked: dict[str, NDArray[np.float64]], packed_small: int, packed: int
) -> None:
    small, length, quality = (asked[name] for name in ("small", "length", "quality"))
    assert len(small) == pytest.approx(0.3 * count, abs=45)
    assert 0.18 <= small.min() < 0.23
    assert 0.72 < small.max() <= 0.8
    assert np.median(small) == pytest.approx(0.4, abs=0.05), "as many in each octave"
    assert len(length) == pytest.approx(0.12 * count, abs=35)
    assert set(length) <= set(range(3, 16))
    assert max(length) >= 13
    assert (length <= 5).mean() == pytest.approx(math.log(2) / math.log(16 / 3), abs=0.11)
    assert packed_small == pytest.approx(0.6 * 0.3 * count, abs=40)
    assert packed == pytest.approx(0.25 * 0.7 * count, abs=40)
    assert 20 <= quality.min() < 30
    assert 85 < quality.max() < 90
    assert 0.4 <= asked["sigma"].min() < 0.6
    assert 1.4 < asked["sigma"].max() <= 1.6


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
        want = numpy_twin.filtered(image, weights[k]).astype(np.float64)
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
        want = numpy_twin.relight(image, field[k], shares[k]).astype(np.float64)
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
    monkeypatch.setattr(develop_torch, "PATTERNED_SHARE", 0.0)
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
    monkeypatch.setattr(develop_torch, "PATTERNED_SHARE", 0.0)
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
