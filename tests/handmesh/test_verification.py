from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from handmesh import backends
from handmesh.backends import RawOutput
from handmesh.bundle import Bundle, read_manifest, write_manifest
from handmesh.cli import main
from handmesh.errors import BackendUnavailable, BundleError, IntegrityError
from handmesh.graph import Topology
from handmesh.nn import LightConfig, build, save_weights
from handmesh.verification import compare, distances_mm, read_reference, verify

SIZE = 128


@pytest.fixture(scope="module")
def weights(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Random weights of the light network."""
    torch.manual_seed(0)
    config, path = LightConfig(), tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_weights(build(config, topology), path, config, topology)
    return path.read_bytes()


@pytest.fixture
def with_reference(bundle_folder: Path, weights: bytes) -> Path:
    """A bundle of those weights, and of crops with what the network gives for them."""
    (bundle_folder / "weights.safetensors").write_bytes(weights)
    manifest = read_manifest(bundle_folder)
    manifest["artifacts"]["torch"] = {"path": "weights.safetensors"}
    write_manifest(bundle_folder, manifest)
    images = np.random.default_rng(0).integers(0, 256, (10, SIZE, SIZE, 3), dtype=np.uint8)
    output = backends.create("torch", Bundle.load(bundle_folder)).run(images)
    _write_reference(bundle_folder, images, output)
    return bundle_folder


def _write_reference(folder: Path, images: np.ndarray, output: RawOutput) -> None:
    np.savez(folder / "reference.npz", images=images, **output._asdict())
    write_manifest(folder, read_manifest(folder))


def test_a_bundle_that_computes_what_it_should_passes(with_reference: Path) -> None:
    (difference,) = verify(Bundle.load(with_reference))
    assert difference.passed
    assert difference.crops == 10
    assert difference.backend.startswith("torch")
    assert set(difference.outputs) == set(RawOutput._fields)


@pytest.mark.parametrize("output", ["vertices", "joints"])
def test_a_small_difference_is_found(with_reference: Path, output: str) -> None:
    images, reference = read_reference(Bundle.load(with_reference))
    changed = getattr(reference, output).copy()
    changed[7, 3, 0] += 3e-3
    _write_reference(with_reference, images, reference._replace(**{output: changed}))
    (difference,) = verify(Bundle.load(with_reference))
    assert not difference.passed
    assert difference.tensor == pytest.approx(3e-3, rel=0.01)
    assert difference.px == pytest.approx(3e-3 * SIZE, rel=0.01)


@pytest.mark.parametrize("output", ["confidence", "presence", "handedness"])
def test_a_difference_of_scores_is_found(
    with_reference: Path, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images, reference = read_reference(Bundle.load(with_reference))
    inverted = 1 - getattr(reference, output)
    inverted.flat[0] = getattr(reference, output).flat[0] + 0.1  # and where it was a half
    _write_reference(with_reference, images, reference._replace(**{output: inverted}))
    (difference,) = verify(Bundle.load(with_reference))
    assert difference.scores >= 0.09
    assert difference.tensor < 1e-4
    assert not difference.passed
    assert main(["verify", str(with_reference)]) == 1
    assert "FAIL" in capsys.readouterr().out


@pytest.mark.parametrize("stated", [{"colour": 1.0}, {"px": "wide"}, [1.0]])
def test_a_tolerance_that_is_none_is_refused(with_reference: Path, stated: object) -> None:
    manifest = read_manifest(with_reference)
    manifest["artifacts"]["torch"]["tolerance"] = stated
    write_manifest(with_reference, manifest)
    with pytest.raises(BundleError, match="tolerance"):
        verify(Bundle.load(with_reference))


def test_a_wider_tolerance_is_the_manifests_to_give(with_reference: Path) -> None:
    images, reference = read_reference(Bundle.load(with_reference))
    changed = reference.vertices + np.float32(1e-3)
    _write_reference(with_reference, images, reference._replace(vertices=changed))
    assert not verify(Bundle.load(with_reference))[0].passed
    manifest = read_manifest(with_reference)
    manifest["artifacts"]["torch"]["tolerance"] = {"tensor": 0.01, "px": 1.0, "mm": 10.0}
    write_manifest(with_reference, manifest)
    assert verify(Bundle.load(with_reference))[0].passed


@pytest.mark.parametrize("stated", [{"p99_mm": 0.5}, {"point_mm": 0.5}])
def test_what_is_off_everywhere_is_found(with_reference: Path, stated: dict[str, float]) -> None:
    """A millimetre everywhere, where the worst case may be ten."""
    images, reference = read_reference(Bundle.load(with_reference))
    deeper = [array + np.float32([0, 0, 0.03]) for array in reference[:2]]
    deeper[1][:, 0] = reference.joints[:, 0]  # but not the wrist, from which it is measured
    _write_reference(
        with_reference, images, reference._replace(vertices=deeper[0], joints=deeper[1])
    )
    manifest = read_manifest(with_reference)
    wide = {"tensor": 0.1, "px": 5.0, "mm": 50.0}
    for tolerance, passes in ((wide, True), ({**wide, **stated}, False)):
        manifest["artifacts"]["torch"]["tolerance"] = tolerance
        write_manifest(with_reference, manifest)
        assert verify(Bundle.load(with_reference))[0].passed == passes


def test_what_cannot_run_here_is_named(
    with_reference: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handmesh.backends.coreml.unavailable", lambda bundle: "it needs a Mac")
    (with_reference / "model.mlpackage").mkdir()
    (with_reference / "model.mlpackage" / "Manifest.json").write_text("{}")
    manifest = read_manifest(with_reference)
    manifest["artifacts"]["coreml"] = {"path": "model.mlpackage"}
    write_manifest(with_reference, manifest)
    assert main(["verify", str(with_reference)]) == 0
    assert "not run here: coreml: it needs a Mac" in capsys.readouterr().out


def _hands(topology: Topology, count: int) -> RawOutput:
    """The template's hand, seen from the front, filling two thirds of a crop."""
    joints = topology.joint_regressor @ topology.template_vertices_m
    unit = np.linalg.norm(joints[10] - joints[9])

    def normalised(points: np.ndarray) -> np.ndarray:
        uv = (points[:, :2] - points[:, :2].mean(axis=0)) * (0.67 / 0.18) + 0.5
        return np.column_stack([uv, (points[:, 2] - joints[0, 2]) / unit])

    def repeated(array: np.ndarray) -> np.ndarray:
        return np.repeat(array[None].astype(np.float32), count, axis=0)

    return RawOutput(
        repeated(normalised(topology.template_vertices_m)),
        repeated(normalised(joints)),
        *(np.ones((count, *shape), np.float32) for shape in ((21,), (), ())),
    )


def test_differences_in_depth_are_stated_in_millimetres(topology: Topology) -> None:
    reference = _hands(topology, 2)
    vertices = reference.vertices.copy()
    vertices[1, 500, 2] += 0.1  # a tenth of a bone of 47 mm
    difference = compare(
        reference._replace(vertices=vertices), reference, topology.bone_ratios, SIZE, "none", {}
    )
    assert difference.px == 0
    assert difference.mm == pytest.approx(4.7, rel=0.15)


def test_sideways_differences_are_stated_in_both(topology: Topology) -> None:
    reference = _hands(topology, 1)
    vertices = reference.vertices.copy()
    vertices[0, 500, 0] += 0.01
    difference = compare(
        reference._replace(vertices=vertices), reference, topology.bone_ratios, SIZE, "none", {}
    )
    assert difference.px == pytest.approx(0.01 * SIZE, rel=1e-3)
    # The crop is about 0.18 m / 0.67 wide at the hand.
    assert difference.mm == pytest.approx(0.01 * 0.18 / 0.67 * 1e3, rel=0.2)


def test_what_is_not_a_number_does_not_pass(topology: Topology) -> None:
    reference = _hands(topology, 1)
    vertices = reference.vertices.copy()
    vertices[0, 0, 0] = np.nan
    difference = compare(
        reference._replace(vertices=vertices),
        reference,
        topology.bone_ratios,
        SIZE,
        "none",
        {"tensor": 1e9},
    )
    assert not difference.passed


def test_damaged_bundles_are_not_run(with_reference: Path) -> None:
    path = with_reference / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"weights\.safetensors"):
        verify(Bundle.load(with_reference))


