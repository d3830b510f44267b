"""The bundle that ships with the package, on real photos: what a user gets after `pip install`."""

from __future__ import annotations

import json
import shutil
from inspect import signature
from pathlib import Path

import cv2
import numpy as np
import pytest

import handmesh as sdk
from handmesh.bundle import shipped as bundles_inside
from handmesh.cli import main
from handmesh.detector_verification import DetectorDifference
from handmesh.graph import Topology
from handmesh.verification import read_reference, verify

# All five are left hands.
NAMES = ("open", "open_turned", "pointing", "hooked", "fist")
# Marked by eye, pixels, good to about 10: joint -> place. Finger tips, and of the fist, whose tips
# are in the palm, the thumb's and the index finger's middle joint.
TIPS_PX = {
    "open": {4: (259, 15), 8: (495, 138), 12: (548, 259), 16: (528, 321), 20: (441, 444)},
    "pointing": {8: (217, 104)},
    "hooked": {8: (305, 215)},
    "fist": {4: (318, 297), 6: (250, 268)},
}


@pytest.fixture(scope="module")
def shipped() -> sdk.Bundle:
    return sdk.Bundle.load()


@pytest.fixture(scope="module")
def predictor(shipped: sdk.Bundle) -> sdk.Predictor:
    return sdk.load(shipped, threads=1)


def test_bundle_is_whole_and_of_the_shipped_graph(shipped: sdk.Bundle) -> None:
    shipped.check()
    assert shipped.name == "light"
    assert {"onnx", "torch"} <= set(shipped.artifacts)
    assert shipped.topology.sha256 == Topology.default().sha256
    assert set(shipped.manifest["licences"]) >= {"code", "weights", "data"}
    assert shipped.manifest["provenance"]


def test_the_readme_has_the_figures_of_the_manifest(shipped: sdk.Bundle) -> None:
    figures = shipped.manifest["provenance"]["figures"]
    assert figures["command"].startswith("handmesh evaluate --rendered 5000 ")
    assert figures["looks"] == signature(sdk.predict).parameters["looks"].default
    assert figures["rendered"]["hands"] == 5000
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    told = readme.partition("### How good it is")[2].partition("###")[0]
    for name in ("asl_digits:held-out", "kaust_rps"):
        of = figures[name]
        assert f"{of['hands']} " in told
        assert f"{100 * of['image_share']:.1f} %" in told
        assert f"{of['joints_pa_mm']:.1f} mm" in told


