"""A detector in every format that takes one, and what is said where none does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh import cli
from handmesh.bundle import Bundle
from handmesh.detector_verification import DETECTOR_TOLERANCE, compare_hands
from handmesh.errors import CheckpointError, ExportError, InputError, ParityError
from handmesh.nn import DetectorConfig, DetectorNetwork, StageConfig
from handmesh.nn.detector import PicturesToHands
from handmesh_converters import formats
from handmesh_converters.detector import (
    ROUNDING_TOLERANCE,
    DetectorTwin,
    export_detector,
    load_detector,
    write_detector,
)
from handmesh_converters.request import Job, Request

SIZE = 64
SMALL = DetectorConfig(
    input_size=SIZE,
    stem_channels=8,
    stages=tuple(StageConfig("fused", width, 1, 2.0) for width in (8, 8, 16, 16)),
    pyramid_channels=(16, 16),
    pyramid_depth=(1, 1),
    candidates=6,
)
TAKING = ("coreml", "onnx", "tflite")


@pytest.fixture(scope="module")
def network() -> DetectorNetwork:
    """Nobody has trained it, but its outputs depend on the picture."""
    torch.manual_seed(0)
    made = DetectorNetwork(SMALL)
    with torch.no_grad():
        made.head.weight.normal_(0, 0.5)
        made.head.bias.zero_()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.uniform_(0.5, 1.5)
    return made.eval()


def _pictures(seed: int, count: int = 5) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def bundle(network: DetectorNetwork, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("detectors") / "small"
    made, _ = write_detector(
        network, folder, _pictures(0), provenance={}, licences={}, export=(), weights="fp32"
    )
    return made


@pytest.mark.parametrize("name", TAKING)
def test_every_format_gives_the_hands_of_the_network(
    bundle: Bundle, network: DetectorNetwork, name: str, tmp_path: Path
) -> None:
    pytest.importorskip({"coreml": "coremltools", "tflite": "litert_torch"}.get(name, name))
    made, parity = export_detector(bundle, tmp_path / "made", [name], Request(precision="fp32"))
    assert parity[name].hands > 5
    assert parity[name].passed
    made.check()
    entry = made.artifacts[name]
    assert entry["tolerance"] == dict(DETECTOR_TOLERANCE)
    assert entry["parity"]["hands"] == parity[name].hands

    # Pictures that no export has seen, and the network as it was before norms were folded.
    pictures = _pictures(1)
    with torch.no_grad():
        expected = PicturesToHands(network)(torch.from_numpy(pictures)).numpy()
    given = formats.load(name).open(made).outputs(pictures)["hands"]
    found = compare_hands(given, expected, SIZE)
    assert found.hands > 5
    assert found.passed
    assert not compare_hands(given[::-1], expected, SIZE).passed, "other pictures have other hands"


def test_core_ml_tells_apps_that_it_takes_photos(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    from handmesh_converters.mil import read_package

    made, _ = export_detector(bundle, tmp_path / "made", ["coreml"])
    assert made.artifacts["coreml"]["precision"] == "fp32", "the default of detectors"
    said = read_package(made.artifact("coreml")).spec.description
    (image,), (hands,) = said.input, said.output
    assert (image.name, image.type.imageType.width) == ("image", SIZE)
    assert "photo" in image.shortDescription
    assert (hands.name, list(hands.type.multiArrayType.shape)) == ("hands", [1, 6, 7])
    assert "turned squares" in said.metadata.shortDescription
    assert json.loads(said.metadata.userDefined["outputs"]) == made.manifest["outputs"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "cuda"], "'cuda' is for networks that give meshes, and this one finds hands"),
        (["--format", "onnx,cuda"], "finds hands: export coreml, onnx, tflite"),
        (["--format", "coreml", "--precision", "fp16"], "it has fp32; onnx and tflite can"),
        (["--format", "onnx", "--graph", "dense"], "has no mesh graph: leave out the form 'dense'"),
        (
            ["--format", "tflite", "--precision", "int8", "--optimize", "static"],
            "a network without a mesh does not have: leave out --optimize",
        ),
    ],
)
def test_what_a_format_cannot_do_for_detectors_is_refused_in_words(
    bundle: Bundle,
    options: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "tflite" in options:
        pytest.importorskip("litert_torch")
    out = tmp_path / "made"
    assert cli.main(["export", str(bundle.folder), *options, "--out", str(out)]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "pictures",
    [
        _pictures(0).astype(np.float32) / 255,
        _pictures(0).astype(np.int64),
        _pictures(0)[0],
        _pictures(0)[:0],
        np.array(5, np.uint8),
        np.full((1, SIZE, SIZE, 3), "a"),
    ],
    ids=["float", "int64", "one", "none", "number", "text"],
)
def test_pictures_of_another_kind_are_refused(
    network: DetectorNetwork, tmp_path: Path, pictures: NDArray[Any]
) -> None:
    said = rf"\(N, 64, 64, 3\) uint8 pictures, not .*{pictures.dtype}: make them"
    with pytest.raises(InputError, match=said):
        write_detector(network, tmp_path / "d", pictures, provenance={}, licences={}, export=())
    assert not list(tmp_path.iterdir())


def test_weights_that_rounding_spoils_are_refused(
    network: DetectorNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handmesh.nn.weights.LARGE", 64)  # this network has few weights
    made, _ = write_detector(
        network, tmp_path / "d", _pictures(0), provenance={}, licences={}, export=()
    )
    rounding = made.artifacts["torch"]["rounding"]
    assert 0 < rounding["px"] < ROUNDING_TOLERANCE["px"]

    monkeypatch.setitem(ROUNDING_TOLERANCE, "px", rounding["px"] / 2)
    with pytest.raises(ParityError, match="the network as stored is off by"):
        write_detector(network, tmp_path / "e", _pictures(0), provenance={}, licences={}, export=())
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_int8_is_proven_on_pictures_that_it_was_not_calibrated_on(
    network: DetectorNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, calibrated, shown = _pictures(0, 6), [], []

    class Format:
        """Hands on the stored network as if it were an artifact, and tells what it was given."""

        FILE = "model.onnx"
        ABLE = replace(formats.load("onnx").ABLE, detector_precisions=("int8",))

        def export(self, twin: DetectorTwin, path: Path, job: Job) -> dict[str, Any]:
            calibrated.append(job.crops)
            path.write_bytes(b"artifact")
            self.twin = twin
            return {"precision": job.precision}

        def open(self, _: Bundle) -> Any:
            return self

        def outputs(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
            shown.append(images)
            with torch.no_grad():
                return {"hands": self.twin(torch.from_numpy(images))[0].numpy()}

    made_of = Format()
    monkeypatch.setattr(formats, "load", lambda _: made_of)
    write_detector(
        network, tmp_path / "d", pictures, provenance={}, licences={}, export=["onnx"],
        request=Request(precision="int8"),
    )  # fmt: skip
    np.testing.assert_array_equal(calibrated[0], pictures[::2])
    np.testing.assert_array_equal(np.concatenate(shown), pictures[1::2])


def test_cuda_is_refused_before_any_work(network: DetectorNetwork, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="finds hands"):
        write_detector(
            network, tmp_path / "d", _pictures(0), provenance={}, licences={}, export=["cuda"]
        )
    job = Job({}, "fp32", frozenset(), _pictures(0))
    with pytest.raises(ExportError, match="which this network does not have"):
        formats.load("cuda").export(DetectorTwin(network), tmp_path / "cuda", job)
    assert not list(tmp_path.iterdir())


def test_what_is_no_detector_s_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(CheckpointError, match=r"there is no file .*checkpoint\.pt"):
        load_detector(path)
    path.write_text("text")
    with pytest.raises(CheckpointError, match="not a checkpoint of a training run") as caught:
        load_detector(path)
    assert "weights_only" not in str(caught.value), "advice to load it unsafely is not passed on"
    torch.save({"config": {}, "average": {}, "step": 1, "images_seen": 1}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of `handmesh train detector`"):
        load_detector(path)


def test_what_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "--list"]) == 0
    parts: dict[str, Any] = {}
    for line in capsys.readouterr().out.splitlines():
        if not line.startswith(" "):
            parts[line] = here = []
        here.append(line.strip())
    assert "of detectors: fp32" in parts["coreml"]
    assert "of detectors: none" in parts["cuda"]
    assert not any(line.startswith("of detectors") for line in parts["onnx"])