def test_reference_must_be_complete(with_reference: Path) -> None:
    np.savez(with_reference / "reference.npz", images=np.zeros(3))
    write_manifest(with_reference, read_manifest(with_reference))
    with pytest.raises(BundleError, match="reference"):
        verify(Bundle.load(with_reference))


def test_nothing_to_run_is_not_a_proof(with_reference: Path) -> None:
    write_manifest(with_reference, read_manifest(with_reference) | {"artifacts": {}})
    with pytest.raises(BackendUnavailable):
        verify(Bundle.load(with_reference))


def test_backends_can_be_chosen(with_reference: Path) -> None:
    bundle = Bundle.load(with_reference)
    assert len(verify(bundle, ["torch"])) == 1
    with pytest.raises(BackendUnavailable):
        verify(bundle, ["onnx"])


def test_millimetres_are_of_crops_that_show_a_hand(topology: Topology) -> None:
    rng = np.random.default_rng(7)
    expected = rng.uniform(0, 1, (3, topology.vertex_count + 21, 3))
    expected[..., 2] -= expected[:, -21:-20, 2]
    points = expected.copy()
    points[1, :, 0] += 0.1
    ratios = topology.bone_ratios

    seen = distances_mm(points, expected, np.array([0.9, 0.2, 0.6]), ratios)
    assert seen.shape == (2, topology.vertex_count + 21)
    assert seen.max() == 0, "what moved is no hand"
    assert distances_mm(points, expected, np.array([0.1, 0.9, 0.1]), ratios).max() > 1
    nothing = distances_mm(points, expected, np.array([0.1, 0.2, 0.3]), ratios)
    assert len(nothing) == 3, "a network that sees no hand at all is judged on every crop"
    assert nothing[1].max() > 1