def test_one_flipped_byte_in_any_file_is_found(shipped: sdk.Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(shipped.folder, folder)
    for name in shipped.manifest["files"]:
        path = folder / name
        original = path.read_bytes()
        damaged = bytearray(original)
        damaged[len(damaged) // 3] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(sdk.IntegrityError, match=path.name):
            sdk.Bundle.load(folder).check()
        path.write_bytes(original)


def test_every_runtime_computes_what_the_network_computed(shipped: sdk.Bundle) -> None:
    differences = {d.backend.split()[0]: d for d in verify(shipped)}
    assert {"onnxruntime", "torch"} <= set(differences)
    for difference in differences.values():
        assert difference.crops >= 16
        assert difference.passed
    # The weights are stored with ten bits; what torch computes with them it computes exactly.
    assert differences["torch"].tensor < 1e-4
    assert differences["torch"].mm < 0.05
    assert differences["onnxruntime"].tensor < 5e-3
    assert differences["onnxruntime"].mm < 0.5


def test_reference_shows_hands_that_the_network_sees(shipped: sdk.Bundle) -> None:
    images, reference = read_reference(shipped)
    assert images.shape[1:] == (shipped.image_size, shipped.image_size, 3)
    assert np.median(reference.presence) > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_the_hand_of_each_example_is_found(
    predictor: sdk.Predictor, example_photos: dict[str, Path], name: str
) -> None:
    (hand,) = predictor.predict(example_photos[name])
    height, width = cv2.imread(str(example_photos[name])).shape[:2]
    assert hand.backend.startswith("onnxruntime")
    assert hand.handedness == "left"
    # All are near the middle and of at least a quarter of the photo's shorter side.
    assert np.ptp(hand.joints_px, axis=0).max() > 0.25 * min(width, height)
    inside = (hand.joints_px > -0.05 * width) & (hand.joints_px < (1.05 * width, 1.05 * height))
    assert inside.all()


@pytest.mark.parametrize("name", TIPS_PX)
def test_fingertips_lie_on_fingertips(
    predictor: sdk.Predictor, example_photos: dict[str, Path], name: str
) -> None:
    (hand,) = predictor.predict(example_photos[name], handedness="left")
    extent = np.ptp(hand.joints_px, axis=0).max()
    for joint, place in TIPS_PX[name].items():
        miss = np.linalg.norm(hand.joints_px[joint] - place) / extent
        assert miss < 0.1, f"{sdk.JOINT_NAMES[joint]} is off by {miss:.0%} of the hand"


@pytest.mark.parametrize("name", ["open_turned", "hooked", "fist"])
def test_a_grey_photo_shows_the_same_hand(
    predictor: sdk.Predictor, example_photos: dict[str, Path], name: str
) -> None:
    photo = cv2.imread(str(example_photos[name]))
    grey = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)  # (H, W)
    (hand,) = predictor.predict(example_photos[name])
    (same,) = predictor.predict(grey)
    assert same.handedness == hand.handedness
    moved = np.linalg.norm(same.joints_px - hand.joints_px, axis=1)
    assert moved.max() < 0.1 * np.ptp(hand.joints_px, axis=0).max()


@pytest.mark.parametrize("name", NAMES)
def test_a_hand_follows_a_photo_moved_by_less_than_a_pixel(
    predictor: sdk.Predictor, example_photos: dict[str, Path], name: str
) -> None:
    """A reading that rests on the grid of pixels is none. docs/models.md tells of one look."""
    photo = cv2.imread(str(example_photos[name]))[..., ::-1]
    (still,) = predictor.predict(photo)
    size = np.ptp(still.joints_px, axis=0).max()
    for n, angle in enumerate(np.linspace(0, 2 * np.pi, 24, endpoint=False)):
        step = (0.25, 0.5, 0.75)[n % 3] * np.array([np.cos(angle), np.sin(angle)])
        moved = cv2.warpAffine(
            photo, np.column_stack([np.eye(2), step]), photo.shape[1::-1],
            flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
        (hand,) = predictor.predict(moved)
        apart = np.linalg.norm(hand.joints_px - step - still.joints_px, axis=1).mean()
        assert apart < 0.05 * size


def test_both_runtimes_give_the_same_hand(
    shipped: sdk.Bundle, example_photos: dict[str, Path]
) -> None:
    hands = []
    for backend in ("onnx", "torch"):
        with sdk.load(shipped, backend, threads=1) as predictor:
            hands += predictor.predict(example_photos["pointing"])
    # Both searches end within the tolerance of one crop; the crops may differ in their last bits.
    # The network is not sure of this hand, 450 px long: one file's weights have ten bits.
    assert np.abs(hands[0].joints_px - hands[1].joints_px).max() < 1.0


def test_an_open_hand_is_straighter_than_a_fist(
    predictor: sdk.Predictor, example_photos: dict[str, Path]
) -> None:
    def reach(name: str) -> float:
        """Mean distance of the four fingertips from the wrist, in bone lengths."""
        (hand,) = predictor.predict(example_photos[name])
        bone = np.linalg.norm(hand.joints_m[10] - hand.joints_m[9])
        tips = hand.joints_m[[8, 12, 16, 20]] - hand.joints_m[0]
        return float(np.linalg.norm(tips, axis=1).mean() / bone)

    assert reach("open") > 1.3 * reach("fist")


def test_no_hand_in_plain_pictures(predictor: sdk.Predictor) -> None:
    rows, columns = np.mgrid[:480, :640]
    ramp = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1)
    for picture in (np.full((480, 640, 3), 128), ramp):
        assert predictor.predict(picture.astype(np.uint8)) == []


def test_a_hundred_megapixels_are_no_obstacle(
    predictor: sdk.Predictor, example_photos: dict[str, Path]
) -> None:
    small = cv2.imread(str(example_photos["pointing"]))[..., ::-1]
    large = cv2.resize(small, (8660, 11547), interpolation=cv2.INTER_LINEAR)
    assert large.shape[0] * large.shape[1] > 99e6
    (expected,), (found,) = predictor.predict(np.ascontiguousarray(small)), predictor.predict(large)
    scale = 8660 / small.shape[1]
    difference = np.abs(found.joints_px / scale - expected.joints_px).max()
    assert difference < 0.05 * expected.box.size


def test_the_command_on_a_real_photo(
    example_photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(example_photos["open"]), "--out", str(tmp_path)]) == 0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".glb", ".json", ".png", ".png"]
    hand = json.loads((tmp_path / "open_hand.json").read_text())
    assert hand["depth"] == "assumed"
    assert "onnxruntime" in capsys.readouterr().out


def test_verify_command_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """Of all that ships: the detector runs in every search."""
    assert main(["verify"]) == 0
    printed = capsys.readouterr().out
    assert "FAIL" not in printed
    verified = [line.partition(": ")[0] for line in printed.splitlines() if "files as they" in line]
    folders = bundles_inside()
    assert verified == [str(folders["light"]), str(folders["detector"])]
    assert printed.count("ok   onnxruntime") == 2


def test_verify_command_fails_with_the_detector_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    off = DetectorDifference(8, 9, 1, 0.0, 0.0, 0.0, "onnxruntime, off on purpose")
    monkeypatch.setattr("handmesh.detector_verification.verify_detector", lambda *_: [off])
    assert main(["verify", "--backend", "onnx"]) == 1
    assert "FAIL onnxruntime, off on purpose" in capsys.readouterr().out
