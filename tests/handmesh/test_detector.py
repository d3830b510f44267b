"""The detector in the SDK: letterboxes, rows, what is said when something else comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handmesh import Predictor, cli
from handmesh.archive import read_arrays
from handmesh.bundle import Bundle, shipped
from handmesh.detector import Detector, hand_rows, letterbox
from handmesh.detector_verification import compare_hands, verify_detector
from handmesh.errors import BackendError, BundleError, GraphMismatchError, InputError
from handmesh.imaging import Pyramid
from handmesh.nn import DetectorConfig, DetectorNetwork, StageConfig
from handmesh_converters.detector import write_detector

SMALL = DetectorConfig(
    input_size=64,
    stem_channels=8,
    stages=tuple(StageConfig("fused", width, 1, 2.0) for width in (8, 8, 16, 16)),
    pyramid_channels=(16, 16),
    pyramid_depth=(1, 1),
    candidates=6,
)


@pytest.fixture(scope="module")
def detector_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of a network that nobody has trained, but whose outputs depend on the picture."""
    torch.manual_seed(0)
    network = DetectorNetwork(SMALL)
    with torch.no_grad():
        network.head.weight.normal_(0, 0.5)
        network.head.bias.zero_()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.uniform_(0.5, 1.5)
    pictures = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    folder = tmp_path_factory.mktemp("bundles") / "small"
    bundle, parity = write_detector(
        network.eval(), folder, pictures, provenance={}, licences={"code": "Apache-2.0"}
    )
    assert parity["onnx"].hands > 5
    return bundle


def test_the_shipped_one_is_found_beside_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "detector").mkdir()
    monkeypatch.chdir(tmp_path)
    with Detector() as detector:
        assert detector.bundle.folder == shipped()["detector"]


def test_a_bundle_is_exported_again_from_what_it_holds(
    detector_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, out = detector_bundle, tmp_path / "again"
    export = ["export", str(old.folder), "--format", "onnx"]
    assert cli.main([*export, "--out", str(out)]) == 0
    again = Bundle.load(out)
    assert again.is_detector
    again.check()
    for key in ("config", "licences", "provenance"):
        assert again.manifest[key] == old.manifest[key]
    given, expected = (read_arrays(bundle.file("reference.npz"), "") for bundle in (again, old))
    np.testing.assert_array_equal(given["images"], expected["images"])
    np.testing.assert_allclose(given["hands"], expected["hands"], atol=1e-5)
    assert (old.folder / "model.onnx").exists(), "the old one stays"
    assert "model.onnx" in capsys.readouterr().out

    assert cli.main(export) == 2
    assert "--out DIR" in capsys.readouterr().err
    assert cli.main([*export, "--out", str(out), "--card", "card.json"]) == 2
    assert "--card goes with --checkpoint" in capsys.readouterr().err


def test_a_photo_is_centred_in_a_square_and_black_beyond() -> None:
    photo = np.full((60, 120, 3), 200, dtype=np.uint8)
    square = letterbox(120, 60)

    picture = Pyramid(photo).crop(square, 64)

    assert (picture[:15] == 0).all()
    assert (picture[-15:] == 0).all()
    assert (picture[18:-18, 2:-2] == 200).all()
    # Fractions of the square and pixels of the photo are told from each other exactly.
    np.testing.assert_allclose(
        square.to_image([[0, 0.25], [1, 0.75]]), [[-0.5, -0.5], [119.5, 59.5]]
    )


def test_every_runtime_finds_the_same(detector_bundle: Bundle) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (48, 100, 3), dtype=np.uint8)
    with Detector(detector_bundle, "onnx", 1) as onnx, Detector(detector_bundle, "torch", 1) as own:
        ours, theirs = own.find(photo, 0.2), onnx.find(photo, 0.2)

    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.presence == pytest.approx(other.presence, abs=1e-4)
        assert one.looks_right == pytest.approx(other.looks_right, abs=1e-4)
        assert one.box.size == pytest.approx(other.box.size, rel=1e-4)
        assert one.box.angle == pytest.approx(other.box.angle, abs=1e-3)
    assert [one.presence for one in ours] == sorted((o.presence for o in ours), reverse=True)


def test_the_bundle_is_checked_like_any_other(detector_bundle: Bundle) -> None:
    detector_bundle.check()
    assert detector_bundle.is_detector
    with pytest.raises(BundleError, match=r"handmesh\.detector\.Detector"):
        Predictor(detector_bundle)
    with pytest.raises(BundleError, match="finds no hands"):
        Detector("light")


def test_a_closed_detector_says_so(detector_bundle: Bundle) -> None:
    detector = Detector(detector_bundle)
    assert "onnxruntime" in detector.description
    detector.close()
    with pytest.raises(BackendError, match="closed"):
        detector.find(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize(
    "hands",
    [
        np.zeros((1, 4, 6), np.float32),
        np.full((1, 4, 7), np.nan, np.float32),
        np.zeros((1, 4, 7), np.float32),  # boxes of no size
    ],
)
def test_other_rows_are_refused(hands: np.ndarray) -> None:
    with pytest.raises(BackendError, match="hands"):
        hand_rows({"hands": hands}, "a runtime")


def test_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    pictures = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(InputError, match="64"):
        write_detector(
            DetectorNetwork(SMALL).eval(), tmp_path / "b", pictures, provenance={}, licences={}
        )
    assert not (tmp_path / "b").exists()


def test_weights_of_a_detector_are_of_no_mesh(detector_bundle: Bundle) -> None:
    from handmesh.graph import Topology
    from handmesh.nn import load_weights

    path = detector_bundle.artifact("torch")
    with pytest.raises(GraphMismatchError):
        load_weights(DetectorNetwork(SMALL), path, SMALL, Topology.default())


def test_differences_between_lists_are_measured() -> None:
    hands = np.zeros((1, 3, 7), np.float32)
    hands[0, 0] = (0.9, 0.5, 0.5, 0.3, 1, 0, 0.8)
    hands[0, 1] = (0.6, 0.2, 0.2, 0.1, 0, 1, 0.3)
    other = hands.copy()
    other[0, 0, 1] += 0.001
    other[0, 1, 0] -= 0.02
    other = other[:, [1, 0, 2]]

    found = compare_hands(other, hands, 192)

    assert (found.hands, found.missing) == (2, 0)
    assert found.px == pytest.approx(0.192, abs=1e-3)
    assert found.score == pytest.approx(0.02, abs=1e-6)
    gone = hands.copy()
    gone[0, 1, 0] = 0
    assert compare_hands(gone, hands, 192).missing == 1


def test_a_bundle_is_verified(detector_bundle: Bundle) -> None:
    (found,) = verify_detector(detector_bundle, ["onnx"], threads=1)

    assert found.passed
    assert found.pictures == len(read_arrays(detector_bundle.file("reference.npz"), "")["images"])
    assert "onnxruntime" in found.backend


def test_a_bundle_whose_hands_are_others_does_not_pass(
    detector_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = dict(read_arrays(detector_bundle.file("reference.npz"), ""))
    arrays["hands"] = arrays["hands"].copy()
    arrays["hands"][..., 1] += 0.01  # of the picture: more than half a pixel; all else is right
    monkeypatch.setattr("handmesh.detector_verification.read_arrays", lambda *_: arrays)

    (found,) = verify_detector(detector_bundle, ["onnx"], threads=1)

    assert not found.passed


def test_a_reference_of_crops_is_not_one_of_pictures(
    detector_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handmesh.detector_verification.read_arrays", lambda *_: {})
    with pytest.raises(BundleError, match="make it again"):
        verify_detector(detector_bundle, ["onnx"])


@pytest.mark.parametrize("presence", ["a", None, -0.1, 1.5, float("nan")])
def test_presences_that_are_none_are_refused(detector_bundle: Bundle, presence: Any) -> None:
    with Detector(detector_bundle) as detector, pytest.raises(InputError, match="min_presence"):
        detector.find(np.zeros((32, 32, 3), np.uint8), presence)


def test_rows_without_a_peak_are_no_detections(
    detector_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = np.tile(np.float32([0, 0.5, 0.5, 0.3, 1, 0, 0.8]), (1, 4, 1))
    hands[0, 0, 0] = 1e-4
    with Detector(detector_bundle) as detector:
        monkeypatch.setattr(detector._backend, "outputs", lambda _: {"hands": hands})
        found = detector.find(np.zeros((32, 32, 3), np.uint8), 0)
    assert [one.presence for one in found] == [pytest.approx(1e-4)]
